"""Steps behind a barrier, of all or of neighbours; and gossip that knows none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from dopt.cluster import Cluster, compute_times, mean_times
from dopt.schedule.arrivals import arrivals, check_count, check_horizon
from dopt.schedule.events import Seconds
from dopt.schedule.table import APPLIED, Schedule, assembled
from dopt.types import InputError

Neighbours = Callable[[int], np.ndarray]  # step -> [n, n] bool: [i, j]: i waits for j
Rests = Callable[[int], np.ndarray]  # step -> [n] bool: who computes nothing in it
Cost = Callable[[int], np.ndarray]  # step -> [n] seconds of each worker's messages, once all it waits for are there


class Wait(NamedTuple):
    """An exchange of a step, as each worker comes to it."""

    neighbours: Neighbours | None = None  # None: all wait for all
    cost: Cost | None = None  # None: nothing


class Barrier(NamedTuple):
    """Steps that all workers take together."""

    time: np.ndarray  # [steps] float64: seconds at which a step is done by all
    gradients: np.ndarray  # [steps] int64: gradients computed by then
    stalled: bool = False  # the next step would never be done


class Lockstep(NamedTuple):
    """When each worker does what in each step, [workers, steps] seconds; inf: never."""

    begin: np.ndarray  # it begins to compute
    done: np.ndarray  # it has computed
    sends: np.ndarray  # all it waits for first have computed, and messages travel
    time: np.ndarray  # the step is over for it

    def schedule(self) -> Schedule:
        """As a table, of the steps that are done by all."""
        over = np.isfinite(self.time).all(0)
        begin, done, sends, time = (part[:, over] for part in self)
        n, steps = time.shape
        worker, step = np.broadcast_to(np.arange(n)[:, None], (n, steps)), np.broadcast_to(np.arange(steps), (n, steps))
        columns = [worker, step, step, step, np.full_like(step, APPLIED), np.full((n, steps), 1 / n)]
        columns += [begin, begin, done, sends, time, np.zeros((n, steps))]
        order = np.argsort(time.T, axis=None, kind="stable")
        table = (column.T.reshape(-1)[order] for column in columns)
        return assembled(table, n, float(time.max(initial=0)), not over.all())


class Waves(NamedTuple):
    """Updates of workers that wait for nobody, in waves: those of a wave read what was there before it.

    A step is as many updates as there are workers. Every `every` steps a stretch of waves ends, so that what is recorded
    is what was there at one instant.
    """

    applied: (
        np.ndarray
    )  # [stretches, waves, n] bool: who updates in which wave; stretches are filled up with idle waves
    number: np.ndarray  # [stretches, waves, n] int32: which of the worker's computations it is, from 0
    time: np.ndarray  # [steps] float64: seconds at which a step's last update lands
    gradients: np.ndarray  # [steps] int64: gradients computed by then
    messages: np.ndarray  # [steps] int64: models sent by then, all workers together
    age_mean: np.ndarray  # [stretches] how old the neighbours' models were that were mixed in, in steps of the reader
    age_max: np.ndarray  # [stretches]
    stalled: bool = False  # nobody computes any more


def barrier(
    cluster: Cluster | None,
    neighbours: Neighbours | None = None,
    *,
    workers: int,
    cost: Cost | None = None,
    then: Sequence[Wait] = (),
    rests: Rests | None = None,
    computing: int | None = None,
    steps: int | None = None,
    gradients: int | None = None,
    seconds: float | None = None,
) -> Barrier:
    """Steps with a barrier of all workers, or (with `neighbours`) of each with its senders only.

    All: a step takes the slowest worker's time. Neighbours: tᵢ <- max over i and its senders j of (tⱼ + cⱼ); a step is
    done when the last worker has done it. Then messages travel (`cost`). Without a cluster a step takes one second. Who
    crashes computes the same again when it is back; where it never is, the steps end, and the barrier is `stalled`.

    Args:
      then: what they exchange after that, one after the other.
      rests: who computes nothing in a step; None: nobody.
      computing: how many do not rest; None: all.

    Raises:
      InputError: not exactly one horizon, one that is not positive and finite, shorter than one step or of more than
        2^31 steps, or a cluster or `neighbours` of another number of workers.
    """
    check_horizon(steps, gradients, seconds)
    _check_workers(workers, cluster, neighbours)
    computing = workers if computing is None else computing
    if gradients is not None and gradients < computing:
        raise InputError(
            f"gradients: a step of {computing} workers computes {computing}, got {gradients}; give at least that many"
        )
    waits = (Wait(neighbours, cost), *then)
    if seconds is not None:
        time = _within(cluster, waits, rests, seconds)
    else:
        count = steps if gradients is None else gradients // computing
        assert count is not None  # there is one horizon
        check_count("steps, gradients or seconds", count)
        time = _finished(cluster, waits, rests, count)
    done = np.isfinite(time) & (time <= (np.inf if seconds is None else seconds))
    if not done.any():
        _refuse_none(time[0], seconds)
    stalled = bool(np.isinf(time[done.sum() :][:1]).any())
    return Barrier(time[done], computing * np.arange(1, done.sum() + 1), stalled)


def _check_workers(workers: int, cluster: Cluster | None, neighbours: Neighbours | None) -> None:
    if cluster is not None and cluster.workers != workers:
        raise InputError(f"workers: must be the cluster's {cluster.workers}, got {workers}")
    if neighbours is not None and neighbours(0).shape != (workers, workers):
        raise InputError(f"neighbours: must be [{workers}, {workers}], got {list(neighbours(0).shape)}")


def _refuse_none(first: float, seconds: float | None) -> NoReturn:
    """Why no step is done; `first`: seconds at which the first one would be."""
    if np.isinf(first):
        raise InputError(
            "cluster.crash: the first step waits for a worker that never returns; crash later, or give cluster.restart"
        )
    raise InputError(f"seconds: no step is done within {seconds:g} s, the first is at {first:.3g} s; give more seconds")


def _within(cluster: Cluster | None, waits: Sequence[Wait], rests: Rests | None, seconds: float) -> np.ndarray:
    """As `_finished`, of all steps that are done in so many seconds, and more."""
    cost = waits[0].cost
    # no step is faster than the slowest worker's mean, in the mean: a guess of how many fit
    pace = 1.0 if cluster is None else float(mean_times(cluster).max() + (cost(0).min() if cost else 0.0))
    check_count("steps, gradients or seconds", seconds / pace)
    count = int(seconds / pace) + 16
    time = _finished(cluster, waits, rests, count)
    while time[-1] <= seconds:
        count *= 2
        time = _finished(cluster, waits, rests, count)
    return time


def _finished(cluster: Cluster | None, waits: Sequence[Wait], rests: Rests | None, count: int) -> np.ndarray:
    """[count] seconds at which each step is done by all; inf: never."""
    if cluster is None:
        return np.arange(1, count + 1, dtype=float)
    if rests is None and set(waits) == {Wait()} and not _crashes(cluster):
        return np.cumsum(compute_times(cluster, count).max(0))
    (neighbours, cost), *then = waits
    return lockstep(cluster, neighbours, cost=cost, then=then, rests=rests, steps=count).time.max(0)


def _crashes(cluster: Cluster) -> bool:
    return bool(np.isfinite(cluster.down[:, 0]).any())


def lockstep(
    cluster: Cluster,
    neighbours: Neighbours | None = None,
    *,
    steps: int,
    cost: Cost | None = None,
    then: Sequence[Wait] = (),
    rests: Rests | None = None,
) -> Lockstep:
    """Each worker's times in each step of a barrier; arguments as `barrier`'s."""
    n = cluster.workers
    times = compute_times(cluster, steps)
    if rests is not None:
        times = np.where(np.stack([rests(k) for k in range(steps)], 1), 0.0, times)
    lost, back = cluster.down.T
    parts = [np.empty((steps, n)) for _ in range(4)]
    begin, done, sends, time = parts
    now = np.zeros(n)
    for k in range(steps):
        dead = (lost <= now) & (now < back)
        start = np.where(dead, back, now)
        broken = (start <= lost) & (lost < start + times[:, k])  # it does the same again
        begin[k] = np.where(broken, back, start)
        done[k] = begin[k] + times[:, k]
        sends[k] = _met(neighbours, k, done[k])
        now = sends[k] + (0.0 if cost is None else cost(k))
        for wait in then:
            now = _met(wait.neighbours, k, now) + (0.0 if wait.cost is None else wait.cost(k))
        time[k] = now
    return Lockstep(*(part.T for part in parts))


def _met(neighbours: Neighbours | None, step: int, ready: np.ndarray) -> np.ndarray:
    """[n] when all that each worker waits for in a step are ready; None: it waits for all."""
    if neighbours is None:
        return np.full_like(ready, ready.max())
    mine = neighbours(step) | np.eye(len(ready), dtype=bool)
    return np.where(mine, ready, -np.inf).max(1)


def unsynchronised(
    cluster: Cluster,
    neighbours: np.ndarray,
    *,
    every: int,
    steps: int | None = None,
    gradients: int | None = None,
    seconds: float | None = None,
    sending: Seconds | None = None,
) -> Waves:
    """Gossip without barriers: a worker that has computed mixes with the last models of its neighbours, and goes on.

    A model that travels (`sending`) is there for all at the end of it, for its own worker, too. Updates of one instant
    read what was there before it, so equal constant speeds give the synchronous method. A model is as old as its reader
    has made steps since it was written.

    Args:
      neighbours: [n, n] bool, [i, j]: i reads j.
      every: steps between two instants at which all models are recorded.
      sending: (worker, count) -> [count] seconds that its messages take after each computation; None: none.

    Raises:
      InputError: as `arrivals`, or a horizon shorter than one step (n updates).
    """
    n = cluster.workers
    check_horizon(steps, gradients, seconds)
    wanted = steps * n if steps is not None else gradients
    # n more than wanted: the instant of the last update may have others
    plain = arrivals(cluster, steps=None if wanted is None else wanted + n, seconds=seconds, sending=sending)
    plain = plain.rows(plain.applied)
    held = min(len(plain.worker), np.inf if wanted is None else wanted)
    total = int(held) // n
    if not total:
        raise InputError(
            f"steps: without barriers a step is {n} updates, on average one of each worker; the horizon holds {held}"
        )
    # a step ends with the instant of its last update
    ends = np.searchsorted(plain.time, plain.time[n * np.arange(1, total + 1) - 1], side="right")
    stretch_ends = ends[np.unique(np.minimum(np.arange(every, total + every, every), total)) - 1]
    instants = np.flatnonzero(np.diff(plain.time[: ends[-1]], prepend=-np.inf))
    reads = [np.flatnonzero(row) for row in neighbours]
    wave = np.zeros(ends[-1], np.int64)
    ages = np.zeros(ends[-1])
    last, done, seen = (
        np.full(n, -1),
        np.zeros(n, np.int64),
        np.zeros((n, n), np.int64),
    )  # seen[i, j]: i's steps by then
    heard = np.array([len(row) for row in reads])
    stretch, oldest = 0, np.zeros(len(stretch_ends))
    for begin, end in zip(instants, [*instants[1:], ends[-1]], strict=True):
        if begin >= stretch_ends[stretch]:
            stretch += 1
            last[:] = -1
        who = plain.worker[begin:end]
        # after what they read was written, after their own last update, and not before others have read them
        after = max(max(last[reads[i]].max(initial=-1) for i in who), last[who].max()) + 1
        level = max(after, last[neighbours[:, who].any(1)].max(initial=-1))
        for place, i in zip(range(begin, end), who, strict=True):
            age = done[i] - seen[i, reads[i]]
            ages[place] = age.sum()
            oldest[stretch] = max(oldest[stretch], age.max(initial=0))
        wave[begin:end] = level
        last[who] = level
        done[who] += 1
        seen[:, who] = done[:, None]
    which = np.searchsorted(stretch_ends, np.arange(ends[-1]), side="right")
    shape = (len(stretch_ends), int(wave.max()) + 1, n)
    applied, number = np.zeros(shape, bool), np.zeros(shape, np.int32)
    at = which, wave, plain.worker[: ends[-1]]
    applied[at], number[at] = True, plain.batch[: ends[-1]]
    models = np.bincount(which, heard[plain.worker[: ends[-1]]], len(stretch_ends))
    mean = np.bincount(which, ages, len(stretch_ends)) / np.maximum(models, 1)
    sent = np.cumsum(neighbours.sum(0)[plain.worker[: ends[-1]]])[ends - 1]
    return Waves(applied, number, plain.time[ends - 1], ends.astype(np.int64), sent, mean, oldest, plain.stalled)
