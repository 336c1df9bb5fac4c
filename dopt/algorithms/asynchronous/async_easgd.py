"""At worker i's arrival, after H local steps on its own xᵢ: δ = β (xᵢ - z); xᵢ <- xᵢ - δ; z <- z + δ.

Zhang, Choromanska, LeCun 2015, 1412.6651, algorithm 1 (its α is our β): models that an elastic force ties to a center z, which is the
result. Local optimizers keep their state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from dopt import delays
from dopt.algorithms.asynchronous.server import Arrivals, Server, Tables, arriving, at, local_descent, put
from dopt.algorithms.method import Method, add, at_least, scale, subtract
from dopt.types import Coordination, InputError, Tree


def _coordination(options: Mapping[str, Any], workers: int) -> Coordination:
    return Coordination(local_steps=options["local_steps"])


@arriving(source="Zhang, Choromanska, LeCun 2015, 1412.6651", coordination=_coordination, whole=True)
def async_easgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Any = None,
    elastic_rate: float = 0.1,
    local_steps: int = 1,
) -> Method:
    """Asynchronous elastic averaging SGD.

    Args:
      elastic_rate: β, how far worker and center move towards each other, in (0, 1).
      local_steps: H, steps of a worker between two exchanges.

    As an optax transformation it takes xᵢ - z, and gives what is added to z.
    """
    if not 0 < elastic_rate < 1:
        raise InputError(f"algorithm.elastic_rate: must lie in (0, 1), got {elastic_rate}; 0.9/n is usual")
    at_least("local_steps", local_steps)
    inner = optax.with_extra_args_support(optimizer)
    descend = local_descent(optimizer, local_steps)

    def init(params: Tree, workers: int, kept: int) -> Tables:
        models = delays.ring(params, workers)
        return Tables(params, jax.vmap(inner.init)(models), models)

    def event(tables: Tables, arrivals: Arrivals, gradient: Callable) -> Tables:
        i = arrivals.worker[0]
        own, state = descend(at(tables.models, i), lambda params, h: gradient(params, 0, h), at(tables.state, i))
        elastic = scale(elastic_rate, subtract(own, tables.params))
        models = put(tables.models, i, subtract(own, elastic))
        return Tables(add(tables.params, elastic), put(tables.state, i, state), models)

    towards = optax.scale(elastic_rate)
    return Method(
        towards.init, lambda grads, state, params=None, **_: towards.update(grads, state), server=Server(init, event)
    )
