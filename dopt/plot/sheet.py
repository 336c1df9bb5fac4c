"""A picture: a figure with its panels, the rows that are drawn, and names outside of all curves."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dopt import files
from dopt.plot import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Base = Figure
else:
    Base = object  # matplotlib is an extra, and imported when something is drawn

MOST = 0.4  # of a slide's height is for a key
SMALLEST = 4.0  # points
BELOW = 3.4  # lines of text from an axis to below its label


class Picture(Base):
    """A matplotlib figure of one of `style.SIZES`, which keeps the rows that it draws."""

    rows: pd.DataFrame
    size: str
    columns = 1  # panels in a row

    @property
    def points(self) -> float:
        """The size of its letters."""
        return style.SIZES[self.size].font

    @property
    def font(self) -> float:
        """Inches of a line of text."""
        return 1.25 * self.points / 72

    def panels(
        self, titles: Sequence[str], tall: float = 0.62, most: int = 3, lines: float = 0, **how: Any
    ) -> list[Axes]:
        """Panels with titles, row by row.

        Args:
          tall: height of a panel over its width.
          most: panels in a row, where the picture is wide.
          lines: of text that want room besides.
          how: as of `Figure.subplots`.
        """
        size = style.SIZES[self.size]
        columns = min(len(titles), max(1, min(most, round(size.width * 8 / size.font / 2.2))))
        rows = math.ceil(len(titles) / columns)
        if size.height is None:
            wide = size.width / columns
            self.set_size_inches(size.width, rows * (tall * wide + 2 * self.font) + (2 + lines) * self.font)
        grid = self.subplots(rows, columns, squeeze=False, **how).ravel()
        for axes, title in zip(grid, titles, strict=False):
            axes.set_title(title, loc="left")
            axes.spines[["top", "right"]].set_visible(False)
        for axes in grid[len(titles) :]:
            axes.remove()
        self.columns = columns
        return list(grid[: len(titles)])

    def label(self, panels: Sequence[Axes], x: str, y: str) -> None:
        """The same axes for all panels: they are named at the left, and where no panel is below."""
        x = self.wraps(x, 0.75 / self.columns)
        for place, axes in enumerate(panels):
            axes.set(xlabel=x if place + self.columns >= len(panels) else "", ylabel="" if place % self.columns else y)

    def wraps(self, text: str, share: float = 1.0) -> str:
        """The text in lines that a share of the picture's width has room for."""
        size = style.SIZES[self.size]
        return textwrap.fill(text, max(12, int(share * size.width * 72 / (0.53 * size.font))))

    def caption(self, text: str) -> None:
        """Above everything: what is drawn."""
        self.suptitle(self.wraps(text), x=0.01, ha="left")

    def key(self, axes: Sequence[Axes], title: str = "") -> None:
        """Which name is which curve, once for all panels, below them."""
        found: dict[str, Any] = {}
        for one in axes:
            for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
                found.setdefault(label, handle)
        if found:
            how: Any = {"loc": "outside lower center", "title": title or None, **self._letters(list(found), 1.0)}
            self.legend(list(found.values()), list(found), **how)

    def key_below(self, axes: Axes, share: float) -> None:
        """The same for one panel, which has a share of the width."""
        from matplotlib.transforms import ScaledTranslation

        handles, labels = axes.get_legend_handles_labels()
        below = axes.transAxes + ScaledTranslation(0, -BELOW * self.font / 1.25, self.dpi_scale_trans)
        how: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below}
        if handles:
            axes.legend(handles, labels, borderaxespad=0, **how, **self._letters(labels, share))

    def _letters(self, labels: Sequence[str], share: float) -> dict[str, Any]:
        """Columns and size of a key: smaller letters, where it would take more than a part of a slide."""
        points = self.points * 7 / 8
        columns = self._columns(labels, share, points)
        height = style.SIZES[self.size].height
        while height and points > SMALLEST and math.ceil(len(labels) / columns) * points * 1.5 > MOST * height * 72:
            points *= 0.9
            columns = self._columns(labels, share, points)
        return {"ncols": columns, "fontsize": points, "frameon": False, "handlelength": 3}

    def _columns(self, labels: Sequence[str], share: float, points: float) -> int:
        longest = max(map(len, labels), default=1) + 7  # of a stroke and the space between
        room = share * style.SIZES[self.size].width * 72 / (0.6 * points)
        return max(1, min(len(labels), int(room / longest)))

    def lines_of_key(self, labels: Sequence[str], share: float = 1.0) -> int:
        """Lines that a key of these names takes."""
        return 1 + math.ceil(len(labels) / self._letters(labels, share)["ncols"]) if labels else 0

    def save(self, path: str | Path) -> Path:
        """Write it as PNG, PDF or SVG, or its rows as CSV, by the ending; the same picture gives the same bytes.

        Raises:
          InputError: another ending.
          MachineError: it cannot be written.
        """
        path = Path(path)
        style.check_ending(path)
        if path.suffix == ".csv":
            files.write(path, self.rows.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
        else:
            with style.style(self.size):
                style.write(self, path)
        return path

    def _repr_png_(self) -> bytes:
        """As a notebook shows it."""
        found = io.BytesIO()
        with style.style(self.size):
            self.savefig(found, format="png", metadata=style.UNDATED[".png"])
        return found.getvalue()


def blank(size: str, tall: float | None = None, rows: pd.DataFrame | None = None) -> Picture:
    """A picture on which nothing is drawn yet.

    Args:
      size: one of `style.SIZES`.
      tall: its height in inches, if it is known.
      rows: what it will draw.
    """
    width, _, height = style.SIZES[size]
    picture = _class()(figsize=(width, tall or height or 3.0))
    picture.rows, picture.size = pd.DataFrame() if rows is None else rows, size
    return picture


@cache
def _class() -> type[Picture]:
    """A picture that is a figure."""
    from matplotlib.figure import Figure

    return type("Picture", (Picture, Figure), {})
