"""Curves that somebody measured, from a CSV file: columns named as the picture's axes, and `label` where there are several."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from dopt import reading
from dopt.registry import did_you_mean
from dopt.text import quoted
from dopt.types import InputError

LARGEST = 2**24  # bytes of a file of curves
CURVES = 20  # that a picture takes


def read(given: str | Path | pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """The rows of a file, or of a table: x and y (float64), label.

    Raises:
      InputError: it is no CSV, lacks a column, holds what is no finite number, or more curves than can be told apart.
    """
    name, table = ("measured", given) if isinstance(given, pd.DataFrame) else (Path(given).stem, _table(given))
    if missing := [column for column in (x, y) if column not in table]:
        there = did_you_mean(missing[0], map(str, table.columns))
        raise InputError(f"add: no column {quoted(missing[0])}, which this picture draws{there}")
    if table.empty:
        raise InputError("add: the table has no rows")
    labels = table["label"].fillna(name).astype(str) if "label" in table else pd.Series(name, table.index)
    if labels.nunique() > CURVES:
        raise InputError(f"add: has {labels.nunique()} labels, one curve each; give at most {CURVES}")
    return pd.DataFrame({x: _numbers(table, x), y: _numbers(table, y), "label": labels})


def _table(path: str | Path) -> pd.DataFrame:
    text = reading.text("add", path, LARGEST, "; give a CSV file")
    try:
        return pd.read_csv(io.StringIO(text), skipinitialspace=True, dtype=str, keep_default_na=False, index_col=False)
    except (ValueError, pd.errors.ParserWarning) as error:
        raise InputError(f"add: {str(path)!r} is not CSV ({' '.join(str(error).split())})") from error


def _numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """A column as finite numbers."""
    column = table[name]
    found = pd.to_numeric(column, errors="coerce").astype(float)
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        raise InputError(f"add: {name} must be finite numbers, got {quoted(column.iloc[bad[0]])} in row {bad[0] + 1}")
    return found
