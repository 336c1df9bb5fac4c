"""fᵢ(x) = ½ (x - bᵢ)ᵀ A (x - bᵢ), A diagonal from mu to L, so x* is the mean of the bᵢ and everything is in closed form.

Two settings: heterogeneity ζ² = (1/n) Σᵢ ‖∇fᵢ(x*) - ∇f(x*)‖², and noise σ² = E‖g - ∇fᵢ‖², Gaussian, independent per coordinate.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dopt.problems.base import curvatures, problem
from dopt.registry import Seed
from dopt.types import Batch, InputError, Key, Params, Problem


@problem(
    source="heterogeneous quadratics, as in Koloskova et al. 2020, 2003.10422",
    data=None,
    bytes=lambda n, dim, **_: 48 * n * dim,
)
def quadratic(
    shards: None,
    workers: int,
    *,
    dim: int = 20,
    L: float = 1.0,
    mu: float = 0.1,
    heterogeneity: float = 1.0,
    noise: float = 0.0,
    seed: Seed = 0,
) -> Problem:
    """A quadratic for each worker, with known curvature, heterogeneity, noise and optimum.

    Args:
      dim: number of coordinates d.
      L, mu: largest and smallest curvature, log-spaced between.
      heterogeneity: ζ² (0: all workers equal).
      noise: σ², the expected square of the gradient's error, summed over coordinates.
      seed: of the minima bᵢ; x* has norm 1 and x⁰ = 0.
    """
    curvature = curvatures(dim, mu, L)
    if not (0 <= heterogeneity < np.inf and 0 <= noise < np.inf):
        raise InputError(
            f"problem: heterogeneity and noise must be finite and not negative, got {heterogeneity} and {noise}"
        )
    if heterogeneity and workers == 1:
        heterogeneity = 0.0  # one worker is like itself
    rng = np.random.default_rng(seed)
    best = rng.standard_normal(dim)
    best /= np.linalg.norm(best)
    apart = rng.standard_normal((workers, dim))
    apart -= apart.mean(0)
    square = np.mean(np.sum((curvature * apart) ** 2, 1))
    minima = best + apart * np.sqrt(heterogeneity / square if square else 0.0)

    def init(key: Key) -> Params:
        return jnp.zeros(dim)

    def loss(x: Params, batch: Batch, key: Key | None = None) -> jax.Array:
        a, b = batch["curvature"], batch["minimum"]
        value = 0.5 * jnp.mean(jnp.sum(a * (x - b) ** 2, -1))
        if key is None or not noise:
            return value
        error = jax.random.normal(key, x.shape, jnp.float32).astype(x.dtype) * (noise / dim) ** 0.5
        return value + error @ x

    return Problem(
        init,
        loss,
        {"curvature": np.broadcast_to(curvature, (workers, 1, dim)), "minimum": minima[:, None]},
        optimum=float(0.5 * np.mean(np.sum(curvature * (minima - best) ** 2, 1))),
    )
