"""What the loops of slabs carried, kept: a slab that was interrupted goes on from there, and so does a run that is asked for with more steps.

results/NAME/checkpoints/SLAB.npz   what its loop carried when the file was written, and of which runs, at which step, made by what

A longer run starts where a shorter one stands that is like it in all else, if what the two are given begins alike, as batches,
delays and the clock do. Where it may not, or nothing was kept, it starts at step 0: it is the same run either way.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from dopt import engine
from dopt.config import Resolved, Run, Runs
from dopt.devices import hosts
from dopt.files import reason, whole, writing
from dopt.registry import coerce
from dopt.sweeps import contents
from dopt.sweeps import plan as planning
from dopt.sweeps.store import Store
from dopt.types import InputError, Tree
from dopt.version import ENGINE, VERSION

ABOUT = "about"
FREE = ("steps", "record_every", "learning_rate", "seed")
RECORDS = "since its records are at other steps than those of the shorter runs; give record_every"


def check(every: Any) -> int | None:
    """InputError where it is no number of steps."""
    if every is None:
        return None
    steps: int = coerce("checkpoint_every", every, int)
    if steps < 1:
        raise InputError(f"checkpoint_every: must be at least 1 step, got {steps}")
    return steps


def shorter(runs: Runs, steps: int) -> Runs:
    """The same runs, of so many steps: what they stand for knows nothing of how long they are."""
    templates = []
    for like in runs.templates:
        templates.append(Resolved.of(Run.from_dict({**like.to_dict(), "steps": steps})))
        vars(templates[-1])["digests"] = like.digests
    return Runs(tuple(templates), runs.template, runs.learning_rate, runs.seed)


def begins(group: engine.Group, runs: Runs, held: Runs) -> tuple[int, str]:
    """(steps after which runs of a group may start, since a folder holds the same runs of so many; 0: there are none; why not, if not).

    Args:
      runs: of the group.
      held: all runs of the folder.
    """
    there = set(held.ids)
    lengths = sorted({like.steps for like in held.kinds if like.steps is not None}, reverse=True)
    known = [
        steps
        for steps in lengths
        if steps < (group.first.steps or 0) and not there.isdisjoint(shorter(runs, steps).ids)
    ]
    if known:
        why = _why_not(group, known[0])
    else:
        why = RECORDS if any(_differ_in_records(group.first, like) for like in held.kinds) else ""
    if why:
        return 0, f"{group.first.algorithm} of {group.first.steps} steps starts at step 0, {why}"
    return (known[0] if known else 0), ""


def _differ_in_records(run: Resolved, like: Resolved) -> bool:
    """Whether a run is like a shorter one in all but how often it is recorded."""
    fields = [{k: v for k, v in each.to_dict().items() if k not in FREE} for each in (run, like)]
    return fields[0] == fields[1] and (like.steps or 0) < (run.steps or 0) and like.record_every != run.record_every


def begun_first(runs: Runs, steps: int, held: Runs) -> Runs:
    """The runs, those of which a folder holds the ones of so many steps first: a slab starts there if all of its runs do."""
    there = set(held.ids)
    begun = np.array([identity in there for identity in shorter(runs, steps).ids])
    return runs.take(np.argsort(~begun, kind="stable"))


def _why_not(group: engine.Group, steps: int) -> str:
    if group.first.executor != "vmap":
        return f"since a run of executor {group.first.executor} cannot be taken out of its slab"
    if group.ragged or group.loop != (group.facts.every, group.longest_run):
        return "since its clock has other steps than its loop"
    return RECORDS if steps % group.facts.every else ""


class State(NamedTuple):
    """What a loop carried."""

    about: Mapping[str, Any]
    leaves: Sequence[np.ndarray]


class States:
    """The states of a sweep's slabs."""

    def __init__(self, store: Store, every: int, say: Callable[[str], None]):
        self.store, self.every, self.say = store, every, say
        self.said: set[str] = set()
        self._short: dict[str, engine.Group] = {}  # group of a plan's key -> the group of its runs, shorter

    def of(self, name: str, runs: Runs, planned: planning.Planned, slab: engine.Slab) -> Kept:
        """Of one slab."""
        return Kept(self, name, runs, planned, slab)

    def complain(self, line: str) -> None:
        """Say it, once."""
        if line not in self.said:
            self.said.add(line)
            self.say(line)

    @cached_property
    def slabs(self) -> dict[str, tuple[str, int]]:
        """Run -> (its slab, which of its runs it is)."""
        plans = ((path, self.store.plan(path)) for path in self.store.plan_paths())
        each = (slab for path, plan in plans for slab in contents.slabs(plan, path))
        return {identity: (name, row) for name, ids in each for row, identity in enumerate(ids)}

    def read(self, name: str, made_by: Mapping[str, Any]) -> State | None:
        """What was kept of a slab; None: nothing that can be used here."""
        path = self.store.state_path(name)
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
                about = json.loads(str(found[ABOUT]))
                state = State(about, [found[str(i)] for i in range(len(found.files) - 1)])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            why = reason(error) if isinstance(error, OSError) else "it is damaged"
            self.complain(f"checkpoint: cannot use {path} ({why})")
            return None
        if not isinstance(about, dict) or about.get("made_by") != made_by:
            self.complain(f"checkpoint: {path} was made by another dopt, engine, JAX or device; it is not used")
            return None
        return state

    def short(self, planned: planning.Planned, group: engine.Group) -> engine.Group:
        """The group of the same runs, of as many steps as they may start after."""
        if planned.key not in self._short:
            self._short[planned.key] = engine.group_of(shorter(planned.runs, planned.begins), devices=group.devices)
        return self._short[planned.key]


class Kept:
    """The state of one slab, as the loop over its calls asks for it."""

    def __init__(self, states: States, name: str, runs: Runs, planned: planning.Planned, slab: engine.Slab):
        self.states, self.name, self.runs, self.planned, self.slab = states, name, runs, planned, slab
        self.every, self.began, self.saved = states.every, 0, 0
        first = slab.compiled.group.devices[0]
        self.made_by = {"dopt": VERSION, "engine": ENGINE, "jax": jax.__version__, "device": first.device_kind}

    @property
    def _ends(self) -> list[int]:
        """Steps after which a call has ended."""
        return [0, *(call.end for call in self.slab.compiled.calls)]

    def latest(self, carry: Tree) -> tuple[Tree, int]:
        """(what the loop carried, after how many calls), as NumPy arrays; as given, and 0, where nothing was kept."""
        state = self.states.read(self.name, self.made_by)
        leaves, tree = jax.tree.flatten(carry)
        if (
            state is not None
            and state.about.get("runs") == self.runs.ids
            and state.about.get("step") in self._ends
            and [(x.shape, x.dtype) for x in state.leaves] == [(x.shape, x.dtype) for x in leaves]
        ):
            self.began = state.about["step"]
            return jax.tree.unflatten(tree, state.leaves), self._ends.index(self.began)
        found = self._continued(carry) if self.planned.begins in self._ends[1:] else None
        if found is None:
            return carry, 0
        self.began = self.planned.begins
        return found, self._ends.index(self.began)

    def save(self, done: int, carry: Tree) -> None:
        """Keep what the loop carries after so many calls.

        Raises:
          MachineError: it cannot be written.
        """
        self.saved = done
        path = self.states.store.state_path(self.name)
        about = {"made_by": self.made_by, "runs": self.runs.ids, "step": self._ends[done]}
        leaves: dict[str, Any] = {str(i): x for i, x in enumerate(jax.tree.leaves(hosts.fetch(carry)))}
        with writing("results", path, "--results"):
            path.parent.mkdir(exist_ok=True)
        with whole(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **{ABOUT: np.array(json.dumps(about))}, **leaves)

    def end(self, carry: Tree) -> None:
        """Keep what the loop carries at its end, where longer runs may go on."""
        if self.saved < len(self._ends) - 1:
            self.save(len(self._ends) - 1, carry)

    def _continued(self, carry: Any) -> Tree | None:
        """What the loop carries where the shorter runs ended; None where one of them was not kept, or is another one."""
        steps, compiled = self.planned.begins, self.slab.compiled
        twins = shorter(self.runs, steps)
        where = [self.states.slabs.get(identity) for identity in twins.ids]
        if not all(where):
            return None  # new runs, which nobody has begun
        states = {name: self.states.read(name, self.made_by) for name, _ in filter(None, where)}
        rows = [(states[name], row) for name, row in filter(None, where)]
        if any(state is None or state.about.get("step") != steps for state, _ in rows):
            self.states.complain(
                f"checkpoint: runs of {twins[0].algorithm} start at step 0, since there is no checkpoint after {steps} steps"
            )
            return None
        if not self._begin_alike(twins):
            self.states.complain(
                f"checkpoint: runs of {twins[0].algorithm} start at step 0, since their inputs (as batches, delays) do not begin like those of {steps} steps"
            )
            return None
        filled = [rows[min(i, len(rows) - 1)] for i in range(compiled.width)]
        records = steps // compiled.group.facts.every + 1
        found = _put_together(
            jax.tree.leaves(carry._replace(history=None)),
            engine.per_run(compiled.group, self.slab.inputs, carry._replace(history=None)),
            [([*state.leaves], row) for state, row in filled if state is not None],
        )
        if found is None:
            self.states.complain(
                f"checkpoint: runs of {twins[0].algorithm} start at step 0, since their state is larger than that of the runs of {steps} steps"
            )
            return None
        history = np.array(carry.history)
        history[:, :records] = np.stack([state.leaves[-1][row, :records] for state, row in filled if state is not None])
        return jax.tree.unflatten(jax.tree.structure(carry), [*found, history])

    def _begin_alike(self, twins: Runs) -> bool:
        """Whether the shorter runs are given what these are given, as far as theirs goes."""
        group = self.states.short(self.planned, self.slab.compiled.group)
        given = engine.pack(group, twins, self.slab.compiled.width)
        long, short = [str(jax.tree.structure(inputs)) for inputs in (self.slab.inputs, given)]
        return long == short and all(map(_begins_with, jax.tree.leaves(self.slab.inputs), jax.tree.leaves(given)))


def _begins_with(long: Any, short: Any) -> bool:
    """Whether the first entries along the one axis in which they differ are the same, or all are."""
    a, b = np.asarray(long), np.asarray(short)
    longer = [axis for axis in range(min(a.ndim, b.ndim)) if a.shape[axis] > b.shape[axis]]
    if a.ndim != b.ndim or len(longer) > 1:
        return False
    part = a.take(range(b.shape[longer[0]]), longer[0]) if longer else a
    return part.shape == b.shape and part.tobytes() == b.tobytes()


def _put_together(
    like: Sequence[Any], per_run: Sequence[bool], rows: Sequence[tuple[Sequence[np.ndarray], int]]
) -> list[np.ndarray] | None:
    """The leaves of a slab whose runs come from others; None where they are of other shapes.

    Args:
      like: leaves of the slab.
      per_run: of each leaf, whether it has an axis of runs; one without is the same in all.
      rows: of each run, the leaves of the slab from which it comes, and which run of it it is.
    """
    found = []
    for number, (leaf, has_runs) in enumerate(zip(like, per_run, strict=True)):
        parts = [leaves[number][row] if has_runs else leaves[number] for leaves, row in rows]
        shape = leaf.shape[1:] if has_runs else leaf.shape
        if any(part.shape != shape or part.dtype != leaf.dtype for part in parts):
            return None
        found.append(np.stack(parts) if has_runs else parts[0])
    return found


__all__ = ["Kept", "State", "States", "begins", "begun_first", "check", "shorter"]
