"""What every method holds: executors agree, nothing is compiled twice, a seed is a trace, bytes are counted, special cases are what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from dopt import engine, mixing
from dopt.algorithms.traits import Neighbours, is_event_driven
from dopt.config import Resolved, matrices
from dopt.config.exchanges import exchange_of, needs_of
from dopt.engine import Compiled, Outcome, group_of, run_slab
from dopt.engine.single import Result, run
from dopt.facts import facts_of
from dopt.testing.runs import FIELDS, Failed, agree, compilations, describe, least_squares, models, near, same
from dopt.types import Problem

WORKERS = 4
ROUNDING = 1e-10  # in float64
EXECUTORS = ("pmap", "shard_map", "mesh")
Fields = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Special:
    """One special case of a method: its run with `changes` is the run `equals`, or the models that `equals` makes of the problem.

    Attributes:
      equals: fields of another run; or problem -> models [workers, d], as `vector` has them.
      how: "exact", to the last bit, or "rounding".
      changes: to the method's run; None takes a field away.
      graph: a graph or a matrix in place of the topology.
      apart: whether workers start from different models.
    """

    name: str
    equals: dict[str, Any] | Callable[[Problem], np.ndarray]
    how: str = "rounding"
    changes: dict[str, Any] = field(default_factory=dict)
    workers: int = 8
    graph: Any = None
    apart: bool = True


def fields_of(name: str, given: Fields) -> dict[str, Any]:
    """Fields of a run of a method: what is given, and a tree where the method mixes along one.

    Raises:
      InputError: the method needs an option that is not given.
    """
    fields = {"algorithm": name, "workers": WORKERS, **given}
    if "topology" not in given and needs_of(_resolved(fields)) == "tree":
        fields["topology"] = "star"
    return fields


def _resolved(fields: Fields) -> Resolved:
    return describe(fields).resolve(problem=least_squares(int(fields["workers"])))


def made(fields: Fields, **changes: Any) -> Result:
    """A short run on least squares."""
    fields = {**fields, **changes}
    return run(describe(fields), problem=least_squares(int(fields["workers"])))


# -- the checks; each takes the fields of a run ------------------------------------------------------------------------


def runs_and_stays_finite(fields: Fields) -> None:
    """A short run on least squares stays finite, and moves."""
    found = made(fields)
    if found.diverged or not np.isfinite(models(found)).all():
        raise Failed(
            f"at a learning rate of {FIELDS['learning_rate']} the run is no longer finite after step {found.diverged_step}"
        )
    start = least_squares(int(fields["workers"])).start
    if np.array_equal(models(found), np.concatenate([start["b"][:, None], start["w"]], 1)):
        raise Failed(f"no model has moved after {FIELDS['steps']} steps")


def executors_agree(fields: Fields) -> None:
    """A worker's program gives the same numbers wherever it runs."""
    if is_event_driven(exchange_of(_resolved(fields))):
        return
    here = made(fields, executor="vmap")
    for executor in EXECUTORS:
        if len(jax.devices()) < WORKERS:
            raise Failed(f"{executor} needs {WORKERS} devices, {len(jax.devices())} are here")
        agree(made(fields, executor=executor), here, ROUNDING, f"{executor} and vmap")


def another_rate_or_seed_compiles_nothing(fields: Fields) -> None:
    """Runs that differ in rate and seed share one program."""
    problem = least_squares(int(fields["workers"]))
    changes: Sequence[Fields] = ({}, {"seed": 4}, {"learning_rate": 0.02}, {"learning_rate": 0.02, "seed": 5})
    runs = [describe({**fields, **change}).resolve(problem=problem) for change in changes]
    slabs_of_one_program(runs, problem)


def slabs_of_one_program(runs: Sequence[Resolved], problem: Problem, width: int = 2) -> tuple[list[Outcome], Compiled]:
    """What runs of one group give, in slabs of that width, for which nothing is compiled but once.

    Raises:
      Failed: they are of several groups, or something was compiled again.
    """
    if len({engine.key(run) for run in runs}) != 1:
        raise Failed("runs that differ only in rate and seed do not share one program")
    compiled = engine.compile(group_of(runs, problem=problem), width)
    with compilations() as again:
        found = [one for begin in range(0, len(runs), width) for one in run_slab(compiled, runs[begin : begin + width])]
    if again:
        raise Failed(
            f"{len(again)} programs were compiled again for another rate or seed; do not make either a static value"
        )
    return found, compiled


def the_same_seed_is_the_same_trace(fields: Fields) -> None:
    """The same run, compiled anew, has the same bits."""
    same(made(fields, batch_size=2), made(fields, batch_size=2), "two runs of one seed")


def another_seed_is_another_trace(fields: Fields) -> None:
    """Runs of two seeds draw different batches."""
    one, other = (made(fields, batch_size=2, seed=seed) for seed in (3, 4))
    if np.array_equal(models(one), models(other)):
        raise Failed("runs of two seeds that draw batches end at the same models; the gradients are not used")


def bytes_are_what_it_sends(fields: Fields) -> None:
    """What a worker sends is counted, from nothing on: over links, all that it hands to its mix, as often as it says."""
    found = made(fields)
    sent = found.history["bytes_sent"]
    if sent[0] != 0 or (np.diff(sent) < 0).any() or not np.isfinite(sent).all():
        raise Failed(f"bytes_sent must begin at 0 and never fall, got {sent.tolist()}")
    exchange = exchange_of(found.run)
    if len(exchange) > 1 or not isinstance(exchange[0], Neighbours) or found.run.link_loss:
        return
    (mixes,) = facts_of([found.run], problem=least_squares(found.run.workers)).sizes.bits
    if not sum(mixes):
        raise Failed(
            "it declares that it sends to neighbours, but gives nothing to its mix; call mix.apply in `update`"
        )
    w = matrices.matrix(found.run)
    if isinstance(w, tuple) or getattr(w, "ndim", 0) != 2:
        return
    links = np.count_nonzero(mixing.dense(w) - np.diag(np.diag(mixing.dense(w)))) / found.run.workers
    expected = sum(mixes) / 8 * links * exchange[0].mixings(found.history["step"])
    near(sent, expected, 1e-9, "bytes_sent, and what is handed to the mix over the links of W,")


@lru_cache(maxsize=256)
def _looped(loop: Callable[[Problem], np.ndarray], workers: int, apart: bool) -> np.ndarray:
    return loop(least_squares(workers, apart))


@lru_cache(maxsize=256)
def _equalled(fields: tuple[tuple[str, Any], ...], workers: int, apart: bool) -> np.ndarray:
    """The models of a run that is a special case of several others."""
    return models(run(describe({"workers": workers, **dict(fields)}), problem=least_squares(workers, apart)))


def check_special(fields: Fields, special: Special) -> None:
    """A special case of a method is what it says.

    Args:
      fields: of the method's run.

    Raises:
      Failed: it is not.
    """
    workers, problem = special.workers, least_squares(special.workers, special.apart)
    changes = {**special.changes, **({"topology": None} if special.graph is not None else {})}
    found = models(run(describe({**fields, "workers": workers, **changes}), problem=problem, graph=special.graph))
    if callable(special.equals):
        expected = _looped(special.equals, workers, special.apart)
    else:
        expected = _equalled(tuple(special.equals.items()), workers, special.apart)
    if special.how == "rounding":
        near(found, expected, ROUNDING, "the models")
    elif not (found == expected).all():
        raise Failed("the models differ in their bits")
