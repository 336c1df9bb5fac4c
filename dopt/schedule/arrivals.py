"""Who delivers what, and when: a loop over events, or, where everybody is always busy, a sort.

Pushes are handled in the order of (seconds, worker). Where each gradient is an update, each pusher pulls right after its own;
where several make one, all pushes of an instant are handled before any pull. Models and gradients travel through the
server's port one after the other, first come first served; with infinite bandwidth the port is never busy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dopt import watch
from dopt.cluster import Cluster, mean_times, worker_times
from dopt.cluster.links import server_links
from dopt.schedule.events import Horizon, Links, Seconds, simulate
from dopt.schedule.table import APPLIED, PENDING, Schedule, assembled
from dopt.types import Coordination, InputError

PARTNERS = 0x70616972  # a stream of its own


def arrivals(
    cluster: Cluster,
    how: Coordination | None = None,
    *,
    steps: int | None = None,
    gradients: int | None = None,
    seconds: float | None = None,
    size: float = 0.0,
    sending: Seconds | None = None,
) -> Schedule:
    """The schedule of a coordination on a cluster, until a horizon of updates, computations or seconds.

    Args:
      how: the rule; by default every gradient is an update.
      size: bytes of a model, and of a gradient.
      sending: between peers, how long a worker sends after each computation; there is no server then, nor its port.

    Raises:
      InputError: not exactly one horizon, one that is not positive and finite, too long or too short for any update; or
        numbers of a rule that no cluster of this size can obey.
    """
    how = how or Coordination()
    check_horizon(steps, gradients, seconds)
    check(how, cluster.workers)
    horizon = Horizon(steps, gradients, seconds)
    if cluster.trace is not None and is_plain(how):
        return replay(cluster, horizon, how)
    links = _links(cluster, size, sending is not None)
    rounds = _Rounds(cluster, how.local_steps, links, sending)
    if is_plain(how) and not links.port and not np.isfinite(cluster.down[:, 0]).any():
        return _always_busy(rounds, horizon, size)
    check_count("steps, gradients or seconds", _about(cluster, how, horizon))
    return simulate(how, horizon, links, cluster.down, rounds.computing, sending, size)


def always_busy(
    cluster: Cluster, *, steps: int | None = None, gradients: int | None = None, seconds: float | None = None
) -> Schedule:
    """The plain asynchronous server: every arrival is an update, and its worker pulls right after its own push.

    Pushes of one instant are handled in worker order, so equal constant speeds give round-robin. Li et al. 2014 (OSDI).
    """
    return arrivals(cluster, steps=steps, gradients=gradients, seconds=seconds)


def is_plain(how: Coordination) -> bool:
    """Whether every gradient is an update and nobody waits."""
    return how._replace(local_steps=1, pairs=False) == Coordination()


def _links(cluster: Cluster, size: float, peers: bool) -> Links:
    nothing = np.zeros(cluster.workers)
    if peers or cluster.links.free:
        return Links(nothing, nothing)
    latency, per_byte = server_links(cluster.links, cluster.workers)
    return Links(latency, size * per_byte)


def check(how: Coordination, workers: int) -> None:
    """Refuse numbers that no cluster of `workers` can obey."""
    if how.gradients is not None and how.gradients < 1:
        raise InputError(f"gradients: an update needs at least one gradient, got {how.gradients}")
    if how.waits and how.gradients is not None and how.gradients > workers:
        raise InputError(
            f"gradients: with waits, each worker brings one gradient, so it must not exceed workers={workers}, got {how.gradients}"
        )
    if how.counts_dropped and how.stop:
        raise InputError(
            "stop: needs a limit that counts updates only, got one that counts dropped gradients, too; leave it out"
        )
    for name, value in (("limit", how.limit), ("slack", how.slack)):
        if value is not None and value < 0:
            raise InputError(f"{name}: must not be negative, got {value}")


def check_horizon(steps: int | None, gradients: int | None, seconds: float | None) -> None:
    given = {"steps": steps, "gradients": gradients, "seconds": seconds}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise InputError(f"steps: give exactly one of steps, gradients, seconds; got {', '.join(names) or 'none'}")
    value = given[names[0]]
    if value is not None and not 0 < value < np.inf:
        raise InputError(f"{names[0]}: must be positive and finite, got {value}")


def check_count(name: str, count: float) -> None:
    """Versions are int32, and a longer clock would only fill the memory."""
    if not count < 2**31:
        raise InputError(f"{name}: must ask for fewer than 2^31 events, got about {count:.3g}; give a shorter horizon")


# -- always busy: a sort -------------------------------------------------------------------------------------------------


def _always_busy(rounds: _Rounds, horizon: Horizon, size: float) -> Schedule:
    cluster, local_steps, links, sending = rounds
    n, wanted = cluster.workers, horizon.steps
    if horizon.gradients is not None:
        wanted = -(-horizon.gradients // local_steps)
    finish = _pushes(rounds, wanted, horizon.seconds)
    counts = np.array([len(own) for own in finish])
    flat = np.concatenate(finish)
    # a worker's pushes lie in order and workers follow each other, so a stable sort keeps ties in worker order
    watch.check()
    order = np.argsort(flat, kind="stable")[:wanted]
    watch.check()
    steps = len(order)
    version = np.arange(1, steps + 1)  # after each event
    after = np.zeros(len(flat), np.int64)  # the version that the worker of a push pulls right after it
    after[order] = version
    worker = np.repeat(np.arange(n), counts)[order]
    number = order - (np.cumsum(counts) - counts)[worker]
    read = np.where(number > 0, after[order - 1], 0)
    time = flat[order]
    pulled = np.where(number > 0, flat[order - 1], 0.0)
    end = horizon.seconds if horizon.seconds is not None else float(time[-1])
    # what everybody does then: pending
    made = np.bincount(worker, minlength=n)
    last, free = np.zeros(n), np.zeros(n, np.int64)
    last[worker], free[worker] = time, version
    fetch = np.concatenate([number > 0, made > 0]) & (sending is None)
    worker, number = np.concatenate([worker, np.arange(n)]), np.concatenate([number, made])
    pulled = np.concatenate([pulled, last])
    begin = np.minimum(pulled + np.where(fetch, links.latency[worker], 0.0), end)
    done = np.concatenate([_computed(rounds, worker[:steps], number[:steps], time), np.full(n, end)])
    if sending is not None or links.latency.any():  # what is pending may be under way
        own = [rounds.computing(i, count + 1)[-1] for i, count in enumerate(made.tolist())]
        done[steps:] = np.minimum(begin[steps:] + own, end)
    return assembled(
        (
            worker,
            number * local_steps,
            np.concatenate([read, free]),
            np.concatenate([version - 1, np.full(n, steps)]),
            np.repeat([APPLIED, PENDING], [steps, n]),
            np.repeat([1.0, 0.0], [steps, n]),
            pulled,
            begin,
            done,
            done,
            np.concatenate([time, np.full(n, end)]),
            size * (fetch + np.repeat([1.0, 0.0], [steps, n])),
        ),
        n,
        end,
    )


def _computed(rounds: _Rounds, worker: np.ndarray, number: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Seconds at which what landed at `time` was computed, and began to travel."""
    if rounds.sending is None:
        return time - rounds.links.latency[worker]
    took = np.concatenate([rounds.sending(i, int((worker == i).sum())) for i in range(rounds.cluster.workers)])
    counts = np.bincount(worker, minlength=rounds.cluster.workers)
    return time - took[(np.cumsum(counts) - counts)[worker] + number]


class _Rounds(NamedTuple):
    """What a worker does between two pulls, as seconds."""

    cluster: Cluster
    local_steps: int
    links: Links
    sending: Seconds | None

    def computing(self, worker: int, count: int) -> np.ndarray:
        """[count] seconds of the worker's first rounds of computations."""
        times = worker_times(self.cluster, worker, count * self.local_steps)
        return times if self.local_steps == 1 else times.reshape(count, self.local_steps).sum(1)

    def landing(self, worker: int, count: int) -> np.ndarray:
        """[count] seconds at which the worker's pushes land, where nobody waits and no port is busy."""
        legs, latency = [self.computing(worker, count)], self.links.latency[worker]
        if self.sending is not None:
            legs.append(self.sending(worker, count))
        elif latency:
            legs += [np.full(count, latency)] * 2
        # one leg after another, as the loop adds them: the same ties
        return np.cumsum(np.stack(legs, 1)).reshape(count, -1)[:, min(1, len(legs) - 1)]


def _pushes(rounds: _Rounds, wanted: int | None, seconds: float | None) -> list[np.ndarray]:
    """Each worker's [pushes] times, ascending: all until `seconds`, or all of a span that has at least `wanted`."""
    pace = mean_times(rounds.cluster) * rounds.local_steps + 2 * rounds.links.latency
    horizon = seconds if seconds is not None else (wanted or 0) / (1 / pace).sum()
    check_count("steps, gradients or seconds", float((horizon / pace).sum()))
    counts = (1.2 * horizon / pace).astype(np.int64) + 16  # a guess; look again if the luck was better
    while True:
        watch.check()
        finish = [rounds.landing(i, count) for i, count in enumerate(counts)]
        complete = min(own[-1] for own in finish)  # before this instant, no push is missing
        if seconds is not None and complete > seconds:
            within = [own[: np.searchsorted(own, seconds, side="right")] for own in finish]
            if not any(map(len, within)):
                raise too_short(seconds, min(own[0] for own in finish))
            return within
        if wanted is not None:
            within = [own[: np.searchsorted(own, complete)] for own in finish]
            if sum(map(len, within)) >= wanted:
                return within
        counts *= 2


def too_short(seconds: float, first: float) -> InputError:
    return InputError(
        f"seconds: no gradient arrives within {seconds:g} s, the first comes at {first:.3g} s; give more seconds"
    )


def _about(cluster: Cluster, how: Coordination, horizon: Horizon) -> float:
    """Roughly how many rounds of computations lie within a horizon."""
    if horizon.seconds is not None:
        return float((horizon.seconds / (mean_times(cluster) * how.local_steps)).sum())
    return (horizon.gradients or 0) / how.local_steps + (horizon.steps or 0) * (how.gradients or 1)


# -- what was measured, and who meets whom -------------------------------------------------------------------------------


def replay(cluster: Cluster, horizon: Horizon, how: Coordination) -> Schedule:
    """The schedule that a trace says: its very versions and times, as far as the horizon."""
    trace = cluster.trace
    if trace is None or how.local_steps > 1:
        raise InputError("cluster.file: a trace has one gradient in each row; use local_steps = 1")
    total = len(trace.worker)
    wanted = horizon.steps if horizon.steps is not None else horizon.gradients
    if wanted is not None and wanted > total:
        raise InputError(f"steps: the trace holds {total} updates, got {wanted}; give at most {total}")
    if horizon.seconds is not None:
        wanted = int(np.searchsorted(trace.seconds, horizon.seconds, side="right"))
        if not wanted:
            raise too_short(horizon.seconds, float(trace.seconds[0]))
    n, worker, read, time = cluster.workers, *(x[:wanted] for x in (trace.worker, trace.read_version, trace.seconds))
    order = np.argsort(worker, kind="stable")
    own = np.zeros(len(worker), np.int64)
    counts = np.bincount(worker, minlength=n)
    own[order] = np.arange(len(worker)) - (np.cumsum(counts) - counts)[worker[order]]
    before = np.zeros(len(worker))  # each worker's last write
    before[order[1:]] = np.where(own[order[1:]] > 0, time[order[:-1]], 0.0)
    # a version is there from the time of its write; who read one before its own last write computed nothing on it yet
    pulled = np.maximum(np.concatenate([[0.0], time])[read], before)
    write = np.arange(len(worker))
    end = horizon.seconds if horizon.seconds is not None else float(time[-1])
    applied, one = np.full(len(worker), APPLIED), np.ones(len(worker))
    columns = worker, own, read, write, applied, one, pulled, pulled, time, time, time, np.zeros(len(worker))
    return assembled(columns, n, end)


def partners(seed: int, neighbours: np.ndarray, worker: int, count: int) -> np.ndarray:
    """[count] whom a worker meets after each of its computations: a neighbour by chance, of (seed, worker, number) alone.

    Args:
      neighbours: [n, n] bool; each worker has some.
    """
    near = np.flatnonzero(neighbours[worker] & (np.arange(len(neighbours)) != worker))
    stream = np.random.Generator(np.random.Philox(key=np.array([seed, worker ^ (PARTNERS << 32)], np.uint64)))
    return near[(stream.random(count) * len(near)).astype(np.int64)]
