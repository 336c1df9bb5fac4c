"""X¹ = W X⁰ - αG⁰; X⁺ = (I + W)X - ½(I + W)X⁻ - α(G - G⁻): exact with a constant rate.

Shi et al. 2015, EXTRA, 1404.6264, eq. (2.13) with W̃ = (I + W)/2. Computed as X <- W X + u(G) + S, S <- S + ½(W - I)X (old
X), S⁰ = 0: the textbook form adds up the rounding errors of W's rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from dopt.algorithms.method import Method, Rate, gossip
from dopt.algorithms.traits import Neighbours
from dopt.algorithms.trees import add, scale, zeros
from dopt.types import Mix, Tree


class ExactState(NamedTuple):
    inner: optax.OptState
    mix: Any
    correction: Tree  # S, like params


@gossip(source="Shi et al. 2015, 1404.6264", sends=Neighbours("symmetric"), needs_linear_update=True)
def extra(optimizer: optax.GradientTransformation, mix: Mix, *, learning_rate: Rate | None = None) -> Method:
    """EXTRA: gossip with a correction that cancels its bias."""
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> ExactState:
        return ExactState(inner.init(params), mix.init(params), zeros(params))

    def update(grads: Tree, state: ExactState, params: Tree, **extra: object) -> tuple[Tree, ExactState]:
        updates, new = inner.update(grads, state.inner, params, **extra)
        moved, mixed = mix.apply(params, state.mix, **extra)
        correction = add(state.correction, scale(0.5, moved))
        return add(updates, moved, state.correction), ExactState(new, mixed, correction)

    return Method(init, update)
