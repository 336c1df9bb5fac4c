"""What a helper does (`hired` has its parent's side): it hears what to do, does slabs that nobody holds, and says what it did."""

from __future__ import annotations

import json
import os
import queue
import threading
from contextlib import suppress
from typing import Any, BinaryIO

from dopt import cores
from dopt.sweeps.show import Best, Show
from dopt.types import InputError, MachineError


class Orders:
    """What the parent says, as it comes. When it says nothing any more it has ended, and this process ends at once."""

    def __init__(self, pipe: BinaryIO) -> None:
        self.skipped: set[str] = set()
        self._others: queue.Queue[list[Any]] = queue.Queue()
        threading.Thread(target=self._hear, args=(pipe,), daemon=True).start()

    def next(self) -> list[Any]:
        """Wait for an order."""
        return self._others.get()

    def _hear(self, pipe: BinaryIO) -> None:
        for line in pipe:
            word, *rest = json.loads(line)
            if word == "skip":
                self.skipped.update(rest)
            else:
                self._others.put([word, *rest])
        os._exit(0)


class Told(Show):
    """Says to the parent what a sweep says."""

    def __init__(self, out: BinaryIO) -> None:
        self.out, self.lock = out, threading.Lock()

    def slab(self, name: str, runs: int) -> None:
        self._tell("slab", name)

    def done(self, name: str, runs: int, diverged: int) -> None:
        self._tell("done", name, runs, diverged)

    def best(self, slab: str, found: Best) -> None:
        self._tell("best", slab, *found)

    def note(self, line: str) -> None:
        self._tell("note", line)

    def say(self, line: str) -> None:
        self._tell("say", line)

    def _tell(self, *words: object) -> None:
        with self.lock:
            self.out.write(json.dumps(words).encode() + b"\n")


def main() -> int:
    """Do as the parent says."""
    orders, told = Orders(_in()), Told(_out())
    _, which, threads = orders.next()
    cores.pin(which)
    import pandas  # noqa: F401  Arrow asks for it at the first column of a table

    from dopt.devices import host  # seconds, in which the parent imports and plans
    from dopt.sweeps import work
    from dopt.sweeps.hired import Order

    found = host.threads()
    if found != threads:
        raise MachineError(f"jobs: XLA uses {found} threads instead of {threads}; use --jobs 1")
    host.keep_executables(threads)
    word, *order = orders.next()
    if word == "rehearse":
        with suppress(InputError, OSError, MemoryError):  # whatever goes wrong, the parent will find and tell it
            work.rehearse(*order)
        word, *order = orders.next()
    if word == "go":
        work.help_with(Order(*order), orders.skipped, told)
    else:
        for content, folder in order:
            with suppress(InputError, OSError, MemoryError):
                work.sweep(content, results=folder, progress=False)
    return 0


def _in() -> BinaryIO:
    """Where the parent speaks, unbuffered: Python waits for a second, as it ends, for a buffer at which a thread still reads."""
    return open(0, "rb", buffering=0, closefd=False)


def _out() -> BinaryIO:
    """Where the parent listens; whatever else is printed goes where errors go."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return out
