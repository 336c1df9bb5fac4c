"""A table as text or as a file: CSV, JSON, LaTeX, Markdown, parquet.

CSV, JSON and parquet have numbers in full precision, and lists as JSON has them. LaTeX and Markdown are for readers: four digits that count.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa

from dopt.report.terminal import number
from dopt.sweeps import columns

TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}
Shown = Callable[[Any, str], str]  # (value, name of its column) -> what is shown of it
COSTS = ("to_target", "low", "high")  # where infinity says that the target is not reached


def csv(table: pd.DataFrame) -> str:
    """RFC 4180, but with line ends of one character; what is missing is empty, infinity is inf."""
    plain = {str(name): table[name].map(_listed) for name in table if table[name].dtype == object}
    text: str = table.assign(**plain).to_csv(index=False, lineterminator="\n")
    return text


def as_json(table: pd.DataFrame) -> str:
    """A list of objects, one a line. JSON has neither NaN nor infinity: what is missing, or not finite, is null."""
    each = zip(*map(_values, _series(table)), strict=True)
    lines = [json.dumps(dict(zip(table.columns, row, strict=True)), allow_nan=False) for row in each]
    return "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"


def parquet(table: pd.DataFrame) -> bytes:
    """Columns as in a slab's tables: one that mixes types is JSON text, and `dopt` reads it back as it was."""
    return columns.encoded(columns.table({str(name): _column(table[name]) for name in table})).to_pybytes()


def markdown(table: pd.DataFrame, shown: Shown | None = None) -> str:
    """A table between bars. `shown`: what of a value, in the column of that name; `cell` by default."""
    lines = [[_bare(str(name)) for name in table], ["---"] * table.shape[1]]
    lines += [[_bare(one) for one in row] for row in rows(table, shown or cell)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(table: pd.DataFrame) -> str:
    r"""A `tabular` with the rules of booktabs, for `\input`."""
    sides = "".join("r" if _is_number(column) else "l" for column in _series(table))
    lines = [" & ".join(row) + r" \\" for row in ([escaped(str(name)) for name in table], *rows(table, _tex))]
    begin = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{{sides}}}", r"\toprule", lines[0], r"\midrule"]
    return "\n".join([*begin, *lines[1:], r"\bottomrule", r"\end{tabular}"]) + "\n"


WRITERS: Mapping[str, Callable[[pd.DataFrame], str | bytes]] = {
    "csv": csv,
    "json": as_json,
    "latex": latex,
    "parquet": parquet,
}


# -- cells ----------------------------------------------------------------------------------------------------------


def _series(table: pd.DataFrame) -> list[pd.Series]:
    return [table[name] for name in table]


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _listed(value: Any) -> Any:
    """A list as JSON text."""
    return json.dumps(value) if isinstance(value, tuple | list) else value


def _values(column: pd.Series) -> list[Any]:
    """As JSON has them."""
    return [_finite(value) for value in column.tolist()]


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite(one) for one in value]
    return None if is_missing(value) or (isinstance(value, float) and math.isinf(value)) else value


def _column(column: pd.Series) -> columns.Column:
    if column.dtype == object:
        return columns.column([None if is_missing(x) else x for x in column.tolist()], range(len(column)))
    return columns.Column(pa.array(column, from_pandas=True), str(column.dtype))


def rows(table: pd.DataFrame, shown: Shown) -> Iterator[tuple[str, ...]]:
    """Rows of what is shown of each cell."""
    each = ([shown(value, str(column.name)) for value in column.tolist()] for column in _series(table))
    return zip(*each, strict=True)


def cell(value: Any, name: str) -> str:
    """A value as a reader wants it, in the column of that name."""
    if is_missing(value):
        return "-"
    if isinstance(value, float) and math.isinf(value):
        return "not reached" if name in COSTS else str(value)
    return str(_listed(value)) if isinstance(value, tuple | list) else number(value)


def _bare(text: str) -> str:
    """Text that ends neither its cell nor its row."""
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())


def _tex(value: Any, name: str) -> str:
    """Numbers in mathematics where they have a sign or a power of ten."""
    text = cell(value, name)
    if isinstance(value, str | bool) or is_missing(value) or not text.strip("+-").startswith(tuple("0123456789")):
        return escaped(text)
    digits, _, power = text.partition("e")
    if power:
        return rf"${digits} \cdot 10^{{{int(power)}}}$"
    return f"${text}$" if text.startswith("-") else text


def escaped(text: str) -> str:
    """Text that TeX takes for text, in one line."""
    return "".join(TEX.get(c, c) for c in " ".join(text.split()))
