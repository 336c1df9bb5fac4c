"""The timetable of a run: what `clock.timeline` sums up, computation by computation; and who failed when. Host.

It can be had of a method alone, without any model: for a cluster that is easy to look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dopt import schedule
from dopt.algorithms import ALGORITHMS
from dopt.algorithms.traits import AllReduce, Exchange, Neighbours
from dopt.cluster import Cluster
from dopt.config import HORIZONS, Resolved, Run, options_of
from dopt.config.exchanges import exchange_of
from dopt.facts import clock, wiring
from dopt.problems import layouts
from dopt.registry import coerce
from dopt.schedule import ABORTED, APPLIED, PENDING, Barrier, Lockstep, Pipeline, Schedule, table
from dopt.types import InputError, Reduction

WORKERS, SECONDS = 8, 20.0  # where nothing else is asked for

# -- the clock of any method --


def asked(given: Mapping[str, Any]) -> Resolved:
    """The resolved run of names, dotted ones for options; what is not given is a cluster that is easy to look at.

    Raises:
      InputError: what `Run` refuses, or a method without a clock.
    """
    traits = ALGORITHMS[given["algorithm"]].traits
    if not traits.reads_cluster:
        raise InputError(
            f"algorithm: {given['algorithm']} reads no cluster: its delay is drawn, and a step takes a second; choose another method"
        )
    # no clock reads a learning rate, but a run has one
    flat = {"workers": WORKERS, "cluster": "exponential", "learning_rate": 0.1, **given}
    of_problem = [name for name in given if name.startswith("problem.")]
    for name in of_problem:
        if name.removeprefix("problem.") not in layouts.OPTIONS:
            raise InputError(
                f"{name}: a clock reads no option of a problem but {', '.join(layouts.OPTIONS)}; leave it out"
            )
    if of_problem:  # any one that has a layout will do
        flat.setdefault("problem", "mlp")
    if all(flat.get(name) is None for name in HORIZONS):
        flat["seconds"] = SECONDS
    if flat.setdefault("delay", "cluster" if traits.delayed else 0) not in ("cluster", 0):
        raise InputError(f"delay: no clock knows a delay other than cluster, got {flat['delay']}; leave it out")
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
    return _tabled(steps, len(line.time), machines, end, size * sent, line.stalled, ~resting)


def _messages(run: Resolved, w: Any, one: Exchange, turns: range, resting: np.ndarray) -> np.ndarray:
    """[steps, n] messages that each worker sends for an exchange in each step; who rests, [n, steps or 1], sends none."""
    n = run.workers
    if isinstance(one, Neighbours):
        links = wiring.links_of(run, w)
        rounds = (range(one.mixings(k), one.mixings(k + 1)) for k in turns)
        return np.array([sum((links(k).sum(0) for k in those), np.zeros(n)) for those in rounds])
    how = one.reduction if isinstance(one, AllReduce) else Reduction()
    reduced = np.diff(how.count(np.arange(len(turns) + 1)))
    sent: np.ndarray = np.tile(reduced[:, None] * clock.reduced_bytes(run, how, (8,))[0], n) / (
        1 - resting.mean(0)[:, None]
    )
    return sent


def _lost(machines: Cluster) -> np.ndarray:
    lost: np.ndarray = machines.down[:, 0][np.isfinite(machines.down[:, 0])]
    return lost


def _tabled(
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
