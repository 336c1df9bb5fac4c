"""Several sweeps read as one: parts of one sweep in several folders, and conditions on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from dopt.sweeps import where
from dopt.sweeps.records import Records, united
from dopt.sweeps.results import Results
from dopt.types import InputError

SWEEP = "sweep"  # the column that says whose a row is


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
                f"results: {str(part.folder)!r} asks for the metric {dict(part.metric)}, {str(first.folder)!r} for {dict(first.metric)}; run {first.name} again in one of them"
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


__all__ = ["SWEEP", "chosen", "together"]
