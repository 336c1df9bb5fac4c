"""Conditions on the rows of a table, as text: `topology=ring, delay>2`. All of them must hold.

A condition is `NAME OP VALUE`, OP one of = != < <= > >=. A value is read by the type of its column, and nothing is ever evaluated: in a
column of numbers it is a number, of truth values true or false, of text a text. A column may mix them, as `delay` does in a
sweep of 0, 2 and `uniform`: there `delay>2` holds for the numbers alone, and a value in quotes is a text. A list is written as in JSON,
in quotes, since it has commas: `cluster.scale='[1, 2]'`.

What a run lacks, as an option that its method does not have, is missing: of all conditions on it only `!=` holds. `none` stands
for what is missing: `delay.max=none` holds where a run has no such option, `delay.max!=none` where it has one.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dopt.registry import did_you_mean
from dopt.sweeps.columns import frozen
from dopt.text import quoted
from dopt.types import InputError

if TYPE_CHECKING:
    import pandas as pd

ORDER: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_PART = re.compile(r"""(?:[^,"']|"[^"]*"|'[^']*')*""")  # up to a comma that is in no quotes
_CONDITION = re.compile(r"([^=!<>]*)(!=|<=|>=|==?|<|>)(?![=!<>])(.*)", re.DOTALL)
_WHOLE = re.compile(r"[+-]?[0-9]{1,400}")
EXAMPLE = "give NAME OP VALUE, as in topology=ring,delay>2"


class Condition(NamedTuple):
    """One condition, of whose value nobody has asked the type yet."""

    name: str
    sign: str
    value: str
    in_quotes: bool = False

    def __str__(self) -> str:
        return quoted(f"{self.name}{self.sign}{self.value}")


def parse(text: str) -> tuple[Condition, ...]:
    """The conditions of a text.

    Raises:
      InputError: one is empty, or none.
    """
    return tuple(map(_condition, _parts(text)))


def mask(table: pd.DataFrame, conditions: Sequence[Condition]) -> np.ndarray:
    """[rows] bool: where all conditions hold.

    Raises:
      InputError: there is no such column, or its values have another type.
    """
    found = np.ones(len(table), bool)
    for condition in conditions:
        if condition.name not in table:
            raise InputError(f"where: no column {quoted(condition.name)}{did_you_mean(condition.name, table.columns)}")
        found &= _holds(table[condition.name], condition)
    return found


def _parts(text: str) -> list[str]:
    parts, at = [], 0
    while True:
        found = _PART.match(text, at)
        assert found is not None  # the empty text matches
        parts.append(found[0])
        if found.end() == len(text):
            return parts
        if text[found.end()] != ",":
            raise InputError(f"where: a quote is not closed in {quoted(text[at:])}")
        at = found.end() + 1


def _condition(part: str) -> Condition:
    found = _CONDITION.fullmatch(part)
    if not part.strip() or found is None:
        what = f"{quoted(part)} is not a condition" if part.strip() else "a condition is empty"
        raise InputError(f"where: {what}; {EXAMPLE}")
    name, sign, value = found[1].strip(), found[2].replace("==", "="), found[3].strip()
    in_quotes = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if not name or not value:
        raise InputError(f"where: {quoted(part.strip())} has no {'value' if name else 'name'}; {EXAMPLE}")
    return Condition(name, sign, value[1:-1] if in_quotes else value, in_quotes)


# -- what a value is in its column -----------------------------------------------------------------------------------


def _holds(column: pd.Series, condition: Condition) -> np.ndarray:
    """[rows] bool."""
    missing = column.isna().to_numpy(bool)
    if condition.value == "none" and not condition.in_quotes:
        if condition.sign in ORDER:
            raise InputError(f"where: {condition}: a missing value has no order; use = or !=")
        return missing if condition.sign == "=" else ~missing
    kinds = _kinds(column[~missing])
    value = _value(condition, kinds)
    if condition.sign in ORDER:
        return _ordered(column, condition, value, kinds)
    equal = np.zeros(len(column), bool)
    equal[~missing] = [_same(cell, value) for cell in column[~missing].tolist()]
    return equal if condition.sign == "=" else ~equal


def _kinds(values: pd.Series) -> set[str]:
    """Of which kinds the values are: "number", "text", "truth value", "list"."""
    if values.dtype == object:
        return {_kind(value) for value in values.tolist()}
    return {_kind(values.iloc[0])} if len(values) else set()


def _kind(value: object) -> str:
    match value:
        case bool() | np.bool_():
            return "truth value"
        case int() | float() | np.number():
            return "number"
        case str():
            return "text"
    return "list"


def _value(condition: Condition, kinds: set[str]) -> Any:
    """The value, as the first of the column's kinds that takes it; in a column without values, as any."""
    for kind, read in READERS.items():
        if condition.in_quotes and kind in ("number", "truth value"):
            continue
        if not kinds or kind in kinds:
            found = read(condition.value)
            if found is not None:
                return found
    raise InputError(
        f"where: {condition}: {condition.name} is a {' or a '.join(sorted(kinds))}, got {quoted(condition.value)}"
        + " in quotes" * condition.in_quotes
    )


def _number(text: str) -> int | float | None:
    """Whole numbers stay exact, of whatever size."""
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        found = float(text) if "_" not in text else math.nan
    except ValueError:
        return None
    return None if math.isnan(found) else found


def _truth(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


def _list(text: str) -> Any:
    try:
        found = json.loads(text) if text.startswith("[") else None
    except (ValueError, RecursionError):
        return None
    return None if found is None else frozen(found)


READERS: Mapping[str, Callable[[str], Any]] = {"number": _number, "truth value": _truth, "list": _list, "text": str}


def _same(cell: Any, value: Any) -> bool:
    """Equal, and of one kind: 1 is not true."""
    return _kind(cell) == _kind(value) and bool(cell == value)


def _ordered(column: pd.Series, condition: Condition, value: Any, kinds: set[str]) -> np.ndarray:
    if (kinds and "number" not in kinds) or _kind(value) != "number":
        what = (
            f"{condition.name} is a {' or a '.join(sorted(kinds))}"
            if kinds - {"number"}
            else "the value is not a number"
        )
        raise InputError(f"where: {condition}: only numbers can be compared by size, and {what}; use = or !=")
    compare, holds = ORDER[condition.sign], np.zeros(len(column), bool)
    numbers = np.array([_kind(cell) == "number" for cell in column.tolist()], bool) & ~column.isna().to_numpy(bool)
    holds[numbers] = [bool(compare(cell, value)) for cell in column[numbers].tolist()]
    return holds


__all__ = ["Condition", "mask", "parse"]
