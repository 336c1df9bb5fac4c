"""After every H-th step an outer optimizer steps on Δ = x_start - mean x, from where the round began.

Douillard et al. 2023, 2311.08105, algorithm 1: AdamW inside, SGD with Nesterov momentum outside. Local optimizers keep their state.
"""

from __future__ import annotations

import optax

from dopt.algorithms.method import Method, Rate, outer_optimizer, synchronous
from dopt.algorithms.rounds import rounds
from dopt.algorithms.traits import AllReduce
from dopt.registry import NotNegative, Share
from dopt.types import Reduction


@synchronous(
    source="Douillard et al. 2023, 2311.08105",
    sends=lambda options, workers: AllReduce(Reduction(options["local_steps"])),
    weighs="models",
    steps="own",
)
def diloco(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    local_steps: int = 10,
    outer: str = "sgd",
    outer_learning_rate: NotNegative = 0.7,
    outer_momentum: Share = 0.9,
) -> Method:
    """DiLoCo: local steps, and an outer optimizer that steps on their sum.

    Args:
      local_steps: H.
      outer: sgd (with Nesterov momentum) or adam.
      outer_learning_rate, outer_momentum: of the outer optimizer.
    """
    return rounds(optimizer, local_steps, outer_optimizer(outer, outer_learning_rate, outer_momentum))
