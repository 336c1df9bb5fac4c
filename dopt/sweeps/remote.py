"""What a task does on the machine where it runs: it plans, or makes a slab, and gives back what came of it as plain data."""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax

from dopt import cores
from dopt.config import matrices
from dopt.data.files import cache_folder
from dopt.devices import host
from dopt.sweeps import knee, luggage, seal, spec
from dopt.sweeps import plan as planning
from dopt.sweeps.agreement import solved, templates_of
from dopt.sweeps.jobs import Team
from dopt.sweeps.pipeline import Pipeline, Todo, todo_of, versions
from dopt.sweeps.show import Show
from dopt.sweeps.store import Store
from dopt.sweeps.tracking import Tracker
from dopt.types import InputError, MachineError
from dopt.watch import aside

MOST = 2  # sweeps of which a process keeps the programs


class Machine(NamedTuple):
    """What decides about bits."""

    kind: str  # of its devices, as JAX calls them
    versions: Mapping[str, str]  # of what is installed


class Work(NamedTuple):
    """All that tasks of a sweep share."""

    luggage: luggage.Luggage
    plans: Sequence[bytes]  # as they are written
    matrices: Mapping[str, Any]  # digest -> W that a solver found
    threads: int | None  # of each process; None: on an accelerator


class Made(NamedTuple):
    """A slab."""

    files: Mapping[str, bytes]
    notes: Sequence[str] = ()
    said: Sequence[str] = ()


class Failed(NamedTuple):
    """Why there is none."""

    error: str
    is_input: bool = False  # so that it would fail everywhere


def look() -> Machine:
    """What this machine is."""
    return Machine(jax.devices()[0].device_kind, versions())


def plan(work: Work, asked: spec.Sweep, number: int, extended: bool, jobs: int) -> dict[str, Any] | Failed:
    """The plan of that number, as it is written.

    Args:
      extended: as of a group that is planned.
      jobs: slabs that run on a machine at once.
    """
    try:
        _settle(work)
        from dopt.sweeps.work import prepare  # which stands above

        with matrices.keeping(solved(asked.runs.templates, work.matrices.get)):
            planned = prepare(asked, None, Team(jobs), knee.measured, number, extended)
            return planning.write(asked, planned, jax.devices(), work.threads)
    except Exception as error:  # of a plug-in it may be any
        return _failed(error)


class _Heard(Show):
    """Keeps what a slab says."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.said: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)

    def say(self, line: str) -> None:
        self.said.append(line)


class Desk:
    """Where a process makes slabs of a sweep, one after the other: programs stay from one to the next."""

    def __init__(self, work: Work) -> None:
        _settle(work)
        planned = [
            p
            for number, text in enumerate(work.plans, 1)
            for p in planning.read(seal.unseal(text), Path(f"plan {number}"))
        ]
        self.slabs: dict[str, Todo] = {todo.name: todo for todo in todo_of(planned)}
        self.matrices = solved(templates_of(planned), work.matrices.get)

    def make(self, name: str) -> Made:
        """A slab, which passes through a folder of results like any other."""
        todo, show = self.slabs[name], _Heard()
        with (
            tempfile.TemporaryDirectory(prefix="dopt-") as folder,
            matrices.keeping(self.matrices),
            aside("pack") as pack,
            aside("write") as write,
        ):
            store = Store(folder)
            store.create()
            line = Pipeline(store, Tracker("off", group="", folder=store.folder), None, show, pack, write)
            line.do(todo, None)
            line.finish()
            return Made(store.slab_files(name, todo.runs.ids), show.notes, show.said)


_desks: OrderedDict[str, Desk] = OrderedDict()


def slab(key: str, fetch: Any, name: str) -> Made | Failed:
    """A slab of a sweep.

    Args:
      key: of the `Work`.
      fetch: () -> the `Work`, for a process that has not seen it yet.
    """
    try:
        if key not in _desks:
            _desks[key] = Desk(fetch())
            while len(_desks) > MOST:
                _desks.popitem(last=False)
        return _desks[key].make(name)
    except Exception as error:  # of a plug-in it may be any
        return _failed(error)


def _failed(error: Exception) -> Failed:
    said = " ".join(str(error).split())
    known = isinstance(error, InputError | MachineError)
    return Failed(said if known else f"{type(error).__name__}: {said}"[:1000], isinstance(error, InputError))


def _settle(work: Work) -> None:
    """Make this process one that makes the plan's bits, on cores of its own."""
    luggage.unpack(work.luggage)
    if work.threads is None:
        return
    _pin(work.threads)
    found = host.threads()
    if found != work.threads:
        raise MachineError(f"ray: XLA uses {found} threads instead of {work.threads}")
    host.keep_executables(work.threads)


@cache
def _pin(count: int) -> None:
    """Run on cores that no other process of ours has taken on this machine, as long as there are so many."""
    import filelock  # which comes with Ray

    held: list[filelock.BaseFileLock] = []
    folder = cache_folder() / "cores" / os.uname().nodename
    with suppress(OSError, NotImplementedError):
        folder.mkdir(parents=True, exist_ok=True)
        for core in cores.usable():
            lock: filelock.BaseFileLock = filelock.FileLock(folder / f"{core}.lock", fallback_to_soft=False)
            with suppress(filelock.Timeout):
                lock.acquire(timeout=0)
                held.append(lock)
            if len(held) == count:
                cores.pin([int(Path(lock.lock_file).stem) for lock in held])
                _held.extend(held)  # until the process ends, however it does
                return
    for lock in held:
        lock.release()


_held: list[Any] = []  # locks
