"""Whether a folder is this sweep's, what of it is there, and whether its plans are still made of what lies there now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from dopt.config import Resolved, Runs, matrices
from dopt.config.identity import Memo, code_digests, content_digests, differences, matrix_digest
from dopt.config.runs import joined, numbered, places
from dopt.sweeps import plan as planning
from dopt.sweeps import spec
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
    """

    asked: spec.Sweep
    store: Store
    number: int
    threads: int | None
    planned: Sequence[planning.Planned]

    @classmethod
    def read(cls, asked: spec.Sweep, store: Store) -> Held:
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
        return cls(asked, store, len(paths), threads, planned)

    def grown(self, planned: Sequence[planning.Planned], threads: int | None) -> Held:
        """With one more plan."""
        return Held(self.asked, self.store, self.number + 1, self.threads or threads, [*self.planned, *planned])

    @cached_property
    def matrices(self) -> dict[matrices.Source, Any]:
        """That a solver found for them."""
        return solved(self.planned, self.store)

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
        new = np.flatnonzero(self.places < 0)
        if not len(new):
            return None
        if not self.number:
            return self.asked
        return replace(self.asked, runs=self.asked.runs.take(new).alone(), metric={})

    @cached_property
    def order(self) -> list[str]:
        """The ids of what is asked for, in the order of the file, where a plan has it."""
        ids = [] if self.runs is None else self.runs.ids
        return [ids[place] for place in self.places.tolist() if place >= 0]

    @property
    def hidden(self) -> int:
        """Runs that are in a plan, and that nobody asks for now."""
        return (0 if self.runs is None else len(self.runs)) - len(self.order)

    def wanted(self) -> list[planning.Planned]:
        """The groups, with those slabs alone that have a run that is asked for."""
        ids = set(self.order)
        parts = [
            replace(p, slabs=[(name, runs) for name, runs in p.slabs if not ids.isdisjoint(runs.ids)])
            for p in self.planned
        ]
        return [p for p in parts if p.slabs]

    def compare(self) -> None:
        """InputError where what is asked for is no longer what its plan was made of."""
        if self.runs is not None:
            slabs = [name for p in self.wanted() for name, _ in p.slabs]
            there = all(map(self.store.has, slabs))
            compare(self.runs.take(self.places[self.places >= 0]), self.store, there)


def templates_of(planned: Sequence[planning.Planned]) -> list[Resolved]:
    """The templates of all groups: one may be in several."""
    return [like for p in planned for like in p.runs.kinds]


def solved(planned: Sequence[planning.Planned], store: Store) -> dict[matrices.Source, Any]:
    """The matrices that a solver found when the plan was made: it is not asked again, where it might say something else.

    One that is not there, or not what it was, is made anew, and compared like everything else before a slab runs.
    """
    found: dict[matrices.Source, Any] = {}
    for like in filter(matrices.is_solved, templates_of(planned)):
        of = matrices.source(like)
        if of not in found:
            w = matrices.load(store.matrix_path(like.digests["matrix"]))
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
                f"results: {', '.join(changed)} of run {run.id} ({run.algorithm}): no longer what the plans of {store.folder} were made of; put back what it was, or choose another folder with --results"
            )
