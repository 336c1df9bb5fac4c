"""The tables of a slab: a row for each run, and one for each run and record. They are made column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from dopt.config import Run, Runs
from dopt.engine import Columns
from dopt.engine.single import Result
from dopt.sweeps import columns
from dopt.sweeps.columns import Column, of_array


def tables(runs: Sequence[Run], found: Columns, ids: Sequence[str] | None = None) -> tuple[pa.Table, pa.Table]:
    """(runs, history) of a slab. `ids`: where others stand for the runs than their own."""
    runs = Runs.of(runs)
    rows, records = np.arange(len(runs)), found.there.sum(1)
    own = pa.array(runs.ids if ids is None else ids, columns.TEXT)
    ends = {
        "spectral_gap": of_array(found.spectral_gap),
        "diverged": of_array(found.diverged >= 0),
        "diverged_step": columns.of_steps(found.diverged, found.diverged >= 0),
        "stalled_step": columns.of_steps(found.stalled, found.stalled >= 0),
    }
    final = {f"final.{name}": of_array(h[rows, records - 1]) for name, h in found.history.items()}
    of_runs = columns.table({"id": Column(own, "str"), **_fields(runs), **ends, **final})
    of_record = own.take(pa.array(np.repeat(rows, records)))
    there = ... if found.there.all() else found.there
    measured = {name: of_array(h[there].reshape(-1)) for name, h in found.history.items()}
    return of_runs, columns.table({"id": Column(of_record, "str"), **measured})


def _fields(runs: Runs) -> dict[str, Column]:
    """Name -> a value for each run; missing options are NaN. What runs share is looked at once."""
    used, rows = np.unique(runs.template, return_inverse=True)
    shared = _united([runs.templates[number].to_dict() for number in used.tolist()])
    of_each = {name: columns.column(values, rows.tolist()) for name, values in shared.items()}
    return of_each | {"learning_rate": of_array(runs.learning_rate), "seed": of_array(runs.seed)}


def _united(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns, names in the order in which they come; what a row lacks is NaN."""
    names = dict.fromkeys(chain.from_iterable(rows))
    return {name: [row.get(name, np.nan) for row in rows] for name in names}


def of_result(result: Result) -> tuple[pa.Table, pa.Table]:
    """(runs, history) of one run."""
    history = {name: h[None] for name, h in result.history.items()}
    diverged, stalled = (np.array([-1 if x is None else x]) for x in (result.diverged_step, result.stalled_step))
    there = np.ones((1, len(result.history["step"])), bool)
    found = Columns(history, there, diverged, stalled, np.array([result.spectral_gap]))
    return tables([result.run], found, [result.id])


__all__ = ["of_result", "tables"]
