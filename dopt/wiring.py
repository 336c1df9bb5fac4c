"""What a resolved run's mixing matrix must be, and who hears whom when it mixes. Host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from dopt import mixing, topology
from dopt.config import Run, options_of
from dopt.config.matrices import (
    KEPT,
    Source,
    has_matrix,
    matrix,
    matrix_of,
    needs_of,
    network,
    notes_of,
    own_matrix,
    source,
    wired,
)


def notes(runs: Sequence[Run], graph: Any = None) -> tuple[str, ...]:
    """What a reader should know of how graphs and matrices were taken: those of resolved runs, or what was handed over."""
    if graph is not None:
        return (*topology.notes(graph), *mixing.notes(graph))
    return tuple(dict.fromkeys(note for run in runs if has_matrix(run) for note in notes_of(source(run))))


def check(run: Run) -> None:
    """Refuse a matrix with which the run's method is not defined."""
    of = source(run)
    if of in KEPT.get():
        mixing.check(matrix_of(of), run.algorithm, of.needs or "")
    else:
        _check(run.algorithm, of)


@lru_cache(maxsize=256)
def _check(method: str, of: Source) -> None:
    mixing.check(matrix_of(of), method, of.needs or "")


def mixings(run: Run, steps: Any) -> Any:
    """How often a resolved run has mixed after so many steps."""
    options = options_of(run, "algorithm")
    return steps // options.get("local_steps", 1) * options.get("rounds", 1)


def links_of(run: Run, w: Any) -> Callable[[int], np.ndarray]:
    """Mixing -> [n, n] bool: whom each worker hears."""
    return mixing.links(w[0] if isinstance(w, tuple) else w, run.seed)


__all__ = [
    "check",
    "has_matrix",
    "links_of",
    "matrix",
    "mixings",
    "needs_of",
    "network",
    "notes",
    "own_matrix",
    "source",
    "wired",
]
