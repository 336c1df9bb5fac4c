"""f(x) = (1/2N) Σ (aⱼ·x - bⱼ)², rows aⱼ ~ U(0, 1)ᵈ/√d, which all workers hold, and bⱼ = aⱼ·x̂ + noise with a normal x̂.

Rows of positive numbers have one steep direction, their mean, of curvature 1/4, and d - 1 flat ones of about 1/(12d): the
best rate is about the largest one at which the steep one is stable. Mishchenko et al. 2022, 2206.07638.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dopt.problems.base import problem
from dopt.registry import Seed
from dopt.types import Batch, InputError, Key, Params, Problem


@problem(
    source="random least squares, as in Mishchenko et al. 2022, 2206.07638",
    data=None,
    bytes=lambda n, samples, dim, **_: 24 * samples * (n + dim),
)
def least_squares(
    shards: None, workers: int, *, samples: int = 2560, dim: int = 100, noise: float = 1e-5, seed: Seed = 0
) -> Problem:
    """Least squares over samples that every worker draws from.

    Each worker has the list of all samples, its own rotated by its number: `eval_samples` of N, a multiple of the workers,
    lets the metrics look at each sample once, instead of once for each worker.

    Args:
      samples: N.
      dim: number of coordinates d, at most N.
      noise: standard deviation of the noise in bⱼ.
      seed: of the rows, of x̂ and of the noise; x⁰ = 0.
    """
    if not 1 <= dim <= samples:
        raise InputError(f"problem.dim: must lie in 1..samples={samples}, got {dim}")
    if not 0 <= noise < np.inf:
        raise InputError(f"problem.noise: must be finite and not negative, got {noise}")
    rng = np.random.default_rng(seed)
    rows = rng.uniform(size=(samples, dim)) / np.sqrt(dim)
    targets = rows @ rng.standard_normal(dim) + noise * rng.standard_normal(samples)
    best = np.linalg.lstsq(rows, targets, rcond=None)[0]

    def init(key: Key) -> Params:
        return jnp.zeros(dim)

    def loss(x: Params, batch: Batch) -> jax.Array:
        a, b = (jnp.asarray(part, x.dtype)[batch["row"]] for part in (rows, targets))
        return 0.5 * jnp.mean((a @ x - b) ** 2)

    listed = (np.arange(samples) + np.arange(workers)[:, None]) % samples
    return Problem(init, loss, {"row": listed}, optimum=float(0.5 * np.mean((rows @ best - targets) ** 2)))
