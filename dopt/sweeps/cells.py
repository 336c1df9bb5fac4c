"""Tuning, read off a sweep: for each cell of the swept parameters, the best learning rate and what it reaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dopt.sweeps.results import Results

TUNED = ("learning_rate", "seed")
OVER = TUNED[:1]  # what is chosen in each cell
OF_A_CELL = ("to_target", "low", "high", "spacing", "final", "seeds", "diverged", "stalled", "edge", "ids")
AXES = {"seconds": "time", "gradients": "gradients", "steps": "step"}  # horizon -> the column that counts towards it


def cost(results: Results) -> str:
    """What the target costs: seconds, gradients or steps, as the sweep's horizon is."""
    given = [name for name in AXES if name in results.runs and results.runs[name].notna().any()]
    return given[0] if len(given) == 1 else "steps"


def stays(results: Results) -> bool:
    """Whether the target is reached only where it is kept to: `metric.stays`, which is true where it is not given.

    A noisy method dips below a target long before it stays there, the sooner the noisier it is.
    """
    return bool(results.metric.get("stays", True))


def ends(results: Results) -> pd.DataFrame:
    """The runs with `final`, the last value of the sweep's metric; no record is read for it."""
    last = results.runs.get(f"final.{results.metric.get('name', 'loss')}", pd.Series(np.nan, results.runs.index))
    return results.runs.assign(final=last)


def scores(results: Results, axis: str | None = None) -> pd.DataFrame:
    """The runs with `to_target`, `spacing` and `final` of the sweep's metric.

    `to_target` is the first record at or below the target from which on all are, or, where `metric.stays` is false, the first
    at all. NaN: not reached; also where the sweep has no target, or its metric was not recorded. `spacing` is how far
    before it the last record lies: it may be reached so much earlier.

    Args:
      axis: the column of the history that it is counted in; steps, gradients or simulated seconds by default, as the sweep's
        horizon is.
    """
    name, runs = results.metric.get("name", "loss"), ends(results)
    target, sign = results.metric.get("target"), -1.0 if results.metric.get("goal") == "maximize" else 1.0
    axis, kept = axis or AXES[cost(results)], stays(results)
    if target is None:
        return runs.assign(to_target=np.nan, spacing=np.nan)
    count, records = results.measured([name, axis])
    if name not in records:
        return runs.assign(to_target=np.nan, spacing=np.nan)
    reached, spacing = np.full((2, len(runs)), np.nan)
    values, counted, end = sign * records[name].to_numpy(), records[axis].to_numpy(float), np.cumsum(count)
    for run, (begin, stop) in enumerate(zip((end - count).tolist(), end.tolist(), strict=True)):
        place = place_at(values[begin:stop], sign * target, kept)
        if place is not None:
            at = begin + place
            reached[run], spacing[run] = counted[at], counted[at] - counted[max(begin, at - 1)]
    return runs.assign(to_target=reached, spacing=spacing)


def tuned(
    results: Results, by: Sequence[str] | None = None, axis: str | None = None, over: Sequence[str] = OVER
) -> pd.DataFrame:
    """One row per cell: its parameters, the best learning rate and how it does.

    The best rate costs least until the target, median over the seeds, where a seed that never gets there counts as
    infinitely much; ties, and sweeps without a target, go by the median final value.

    Args:
      by: the columns that make a cell; those the sweep varies by default.
      axis: what the target costs (see `scores`).
      over: what is tuned, where it is another parameter than the learning rate, or several. Seeds are never tuned unless they
        are named.

    Returns:
      columns: the cell's parameters; the tuned ones; to_target, low, high (median and quartiles over seeds, inf: not
      reached); spacing (median over seeds of what lies between two records there); final; seeds; diverged, stalled (runs of
      the whole cell); edge (the best rate is the smallest or largest of several); ids (of the runs at the best rate,
      separated by spaces).
    """
    runs, over = scores(results, axis), list(over)
    cell = [name for name in by or results.varied if name not in (*over, "seed") and name in runs] or ["algorithm"]
    highest = results.metric.get("goal") == "maximize"
    filled = runs.assign(
        cost=runs["to_target"].fillna(math.inf),
        last=runs["final"].fillna(-math.inf if highest else math.inf),
        stalled=runs["stalled_step"].notna(),
    )
    rates = (
        filled.groupby([*cell, *over], sort=False, dropna=False)
        .agg(
            to_target=("cost", "median"),
            low=("cost", lambda costs: quantile(np.sort(costs), 0.25)),
            high=("cost", lambda costs: quantile(np.sort(costs), 0.75)),
            spacing=("spacing", "median"),
            final=("last", "median"),
            seeds=("id", "size"),
            ids=("id", " ".join),
            diverged=("diverged", "sum"),
            stalled=("stalled", "sum"),
        )
        .reset_index()
    )
    rows = []
    for _, tried in rates.groupby(cell, sort=False, dropna=False):
        order = tried.assign(key=-tried["final"] if highest else tried["final"])
        best = order.sort_values(["to_target", "key"], kind="stable").iloc[0]
        rows.append(
            {
                **{name: best[name] for name in [*cell, *over, "to_target", "low", "high", "spacing", "final"]},
                "seeds": int(best["seeds"]),
                "diverged": int(tried["diverged"].sum()),
                "stalled": int(tried["stalled"].sum()),
                "edge": any(_is_at_edge(best[name], tried[name]) for name in over),
                "ids": best["ids"],
            }
        )
    return pd.DataFrame(rows, columns=[*cell, *over, *OF_A_CELL])


def _is_at_edge(chosen: Any, tried: pd.Series) -> bool:
    """Whether it is the smallest or the largest of several numbers."""
    if not pd.api.types.is_numeric_dtype(tried) or pd.api.types.is_bool_dtype(tried):
        return False
    return bool(tried.nunique() > 1 and chosen in (tried.min(), tried.max()))


def best(results: Results, by: Sequence[str] | None = None, axis: str | None = None) -> pd.DataFrame:
    """The runs at each cell's best learning rate (see `tuned`), with `edge` and `to_target`."""
    cells = tuned(results, by, axis)
    edge = {run: cell.edge for cell in cells.itertuples() for run in str(cell.ids).split()}
    runs = scores(results, axis)
    return runs[runs["id"].isin(edge)].assign(edge=runs["id"].map(edge)).reset_index(drop=True)


def first_at(axis: np.ndarray, values: np.ndarray, target: float, stays: bool = False) -> float:
    """Where on `axis` (steps, seconds) the first of `values` is that is at most `target`; NaN where none is.

    Args:
      stays: the first from which on all of them are. What is not finite is not at the target.
    """
    place = place_at(values, target, stays)
    return float("nan") if place is None else float(axis[place])


def place_at(values: np.ndarray, target: float, stays: bool = False) -> int | None:
    """As `first_at`, the number of the record."""
    there = np.asarray(values) <= target
    if stays:
        place = len(there) - int(np.argmin(there[::-1])) if not there.all() else 0
        return place if place < len(there) else None
    return int(np.argmax(there)) if there.any() else None


def quantile(values: np.ndarray, q: float) -> float:
    """Linear between neighbours; infinite where one of those that count is."""
    place = q * (len(values) - 1)
    below, above = int(np.floor(place)), int(np.ceil(place))
    if np.isinf(values[above]):
        return float(values[below]) if below == above else np.inf
    return float(values[below] + (place - below) * (values[above] - values[below]))
