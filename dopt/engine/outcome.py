"""What runs gave, as columns, read from a slab's arrays on the host."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from dopt import flags
from dopt.config.exchanges import traits_of
from dopt.config.runs import Runs, of_runs
from dopt.devices import hosts
from dopt.engine.carry import Carry, Reported, averaged
from dopt.engine.group import Group
from dopt.facts import problem as of_problem
from dopt.types import Tree


class Outcome(NamedTuple):
    """What one run gave."""

    history: dict[str, np.ndarray]  # [records]
    params: Tree  # leaves [workers, ...], of server methods [1, ...]
    diverged_step: int | None
    spectral_gap: float
    stalled_step: int | None = None  # after so many steps nothing moved any more; None: not so
    extra: Mapping[str, Tree] = MappingProxyType({})  # other models of the method, leaves [1, ...]: "center"


class Columns(NamedTuple):
    """What several runs gave."""

    history: dict[str, np.ndarray]  # name -> [runs, records]
    there: np.ndarray  # [runs, records] bool: a shorter run has fewer records, and they come first
    diverged: np.ndarray  # [runs] the step at which it did; -1: it did not
    stalled: np.ndarray  # [runs] after so many steps nothing moved any more; -1: not so
    spectral_gap: np.ndarray  # [runs] NaN without a mixing matrix


@dataclass(frozen=True, eq=False)
class Outcomes(Sequence[Outcome]):
    """What the runs of a slab gave: columns, and one by one, where models are fetched as soon as somebody looks at one."""

    columns: Columns
    lacks: Mapping[str, np.ndarray]  # name of a history -> [runs] bool: which runs have none of that name
    group: Group
    carry: Carry  # what the program left, on the devices or here; of its state what is reported

    def __len__(self) -> int:
        return len(self.columns.there)

    @cached_property
    def left(self) -> tuple[Tree, Reported]:
        """Models, and what of the state is reported, on the host."""
        with self.group.running():
            params, state = hosts.fetch((self.carry.params, self.carry.state))
        return params, state

    def __getitem__(self, row: int) -> Outcome:  # type: ignore[override]
        params = _models(self, row)
        found, center = self.columns, self.left[1].center
        own = [name for name in found.history if name not in self.lacks or not self.lacks[name][row]]
        history = {name: found.history[name][row][found.there[row]] for name in own}
        extra = {} if center is None else {"center": jax.tree.map(lambda x: x[row][:1], center)}
        diverged, stalled = (None if step[row] < 0 else int(step[row]) for step in (found.diverged, found.stalled))
        return Outcome(history, params, diverged, float(found.spectral_gap[row]), stalled, extra)


def recorded(group: Group, history: np.ndarray, runs: int) -> dict[str, np.ndarray]:
    """The records of a slab, [rows, records, columns], by name: [runs, records] each."""
    found = np.asarray(history)[:runs].transpose(2, 0, 1).astype(np.float64, order="C")
    return dict(zip(group.program.columns, found, strict=True))


def read(
    group: Group, runs: Runs, carry: Carry, recorded: Mapping[str, np.ndarray], diverged: Mapping[int, int]
) -> Outcomes:
    """The outcomes of a slab.

    Args:
      runs: the slab's; rows beyond them only fill it.
      carry: what the program left; of its state what is reported.
      recorded: what it recorded, name -> [runs, records].
      diverged: row -> the step at which it did.
    """
    facts, names = group.facts, _reported(group, recorded)
    kinds, kind = facts.kinds(runs)
    history, there, lacks = _clocked([facts.axes(*which) for which in kinds], kind)
    gap = np.array([facts.gap(number) for number, _ in kinds])[kind]
    values = {name: recorded[name] for name in names}
    if facts.optimum is not None and "loss" in recorded:
        values["suboptimality"] = recorded["loss"] - facts.optimum
    values = {name: x[:, : there.shape[1]] for name, x in values.items()}
    step = np.full(len(runs), -1)
    if diverged:
        step[list(diverged)] = list(diverged.values())
        lost = (step >= 0)[:, None] & (history["step"] >= step[:, None])
        values = {name: np.where(lost, np.nan, x) for name, x in values.items()}
    replays = [facts.replay(*which) for which in kinds]
    stalled = np.array([replay.length if replay.stalls else -1 for replay in replays])[kind]
    return Outcomes(Columns(history | values, there, step, stalled, gap), lacks, group, carry)


def gap_notes(group: Group, runs: Runs) -> tuple[str, ...]:
    """One line for each matrix of these runs whose spectral gap was not found."""
    facts = group.facts
    unknown = [
        facts.runs.templates[number]
        for number in dict.fromkeys(template for template, _ in facts.kinds(runs)[0])
        if facts.matrix(number) is not None and math.isnan(facts.gap(number))
    ]
    return tuple(
        dict.fromkeys(
            f"spectral_gap: not found for the mixing matrix of {run.topology} with {run.workers} workers, since the iteration did not converge; it is NaN"
            for run in unknown
        )
    )


def _clocked(
    found: Sequence[Mapping[str, np.ndarray]], kind: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """The axes of each kind of run -> of each run, which records it has, and which runs lack one; [runs, records]."""
    if len(found) == 1:
        alike = {name: of_runs([axis], kind) for name, axis in found[0].items()}
        return alike, np.ones(alike["step"].shape, bool), {}
    length = np.array([len(axis["step"]) for axis in found])
    most = int(length.max())
    # the last record stands in for those that a run lacks
    place = np.minimum(np.arange(most), length[:, None] - 1)
    history, lacks = {}, {}
    for name in dict.fromkeys(name for axis in found for name in axis):
        missing = np.array([name not in axis for axis in found])
        each = [
            axis[name][at] if name in axis else np.full(most, np.nan) for axis, at in zip(found, place, strict=True)
        ]
        history[name] = of_runs(each, kind)
        if missing.any():
            lacks[name] = missing[kind]
    return history, of_runs(list(np.arange(most) < length[:, None]), kind), lacks


def _models(outcomes: Outcomes, row: int) -> Tree:
    """The models of one run that are reported, leaves [workers, ...], of a server [1, ...]."""
    group, (params, state) = outcomes.group, outcomes.left
    params, average = jax.tree.map(lambda x: np.asarray(x[row]), (params, state.average))
    if group.events and not group.program.is_peer_to_peer:
        params, average = jax.tree.map(lambda x: x[None], (params, average))
    if average is not None:
        with flags.fixed(group.facts.dtype == np.float64):
            params = jax.tree.map(np.asarray, jax.vmap(averaged)(average, params))
    assemble = traits_of(group.first).assemble
    return params if assemble is None else jax.tree.map(lambda x: x[None], assemble(params, group.facts.model))


def first_record(group: Group, recorded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Metrics at step 0, name -> [runs]; f where only its distance to f* is asked for, which may take long to find."""
    names = _reported(group, recorded) or [name for name in ("loss",) if name in recorded]
    return {name: recorded[name][:, 0] for name in names}


def _reported(group: Group, recorded: Mapping[str, np.ndarray]) -> list[str]:
    asked = of_problem.is_asked(group.first, "loss")
    return [name for name in recorded if name != "finite" and (name != "loss" or asked)]
