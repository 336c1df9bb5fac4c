"""After every H-th step an outer optimizer steps on Δ = x_start - mean x, from where the round began.

Douillard et al. 2023, 2311.08105, algorithm 1: AdamW inside, SGD with Nesterov momentum outside. Local optimizers keep their state.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from dopt.algorithms.method import (
    Method,
    add,
    at_boundary,
    at_least,
    clock,
    mean,
    outer_optimizer,
    subtract,
    synchronous,
)
from dopt.types import Clock, Reduction, Tree


class DiLoCoState(NamedTuple):
    inner: optax.OptState
    outer: optax.OptState
    start: Tree  # x_start, like params
    clock: Clock


@synchronous(source="Douillard et al. 2023, 2311.08105", reduction=lambda options: Reduction(options["local_steps"]))
def diloco(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Any = None,
    local_steps: int = 10,
    outer: str = "sgd",
    outer_learning_rate: float = 0.7,
    outer_momentum: float = 0.9,
) -> Method:
    """DiLoCo: local steps, and an outer optimizer on what they add up to.

    Args:
      local_steps: H.
      outer: sgd (with Nesterov momentum) or adam.
      outer_learning_rate, outer_momentum: of the outer optimizer.
    """
    at_least("local_steps", local_steps)
    inner = optax.with_extra_args_support(optimizer)
    outside = outer_optimizer(outer, outer_learning_rate, outer_momentum)

    def init(params: Tree) -> DiLoCoState:
        return DiLoCoState(inner.init(params), outside.init(params), params, clock())

    def update(grads: Tree, state: DiLoCoState, params: Tree, **extra: Any) -> tuple[Tree, DiLoCoState]:
        updates, new = inner.update(grads, state.inner, params, **extra)

        def boundary() -> tuple[Tree, Tree, Any]:
            delta = subtract(state.start, mean(add(params, updates)))
            stepped, after = outside.update(delta, state.outer, state.start)
            start = add(state.start, stepped)
            return subtract(start, params), start, after

        step = state.clock.step
        updates, start, after = at_boundary(step, local_steps, boundary, lambda: (updates, state.start, state.outer))
        return updates, DiLoCoState(new, after, start, state.clock.tick())

    return Method(init, update)
