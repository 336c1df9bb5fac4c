"""The metric over steps, gradients, time or bytes: medians with quartiles over seeds, each curve at its best learning rate.

One parameter tells curves apart. Of methods and one more parameter, each value of that one has a panel; of more parameters, each
has a panel of its own, whose curves are at the best of all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from dopt.plot.asked import Asked, best, differing, values, where_is
from dopt.plot.kind import Kind
from dopt.plot.seeds import aligned, quartiles
from dopt.plot.sheet import Picture
from dopt.plot.strokes import line, logarithmic, told_apart
from dopt.plot.style import AXES, said
from dopt.sweeps.results import Results
from dopt.sweeps.several import SWEEP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 6  # panels of the values of one parameter
MARKS = 0.17  # of a panel's diagonal lies between two markers of a curve


class Panel(NamedTuple):
    """A panel's part of a sweep."""

    title: str
    by: str  # what tells its curves apart
    results: Results


def rows(asked: Asked) -> pd.DataFrame:
    """A row for each place of each curve: panel, by (the parameter), name (its value), x, median, low, high, n, ids."""
    found = [_curves(asked, panel) for one in asked.sweeps for panel in _panels(asked, one)]
    return pd.concat(found, ignore_index=True)


def _panels(asked: Asked, one: Results) -> Iterator[Panel]:
    names, before = differing(one), f"{said(one.name)}, " if asked.side_by_side else ""
    if asked.by:
        curve, *panel = asked.by
    elif len(names) == 2 and "algorithm" in names and one.runs[_other(names)].nunique() <= MOST:
        curve, panel = "algorithm", [_other(names)]
    elif len(names) < 2:
        curve, panel = (names or ["algorithm"])[0], []
    else:
        for name in names:
            yield Panel(f"{before}{said(name)}", name, one)
        return
    if not panel or one.runs[panel[0]].isna().all():
        yield Panel(before.removesuffix(", "), curve, one)
        return
    column = one.runs[panel[0]]
    for value in values(column.dropna()):  # who does not read it is in each panel
        part = one.only(column.isna().to_numpy() | where_is(column, value))
        yield Panel(f"{before}{said(panel[0])} {said(value)}", curve, part)


def _other(names: list[str]) -> str:
    return next(name for name in names if name != "algorithm")


def _curves(asked: Asked, panel: Panel) -> pd.DataFrame:
    results, sign = panel.results, -1 if asked.highest else 1
    cells = best(results, [panel.by], asked.x)
    ids = [identity for each in cells["ids"] for identity in str(each).split()]
    columns = list(dict.fromkeys((asked.x, asked.y)))
    history = results.only(results.runs["id"].isin(ids).to_numpy()).histories(columns=columns)
    found = []
    for cell in cells.to_dict("records"):
        own = history[history["id"].isin(str(cell["ids"]).split())]
        told = quartiles(aligned(own, asked.x, asked.y).assign(_y=lambda t: sign * t[asked.y]), [asked.x], "_y")
        if asked.highest:
            told[["median", "low", "high"]] = -told[["median", "high", "low"]].to_numpy()
        told = told.assign(panel=panel.title, by=panel.by, name=cell[panel.by], learning_rate=cell.get("learning_rate"))
        found.append(told.assign(**{SWEEP: results.name}))
    order = [SWEEP, "panel", "by", "name", "learning_rate", asked.x, "median", "low", "high", "n", "ids"]
    return pd.concat(found, ignore_index=True)[list(dict.fromkeys(order))]


class Curve(NamedTuple):
    """A curve of each panel that has it."""

    value: Any  # of the panel's parameter; of what was measured its label
    label: str
    look: dict[str, Any]


def draw(picture: Picture, asked: Asked) -> None:
    """The panels; names below, for all panels or for each."""
    rows = picture.rows
    titles = rows["panel"].drop_duplicates().tolist()
    measured = [] if asked.add is None else asked.add["label"].drop_duplicates().tolist()
    told = {str(by): _told_apart(values(own["name"]), measured) for by, own in rows.groupby("by", sort=False)}
    longest = max(([one.label for one in each] for each in told.values()), key=len)
    if len(told) == 1:
        lines = picture.lines_of_key(longest)
        panels = picture.panels(titles, lines=lines, tall=0.62, sharex=True, sharey=True)
    else:
        panels = picture.panels(titles, lines=picture.lines_of_key(longest, 0.4), tall=0.7)
    for title, axes in zip(titles, panels, strict=True):
        own = rows[rows["panel"] == title]
        _draw(axes, asked, own, told[str(own["by"].iloc[0])])
    for axes in panels:  # now that all curves are there
        axes.set_yscale("log" if logarithmic(rows["median"]) else "linear")
        if (top := _top(rows, asked)) is not None:
            axes.set_ylim(top=top)
    if len(told) == 1:
        picture.label(panels, AXES[asked.x], said(asked.y))
        picture.key(panels, said(next(iter(told))))
        picture.caption(asked.tuned)
    else:
        for axes in panels:
            axes.set(xlabel=AXES[asked.x], ylabel=said(asked.y))
            picture.key_below(axes, 1 / picture.columns)
        picture.caption(f"{asked.of_runs}; in each panel all other parameters are at their best")


def _top(rows: pd.DataFrame, asked: Asked) -> float | None:
    """Where the panels end, if curves leave them for good: ten times above all starts."""
    start = 10 * rows.groupby("panel")[["median"]].first()["median"].max()
    return float(start) if not asked.highest and 0 < start < rows["median"].max() else None


def _told_apart(each: list[Any], measured: list[str]) -> list[Curve]:
    labels = [*map(said, each), *(f"{said(label)} (measured)" for label in measured)]
    looks = told_apart(each, [f"{label} (measured)" for label in measured])
    return [Curve(*one) for one in zip([*each, *measured], labels, looks, strict=True)]


def _draw(axes: Axes, asked: Asked, rows: pd.DataFrame, told: list[Curve]) -> None:
    """The curves of a panel, and over them what was measured."""
    for one in told:
        thin = {**one.look, "markevery": MARKS}
        if not one.label.endswith("(measured)"):
            own = rows[where_is(rows["name"], one.value)]
            if len(own):
                line(axes, asked.x, own, thin, one.label)
        elif asked.add is not None:
            own = asked.add[asked.add["label"] == one.value]
            axes.plot(
                own[asked.x], own[asked.y], label=one.label, **{**thin, "linewidth": 2 * thin["linewidth"], "zorder": 3}
            )


curves = Kind(
    "the metric over steps, gradients, time or bytes: medians and quartiles of tuned runs",
    frozenset({"x", "y", "by", "add"}),
    rows,
    draw,
)
