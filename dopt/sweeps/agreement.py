"""Whether a folder is this sweep's, and its plan still made of what lies there now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dopt.config import Resolved, Runs, matrices
from dopt.config.identity import Memo, code_digests, content_digests, differences, matrix_digest
from dopt.config.runs import joined, missing_in, numbered
from dopt.sweeps import plan as planning
from dopt.sweeps import spec
from dopt.sweeps.jobs import Team
from dopt.sweeps.store import Store
from dopt.types import InputError


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


def same(asked: spec.Sweep, store: Store, written: dict[str, Any], team: Team) -> list[planning.Planned]:
    """The plan that is there, if it is this sweep's: of the same fields, which stand for the same things."""
    planned = planning.read(written, store.plan_path)
    team.agree(written.get("threads"))
    theirs = joined([p.runs for p in planned])
    new = missing_in(theirs, asked.runs)
    if len(new) or len(theirs) != len(asked.runs):
        fields = new[0].to_dict() if len(new) else {}
        differs = [name for name, value in fields.items() if value not in theirs.values(name)]
        what = f"; new: {', '.join(differs)}" if differs else ""
        raise InputError(
            f"results: {store.folder} holds another sweep ({len(theirs)} runs of {theirs[0].algorithm}{what}); choose another folder with --results"
        )
    with matrices.keeping(solved(planned, store)):
        compare(theirs, store, there=not _is_missing(planned, store))
    return planned


def _is_missing(planned: Sequence[planning.Planned], store: Store) -> bool:
    """Whether any slab is not there."""
    return not all(store.has(name) for p in planned for name, _ in p.slabs)


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
                f"results: {', '.join(changed)} of run {run.id} ({run.algorithm}): no longer what {store.plan_path} was made of; put back what it was, or choose another folder with --results"
            )
