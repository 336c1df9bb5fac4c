"""Curves over seeds: medians and quartiles of runs, and how they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dopt.sweeps.cells import quantile
from dopt.sweeps.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis


def history(results: Results, *fields: str) -> pd.DataFrame:
    """The records of all runs, with these columns of the runs' table beside them."""
    return results.history.merge(results.runs[["id", *fields]], on="id", how="left", sort=False)


def quartiles(rows: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Median and quartiles of `value` over the runs of each cell.

    What is not finite counts as infinitely large: a run that diverged is worse than every other one.

    Args:
      rows: a row for each run (and record), with its `id`.
      by: the columns that make a cell.

    Returns:
      columns: `by`; median, low, high (quartiles, no interpolation between a finite and an infinite value); n (runs);
      ids (of those runs, separated by spaces).
    """
    rows = rows.dropna(subset=[*by])
    grouped = rows.groupby([*by], sort=False)
    cells, ids = grouped.ngroup().to_numpy(), rows["id"].to_numpy()
    values = np.where(np.isfinite(rows[value]), rows[value], np.inf)
    found = []
    for members in np.split(np.argsort(cells, kind="stable"), np.cumsum(np.bincount(cells))[:-1]):
        ordered, names = np.sort(values[members]), dict.fromkeys(ids[members])
        low, median, high = (quantile(ordered, q) for q in (0.25, 0.5, 0.75))
        found.append({"median": median, "low": low, "high": high, "n": len(names), "ids": " ".join(names)})
    keys = rows[[*by]].drop_duplicates().reset_index(drop=True)
    return pd.concat([keys, pd.DataFrame(found, columns=["median", "low", "high", "n", "ids"])], axis=1)


def line(axes: Axes, x: str, rows: pd.DataFrame, look: Mapping[str, Any], label: str | None = None) -> None:
    """A median with its band of quartiles; where it stops being finite, a cross marks the end of the curve.

    Args:
      x: the column of `rows` to draw along.
      look: colour, line style and so on, as `style.look` gives them.
    """
    rows = rows.sort_values(x, kind="stable")
    at, median = rows[x].to_numpy(float), rows["median"].to_numpy(float)
    finite = np.isfinite(median)
    axes.plot(at[finite], median[finite], label=label, **look)
    banded = finite & np.isfinite(rows["high"].to_numpy(float))
    axes.fill_between(
        at[banded],
        rows["low"].to_numpy(float)[banded],
        rows["high"].to_numpy(float)[banded],
        color=look.get("color"),
        alpha=0.18,
        linewidth=0,
    )
    if finite.any() and not finite.all():
        last = np.flatnonzero(finite)[-1]
        axes.plot(at[last], median[last], marker="x", color=look.get("color"), markersize=6, markeredgewidth=1.5)


def ticks(axis: Axis, values: Sequence[float]) -> None:
    """Ticks of an axis at these values alone, written out: what a logarithmic one of few decades needs."""
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_ticks([], minor=True)
