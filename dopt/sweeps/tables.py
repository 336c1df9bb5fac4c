"""The tables of a slab: a row for each run, and one for each run and record. They are made column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dopt.config import Run, Runs
from dopt.engine import Columns
from dopt.engine.single import Result


def tables(runs: Sequence[Run], found: Columns, ids: Sequence[str] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(runs, history) of a slab. `ids`: where others stand for the runs than their own."""
    runs = Runs.of(runs)
    ids = runs.ids if ids is None else ids
    last = np.arange(len(runs)), found.there.sum(1) - 1
    fields = {name: _typed(values) for name, values in {"id": ids, **_fields(runs)}.items()}
    ends = {
        "spectral_gap": found.spectral_gap,
        "diverged": found.diverged >= 0,
        "diverged_step": _steps(found.diverged),
        "stalled_step": _steps(found.stalled),
    }
    final = {f"final.{name}": h[last] for name, h in found.history.items()}
    columns = {name: h[found.there] for name, h in found.history.items()}
    of_record = np.repeat(np.arange(len(runs)), found.there.sum(1))
    history = pd.DataFrame({"id": fields["id"].take(of_record), **columns})
    return pd.DataFrame({**fields, **ends, **final}), history


def _typed(values: Sequence[Any]) -> Any:
    """A column of its values' own type; as objects where they have none in common, so that whole numbers stay exact."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return pd.array(values, "str")
    if kinds in ({float}, {bool}):
        return np.array(values)
    return pd.Series(np.fromiter(values, object, len(values))).infer_objects().array


def _steps(found: np.ndarray) -> pd.arrays.IntegerArray:
    """Steps, or nothing."""
    return pd.arrays.IntegerArray(np.maximum(found, 0).astype(np.int64), found < 0)


def _fields(runs: Runs) -> dict[str, Sequence[Any]]:
    """Name -> a value for each run; missing options are NaN."""
    place = np.searchsorted(np.sort(runs.used), runs.template).tolist()
    kinds = [runs.templates[number] for number in np.sort(runs.used)]
    shared = _united([like.to_dict() for like in kinds])
    columns: dict[str, Sequence[Any]] = {name: [values[i] for i in place] for name, values in shared.items()}
    return columns | {"learning_rate": runs.learning_rate.tolist(), "seed": runs.seed.tolist()}


def _united(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns, names in the order in which they come; what a row lacks is NaN."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name, np.nan) for row in rows] for name in names}


def of_result(result: Result) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(runs, history) of one run."""
    history = {name: h[None] for name, h in result.history.items()}
    diverged, stalled = (np.array([-1 if x is None else x]) for x in (result.diverged_step, result.stalled_step))
    there = np.ones((1, len(result.history["step"])), bool)
    found = Columns(history, there, diverged, stalled, np.array([result.spectral_gap]))
    return tables([result.run], found, [result.id])


__all__ = ["of_result", "tables"]
