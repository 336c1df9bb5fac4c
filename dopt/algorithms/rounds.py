"""Rounds of local steps, and an outer transformation that steps on what a round adds up to: Δ = x_start - mean x.

Local optimizers keep their state from round to round. Where the problem is weighted, the mean is that of federated averaging.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax

from dopt.algorithms.method import Method, at_boundary, at_least, clock
from dopt.algorithms.trees import add, mean_model, subtract
from dopt.types import Clock, Tree


class RoundsState(NamedTuple):
    inner: optax.OptState
    outer: optax.OptState
    start: Tree  # x_start, like params
    clock: Clock


def rounds(optimizer: optax.GradientTransformation, local_steps: int, outer: optax.GradientTransformation) -> Method:
    """After every H-th step, x <- x_start + (what `outer` makes of Δ); it is told the `step`."""
    at_least("local_steps", local_steps)
    inner, outside = optax.with_extra_args_support(optimizer), optax.with_extra_args_support(outer)

    def init(params: Tree) -> RoundsState:
        return RoundsState(inner.init(params), outside.init(params), params, clock())

    def update(
        grads: Tree, state: RoundsState, params: Tree, *, share: jax.Array | None = None, **extra: object
    ) -> tuple[Tree, RoundsState]:
        updates, new = inner.update(grads, state.inner, params, **extra)
        step = state.clock.step

        def boundary() -> tuple[Tree, Tree, Any]:
            delta = subtract(state.start, mean_model(add(params, updates), share))
            stepped, after = outside.update(delta, state.outer, state.start, step=step)
            start = add(state.start, stepped)
            return subtract(start, params), start, after

        updates, start, after = at_boundary(step, local_steps, boundary, lambda: (updates, state.start, state.outer))
        return updates, RoundsState(new, after, start, state.clock.tick())

    return Method(init, update)
