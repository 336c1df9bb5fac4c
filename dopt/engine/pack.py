"""The values of runs, as the program takes them: columns, each of which is made once for each distinct value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from dopt import delays
from dopt.config.runs import Runs
from dopt.engine.group import Group
from dopt.facts.inputs import Inputs
from dopt.types import Tree


def pack(group: Group, runs: Runs, width: int) -> Inputs:
    """Inputs [width, ...] of some runs of a group; a short slab is filled up with its last run."""
    facts, filled = group.facts, np.minimum(np.arange(width), len(runs) - 1)
    kinds, of_run = facts.kinds(runs)
    kind = of_run[filled]

    def each(make: Callable[[int, int], Tree]) -> Tree:
        """One value for each run, made once for each kind."""
        return _stacked([make(*which) for which in kinds], kind)

    room = group.room
    replayed = each(lambda t, s: facts.replay(t, s).arrays(room))
    drawn = facts.building.delayed and facts.staleness != "fixed"
    return Inputs(
        seed=runs.seed[filled].astype(np.int32),
        learning_rate=runs.learning_rate[filled].astype(facts.dtype),
        form=each(lambda t, s: _forms(group, t, s)),
        modulus=each(lambda t, s: _modulus(group, t)),
        link_loss=each(lambda t, s: _loss(group, t)),
        delay=each(lambda t, s: delays.cumulative(facts.delay_table(t), facts.building.slots)) if drawn else None,
        ages=each(facts.link_ages) if facts.staleness == "fixed" else None,
        turns=replayed.get("turns"),
        arrivals=replayed.get("arrivals"),
        length=each(lambda t, s: np.int32(facts.replay(t, s).iterations(room))) if group.ragged else None,
    )


def _stacked(values: Sequence[Tree], kind: np.ndarray) -> Tree:
    """[runs, ...]: of each run the value of its kind."""
    return jax.tree.map(lambda *x: np.stack(x)[kind], *values)


def _forms(group: Group, template: int, seed: int) -> Any:
    if group.events or group.facts.matrix(template) is None:
        return None
    found = group.facts.forms(template, seed, group.loop[1])
    return found if len(found) > 1 else found[0]


def _modulus(group: Group, template: int) -> Any:
    asked = group.facts.runs.templates[template].options.get("algorithm.chebyshev")
    return group.facts.dtype.type(group.facts.modulus(template)) if asked else None


def _loss(group: Group, template: int) -> Any:
    loss = group.facts.runs.templates[template].link_loss
    return np.float32(loss) if loss else None
