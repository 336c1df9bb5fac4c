"""Arrays are laid out [runs, workers, ...] everywhere: which of the two an argument has, and how one of them goes and comes.

`Axes` says, too, where the parts of a model stand that lies on several devices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dopt.types import PARTS, Clock, Tree


@dataclass(frozen=True)
class Axes:
    """Which leading axes an argument has. A leaf, to stand for a whole subtree of arguments."""

    runs: bool
    workers: bool
    parts: int | None = None  # where the parts of a model stand after these two, of what is laid over devices


PER_RUN_AND_WORKER, PER_RUN, PER_WORKER, COMMON = (
    Axes(True, True),
    Axes(True, False),
    Axes(False, True),
    Axes(False, False),
)


def state_axes(state: Tree, model: Tree = None) -> Tree:
    """The axes of what a worker keeps: all its leaves have both, but for the clocks, which are common.

    Args:
      state: shapes of one worker's models and of whatever its method keeps.
      model: shapes of one model of a problem with a layout. Whatever is kept of a parameter (a momentum, a ring of old
        models) has the parameter's path at the end of its own, and the parameter's shape at the end of its own.
    """
    flat = jax.tree_util.tree_flatten_with_path(model)[0]
    split = {path: x.shape for path, x in flat if jax.tree_util.DictKey(PARTS) in path}

    def axes(path: tuple[Any, ...], s: Tree) -> Axes:
        if isinstance(s, Clock):
            return COMMON
        shape = next((split[path[i:]] for i in range(len(path)) if path[i:] in split), None)
        if shape is None or s.shape[s.ndim - len(shape) :] != shape:
            return PER_RUN_AND_WORKER
        return Axes(True, True, s.ndim - len(shape))

    return jax.tree_util.tree_map_with_path(axes, state, is_leaf=lambda s: isinstance(s, Clock))


def _position(axes: Axes, axis: str) -> int:
    """Where `axis` stands in [runs, workers, ...]."""
    return int(axis == "workers" and axes.runs)


def of_one(f: Callable[..., Tree], in_axes: tuple[Tree, ...], out_axes: Tree, axis: str) -> Callable[..., Tree]:
    """`f`, which knows nothing of the axis, for arrays that have it, of length one."""

    def taken(a: Axes, sub: Tree) -> Tree:
        return jax.tree.map(lambda x: x.squeeze(_position(a, axis)), sub) if getattr(a, axis) else sub

    def put(a: Axes, sub: Tree) -> Tree:
        return jax.tree.map(lambda x: jnp.expand_dims(x, _position(a, axis)), sub) if getattr(a, axis) else sub

    def block(*args: Tree) -> Tree:
        return jax.tree.map(put, out_axes, f(*jax.tree.map(taken, in_axes, args)))

    return block


def size(axes: Tree, args: Tree, axis: str) -> int:
    """Length of the axis."""
    sizes = jax.tree.map(
        lambda a, sub: [x.shape[_position(a, axis)] for x in jax.tree.leaves(sub)] if getattr(a, axis) else [],
        axes,
        args,
    )
    return next(iter(jax.tree.leaves(sizes)))
