"""Arithmetic of pytrees, and what all workers have together of one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from dopt.types import AXIS, Tree


def mean(tree: Tree) -> Tree:
    """Average over the workers: psum over n, the all-reduce."""
    return lax.pmean(tree, AXIS)


def mean_model(tree: Tree, share: jax.Array | None = None) -> Tree:
    """Average of the workers' models; where each has a `share` [], Σ share x / Σ share: McMahan et al. 2017, algorithm 1."""
    if share is None:
        return mean(tree)
    total = lax.psum(share, AXIS)
    return jax.tree.map(lambda x: lax.psum(share.astype(x.dtype) * x, AXIS) / total.astype(x.dtype), tree)


def add(a: Tree, *rest: Tree) -> Tree:
    return jax.tree.map(lambda *x: sum(x[1:], x[0]), a, *rest)


def subtract(a: Tree, b: Tree) -> Tree:
    return jax.tree.map(lambda x, y: x - y, a, b)


def scale(factor: ArrayLike, a: Tree) -> Tree:
    """`factor` times each leaf, in the leaf's own precision."""
    return jax.tree.map(lambda x: jnp.asarray(factor, x.dtype) * x, a)


def zeros(a: Tree) -> Tree:
    return jax.tree.map(jnp.zeros_like, a)


def select(predicate: jax.Array | bool, a: Tree, b: Tree) -> Tree:
    return jax.tree.map(lambda x, y: jnp.where(predicate, x, y), a, b)


def when(predicate: jax.Array | bool, new: Tree, old: Tree) -> Tree:
    """`new` where the predicate holds, else `old`; nothing is computed for one that is known to hold."""
    return new if predicate is True else select(predicate, new, old)
