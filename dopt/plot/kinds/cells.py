"""What each cell of a sweep costs until the target: bars with quartiles over seeds, each cell at its best learning rate."""

from __future__ import annotations

import pandas as pd

from dopt.plot.asked import Asked, values
from dopt.plot.costs import costs, missing
from dopt.plot.kind import Kind
from dopt.plot.sheet import Picture
from dopt.plot.strokes import bars, told_apart
from dopt.plot.style import said
from dopt.sweeps.several import SWEEP

MOST = 40  # bars of a panel; of more cells the best are drawn


def rows(asked: Asked) -> pd.DataFrame:
    """A row for each cell, as of `costs`, and what the numbers are; of each panel the best `MOST`, in their order."""
    by = list(asked.by or asked.varied or ["algorithm"])
    found, what = costs(asked, by)
    rank = (
        found.assign(_cost=found["value"] * (-1 if asked.highest else 1))
        .groupby("panel", sort=False)["_cost"]
        .rank("first")
    )
    return found[rank <= MOST].assign(what=what).reset_index(drop=True)


def draw(picture: Picture, asked: Asked) -> None:
    """A panel for each sweep; a bar's colour is its method, or the first parameter."""
    rows = picture.rows
    names = [name for name in (asked.by or asked.varied or ["algorithm"]) if name != SWEEP or SWEEP in asked.by]
    main = asked.main if asked.main in names else names[0]
    titles, kinds = rows["panel"].drop_duplicates().tolist(), values(rows[main])
    colours = {said(value): look["color"] for value, look in zip(kinds, told_apart(kinds), strict=True)}
    what = str(rows["what"].iloc[0])
    most = int(rows.groupby("panel").size().max())
    wide = picture.get_figwidth() / min(len(titles), 2)
    panels = picture.panels(titles, tall=max(0.3, most * 1.5 * picture.font / wide), most=2)
    letters = min(picture.points * 7 / 8, 54 * (picture.get_figheight() - 5 * picture.font) / most)
    for title, axes in zip(titles, panels, strict=True):
        own = rows[rows["panel"] == title]
        labels = [", ".join(said(cell[name]) for name in names) for cell in own.to_dict("records")]
        found = own[["value", "low", "high"]].to_numpy(float)
        bars(axes, labels, found, [colours[said(value)] for value in own[main]], missing(what), letters)
        axes.set_xlabel(picture.wraps(what, 0.75 / min(len(titles), 2)))
    cut = f"; the best {MOST}" if most == MOST else ""
    picture.caption(f"{asked.tuned}; {', '.join(map(said, names))}{cut}")


cells = Kind(
    "what each cell costs until the target (or where it ends): bars with quartiles over seeds",
    frozenset({"x", "y", "by"}),
    rows,
    draw,
)
