"""A schedule in numbers and in one picture: who computes, sends, waits, and computes in vain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dopt import schedule
from dopt.algorithms import ALGORITHMS
from dopt.algorithms.traits import AllReduce, Exchange, Neighbours
from dopt.cluster import Cluster
from dopt.config import HORIZONS, Resolved, Run, options_of
from dopt.config.exchanges import exchange_of
from dopt.facts import clock, wiring
from dopt.files import writing
from dopt.paths import slug
from dopt.problems import layouts
from dopt.registry import coerce
from dopt.report import style
from dopt.schedule import (
    ABORTED,
    APPLIED,
    DROPPED,
    PENDING,
    Barrier,
    Lockstep,
    Pipeline,
    Schedule,
    table,
)
from dopt.types import InputError, Reduction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORKERS, SECONDS = 8, 20.0  # where nothing else is asked for
DRAWN = 64  # workers that a picture has room for
BINS = 12  # lines of the histogram on the terminal
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

# -- the clock of any method --


def asked(given: Mapping[str, Any]) -> Resolved:
    """The resolved run of names, dotted ones for options; what is not given is a cluster that is easy to look at.

    Raises:
      InputError: what `Run` refuses, or a method without a clock.
    """
    traits = ALGORITHMS[given["algorithm"]].traits
    if not traits.reads_cluster:
        raise InputError(
            f"algorithm: {given['algorithm']} reads no cluster, its delay is drawn and a step takes a second; choose one of another kind"
        )
    # no clock reads a learning rate, but a run has one
    flat = {"workers": WORKERS, "cluster": "exponential", "learning_rate": 0.1, **given}
    of_problem = [name for name in given if name.startswith("problem.")]
    for name in of_problem:
        if name.removeprefix("problem.") not in layouts.OPTIONS:
            raise InputError(f"{name}: of a problem a clock reads only {', '.join(layouts.OPTIONS)}; leave it out")
    if of_problem:  # any one that has a layout will do
        flat.setdefault("problem", "mlp")
    if all(flat.get(name) is None for name in HORIZONS):
        flat["seconds"] = SECONDS
    if flat.setdefault("delay", "cluster" if traits.delayed else 0) not in ("cluster", 0):
        raise InputError(
            f"delay: no clock knows how old models are where a law draws it, got {flat['delay']}; use cluster"
        )
    return Run.from_dict(flat | {"cluster": flat["cluster"] or "constant"}).resolve()


def of(algorithm: str, given: Mapping[str, Any]) -> tuple[Schedule, list[Outage], str]:
    """(schedule, who failed, the setting in words) of a method; `given`: fields and options of a run, and `message_bytes`."""
    fields = _fields(given)
    size = coerce("message_bytes", given.get("message_bytes", 0), int)
    if size < 0:
        raise InputError(f"message_bytes: must not be negative, got {size}")
    run = asked({"algorithm": algorithm, **fields})
    line = timetable(run, None if run.topology is None else wiring.matrix(run), size)
    machines = clock.machines_of(run)
    parts = [counted(run.workers), run.cluster, *([run.topology] if run.topology else [])]
    parts += [f"{name.split('.')[1]} {value}" for name, value in fields.items() if "." in name]
    # of a trace nobody fails: it is what was measured
    return line, outages(line, machines if machines.trace is None else None), ", ".join(map(str, parts))


def _fields(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "message_bytes"}


def stages_of(algorithm: str, given: Mapping[str, Any]) -> Pipeline | None:
    """When each stage of a worker computes; None: a model is not laid out by layers."""
    options = options_of(asked({"algorithm": algorithm, **_fields(given)}), "problem")
    if options.get("layout") != "layers":
        return None
    return schedule.pipeline(options["parts"], options["micro_batches"])


def counted(workers: int) -> str:
    return f"{workers} worker{'s' * (workers > 1)}"


def timetable(run: Resolved, w: Any = None, size: int = 0) -> Schedule:
    """What `clock.timeline` sums up, worker by worker: the schedule of a resolved run that has a cluster.

    Args:
      w: its mixing matrix, for methods that have one.
      size: bytes of a message.

    Raises:
      InputError: as `clock.timeline`.
    """
    if run.delay == "cluster":
        return _without_barriers(run, w, size)
    line = clock.timeline(run, w, clock.alike(run, 8 * size))
    if isinstance(line, Barrier):
        return _behind_barrier(run, line, w, size)
    assert isinstance(line, Schedule)
    return line


def _without_barriers(run: Resolved, w: Any, size: int) -> Schedule:
    """Each worker mixes with the last models of its neighbours; a step is as many updates as there are workers."""
    wiring.check_stays(w)
    machines, near = clock.machines_of(run), wiring.links_of(run, w)(0)
    line = schedule.arrivals(
        machines,
        steps=None if run.steps is None else run.workers * run.steps,
        gradients=run.gradients,
        seconds=run.seconds,
        sending=clock.telling(machines, near, size),
    )
    return line._replace(bytes=1.0 * size * near.sum(0)[line.worker] * line.applied)


def _behind_barrier(run: Resolved, line: Barrier, w: Any, size: int) -> Schedule:
    """Steps that all have done by the end are applied, what some are ahead is pending, and what a crash broke is aborted."""
    machines, n = clock.machines_of(run), run.workers
    how = clock.waiting(run, w, machines, clock.alike(run, 8 * size))
    count, end = len(line.time) + 1, run.seconds
    if line.stalled and end is None:  # until nobody moves any more: each is at most n steps ahead of another
        steps = schedule.lockstep(machines, steps=count + n, **how)
        end = float(np.max([*(part[np.isfinite(part)].max() for part in steps), *_lost(machines)]))
    else:
        end = float(line.time[-1]) if end is None else end
        steps = schedule.lockstep(machines, steps=count, **how)
        while steps.time[:, -1].min() < end:  # somebody is ahead
            count *= 2
            steps = schedule.lockstep(machines, steps=count, **how)
    turns = range(steps.time.shape[1])
    resting = np.zeros((n, 1), bool) if how["rests"] is None else np.stack([how["rests"](k) for k in turns], 1)
    each = (_messages(run, w, one, turns, resting) for one in exchange_of(run))
    sent = sum(each, np.zeros((1, n))) if size else np.zeros((1, n))
    return _told(steps, len(line.time), machines, end, size * sent, line.stalled, ~resting)


def _messages(run: Resolved, w: Any, one: Exchange, turns: range, resting: np.ndarray) -> np.ndarray:
    """[steps, n] messages that each worker sends for an exchange in each step; who rests, [n, steps or 1], sends none."""
    n = run.workers
    if isinstance(one, Neighbours):
        links = wiring.links_of(run, w)
        rounds = (range(wiring.mixings(run, k), wiring.mixings(run, k + 1)) for k in turns)
        return np.array([sum((links(k).sum(0) for k in those), np.zeros(n)) for those in rounds])
    how = one.reduction if isinstance(one, AllReduce) else Reduction()
    reduced = np.diff(how.count(np.arange(len(turns) + 1)))
    return np.tile(reduced[:, None] * clock.reduced_bytes(run, how, (8,))[0], n) / (1 - resting.mean(0)[:, None])


def _lost(machines: Cluster) -> np.ndarray:
    lost = machines.down[:, 0]
    return lost[np.isfinite(lost)]


def _told(
    steps: Lockstep, total: int, machines: Cluster, end: float, sent: np.ndarray, stalled: bool, works: np.ndarray
) -> Schedule:
    """The table of the first `total` steps, and of all else until `end`.

    Args:
      sent: [steps, n] bytes, in turn.
      works: [n, steps] bool, or [n, 1]: who computes; who rests has no row, and waits.
    """
    worker, step = np.nonzero((steps.begin < end) & works)
    times = np.minimum([part[worker, step] for part in (steps.begin, *steps)], end)
    over = steps.time[worker, step] <= end
    fate = np.where(step < total, APPLIED, PENDING)
    # computations that a crash broke; they are done again
    before = np.pad(steps.time[:, :-1], ((0, 0), (1, 0)))
    lost = machines.down[:, :1]
    who, again = np.nonzero((steps.begin > before) & (lost > before) & (lost < end))
    broken = before[who, again], before[who, again], *[lost[who, 0]] * 3
    version = np.minimum(np.concatenate([step, again]), total)
    fate = np.concatenate([fate, np.full(len(who), ABORTED)])
    times = np.concatenate([times, broken], 1)
    columns = [
        np.concatenate([worker, who]),
        np.concatenate([step, again]),
        version,
        version,
        fate,
        np.where(fate == APPLIED, 1 / works.sum(0).max(), 0.0),
        *times,
        np.concatenate([sent[step % len(sent), worker] * over, np.zeros(len(who))]),
    ]
    order = np.lexsort((columns[0], times[-1], fate == PENDING))
    return table.assembled([column[order] for column in columns], machines.workers, end, stalled)


# -- who failed --


class Outage(NamedTuple):
    worker: int
    lost: float  # seconds at which it goes down
    back: float  # inf: never, as far as the schedule tells


def outages(line: Schedule, machines: Cluster | None = None) -> list[Outage]:
    """Who goes down when. Without its cluster, a schedule only tells who was computing then."""
    if machines is not None:
        down = machines.down
    else:
        down = np.full((line.workers, 2), np.inf)
        s = line.rows(np.lexsort((line.pulled, line.worker)))
        same = np.diff(s.worker, append=-1) == 0
        after = np.where(same, np.append(s.pulled[1:], np.inf)[: len(same)], np.inf)
        broken = (s.fate == ABORTED) & (after > s.time)  # who is told to stop begins again at once
        down[s.worker[broken]] = np.stack([s.time, after], 1)[broken]
    found = [Outage(i, float(lost), float(back)) for i, (lost, back) in enumerate(down)]
    return [o for o in found if o.lost <= line.end and o.lost < o.back]


# -- numbers --


def rows(line: Schedule, failed: list[Outage], stages: Pipeline | None = None) -> list[list[str]]:
    """What a summary says, name and words."""
    told = schedule.summary(line)
    quantiles, names = told["staleness_quantiles"], {0.5: "median", 1.0: "max"}
    found = [
        ["steps", f"{told['steps']}"],
        ["seconds", f"{told['seconds']:.4g}"],
        ["updates per second", f"{told['updates_per_second']:.4g}"],
        ["computations", ", ".join(f"{count} {fate}" for fate, count in told["computations"].items())],
        [
            "staleness",
            ", ".join(
                [
                    f"mean {told['staleness_mean']:.4g}",
                    *(f"{names.get(q, f'{q:g} quantile')} {tau:.4g}" for q, tau in quantiles.items()),
                ]
            ),
        ],
        ["workers' time", ", ".join(f"{kind} {share:.1%}" for kind, share in told["shares"].items())],
        ["bytes", f"{told['bytes']:.4g}"],
    ]
    if stages is not None:
        found.append(["bubble", f"{stages.idle:.1%} of the computing time of each stage"])
    for lost, back in sorted({(o.lost, o.back) for o in failed}):
        until = f"to {back:.4g} s" if back < math.inf else "on, for good"
        found.append(
            [
                "down",
                f"{_named([o.worker for o in failed if (o.lost, o.back) == (lost, back)])} from {lost:.4g} s {until}",
            ]
        )
    if told["stalled"]:
        gone = [o.worker for o in failed if o.back == math.inf]
        last = line.time[line.applied].max(initial=0.0)
        who = _named(gone) if gone else "who is waited for"
        found.append(["stalled", f"no update after {last:.4g} s: {who} never returned"])
    return found


def _named(workers: list[int]) -> str:
    some = ", ".join(map(str, workers[:8])) + (f" and {len(workers) - 8} more" if len(workers) > 8 else "")
    return f"worker{'s' * (len(workers) > 1)} {some}"


def histogram(line: Schedule) -> list[list[Any]]:
    """Staleness, how many were applied with it, and a bar; at most `BINS` lines, none where nothing is stale."""
    counts = schedule.summary(line)["staleness_histogram"]
    if len(counts) <= 1:
        return []
    width = -(-len(counts) // BINS)
    found = np.add.reduceat(counts, np.arange(0, len(counts), width))
    names = [f"{k}" if width == 1 else f"{k}-{min(k + width, len(counts)) - 1}" for k in range(0, len(counts), width)]
    return [[name, int(c), "█" * math.ceil(40 * c / found.max())] for name, c in zip(names, found, strict=True)]


# -- the picture --


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


def legend(figure: Figure, axes: Axes) -> None:
    """What the colours of `gantt` mean, below the figure."""
    known = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # each once
    figure.legend(known.values(), known, loc="outside lower center", ncols=len(known), frameon=False)


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
