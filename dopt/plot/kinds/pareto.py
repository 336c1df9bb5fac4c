"""Bytes until the target against time, gradients or steps until the target: every learning rate of every cell, and the front.

A point is a median over seeds. On the front nothing else takes both less and fewer bytes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from dopt.plot.asked import Asked, differing, values, where_is
from dopt.plot.kind import Kind
from dopt.plot.sheet import Picture
from dopt.plot.strokes import front, logarithmic, told_apart
from dopt.plot.style import AXES, said
from dopt.sweeps.cells import scores
from dopt.sweeps.results import Results
from dopt.sweeps.several import SWEEP
from dopt.types import InputError

BYTES = "bytes_sent"


def rows(asked: Asked) -> pd.DataFrame:
    """A row for each cell and rate that gets to the target: its parameters, panel, x, bytes_sent, front (bool), n, ids."""
    target = asked.needed_target()
    if asked.x == BYTES:
        raise InputError("x: the other axis of this picture is bytes; give step, gradients or time")
    points = [_points(asked, one) for one in asked.sweeps]
    found = pd.concat(points, ignore_index=True)
    if found.empty:
        raise InputError(f"plot: no run reaches {asked.y} {target:g}; give a target that some run reaches")
    fronts = [_on_front(own[[asked.x, BYTES]]) for _, own in found.groupby("panel", sort=False)]
    return found.assign(front=pd.concat(fronts))


def _points(asked: Asked, one: Results) -> pd.DataFrame:
    names = list(dict.fromkeys([asked.main, *differing(one), "learning_rate"]))
    runs = scores(one, asked.x).rename(columns={"to_target": "_x"})
    runs["_bytes"] = scores(one, BYTES)["to_target"]
    runs[["_x", "_bytes"]] = runs[["_x", "_bytes"]].fillna(np.inf)
    told = {asked.x: ("_x", "median"), BYTES: ("_bytes", "median"), "n": ("id", "size"), "ids": ("id", " ".join)}
    keys = [name for name in names if name in runs]
    table = runs.drop(columns=[name for name in (asked.x, BYTES) if name in runs])
    found = table.groupby(keys, sort=False, dropna=False).agg(**told).reset_index()
    there = np.isfinite(found[[asked.x, BYTES]]).all(axis=1)
    return found[there].assign(**{SWEEP: one.name, "panel": said(one.name) if asked.side_by_side else ""})


def _on_front(points: pd.DataFrame) -> pd.Series:
    x, y = points.to_numpy(float).T
    better = (x <= x[:, None]) & (y <= y[:, None]) & ((x < x[:, None]) | (y < y[:, None]))
    return pd.Series(~better.any(axis=1), points.index)


def draw(picture: Picture, asked: Asked) -> None:
    """A panel for each sweep; what is not on the front is pale."""
    rows, size = picture.rows, picture.points
    titles, names = rows["panel"].drop_duplicates().tolist(), values(rows[asked.main])
    labels = [said(value) for value in names]
    panels = picture.panels(titles, lines=picture.lines_of_key([*labels, "front"]), most=2)
    for title, axes in zip(titles, panels, strict=True):
        own = rows[rows["panel"] == title]
        best = own[own["front"]]
        front(axes, best[asked.x].to_numpy(float), best[BYTES].to_numpy(float))
        for value, label, look in zip(names, labels, told_apart(names), strict=True):
            mine = own[where_is(own[asked.main], value)]
            how = {**look, "linestyle": "none", "markersize": 0.6 * size}
            axes.plot(mine[asked.x], mine[BYTES], **{**how, "alpha": 0.3})
            top = mine[mine["front"]]
            axes.plot(top[asked.x], top[BYTES], label=label, **how)
        axes.set_xscale("log" if logarithmic(rows[asked.x]) else "linear")
        axes.set_yscale("log" if logarithmic(rows[BYTES]) else "linear")
    picture.label(panels, f"{AXES[asked.x]} to {said(asked.y)} {asked.needed_target():g}", AXES[BYTES])
    picture.key(panels, said(asked.main))
    picture.caption(f"{asked.of_medians}; every rate is a point")


pareto = Kind(
    "bytes against time, gradients or steps until the target, and the front of what is best",
    frozenset({"x", "by"}),
    rows,
    draw,
)
