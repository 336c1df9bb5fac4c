"""Cluster + coordination rule -> who delivers which version when. First when, then what: host, NumPy, before any model.

In asynchronous rules, who delivers what and when does not depend on the iterates, so the clock runs first; the engine
replays the arrays. A new rule is one function here.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dopt.cluster import Cluster, compute_times, worker_times
from dopt.types import InputError


class Schedule(NamedTuple):
    """A server's arrivals, one row per event, in the order of the clock."""

    worker: np.ndarray  # [events] int32: who delivers
    batch: np.ndarray  # [events] int32: which of the worker's computations it is, from 0
    read_version: np.ndarray  # [events] int32: updates applied when the worker pulled
    staleness: np.ndarray  # [events] int32: updates applied between its pull and its arrival
    applied: np.ndarray  # [events] bool: whether the server uses it
    time: np.ndarray  # [events] float64: seconds at which it lands
    gradients: np.ndarray  # [events] int64: gradients computed by then

    @property
    def steps(self) -> int:
        """Number of updates."""
        return int(self.applied.sum())


class Barrier(NamedTuple):
    """Steps that all workers take together."""

    time: np.ndarray  # [steps] float64: seconds at which a step is done by all
    gradients: np.ndarray  # [steps] int64: gradients computed by then


class Waves(NamedTuple):
    """Updates of workers that wait for nobody, in waves: those of a wave read what was there before it.

    A step is as many updates as there are workers. Every `every` steps a stretch of waves ends, so that what is recorded
    is what was there at one instant.
    """

    applied: (
        np.ndarray
    )  # [stretches, waves, n] bool: who updates in which wave; stretches are filled up with idle waves
    batch: np.ndarray  # [stretches, waves, n] int32: which of the worker's computations it is, from 0
    time: np.ndarray  # [steps] float64: seconds at which a step's last update lands
    gradients: np.ndarray  # [steps] int64: gradients computed by then
    messages: np.ndarray  # [steps] int64: models sent by then, all workers together
    age_mean: np.ndarray  # [stretches] how old the neighbours' models were that were mixed in, in steps of the reader
    age_max: np.ndarray  # [stretches]


def always_busy(
    cluster: Cluster, *, steps: int | None = None, gradients: int | None = None, seconds: float | None = None
) -> Schedule:
    """The plain asynchronous server: every arrival is applied, and its worker pulls right after its own push.

    Pushes of one instant are handled in worker order, so equal constant speeds give round-robin. Every delivered
    gradient is one update, so the horizons `steps` and `gradients` are the same. Li et al. 2014 (OSDI).

    Raises:
      InputError: not exactly one horizon, one that is not positive and finite or asks for more than 2^31 arrivals, or
        no gradient arrives within `seconds`.
    """
    _check_horizon(steps, gradients, seconds)
    wanted = steps if steps is not None else gradients
    finish = _pushes(cluster, wanted, seconds)
    counts = np.array([len(own) for own in finish])
    flat = np.concatenate(finish)
    # a worker's pushes lie in order and workers follow each other, so a stable sort keeps ties in worker order
    order = np.argsort(flat, kind="stable")[:wanted]
    version = np.arange(1, len(order) + 1)  # after each event
    after = np.zeros(len(flat), np.int64)  # the version that the worker of a push pulls right after it
    after[order] = version
    worker = np.repeat(np.arange(cluster.workers), counts)[order]
    batch = order - (np.cumsum(counts) - counts)[worker]
    read = np.where(batch > 0, after[order - 1], 0)
    return Schedule(
        worker.astype(np.int32),
        batch.astype(np.int32),
        read.astype(np.int32),
        (version - 1 - read).astype(np.int32),
        np.ones(len(order), bool),
        flat[order],
        version,
    )


def _pushes(cluster: Cluster, wanted: int | None, seconds: float | None) -> list[np.ndarray]:
    """Each worker's [pushes] times, ascending: all until `seconds`, or all of a span that has at least `wanted`."""
    pace = cluster.scale + cluster.shift  # [workers] mean seconds of a computation
    horizon = seconds if seconds is not None else (wanted or 0) / (1 / pace).sum()
    _check_count("steps, gradients or seconds", float((horizon / pace).sum()))
    counts = (1.2 * horizon / pace).astype(np.int64) + 16  # a guess; look again if the luck was better
    while True:
        finish = [np.cumsum(worker_times(cluster, i, count)) for i, count in enumerate(counts)]
        complete = min(own[-1] for own in finish)  # before this instant, no push is missing
        if seconds is not None and complete > seconds:
            within = [own[: np.searchsorted(own, seconds, side="right")] for own in finish]
            if not any(map(len, within)):
                first = min(own[0] for own in finish)
                raise InputError(
                    f"seconds: no gradient arrives within {seconds:g} s, the first comes at {first:.3g} s; give more seconds"
                )
            return within
        if wanted is not None:
            within = [own[: np.searchsorted(own, complete)] for own in finish]
            if sum(map(len, within)) >= wanted:
                return within
        counts *= 2


def _check_horizon(steps: int | None, gradients: int | None, seconds: float | None) -> None:
    given = {"steps": steps, "gradients": gradients, "seconds": seconds}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise InputError(f"steps: give exactly one of steps, gradients, seconds; got {', '.join(names) or 'none'}")
    value = given[names[0]]
    if value is not None and not 0 < value < np.inf:
        raise InputError(f"{names[0]}: must be positive and finite, got {value}")


def _check_count(name: str, count: float) -> None:
    """Versions are int32, and a longer clock would only fill the memory."""
    if not count < 2**31:
        raise InputError(f"{name}: must ask for fewer than 2^31 events, got about {count:.3g}; give a shorter horizon")


def in_flight_staleness(schedule: Schedule, workers: int) -> np.ndarray:
    """[workers] updates since the pull of the gradient that each computes when the schedule ends.

    For always-busy workers and one-gradient rules, delivered plus in-flight staleness is exactly (n - 1) x steps.
    """
    pulled = np.zeros(workers, np.int64)
    np.maximum.at(pulled, schedule.worker, np.cumsum(schedule.applied))
    return schedule.steps - pulled


def barrier(
    cluster: Cluster | None,
    neighbours: Callable[[int], np.ndarray] | None = None,
    *,
    workers: int,
    steps: int | None = None,
    gradients: int | None = None,
    seconds: float | None = None,
) -> Barrier:
    """Steps with a barrier of all workers, or (with `neighbours`: step -> [n, n] bool) of each with its senders only.

    All: a step takes the slowest worker's time. Neighbours: tᵢ <- max over i and its senders j of (tⱼ + cⱼ); a step is
    done when the last worker has done it. Without a cluster a step takes one second.

    Raises:
      InputError: not exactly one horizon, one that is not positive and finite, shorter than one step or of more than
        2^31 steps, or a cluster or `neighbours` of another number of workers.
    """
    _check_horizon(steps, gradients, seconds)
    if cluster is not None and cluster.workers != workers:
        raise InputError(f"workers: must be the cluster's {cluster.workers}, got {workers}")
    if neighbours is not None and neighbours(0).shape != (workers, workers):
        raise InputError(f"neighbours: must be [{workers}, {workers}], got {list(neighbours(0).shape)}")
    if gradients is not None and gradients < workers:
        raise InputError(
            f"gradients: a step of {workers} workers computes {workers}, got {gradients}; give at least that many"
        )
    wanted = gradients // workers if gradients is not None else steps
    # no step is faster than the slowest worker's mean, in the mean: a guess of how many fit into `seconds`
    pace = 1.0 if cluster is None else float((cluster.scale + cluster.shift).max())
    guess = wanted if wanted is not None else (seconds or 0) / pace
    _check_count("steps, gradients or seconds", guess)
    count = wanted if wanted is not None else int(guess) + 16
    time = _finished(cluster, neighbours, count)
    while seconds is not None and time[-1] <= seconds:
        count *= 2
        time = _finished(cluster, neighbours, count)
    if seconds is not None:
        first, time = time[0], time[time <= seconds]
        if not len(time):
            raise InputError(
                f"seconds: no step is done within {seconds:g} s, the first is at {first:.3g} s; give more seconds"
            )
    return Barrier(time, workers * np.arange(1, len(time) + 1))


def _finished(cluster: Cluster | None, neighbours: Callable[[int], np.ndarray] | None, count: int) -> np.ndarray:
    """[count] seconds at which each step is done by all."""
    if cluster is None:
        return np.arange(1, count + 1, dtype=float)
    times = compute_times(cluster, count)
    if neighbours is None:
        return np.cumsum(times.max(0))
    now, done, oneself = np.zeros(cluster.workers), np.empty(count), np.eye(cluster.workers, dtype=bool)
    for k in range(count):
        now = np.where(neighbours(k) | oneself, now + times[:, k], -np.inf).max(1)
        done[k] = np.max(now)
    return done


def unsynchronised(
    cluster: Cluster,
    neighbours: np.ndarray,
    *,
    every: int,
    steps: int | None = None,
    gradients: int | None = None,
    seconds: float | None = None,
) -> Waves:
    """Gossip without barriers: a worker that has computed mixes with the last models of its neighbours, and goes on.

    Models travel at once. Updates of one instant read what was there before it, so equal constant speeds give the
    synchronous method. A model is as old as its reader has made steps since it was written.

    Args:
      neighbours: [n, n] bool, [i, j]: i reads j.
      every: steps between two instants at which all models are recorded.

    Raises:
      InputError: as `always_busy`, or a horizon shorter than one step (n updates).
    """
    n = cluster.workers
    _check_horizon(steps, gradients, seconds)
    wanted = steps * n if steps is not None else gradients
    # n more than wanted: the instant of the last update may have others
    plain = always_busy(cluster, steps=None if wanted is None else wanted + n, seconds=seconds)
    total = (len(plain.worker) if wanted is None else wanted) // n
    if not total:
        raise InputError(
            f"steps: without barriers a step is {n} updates, one of each worker in the mean; the horizon holds {wanted or len(plain.worker)}"
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
    applied, batch = np.zeros(shape, bool), np.zeros(shape, np.int32)
    at = which, wave, plain.worker[: ends[-1]]
    applied[at], batch[at] = True, plain.batch[: ends[-1]]
    number = np.bincount(which, heard[plain.worker[: ends[-1]]], len(stretch_ends))
    mean = np.bincount(which, ages, len(stretch_ends)) / np.maximum(number, 1)
    sent = np.cumsum(neighbours.sum(0)[plain.worker[: ends[-1]]])[ends - 1]
    return Waves(applied, batch, plain.time[ends - 1], ends.astype(np.int64), sent, mean, oldest)


def save(schedule: Schedule, path: str | Path) -> None:
    """Write a schedule in NumPy's .npz format, to exactly this path (NumPy alone would append the suffix)."""
    with Path(path).open("wb") as file:
        np.savez(file, **schedule._asdict())


def load(path: str | Path) -> Schedule:
    """Read what `save` wrote; InputError where it is something else."""
    try:
        # opened here: of a cut file, np.load would leave it open
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            schedule = Schedule(**{name: arrays[name] for name in Schedule._fields})
    # TypeError: a lone .npy array is no context; the others: empty, cut, foreign or incomplete
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"schedule: {path} is not a schedule written by dopt ({error})") from error
    if len({column.shape for column in schedule}) != 1 or schedule.time.ndim != 1:
        shapes = ", ".join(f"{name} {list(c.shape)}" for name, c in schedule._asdict().items())
        raise InputError(f"schedule: {path} must have columns of one length, got {shapes}")
    return schedule
