"""Tables in parquet files, whose columns may hold what has no type in common: numbers and lists, a number or a name.

Such a column is written as JSON text, cell by cell, and read back as it was, lists as tuples. The file says which columns these are.
Tables are Arrow's until somebody looks at them: pandas asks for each column about as much time as a run may take.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dopt.version import installed

if TYPE_CHECKING:
    import pandas as pd

MARK = "json"  # of the columns that are text in the file only
ATTRIBUTES = "PANDAS_ATTRS"  # where pandas keeps such marks in a file
EXACT = 2**53  # up to here floats are exact, as which pandas keeps whole numbers beside missing ones
TEXT, NUMBER, TRUTH, NOTHING = pa.large_string(), pa.float64(), pa.bool_(), pa.null()
OF_ONE = {
    str: TEXT,
    float: NUMBER,
    int: pa.int64(),
    bool: TRUTH,
    NoneType: NOTHING,
}  # values all of one type -> Arrow's
ENCODER = json.JSONEncoder(default=list)
PANDAS = {TEXT: "str", NUMBER: "float64", pa.int64(): "int64", TRUTH: "bool", NOTHING: "object"}


class Column(NamedTuple):
    """Values, the pandas type as which they are read back, and whether they are JSON."""

    values: pa.Array
    dtype: str
    is_json: bool = False


def column(values: list[Any], rows: Sequence[int]) -> Column:
    """The values of these rows, of their own type; as JSON where they have none in common, so that whole numbers stay exact."""
    types = set(map(type, values))
    kind = OF_ONE.get(types.pop()) if len(types) == 1 else None
    # zeros are equal, and may differ in sign
    if kind is not None and values.count(values[0]) == len(values) and (kind is not NUMBER or values[0] != 0.0):
        return _repeated(values[0], len(rows))
    each = [values[row] for row in rows]
    return _beside_others(each) if kind is None else _alone(each, kind)


@lru_cache(maxsize=1024, typed=True)  # a sweep varies a few of its fields, and all of its slabs share the others
def _repeated(value: Any, length: int) -> Column:
    return _alone([value] * length, OF_ONE[type(value)])


def _alone(values: Sequence[Any], kind: pa.DataType) -> Column:
    """A column of values that have one type."""
    try:
        return Column(pa.array(values, kind, from_pandas=True), PANDAS[kind])
    except OverflowError:  # whole numbers of more than 64 bits
        return _as_json(values)


def _beside_others(values: Sequence[Any]) -> Column:
    """A column of values of several types, or of none that is plain."""
    match sorted({_kind(value) for value in values if not _is_missing(value)}):
        case [] | ["number"]:
            return Column(pa.array(values, NUMBER, from_pandas=True), "float64")
        case ["text"]:
            return Column(pa.array(values, TEXT, from_pandas=True), "str")
        case ["truth value"]:
            return Column(pa.array(values, TRUTH, from_pandas=True), "object")
    return _as_json(values)


def _as_json(values: Sequence[Any]) -> Column:
    written = {repr(value): value for value in values}  # not by themselves: 1, 1.0 and True are equal
    texts = {shown: _text(value) for shown, value in written.items()}
    return Column(pa.array([texts[repr(value)] for value in values], TEXT), "str", is_json=True)


def of_array(values: np.ndarray) -> Column:
    """Numbers or truth values; NaN is a missing one."""
    found = pa.array(values, from_pandas=True)
    return Column(found, PANDAS.get(found.type) or str(values.dtype))


def of_steps(values: np.ndarray, there: np.ndarray) -> Column:
    """Whole numbers, where they are there."""
    return Column(pa.array(values, pa.int64(), mask=~there), "Int64")


def table(columns: Mapping[str, Column]) -> pa.Table:
    """The columns as a table that says as what pandas is to read them."""
    about = tuple((name, c.dtype, c.is_json) for name, c in columns.items())
    found = pa.RecordBatch.from_arrays([c.values for c in columns.values()], names=list(columns))
    return pa.Table.from_batches([found]).replace_schema_metadata(_metadata(about))


@lru_cache(maxsize=256)  # the slabs of a sweep have but a few
def _metadata(columns: tuple[tuple[str, str, bool], ...]) -> dict[str, str]:
    """As pandas writes it: (name, type, whether it is JSON) of each column."""
    about = {
        "index_columns": [],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": dtype, "numpy_type": dtype, "metadata": None}
            for name, dtype, _ in columns
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": installed("pandas"),
    }
    marks = {MARK: [name for name, _, is_json in columns if is_json]}
    return {"pandas": json.dumps(about), ATTRIBUTES: json.dumps(marks)}


def frame(table: pa.Table) -> pd.DataFrame:
    """The table as pandas has it: values and types are as they were."""
    found: pd.DataFrame = table.to_pandas()
    found.attrs = {}
    mixed = json.loads((table.schema.metadata or {}).get(ATTRIBUTES.encode(), b"{}")).get(MARK, [])
    return found.assign(**{name: _decoded(found[name]) for name in mixed if name in found})


def _decoded(column: pd.Series) -> pd.Series:
    """Values of their JSON; equal texts are read once."""
    import pandas as pd

    values = {text: _value(text) for text in column.unique()}
    return pd.Series([values[text] for text in column.tolist()], column.index, object)


def joined(tables: Iterable[pa.Table]) -> pd.DataFrame:
    """The tables one below the other, those together that are alike; where they differ pandas finds the types that fit all."""
    import pandas as pd

    alike: dict[bytes, list[pa.Table]] = {}
    for one in tables:
        if len(one):
            alike.setdefault(one.schema.serialize().to_pybytes(), []).append(one)
    return pd.concat([frame(pa.concat_tables(each)) for each in alike.values()], ignore_index=True)


def write(table: pa.Table, path: Path) -> str:
    """The table as a parquet file; returns the sha256 of what is to be there."""
    found = encoded(table)
    path.write_bytes(found)  # by Python, which knows names that are no UTF-8
    return hashlib.sha256(found).hexdigest()


def encoded(table: pa.Table) -> pa.Buffer:
    """The content of such a file.

    Nobody asks the file for statistics, numbers of a metric are too different to be worth a dictionary, and Arrow's own notes
    would be longer than the rest: pandas' notes are enough.
    """
    alike = [field.name for field in table.schema if not pa.types.is_floating(field.type)]
    content = pa.BufferOutputStream()
    with pq.ParquetWriter(
        content, table.schema, use_dictionary=alike, write_statistics=False, store_schema=False
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({key.decode(): text.decode() for key, text in table.schema.metadata.items()})
    return content.getvalue()


def read(file: Path | pa.NativeFile, names: Sequence[str] | None = None, words: Sequence[str] = ()) -> pa.Table:
    """The table that `write` has written, or its columns of these names, where it has them.

    Args:
      words: columns of few different texts, which are read as a dictionary and numbers.
    """
    with pq.ParquetFile(file, read_dictionary=list(words)) as found:
        return found.read(names, use_threads=False)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "truth value"
    if isinstance(value, int) and abs(value) > EXACT:
        return "large"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "list"


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _text(value: Any) -> str:
    return ENCODER.encode(None if _is_missing(value) else value)


def _value(text: str) -> Any:
    return frozen(json.loads(text))


def frozen(value: Any) -> Any:
    """Lists as tuples, however deep."""
    return tuple(map(frozen, value)) if isinstance(value, Iterable) and not isinstance(value, str | dict) else value
