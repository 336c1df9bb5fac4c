"""A slab on its way from the plan to the disk: while the devices run one, the next one is packed, and the one before is written."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import pyarrow as pa

from dopt import engine
from dopt.config import Runs
from dopt.config.identity import fresh
from dopt.devices import host, memory
from dopt.memory import SMALL
from dopt.sweeps import columns
from dopt.sweeps import plan as planning
from dopt.sweeps.agreement import compare
from dopt.sweeps.best import Judge
from dopt.sweeps.contents import damage
from dopt.sweeps.show import Show
from dopt.sweeps.states import States
from dopt.sweeps.store import Store
from dopt.sweeps.tables import tables
from dopt.sweeps.tracking import Tracker
from dopt.version import ENGINE, installed
from dopt.watch import Aside, check, pace

PACKAGES = ("dopt", "jax", "jaxlib", "optax", "flax", "networkx", "numpy", "scipy", "scikit-learn")


def is_unlogged(store: Store, tracker: Tracker, name: str, runs: Runs) -> bool:
    """Whether W&B lacks a run of the slab."""
    return bool(tracker.lacks(runs.ids, store.marks_path(name)))


def log(store: Store, tracker: Tracker, name: str, runs: Runs) -> None:
    """Hand W&B what it lacks of a slab."""
    if is_unlogged(store, tracker, name, runs):
        kept, history = map(columns.frame, store.read_slab(name, runs.ids))
        tracker.log(kept, history, store.marks_path(name))


class Todo(NamedTuple):
    """A slab that is to be done."""

    planned: planning.Planned
    name: str
    runs: Runs


def todo_of(planned: Sequence[planning.Planned]) -> list[Todo]:
    """All slabs of a plan, in order."""
    return [Todo(p, name, runs) for p in planned for name, runs in p.slabs]


def with_next(slabs: Sequence[Todo]) -> Iterator[tuple[Todo, Todo | None]]:
    """Each slab, and the one after it."""
    return zip(slabs, [*slabs[1:], None], strict=True)


class Pipeline:
    """While the devices run a slab, the next one is packed, and the one before is read, written and logged.

    A slab is claimed when it goes to the devices, and its claim is held until it is written, or until that failed. An error of the
    writer ends the sweep.
    """

    def __init__(
        self,
        store: Store,
        tracker: Tracker,
        devices: Sequence[Any] | None,
        show: Show,
        pack: Aside,
        write: Aside,
        checkpoint_every: int | None = None,
    ):
        self.states = None if checkpoint_every is None else States(store, checkpoint_every, show.note)
        self.store, self.tracker, self.devices, self.show = store, tracker, devices, show
        self.pack, self.write = pack, write
        self.ahead: tuple[str, Future[engine.Slab]] | None = None  # what is being packed
        self.behind: Future[None] | None = None  # what is being written
        self.judge = Judge(store)
        self.taken = 0  # bytes of a device, by the slab that goes on it, and that is then read
        self.first: engine.First | None = show.first  # until a first record was seen

    def do(self, todo: Todo, after: Todo | None) -> bool:
        """Whether the slab is done, or on its way to the disk; not where another process works on it. `after`: the next one."""
        check()
        with ExitStack() as claim:
            if not claim.enter_context(self.store.locked(todo.name, wait=False)):
                return False
            if self.is_there(todo):
                return True
            self.show.slab(todo.name, len(todo.runs))
            compiled = self._compiled(todo)
            begin = time.perf_counter()
            slab = self._packed(todo, compiled)
            if after is not None and after.planned is todo.planned:
                self.ahead = after.name, self.pack(partial(engine.packed, compiled, after.runs))
            self._make_room(compiled)
            kept = None if self.states is None else self.states.of(todo.name, todo.runs, todo.planned, slab)
            carry = engine.advanced(slab, pace(self.show.chunk), kept, self.first)
            if kept is not None:
                kept.end(carry)
            self.first, seconds = None, time.perf_counter() - begin
            self.finish()
            self.behind = self.write(partial(self._keep, todo, slab, carry, seconds, 0 if kept is None else kept.began))
            held = claim.pop_all()
            self.behind.add_done_callback(lambda _: held.close())  # also where the writer never began
        return True

    def is_there(self, todo: Todo) -> bool:
        """Whether somebody else has done the slab."""
        there = self.store.has(todo.name) and self.store.finished(todo.name, todo.runs.ids, self.show.say)
        if there:
            self._show_done(todo, *self.store.read_slab(todo.name, todo.runs.ids))
        return there

    def log(self, todo: Todo) -> None:
        """Hand W&B what it lacks of a slab that a helper has done."""
        if is_unlogged(self.store, self.tracker, todo.name, todo.runs):
            self.finish()
            self.behind = self.write(partial(log, self.store, self.tracker, todo.name, todo.runs))

    def finish(self) -> None:
        """Wait for the writer.

        Raises:
          MachineError: it could not write.
        """
        if self.behind is not None:
            self.behind.result()
        self.behind = None

    def _compiled(self, todo: Todo) -> engine.Compiled:
        """The slab's program; what it was planned of is compared with what there is now."""
        p, runs = todo.planned, todo.runs
        if p.group is None:
            p.group = planning.group_on(p.runs, self.devices)
        # after it was made, from what lay there then
        compare(runs.where(lambda like: not fresh(like.digests)), self.store)
        for line in p.group.facts.notes:
            self.show.note(line)
        # the plan may be from a machine with fewer devices
        width = math.ceil(p.width / p.group.spread) * p.group.spread
        if width not in p.compiled:
            begin = time.perf_counter()
            self.show.compiling(todo.name)
            with damage(p.path or self.store.folder):
                calls = p.calls(p.group)
            p.compiled[width] = engine.compile(p.group, width, calls)
            p.compile_seconds = time.perf_counter() - begin
            self.show.compiled(p.compile_seconds)
        return p.compiled[width]

    def _make_room(self, compiled: engine.Compiled) -> None:
        """Let the slab before be read to its end where a device has no room for both."""
        before, self.taken = self.taken, compiled.memory or 0
        both = before + self.taken
        if both > SMALL:  # to ask a host takes milliseconds
            whole = memory.device_memory(compiled.group.devices[0])
            if whole is not None and both > whole:
                self.finish()

    def _packed(self, todo: Todo, compiled: engine.Compiled) -> engine.Slab:
        """The slab's values, which may have been packed while the one before ran."""
        ahead, self.ahead = self.ahead, None
        if ahead is not None and ahead[0] == todo.name:
            return ahead[1].result()
        return engine.packed(compiled, todo.runs)

    def _keep(self, todo: Todo, slab: engine.Slab, carry: engine.Carry, seconds: float, began: int) -> None:
        """Read a slab, write it, look whether it is there, and log it. `began`: the step at which it was gone on with."""
        found = engine.collected(slab, carry).columns
        notes = engine.gap_notes(slab.compiled.group, todo.runs)
        for line in notes:
            self.show.note(line)
        runs, history = tables(todo.runs, found)
        check()
        self.store.write_slab(
            todo.name, runs, history, self._manifest(todo, slab.compiled, seconds, notes) | {"began": began}
        )
        self.store.check_slab(todo.name, todo.runs.ids)
        if is_unlogged(self.store, self.tracker, todo.name, todo.runs):
            self.tracker.log(columns.frame(runs), columns.frame(history), self.store.marks_path(todo.name))
        self._show_done(todo, runs, history)

    def _manifest(self, todo: Todo, compiled: engine.Compiled, seconds: float, notes: Sequence[str]) -> dict[str, Any]:
        """What made a slab. `notes`: of its runs, beside those of the group."""
        p, group = todo.planned, compiled.group
        return {
            "slab": todo.name,
            "runs": todo.runs.ids,
            "group": p.key,
            "engine": ENGINE,
            "width": compiled.width,
            "device": group.devices[0].device_kind,
            "devices": len(group.devices),
            "threads": self._threads,
            "seconds": {"compile": p.compile_seconds, "run": seconds},
            "versions": versions(),
            "notes": [*group.facts.notes, *notes],
        }

    @cached_property
    def _threads(self) -> int | None:
        """Looked up once for all slabs: XLA keeps its threads."""
        return host.threads()

    def _show_done(self, todo: Todo, runs: pa.Table, history: pa.Table) -> None:
        found = self.judge(runs, history)
        if found is not None:
            self.show.best(todo.name, found)
        self.show.done(todo.name, len(todo.runs), sum(runs["diverged"].to_pylist()))


@cache
def versions() -> dict[str, str]:
    """Of all that may decide about a result. Looked up once: to read what says so takes longer than to write a slab."""
    return {"python": platform.python_version(), **{name: installed(name) or "missing" for name in PACKAGES}}
