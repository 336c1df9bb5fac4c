"""The points that a sweep asks for, as columns, and the distinct runs that they mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dopt.config import Resolved, Run, Runs
from dopt.config.identity import around
from dopt.config.resolve import rate_of, seed_of
from dopt.config.runs import bits, numbered
from dopt.types import InputError

RATE, SEED = "learning_rate", "seed"


class Column(NamedTuple):
    """What a parameter is at each point."""

    values: Sequence[Any]
    place: np.ndarray  # [points] int64: which of the values


class Points(NamedTuple):
    """What a sweep asks for, one point after the other, not resolved yet."""

    columns: Mapping[str, Column]
    size: int
    varied: tuple[str, ...]  # parameters with more than one value
    left_out: int = 0  # points of a grid past run_cap

    def at(self, row: int) -> dict[str, Any]:
        """The parameters of one point."""
        return {name: column.values[column.place[row]] for name, column in self.columns.items()}

    def run(self, row: int) -> Resolved:
        """The run that a point means; InputError where it means none."""
        return Run.from_dict(self.at(row)).resolve(unread="drop")


def product(choices: Mapping[str, Sequence[Any]], most: int) -> Points:
    """All combinations of values, the last parameter turning fastest; of them the first `most`."""
    whole = math.prod(map(len, choices.values()))
    size = min(whole, most)
    rows, columns, stride = np.arange(size), {}, whole
    for name, values in choices.items():
        stride //= len(values)
        columns[name] = Column(values, rows // min(stride, size) % len(values))
    varied = tuple(name for name, values in choices.items() if len(values) > 1)
    return Points(columns, size, varied, whole - size)


def constant(value: Any, size: int) -> Column:
    """A column of one value."""
    return Column([value], np.zeros(size, np.int64))


def listed(values: Iterable[Any]) -> Column:
    """A column of values as they come; equal ones are one."""
    number: dict[Any, int] = {}
    distinct: list[Any] = []
    place = []
    for value in values:
        kind = value if type(value) is float and value else _written(value)
        if kind not in number:
            number[kind] = len(distinct)
            distinct.append(value)
        place.append(number[kind])
    return Column(distinct, np.array(place, np.int64))


def _written(value: Any) -> Any:
    """What two plain values share that are written alike: 1, 1.0 and true are three, and so are zeros of either sign."""
    return (type(value), repr(value)) if isinstance(value, bool | int | float | str) else id(value)


def runs_of(points: Points) -> Runs:
    """The distinct runs that points mean, in their order. What points share is resolved once.

    Raises:
      InputError: the first point that means no run, with what is wrong with it.
    """
    varied = [name for name, column in points.columns.items() if len(column.values) > 1]
    shared = [points.columns[name].place for name in varied if name not in (RATE, SEED)]
    first, kind = numbered(np.zeros(points.size, np.int64), *shared)
    refused: list[int] = []  # the first point that is wrong in what is shared, in its rate, in its seed
    likes = _each(first, points.run, refused)
    if refused == [0]:
        points.run(0)
    before = slice(min(refused, default=points.size))
    rate, seed = points.columns[RATE], points.columns.get(SEED, constant(0, points.size))

    first, pair = numbered(kind[before], rate.place[before])
    rates = _each(first, lambda row: rate_of(rate.values[rate.place[row]], likes[kind[row]]), refused)
    first, number = numbered(seed.place[before])
    seeds = _each(first, lambda row: seed_of(seed.values[seed.place[row]]), refused)
    if refused:
        points.run(min(refused))
    distinct: dict[Any, int] = {}
    templates = np.array([distinct.setdefault(around(like), len(distinct)) for like in likes], np.int32)
    runs = Runs(
        tuple(likes[row] for row in numbered(templates)[0]),
        templates[kind],
        np.array(rates, np.float64)[pair],
        np.array(seeds, np.int64)[number],
    )
    return runs.take(numbered(runs.template, bits(runs.learning_rate), runs.seed)[0])


def _each(rows: np.ndarray, make: Callable[[int], Any], refused: list[int]) -> list[Any]:
    """What `make` gives for rows, which ascend, up to the first that it refuses: that one is noted."""
    found = []
    for row in rows.tolist():
        try:
            found.append(make(row))
        except InputError:
            refused.append(row)
            break
    return found


__all__ = ["Column", "Points", "constant", "listed", "product", "runs_of"]
