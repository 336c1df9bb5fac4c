"""X <- W X + u(G) (combine then adapt, the lecture's order), or X <- W (X + u(G)) (adapt then combine).

Nedić-Ozdaglar 2009; Lian et al. 2017, D-PSGD, 1705.09056, algorithm 1. Both orders take the gradient at X. With `rounds` R,
W^R stands for W (successive matrices of a sequence), or, with `chebyshev`, the polynomial of degree R that contracts most:
T_R(W/ρ) / T_R(1/ρ), ρ = ‖W - J‖₂ (Scaman et al. 2017, 1702.08704). With `local_steps` H, workers mix at every H-th step only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import optax

from dopt.algorithms.method import Method, Rate, at_boundary, at_least, clock, gossip
from dopt.algorithms.traits import Kind, Neighbours, Options
from dopt.algorithms.trees import add, scale, subtract, zeros
from dopt.registry import Range
from dopt.types import Clock, InputError, Mix, Tree

Rounds = Annotated[int, Range(1, 1000)]  # each is written out in the program


class GossipState(NamedTuple):
    inner: optax.OptState
    mix: Any
    clock: Clock


def _sends(options: Options, workers: int) -> Neighbours:
    rounds, period = options["rounds"], options["local_steps"]
    kind: Kind = "symmetric" if options["chebyshev"] else "doubly stochastic"
    return Neighbours(kind, mixes_once=rounds == period == 1, rounds=rounds, period=period)


@gossip(
    source="Lian et al. 2017, 1705.09056",
    sends=_sends,
)
def gossip_sgd(
    optimizer: optax.GradientTransformation,
    mix: Mix,
    *,
    learning_rate: Rate | None = None,
    adapt_then_combine: bool = False,
    rounds: Rounds = 1,
    chebyshev: bool = False,
    modulus: Any = None,
    local_steps: int = 1,
) -> Method:
    """Decentralized SGD: average with the neighbours and step on one's own gradient.

    Args:
      adapt_then_combine: mix after the local step, and not before.
      rounds: how often to mix in a step.
      chebyshev: mix by the best polynomial of degree `rounds`; static symmetric W only.
      modulus: ρ = ‖W - J‖₂ [], for chebyshev (`dopt.mixing.second_modulus`).
      local_steps: mix at every so many steps only.
    """
    at_least("rounds", rounds)
    at_least("local_steps", local_steps)
    if chebyshev and modulus is None:
        raise InputError("algorithm.modulus: chebyshev needs ‖W - J‖₂; pass modulus=dopt.mixing.second_modulus(W)")
    inner = optax.with_extra_args_support(optimizer)

    def several(x: Tree, state: optax.OptState, extra: Mapping[str, Any]) -> tuple[Tree, Any]:
        """y_R - x of y_0 = x, y_1 = W x, y_{r+1} = y_{r-1} + ω (W y_r - y_{r-1}), in differences to x."""
        moved, state = mix.apply(x, state, **extra)
        before, now, ratio = zeros(x), moved, modulus
        for _ in range(rounds - 1):
            moved, state = mix.apply(add(x, now), state, **extra)
            after = add(now, moved)
            if chebyshev:  # ratio is a_{r-1}/a_r: a_r themselves would overflow
                omega = 2 / (2 - modulus * ratio)
                after = add(before, scale(omega, subtract(after, before)))
                ratio = modulus / (2 - modulus * ratio)
            before, now = now, after
        return now, state

    def init(params: Tree) -> GossipState:
        return GossipState(inner.init(params), mix.init(params), clock())

    def update(grads: Tree, state: GossipState, params: Tree, **extra: object) -> tuple[Tree, GossipState]:
        updates, new = inner.update(grads, state.inner, params, **extra)
        travels = add(params, updates) if adapt_then_combine else params
        moved, mixed = at_boundary(
            state.clock.step,
            local_steps,
            lambda: several(travels, state.mix, extra),
            lambda: (zeros(travels), state.mix),
        )
        return add(updates, moved), GossipState(new, mixed, state.clock.tick())

    return Method(init, update)
