"""Rings keep old values: `[slots, ...]`, written by index, since concatenate-and-shift is 40 to 200 times slower.

Each leaf lies there as a vector, which a CPU writes in half the time that it takes row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

from dopt.types import PARTS, Clock, Tree


def copies(tree: Tree, number: int) -> Tree:
    """As many of `tree`: leaves [number, ...]."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (number, *x.shape)), tree)


def ring(tree: Tree, slots: int) -> Tree:
    """A ring full of `tree`: leaves [slots, size]; parts of a model keep their shape, by which they are found on their devices."""

    def flat(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        return x if jax.tree_util.DictKey(PARTS) in path else x.reshape(-1)

    return copies(jax.tree_util.tree_map_with_path(flat, tree), slots)


def write(slots: Tree, clock: Clock, tree: Tree) -> Tree:
    """The ring with `tree` as the value of this step."""
    return jax.tree.map(lambda s, x: _put(0)(s, x.reshape(s.shape[1:]), clock.step % s.shape[0]), slots, tree)


@cache
def _put(axis: int) -> Callable[..., jax.Array]:
    """(slots, value, index) -> slots with the value there, along an axis.

    JAX's own rule for several would make a scatter of it, though all of them write at the same index: that takes six more
    kernels, which look whether the index is within bounds.
    """

    @custom_vmap
    def put(slots: jax.Array, value: jax.Array, index: jax.Array) -> jax.Array:
        return lax.dynamic_update_index_in_dim(slots, value, index, axis)

    @put.def_vmap
    def several(size: int, mapped: Any, slots: Any, value: Any, index: Any) -> tuple[jax.Array, bool]:
        if mapped[2]:
            axes = [0 if there else None for there in mapped]
            return jax.vmap(partial(lax.dynamic_update_index_in_dim, axis=axis), axes)(slots, value, index), True
        both = [
            x if there else jnp.broadcast_to(x, (size, *x.shape))
            for x, there in zip((slots, value), mapped[:2], strict=True)
        ]
        return _put(axis + 1)(*both, index), True

    return put


def read(slots: Tree, clock: Clock, staleness: jax.Array | int, like: Tree) -> Tree:
    """The value written `staleness` steps ago, shaped as `like`; what the ring was filled with where that is before the first step."""

    def one(s: jax.Array, x: jax.Array) -> jax.Array:
        return lax.dynamic_index_in_dim(s, (clock.step - staleness) % s.shape[0], 0, keepdims=False).reshape(x.shape)

    return jax.tree.map(one, slots, like)
