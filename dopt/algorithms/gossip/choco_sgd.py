"""X½ = X + u(G); X̂ <- X̂ + C(X½ - X̂); X <- X½ + γ(W - I)X̂: gossip with compressed differences to what the others know.

Koloskova et al. 2019, CHOCO-SGD, 1902.00340, algorithm 2; X̂⁰ = 0. Only C(·) travels: X̂ is what every neighbour knows of a
worker, and each keeps it up to date by itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from dopt import compression
from dopt.algorithms.method import Method, Rate, clock, compressed, gossip
from dopt.algorithms.traits import Neighbours
from dopt.algorithms.trees import add, scale, subtract, zeros
from dopt.types import Clock, InputError, Mix, Tree


class ChocoState(NamedTuple):
    inner: optax.OptState
    mix: Any
    public: Tree  # X̂, like params
    operator: Any
    clock: Clock


@gossip(source="Koloskova et al. 2019, 1902.00340", sends=Neighbours("doubly stochastic"))
def choco_sgd(
    optimizer: optax.GradientTransformation,
    mix: Mix,
    *,
    learning_rate: Rate | None = None,
    seed: Any = 0,
    compressor: str = "top_k",
    consensus_rate: float = 0.1,
    memory: bool = True,
    **operator: Any,
) -> Method:
    """CHOCO-SGD: gossip that sends a small part of the change.

    Args:
      compressor: a name in `dopt list compressors`; its own options are given like this one, as `algorithm.fraction`.
      consensus_rate: γ; the smaller the message, the smaller it must be.
      memory: false sends C(X½) itself, and uses it in place of X̂: plain compressed gossip, which stalls where C is large.
      seed: of what the compressor draws.
    """
    if not 0 < consensus_rate <= 1:
        raise InputError(f"algorithm.consensus_rate: must lie in (0, 1], got {consensus_rate}")
    inner = optax.with_extra_args_support(optimizer)
    shrink = compression.make(compressor, **operator)

    def init(params: Tree) -> ChocoState:
        public = zeros(params)
        return ChocoState(inner.init(params), mix.init(public), public, shrink.init(params), clock())

    def update(grads: Tree, state: ChocoState, params: Tree, **extra: object) -> tuple[Tree, ChocoState]:
        updates, new = inner.update(grads, state.inner, params, **extra)
        half = add(params, updates)
        known = state.public if memory else zeros(half)
        message, operator = compressed(shrink, subtract(half, known), state.operator, seed, state.clock.step)
        public = add(known, message)
        moved, mixed = mix.apply(public, state.mix, bits=shrink.bits(params), **extra)
        updates = add(updates, scale(consensus_rate, moved))
        return updates, ChocoState(new, mixed, public, operator, state.clock.tick())

    return Method(init, update)
