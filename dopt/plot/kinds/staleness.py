"""How stale the gradients are that each method applies: the share of them with each staleness, over all seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dopt.plot.asked import Asked, values, where_is
from dopt.plot.clocks import clocks
from dopt.plot.kind import Kind
from dopt.plot.sheet import Picture
from dopt.plot.strokes import logarithmic, told_apart
from dopt.plot.style import said
from dopt.sweeps.several import SWEEP

SEEDS = 5  # whose clocks are read
BARS = 60  # that a histogram has at most


def rows(asked: Asked) -> pd.DataFrame:
    """A row for each bin that is not empty: sweep, panel, the method, staleness (its middle), width, share, mean, gradients, ids."""
    told: dict[tuple[str, object], list] = {}
    for one in clocks(asked, SEEDS):
        key = one.sweep, "none" if one.value != one.value else one.value
        told.setdefault(key, []).append((one.identity, one.line.staleness[one.line.applied]))
    found = []
    for (sweep, value), runs in told.items():
        tau = np.concatenate([each for _, each in runs])
        width = -(-(int(tau.max(initial=0)) + 1) // BARS)
        counts = np.bincount(tau // width)
        bins = np.flatnonzero(counts)
        columns = {
            "staleness": width * bins + (width - 1) / 2,
            "width": width,
            "share": counts[bins] / max(len(tau), 1),
        }
        names = {SWEEP: sweep, "panel": said(sweep) if asked.side_by_side else "", asked.main: value}
        ends = {"mean": tau.mean() if len(tau) else np.nan, "gradients": len(tau), "ids": " ".join(i for i, _ in runs)}
        found.append(pd.DataFrame({**names, **columns, **ends}))
    return pd.concat(found, ignore_index=True)


def draw(picture: Picture, asked: Asked) -> None:
    """A panel for each sweep; a line of shares for each method."""
    rows = picture.rows
    titles, names = rows["panel"].drop_duplicates().tolist(), values(rows[asked.main])
    means = [rows["mean"][where_is(rows[asked.main], value)].iloc[0] for value in names]
    labels = [said(value) for value in names]
    if not asked.side_by_side:
        labels = [f"{label}, mean {mean:.3g}" for label, mean in zip(labels, means, strict=True)]
    panels = picture.panels(titles, tall=0.5, lines=picture.lines_of_key(labels), most=2)
    for title, axes in zip(titles, panels, strict=True):
        own = rows[rows["panel"] == title]
        for value, label, look in zip(names, labels, told_apart(names), strict=True):
            mine = own[where_is(own[asked.main], value)]
            axes.plot(mine["staleness"], mine["share"] / mine["width"], label=label, clip_on=False, **look)
        axes.set(xlabel="staleness (updates since the worker pulled)", ylabel="share of the gradients")
        log = logarithmic(own["share"] / own["width"])
        axes.set_yscale("log" if log else "linear")
        axes.set_xlim(-0.3, None)
        if not log:
            axes.set_ylim(0, None)
    picture.key(panels, said(asked.main))
    picture.caption(f"{', '.join(said(one.name) for one in asked.sweeps)}: applied gradients, best learning rates")


staleness = Kind("how stale the gradients are that each method applies", frozenset({"by"}), rows, draw)
