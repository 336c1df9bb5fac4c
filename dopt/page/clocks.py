"""The section of clocks: who computes, sends and waits when, and how stale gradients are, of runs that have a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dopt import schedule, theory
from dopt.config import Resolved
from dopt.facts import clock, timetable, wiring
from dopt.facts.facts import facts_of
from dopt.page.drawing import empty, plane, stacked, tip
from dopt.page.material import BEST, Material
from dopt.page.section import Section, paragraph, place
from dopt.plot.gantt import BLUE, DRAWN, ORANGE, VERMILION
from dopt.report import schedule as numbers
from dopt.schedule import APPLIED, DROPPED, Schedule, table
from dopt.types import InputError, MachineError

if TYPE_CHECKING:
    from bokeh.models import Column

FIELDS = ("algorithm", "cluster", "workers", "topology", "delay", "steps", "gradients", "seconds")
MOST = 48  # clocks that are shown
BARS = 600  # of a timeline
BINS = 60
COLOURS = {table.COMPUTING: BLUE, table.SENDING: ORANGE, table.WAITING: "#bbbbbb", table.WASTED: VERMILION}
EQUAL = {  # of a cluster whose workers are alike, never fail, and whose messages take no time
    "cluster.straggler": 1.0,
    "cluster.profile": "equal",
    "cluster.shift": 0.0,
    "cluster.latency": 0.0,
    "cluster.bandwidth": None,
    "cluster.server_bandwidth": None,
    "cluster.crash": None,
    "cluster.batch": None,
}


class Told(NamedTuple):
    """What theory says of a clock."""

    line: str
    share: list[float]  # of gradients that are 0, 1, ... stale; none: it says nothing of that


def section(material: Material) -> Section:
    """The section; without any cluster, a line that says so."""
    title = "Clocks"
    timed = material.runs[material.runs["cluster"].notna() & material.runs[BEST]]
    if timed.empty:
        return Section(
            "clocks", title, paragraph("No run has a cluster: a step takes one second, and no gradient is stale.")
        )
    asked = material.firsts(FIELDS)
    asked = asked[asked["cluster"].notna()]
    shown = [made for identity in asked["id"][:MOST] if (made := _clock(material, identity)) is not None]
    if not shown:
        return Section("clocks", title, paragraph("The clocks of these runs cannot be rebuilt here."))
    left = f"The first {MOST} of {len(asked)} clocks are shown. " if len(asked) > MOST else ""
    body = (
        paragraph(f"{left}Of each setting, only the first seed is drawn.")
        + '<div class="controls" id="clocks-controls"></div>'
        + place("clocks-plot", "timeline of the workers, and histogram of staleness; the numbers are below")
        + '<dl class="facts" id="clocks-facts"></dl>'
    )
    return Section("clocks", title, body, {"clocks": shown, "colours": COLOURS}, {"clocks-plot": _planes()})


def _clock(material: Material, identity: str) -> dict[str, object] | None:
    """A clock as the page draws it; None: it cannot be made here."""
    run = material.resolved(identity)
    if run is None:
        return None
    try:
        line = timetable.timetable(run, None if run.topology is None else wiring.matrix(run), _bytes(run))
    except (InputError, MachineError):
        return None
    told = _theory(run)
    rows = numbers.rows(line, timetable.outages(line, clock.machines_of(run) if run.cluster != "trace" else None))
    fields = [name for name in material.varied if name not in ("seed", "learning_rate")]
    known = run.to_dict()
    parts = [f"{name} {known[name]}" for name in fields if known.get(name) is not None and name in _clocked(run)]
    name = ", ".join(dict.fromkeys([run.algorithm, str(run.cluster), *parts, f"{run.workers} workers"]))
    return {
        "name": name,
        "facts": rows + ([["theory", told.line]] if told.line else []),
        **_bars(line),
        **_staleness(line, told.share),
    }


def _clocked(run: Resolved) -> list[str]:
    """The names that a clock's name says beside method and law."""
    return [
        name for name in run.to_dict() if name.startswith(("algorithm.", "cluster.")) or name in ("topology", "delay")
    ]


def _bytes(run: Resolved) -> int:
    """Of a message, where it takes time to travel."""
    if run.options.get("cluster.bandwidth") is None and run.options.get("cluster.server_bandwidth") is None:
        return 0
    return int(facts_of([run]).sizes.bytes)


def _bars(line: Schedule) -> dict[str, object]:
    """The beginning of the timeline, as much as can be drawn."""
    told = schedule.intervals(line)
    told = type(told)(*(column[told.worker < DRAWN] for column in told))
    first = np.argsort(told.begin, kind="stable")[:BARS]
    end = line.end if len(told.begin) <= BARS else float(told.begin[first].max())
    updates = np.unique(line.time[line.applied])
    updates = updates[updates <= end][:BARS]
    return {
        "worker": told.worker[first].tolist(),
        "kind": [str(kind) for kind in told.kind[first]],
        "begin": _short(told.begin[first]),
        "end": _short(np.minimum(told.end[first], end)),
        "updates": _short(updates),
        "until": end,
        "workers": min(line.workers, DRAWN),
        "whole": line.end,
    }


def _staleness(line: Schedule, share: list[float]) -> dict[str, object]:
    """How many gradients were how stale: applied, and dropped; and what theory says, in the same bins."""
    tau = line.staleness
    most = int(tau[line.delivered].max(initial=0))
    width = -(-(most + 1) // BINS)
    edges = np.arange(0, most + width + 1, width)
    counts = [np.histogram(tau[line.fate == fate], edges)[0] for fate in (APPLIED, DROPPED)]
    expected = [float(part.sum() * counts[0].sum()) for part in np.split(np.array(share[: edges[-1]]), edges[1:-1])]
    return {
        "edges": edges.tolist(),
        "applied": counts[0].tolist(),
        "dropped": counts[1].tolist(),
        "expected": expected if share else [],
    }


def _theory(run: Resolved) -> Told:
    """What a closed form says where all workers are alike and memoryless, and messages take no time."""
    alike = all(run.options.get(name, value) == value for name, value in EQUAL.items())
    if not alike or run.cluster != "exponential":
        return Told("", [])
    if run.algorithm == "async_sgd":
        share = theory.geometric_staleness(run.workers, 40 * run.workers).tolist()
        return Told(f"staleness is geometric: k with probability (1/n)(1 - 1/n)^k, n = {run.workers}", share)
    if run.algorithm == "allreduce_sgd":
        mean = theory.barrier_time(run.workers)
        return Told(
            f"a step takes {mean:.4g} times a worker's mean time, the expected maximum of {run.workers} exponential times",
            [],
        )
    return Told("", [])


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def _planes() -> Column:
    """The timeline, and the histogram below it."""
    line = plane("clocks-timeline", 320, "xpan,xbox_zoom,reset,save", x_range=(0.0, 1.0), y_range=(1.0, -1.0))
    bars, updates = empty("left", "right", "top", "bottom", "color", "text"), empty("x", "y")
    drawn = line.quad("left", "right", "top", "bottom", source=bars, color="color", line_color=None)
    line.scatter("x", "y", source=updates, marker="dash", angle=np.pi / 2, size=9, color="#888888")
    line.xaxis.axis_label, line.yaxis.axis_label = "simulated seconds", "worker"
    stale = plane("clocks-staleness", 240, "save", x_range=(0.0, 1.0), y_range=(0.0, 1.0))
    counts, theory_line = empty("left", "right", "top", "bottom", "color", "text"), empty("x", "y", "text")
    shown = stale.quad("left", "right", "top", "bottom", source=counts, color="color", line_color=None)
    stale.line("x", "y", source=theory_line, line_color="#888888", line_dash=[5, 3], line_width=2)
    stale.xaxis.axis_label, stale.yaxis.axis_label = "staleness (updates since the worker pulled)", "gradients"
    for name, source in (("bars", bars), ("updates", updates), ("counts", counts), ("theory", theory_line)):
        source.name = f"clocks-{name}"
    tip(line, [drawn])
    tip(stale, [shown])
    return stacked([line, stale])
