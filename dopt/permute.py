"""A message from each member of an axis to another one: a permute between devices, also where the members are rows of an array.

What `vmap` makes of a `ppermute` is a gather. Where the rows lie on several devices (the executor `mesh`), the compiler makes an
all-gather of that, but of a shift a permute: so a permutation that is a shift is written as one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap

from dopt.types import AXIS, Tree, Whole

Pairs = tuple[tuple[int, int], ...]  # (sender, reader), each at most once


def permute(tree: Tree, number: Whole, pairs: Pairs, axis: str = AXIS) -> Tree:
    """What a member receives, zeros where it receives nothing: as of `lax.ppermute`.

    Args:
      number: the member's own. It is mapped along the axis and along no other, by which the axis is known.
    """
    return jax.tree.map(lambda x: _along(axis, pairs)(x, number), tree)


def onward(x: jax.Array, number: Whole, size: int, axis: str = AXIS) -> jax.Array:
    """What the member before sends, around the ring of `size` members."""
    found: jax.Array = permute(x, number, tuple((j, (j + 1) % size) for j in range(size)), axis)
    return found


@cache
def _along(axis: str, pairs: Pairs) -> Callable[..., jax.Array]:
    @custom_vmap
    def sent(x: jax.Array, number: jax.Array) -> jax.Array:
        return lax.ppermute(x, axis, pairs)

    @sent.def_vmap
    def of_several(size: int, mapped: Any, x: jax.Array, number: jax.Array) -> tuple[jax.Array, bool]:
        if not mapped[1]:  # several runs
            return sent(x, number), mapped[0]
        return _moved(x if mapped[0] else jnp.broadcast_to(x, (size, *x.shape)), pairs), True

    return sent


def _moved(x: jax.Array, pairs: Pairs) -> jax.Array:
    """The rows of `x` [members, ...] where they arrive; zeros where nothing does."""
    size = len(x)
    sender, there = np.arange(size), np.zeros(size, bool)
    for one, other in pairs:
        sender[other], there[other] = one, True
    shifts = {(reader - one) % size for one, reader in pairs}
    moved = jnp.roll(x, shifts.pop(), 0) if len(shifts) == 1 else x[sender]
    return moved if there.all() else jnp.where(there.reshape(-1, *[1] * (x.ndim - 1)), moved, 0)
