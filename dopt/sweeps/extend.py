"""Grids without an edge: where the best learning rate of a cell stands at the edge of its grid, the grid of that cell grows.

A comparison in which one method had the rates that suit it, and another had not, compares grids. Each time the grid grows by the
ratio of its two outermost values, until its best rate has a worse one on either side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dopt.config import Runs
from dopt.config.runs import kinds
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
            f"extend: only learning_rate can be extended, got {quoted(extend)}{did_you_mean(extend, [RATE])}"
        )
    if RATE not in asked.varied:
        raise InputError(f"extend: {RATE} has one value in this sweep, so it has no grid; give at least two")
    if asked.is_random:
        raise InputError("extend: a random sweep has no grid; use method: grid")


def step(held: Held, results: Results) -> Step:
    """What to run next, as the results say.

    A cell in which no run reached the target has no best rate, and grows only if there is no target.
    """
    runs, extended = held.shown, np.arange(len(held.shown)) >= held.own
    cell = kinds(runs)[0][runs.template]  # runs of equal numbers differ in nothing but rate and seed
    rows, rates = _uneven(runs, cell, extended)
    if rows:
        return Step(_at(runs, rows, rates), [])
    found = tuned(results)
    decides = found["to_target" if "target" in results.metric else "final"]
    at_edge = found[found["edge"] & np.isfinite(decides.astype(float))].to_dict("records")
    place = {identity: row for row, identity in enumerate(runs.ids)}
    ended: list[Mapping[Any, Any]] = []
    for best in at_edge:
        chosen = [place[identity] for identity in best["ids"].split()]
        mine = cell == cell[chosen[0]]
        if len(np.unique(runs.learning_rate[mine & extended])) >= MOST:
            ended.append(best)
            continue
        rows += chosen
        rates += [beyond(runs.learning_rate[mine], best[RATE])] * len(chosen)
    return Step(_at(runs, rows, rates) if rows else None, _said(ended, results) if ended else [])


def _uneven(runs: Runs, cell: np.ndarray, extended: np.ndarray) -> tuple[list[int], list[float]]:
    """(rows of runs, the rates by which grids grew that their seeds lack): seeds that the file asks for since would be judged by fewer rates."""
    rows: list[int] = []
    rates: list[float] = []
    for number in np.unique(cell[extended]).tolist():
        mine = np.flatnonzero(cell == number)
        grown = np.unique(runs.learning_rate[mine[extended[mine]]])
        seeds, first = np.unique(runs.seed[mine], return_index=True)
        for seed, row in zip(seeds.tolist(), mine[first].tolist(), strict=True):
            lacking = np.setdiff1d(grown, runs.learning_rate[mine[runs.seed[mine] == seed]]).tolist()
            rows += [row] * len(lacking)
            rates += lacking
    return rows, rates


def _at(runs: Runs, rows: Sequence[int], rates: Sequence[float]) -> Runs:
    """Some of the runs, at other rates."""
    chosen = runs.take(np.array(rows)).alone()
    return Runs(chosen.templates, chosen.template, np.array(rates, np.float64), chosen.seed)


def _said(ended: Sequence[Mapping[Any, Any]], results: Results) -> list[str]:
    """The line on cells whose grid grew enough, and whose best rate is at its edge all the same."""
    names = [name for name in results.varied if name not in TUNED and name in ended[0]]
    first = ", ".join(f"{name}={ended[0][name]}" for name in names) or "all runs"
    return [
        f"extend: the best rate of {len(ended)} cells is still at the edge after the grid grew {MOST} times, for example at {ended[0][RATE]:g} for {first}"
    ]


def beyond(rates: np.ndarray, best: float) -> float:
    """The rate that follows the best one, which is an outermost one of a grid of two at least."""
    grid = np.unique(rates)
    following = best * best / (grid[-2] if best == grid[-1] else grid[1])
    return float(f"{following:.{DIGITS}g}")
