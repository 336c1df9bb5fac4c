"""A schedule in numbers: how long, how many, how stale, and who was down."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dopt import schedule
from dopt.facts.timetable import Outage
from dopt.schedule import Pipeline, Schedule

BINS = 12  # lines of the histogram on the terminal


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
        until = f"to {back:.4g} s" if back < math.inf else "on, permanently"
        found.append(
            [
                "down",
                f"{_named([o.worker for o in failed if (o.lost, o.back) == (lost, back)])} from {lost:.4g} s {until}",
            ]
        )
    if told["stalled"]:
        gone = [o.worker for o in failed if o.back == math.inf]
        last = line.time[line.applied].max(initial=0.0)
        who = _named(gone) if gone else "the worker that is waited for"
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
