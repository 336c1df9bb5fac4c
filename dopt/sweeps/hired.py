"""Helpers, as their parent knows them (`helper` has their side).

A helper is `python -m dopt work`. It reads the sweep's folder, does slabs that nobody holds, and says what it did. It is told on
its standard input what to do; when that ends, as it does when its parent ends in whatever way, it ends. What is said in
either direction is a line of JSON each.

This imports nothing that takes long: so helpers can start first, and import what they need while their parent does.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from operator import methodcaller
from pathlib import Path
from typing import Any, NamedTuple

from dopt import cores, plugins

HOME = Path(__file__).parents[2]  # where dopt is
COUNT = re.compile(r"\s*--xla_force_host_platform_device_count=\S*")
DEVICES = "JAX_NUM_CPU_DEVICES"
WORK = "work"  # the command of a helper
PATIENCE = 5.0  # seconds in which a helper that was told to may end
RUNS = 32  # that a CPU does best at once: a slab


class Start(NamedTuple):
    """How a helper starts: what decides about its bits, and the cores on which it runs."""

    cores: Sequence[int]
    threads: int
    virtual: int  # devices that its CPU has

    @property
    def environment(self) -> dict[str, str]:
        """Before its backend starts."""
        flags = COUNT.sub("", os.environ.get("XLA_FLAGS", ""))
        named, folders = plugins.for_helpers()
        path = os.pathsep.join(filter(None, (str(HOME), os.environ.get("PYTHONPATH"), *folders)))
        virtual = min(self.virtual, self.threads)  # XLA has a thread for each of them at least
        own = {"XLA_FLAGS": flags, DEVICES: str(virtual), cores.THREADS: str(self.threads)}
        return {**os.environ, **own, **named, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}


class Order(NamedTuple):
    """What a helper is told to do."""

    folder: str
    devices: int | None  # how many of its devices to use; None: as JAX finds them
    part: float  # where among the slabs it begins, from 0 to 1: so that few are asked for by two at once
    slabs: Sequence[str]  # that are to be done
    checkpoint_every: int | None = None  # as `dopt.sweep` takes it


class Helper:
    """A helper, as its parent knows it."""

    def __init__(self, start: Start, is_heard: bool = True) -> None:
        pipe = subprocess.PIPE
        ears = pipe if is_heard else subprocess.DEVNULL
        with deaf():
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dopt", WORK],
                stdin=pipe,
                stdout=ears,
                stderr=ears,
                bufsize=0,
                env=start.environment,
            )
        self.said, self.complained = _Lines(self.process.stdout), _Lines(self.process.stderr)
        self.last = ""  # line on its stderr
        self.slab: str | None = None  # that it was the last to begin
        self.is_buried = False
        self.tell("start", list(start.cores), start.threads)

    def tell(self, *words: object) -> None:
        """Say something to it, if it still hears."""
        with suppress(OSError):
            self.process.stdin.write(json.dumps(words, default=methodcaller("item")).encode() + b"\n")  # type: ignore[union-attr]

    def heard(self) -> list[list[Any]]:
        """What it said since it was heard last; it is no longer heard when it has ended."""
        for line in self.complained.new():
            self.last = line.strip() or self.last
        return [json.loads(line) for line in self.said.new()]

    def dismiss(self) -> None:
        """Let it end."""
        with suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]

    def end(self) -> None:
        """Let it end, and wait until it has."""
        self.dismiss()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for stream in filter(None, (self.process.stdout, self.process.stderr)):
            stream.close()


class _Lines:
    """The whole lines of a pipe, as they come."""

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.rest = pipe, b""
        if pipe is not None:
            os.set_blocking(pipe.fileno(), False)

    def new(self) -> list[str]:
        """Those since the last time; never waits."""
        while found := self.pipe.read(2**16):
            self.rest += found
        *lines, self.rest = self.rest.split(b"\n")
        return [line.decode(errors="backslashreplace") for line in lines]


@contextmanager
def deaf() -> Iterator[None]:
    """Processes that are started now never hear Ctrl-C, which a terminal sends to all: who started them ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Early(NamedTuple):
    """Helpers that began before it was known what there is for them to do."""

    cores: list[int]  # that this process and its helpers may use
    helpers: list[Helper]


_early: ContextVar[Early | None] = ContextVar("early", default=None)


@contextmanager
def early(jobs: int | None, runs: int, file: str, changes: Mapping[str, Any]) -> Iterator[None]:
    """While it lasts, the command's helpers import and trace what they need, as this process does; it ends those that are left.

    Where it cannot be told yet how they must start, as where there may be an accelerator, they start when that is known.

    Args:
      jobs: processes; None: as many as there are cores.
      runs: about as many as there will be.
      file, changes: the sweep.
    """
    told = DEVICES in os.environ or COUNT.search(os.environ.get("XLA_FLAGS", ""))
    slabs = -(-runs // RUNS)
    if jobs == 1 or slabs < 2 or told or not cores.is_own() or cores.may_have_accelerator():
        yield
        return
    found = cores.usable()
    starts = [Start([found[n % len(found)]], 1, 1) for n in range(1, min(jobs or len(found), slabs))]
    made = Early(found, [Helper(start) for start in starts])
    for number, helper in enumerate(made.helpers, 1):
        helper.tell("rehearse", file, changes, number / (len(starts) + 1))
    token = _early.set(made)
    try:
        yield
    finally:
        _early.reset(token)
        end(made.helpers)


def usable() -> list[int]:
    """The cores that this process and its helpers may use."""
    made = _early.get()
    return cores.usable() if made is None else made.cores


def begun() -> list[Helper]:
    """The helpers that began early; they are handed over, once."""
    made = _early.get()
    found = [] if made is None else list(made.helpers)
    if made is not None:
        made.helpers.clear()
    return found


def end(helpers: Sequence[Helper]) -> None:
    """End them, and wait until they have."""
    for helper in helpers:
        helper.dismiss()
    for helper in helpers:
        helper.end()
