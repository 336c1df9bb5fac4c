"""Kinds of pictures: each is a file of `dopt/plot/kinds`, which holds a `Kind` of its own name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from dopt.registry import did_you_mean
from dopt.text import quoted
from dopt.types import InputError

if TYPE_CHECKING:
    import pandas as pd

    from dopt.plot.asked import Added, Asked
    from dopt.plot.sheet import Picture
    from dopt.sweeps.results import Results

FOLDER = Path(__file__).parent / "kinds"


@dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Attributes:
      says: what it shows, in a line.
      reads: which of `x`, `y`, `by` and `add` change it; the others are refused.
      rows: what it draws, as a table; the column `panel` says in which panel.
      draw: draws these rows.
    """

    says: str
    reads: frozenset[str]
    rows: Callable[[Asked], pd.DataFrame]
    draw: Callable[[Picture, Asked], None]

    def __call__(
        self,
        results: Results | Sequence[Results],
        *,
        x: str | None = None,
        y: str | None = None,
        by: str | Sequence[str] = (),
        where: str = "",
        add: Added | None = None,
        size: str | None = None,
    ) -> Picture:
        """Draw it.

        Args:
          results: of one sweep, or of several, side by side.
          x: the x axis: step, gradients, time or bytes_sent; by default the unit of the sweep's horizon.
          y: the y axis: a metric; by default that of the sweep.
          by: one or two names of parameters that tell curves, bars or cells apart; all others are at their best.
          where: only runs for which all conditions hold, as in `topology=ring, delay>2`.
          add: a measured curve to draw on top: a CSV file, or rows, with columns named as x and y, and optionally `label`.
          size: column, text, page or slide.

        Raises:
          InputError: this picture cannot be drawn of these runs.
        """
        from dopt.plot.asked import ask

        return self.of(ask(results, x, y, by, where, add, size))

    def of(self, asked: Asked) -> Picture:
        """As a call, of what was checked already."""
        from dopt.plot.sheet import blank
        from dopt.plot.style import style

        for name in asked.given:
            if name not in self.reads:
                raise InputError(f"{name}: this kind of picture does not read it; leave it out")
        rows = self.rows(asked)
        if rows.empty:
            raise InputError("plot: there is nothing to draw for these runs; try another kind")
        size = asked.size or ("text" if rows["panel"].nunique() < 3 else "page")
        with style(size):
            picture = blank(size, rows=rows)
            self.draw(picture, asked)
        return picture


def names() -> list[str]:
    """The kinds that there are. Nothing is imported for it."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def find(name: str) -> Kind:
    """The kind of that name.

    Raises:
      InputError: there is none.
    """
    if name not in names():
        raise InputError(f"kind: unknown name {quoted(name)}{did_you_mean(name, names())}")
    found: Kind = getattr(import_module(f"dopt.plot.kinds.{name}"), name)
    return found
