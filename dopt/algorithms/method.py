"""What a method is: an optax transformation with collectives inside, and the model at which it wants its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax import lax

from dopt.registry import Registry
from dopt.types import AXIS, InputError, Tree

ALGORITHMS = Registry("algorithm")


def own_params(state: Any, params: Tree, **extra: Any) -> Tree:
    """The default `read`: the worker's own present model."""
    return params


class Method(optax.GradientTransformationExtraArgs):
    """`init`, `update(grads, state, params, **extra)` and `read(state, params, **extra)`.

    A subclass of optax's type with extra args, since `optax.chain` keeps the extra args from a plain pair, silently.
    """

    read: Callable[..., Tree]

    def __new__(cls, init: Callable, update: Callable, read: Callable[..., Tree] = own_params) -> Method:
        self = super().__new__(cls, init, update)
        self.read = read
        return self


def method(
    *,
    family: str,
    source: str,
    sends: str,
    needs: str | None = None,
    staleness: str | None = None,
    cluster: str | None = None,
    events: bool = False,
) -> Callable[[Callable], Callable]:
    """Register a builder `name(optimizer, mix=None, *, learning_rate=None, **options)` under its own name.

    Args:
      family: synchronous, asynchronous or gossip.
      source: the paper, with equation or algorithm number.
      sends: what a step costs: "allreduce", "neighbours" (a model to each) or "server" (a gradient up, a model down).
      needs: the kind of mixing matrix that the theory asks for; None: the method takes no mix.
      staleness: who draws the delay: "step" (one per step), "edge" (one per sender and step); None: it reads no delay.
      cluster: whom a step waits for: "all", "neighbours", "nobody"; None: it reads no cluster.
      events: driven by arrivals at a server; there is no axis of workers.
    """
    return ALGORITHMS.register(
        source=source, family=family, sends=sends, needs=needs, staleness=staleness, cluster=cluster, events=events
    )


def make(
    name: str, optimizer: optax.GradientTransformation, mix: Any = None, *, learning_rate: Any = None, **options: Any
) -> Method:
    """The method `name` as an optax transformation, for one's own training loop inside an axis named "workers".

    Args:
      name: a registered method.
      optimizer: the local optimizer whose update is u(g); any optax one.
      mix: a `dopt.mixing.Mix`, for gossip methods.
      learning_rate: the rate itself, for methods that divide by it.
      **options: the method's own.

    Raises:
      InputError: unknown name or option, or a mix that is missing or not wanted.
    """
    entry = ALGORITHMS[name]
    if (mix is None) != (entry.traits["needs"] is None):
        raise InputError(
            f"algorithm: {name} {'needs a mix; pass dopt.mixing.mix(W)' if mix is None else 'takes no mix'}"
        )
    options = entry.options(options, "algorithm", implied=("learning_rate",))
    return entry.make(optimizer, mix, learning_rate=learning_rate, **options)


def chain(*parts: optax.GradientTransformation) -> Method:
    """Optax's chain, with the one non-default `read` of its parts (two are an error)."""
    whole = optax.chain(*parts)
    reads = [(i, part.read) for i, part in enumerate(parts) if isinstance(part, Method) and part.read is not own_params]
    if len(reads) > 1:
        raise InputError(f"chain: at most one part may say where the gradient is taken, got {len(reads)}")
    update = optax.with_extra_args_support(whole).update
    if not reads:
        return Method(whole.init, update)
    ((i, read),) = reads
    return Method(whole.init, update, lambda state, params, **extra: read(state[i], params, **extra))


def mean(tree: Tree) -> Tree:
    """Average over the workers: psum over n, the all-reduce."""
    return lax.pmean(tree, AXIS)


def add(a: Tree, b: Tree) -> Tree:
    return jax.tree.map(lambda x, y: x + y, a, b)


def select(predicate: Any, a: Tree, b: Tree) -> Tree:
    return jax.tree.map(lambda x, y: jax.numpy.where(predicate, x, y), a, b)
