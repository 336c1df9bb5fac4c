"""Quadratics of one's own: each worker its curvature and its minimum."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dopt import Problem


def quadratics(curvature: np.ndarray, minima: np.ndarray) -> Problem:
    """fᵢ(x) = ½ (x - bᵢ)ᵀ Aᵢ (x - bᵢ), Aᵢ [n, d, d]."""

    def loss(x: Any, batch: Any) -> jax.Array:
        apart = x - batch["b"][0]
        return 0.5 * apart @ batch["A"][0] @ apart

    return Problem(lambda key: jnp.zeros(minima.shape[1]), loss, {"A": curvature[:, None], "b": minima[:, None]})


def random_quadratics(n: int, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((n, d, d))
    return root @ root.transpose(0, 2, 1) / d + 0.5 * np.eye(d), rng.standard_normal((n, d))
