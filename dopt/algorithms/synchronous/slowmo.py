"""Local SGD whose rounds have momentum: v <- β v + (x_start - mean x)/α; x <- x_start - γ α v after every H-th step.

Wang, Tantia, Ballas, Rabbat 2019, 1910.00643, algorithm 1. v⁰ = 0; x_start is where the round began. Local optimizers keep their
state (the paper's "maintain").
"""

from __future__ import annotations

import jax
import optax

from dopt.algorithms.method import Method, Rate, synchronous
from dopt.algorithms.rounds import rounds
from dopt.algorithms.traits import AllReduce
from dopt.algorithms.trees import add, scale, zeros
from dopt.registry import NotNegative
from dopt.types import InputError, Reduction, Tree


@synchronous(
    source="Wang et al. 2019, 1910.00643",
    divides_by_rate=True,
    sends=lambda options, workers: AllReduce(Reduction(options["local_steps"])),
    weighs="models",
    steps="own",
)
def slowmo(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    local_steps: int = 10,
    momentum: float = 0.5,
    slow_rate: NotNegative = 1.0,
) -> Method:
    """SlowMo: local SGD with slow momentum over whole rounds.

    Args:
      learning_rate: α [], or an optax schedule of it, of which it takes the last value in a round; it divides by α.
      local_steps: H.
      momentum: β.
      slow_rate: γ.
    """
    if learning_rate is None:
        raise InputError("learning_rate: slowmo divides by it; pass learning_rate=")
    if not 0 <= momentum < 1:
        raise InputError(f"algorithm.momentum: must lie in [0, 1), got {momentum}")
    if not slow_rate > 0:
        raise InputError(f"algorithm.slow_rate: must be positive, got {slow_rate}")

    def update(delta: Tree, slow: Tree, params: Tree = None, *, step: jax.Array, **extra: object) -> tuple[Tree, Tree]:
        rate = learning_rate(step) if callable(learning_rate) else learning_rate
        slow = add(scale(momentum, slow), scale(1 / rate, delta))
        return scale(-slow_rate * rate, slow), slow

    return rounds(optimizer, local_steps, optax.GradientTransformationExtraArgs(zeros, update))
