"""The processes that share a sweep's slabs on a CPU, each on cores of its own: this one, and its helpers (`hired`)."""

from __future__ import annotations

import math
import signal
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from dopt import cores, memory
from dopt.devices import host
from dopt.sweeps import hired
from dopt.sweeps.hired import Helper, Order, Start
from dopt.sweeps.show import Best, Part, Show
from dopt.types import InputError, MachineError

TRIES = 2  # processes that may die at a slab before it is left


@dataclass
class Team:
    """This process and its helpers.

    Attributes:
      jobs: how many processes were asked for; None: as many as there are cores.
      threads: on which each slab of the plan runs; None: on an accelerator, which no threads of ours concern.
      here: threads that this process has.
      virtual: devices that a helper's CPU has.
      show: who is told.
      most: processes that have room for what each takes; None: not known yet.
      order: what helpers do, from the moment when it is known.
    """

    jobs: int | None = 1
    threads: int | None = None
    here: int | None = None
    virtual: int = 1
    show: Show = field(default_factory=Show)
    most: int | None = None
    order: Order | None = None
    helpers: list[Helper] = field(default_factory=list)
    told: set[str] = field(default_factory=set)  # slabs that are done, of which helpers need not tell any more
    deaths: Counter[str | None] = field(default_factory=Counter)  # slab -> processes that died at it

    @cached_property
    def cores(self) -> list[int]:
        """That this process may use, as it begins."""
        return hired.usable()

    @property
    def works_here(self) -> bool:
        """Whether this process does slabs, too: where it has as many threads as the plan says."""
        return self.here is None or self.threads in (None, self.here)

    @property
    def width(self) -> int:
        """Cores of each process."""
        return max(1, min(self.threads or 1, len(self.cores)))

    @property
    def size(self) -> int:
        """How many processes may share the slabs, this one among them."""
        wanted = max(1, len(self.cores) // self.width) if self.jobs is None else self.jobs
        return wanted if self.most is None else min(wanted, self.most)

    @property
    def _pins(self) -> bool:
        """Whether this process runs on cores of its own: where it works, and is the command's own."""
        return self.works_here and self.here is not None and cores.is_own()

    def settle(self) -> None:
        """Run on the cores of all processes, if this one is pinned: the compiler has use for them while helpers import."""
        if self._pins:
            cores.pin(sorted({core for number in range(self.size) for core in self._cores(number)}))
            host.keep_executables(self.here or 1)

    def agree(self, threads: int | None) -> None:
        """Take the threads that a plan says; one of an older dopt, or of an accelerator, says none."""
        if self.here is None or threads in (None, self.threads):
            return
        self.end()
        self.helpers.clear()
        self.threads = threads

    def afford(self, each: float) -> None:
        """Be no more processes than have room for what each takes, in bytes."""
        wanted, free = self.size, memory.available()
        self.most = max(1, math.floor(free / max(1.0, each)))
        if self.jobs is not None and self.size < wanted:
            self.show.say(
                f"jobs: {self.size} processes instead of {wanted}, since each may take {memory.size(each)}, and {memory.size(free)} are free"
            )

    def expect(self, slabs: int) -> None:
        """Start as many helpers as so many slabs can use: they import what they need while this process plans."""
        wanted = min(self.size, slabs) - self.works_here
        if self.here is not None:
            for _ in range(wanted - len(self.helpers)):
                self._hire()
        for helper in self.helpers[max(0, wanted) :]:
            helper.end()
        del self.helpers[max(0, wanted) :]

    def go(self, folder: Path, devices: int | None, slabs: Sequence[str], checkpoint_every: int | None = None) -> None:
        """Let helpers begin, each process on its own cores; the plans of the slabs are written."""
        if self._pins:
            cores.pin(self._cores(0))
        self.order = Order(str(folder.absolute()), devices, 0.0, slabs, checkpoint_every)
        for number, helper in enumerate(self.helpers):
            part = (number + self.works_here) / (len(self.helpers) + self.works_here)
            helper.tell("go", *self.order._replace(part=part))

    def look(self) -> None:
        """Hear what helpers say, and what became of those that died.

        Raises:
          InputError, MachineError: what a helper was refused would be refused here, too.
        """
        for helper in self.helpers:
            ended = helper.process.poll() is not None  # before it is heard for the last time
            for word, *rest in helper.heard():
                self._hear(helper, word, rest)
            if ended and not helper.is_buried:
                helper.is_buried = True
                self._bury(helper)

    def may_take(self, slab: str) -> bool:
        """Whether this process may do a slab: not where processes died at it again and again."""
        return self.works_here and self.deaths[slab] < TRIES

    def see_to(self, left: Sequence[str]) -> None:
        """See to it that somebody does the slabs that are left.

        Raises:
          MachineError: nobody will.
        """
        if left and all(self.deaths[slab] >= TRIES for slab in left):
            raise MachineError(
                f"jobs: {TRIES} processes died while they worked on slab {left[0]}; finished slabs are kept; use --jobs 1, fewer workers or a smaller model"
            )
        if left and self.order is not None and not self.works_here and all(h.is_buried for h in self.helpers):
            if self.deaths[None] >= TRIES:
                raise MachineError(
                    f"jobs: helper processes die before they begin ({self.helpers[-1].last or 'without a message'})"
                )
            self._hire()
            self.helpers[-1].tell("go", *self.order)

    def end(self) -> None:
        """End all helpers."""
        hired.end(self.helpers)

    def _hire(self) -> None:
        number = len(self.helpers) + self.works_here
        self.helpers.append(Helper(Start(self._cores(number), self.threads or 1, self.virtual)))

    def _cores(self, number: int) -> list[int]:
        """Of the process of that number; where there are more processes than cores, some share."""
        first = number * self.width
        return [self.cores[(first + i) % len(self.cores)] for i in range(self.width)]

    def _hear(self, helper: Helper, word: str, rest: Sequence[Any]) -> None:
        match word, *rest:
            case "slab", str(name):
                helper.slab = name
            case "done", str(name), int(runs), int(diverged) if name not in self.told:
                self.told.add(name)
                self.show.done(name, runs, diverged)
            case "best", str(name), float(score) | int(score), str(label), list(curve):
                self.show.best(name, Best(score, label, curve))
            case "note", str(line):
                self.show.note(line)
            case "say", str(line):
                self.show.say(line)

    def _bury(self, helper: Helper) -> None:
        """Say why a helper died, and remember at which slab; nothing where it is done."""
        code, said = helper.process.returncode, helper.last.removeprefix("dopt: ")
        if code == 0:
            return
        if code in (1, 2) and helper.last.startswith("dopt: ") and not said.startswith("memory: "):
            raise (InputError if code == 2 else MachineError)(said)
        self.deaths[helper.slab] += 1
        for other in self.helpers:
            if self.deaths[helper.slab] >= TRIES:
                other.tell("skip", helper.slab)
        again = self.deaths[helper.slab] < TRIES
        what = f"; {helper.slab} {'is run again' if again else 'is skipped'}" if helper.slab else ""
        self.show.say(f"jobs: a helper process {_why(code, said)}{what}")


def _why(code: int, said: str) -> str:
    """Why a process died."""
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL: maybe the system ran out of memory)"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}" + f" ({said})" * bool(said)
    return f"died with exit code {code}" + f" ({said})" * bool(said)


class Together(Show):
    """What a sweep says goes to whom it went before; and whenever it says how far it is, helpers are looked after."""

    def __init__(self, team: Team) -> None:
        self.team, self.inner = team, team.show

    def plan(self, parts: Sequence[Part], there: Collection[str]) -> None:
        self.inner.plan(parts, there)

    def compiling(self, label: str) -> None:
        self.inner.compiling(label)

    def compiled(self, seconds: float) -> None:
        self.inner.compiled(seconds)

    def start(self, total: int, finished: int) -> None:
        self.inner.start(total, finished)

    def slab(self, name: str, runs: int) -> None:
        self.team.look()
        self.inner.slab(name, runs)

    def note(self, line: str) -> None:
        self.inner.note(line)

    def first(self, record: Mapping[str, Any]) -> None:
        self.inner.first(record)

    def chunk(self, share: float) -> None:
        self.team.look()
        self.inner.chunk(share)

    def best(self, slab: str, found: Best) -> None:
        self.inner.best(slab, found)

    def done(self, name: str, runs: int, diverged: int) -> None:
        self.inner.done(name, runs, diverged)

    def say(self, line: str) -> None:
        self.inner.say(line)

    def stop(self) -> None:
        self.inner.stop()


def check(jobs: int, here: int | None) -> None:
    """InputError where so many processes cannot be; `here`: threads of this one, None on an accelerator."""
    if here is None and jobs > 1:
        raise InputError(f"jobs: processes share the cores of a CPU; on an accelerator there is one, got {jobs}")


@contextmanager
def working(jobs: int | None, show: Show) -> Iterator[Team]:
    """Who will share the slabs of a sweep.

    Args:
      jobs: processes; None: as many as there are cores.

    Raises:
      InputError: there cannot be so many.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs: must be at least 1, got {jobs}")
    here = host.threads()
    check(jobs or 1, here)
    if here is None:
        yield Team(show=show)
        return
    virtual = len(jax.local_devices())
    # a process of one thread has one for each of its devices
    threads = here if jobs == 1 and not cores.is_own() else virtual
    made = Team(jobs, threads, here, virtual, show, helpers=hired.begun())
    made.settle()
    try:
        yield made
    finally:
        made.end()
