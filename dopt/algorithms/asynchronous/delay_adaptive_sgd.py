"""x <- x + min(1, T/max(τ, 1)) u(g): only gradients staler than the threshold T get a smaller step.

Koloskova et al. 2022, 2206.08307, theorem 8; Mishchenko et al. 2022, 2206.07638. If T is the number of workers, which is
one more than the mean staleness, it does not matter how slow the slowest worker is.
"""

from __future__ import annotations

import jax.numpy as jnp
import optax

from dopt.algorithms.method import Method, Rate, arriving, at_least
from dopt.algorithms.server import stepping
from dopt.types import InputError


@arriving(source="Koloskova et al. 2022, 2206.08307", steps="scaled")
def delay_adaptive_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    threshold: int | None = None,
    workers: int | None = None,
) -> Method:
    """Asynchronous SGD with smaller steps on gradients staler than a threshold.

    Args:
      threshold: T; None: the number of workers.
      workers: n.
    """
    bound = workers if threshold is None else threshold
    if bound is None:
        raise InputError("algorithm.threshold: give it, or workers")
    at_least("threshold", bound)
    return stepping(optimizer, lambda staleness: jnp.minimum(1, bound / jnp.maximum(staleness, 1)))
