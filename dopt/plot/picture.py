"""The picture of a sweep: of the kind that somebody asks for, or of the one that its parameters ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dopt.plot.kind import find

if TYPE_CHECKING:
    from dopt.plot.asked import Added, Asked
    from dopt.plot.sheet import Picture
    from dopt.sweeps.results import Results


def picture(
    results: Results | Sequence[Results],
    kind: str | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
    by: str | Sequence[str] = (),
    where: str = "",
    add: Added | None = None,
    size: str | None = None,
) -> Picture:
    """Draw a sweep, or several side by side.

    Args:
      results: one sweep, or several, side by side.
      kind: curves, heatmap, cells, pareto, profile, timeline or staleness; by default what `usual` chooses.
      x, y, by, where, add, size: as of `Kind`.

    Raises:
      InputError: no such kind, or it cannot be drawn of these runs.
    """
    from dopt.plot.asked import ask

    asked = ask(results, x, y, by, where, add, size)
    chosen = usual(asked) if kind is None else kind
    return find(chosen).of(asked)


def usual(asked: Asked) -> str:
    """The kind that a sweep's parameters ask for, beside learning rate and seed.

    Two parameters of which none is the method: a heatmap. None, one, or the method and one more: curves. More of them: cells,
    where there is a target, else curves. What is measured is laid over curves.
    """
    names = list(asked.by) or asked.varied
    if asked.add is not None:
        return "curves"
    if len(names) == 2 and "algorithm" not in names:
        return "heatmap"
    return "cells" if len(names) > 2 and asked.target is not None else "curves"
