"""x <- x + u(g) / max(1, τ): the staler a gradient, the shorter its step; with `power` p, x <- x + (1 + τ)^-p u(g).

Zhang et al. 2016, 1511.05950, eq. 6; the power law as in Xie et al. 2019, 1903.03934 (FedAsync, polynomial).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax

from dopt.algorithms.method import Method, Rate, arriving
from dopt.algorithms.server import stepping
from dopt.registry import NotNegative
from dopt.types import InputError


@arriving(source="Zhang et al. 2016, 1511.05950", steps="scaled")
def staleness_aware_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    power: NotNegative | None = None,
) -> Method:
    """Asynchronous SGD whose steps shrink with the staleness of the gradient.

    Args:
      power: p of (1 + τ)^-p; None: 1/max(1, τ).
    """
    if power is not None and power < 0:
        raise InputError(f"algorithm.power: must not be negative, got {power}; 0.5 is usual")

    def factor(staleness: Any) -> Any:
        if power is None:
            return 1 / jnp.maximum(1, staleness)
        return (1.0 + staleness) ** -power

    return stepping(optimizer, factor)
