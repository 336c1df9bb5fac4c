"""f(x) = E ½⟨a, x⟩², a standard normal and drawn anew for each gradient: f = ½‖x‖², and all noise is multiplicative.

The gradient a⟨a, x⟩ vanishes at the optimum, so that SGD with a constant rate converges linearly, and averaging helps
because it allows larger rates. E‖a‖²aaᵀ = ζI with ζ = d + 2.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dopt.problems.base import problem
from dopt.types import Batch, InputError, Key, Params, Problem


@problem(
    source="isotropic random quadratics, Vogels et al. 2022, 2206.03093, section 3.1",
    data=None,
    bytes=lambda n, dim, **_: 16 * n * dim,
)
def random_quadratic(shards: None, workers: int, *, dim: int = 100) -> Problem:
    """A random quadratic for each gradient, the same distribution for all workers; x⁰ is standard normal, one for all.

    Args:
      dim: number of coordinates d.
    """
    if dim < 1:
        raise InputError(f"problem.dim: must be at least 1, got {dim}")

    def init(key: Key) -> Params:
        return jax.random.normal(key, (dim,), jnp.float32)

    def loss(x: Params, batch: Batch, key: Key | None = None) -> jax.Array:
        if key is None:
            return 0.5 * x @ x
        sample = jax.random.normal(key, x.shape, jnp.float32).astype(x.dtype)
        return 0.5 * (sample @ x) ** 2

    return Problem(init, loss, {"none": np.zeros((workers, 1))}, optimum=0.0)
