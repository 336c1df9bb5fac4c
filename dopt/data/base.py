"""What a reader of real data returns, and the names under which readers are found.

The trait `kind` of a set says what a sample is, and so which problems can learn from it:

- classes: x [d] float64, features, and y [] int32, the class;
- text: x [context] int32, characters by their numbers, and y [context] int32, each one's successor;
- ratings: x [2] int32, a user and an item, and y [] float64, what the one gives the other.

The trait `files` is options -> the paths that it reads, of a set that lies in files.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dopt.registry import Registry
from dopt.types import InputError

SETS = Registry("data")


class Dataset(NamedTuple):
    """Samples to learn from and, where the set comes with some, samples held out."""

    train: dict[str, np.ndarray]  # {"x", "y"}, leaves [N, ...], by the set's kind
    test: dict[str, np.ndarray] | None  # the same leaves; None: nothing is held out
    classes: int  # numbers that y may be: 0..classes-1; 0: y is real


def samples(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Features x and classes y in the one form that sets of classes have."""
    return frozen(x=np.asarray(x, np.float64), y=y)


def frozen(**leaves: np.ndarray) -> dict[str, np.ndarray]:
    """Leaves [N, ...], real numbers or int32 ones, that nobody can change: all callers of `load` share them."""
    found: dict[str, np.ndarray] = {}
    for name, leaf in leaves.items():
        found[name] = np.ascontiguousarray(leaf, np.float64 if leaf.dtype.kind == "f" else np.int32)
        found[name].setflags(write=False)
    return found


def at_least(**options: tuple[int, int]) -> None:
    """Refuse an option, (its value, the least it may be), that is too small."""
    for name, (value, least) in options.items():
        if value < least:
            raise InputError(f"data.{name}: must be at least {least}, got {value}")
