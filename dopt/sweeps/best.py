"""The best run of a slab, from the tables that whoever writes it has in memory: what a display draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dopt.sweeps.show import Best
from dopt.sweeps.store import Reading, Store
from dopt.types import InputError, MachineError

POINTS = 16  # of a curve
UNSAID = ("seed", "algorithm")  # the first tells runs of a cell apart, the second stands beside


class Judge:
    """Finds the best run of slabs of a sweep, by the metric that was asked for."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._reading: Reading | None = None

    def __call__(self, runs: pa.Table, history: pa.Table) -> Best | None:
        """The best run; None where none of them has the metric at its end."""
        asked = self._asked()
        name, sign = asked.metric.get("name", "loss"), -1 if asked.metric.get("goal") == "maximize" else 1
        if f"final.{name}" not in runs.column_names:
            return None
        scores = sign * _numbers(runs[f"final.{name}"])
        if not np.isfinite(scores).any():
            return None
        row = int(np.nanargmin(np.where(np.isfinite(scores), scores, np.nan)))
        mine = pc.equal(history["id"], runs["id"][row])
        curve = _numbers(history[name].filter(mine))
        label = _label(runs, row, [one for one in asked.varied or () if one not in UNSAID])
        value = f"{name} {sign * scores[row]:.4g}"
        return Best(float(scores[row]), f"{value}, {label}" if label else value, _thinned(curve))

    def _asked(self) -> Reading:
        """What the sweep asks for, which is read once; a folder that does not say it has the defaults."""
        if self._reading is None:
            try:
                self._reading = self.store.reading()
            except (InputError, MachineError):
                self._reading = Reading({}, None, None, None)
        return self._reading


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_numpy(), float)


def _label(runs: pa.Table, row: int, names: Sequence[str]) -> str:
    """The values of what the sweep varies, where the run has some."""
    every = [(name, runs[name][row].as_py()) for name in names if name in runs.column_names]
    found: list[tuple[str, Any]] = [(name, value) for name, value in every if value not in (None, "null")]
    return ", ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in found)


def _thinned(curve: np.ndarray) -> list[float]:
    """A few values, evenly spaced, first and last among them."""
    pick = np.unique(np.linspace(0, len(curve) - 1, POINTS).round().astype(int))
    return [float(x) for x in curve[pick]] if len(curve) else []
