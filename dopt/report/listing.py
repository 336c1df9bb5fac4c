"""Rows of one sweep, or of several, as one table: every run, or the best of each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from dopt.registry import did_you_mean
from dopt.sweeps import where
from dopt.sweeps.cells import OF_A_CELL, ends, scores, tuned
from dopt.sweeps.records import Records, united
from dopt.sweeps.results import Results
from dopt.text import quoted
from dopt.types import InputError

SWEEP = "sweep"  # the column that says whose a row is
OF_RECORDS = ("to_target", "spacing")  # columns for which records must be read


def together(parts: Sequence[Results]) -> list[Results]:
    """One `Results` for each name: parts of one sweep that lie in several folders are one table."""
    named: dict[str, list[Results]] = {}
    for part in parts:
        named.setdefault(part.name, []).append(part)
    return [_as_one(parts) for parts in named.values()]


def _as_one(parts: Sequence[Results]) -> Results:
    """Of a run that is in several parts the first counts. What is missing belongs to a folder, and is not counted here.

    Raises:
      InputError: they are read by different metrics.
    """
    first = parts[0]
    for part in parts:
        if part.metric != first.metric:
            raise InputError(
                f"results: {str(part.folder)!r} asks for the metric {dict(part.metric)}, {str(first.folder)!r} for {dict(first.metric)}; ask for {first.name} once more in one of them"
            )
    if len(parts) == 1:
        return first
    runs = pd.concat([part.runs for part in parts], ignore_index=True).drop_duplicates("id", ignore_index=True)
    varied = tuple(dict.fromkeys(name for part in parts for name in part.varied))
    records = united(part.records for part in parts if isinstance(part.records, Records))
    return replace(first, runs=runs, records=records, varied=varied, missing=0, hidden=0, faults=())


def chosen(sweeps: Sequence[Results], conditions: Sequence[where.Condition]) -> list[Results]:
    """The runs for which all conditions hold. A column's type is that of all sweeps together; `sweep` is the name of one.

    Raises:
      InputError: no sweep has such a column, or its values have another type.
    """
    table = pd.concat([one.runs.assign(**{SWEEP: one.name}) for one in sweeps], ignore_index=True)
    ends_at = np.cumsum([len(one.runs) for one in sweeps])[:-1]
    masks = np.split(where.mask(table, conditions), ends_at)
    return [one.only(mask) for one, mask in zip(sweeps, masks, strict=True)]


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
            raise InputError(f"best-over: {quoted(name)} is no parameter that is varied{near}")
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


__all__ = ["chosen", "rows", "together"]
