"""The tables of a slab: a row for each run, and one for each run and record. They are made column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dopt.config import Run, Runs
from dopt.group import Outcome


def tables(runs: Sequence[Run], outcomes: Sequence[Outcome]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(runs, history) of a slab."""
    runs = Runs.of(runs)
    ends: dict[str, Sequence[Any]] = {
        "spectral_gap": [outcome.spectral_gap for outcome in outcomes],
        "diverged": [outcome.diverged_step is not None for outcome in outcomes],
        "diverged_step": [outcome.diverged_step for outcome in outcomes],
        "stalled_step": [outcome.stalled_step for outcome in outcomes],
    }
    final = _united([{name: values[-1] for name, values in outcome.history.items()} for outcome in outcomes])
    columns = {"id": runs.ids, **_fields(runs), **ends, **{f"final.{name}": values for name, values in final.items()}}
    # objects first: whole numbers beside missing ones stay exact
    table = pd.DataFrame({name: _objects(values) for name, values in columns.items()}, dtype=object).infer_objects()
    for name in ("diverged_step", "stalled_step"):
        table[name] = table[name].astype("Int64")
    return table, _history(runs.ids, [outcome.history for outcome in outcomes])


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


def _objects(values: Sequence[Any]) -> np.ndarray:
    """Values as they are, lists among them, one a place."""
    return np.fromiter(values, object, len(values))


def _history(ids: Sequence[str], histories: Sequence[Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """The records of all runs, one run after the other; of a metric that a run lacks, NaN."""
    lengths = [len(history["step"]) for history in histories]
    names = dict.fromkeys(name for history in histories for name in history)
    missing = [np.full(length, np.nan) for length in lengths]
    columns = {
        name: np.concatenate([history.get(name, none) for history, none in zip(histories, missing, strict=True)])
        for name in names
    }
    return pd.DataFrame({"id": np.repeat(_objects(ids), lengths), **columns})


__all__ = ["tables"]
