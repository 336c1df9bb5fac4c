"""Pure functions of models: how far apart, how far from the optimum, still finite."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dopt import plugins
from dopt.registry import Registry
from dopt.types import Tree

CHOICES = {
    "loss": "f at the mean model",
    "suboptimality": "f at the mean model minus f*",
    "grad_norm": "norm of the gradient of f at the mean model",
    "consensus_distance": "(1/n) Σᵢ ‖xᵢ - x̄‖²",
}
OF_PROBLEMS = {  # that come with dopt; another problem may have others
    "accuracy": "share of held-out samples that the mean model gets right",
    "rmse": "root mean square error on held-out ratings",
}
TAKEN = ("id", "step", "gradients", "time", "bytes_sent", "finite", "center_loss", "staleness_mean", "staleness_max")

METRICS = Registry("metrics")  # others' own; the trait `of` says what they take: "mean", or "models", stacked


def square_distance(a: Tree, b: Tree) -> jax.Array:
    """‖a - b‖² over all leaves; (1/n) Σᵢ of it to the mean is the consensus distance."""
    return jnp.asarray(sum(jax.tree.leaves(squares(a, b))))


def squares(a: Tree, b: Tree) -> Tree:
    """‖a - b‖² of each leaf by itself."""
    return jax.tree.map(lambda x, y: jnp.sum((x - y) ** 2), a, b)


def consensus_distance(params: Tree) -> float:
    """(1/n) Σᵢ ‖xᵢ - x̄‖² of stacked models, leaves [workers, ...]."""
    return float(sum(np.sum((x - x.mean(0)) ** 2) / len(x) for x in map(np.asarray, jax.tree.leaves(params))))


def all_finite(params: Tree) -> jax.Array:
    """Whether no leaf has a NaN or an infinity."""
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(params)]))


def known() -> set[str]:
    """Names that `metrics` may hold whatever the problem is."""
    plugins.offered()
    return {*CHOICES, *OF_PROBLEMS, *METRICS}


def of_models(name: str) -> bool:
    """Whether a registered metric takes all models, leaves [workers, ...], and not their mean."""
    return bool(METRICS[name].traits["of"] == "models")
