"""Tuning, read off a sweep: for each cell of the swept parameters, the best learning rate and what it reaches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from dopt.sweeps.results import Results

TUNED = ("learning_rate", "seed")
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


def scores(results: Results, axis: str | None = None) -> pd.DataFrame:
    """The runs with `to_target`, `spacing` and `final` of the sweep's metric.

    `to_target` is the first record at or below the target from which on all are, or, where `metric.stays` is false, the first
    at all. NaN: not reached; also where the sweep has no target, or its metric was not recorded. `spacing` is how far
    before it the last record lies: it may be reached so much earlier.

    Args:
      axis: the column of the history that it is counted in; steps, gradients or simulated seconds by default, as the sweep's
        horizon is.
    """
    name = results.metric.get("name", "loss")
    target, sign = results.metric.get("target"), -1.0 if results.metric.get("goal") == "maximize" else 1.0
    runs = results.runs.copy()
    runs["final"] = runs.get(f"final.{name}", pd.Series(np.nan, runs.index))
    if target is None or name not in results.history:
        return runs.assign(to_target=np.nan, spacing=np.nan)
    axis, kept = axis or AXES[cost(results)], stays(results)
    reached, spacing = {}, {}
    values, counted = sign * results.history[name].to_numpy(), results.history[axis].to_numpy(float)
    for run, rows in results.history.groupby("id", sort=False).indices.items():
        place, at = place_at(values[rows], sign * target, kept), counted[rows]
        if place is not None:
            reached[run], spacing[run] = at[place], at[place] - at[max(0, place - 1)]
    return runs.assign(to_target=runs["id"].map(reached).astype(float), spacing=runs["id"].map(spacing).astype(float))


def tuned(results: Results, by: Sequence[str] | None = None, axis: str | None = None) -> pd.DataFrame:
    """One row per cell: its parameters, the best learning rate and how it does.

    The best rate costs least until the target, median over the seeds, where a seed that never gets there counts as
    infinitely much; ties, and sweeps without a target, go by the median final value.

    Args:
      by: the columns that make a cell; those the sweep varies by default.
      axis: what the target costs (see `scores`).

    Returns:
      columns: the cell's parameters; learning_rate; to_target, low, high (median and quartiles over seeds, inf: not
      reached); spacing (median over seeds of what lies between two records there); final; seeds; diverged, stalled (runs of
      the whole cell); edge (the best rate is the smallest or largest of several); ids (of the runs at the best rate,
      separated by spaces).
    """
    runs = scores(results, axis)
    cell = [name for name in by or results.varied if name not in TUNED and name in runs] or ["algorithm"]
    highest = results.metric.get("goal") == "maximize"
    filled = runs.assign(
        cost=runs["to_target"].fillna(math.inf),
        last=runs["final"].fillna(-math.inf if highest else math.inf),
        stalled=runs["stalled_step"].notna(),
    )
    rates = (
        filled.groupby([*cell, "learning_rate"], sort=False, dropna=False)
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
        grid = tried["learning_rate"]
        rows.append(
            {
                **{
                    name: best[name]
                    for name in [*cell, "learning_rate", "to_target", "low", "high", "spacing", "final"]
                },
                "seeds": int(best["seeds"]),
                "diverged": int(tried["diverged"].sum()),
                "stalled": int(tried["stalled"].sum()),
                "edge": len(tried) > 1 and best["learning_rate"] in (grid.min(), grid.max()),
                "ids": best["ids"],
            }
        )
    return pd.DataFrame(rows)


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
