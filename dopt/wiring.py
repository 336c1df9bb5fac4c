"""What a resolved run's mixing matrix must be, and who hears whom when it mixes. Host."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from dopt import mixing
from dopt.config import Run, options_of
from dopt.config.matrices import KEPT, Source, matrix, matrix_of, needs_of, network, own_matrix, source, wired


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


__all__ = ["check", "links_of", "matrix", "mixings", "needs_of", "network", "own_matrix", "source", "wired"]
