"""Pure functions of models: how far apart, how far from the optimum, still finite."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dopt.types import Tree

CHOICES = {
    "loss": "f at the mean model",
    "suboptimality": "f at the mean model minus f*",
    "grad_norm": "norm of the gradient of f at the mean model",
    "consensus_distance": "(1/n) Σᵢ ‖xᵢ - x̄‖²",
}


def square_distance(a: Tree, b: Tree) -> jax.Array:
    """‖a - b‖² over all leaves; (1/n) Σᵢ of it to the mean is the consensus distance."""
    squares = jax.tree.map(lambda x, y: jnp.sum((x - y) ** 2), a, b)
    return jnp.asarray(sum(jax.tree.leaves(squares)))


def consensus_distance(params: Tree) -> float:
    """(1/n) Σᵢ ‖xᵢ - x̄‖² of stacked models, leaves [workers, ...]."""
    return float(sum(np.sum((x - x.mean(0)) ** 2) / len(x) for x in map(np.asarray, jax.tree.leaves(params))))


def all_finite(params: Tree) -> jax.Array:
    """Whether no leaf has a NaN or an infinity."""
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]))


def first_at(axis: np.ndarray, values: np.ndarray, target: float, stays: bool = False) -> float:
    """Where on `axis` (steps, seconds) the first of `values` is that is at most `target`; NaN where none is.

    Args:
      stays: the first from which on all of them are. What is not finite is not at the target.
    """
    place = place_at(values, target, stays)
    return float("nan") if place is None else float(axis[place])


def place_at(values: np.ndarray, target: float, stays: bool = False) -> int | None:
    """As `first_at`, the number of the record."""
    there = np.asarray(values) <= target
    if stays:
        place = len(there) - int(np.argmin(there[::-1])) if not there.all() else 0
        return place if place < len(there) else None
    return int(np.argmax(there)) if there.any() else None
