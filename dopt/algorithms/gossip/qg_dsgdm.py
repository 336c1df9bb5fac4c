"""X½ = X - α(βM + G); X⁺ = W X½; M <- βM + (1 - β)(X - X⁺)/α: momentum of the mixed models, not of the local gradients.

Lin et al. 2021, quasi-global momentum, 2102.04761, algorithm 1. M⁰ = 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from dopt.algorithms.method import Method, Rate, clock, gossip
from dopt.algorithms.traits import Neighbours
from dopt.algorithms.trees import add, scale, zeros
from dopt.types import Clock, InputError, Mix, Tree


class QuasiGlobalState(NamedTuple):
    inner: optax.OptState
    mix: Any
    momentum: Tree  # M, like params
    clock: Clock


@gossip(source="Lin et al. 2021, 2102.04761", sends=Neighbours("doubly stochastic"), divides_by_rate=True)
def qg_dsgdm(
    optimizer: optax.GradientTransformation, mix: Mix, *, learning_rate: Rate | None = None, momentum: float = 0.9
) -> Method:
    """Quasi-global momentum: momentum that still helps where the workers' data differ.

    Args:
      learning_rate: α [], or an optax schedule of it; it divides by α.
      momentum: β.
    """
    if learning_rate is None:
        raise InputError("learning_rate: qg_dsgdm divides by it; pass learning_rate=")
    if not 0 <= momentum < 1:
        raise InputError(f"algorithm.momentum: must lie in [0, 1), got {momentum}")
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> QuasiGlobalState:
        return QuasiGlobalState(inner.init(params), mix.init(params), zeros(params), clock())

    def update(grads: Tree, state: QuasiGlobalState, params: Tree, **extra: object) -> tuple[Tree, QuasiGlobalState]:
        direction = add(grads, scale(momentum, state.momentum))
        updates, new = inner.update(direction, state.inner, params, **extra)
        moved, mixed = mix.apply(add(params, updates), state.mix, **extra)
        whole = add(updates, moved)
        rate = learning_rate(state.clock.step) if callable(learning_rate) else learning_rate
        kept = add(scale(momentum, state.momentum), scale(-(1 - momentum) / rate, whole))
        return whole, QuasiGlobalState(new, mixed, kept, state.clock.tick())

    return Method(init, update)
