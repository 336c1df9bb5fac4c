"""Any coordination on any cluster: a loop over events, with the seconds of everything handed in.

What happens at one instant happens in the order of LAND, PORT, CRASH, RETURN, and then of the workers.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from dopt import watch
from dopt.schedule.table import ABORTED, APPLIED, DROPPED, PENDING, TYPES, Schedule, assembled
from dopt.types import Coordination, InputError

LAND, PORT, CRASH, RETURN = range(4)
PATIENCE = 10_000  # gradients dropped in a row, and 100 for each worker, after which no more is hoped for
Seconds = Callable[[int, int], np.ndarray]  # (worker, count) -> [count] seconds of the worker's first ones


class Horizon(NamedTuple):
    """Exactly one is not None."""

    steps: int | None
    gradients: int | None
    seconds: float | None


class Links(NamedTuple):
    """How a model and a gradient travel between a worker and the server."""

    latency: np.ndarray  # [workers] seconds
    service: np.ndarray  # [workers] seconds that a message occupies the server's port

    @property
    def port(self) -> bool:
        return bool(self.service.any())


def simulate(
    how: Coordination,
    horizon: Horizon,
    links: Links,
    down: np.ndarray,
    computing: Seconds,
    sending: Seconds | None,
    size: float,
) -> Schedule:
    """The schedule of a coordination until a horizon.

    Args:
      down: [workers, 2] seconds from and until which each worker is down.
      computing: of the rounds of computations between a pull and a push.
      sending: of the messages after each round, between peers; None: there is a server.
      size: bytes of a model, and of a gradient.

    Raises:
      InputError: no update is made.
    """
    loop = _Loop(how, horizon, links, down, computing, sending, size)
    loop.run()
    if not loop.version:
        raise _no_update(how, horizon, loop.now, loop.stalled or loop.hopeless())
    end = loop.now if horizon.seconds is None else horizon.seconds
    loop.note_pending(end)
    table = np.array(loop.rows, list(TYPES.items()))
    schedule = assembled((table[name] for name in TYPES), len(down), end, loop.stalled)
    return _weighed(schedule._replace(batch=schedule.batch * how.local_steps), how, loop.version)


class _Loop:
    """All workers at one instant, and what is to happen next."""

    def __init__(
        self,
        how: Coordination,
        horizon: Horizon,
        links: Links,
        down: np.ndarray,
        computing: Seconds,
        sending: Seconds | None,
        size: float,
    ):
        n = len(down)
        self.how, self.workers, self.size = how, n, size
        self.last_step = math.inf if horizon.steps is None else horizon.steps
        self.last_round = math.inf if horizon.gradients is None else -(-horizon.gradients // how.local_steps)
        self.until = math.inf if horizon.seconds is None else horizon.seconds
        self.limit = math.inf if how.limit is None else how.limit
        self.latency, self.service = links.latency.tolist(), links.service.tolist()
        self.lost, self.back = (column.tolist() for column in down.T)
        self.compute = _Ahead(computing, n)
        self.send = None if sending is None else _Ahead(sending, n)
        self.held = [0] * n  # gradients of each worker in the next update, where that matters
        self.full = _per_worker_full(how, self.held) if how.per_worker else _count_full(how.gradients or 1)
        # the server
        self.now, self.version, self.delivered, self.port = 0.0, 0, 0, 0.0
        self.holding: list[int] = []  # who waits for the update that its gradient goes into
        self.gone: list[int] = []  # who never returns
        self.going = True  # the horizon is not reached
        # the workers: what each computes, and from when to when
        self.read, self.number, self.epoch = [0] * n, [-1] * n, [0] * n
        self.pulled, self.begin, self.done = [0.0] * n, [0.0] * n, [0.0] * n
        self.fetched, self.busy = [False] * n, [False] * n
        self.seen = [0] * n  # gradients delivered when it pulled
        self.dropped = 0  # gradients in a row
        # whose work is too stale
        self.readers: dict[int, list[int]] = {}  # version -> who pulled it; some have gone on since
        self.oldest = 0  # nobody who reads an older version is still at work, where those are stopped
        # who is too far ahead
        self.pushes = [0] * n
        self.level = [n]  # how many workers have pushed so often
        self.slowest = 0
        self.waiting: dict[int, list[int]] = {}  # pushes -> who waits with so many
        # what happens next: (seconds, what, worker, its epoch); of an older epoch it does not happen any more
        self.heap: list[tuple[float, int, int, int]] = []
        self.rows: list[tuple] = []

    def run(self) -> None:
        for i in range(self.workers):
            self.start(i)
        happens = (self.land, self.reach_port, self.crash, self.start)
        while self.heap and self.going:
            watch.check()
            if self.heap[0][0] > self.until or (self.gone and self.last_step < math.inf and self.hopeless()):
                return
            then, what, i, epoch = heapq.heappop(self.heap)
            if epoch == self.epoch[i]:
                self.now = then
                happens[what](i)

    @property
    def stalled(self) -> bool:
        """Nothing more would ever happen."""
        return self.going and (not self.heap or self.hopeless())

    def hopeless(self) -> bool:
        """Whether an update would need more of those who never return."""
        if not self.how.per_worker:
            return False
        inverse = sum(1 / self.held[i] if self.held[i] else math.inf for i in self.gone)
        return self.workers**2 <= (self.how.gradients or 1) * inverse

    def plan(self, seconds: float, what: int, i: int) -> None:
        heapq.heappush(self.heap, (seconds, what, i, self.epoch[i]))

    # -- what a worker does --

    def start(self, i: int) -> None:
        """Worker i pulls and computes."""
        now = self.now
        if self.lost[i] <= now < self.back[i]:
            self.leave(i)
            return
        fetch = self.version > self.read[i] and self.send is None
        self.fetched[i], self.read[i], self.pulled[i], self.seen[i] = fetch, self.version, now, self.delivered
        self.number[i] += 1
        if fetch:
            if self.service[i]:
                now = self.port = max(self.port, now) + self.service[i]
            now += self.latency[i]
        done = now + self.compute(i, self.number[i])
        self.begin[i], self.done[i], self.busy[i] = now, done, True
        if self.how.stop:
            self.readers.setdefault(self.version, []).append(i)
        if self.now < self.lost[i] < done:
            self.plan(self.lost[i], CRASH, i)
        elif self.service[i]:
            self.plan(done + self.latency[i], PORT, i)
        else:
            self.plan(done + (self.latency[i] if self.send is None else self.send(i, self.number[i])), LAND, i)

    def leave(self, i: int) -> None:
        """Worker i is down."""
        if self.back[i] < math.inf:
            self.plan(self.back[i], RETURN, i)
        else:
            self.gone.append(i)

    def crash(self, i: int) -> None:
        """Worker i loses its work, and the model."""
        self.abort(i)
        self.read[i] = -1
        self.leave(i)

    def abort(self, i: int) -> None:
        """Worker i's work is lost, and what it was about to do is off."""
        self.note(i, ABORTED)
        self.epoch[i] += 1

    # -- what the server does --

    def reach_port(self, i: int) -> None:
        """Worker i's gradient waits for its turn."""
        self.port = max(self.port, self.now) + self.service[i]
        self.plan(self.port, LAND, i)

    def land(self, i: int) -> None:
        """Worker i's gradient lands; of a rule with batches, all that land at this instant do."""
        free: list[int] = []  # who pulls then
        for j in self.here(i):
            accepted = self.age(j) <= self.limit
            self.dropped = 0 if accepted else self.dropped + 1
            self.note(j, APPLIED if accepted else DROPPED)
            (self.holding if self.how.waits and accepted else free).append(j)
            if accepted and self.full(j):
                self.version += 1
                free += self.holding
                self.holding.clear()
            self.going = self.version < self.last_step and self.delivered < self.last_round
            if not self.going:
                break
        if self.how.stop:
            for j in self.stale():  # one who began twice is named twice, and no longer busy then
                self.abort(j)
                free.append(j)
        if self.how.slack is not None:
            free = self.allowed(i, self.how.slack)
        for j in sorted(free):
            self.start(j)

    def age(self, i: int) -> int:
        """What has come since worker i pulled: updates, or gradients."""
        if not self.how.counts_dropped:
            return self.version - self.read[i]
        if self.dropped > PATIENCE + 100 * self.workers and self.last_step < math.inf:
            raise InputError(
                f"limit (algorithm.max_staleness): the last {self.dropped} gradients were all older than {self.how.limit} arrivals; with {self.workers} workers gradients are on average {self.workers - 1} arrivals old, so give a larger one, or count=applied"
            )
        return self.delivered - self.seen[i]

    def here(self, i: int) -> list[int]:
        """Whose pushes are handled before anybody pulls."""
        found = [i]
        while self.how.gradients is not None and self.heap and self.heap[0][:2] == (self.now, LAND):
            _, _, j, epoch = heapq.heappop(self.heap)
            if epoch == self.epoch[j]:
                found.append(j)
        return found

    def stale(self) -> Iterator[int]:
        """Who is at work on what would be dropped."""
        for old in range(self.oldest, self.version - (self.how.limit or 0)):
            yield from (i for i in self.readers.pop(old, ()) if self.busy[i] and self.read[i] == old)
            self.oldest = old + 1

    def allowed(self, i: int, slack: int) -> list[int]:
        """Who may go on after worker i's push, where nobody may be more than `slack` ahead."""
        self.pushes[i] += 1
        own, level = self.pushes[i], self.level
        while len(level) <= own:
            level.append(0)
        level[own - 1] -= 1
        level[own] += 1
        self.waiting.setdefault(own, []).append(i)
        while not level[self.slowest]:
            self.slowest += 1
        near = [pushes for pushes in self.waiting if pushes <= self.slowest + slack]
        return sorted(j for pushes in near for j in self.waiting.pop(pushes))

    # -- what is written down --

    def note(self, i: int, fate: int) -> None:
        """Worker i's computation ends now."""
        self.busy[i] = False
        self.delivered += fate <= DROPPED
        self.row(i, fate, self.now)

    def note_pending(self, end: float) -> None:
        """What is still computed, or on its way, when the schedule ends."""
        for i in range(self.workers):
            if self.busy[i]:
                self.row(i, PENDING, end)

    def row(self, i: int, fate: int, end: float) -> None:
        done, moved = min(self.done[i], end), self.size * (self.fetched[i] + (fate <= DROPPED))
        versions = self.number[i], self.read[i], self.version
        self.rows.append((i, *versions, fate, 1.0, self.pulled[i], min(self.begin[i], end), done, done, end, moved))


class _Ahead:
    """worker, number -> seconds: drawn ahead, twice as many each time they run out."""

    def __init__(self, draw: Seconds, workers: int):
        self.draw, self.known = draw, [[] for _ in range(workers)]  # type: ignore[var-annotated]

    def __call__(self, worker: int, number: int) -> float:
        known = self.known[worker]
        if number >= len(known):
            known = self.known[worker] = self.draw(worker, max(16, 2 * (number + 1))).tolist()
        return known[number]


def _no_update(how: Coordination, horizon: Horizon, now: float, stalled: bool) -> InputError:
    if stalled:
        return InputError(
            f"cluster.crash: nothing moves after {now:.3g} s and no update was made; crash later, or give cluster.restart"
        )
    if horizon.seconds is not None:
        return InputError(f"seconds: no update is made within {horizon.seconds:g} s; give more seconds")
    return InputError(f"gradients: {horizon.gradients} make no update of {how.gradients or 1}; give more")


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
        if lacking or n * n < (how.gradients or 1) * inverse * (1 - 1e-12):
            return False
        counts[:] = [0] * n
        lacking, inverse = n, 0.0
        return True

    return full


def _weighed(schedule: Schedule, how: Coordination, version: int) -> Schedule:
    """The weights of what is applied; what waits for an update that never comes is pending."""
    short = (schedule.fate == APPLIED) & (schedule.write_version == version)
    fate = np.where(short, PENDING, schedule.fate).astype(schedule.fate.dtype)
    weight = np.where(fate == APPLIED, 1.0, 0.0)
    if how.per_worker:
        who = schedule.write_version.astype(np.int64) * schedule.workers + schedule.worker
        _, which = np.unique(who, return_inverse=True)
        weight /= np.maximum(np.bincount(which, weight), 1)[which] * schedule.workers
    elif how.gradients is not None:
        weight *= (1.0 + schedule.staleness) ** -how.power / how.gradients
    weighed = schedule._replace(fate=fate, weight=weight)
    return weighed.rows(np.argsort(fate == PENDING, kind="stable")) if short.any() else weighed
