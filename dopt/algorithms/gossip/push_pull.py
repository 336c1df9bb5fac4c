"""X <- R(X - αY), Y <- C Y + G⁺ - G, Y⁰ = G⁰: models are pulled by a row-stochastic R, gradients pushed by a column-stochastic C.

Pu et al. 2021, Push-Pull, 1803.07588, algorithm 1. Y is kept as G + S, as in `gradient_tracking`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from dopt.algorithms.method import Method, Rate, gossip
from dopt.algorithms.traits import Neighbours
from dopt.algorithms.trees import add, zeros
from dopt.types import Mix, Tree


class PushPullState(NamedTuple):
    inner: optax.OptState
    pull: Any
    push: Any
    correction: Tree  # S = Y - G, like params


@gossip(source="Pu et al. 2021, 1803.07588", sends=Neighbours("row and column stochastic"), needs_linear_update=True)
def push_pull(
    optimizer: optax.GradientTransformation, mix: tuple[Mix, Mix], *, learning_rate: Rate | None = None
) -> Method:
    """Push-Pull: exact on directed graphs, with no weights to divide by.

    Args:
      mix: two of them, of R and of C: `(dopt.mixing.mix(R), dopt.mixing.mix(C))`.
    """
    inner = optax.with_extra_args_support(optimizer)
    pull, push = mix

    def init(params: Tree) -> PushPullState:
        return PushPullState(inner.init(params), pull.init(params), push.init(zeros(params)), zeros(params))

    def update(grads: Tree, state: PushPullState, params: Tree, **extra: object) -> tuple[Tree, PushPullState]:
        tracker = add(grads, state.correction)
        updates, new = inner.update(tracker, state.inner, params, **extra)
        moved, pulled = pull.apply(add(params, updates), state.pull, **extra)
        tracked, pushed = push.apply(tracker, state.push, **extra)
        return add(updates, moved), PushPullState(new, pulled, pushed, add(state.correction, tracked))

    return Method(init, update)
