"""Rows of one sweep, or of several, as one table: every run, or the best of each cell."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dopt.registry import did_you_mean
from dopt.sweeps.cells import OF_A_CELL, ends, scores, tuned
from dopt.sweeps.results import Results
from dopt.sweeps.several import SWEEP
from dopt.text import quoted
from dopt.types import InputError

OF_RECORDS = ("to_target", "spacing")  # columns for which records must be read


def rows(sweeps: Sequence[Results], over: Sequence[str] = (), names: Sequence[str] | None = None) -> pd.DataFrame:
    """The table: a row for each run, or, where something is tuned, for each cell of what else is varied.

    A run of the same id in two sweeps is one row. In the cells it belongs to both.

    Args:
      over: the parameters that are tuned, as `learning_rate`.
      names: its columns, in order; what a reader wants by default.

    Raises:
      InputError: no sweep varies such a parameter, or there is no such column.
    """
    varied = list(dict.fromkeys(name for one in sweeps for name in one.varied))
    for name in over:
        if name not in varied:
            near = did_you_mean(name, varied) or "; nothing is varied"
            raise InputError(f"best-over: {quoted(name)} is not a parameter that is varied{near}")
    if over:
        found = [tuned(one, over=over) for one in sweeps]
    else:
        reads = names is None or any(name in OF_RECORDS for name in names)
        found = [scores(one) if reads else ends(one) for one in sweeps]
    table = pd.concat([each.assign(**{SWEEP: one.name}) for each, one in zip(found, sweeps, strict=True)])
    if not over:
        table = table.drop_duplicates("id")
    known = {*table, *(() if over else OF_RECORDS)}
    for name in names or ():
        if name not in known:
            raise InputError(f"columns: no column {quoted(name)}{did_you_mean(name, known)}")
    return table[_usual(sweeps, table, varied, over) if names is None else list(names)].reset_index(drop=True)


def _usual(sweeps: Sequence[Results], table: pd.DataFrame, varied: Sequence[str], over: Sequence[str]) -> list[str]:
    """What a reader wants: what differs, what came of it, and which run it is."""
    has_target = any(one.metric.get("target") is not None for one in sweeps)
    begin = [SWEEP] * (len(sweeps) > 1)
    if over:
        costs = () if has_target else ("to_target", "low", "high")
        left = {*costs, "spacing", "ids", *(() if table["stalled"].any() else ("stalled",))}
        cell = [str(name) for name in table if name not in (*OF_A_CELL, SWEEP)]
        return [*begin, *cell, *(name for name in OF_A_CELL if name not in left)]
    parameters = [name for name in varied if name in table]
    stalled = ["stalled_step"] * bool(table["stalled_step"].notna().any())
    return [*begin, *parameters, "final", *(["to_target"] * has_target), "diverged", *stalled, "id"]


__all__ = ["rows"]
