"""xᵢ <- xᵢ + u(gᵢ) - β (yᵢ - z), z <- z + β Σᵢ (yᵢ - z) in every H-th step, both with the old z; else xᵢ <- xᵢ + u(gᵢ).

Zhang, Choromanska, LeCun 2015, 1412.6651: models that an elastic force ties to a center z, z⁰ = x⁰. Their α is our β, their
learning rate η our α, their β n times ours. `order` says where the force is taken:

joint: at yᵢ = xᵢ, where the gradient is taken, too: equations (5) and (6). At rest β (xᵢ - z) = -α gᵢ.
gradient_first: at yᵢ = xᵢ + u(gᵢ), an exchange after the step, as `averageParameters` of torch-distlearn's AllReduceEA is called.
  At rest β (xᵢ - z) = -(1 - β) α gᵢ.

Both f(x̄) and f(z) are recorded. Algorithm 1, which is asynchronous, exchanges in steps 1, H + 1, 2H + 1, ...: its first exchange, of
models that are all z⁰, moves nothing, and ours are in steps H, 2H, ...
"""

from __future__ import annotations

from typing import NamedTuple

import optax
from jax import lax

from dopt.algorithms.method import Method, Rate, at_boundary, at_least, check_order, clock, synchronous
from dopt.algorithms.traits import AllReduce
from dopt.algorithms.trees import add, mean, scale, subtract
from dopt.types import AXIS, Clock, InputError, Reduction, Tree


class ElasticState(NamedTuple):
    inner: optax.OptState
    center: Tree  # z, like params, the same on all workers
    clock: Clock


@synchronous(
    source="Zhang, Choromanska, LeCun 2015, 1412.6651, equations (5) and (6)",
    sends=lambda options, workers: AllReduce(Reduction(options["local_steps"])),
    center=lambda state: state.center,
    weighs=None,
    steps="own",
)
def easgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    elastic_rate: float | None = None,
    local_steps: int = 1,
    order: str = "joint",
    workers: int | None = None,
) -> Method:
    """Elastic averaging SGD.

    Args:
      elastic_rate: β; None: 0.9/n, as in the paper's experiments. n β must be below 2, else z runs away.
      local_steps: H, steps between two exchanges.
      order: joint or gradient_first, as above.
      workers: n.
    """
    at_least("local_steps", local_steps)
    check_order(order)
    if elastic_rate is None and workers is None:
        raise InputError("algorithm.elastic_rate: give it, or workers= for 0.9/n")
    pull = elastic_rate if elastic_rate is not None else 0.9 / (workers or 1)
    if not 0 < pull < 1 or (workers or 1) * pull >= 2:
        raise InputError(
            f"algorithm.elastic_rate: must lie between 0 and 1, and below 2/n = {2 / (workers or 1):.3g}, got {pull}; 0.9/n is usual"
        )
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> ElasticState:
        return ElasticState(inner.init(params), mean(params), clock())

    def update(grads: Tree, state: ElasticState, params: Tree, **extra: object) -> tuple[Tree, ElasticState]:
        updates, new = inner.update(grads, state.inner, params, **extra)

        def boundary() -> tuple[Tree, Tree]:
            pulled = params if order == "joint" else add(params, updates)
            distance = scale(pull, subtract(pulled, state.center))
            return subtract(updates, distance), add(state.center, lax.psum(distance, AXIS))

        updates, center = at_boundary(state.clock.step, local_steps, boundary, lambda: (updates, state.center))
        return updates, ElasticState(new, center, state.clock.tick())

    return Method(init, update)
