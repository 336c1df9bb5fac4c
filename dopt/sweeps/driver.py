"""The loop that hands slabs to machines and writes what they give back; which machines these are it does not know."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol

from dopt.files import write, writing
from dopt.sweeps.best import Judge
from dopt.sweeps.pipeline import Todo, log
from dopt.sweeps.remote import Failed, Made
from dopt.sweeps.show import Show
from dopt.sweeps.store import Store
from dopt.sweeps.tracking import Tracker
from dopt.types import InputError, MachineError
from dopt.watch import check

TRIES = 3  # of a slab, before it is left
AHEAD = 2  # slabs that a machine is given for each that it does at once: so none waits for us, and few are claimed
WAIT = 0.05  # seconds between two looks at what others do

Task = Hashable


class Machines(Protocol):
    """Who makes slabs."""

    def slots(self) -> int:
        """How many slabs they make at once, now."""

    def start(self, slab: str) -> Task:
        """Let one of them make a slab."""

    def ended(self, tasks: Sequence[Task], seconds: float) -> Sequence[Task]:
        """Those that have ended; where none has, after so many seconds at most."""

    def outcome(self, task: Task) -> Made | Failed | None:
        """What came of a task that has ended; None: it was lost with its machine, or is to be started again."""

    def cancel(self, tasks: Sequence[Task]) -> None:
        """Nobody waits for these any more."""


class _Out(NamedTuple):
    """A slab that a machine makes, and our claim on it."""

    todo: Todo
    claim: ExitStack


class Driver:
    """Hands out slabs until none is left."""

    def __init__(self, machines: Machines, store: Store, tracker: Tracker, show: Show) -> None:
        self.machines, self.store, self.tracker, self.show = machines, store, tracker, show
        self.judge = Judge(store)
        self.out: dict[Task, _Out] = {}
        self.tries: Counter[str] = Counter()
        self.left: dict[str, str] = {}  # slabs that failed too often -> why

    def run(self, missing: Sequence[Todo]) -> None:
        """Do every slab; those at which another process works are waited for.

        Raises:
          InputError: a slab was refused for what it asks for.
          MachineError: some failed again and again; the others are there.
        """
        waiting = list(missing)
        try:
            while waiting or self.out:
                check()
                waiting = self._hand_out(waiting)
                for task in self.machines.ended(list(self.out), WAIT):
                    waiting += self._take(task)
        finally:
            self.machines.cancel(list(self.out))
            for _, claim in self.out.values():
                claim.close()
        if self.left:
            name, why = next(iter(self.left.items()))
            raise MachineError(
                f"ray: {len(self.left)} of {len(missing)} slabs failed {TRIES} times, for example {name} ({why}); the others are kept, and {self.store.folder / 'failed'} says why each one failed"
            )

    def _hand_out(self, waiting: Sequence[Todo]) -> list[Todo]:
        """Start as many as there is room for; what is left then."""
        room, left = AHEAD * self.machines.slots() - len(self.out), []
        for todo in waiting:
            if room <= 0 or not self._begin(todo):
                left.append(todo)
            else:
                room -= 1
        return left

    def _begin(self, todo: Todo) -> bool:
        """Whether the slab is there, or on its way; not where another process works on it."""
        with ExitStack() as claim:
            if not claim.enter_context(self.store.locked(todo.name, wait=False)):
                return False
            if self.store.has(todo.name) and self.store.finished(todo.name, todo.runs.ids, self.show.say):
                self._done(todo)
            else:
                self.show.slab(todo.name, len(todo.runs))
                self.out[self.machines.start(todo.name)] = _Out(todo, claim.pop_all())
        return True

    def _take(self, task: Task) -> list[Todo]:
        """Keep what came of a task; the slab again where it must be done again."""
        todo, claim = self.out.pop(task)
        with claim:
            match self.machines.outcome(task):
                case Made() as made:
                    self._keep(todo, made)
                case Failed(error, is_input=True):
                    raise InputError(error)
                case Failed(error):
                    self.tries[todo.name] += 1
                    if self.tries[todo.name] < TRIES:
                        return [todo]
                    self._leave(todo, error)
                case None:
                    return [todo]
        return []

    def _keep(self, todo: Todo, made: Made) -> None:
        for line in made.notes:
            self.show.note(line)
        for line in made.said:
            self.show.say(line)
        self.store.put_slab(todo.name, made.files)
        self._done(todo)

    def _done(self, todo: Todo) -> None:
        """Look whether a slab is there whole, log it, and say so."""
        runs, history = self.store.read_slab(todo.name, todo.runs.ids)
        log(self.store, self.tracker, todo.name, todo.runs)
        with writing("results", self.store.folder, "--results"):
            self.store.failed_path(todo.name).unlink(missing_ok=True)
        found = self.judge(runs, history)
        if found is not None:
            self.show.best(todo.name, found)
        self.show.done(todo.name, len(todo.runs), sum(runs["diverged"].to_pylist()))

    def _leave(self, todo: Todo, error: str) -> None:
        """Mark a slab as failed."""
        self.left[todo.name] = error
        self.show.say(f"ray: {todo.name} failed {TRIES} times ({error}); it is skipped")
        content: Mapping[str, Any] = {"slab": todo.name, "error": error, "tries": TRIES}
        path = self.store.failed_path(todo.name)
        with writing("results", self.store.folder, "--results"):
            path.parent.mkdir(exist_ok=True)
            write(path, json.dumps(content).encode())
