"""At worker i's arrival, after H local steps on its own xᵢ: δ = β (xᵢ - z); xᵢ <- xᵢ - δ; z <- z + δ.

Zhang, Choromanska, LeCun 2015, 1412.6651, algorithm 1 (its α is our β): models that an elastic force ties to a center z, which is the
result. `order` says where the first gradient after an exchange is taken:

joint: where xᵢ was before the exchange, as algorithm 1 has it. At rest β (xᵢ - z) = -α gᵢ, xᵢ as it comes to the exchange.
gradient_first: where the exchange has left xᵢ. At rest β (xᵢ - z) = -(1 - β) α gᵢ, xᵢ as it leaves the exchange.

Local optimizers keep their state, and schedules count a worker's own steps, as the clock tᵢ of algorithm 1 does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from dopt import rings
from dopt.algorithms.method import Method, Rate, arriving, at_least, check_order
from dopt.algorithms.server import Arrivals, ServerProgram, Tables, at, local_descent, put
from dopt.algorithms.traits import Options, Server
from dopt.algorithms.trees import add, scale, subtract, when
from dopt.types import Coordination, InputError, Tree


class ElasticState(NamedTuple):
    inner: optax.OptState  # leaves [workers, ...]
    before: (
        Tree  # leaves [workers, ...]: each xᵢ as it came to its last exchange; None where no gradient is taken there
    )


def _sends(options: Options, workers: int) -> Server:
    return Server(Coordination(local_steps=options["local_steps"]))


@arriving(source="Zhang, Choromanska, LeCun 2015, 1412.6651", sends=_sends, sends_model=True, weighs=None, steps="own")
def async_easgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    elastic_rate: float = 0.1,
    local_steps: int = 1,
    order: str = "joint",
) -> Method:
    """Asynchronous elastic averaging SGD.

    Args:
      elastic_rate: β, how far worker and center move towards each other, in (0, 1).
      local_steps: H, steps of a worker between two exchanges.
      order: joint or gradient_first, as above.

    As an optax transformation it takes xᵢ - z, and gives what is added to z.
    """
    if not 0 < elastic_rate < 1:
        raise InputError(f"algorithm.elastic_rate: must lie in (0, 1), got {elastic_rate}; 0.9/n is usual")
    at_least("local_steps", local_steps)
    check_order(order)
    inner = optax.with_extra_args_support(optimizer)
    descend = local_descent(optimizer, local_steps)

    def init(params: Tree, workers: int, kept: int) -> Tables:
        models = rings.copies(params, workers)
        return Tables(params, ElasticState(jax.vmap(inner.init)(models), models if order == "joint" else None), models)

    def event(tables: Tables, arrivals: Arrivals, gradient: Callable[..., Tree]) -> Tables:
        i, (states, before) = arrivals.worker[0], tables.state

        def taken(params: Tree, h: jax.Array | int) -> Tree:
            return gradient(params if before is None else when(h == 0, at(before, i), params), 0, h)

        own, state = descend(at(tables.models, i), taken, at(states, i))
        elastic = scale(elastic_rate, subtract(own, tables.params))
        models = put(tables.models, i, subtract(own, elastic))
        after = ElasticState(put(states, i, state), None if before is None else put(before, i, own))
        return Tables(add(tables.params, elastic), after, models)

    towards = optax.scale(elastic_rate)
    return Method(
        towards.init,
        lambda grads, state, params=None, **_: towards.update(grads, state),
        server=ServerProgram(init, event),
    )
