"""What a picture is asked to show: which runs, against what, told apart by what; checked before anything is drawn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dopt.plot import measured
from dopt.plot.style import AXES, SIZES, said
from dopt.registry import did_you_mean
from dopt.sweeps import cells, where
from dopt.sweeps.results import Results
from dopt.sweeps.several import SWEEP, chosen, together
from dopt.text import quoted
from dopt.types import InputError

Added = str | Path | pd.DataFrame  # a measured curve: a CSV file, or its rows


class Asked(NamedTuple):
    """A picture that somebody asks for.

    Attributes:
      sweeps: the runs, sweep by sweep; the column `sweep` has its name.
      x: what is counted: one of `AXES`.
      y: the metric.
      by: which parameters tell curves, bars or cells apart, if somebody says so.
      add: rows x, y, label of what somebody measured.
      size: one of `SIZES`; None: as many panels ask.
      given: which of x, y, by and add somebody gave.
    """

    sweeps: tuple[Results, ...]
    x: str
    y: str
    by: tuple[str, ...] = ()
    add: pd.DataFrame | None = None
    size: str | None = None
    given: tuple[str, ...] = ()

    @property
    def varied(self) -> list[str]:
        """The parameters that differ among the runs, beside learning rate and seed."""
        return list(dict.fromkeys(name for one in self.sweeps for name in differing(one)))

    @property
    def side_by_side(self) -> bool:
        """Whether several sweeps have a panel each."""
        return len(self.sweeps) > 1 and SWEEP not in self.by

    @property
    def main(self) -> str:
        """The parameter whose values look different: the method, or the first that varies."""
        return [*self.by, *["algorithm"] * ("algorithm" in self.varied), *self.varied, "algorithm"][0]

    @property
    def highest(self) -> bool:
        """Whether more is better."""
        metric = self.sweeps[0].metric
        return metric.get("goal") == "maximize" if self.y == metric_of(self.sweeps[0]) else "accuracy" in self.y

    @property
    def target(self) -> float | None:
        """The sweeps' target, where all have one and the metric is theirs."""
        found = {one.metric.get("target") for one in self.sweeps if metric_of(one) == self.y}
        same = len(found) == 1 and all(metric_of(one) == self.y for one in self.sweeps)
        return found.pop() if same else None

    def needed_target(self) -> float:
        """The target.

        Raises:
          InputError: there is none.
        """
        if self.target is None:
            raise InputError(
                f"plot: {self.y} has no target; give the sweep file's metric one, as in `metric: {{name: {self.y}, target: 0.1}}`, or choose --kind curves"
            )
        return self.target

    @property
    def of_runs(self) -> str:
        """In words: whose runs, and how many seeds."""
        seeds = max(int(one.runs["seed"].nunique()) for one in self.sweeps)
        median = f"median and quartiles of {seeds} seeds" if seeds > 1 else "one seed"
        return f"{', '.join(said(one.name) for one in self.sweeps)}: {median}"

    @property
    def tuned(self) -> str:
        """The same, and that of several learning rates the best are drawn."""
        return f"{self.of_runs}, best learning rates" if self._varies_rates() else self.of_runs

    def _varies_rates(self) -> bool:
        return "learning_rate" not in self.by and any(one.runs["learning_rate"].nunique() > 1 for one in self.sweeps)

    @property
    def of_medians(self) -> str:
        """The same, where no quartile is drawn."""
        return self.tuned.replace("median and quartiles", "median")


def ask(
    results: Results | Sequence[Results],
    x: str | None = None,
    y: str | None = None,
    by: str | Sequence[str] = (),
    where: str = "",
    add: Added | None = None,
    size: str | None = None,
) -> Asked:
    """What a picture shall show, with what follows from the sweeps filled in.

    Raises:
      InputError: there is no such axis, metric, parameter or size, no run is left, or the curve that is added cannot be read.
    """
    given = {"x": x, "y": y, "by": by or None, "add": add}
    sweeps = _sweeps(results, where)
    x = x or cells.AXES[cells.cost(sweeps[0])]
    if x not in AXES:
        raise InputError(f"x: unknown name {quoted(x)}{did_you_mean(x, AXES)}")
    y = y or metric_of(sweeps[0])
    known = set.intersection(*map(_recorded, sweeps))
    if y not in known:
        of_all = "every sweep" if len(sweeps) > 1 else "the sweep"
        raise InputError(f"y: {of_all} must have recorded it, got {quoted(y)}{did_you_mean(y, known)}")
    if size is not None and size not in SIZES:
        raise InputError(f"size: unknown name {quoted(size)}{did_you_mean(size, SIZES)}")
    made = Asked(sweeps, x, y, size=size, given=tuple(name for name, value in given.items() if value is not None))
    rows = None if add is None else measured.read(add, x, y)
    return made._replace(by=_by(made, re.split(r"\s*,\s*", by.strip()) if isinstance(by, str) else by), add=rows)


def _sweeps(results: Results | Sequence[Results], conditions: str) -> tuple[Results, ...]:
    sweeps = together([results] if isinstance(results, Results) else results)
    if conditions:
        sweeps = chosen(sweeps, where.parse(conditions))
    varied = dict.fromkeys(name for one in sweeps for name in one.varied)
    left = tuple(replace(one, runs=_plain(one, varied)) for one in sweeps if len(one.runs))
    if not left:
        raise InputError("plot: there is no run to draw; remove a condition, or run the sweep first")
    return left


def _plain(one: Results, varied: Iterable[str]) -> pd.DataFrame:
    """The runs with the sweep's name, and with all that any sweep varies; lists are texts, which can be told apart like others."""
    lacking = {name: np.nan for name in varied if name not in one.runs}
    lists = {
        name: one.runs[name].map(lambda value: str(list(value)) if isinstance(value, list | tuple) else value)
        for name in one.varied
        if name in one.runs and one.runs[name].dtype == object
    }
    return one.runs.assign(**lacking, **lists, **{SWEEP: one.name})


def _by(asked: Asked, names: Sequence[str]) -> tuple[str, ...]:
    rates = ["learning_rate"] * any(one.runs["learning_rate"].nunique() > 1 for one in asked.sweeps)
    known = [*asked.varied, *rates, *[SWEEP] * (len(asked.sweeps) > 1)]
    if len(names) > 2 or len(set(names)) < len(names):
        raise InputError(f"by: takes one name or two different ones, got {quoted(','.join(names))}")
    for name in names:
        if name not in known:
            raise InputError(
                f"by: {quoted(name)} is not a parameter that differs among these runs{did_you_mean(name, known) or '; none does'}"
            )
    return tuple(names)


def _recorded(one: Results) -> set[str]:
    return {str(name).removeprefix("final.") for name in one.runs if str(name).startswith("final.")}


def metric_of(one: Results) -> str:
    """The sweep's metric."""
    return str(one.metric.get("name", "loss"))


def differing(one: Results) -> list[str]:
    """The parameters that differ among the runs of a sweep, beside learning rate and seed."""
    names = [name for name in one.varied if name in one.runs and name not in cells.TUNED]
    return [name for name in names if one.runs[name].nunique(dropna=False) > 1]


def best(one: Results, by: Sequence[str], axis: str) -> pd.DataFrame:
    """The cells of these parameters, each at the best of all others that differ (see `cells.tuned`)."""
    over = [name for name in ("learning_rate", *differing(one)) if name not in by]
    return cells.tuned(one, by, axis, over)


def values(column: pd.Series) -> list[Any]:
    """What is in a column, each once: numbers by size, others as they come; what is missing last."""
    found = column.dropna().unique().tolist()
    ordered = sorted(found) if all(isinstance(value, int | float) for value in found) else found
    return [*ordered, *[np.nan] * bool(column.isna().any())]


def where_is(column: pd.Series, value: Any) -> np.ndarray:
    """[rows] bool: which rows have it; what is missing is a value like others."""
    return np.array([one == value or (one != one and value != value) for one in column.tolist()], bool)
