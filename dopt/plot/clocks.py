"""The timetables of a sweep's runs: of each method, at its best learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from dopt.config import Resolved
from dopt.facts import wiring
from dopt.facts.timetable import timetable
from dopt.plot.asked import Asked, best
from dopt.schedule import Schedule
from dopt.sweeps.results import Results
from dopt.types import InputError

COUNTED = 200  # updates or computations of each worker that a picture shows at most


class Clock(NamedTuple):
    """A run's timetable, and what of its sweep it is."""

    sweep: str
    value: Any  # of the parameter that tells them apart
    identity: str
    line: Schedule


def clocks(asked: Asked, seeds: int) -> Iterator[Clock]:
    """Of each value of the first parameter the best cell's first runs, so many of them.

    Raises:
      InputError: no run has a cluster, so that nobody computes, waits or sends.
    """
    by, none = asked.main, True
    for one in asked.sweeps:
        timed = one.only(one.runs["cluster"].notna().to_numpy())
        if timed.runs.empty:
            continue
        for cell in best(timed, [by], asked.x).to_dict("records"):
            for identity in str(cell["ids"]).split()[:seeds]:
                none = False
                yield Clock(one.name, cell[by], identity, _line(one, identity))
    if none:
        raise InputError(
            "plot: no run has a cluster, so all workers compute at once and none waits; give the sweep one, as in `cluster: {value: exponential}`"
        )


def _line(one: Results, identity: str) -> Schedule:
    run = _shortened(one.run(identity))
    return timetable(run, None if run.topology is None else wiring.matrix(run))


def _shortened(run: Resolved) -> Resolved:
    """No more than a picture has room for."""
    if run.steps is not None:
        return replace(run, steps=min(run.steps, COUNTED * run.workers))
    if run.gradients is not None:
        return replace(run, gradients=min(run.gradients, COUNTED * run.workers))
    return run
