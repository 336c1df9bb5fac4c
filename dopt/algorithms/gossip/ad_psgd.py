"""xᵢ, xⱼ <- (xᵢ + xⱼ)/2, then xᵢ <- xᵢ + u(g): a worker that has computed g, at the model it began with, meets a random neighbour.

Lian et al. 2018, 1710.06952, algorithm 1 (AD-PSGD): gossip without barriers, whose averages are exact. One step is the update of one
worker. Schedules count a worker's own steps, on average 1/n of the run's: there is no server to count for all.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import optax

from dopt.algorithms.method import Method, Rate, algorithm
from dopt.algorithms.server import Arrivals, ServerProgram, Tables, at, put
from dopt.algorithms.traits import Pairs
from dopt.types import Mix, Tree


@algorithm(family="gossip", source="Lian et al. 2018, 1710.06952", sends=Pairs(), steps="own")
def ad_psgd(optimizer: optax.GradientTransformation, mix: Mix | None, *, learning_rate: Rate | None = None) -> Method:
    """Asynchronous decentralized SGD: average with one neighbour at a time, and wait for nobody."""
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree, workers: int, kept: int) -> Tables:
        return Tables(params, jax.vmap(inner.init)(params), params)

    def event(tables: Tables, arrivals: Arrivals, gradient: Callable[..., Tree]) -> Tables:
        i, j, models = arrivals.worker[0], arrivals.partner, tables.params
        grads = gradient(at(tables.models, i), 0, 0)
        mean = jax.tree.map(lambda x: (x[i] + x[j]) / 2, models)
        updates, state = inner.update(grads, at(tables.state, i), at(models, i))
        own = optax.apply_updates(mean, updates)
        models = put(put(models, j, mean), i, own)
        return Tables(models, put(tables.state, i, state), put(tables.models, i, own))

    return Method(inner.init, inner.update, server=ServerProgram(init, event))
