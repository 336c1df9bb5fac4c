"""Cluster + coordination rule -> who delivers which version when. First when, then what: host, NumPy, before any model.

In asynchronous rules, who delivers what and when does not depend on the iterates, so the clock runs first; the engine
replays the arrays. A new rule is one function here.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dopt.cluster import Cluster, compute_times
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


def always_busy(
    cluster: Cluster, *, steps: int | None = None, gradients: int | None = None, seconds: float | None = None
) -> Schedule:
    """The plain asynchronous server: every arrival is applied, and its worker pulls right after its own push.

    Pushes of one instant are handled in worker order, so equal constant speeds give round-robin. Every delivered
    gradient is one update, so the horizons `steps` and `gradients` are the same. Li et al. 2014 (OSDI).

    Raises:
      InputError: no gradient arrives within `seconds`.
    """
    n, wanted = cluster.workers, steps if steps is not None else gradients
    # as many draws as the fastest can need: guess from the mean speeds, and look again
    speed = 1 / (cluster.scale + cluster.shift)
    horizon = wanted / speed.sum() if wanted is not None else seconds
    count = int(1.2 * horizon * speed.max()) + 16
    while True:
        finish = np.cumsum(compute_times(cluster, count), axis=1)  # [workers, count]
        complete = finish[:, -1].min()  # until here no arrival is missing
        if (finish <= complete).sum() > wanted if wanted is not None else complete > seconds:
            break
        count *= 2
    order = np.lexsort((np.repeat(np.arange(n), count), finish.ravel()))
    order = order[: wanted if wanted is not None else int((finish <= seconds).sum())]
    if not len(order):
        raise InputError(f"seconds: no gradient arrives within {seconds:g} s, the first comes at {finish.min():.3g} s; give more seconds")
    worker, batch = np.divmod(order, count)
    before = np.zeros((n, batch.max() + 2), np.int64)  # versions at which worker i pulled for its m-th computation
    before[worker, batch + 1] = np.arange(1, len(order) + 1)
    read = before[worker, batch]
    number = np.arange(len(order))
    return Schedule(
        worker.astype(np.int32),
        batch.astype(np.int32),
        read.astype(np.int32),
        (number - read).astype(np.int32),
        np.ones(len(order), bool),
        finish.ravel()[order],
        number + 1,
    )


def in_flight_staleness(schedule: Schedule, workers: int) -> np.ndarray:
    """[workers] updates since the pull of the gradient that each computes when the schedule ends.

    For always-busy workers and one-gradient rules, delivered plus in-flight staleness is exactly (n - 1) x steps.
    """
    pulled = np.zeros(workers, np.int64)
    np.maximum.at(pulled, schedule.worker, np.arange(1, len(schedule.worker) + 1))
    return schedule.steps - pulled


def barrier(
    cluster: Cluster | None,
    neighbours: np.ndarray | None = None,
    *,
    workers: int,
    steps: int | None = None,
    gradients: int | None = None,
    seconds: float | None = None,
) -> Barrier:
    """Steps with a barrier of all workers, or (with `neighbours` [n, n] bool) of each with its senders only.

    All: a step takes the slowest worker's time. Neighbours: tᵢ <- max over i and its senders j of (tⱼ + cⱼ); a step is
    done when the last worker has done it. Without a cluster a step takes one second.

    Raises:
      InputError: the horizon is shorter than one step.
    """
    if gradients is not None and gradients < workers:
        raise InputError(f"gradients: a step of {workers} workers computes {workers}, got {gradients}; give at least that many")
    wanted = gradients // workers if gradients is not None else steps
    if cluster is None:
        time = np.arange(1, int(wanted if wanted is not None else seconds) + 1, dtype=float)
    else:
        count = wanted if wanted is not None else 64
        time = _finished(cluster, neighbours, count)
        while wanted is None and time[-1] <= seconds:
            count *= 2
            time = _finished(cluster, neighbours, count)
    if seconds is not None:
        time = time[time <= seconds]
    if not len(time):
        raise InputError(f"seconds: no step is done within {seconds:g} s; give more seconds")
    return Barrier(time, workers * np.arange(1, len(time) + 1))


def _finished(cluster: Cluster, neighbours: np.ndarray | None, count: int) -> np.ndarray:
    """[count] seconds at which each step is done by all."""
    times = compute_times(cluster, count)
    if neighbours is None:
        return np.cumsum(times.max(0))
    waits = neighbours | np.eye(cluster.workers, dtype=bool)
    now, done = np.zeros(cluster.workers), np.empty(count)
    for k in range(count):
        now = np.where(waits, now + times[:, k], -np.inf).max(1)
        done[k] = now.max()
    return done


def save(schedule: Schedule, path: str | Path) -> None:
    """Write a schedule as a .npz file."""
    np.savez(path, **schedule._asdict())


def load(path: str | Path) -> Schedule:
    """Read what `save` wrote; InputError where it is something else."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Schedule(**{name: arrays[name] for name in Schedule._fields})
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"schedule: {path} is not a schedule written by dopt ({error})") from error
