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
