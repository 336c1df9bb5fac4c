"""X <- W X - αY, Y <- W Y + G⁺ - G, Y⁰ = G⁰: Y follows the mean gradient, so that a constant rate reaches the optimum.

Nedić et al. 2017, DIGing, 1607.03218; adapt then combine, X <- W(X - αY), Y <- W(Y + G⁺ - G): Xu et al. 2015 (Aug-DGM).
Kept as Y = G + S, S <- S + (W - I)Y: once Y is small nothing is added to S any more, so that float32 does not drift.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from dopt.algorithms.method import Method, Rate, clock, gossip
from dopt.algorithms.traits import Neighbours, Options
from dopt.algorithms.trees import add, select, zeros
from dopt.types import Clock, Mix, Tree


class TrackingState(NamedTuple):
    inner: optax.OptState
    mix: Any
    mix_tracker: Any  # adapt then combine: Y travels by itself, over the same links; else ()
    correction: Tree  # S = Y - G, like params
    clock: Clock


def _sends(options: Options, workers: int) -> Neighbours:
    return Neighbours("doubly stochastic", mixes_once=not options["adapt_then_combine"])


@gossip(source="Nedić-Olshevsky-Shi 2017, 1607.03218", sends=_sends, needs_linear_update=True)
def gradient_tracking(
    optimizer: optax.GradientTransformation,
    mix: Mix,
    *,
    learning_rate: Rate | None = None,
    adapt_then_combine: bool = False,
) -> Method:
    """Gradient tracking (DIGing): each worker steps on its estimate of the mean gradient.

    Args:
      adapt_then_combine: mix after the step (Aug-DGM), which allows larger rates.
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> TrackingState:
        none = zeros(params)
        of_models = mix.init(params if adapt_then_combine else (params, none))
        of_trackers = mix.init(none) if adapt_then_combine else ()
        return TrackingState(inner.init(params), of_models, of_trackers, none, clock())

    def together(grads: Tree, state: TrackingState, params: Tree, **extra: object) -> tuple[Tree, TrackingState]:
        tracker = add(grads, state.correction)
        (moved, tracked), mixed = mix.apply((params, tracker), state.mix, **extra)
        updates, new = inner.update(tracker, state.inner, params, **extra)
        return add(updates, moved), TrackingState(new, mixed, (), add(state.correction, tracked), state.clock.tick())

    def in_turn(grads: Tree, state: TrackingState, params: Tree, **extra: object) -> tuple[Tree, TrackingState]:
        # both mixes are of the same step: their states keep the same clock, and so the same W and the same losses
        before = add(grads, state.correction)
        tracked, mixed_tracker = mix.apply(before, state.mix_tracker, **extra)
        tracked = select(state.clock.step == 0, zeros(tracked), tracked)  # Y⁰ = G⁰
        updates, new = inner.update(add(before, tracked), state.inner, params, **extra)
        moved, mixed = mix.apply(add(params, updates), state.mix, **extra)
        correction = add(state.correction, tracked)
        return add(updates, moved), TrackingState(new, mixed, mixed_tracker, correction, state.clock.tick())

    return Method(init, in_turn if adapt_then_combine else together)
