"""ψ = X - αG; X⁺ = V(ψ + X - ψ⁻), ψ⁻ = X⁰ at first, V = (I + W)/2: exact with a constant rate.

Yuan et al. 2018, exact diffusion, 1702.05122, algorithm 1. Computed as Φ = X + u(G) + S, X <- VΦ, S <- S + (V - I)Φ: the
textbook form adds up the rounding errors of W's rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from dopt.algorithms.method import Method, Rate, clock, gossip
from dopt.algorithms.traits import Neighbours
from dopt.algorithms.trees import add, scale, select, zeros
from dopt.types import Clock, Mix, Tree


class DiffusionState(NamedTuple):
    inner: optax.OptState
    mix: Any
    correction: Tree  # S, like params
    clock: Clock


def diffusion(
    optimizer: optax.GradientTransformation, mix: Mix, fraction: float, local_first_step: bool = False
) -> Method:
    """Exact diffusion with V - I = fraction (W - I), after one local step where asked."""
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> DiffusionState:
        return DiffusionState(inner.init(params), mix.init(params), zeros(params), clock())

    def update(grads: Tree, state: DiffusionState, params: Tree, **extra: object) -> tuple[Tree, DiffusionState]:
        updates, new = inner.update(grads, state.inner, params, **extra)
        step = add(updates, state.correction)
        moved, mixed = mix.apply(add(params, step), state.mix, **extra)
        moved = scale(fraction, moved)
        if local_first_step:
            moved = select(state.clock.step == 0, zeros(moved), moved)
        correction = add(state.correction, moved)
        return add(step, moved), DiffusionState(new, mixed, correction, state.clock.tick())

    return Method(init, update)


@gossip(source="Yuan et al. 2018, 1702.05122", sends=Neighbours("symmetric"), needs_linear_update=True)
def exact_diffusion(optimizer: optax.GradientTransformation, mix: Mix, *, learning_rate: Rate | None = None) -> Method:
    """Exact diffusion: adapt, correct, combine."""
    return diffusion(optimizer, mix, fraction=0.5)
