"""Who computes, waits, sends, and computes in vain, worker by worker: the beginning of one run of each method."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from dopt.plot import gantt
from dopt.plot.asked import Asked
from dopt.plot.clocks import Clock, clocks
from dopt.plot.kind import Kind
from dopt.plot.sheet import Picture
from dopt.plot.style import said
from dopt.schedule import APPLIED, PENDING, Schedule, intervals
from dopt.sweeps.several import SWEEP

TURNS = 12  # computations of a worker, about, that a picture shows


def rows(asked: Asked) -> pd.DataFrame:
    """A row for each interval: sweep, the method, worker, kind (computing, sending, waiting, wasted), begin, end (seconds), ids."""
    found = []
    for one in _cut(asked):
        told = intervals(one.line)
        columns = {"worker": told.worker, "kind": told.kind, "begin": told.begin, "end": told.end}
        names = {SWEEP: one.sweep, asked.main: one.value, "panel": _title(asked, one)}
        found.append(pd.DataFrame({**names, **columns, "ids": one.identity}))
    return pd.concat(found, ignore_index=True)


def _cut(asked: Asked) -> list[Clock]:
    """The clocks, all up to the same second."""
    all_of_them = list(clocks(asked, 1))
    until = min(one.line.end for one in all_of_them)
    until = min(
        until, TURNS * float(np.median(np.concatenate([one.line.done - one.line.begin for one in all_of_them])))
    )
    return [one._replace(line=_until(one.line, until)) for one in all_of_them]


def _until(line: Schedule, end: float) -> Schedule:
    """The beginning of a schedule; what lands later is pending."""
    begun = line.rows(line.pulled < end)
    late = (begun.time > end) & (begun.fate == APPLIED)
    return begun._replace(fate=np.where(late, PENDING, begun.fate).astype(begun.fate.dtype), end=end)


def _title(asked: Asked, one: Clock) -> str:
    return f"{said(one.sweep)}, {said(one.value)}" if asked.side_by_side else said(one.value)


def draw(picture: Picture, asked: Asked) -> None:
    """A panel for each method, workers from top to bottom."""
    found = _cut(asked)
    workers = max(gantt.shown(one.line)[0] for one in found)
    wide = picture.get_figwidth() / min(len(found), 2)
    panels = picture.panels(
        [_title(asked, one) for one in found],
        tall=(0.11 * workers + 0.35) / wide,
        most=2 if len(found) < 5 else 3,
        lines=1,
    )
    picture.draw_without_rendering()  # rims and ticks are as fine as the panels are wide
    for axes, one in zip(panels, found, strict=True):
        gantt.gantt(axes, one.line)
        axes.set_title(axes.get_title(loc="left"), loc="left", pad=11)
        if axes.get_position().height * picture.get_figheight() < 0.7 * picture.font * workers:
            axes.set_yticks([])
    picture.label(panels, "simulated seconds", "worker")
    gantt.legend(picture, panels)
    picture.caption(
        f"{_names(one.sweep for one in found)}: one run of each {said(asked.main)}, at its best learning rate"
    )


def _names(sweeps: Iterable[str]) -> str:
    return ", ".join(map(said, dict.fromkeys(sweeps)))


timeline = Kind("who computes, waits and sends when, in one run of each method", frozenset({"by"}), rows, draw)
