"""The parameter server as a scan over arrivals: who delivers what and when is a schedule that the clock has made.

Li et al. 2014 (OSDI): worker i pushes g = ∇fᵢ(x^v), computed at the version v it pulled, and pulls again. The table of
pulled models is all that a replay needs. A server rule is an optax transformation; `server` makes the event of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dopt.types import Tree


class Arrival(NamedTuple):
    """One row of a schedule."""

    worker: Any  # [] int32
    batch: Any  # [] int32: which of the worker's computations this is
    staleness: Any  # [] int32: updates applied since the worker's pull


class Tables(NamedTuple):
    params: Tree  # the server's model
    state: Any  # the server's optimizer
    pulled: Tree  # leaves [workers, ...]: the model each worker computes at


class Server(NamedTuple):
    """init(params, workers) -> Tables; event(tables, arrival, gradient) -> Tables."""

    init: Callable[[Tree, int], Tables]
    event: Callable[..., Tables]


def server(rule: optax.GradientTransformation) -> Server:
    """The event of a one-gradient rule: the arriving worker's gradient is applied, then it pulls.

    `gradient(params, worker, batch) -> grads` is the worker's computation. The rule is told `applied`,
    `staleness`, `worker`, `weight` and `stale_params` as extra arguments.
    """
    rule = optax.with_extra_args_support(rule)

    def init(params: Tree, workers: int) -> Tables:
        return Tables(
            params, rule.init(params), jax.tree.map(lambda x: jnp.broadcast_to(x, (workers, *x.shape)), params)
        )

    def event(tables: Tables, arrival: Arrival, gradient: Callable) -> Tables:
        stale = jax.tree.map(lambda x: x[arrival.worker], tables.pulled)
        grads = gradient(stale, arrival.worker, arrival.batch)
        extra = {
            "applied": True,
            "staleness": arrival.staleness,
            "worker": arrival.worker,
            "weight": 1.0,
            "stale_params": stale,
        }
        updates, state = rule.update(grads, tables.state, tables.params, **extra)
        params = optax.apply_updates(tables.params, updates)
        pulled = jax.tree.map(lambda table, x: table.at[arrival.worker].set(x), tables.pulled, params)
        return Tables(params, state, pulled)

    return Server(init, event)
