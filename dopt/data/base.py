"""What a reader of real data returns, and the names under which readers are found."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dopt.registry import Registry

SETS = Registry("data")


class Dataset(NamedTuple):
    """Samples to learn from and, where the set comes with some, samples held out."""

    train: dict[str, np.ndarray]  # {"x": [N, d] float64, "y": [N] int32, class indices 0..classes-1}
    test: dict[str, np.ndarray] | None  # the same leaves; None: nothing is held out
    classes: int


def samples(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """X and y in the one form that every set has; read-only, since all callers of `load` share them."""
    leaves: dict[str, np.ndarray] = {"x": np.ascontiguousarray(x, np.float64), "y": np.ascontiguousarray(y, np.int32)}
    for leaf in leaves.values():
        leaf.setflags(write=False)
    return leaves
