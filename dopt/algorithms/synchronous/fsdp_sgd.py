"""x <- x + u(mean gᵢ), where each worker keeps only 1/n of x and of the optimizer's state: all_gather, gradient, psum_scatter.

Rajbhandari et al. 2019, ZeRO, 1910.02054, stage 2: the optimizer's state and the reduced gradient are split into n parts, and a step
sends 2(n-1)/n models, one reduce-scatter and one all-gather. Between two steps the model is split, too; within a step it is whole,
from the forward pass through the backward pass. (PyTorch's FSDP calls that SHARD_GRAD_OP. Stage 3 frees the model between the passes and
gathers it again: 3(n-1)/n.)

The model is one vector, cut into n pieces of one length, the last one filled up with zeros: a message each way, however many leaves
there are. It equals `allreduce_sgd` for optimizers that treat each coordinate by itself (not for those that look at matrices, or at
norms).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from dopt.algorithms.method import Method, Rate, synchronous
from dopt.types import AXIS, Tree


@jax.tree_util.register_static
@dataclass(frozen=True)
class Form:
    """Of a whole model: how its vector becomes a tree again. No array, so it goes along in the state for free."""

    tree: Any
    shapes: tuple[tuple[int, ...], ...]

    def joined(self, pieces: jax.Array) -> Tree:
        """The tree of which [n, ⌈d/n⌉] are the pieces."""
        sizes = [math.prod(shape) for shape in self.shapes]
        ends = np.cumsum([0, *sizes])
        flat = pieces.reshape(-1)
        leaves = [flat[a:b].reshape(shape) for a, b, shape in zip(ends[:-1], ends[1:], self.shapes, strict=True)]
        return jax.tree.unflatten(self.tree, leaves)


def form(params: Tree) -> Form:
    leaves, tree = jax.tree.flatten(params)
    return Form(tree, tuple(tuple(x.shape) for x in leaves))


class ShardedState(NamedTuple):
    inner: optax.OptState  # of a worker's piece
    form: Form


def pieces(tree: Tree, n: int) -> jax.Array:
    """[n, ⌈d/n⌉] of a tree of d numbers."""
    x, _ = ravel_pytree(tree)
    size = -(-x.size // n)
    return jnp.pad(x, (0, n * size - x.size)).reshape(n, size)


def assemble(parts: jax.Array, shapes: Tree) -> Tree:
    """The whole model of stacked pieces [workers, ⌈d/n⌉]."""
    return form(shapes).joined(parts)


@synchronous(source="Rajbhandari et al. 2019, 1910.02054, stage 2", assemble=assemble, steps="part")
def fsdp_sgd(optimizer: optax.GradientTransformation, mix: None = None, *, learning_rate: Rate | None = None) -> Method:
    """Sharded data parallelism, ZeRO stage 2: gradients, optimizer state and, between two steps, the model are split into n parts.

    In one's own loop: `state = method.init(params)`, then `params = method.place(params)`; gradients at `method.read(state, params)`.
    """
    inner = optax.with_extra_args_support(optimizer)

    def place(params: Tree) -> jax.Array:
        return pieces(params, lax.axis_size(AXIS))[lax.axis_index(AXIS)]

    def init(params: Tree) -> ShardedState:
        return ShardedState(inner.init(place(params)), form(params))

    def read(state: ShardedState, params: Tree, **extra: object) -> Tree:
        return state.form.joined(lax.all_gather(params, AXIS))

    def update(grads: Tree, state: ShardedState, params: Tree = None, **extra: object) -> tuple[Tree, ShardedState]:
        n = lax.axis_size(AXIS)
        own = lax.psum_scatter(pieces(grads, n), AXIS) / n
        updates, new = inner.update(own, state.inner, params, **extra)
        return updates, ShardedState(new, state.form)

    return Method(init, update, read, place=place)
