"""ψ = X - αG; X⁺ = W(ψ + X - ψ⁻), ψ⁻ = X⁰ at first: exact diffusion that mixes with all of W.

Tang et al. 2018, D², 1803.07068, algorithm 1. It needs λ_min(W) > -1/3: with a negative eigenvalue the correction swings.
"""

from __future__ import annotations

import optax

from dopt.algorithms.gossip.exact_diffusion import diffusion
from dopt.algorithms.method import Method, Rate, gossip
from dopt.algorithms.traits import Neighbours
from dopt.types import Mix


@gossip(source="Tang et al. 2018, 1803.07068", sends=Neighbours("symmetric, λ > -1/3"), needs_linear_update=True)
def d2(optimizer: optax.GradientTransformation, mix: Mix, *, learning_rate: Rate | None = None) -> Method:
    """D²: decentralized training without the bias from differences between the workers' data."""
    return diffusion(optimizer, mix, fraction=1.0)
