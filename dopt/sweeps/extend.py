"""Grids without an edge: where the best learning rate of a cell stands at the edge of its grid, the grid of that cell grows.

A comparison in which one method had the rates that suit it, and another had not, compares grids. Each time the grid grows by the
ratio of its two outermost values, until its best rate has a worse one on either side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dopt.config import Runs
from dopt.config.runs import kinds, numbered
from dopt.registry import did_you_mean
from dopt.sweeps.agreement import Held
from dopt.sweeps.cells import TUNED, tuned
from dopt.sweeps.results import Results
from dopt.sweeps.spec import Sweep
from dopt.text import quoted
from dopt.types import InputError

MOST = 5  # times that the grid of a cell grows
RATE = "learning_rate"
DIGITS = 12  # of a new rate, so that 0.3 follows 0.1 and 0.03 in a file as it does here


class Step(NamedTuple):
    """How the grids of a sweep grow next."""

    runs: Runs | None  # that are asked for besides; None: no grid grows
    lines: Sequence[str]  # what is said of cells whose grid ends at its best rate, and does not grow


def check(extend: str | None, asked: Sweep) -> None:
    """InputError where a sweep has no grid that can grow."""
    if extend is None:
        return
    if extend != RATE:
        raise InputError(
            f"extend: a grid grows by its learning_rate alone, got {quoted(extend)}{did_you_mean(extend, [RATE])}"
        )
    if RATE not in asked.varied:
        raise InputError(f"extend: {RATE} has one value in this sweep, so that it has no grid; give two at least")
    if asked.is_random:
        raise InputError("extend: a random sweep has no grid; use method: grid")


def step(held: Held, results: Results) -> Step:
    """What to run next, as the results say.

    A cell in which no run reached the target has no best rate, and grows only if there is no target.
    """
    cells = tuned(results)
    decides = cells["to_target" if "target" in results.metric else "final"]
    at_edge = cells[cells["edge"] & np.isfinite(decides.astype(float))]
    runs = held.shown
    place = {identity: row for row, identity in enumerate(runs.ids)}
    like, extended = _alike(runs), np.arange(len(runs)) >= held.own
    rows: list[int] = []
    rates: list[float] = []
    ended: list[Mapping[Any, Any]] = []
    for cell in at_edge.to_dict("records"):
        for row in (place[identity] for identity in cell["ids"].split()):
            same = np.flatnonzero(like == like[row])
            if np.count_nonzero(extended[same]) < MOST:
                rows.append(row)
                rates.append(beyond(runs.learning_rate[same], runs.learning_rate[row]))
            elif not ended or ended[-1] is not cell:
                ended.append(cell)
    lines = []
    if ended:
        names = [name for name in results.varied if name not in TUNED and name in ended[0]]
        first = ", ".join(f"{name}={ended[0][name]}" for name in names)
        lines = [
            f"extend: the best rate of {len(ended)} cells is still at the edge after the grid grew {MOST} times, of {first or 'all runs'} at {ended[0][RATE]:g}"
        ]
    if not rows:
        return Step(None, lines)
    chosen = runs.take(np.array(rows)).alone()
    return Step(Runs(chosen.templates, chosen.template, np.array(rates, np.float64), chosen.seed), lines)


def _alike(runs: Runs) -> np.ndarray:
    """[runs] equal numbers where runs differ in nothing but their rate."""
    (kind,) = kinds(runs)
    return numbered(kind[runs.template], runs.seed)[1]


def beyond(rates: np.ndarray, best: float) -> float:
    """The rate that follows the best one, which is an outermost one of a grid of two at least."""
    grid = np.unique(rates)
    following = best * best / (grid[-2] if best == grid[-1] else grid[1])
    return float(f"{following:.{DIGITS}g}")
