"""Medians and quartiles over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dopt.sweeps.cells import quantile
from dopt.sweeps.results import Results


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


def aligned(rows: pd.DataFrame, x: str, y: str, points: int = 200) -> pd.DataFrame:
    """Records of several runs at the same places: the last one at or before each, as far as all runs go.

    Seeds count seconds differently, where a cluster is random. Records that lie at the same places already stay as they are.

    Args:
      rows: id, x, y of the runs' records, each run's in order.
    """
    parts = [
        (str(name), own[x].to_numpy(float), own[y].to_numpy(float)) for name, own in rows.groupby("id", sort=False)
    ]
    if all(np.array_equal(at, parts[0][1]) for _, at, _ in parts):
        return rows
    places = np.unique(np.concatenate([at for _, at, _ in parts]))
    places = places[(places >= max(at[0] for _, at, _ in parts)) & (places <= min(at[-1] for _, at, _ in parts))]
    if not len(places):
        return rows.iloc[:0]
    places = places[np.unique(np.linspace(0, len(places) - 1, points).round().astype(int))]
    held = [
        pd.DataFrame({"id": name, x: places, y: values[np.searchsorted(at, places, side="right") - 1]})
        for name, at, values in parts
    ]
    return pd.concat(held, ignore_index=True)
