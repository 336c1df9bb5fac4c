"""The parameter server as a scan over updates: who delivers what and when is a schedule that the clock has made.

Li et al. 2014 (OSDI): worker i pushes g = ∇fᵢ(x^v), computed at the version v it pulled, and pulls again. A replay needs the
models that are still to be read, and no others. A server rule is an optax transformation that gets one gradient at a time;
`server` makes an event of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import optax
from jax import lax

from dopt import rings
from dopt.algorithms.method import Method, at_count, at_least
from dopt.algorithms.traits import Options, Server
from dopt.algorithms.trees import add, scale, when, zeros
from dopt.types import Coordination, InputError, Tree


class Arrivals(NamedTuple):
    """One update of a schedule: whose gradients it is made of. What fills up a shorter one has weight 0."""

    worker: Any  # [batch] int32
    number: Any  # [batch] int32: which of the worker's computations this is; the first of a round
    staleness: Any  # [batch] int32: updates since the worker's pull
    weight: Any  # [batch]: what it counts
    read: Any  # [batch] int32: where, among the models kept, the one is that was pulled
    write: Any  # [] int32: where the new model is kept
    partner: Any = None  # [] int32: whom the worker meets; None: there is a server
    version: Any = None  # [batch] int32: updates made when the worker pulled, which the replay fills in


class Tables(NamedTuple):
    params: Tree  # the server's model; without one, all workers' models, leaves [workers, ...]
    state: Any  # of the optimizer
    models: Tree  # leaves [kept, ...]: those at which gradients are still to be taken


class ServerProgram(NamedTuple):
    """init(params, workers, kept) -> Tables; event(tables, arrivals, gradient) -> Tables.

    `gradient(params, k, h)` is the h-th computation of the round that the k-th of the arrivals brings.
    """

    init: Callable[[Tree, int, int], Tables]
    event: Callable[..., Tables]


def at(table: Tree, i: jax.Array | int) -> Tree:
    return jax.tree.map(lambda x: x[i], table)


def put(table: Tree, i: jax.Array | int, tree: Tree) -> Tree:
    """The table with `tree` as its row i, which is one of its rows: `at[i].set` would ask so in each step."""
    return jax.tree.map(lambda x, new: lax.dynamic_update_index_in_dim(x, new, i, 0), table, tree)


def one_gradient(stale: Tree, gradient: Callable[..., Tree], version: jax.Array) -> Tree:
    """A worker's work between pull and push: one gradient."""
    return gradient(stale, 0)


def server(rule: optax.GradientTransformation, work: Callable[..., Tree] = one_gradient) -> ServerProgram:
    """The event of a server rule: what arrives is worked into the model, which is then there to be pulled.

    `work(stale, gradient, version)` makes a worker's message, `gradient(params, h)` being its h-th computation, and `stale` the model
    after so many updates. The rule is told `applied`, `staleness`, `worker`, `weight`, `stale_params` and `hvp` (v -> ∇²f(x^v)v) as extra arguments; of an update made of several
    it gets their weighted sum, at once, and no `stale_params` and `hvp`.
    """
    rule = optax.with_extra_args_support(rule)

    def init(params: Tree, workers: int, kept: int) -> Tables:
        return Tables(params, rule.init(params), rings.copies(params, kept))

    def event(tables: Tables, arrivals: Arrivals, gradient: Callable[..., Tree]) -> Tables:
        def message(k: jax.Array | int) -> tuple[Tree, Tree]:
            stale = at(tables.models, arrivals.read[k])
            return work(stale, lambda params, h: gradient(params, k, h), arrivals.version[k]), stale

        several = len(arrivals.worker)
        if several == 1:
            sent, stale = message(0)
            extra = {
                "staleness": arrivals.staleness[0],
                "worker": arrivals.worker[0],
                "weight": arrivals.weight[0],
                "stale_params": stale,
                "hvp": lambda v: jax.jvp(lambda params: gradient(params, 0, 0), (stale,), (v,))[1],
            }
        else:
            each = jax.vmap(lambda k: message(k)[0])(jnp.arange(several))
            total = partial(jnp.tensordot, axes=1, precision=lax.Precision.HIGHEST)
            sent = jax.tree.map(lambda x: total(arrivals.weight.astype(x.dtype), x), each)
            extra = {"staleness": arrivals.staleness, "worker": arrivals.worker, "weight": 1.0}
        updates, state = rule.update(sent, tables.state, tables.params, applied=True, **extra)
        params = optax.apply_updates(tables.params, updates)
        return Tables(params, state, put(tables.models, arrivals.write, params))

    return ServerProgram(init, event)


def server_of(rule: Method) -> ServerProgram:
    """A method's own, or what `server` makes of it."""
    return rule.server or server(rule)


# -- what rules are made of --


def stepping(
    optimizer: optax.GradientTransformation,
    factor: Callable[[jax.Array], jax.Array] | None = None,
    accepts: Callable[[jax.Array | int], jax.Array | bool] = lambda staleness: True,
    **more: Callable[..., Tree],
) -> Method:
    """Step on each gradient that is applied, x <- x + factor(τ) u(g).

    Args:
      factor: staleness -> the factor of the update; None: 1.
      accepts: staleness -> whether a gradient is applied, where the rule is not told `applied`.
    """
    inner = optax.with_extra_args_support(optimizer)

    def update(
        grads: Tree,
        state: optax.OptState,
        params: Tree = None,
        *,
        applied: jax.Array | bool | None = None,
        staleness: jax.Array | int = 0,
        **extra: object,
    ) -> tuple[Tree, Any]:
        updates, new = inner.update(grads, state, params, **extra)
        if factor is not None:
            # an integer's own division would be float32
            updates = scale(factor(jnp.asarray(staleness, jnp.result_type(float))), updates)
        made = accepts(staleness) if applied is None else applied
        return when(made, updates, zeros(updates)), when(made, new, state)

    return Method(inner.init, update, **more)


class CollectingState(NamedTuple):
    inner: optax.OptState
    sum: Tree  # of what has come since the last update, each with its weight
    held: jax.Array  # [] int32 how many have


def collecting(
    optimizer: optax.GradientTransformation,
    size: int | None,
    weight_of: Callable[[jax.Array | int], jax.Array | float] = lambda staleness: 1.0,
    **more: Callable[..., Tree],
) -> Method:
    """Step on several gradients together, x <- x + u(Σ weight g), once an update is full; nothing before.

    Args:
      size: gradients of an update, where the rule is not told `applied` (whether this one fills it); None: it must be told.
      weight_of: staleness -> what a gradient counts (0: it is dropped), over `size`, where the rule is not told `weight`.
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> CollectingState:
        return CollectingState(inner.init(params), zeros(params), jnp.zeros((), jnp.int32))

    def update(
        grads: Tree,
        state: CollectingState,
        params: Tree = None,
        *,
        applied: jax.Array | bool | None = None,
        weight: jax.Array | float | None = None,
        staleness: jax.Array | int = 0,
        **extra: object,
    ) -> tuple[Tree, CollectingState]:
        if size is None and (applied is None or weight is None):
            raise InputError("update: this rule must be told `applied` and `weight`; its schedule knows them")
        if weight is None:
            weight = weight_of(staleness) / (size or 1)
        count = state.held + (jnp.asarray(weight) != 0)
        full = count == size if applied is None else applied
        total = add(state.sum, scale(weight, grads))
        updates, new = inner.update(total, state.inner, params, **extra)
        nothing = CollectingState(new, zeros(total), jnp.zeros_like(count))
        return when(full, updates, zeros(updates)), when(full, nothing, CollectingState(state.inner, total, count))

    return Method(init, update, **more)


def local_descent(
    optimizer: optax.GradientTransformation, local_steps: int
) -> Callable[..., tuple[Tree, optax.OptState]]:
    """(start, gradient, state) -> (model after so many steps of the optimizer, its state).

    Where `count` is given, the optimizer starts afresh, but for its schedules, which have counted so far.
    """
    inner = optax.with_extra_args_support(optimizer)

    def descend(
        start: Tree, gradient: Callable[..., Tree], state: optax.OptState = None, count: jax.Array | None = None
    ) -> tuple[Tree, optax.OptState]:
        def step(h: jax.Array | int, carry: tuple[Tree, optax.OptState]) -> tuple[Tree, optax.OptState]:
            params, state = carry
            state = state if count is None else at_count(state, count)
            updates, state = inner.update(gradient(params, h), state, params)
            return optax.apply_updates(params, updates), state

        begin = start, inner.init(start) if state is None else state
        return step(0, begin) if local_steps == 1 else lax.fori_loop(0, local_steps, step, begin)

    return descend


def first(**rule: Any) -> Callable[[Options, int], Server]:
    """What a method sends whose updates are made of the first K gradients."""

    def sends(options: Options, workers: int) -> Server:
        k = default_k(options["k"], workers)
        if rule.get("waits") and k > workers:
            raise InputError(
                f"algorithm.k: each worker waits with one gradient, so k must not exceed workers={workers}, got {k}; use a k_batch_ method"
            )
        return Server(Coordination(gradients=k, **rule))

    return sends


@overload
def default_k(k: int | None, workers: int) -> int: ...
@overload
def default_k(k: int | None, workers: int | None) -> int | None: ...
def default_k(k: int | None, workers: int | None) -> int | None:
    """K; where it is not given, half of the workers, rounded up; None where nothing is known."""
    if k is None:
        return None if workers is None else (workers + 1) // 2
    at_least("k", k)
    return k


__all__ = [
    "Arrivals",
    "ServerProgram",
    "Tables",
    "at",
    "collecting",
    "default_k",
    "first",
    "local_descent",
    "one_gradient",
    "put",
    "server",
    "server_of",
    "stepping",
]
