"""Tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from dopt.sweeps.results import Results

COARSE = 0.1  # of the answer: records that lie further apart are told


def number(value: Any) -> str:
    """A table's way to write a value."""
    if isinstance(value, float):
        if math.isinf(value):
            return "not reached"
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)


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
        title += f"; {results.hidden} more are hidden, since the latest sweep call did not ask for them"
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
