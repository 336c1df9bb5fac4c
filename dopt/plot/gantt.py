"""A schedule in one picture: who computes, sends, waits, and computes in vain; and how stale the gradients are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dopt import schedule
from dopt.facts.timetable import Outage, outages
from dopt.files import writing
from dopt.paths import slug
from dopt.plot import style
from dopt.schedule import APPLIED, DROPPED, Pipeline, Schedule, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWN = 64  # workers that a picture has room for
BLUE, VERMILION, ORANGE = style.COLOURS[0], style.COLOURS[1], style.COLOURS[4]
LOOKS: dict[str, dict[str, Any]] = {
    table.COMPUTING: {"facecolor": BLUE},
    table.SENDING: {"facecolor": ORANGE},
    table.WAITING: {"facecolor": "0.87"},
    table.WASTED: {"facecolor": VERMILION, "hatch": "/////"},
}
DOWN: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": (0, (1, 1.5)), "marker": "x", "markevery": [0]}
DOWN |= {"markersize": 4, "markeredgewidth": 1.0, "solid_capstyle": "butt", "zorder": 3}
TICK: dict[str, Any] = {"color": "black", "linestyle": "none", "marker": "|", "markersize": 6, "clip_on": False}


def save(
    line: Schedule,
    name: str,
    title: str,
    folder: Path,
    failed: list[Outage] | None = None,
    stages: Pipeline | None = None,
) -> list[Path]:
    """Draw into `folder`, as `schedule_NAME.png` and `.pdf`."""
    stem = folder / f"schedule_{slug(name)}"
    with writing("results", folder, "--results"):
        folder.mkdir(parents=True, exist_ok=True)
        with style.style():
            return style.save(draw(line, title, failed, stages), stem)


def draw(line: Schedule, title: str = "", failed: list[Outage] | None = None, stages: Pipeline | None = None) -> Figure:
    """Who does what when, and below how stale the gradients are, if any is."""
    from matplotlib.figure import Figure

    rows = math.prod(shown(line, stages))
    tall, stale = max(0.6, rows * min(0.22, max(0.085, 3.5 / rows))), line.staleness[line.delivered].any()
    figure = Figure(figsize=(style.WIDTHS["page"], tall + 0.95 + 1.35 * stale))
    if stale:
        above, below = figure.subplots(2, 1, height_ratios=(tall, 0.9))
        staleness(below, line)
    else:
        above = figure.subplots()
    gantt(above, line, failed, stages)
    above.set_title(title, loc="left", pad=13, parse_math=False)
    legend(figure, above)
    return figure


def shown(line: Schedule, stages: Pipeline | None = None) -> tuple[int, int]:
    """(workers that a picture shows, rows of bars for each)."""
    each = 1 if stages is None else stages.stages
    return min(line.workers, max(1, DRAWN // each)), each


def gantt(axes: Axes, line: Schedule, failed: list[Outage] | None = None, stages: Pipeline | None = None) -> None:
    """A row of bars for each worker (for each stage of each worker), and above them a tick for each update."""
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    from matplotlib.transforms import offset_copy

    figure = axes.figure
    assert isinstance(figure, Figure)  # no part of one, whose width is not its own
    workers, each = shown(line, stages)
    told = schedule.intervals(line)
    told = told if stages is None else schedule.by_stage(told, stages)
    row, kind, begin, end = (column[told.worker < workers * each] for column in told)
    points, span = 72 * axes.get_position().width * figure.get_figwidth(), line.end or 1.0
    # a white rim tells one computation from the next, if there is room for it
    rim = np.minimum(0.5, 0.1 * points * (end - begin) / span)
    rim[(kind == table.WAITING) | (rim < 0.1)] = 0
    for name, look in LOOKS.items():
        of = kind == name
        x, y = np.stack([begin[of], end[of]]), row[of] + np.array([[-0.4], [0.4]])
        corners = np.stack([x[[0, 1, 1, 0]], y[[0, 0, 1, 1]]], 2).transpose(1, 0, 2)
        if of.any():
            axes.add_collection(PolyCollection(list(corners), label=name, edgecolor="white", linewidth=rim[of], **look))
    for i, lost, back in outages(line) if failed is None else failed:
        for down in range(i * each, (i + 1) * each) if i < workers else ():
            axes.plot([lost, min(back, line.end)], [down, down], label="down", **DOWN)
    updates = np.zeros(line.steps)
    np.maximum.at(updates, line.write_version[line.applied], line.time[line.applied])
    places = offset_copy(axes.get_xaxis_transform(), figure, y=5, units="points")
    thin = float(np.clip(0.3 * points / max(len(updates), 1), 0.25, 0.6))
    axes.plot(updates, np.ones(len(updates)), transform=places, label="update", **TICK, markeredgewidth=thin)
    axes.set(xlim=(0, span), ylim=(workers * each - 0.4, -0.6), xlabel="simulated seconds")
    name = "worker" if each == 1 else "worker and its stages"
    axes.set_ylabel(name if workers == line.workers else f"{name} (the first {workers} of {line.workers})")
    axes.spines[["top", "right"]].set_visible(False)
    if workers <= 16:
        axes.set_yticks((each - 1) / 2 + each * np.arange(workers), [str(worker) for worker in range(workers)])
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
    axes.tick_params(axis="y", length=0)


def legend(figure: Figure, panels: Axes | Sequence[Axes]) -> None:
    """What the colours of `gantt` mean, below the figure; each is said once."""
    known: dict[str, Any] = {}
    for axes in panels if isinstance(panels, Sequence) else [panels]:
        known = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True)) | known
    figure.legend(known.values(), known, loc="outside lower center", ncols=min(len(known), 5), frameon=False)


def staleness(axes: Axes, line: Schedule) -> None:
    """How many gradients were how stale: applied, and on top of them dropped."""
    from matplotlib.ticker import MaxNLocator

    tau = line.staleness
    width = -(-(int(tau[line.delivered].max(initial=0)) + 1) // 80)
    edges = np.arange(0, tau[line.delivered].max(initial=0) + width + 1, width)
    floor = np.zeros(len(edges) - 1)
    for fate, name, look in ((APPLIED, "applied", table.COMPUTING), (DROPPED, "dropped", table.WASTED)):
        counts = np.histogram(tau[line.fate == fate], edges)[0]
        if counts.any():
            axes.bar(
                edges[:-1] + (width - 1) / 2,
                counts,
                0.9 * width,
                floor,
                label=name,
                edgecolor="white",
                linewidth=0,
                **LOOKS[look],
            )
        floor += counts
    mean = float(tau[line.applied].mean()) if line.steps else 0.0
    axes.axvline(mean, color="black", linewidth=0.8, linestyle="--", label=f"mean of the applied: {mean:.3g}")
    axes.set(xlabel="staleness (updates since the worker pulled)", ylabel="gradients")
    axes.set_xlim(-0.7, max(14.7, edges[-1] - 0.3))  # a few bars do not fill the page
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.95), ncols=3, frameon=False)
