"""x <- x + u(mean gᵢ), where each worker keeps but an n-th of x and of the optimizer's state: all_gather, gradient, psum_scatter.

Rajbhandari et al. 2019, ZeRO, 1910.02054, stage 3; Zhao et al. 2023 (FSDP). Each leaf is cut into n pieces of one length, the last ones
filled up with zeros. It equals `allreduce_sgd` for optimizers that take each coordinate for itself (not: norms over the whole tree).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from dopt.algorithms.method import Method, synchronous
from dopt.types import AXIS, Tree


@jax.tree_util.register_static
@dataclass(frozen=True)
class Shapes:
    """Of the leaves of a whole model; no array, so it goes along in the state for free."""

    of_leaves: tuple[tuple[int, ...], ...]


class ShardedState(NamedTuple):
    inner: optax.OptState  # of a worker's pieces
    shapes: Shapes


def pieces(x: jax.Array, n: int) -> jax.Array:
    """[n, ⌈size/n⌉] of a leaf."""
    size = -(-x.size // n)
    return jnp.pad(x.reshape(-1), (0, n * size - x.size)).reshape(n, size)


def joined(x: Any, shape: tuple[int, ...]) -> Any:
    """The leaf of which x [n, pieces] are the pieces."""
    return x.reshape(-1)[: math.prod(shape)].reshape(shape)


def join(parts: Tree, shapes: Tree) -> Tree:
    """The whole model of stacked parts, leaves [workers, ...]."""
    return jax.tree.map(lambda x, whole: joined(x, whole.shape), parts, shapes)


@synchronous(source="Rajbhandari et al. 2019, 1910.02054", join=join)
def fsdp_sgd(optimizer: optax.GradientTransformation, mix: None = None, *, learning_rate: Any = None) -> Method:
    """Fully sharded data parallelism: parameters and optimizer state live as n-ths.

    In one's own loop: `state = method.init(params)`, then `params = method.place(params)`; gradients at `method.read(state, params)`.
    """
    inner = optax.with_extra_args_support(optimizer)

    def place(params: Tree) -> Tree:
        n, i = lax.axis_size(AXIS), lax.axis_index(AXIS)
        return jax.tree.map(lambda x: pieces(x, n)[i], params)

    def init(params: Tree) -> ShardedState:
        return ShardedState(inner.init(place(params)), Shapes(tuple(x.shape for x in jax.tree.leaves(params))))

    def read(state: ShardedState, params: Tree, **extra: Any) -> Tree:
        leaves, form = jax.tree.flatten(params)
        whole = [
            joined(lax.all_gather(x, AXIS), shape) for x, shape in zip(leaves, state.shapes.of_leaves, strict=True)
        ]
        return jax.tree.unflatten(form, whole)

    def update(grads: Tree, state: ShardedState, params: Tree = None, **extra: Any) -> tuple[Tree, ShardedState]:
        n = lax.axis_size(AXIS)
        own = jax.tree.map(lambda g: lax.psum_scatter(pieces(g, n), AXIS) / n, grads)
        updates, new = inner.update(own, state.inner, params, **extra)
        return updates, ShardedState(new, state.shapes)

    return Method(init, update, read, place=place)
