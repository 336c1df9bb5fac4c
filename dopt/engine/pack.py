"""The values of runs, as the program takes them: columns, each of which is made once for each distinct value."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from dopt.config.runs import Runs, of_runs
from dopt.engine.group import Group
from dopt.facts.inputs import Inputs

NOTHING = Inputs(*[None] * len(Inputs._fields))


def pack(group: Group, runs: Runs, width: int) -> Inputs:
    """Inputs [width, ...] of some runs of a group; a short slab is filled up with its last run."""
    filled = np.minimum(np.arange(width), len(runs) - 1)
    kinds, kind = group.facts.kinds(runs)
    shared: Inputs = jax.tree.map(
        lambda *each: of_runs(each, kind[filled]), *(_values(group, *which) for which in kinds)
    )
    seed, rate = runs.seed[filled].astype(np.int32), runs.learning_rate[filled].astype(group.facts.dtype)
    return shared._replace(seed=seed, learning_rate=rate)


def _values(group: Group, template: int, seed: int) -> Inputs:
    """What all runs of a template and seed are given; rate and seed are not filled in."""
    facts, room, like = group.facts, group.room, group.facts.runs.templates[template]
    replay, drawn = facts.replay(template, seed), facts.building.delayed and facts.staleness != "fixed"
    return NOTHING._replace(
        form=_forms(group, template, seed),
        modulus=facts.dtype.type(facts.modulus(template)) if like.options.get("algorithm.chebyshev") else None,
        link_loss=np.float32(like.link_loss) if like.link_loss else None,
        delay=facts.delay(template) if drawn else None,
        ages=facts.link_ages(template, seed) if facts.staleness == "fixed" else None,
        length=np.int32(replay.iterations(room)) if group.ragged else None,
        **replay.arrays(room),
    )


def _forms(group: Group, template: int, seed: int) -> Any:
    if group.events or group.facts.matrix(template) is None:
        return None
    found = group.facts.forms(template, seed, group.loop[1])
    return found if len(found) > 1 else found[0]
