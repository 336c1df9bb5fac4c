"""A run's mixing matrix: whether it serves, in which form it runs, and who hears whom when it mixes. Host."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from dopt import mixing
from dopt.algorithms.traits import neighbours_of
from dopt.config import Resolved
from dopt.config.exchanges import exchange_of, needs_of
from dopt.config.matrices import (
    KEPT,
    Source,
    has_matrix,
    matrix,
    matrix_of,
    network,
    own_matrix,
    source,
    wanted,
    wired,
)
from dopt.types import InputError

ON_DEVICES = ("pmap", "shard_map")  # a worker each, so that permutations can travel
IN_ROWS = ("mesh",)  # where shifts can


def check_wanted(run: Resolved, own: Any) -> None:
    """Refuse a matrix with which a run is not defined. `own`: the one that was handed over, or None."""
    if run.strict and own is not None:
        mixing.check(own, run.algorithm, needs_of(run) or "")
    elif run.strict:
        check(run)
    if run.options.get("link_loss.policy") == "renormalise":
        w = wanted(run, own)
        mixing.check_own_weight(w[0] if isinstance(w, tuple) else w, run.algorithm)
    if run.delay == "cluster":
        check_stays(wanted(run, own))


def check_stays(w: Any) -> None:
    """Refuse a sequence where nobody waits: its steps would be nobody's."""
    if np.ndim(w) != 2:
        raise InputError("delay: cluster needs one fixed graph, got a sequence; use a static topology")


def forms(run: Resolved, w: Any, steps: int) -> tuple[mixing.Form, ...]:
    """The forms in which W runs: one, or two of a pair. `steps`: of the loop."""
    return _forms(w, needs_of(run), run.workers, *_how(run, steps))


def described(run: Resolved) -> str:
    """What of the forms in which W runs is static."""
    of = source(run)
    how = of.needs, run.workers, *_how(run, steps=1)
    return _names(_forms(matrix_of(of), *how)) if of in KEPT.get() else _described(of, *how)


def _how(run: Resolved, steps: int) -> tuple[str, bool, bool, int, int]:
    """The kind of form that is asked for, whether permutations or shifts can travel, and of random graphs how many and from which seed."""
    return run.mix, run.executor in ON_DEVICES, run.executor in IN_ROWS, max(1, mixings(run, steps)), run.seed


def _forms(
    w: Any, needs: str | None, workers: int, kind: str, devices: bool, rows: bool, mixes: int, seed: int
) -> tuple[mixing.Form, ...]:
    if needs == "tree":
        return (mixing.form(np.full((workers, workers), 1 / workers), "dense"),)
    pair = w if isinstance(w, tuple) else (w,)
    columns = [needs == "column stochastic"] if len(pair) == 1 else [False, True]
    return tuple(
        mixing.form(part, kind, columns=c, devices=devices, rows=rows, steps=mixes, seed=seed)
        for part, c in zip(pair, columns, strict=True)
    )


@lru_cache(maxsize=1024)
def _described(
    of: Source, needs: str | None, workers: int, kind: str, devices: bool, rows: bool, mixes: int, seed: int
) -> str:
    return _names(_forms(matrix_of(of), needs, workers, kind, devices, rows, mixes, seed))


def _names(forms: Iterable[mixing.Form]) -> str:
    return " and ".join(form.described for form in forms)


def check(run: Resolved) -> None:
    """Refuse a matrix with which the run's method is not defined."""
    of = source(run)
    if of in KEPT.get():
        mixing.check(matrix_of(of), run.algorithm, of.needs or "")
    else:
        _check(run.algorithm, of)


@lru_cache(maxsize=256)
def _check(method: str, of: Source) -> None:
    mixing.check(matrix_of(of), method, of.needs or "")


def mixings(run: Resolved, steps: int) -> int:
    """How often a run has mixed after so many steps."""
    found = neighbours_of(exchange_of(run))
    return 0 if found is None else int(found.mixings(steps))


def links_of(run: Resolved, w: Any) -> Callable[[int], np.ndarray]:
    """Mixing -> [n, n] bool: whom each worker hears."""
    return mixing.links(w[0] if isinstance(w, tuple) else w, run.seed)


__all__ = [
    "check_stays",
    "check_wanted",
    "described",
    "forms",
    "has_matrix",
    "links_of",
    "matrix",
    "mixings",
    "needs_of",
    "network",
    "own_matrix",
    "source",
    "wanted",
    "wired",
]
