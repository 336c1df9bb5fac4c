"""Tables in parquet files, whose columns may hold what has no type in common: numbers and lists, a number or a name.

Such a column is written as JSON text, cell by cell, and read back as it was, lists as tuples. The file says which columns these are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

MARK = "json"  # of the columns that are text in the file only
EXACT = 2**53  # up to here floats are exact, as which pandas keeps whole numbers beside missing ones


def write(table: pd.DataFrame, path: Path) -> None:
    """The table as a parquet file."""
    mixed = [str(name) for name, column in table.items() if not _alike(column)]
    texts = {name: [_text(value) for value in table[name]] for name in mixed}
    kept = table.assign(**texts) if texts else table.copy(deep=False)
    kept.attrs = {MARK: mixed}
    with path.open("wb") as file:  # opened by Python, which knows names that are no UTF-8
        kept.to_parquet(file, index=False)


def read(path: Path | BinaryIO) -> pd.DataFrame:
    """The table that `write` has written: values and types are as they were."""
    table = pd.read_parquet(path)
    mixed = table.attrs.pop(MARK, [])
    return table.assign(**{name: pd.Series(map(_value, table[name]), table.index, object) for name in mixed})


def _alike(column: pd.Series) -> bool:
    """Whether parquet has a type for all its values."""
    if column.dtype != object:
        return True
    kinds = {_kind(value) for value in column if not _is_missing(value)}
    return len(kinds) <= 1 and not kinds & {"list", "large"}


def _kind(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "truth value"
    if isinstance(value, int | np.integer) and abs(int(value)) > EXACT:
        return "large"
    if isinstance(value, int | float | np.number):
        return "number"
    return "text" if isinstance(value, str) else "list"


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def _text(value: Any) -> str:
    return json.dumps(None if _is_missing(value) else value, default=_plain)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else list(value)


def _value(text: str) -> Any:
    return frozen(json.loads(text))


def frozen(value: Any) -> Any:
    """Lists as tuples, however deep."""
    return tuple(map(frozen, value)) if isinstance(value, Iterable) and not isinstance(value, str | dict) else value
