"""U <- P(U - αY), v <- P v, X = U/v, Y <- P Y + G⁺ - G, Y⁰ = G⁰: gradient tracking on directed graphs.

Nedić et al. 2017, Push-DIGing, 1607.03218, algorithm 2. P is column-stochastic, v⁰ = 1. Y is kept as G + S, as in
`gradient_tracking`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax

from dopt.algorithms.gossip.push_sum_sgd import ones, ratio
from dopt.algorithms.method import Method, Rate, gossip
from dopt.algorithms.traits import Neighbours
from dopt.algorithms.trees import add, subtract, zeros
from dopt.types import Mix, Tree


class PushTrackingState(NamedTuple):
    inner: optax.OptState
    mix: Any
    mass: Tree  # U, like params
    weight: jax.Array  # [] v
    correction: Tree  # S = Y - G, like params


@gossip(source="Nedić-Olshevsky-Shi 2017, 1607.03218", sends=Neighbours("column stochastic"), needs_linear_update=True)
def push_diging(optimizer: optax.GradientTransformation, mix: Mix, *, learning_rate: Rate | None = None) -> Method:
    """Push-DIGing: exact on directed and time-varying graphs."""
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> PushTrackingState:
        weight = ones(params)
        travels = (params, weight, zeros(params))
        return PushTrackingState(inner.init(params), mix.init(travels), params, weight, zeros(params))

    def update(grads: Tree, state: PushTrackingState, params: Tree, **extra: object) -> tuple[Tree, PushTrackingState]:
        tracker = add(grads, state.correction)
        updates, new = inner.update(tracker, state.inner, params, **extra)
        half = add(state.mass, updates)
        (moved, gained, tracked), mixed = mix.apply((half, state.weight, tracker), state.mix, **extra)
        mass, weight = add(half, moved), state.weight + gained
        correction = add(state.correction, tracked)
        return subtract(ratio(mass, weight), params), PushTrackingState(new, mixed, mass, weight, correction)

    return Method(init, update)
