"""fᵢ(x) = ½ (x - bᵢ)ᵀ Aᵢ (x - bᵢ), Aᵢ = QᵢΛQᵢᵀ with a rotation Qᵢ for each worker, Λ from mu to L.

Workers that differ in curvature, not only in where their minima lie: the case in which local steps are biased. x* is of
norm 1 and bᵢ = x* + Aᵢ⁻¹gᵢ with Σgᵢ = 0, so that ∇fᵢ(x*) = -gᵢ and (1/n) Σᵢ ‖gᵢ‖² = ζ².
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dopt.problems.base import curvatures, problem
from dopt.registry import Seed
from dopt.types import Batch, InputError, Key, Params, Problem


@problem(
    source="clients of different curvature, as in Khaled et al. 2019, 1909.04746",
    data=None,
    bytes=lambda n, dim, **_: 32 * n * dim**2,
)
def turned_quadratic(
    shards: None,
    workers: int,
    *,
    dim: int = 10,
    L: float = 1.0,
    mu: float = 0.1,
    heterogeneity: float = 1.0,
    seed: Seed = 0,
) -> Problem:
    """A quadratic for each worker, all with the same curvatures, each rotated differently.

    Args:
      dim: number of coordinates d.
      L, mu: largest and smallest curvature, log-spaced between.
      heterogeneity: ζ² (0: all workers have the same minimum).
      seed: of rotations and minima; x* has norm 1 and x⁰ = 0.
    """
    eigenvalues = curvatures(dim, mu, L)
    if not 0 <= heterogeneity < np.inf:
        raise InputError(f"problem.heterogeneity: must be finite and not negative, got {heterogeneity}")
    rng = np.random.default_rng(seed)
    best = rng.standard_normal(dim)
    best /= np.linalg.norm(best)
    turns = np.linalg.qr(rng.standard_normal((workers, dim, dim)))[0]
    curvature = (turns * eigenvalues) @ turns.transpose(0, 2, 1)
    apart = rng.standard_normal((workers, dim))
    apart -= apart.mean(0)
    square = np.mean(np.sum(apart**2, 1))
    apart *= np.sqrt(heterogeneity / square) if workers > 1 else 0.0  # one worker is like itself
    minima = best + np.linalg.solve(curvature, apart[..., None])[..., 0]

    def init(key: Key) -> Params:
        return jnp.zeros(dim)

    def loss(x: Params, batch: Batch) -> jax.Array:
        away = x - batch["minimum"]
        return 0.5 * jnp.mean(jnp.einsum("bi,bij,bj->b", away, batch["curvature"], away))

    away = best - minima
    return Problem(
        init,
        loss,
        {"curvature": curvature[:, None], "minimum": minima[:, None]},
        optimum=float(0.5 * np.mean(np.einsum("ni,nij,nj->n", away, curvature, away))),
    )
