"""Whether a folder is this sweep's, what of it is there, and whether its plans are still made of what lies there now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dopt.config import Resolved, Runs, matrices
from dopt.config.identity import Memo, code_digests, content_digests, differences, matrix_digest
from dopt.config.runs import alike, joined, numbered, places
from dopt.sweeps import plan as planning
from dopt.sweeps import spec
from dopt.sweeps.shard import Shard
from dopt.sweeps.store import Store
from dopt.text import quoted
from dopt.types import InputError


@dataclass(frozen=True)
class Held:
    """What the plans of a folder hold, and what of it a sweep asks for.

    Attributes:
      number: of plans.
      threads: on which their slabs run; None: not on a CPU, or there is no plan.
      planned: all their groups.
      more: runs by which a grid grows (`extend`).
    """

    asked: spec.Sweep
    store: Store
    number: int
    threads: int | None
    planned: Sequence[planning.Planned]
    more: Runs | None = None

    @classmethod
    def read(cls, asked: spec.Sweep, store: Store, more: Runs | None = None) -> Held:
        """What lies there; InputError where the plans are another sweep's, or of an older dopt."""
        paths, threads = store.plan_paths(), None
        planned: list[planning.Planned] = []
        for path in paths:
            plan = store.plan(path)
            store.check_goes_on(path, plan)
            planned += planning.read(plan, path)
            threads = threads or plan.get("threads")
            if plan["name"] != asked.name:
                raise InputError(
                    f"results: {store.folder} holds the sweep {quoted(plan['name'])}, and this one is {quoted(asked.name)}; choose another folder with --results"
                )
        return cls(asked, store, len(paths), threads, planned, more)

    def grown(self, planned: Sequence[planning.Planned], threads: int | None) -> Held:
        """With one more plan."""
        return replace(self, number=self.number + 1, threads=self.threads or threads, planned=[*self.planned, *planned])

    @cached_property
    def matrices(self) -> dict[matrices.Source, Any]:
        """That a solver found for them."""
        return solved(templates_of(self.planned), by_digest(self.store))

    @cached_property
    def runs(self) -> Runs | None:
        """All their runs; None: there are none."""
        return joined([p.runs for p in self.planned]) if self.planned else None

    @cached_property
    def places(self) -> np.ndarray:
        """[asked] where each run that is asked for stands among theirs; -1: in no plan."""
        return np.full(len(self.asked.runs), -1) if self.runs is None else places(self.runs, self.asked.runs)

    @cached_property
    def lacking(self) -> spec.Sweep | None:
        """What is asked for and in no plan; None: nothing. Where there are plans, it is those that have the metric."""
        new = self.asked.runs.take(np.flatnonzero(self.places < 0))
        if not len(new) and self.more is not None and self.runs is not None:
            new = self.more.take(np.flatnonzero(places(self.runs, self.more) < 0))
        if not len(new):
            return None
        return replace(self.asked, runs=new.alone(), metric={}) if self.number else self.asked

    @property
    def extends(self) -> bool:
        """Whether what is lacking is asked for by a grid that grows, and not by the file."""
        return self.more is not None and not (self.places < 0).any()

    @cached_property
    def rows(self) -> np.ndarray:
        """What is shown, as numbers of `runs`: what the file asks for, in its order, and then that by which its grids grew."""
        own = self.places[self.places >= 0]
        if self.runs is None:
            return own
        extended = np.concatenate([np.full(len(p.runs), p.extended) for p in self.planned])
        extended[own] = False
        return np.concatenate([own, np.flatnonzero(extended & alike(self.runs, self.asked.runs))])

    @property
    def own(self) -> int:
        """How many of what is shown the file asks for: the first ones."""
        return int(np.count_nonzero(self.places >= 0))

    @property
    def shown(self) -> Runs:
        """What is shown, where a plan has it."""
        return self.asked.runs.take(self.rows) if self.runs is None else self.runs.take(self.rows)

    @property
    def hidden(self) -> int:
        """Runs that are in a plan, and that nobody asks for now."""
        return 0 if self.runs is None else len(self.runs) - len(self.rows)

    def wanted(self) -> list[planning.Planned]:
        """The groups, with those slabs alone that have a run that is asked for."""
        ids = set(self.shown.ids)
        return _with_slabs(self.planned, lambda name, runs: not ids.isdisjoint(runs.ids))

    def share(self, shard: Shard) -> list[planning.Planned]:
        """Of these those that belong to a shard. It is all slabs of a plan that are counted, so nobody's share ever changes."""
        numbers: Counter[Path | None] = Counter()
        mine = set()
        for p in self.planned:
            mine |= {name for place, (name, _) in enumerate(p.slabs, numbers[p.path]) if shard.has(place)}
            numbers[p.path] += len(p.slabs)
        return _with_slabs(self.wanted(), lambda name, runs: name in mine)

    def compare(self) -> None:
        """InputError where what is asked for is no longer what its plan was made of."""
        if self.runs is not None:
            slabs = [name for p in self.wanted() for name, _ in p.slabs]
            there = all(map(self.store.has, slabs))
            compare(self.shown, self.store, there)


def _with_slabs(planned: Sequence[planning.Planned], holds: Callable[[str, Runs], bool]) -> list[planning.Planned]:
    """Groups with those of their slabs for which this holds; those that have none are left out."""
    parts = [replace(p, slabs=[slab for slab in p.slabs if holds(*slab)]) for p in planned]
    return [p for p in parts if p.slabs]


def templates_of(planned: Sequence[planning.Planned]) -> list[Resolved]:
    """The templates of all groups: one may be in several."""
    return [like for p in planned for like in p.runs.kinds]


def by_digest(store: Store) -> Callable[[str], Any]:
    """A matrix that lies in a folder, by its digest; None: it does not lie there."""
    return lambda digest: matrices.load(store.matrix_path(digest))


def solved(templates: Sequence[Resolved], load: Callable[[str], Any]) -> dict[matrices.Source, Any]:
    """The matrices that a solver found when the plan was made: it is not asked again, where it might say something else.

    One that is not there, or not what it was, is made anew, and compared like everything else before a slab runs.

    Args:
      load: a matrix by its digest; None: it is not there.
    """
    found: dict[matrices.Source, Any] = {}
    for like in filter(matrices.is_solved, templates):
        of = matrices.source(like)
        if of not in found:
            w = load(like.digests["matrix"])
            if w is not None and matrix_digest(w) == like.digests["matrix"]:
                found[of] = w
    return found


def compare(runs: Runs, store: Store, there: bool = False) -> None:
    """Refuse what is no longer what the plan was made of.

    Args:
      there: all results are; then what cannot be made here, as data that lie elsewhere, is not compared.
    """
    memo: Memo = {}
    for row in numbered(runs.template)[0].tolist():
        run = runs[row]
        today = code_digests(run, memo)
        try:
            today |= content_digests(run)
        except InputError:
            if not there:
                raise
            today |= {name: digest for name, digest in run.digests.items() if name not in today}
        changed = differences(run.digests, today)
        if changed:
            raise InputError(
                f"results: {', '.join(changed)} of run {run.id} ({run.algorithm}): no longer what it was when the plans of {store.folder} were made; restore it, or choose another folder with --results"
            )
