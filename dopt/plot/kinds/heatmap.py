"""What the target costs over two parameters: a cell for each pair of values, with its best learning rate."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dopt.plot.asked import Asked, values
from dopt.plot.costs import costs, missing
from dopt.plot.kind import Kind
from dopt.plot.sheet import Picture
from dopt.plot.strokes import grid, logarithmic, scale
from dopt.plot.style import said
from dopt.types import InputError


def pair(asked: Asked) -> tuple[str, str]:
    """The two parameters: rows, columns.

    Raises:
      InputError: no two differ.
    """
    names = [*asked.by, *(name for name in asked.varied if name not in asked.by)]
    if len(names) < 2:
        raise InputError(
            f"plot: a heatmap needs two parameters that differ, got {', '.join(names) or 'none'}; choose curves"
        )
    return names[0], names[1]


def rows(asked: Asked) -> pd.DataFrame:
    """A row for each cell, as of `costs`, and what the numbers are."""
    found, what = costs(asked, pair(asked))
    return found.assign(what=what)


def draw(picture: Picture, asked: Asked) -> None:
    """A panel for each sweep, with one scale of colours."""
    from matplotlib.colors import LogNorm, Normalize

    rows, (down, across) = picture.rows, pair(asked)
    titles, what = rows["panel"].drop_duplicates().tolist(), str(rows["what"].iloc[0])
    lines, columns = values(rows[down]), values(rows[across])
    finite = rows["value"][np.isfinite(rows["value"])]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    norm = LogNorm(low, high) if logarithmic(finite) else Normalize(low, high)
    tall = max(0.5, min(1.2, 0.13 * len(lines)))
    panels = picture.panels(titles, tall=tall, most=2)
    image, starred = None, False
    for title, axes in zip(titles, panels, strict=True):
        own = rows[rows["panel"] == title]
        cells = np.full((len(lines), len(columns)), np.nan)
        said_in = np.full(cells.shape, "", object)
        for cell in own.to_dict("records"):
            place = _place(lines, cell[down]), _place(columns, cell[across])
            cells[place] = cell["value"]
            said_in[place] = _written(cell)
            starred |= bool(cell["edge"])
        image = grid(axes, cells, said_in, norm, dark_is_high=not asked.highest)
        axes.set_xticks(range(len(columns)), [said(value) for value in columns])
        axes.set_yticks(range(len(lines)), [said(value) for value in lines])
        axes.set(xlabel=said(across), ylabel=said(down))
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        slanted = sum(len(said(value)) for value in columns) * picture.points * 0.5 > 60 * picture.get_figwidth()
        axes.tick_params(axis="x", labelrotation=30 if slanted else 0)
    assert image is not None
    scale(picture, image, picture.wraps(what, 0.5), panels)
    edge = ", * at the edge of its grid" if starred else ""
    below = f" (below each number{edge})" if "learning_rate" in rows else ""
    grey = f"; grey: {missing(what)}" if len(finite) < len(rows) else ""
    picture.caption(f"{asked.of_medians}{below}{grey}")


def _place(known: list, value: object) -> int:
    return next(i for i, one in enumerate(known) if one == value or (one != one and value != value))


def _written(cell: dict) -> str:
    value = f"{cell['value']:.3g}" if np.isfinite(cell["value"]) else "–"
    star = "*" if cell["edge"] else ""
    return f"{value}\n{cell['learning_rate']:g}{star}" if "learning_rate" in cell else value


heatmap = Kind(
    "what the target costs (or where runs end) over two parameters, with the best learning rates",
    frozenset({"x", "y", "by"}),
    rows,
    draw,
)
