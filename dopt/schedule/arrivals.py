"""Who delivers what, and when: a loop over events, or, where everybody is always busy, a sort.

Pushes are handled in the order of (seconds, worker). Where each gradient is an update, each pusher pulls right after its own;
where several make one, all pushes of an instant are handled before any pull. Models and gradients travel through the
server's port one after the other, first come first served; with infinite bandwidth the port is never busy.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from dopt import network
from dopt.cluster import Cluster, mean_times, worker_times
from dopt.schedule.table import ABORTED, APPLIED, DROPPED, PENDING, TYPES, Schedule, assembled
from dopt.types import Coordination, InputError

PARTNERS = 0x70616972  # a stream of its own
Sending = Callable[[int, int], np.ndarray]  # (worker, count) -> [count] seconds that its first messages to others take
LAND, PORT, CRASH, RETURN = range(4)  # what happens at one instant happens in this order


def arrivals(
    cluster: Cluster,
    how: Coordination | None = None,
    *,
    steps: int | None = None,
    gradients: int | None = None,
    seconds: float | None = None,
    size: float = 0.0,
    sending: Sending | None = None,
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
    links = _Links.of(cluster, size, sending is not None)
    if is_plain(how) and not links.port and not np.isfinite(cluster.down[:, 0]).any():
        return _always_busy(cluster, horizon, how.local_steps, links, size, sending)
    return _simulate(cluster, how, horizon, links, size, sending)


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


class Horizon(NamedTuple):
    """Exactly one is not None."""

    steps: int | None
    gradients: int | None
    seconds: float | None


class _Links(NamedTuple):
    """How a model and a gradient travel between a worker and the server."""

    latency: np.ndarray  # [workers] seconds
    service: np.ndarray  # [workers] seconds that a message occupies the server's port

    @property
    def port(self) -> bool:
        return bool(self.service.any())

    @classmethod
    def of(cls, cluster: Cluster, size: float, peers: bool) -> _Links:
        nothing = np.zeros(cluster.workers)
        if peers or cluster.network.free:
            return cls(nothing, nothing)
        latency, per_byte = network.server_links(cluster.network, cluster.workers)
        return cls(latency, size * per_byte)


def check(how: Coordination, workers: int) -> None:
    """Refuse numbers that no cluster of `workers` can obey."""
    if how.batch is not None and how.batch < 1:
        raise InputError(f"batch: an update needs at least one gradient, got {how.batch}")
    if how.waits and how.batch is not None and how.batch > workers:
        raise InputError(
            f"k: each worker waits with one gradient, so k must not exceed workers={workers}, got {how.batch}; use a k_batch_ method"
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


def _always_busy(
    cluster: Cluster, horizon: Horizon, local_steps: int, links: _Links, size: float, sending: Sending | None
) -> Schedule:
    n, wanted = cluster.workers, horizon.steps
    if horizon.gradients is not None:
        wanted = -(-horizon.gradients // local_steps)
    rounds = _Rounds(cluster, local_steps, links, sending)
    finish = _pushes(rounds, wanted, horizon.seconds)
    counts = np.array([len(own) for own in finish])
    flat = np.concatenate(finish)
    # a worker's pushes lie in order and workers follow each other, so a stable sort keeps ties in worker order
    order = np.argsort(flat, kind="stable")[:wanted]
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
        own = [rounds.computing(i, count + 1)[-1] for i, count in enumerate(made)]
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
    links: _Links
    sending: Sending | None

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


# -- everything else: a loop over events ---------------------------------------------------------------------------------


def _simulate(
    cluster: Cluster, how: Coordination, horizon: Horizon, links: _Links, size: float, sending: Sending | None
) -> Schedule:
    check_count("steps, gradients or seconds", _about(cluster, how, horizon))
    n, workers = cluster.workers, range(cluster.workers)
    last_step = math.inf if horizon.steps is None else horizon.steps
    last_round = math.inf if horizon.gradients is None else -(-horizon.gradients // how.local_steps)
    until = math.inf if horizon.seconds is None else horizon.seconds
    batched, waits, slack = how.batch is not None, how.waits, how.slack
    limit = math.inf if how.limit is None else how.limit
    latency, service = links.latency.tolist(), links.service.tolist()
    lost, back = (column.tolist() for column in cluster.down.T)
    rounds = _Rounds(cluster, how.local_steps, links, sending)
    compute = _Ahead(lambda i, count: rounds.computing(i, count), n)
    send = None if sending is None else _Ahead(sending, n)
    held = [0] * n  # of each worker, where that matters
    full = _per_worker_full(how, held) if how.per_worker else _count_full(how.batch or 1)

    version, delivered, port, now = 0, 0, 0.0, 0.0
    read, number, epoch, clock = [0] * n, [-1] * n, [0] * n, [0] * n
    pulled, begin, done, fetched = [0.0] * n, [0.0] * n, [0.0] * n, [False] * n
    busy = [False] * n
    gone: list[int] = []  # who never returns
    readers: dict[int, list[int]] = {}  # version -> who pulled it; some have gone on since
    oldest = 0  # nobody who reads an older version is still at work, where those are stopped
    heap: list[tuple[float, int, int, int]] = []  # (seconds, what, worker, epoch of the worker)
    rows: list[tuple] = []
    push, pop = heapq.heappush, heapq.heappop

    def start(i: int, now: float) -> None:
        """Worker i pulls and computes."""
        nonlocal port
        if lost[i] <= now < back[i]:
            leave(i)
            return
        fetch = version > read[i] and send is None
        fetched[i], read[i], pulled[i] = fetch, version, now
        number[i] += 1
        if fetch and service[i]:
            port = max(port, now) + service[i]
            begin[i] = port + latency[i]
        else:
            begin[i] = now + latency[i] if fetch else now
        done[i] = begin[i] + compute(i, number[i])
        busy[i] = True
        if how.stop:
            readers.setdefault(version, []).append(i)
        if now < lost[i] < done[i]:
            push(heap, (lost[i], CRASH, i, epoch[i]))
        elif service[i]:
            push(heap, (done[i] + latency[i], PORT, i, epoch[i]))
        else:
            extra = latency[i] if send is None else send(i, number[i])
            push(heap, (done[i] + extra, LAND, i, epoch[i]))

    def leave(i: int) -> None:
        """Worker i is down."""
        if back[i] < math.inf:
            push(heap, (back[i], RETURN, i, epoch[i]))
        else:
            gone.append(i)

    def hopeless() -> bool:
        """Whether an update would need more of those who never return."""
        return how.per_worker and n * n <= (how.batch or 1) * sum(1 / held[i] if held[i] else math.inf for i in gone)

    def note(i: int, fate: int, now: float) -> None:
        """Worker i's computation ends."""
        nonlocal delivered
        busy[i] = False
        up = fate <= DROPPED
        delivered += up
        ends = min(done[i], now)
        moved = size * (fetched[i] + up)
        rows.append((i, number[i], read[i], version, fate, 1.0, pulled[i], min(begin[i], now), ends, ends, now, moved))

    def stop(i: int, fate: int, now: float) -> None:
        """Worker i's work is lost, and what it was about to do is off."""
        note(i, fate, now)
        epoch[i] += 1

    def stale() -> Iterator[int]:
        """Who is at work on what would be dropped."""
        nonlocal oldest
        for old in range(oldest, version - (how.limit or 0)):
            yield from (i for i in readers.pop(old, ()) if busy[i] and read[i] == old)
            oldest = old + 1

    behind = [n]  # how many workers have pushed so often
    waiting: dict[int, list[int]] = {}  # clock -> who waits with it
    slowest = 0

    def allowed(i: int) -> list[int]:
        """Who may go on after worker i's push, where nobody may be more than `slack` ahead."""
        nonlocal slowest
        clock[i] += 1
        while len(behind) <= clock[i]:
            behind.append(0)
        behind[clock[i] - 1] -= 1
        behind[clock[i]] += 1
        waiting.setdefault(clock[i], []).append(i)
        while not behind[slowest]:
            slowest += 1
        return sorted(j for c in [c for c in waiting if c <= slowest + (slack or 0)] for j in waiting.pop(c))

    for i in workers:
        start(i, 0.0)
    holding: list[int] = []  # who waits for the update that its gradient goes into
    going = True
    while heap and going:
        if heap[0][0] > until or (gone and last_step < math.inf and hopeless()):
            break
        then, kind, i, mark = pop(heap)
        if mark != epoch[i]:
            continue
        now = then
        if kind == PORT:
            port = max(port, now) + service[i]
            push(heap, (port, LAND, i, mark))
            continue
        if kind == CRASH:
            stop(i, ABORTED, now)
            read[i] = -1
            leave(i)
            continue
        if kind == RETURN:
            start(i, now)
            continue
        here = [i]
        while batched and heap and heap[0][:2] == (now, LAND):
            _, _, j, mark = pop(heap)
            if mark == epoch[j]:
                here.append(j)
        free: list[int] = []
        for place, i in enumerate(here):
            accepted = version - read[i] <= limit
            note(i, APPLIED if accepted else DROPPED, now)
            (holding if waits and accepted else free).append(i)
            if accepted and full(i):
                version += 1
                free += holding
                holding.clear()
                going = version < last_step
            if going := going and delivered < last_round:
                continue
            for j in here[place + 1 :]:  # they have not landed yet
                push(heap, (now, LAND, j, epoch[j]))
            break
        if how.stop:
            for j in stale():  # one who began twice is named twice, and no longer busy then
                stop(j, ABORTED, now)
                free.append(j)
        if slack is not None:
            free = allowed(i)
        for j in sorted(free):
            start(j, now)
    stalled = going and (not heap or hopeless())
    end = until if until < math.inf else now
    for i in workers:
        if busy[i]:
            ends = min(done[i], end)
            moved = size * fetched[i]
            rows.append(
                (i, number[i], read[i], version, PENDING, 0.0, pulled[i], min(begin[i], end), ends, ends, end, moved)
            )
    if not version:
        raise _no_update(cluster, how, horizon, now, stalled or hopeless())
    return _weighed(_table(rows, n, end, stalled, how.local_steps), how, version)


def _about(cluster: Cluster, how: Coordination, horizon: Horizon) -> float:
    """Roughly how many rounds of computations lie within a horizon."""
    if horizon.seconds is not None:
        return float((horizon.seconds / (mean_times(cluster) * how.local_steps)).sum())
    return (horizon.gradients or 0) / how.local_steps + (horizon.steps or 0) * (how.batch or 1)


def _no_update(cluster: Cluster, how: Coordination, horizon: Horizon, now: float, stalled: bool) -> InputError:
    if stalled:
        return InputError(
            f"cluster.crash: nothing moves after {now:.3g} s and no update was made; crash later, or give cluster.restart"
        )
    if horizon.seconds is not None:
        return InputError(f"seconds: no update is made within {horizon.seconds:g} s; give more seconds")
    return InputError(f"gradients: {horizon.gradients} make no update of {how.batch or 1}; give more")


def _count_full(size: int) -> Callable[[int], bool]:
    """Whether an update is full, with one more gradient in it: of `size`."""
    held = 0

    def full(i: int) -> bool:
        nonlocal held
        held = (held + 1) % size
        return held == 0

    return full


def _per_worker_full(how: Coordination, counts: list[int]) -> Callable[[int], bool]:
    """... when the harmonic mean of the workers' numbers is at least batch/n, and all have some. 2305.12387, algorithm 6."""
    n = lacking = len(counts)
    inverse = 0.0

    def full(i: int) -> bool:
        nonlocal lacking, inverse
        if counts[i]:
            inverse -= 1 / counts[i]
        else:
            lacking -= 1
        counts[i] += 1
        inverse += 1 / counts[i]
        # n² / Σ 1/Bᵢ >= S, with room for what rounding did to the sum
        if lacking or n * n < (how.batch or 1) * inverse * (1 - 1e-12):
            return False
        counts[:] = [0] * n
        lacking, inverse = n, 0.0
        return True

    return full


class _Ahead:
    """worker, number -> seconds: drawn ahead, twice as many each time they run out."""

    def __init__(self, draw: Callable[[int, int], np.ndarray], workers: int):
        self.draw, self.known = draw, [[] for _ in range(workers)]  # type: ignore[var-annotated]

    def __call__(self, worker: int, number: int) -> float:
        known = self.known[worker]
        if number >= len(known):
            known = self.known[worker] = self.draw(worker, max(16, 2 * (number + 1))).tolist()
        return known[number]


def _table(rows: list[tuple], workers: int, end: float, stalled: bool, local_steps: int) -> Schedule:
    table = np.array(rows, list(TYPES.items()))
    schedule = assembled((table[name] for name in TYPES), workers, end, stalled)
    return schedule._replace(batch=schedule.batch * local_steps) if local_steps > 1 else schedule


def _weighed(schedule: Schedule, how: Coordination, version: int) -> Schedule:
    """The weights of what is applied; what waits for an update that never comes is pending."""
    short = (schedule.fate == APPLIED) & (schedule.write_version == version)
    fate = np.where(short, PENDING, schedule.fate).astype(schedule.fate.dtype)
    weight = np.where(fate == APPLIED, 1.0, 0.0)
    if how.per_worker:
        who = schedule.write_version.astype(np.int64) * schedule.workers + schedule.worker
        _, which = np.unique(who, return_inverse=True)
        weight /= np.maximum(np.bincount(which, weight), 1)[which] * schedule.workers
    elif how.batch is not None:
        weight *= (1.0 + schedule.staleness) ** -how.power / how.batch
    weighed = schedule._replace(fate=fate, weight=weight)
    return weighed.rows(np.argsort(fate == PENDING, kind="stable")) if short.any() else weighed


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
