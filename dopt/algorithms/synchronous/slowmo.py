"""Local SGD whose rounds have momentum: v <- β v + (x_start - mean x)/α; x <- x_start - γ α v after every H-th step.

Wang, Tantia, Ballas, Rabbat 2019, 1910.00643, algorithm 1. v⁰ = 0; x_start is where the round began. Local optimizers keep their
state (the paper's "maintain").
"""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from dopt.algorithms.method import Method, add, at_boundary, at_least, clock, mean, scale, subtract, synchronous, zeros
from dopt.types import Clock, InputError, Reduction, Tree


class SlowMoState(NamedTuple):
    inner: optax.OptState
    start: Tree  # x_start, like params
    slow: Tree  # v, like params
    clock: Clock


@synchronous(
    source="Wang et al. 2019, 1910.00643", rate=True, reduction=lambda options: Reduction(options["local_steps"])
)
def slowmo(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Any = None,
    local_steps: int = 10,
    momentum: float = 0.5,
    slow_rate: float = 1.0,
) -> Method:
    """SlowMo: local SGD with slow momentum over whole rounds.

    Args:
      learning_rate: α [], or an optax schedule of it; it divides by it.
      local_steps: H.
      momentum: β.
      slow_rate: γ.
    """
    if learning_rate is None:
        raise InputError("learning_rate: slowmo divides by it; pass learning_rate=")
    at_least("local_steps", local_steps)
    if not 0 <= momentum < 1:
        raise InputError(f"algorithm.momentum: must lie in [0, 1), got {momentum}")
    if not slow_rate > 0:
        raise InputError(f"algorithm.slow_rate: must be positive, got {slow_rate}")
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> SlowMoState:
        return SlowMoState(inner.init(params), params, zeros(params), clock())

    def update(grads: Tree, state: SlowMoState, params: Tree, **extra: Any) -> tuple[Tree, SlowMoState]:
        updates, new = inner.update(grads, state.inner, params, **extra)
        rate = learning_rate(state.clock.step) if callable(learning_rate) else learning_rate

        def boundary() -> tuple[Tree, Tree, Tree]:
            moved = subtract(state.start, mean(add(params, updates)))
            slow = add(scale(momentum, state.slow), scale(1 / rate, moved))
            start = add(state.start, scale(-slow_rate * rate, slow))
            return subtract(start, params), start, slow

        step = state.clock.step
        updates, start, slow = at_boundary(step, local_steps, boundary, lambda: (updates, state.start, state.slow))
        return updates, SlowMoState(new, start, slow, state.clock.tick())

    return Method(init, update)
