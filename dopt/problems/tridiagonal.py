"""f(x) = ½ xᵀA x + (L/4) x₁, A = (L/4) tridiag(-1, 2, -1), from x⁰ = √d e₁: information has to travel along a chain.

The quadratic on which no first-order method is fast, since each gradient reveals one more coordinate. Nesterov 2018, lectures
on convex optimization, section 2.1.2; with this start and this noise in Tyurin-Richtárik 2023, 2305.12387.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dopt.problems.base import problem
from dopt.types import Batch, InputError, Key, Params, Problem


@problem(
    source="the worst quadratic of smooth convex optimization, as in Tyurin-Richtárik 2023, 2305.12387",
    data=None,
    bytes=lambda n, dim, **_: 16 * n * dim,
)
def tridiagonal(shards: None, workers: int, *, dim: int = 100, L: float = 1.0, noise: float = 0.0) -> Problem:
    """The chain quadratic, the same for all workers, with a known optimum.

    Args:
      dim: number of coordinates d.
      L: bound of the curvature; the smallest is about L (π/(2d))².
      noise: σ², the expected square of the gradient's error, summed over coordinates: Gaussian, independent per coordinate.
    """
    if dim < 1:
        raise InputError(f"problem.dim: must be at least 1, got {dim}")
    if not 0 < L < np.inf:
        raise InputError(f"problem.L: must be positive and finite, got {L}")
    if not 0 <= noise < np.inf:
        raise InputError(f"problem.noise: must be finite and not negative, got {noise}")

    def init(key: Key) -> Params:
        return jnp.zeros(dim).at[0].set(dim**0.5)

    def loss(x: Params, batch: Batch, key: Key | None = None) -> jax.Array:
        ends = jnp.pad(x, 1)  # zero beyond both: xᵀ tridiag(-1, 2, -1) x is the sum of squared differences
        value = L / 8 * jnp.sum((ends[1:] - ends[:-1]) ** 2) + L / 4 * x[0]
        if key is None or not noise:
            return value
        error = jax.random.normal(key, x.shape, jnp.float32).astype(x.dtype) * (noise / dim) ** 0.5
        return value + error @ x

    # x* = -(1 - i/(d + 1)) for i = 1..d, so f* = (L/8) x*₁
    return Problem(init, loss, {"none": np.zeros((workers, 1))}, optimum=-L / 8 * dim / (dim + 1))
