"""fᵢ = 0: the workers only average what they start with; consensus distance says how fast.

Xiao-Boyd 2004, fast linear iterations for distributed averaging.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dopt.problems.base import problem
from dopt.registry import Seed
from dopt.types import Batch, InputError, Key, Params, Problem


@problem(source="distributed averaging, Xiao-Boyd 2004", data=None, bytes=lambda n, dim, **_: 32 * n * dim)
def consensus(shards: None, workers: int, *, dim: int = 1, seed: Seed = 0) -> Problem:
    """Average the starts: no loss at all. Starts are standard normal unless given."""
    if dim < 1:
        raise InputError(f"problem.dim: must be at least 1, got {dim}")
    start = np.random.default_rng(seed).standard_normal((workers, dim))

    def init(key: Key) -> Params:
        return jnp.zeros(dim)

    def loss(x: Params, batch: Batch) -> jax.Array:
        return 0.0 * jnp.sum(x)  # depends on x, so that a model that is not finite shows

    return Problem(init, loss, {"none": np.zeros((workers, 1))}, optimum=0.0, start=start)
