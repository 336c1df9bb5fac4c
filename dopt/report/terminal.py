"""The terminal: one progress display, and tables."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from dopt.sweeps.show import Show
from dopt.text import lines

if TYPE_CHECKING:
    import pandas as pd

    from dopt.sweeps.results import Results

COARSE = 0.1  # of the answer: records that lie further apart are told


class PlainConsole(Console):
    """A console to which text is text: no markup, no emoji by name, nothing in it that steers the terminal."""

    def __init__(self, **options: Any):
        super().__init__(**options, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(lines(text), **options)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} runs/s" if task.speed else "- runs/s")


class ProgressShow(Show):
    """Runs done of all, rate, time left, diverged so far, current slab; on a terminal only."""

    def __init__(self, console: PlainConsole, what: str = ""):
        self.console = console
        self.what = what
        self.progress = Progress(
            *([TextColumn("{task.fields[what]}", markup=False)] if what else []),
            TextColumn("{task.completed:.0f} of {task.total:.0f} runs"),
            BarColumn(bar_width=30),
            _Rate(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[diverged]} diverged"),
            TextColumn("{task.fields[slab]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self.task: Any = None
        self.whole = 0.0  # runs of finished slabs
        self.size = 0
        self.diverged = 0
        self.new = 0
        self.started = False
        self.lock = threading.Lock()  # slabs are done by the thread that writes, and by other processes
        self.noted: set[str] = set()

    def start(self, total: int, finished: int) -> None:
        self.whole = finished
        if finished == total:
            return
        if self.task is not None:  # a grid has grown
            self._update(total=total, completed=finished)
            return
        self.task = self.progress.add_task(
            "", total=total, completed=finished, diverged=0, slab="compiling", what=lines(self.what)
        )
        self.progress.start()

    def slab(self, name: str, runs: int) -> None:
        self.size = runs
        self._update(slab=lines(name))

    def note(self, line: str) -> None:
        if line not in self.noted:
            self.say(line)
        self.noted.add(line)

    def first(self, record: Mapping[str, Any]) -> None:
        if self.console.is_terminal and not self.started:  # of the first slab alone: it says that something happens
            self.say(first_record(record))
        self.started = True

    def chunk(self, share: float) -> None:
        self._update(completed=self.whole + share * self.size)

    def done(self, name: str, runs: int, diverged: int) -> None:
        with self.lock:
            self.whole += runs
            self.new += runs
            self.diverged += diverged
        self._update(completed=self.whole, diverged=self.diverged)

    def _update(self, **fields: Any) -> None:
        if self.task is not None:
            self.progress.update(self.task, **fields)

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        self.progress.stop()


def number(value: Any) -> str:
    """A table's way to write a value."""
    if isinstance(value, float):
        if math.isinf(value):
            return "not reached"
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def first_record(record: Mapping[str, Any]) -> str:
    """One line of the metrics at step 0; of several runs the medians."""
    runs = max((len(values) for values in record.values()), default=0)
    said = ", ".join(
        f"{name} {number(float(np.median(values)))}"
        for name, values in sorted(record.items(), key=lambda one: one[0] != "loss")
    )
    return f"step 0{f' (median of {runs} runs)' * (runs > 1)}: {said or 'no metrics'}"


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(number(value) for value in row))
    return made


def summary(results: Results, cells: pd.DataFrame | None = None) -> Table:
    """Best learning rate per cell, what it reaches, and whether the rate grid should have gone on.

    Args:
      cells: `tuned(results)`, where somebody has it.
    """
    title, shown = summarized(results, cells)
    return table(title, shown.columns, shown.itertuples(index=False))


def summarized(results: Results, cells: pd.DataFrame | None = None) -> tuple[str, pd.DataFrame]:
    """As `summary`: its title, and its rows under the heads that a reader sees."""
    from dopt.sweeps.cells import cost, stays, tuned

    cells = (tuned(results) if cells is None else cells).drop(columns="ids")
    metric, target = results.metric.get("name", "loss"), results.metric.get("target")
    cells = _spread(cells) if target is not None else cells.drop(columns=["to_target", "low", "high", "spacing"])
    if not cells["stalled"].any():
        cells = cells.drop(columns="stalled")
    names = {
        "learning_rate": "best rate",
        "to_target": f"{cost(results)} to {metric} {target}, {'to stay' if stays(results) else 'first time'}",
        "quartiles": "quartiles",
        "spacing": "records apart",
        "final": f"final {metric}",
        "edge": "grid edge",
    }
    cells["edge"] = cells["edge"].map({True: "edge", False: ""})
    title = f"{results.name}: {len(results.runs)} runs"
    if results.merged:
        title += f" ({results.merged} more were merged: they differ only in what their method does not read)"
    if results.hidden:
        title += f"; {results.hidden} more are hidden, since nobody asks for them now"
    return title, cells.rename(columns=names)


def _spread(cells: pd.DataFrame) -> pd.DataFrame:
    """Quartiles in one column, where there are several seeds; how far records lie apart where that is over a tenth of the answer."""
    cells = cells.copy()
    quartiles = [f"{number(low)} to {number(high)}" for low, high in zip(cells["low"], cells["high"], strict=True)]
    place = list(cells.columns).index("low")
    cells = cells.drop(columns=["low", "high"])
    if cells["seeds"].max() > 1:
        cells.insert(place, "quartiles", quartiles)
    coarse = cells["spacing"] > COARSE * cells["to_target"]
    if not coarse.any():
        return cells.drop(columns="spacing")
    return cells.assign(spacing=cells["spacing"].map(number).where(coarse, ""))


def history(frame: pd.DataFrame, rows: int = 11) -> Table:
    """A few evenly spaced rows of one run's history, first and last among them."""
    pick = sorted({round(i * (len(frame) - 1) / max(rows - 1, 1)) for i in range(rows)})
    return table("", frame.columns, frame.iloc[pick].itertuples(index=False))
