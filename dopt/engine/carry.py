"""What a trajectory carries from call to call, and the pieces that a worker or a server makes it of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax.contrib

from dopt.types import Array, Clock, Tree, Whole


class Ages(NamedTuple):
    """Staleness since the last record, [] each, or [records] of a segment."""

    sum: Any
    number: Any
    largest: Any


class Carry(NamedTuple):
    """One worker's part of a trajectory."""

    params: Tree
    state: Any
    ages: Ages
    history: Any  # [records, columns] of `Program.columns`: one array, so that a record is one write


class Reported(NamedTuple):
    """What of a state a result needs."""

    center: Tree  # a model that all share beside their own; None: there is none
    average: Any  # what a schedule-free optimizer's model is made of; None: it is the params


Model = tuple[Tree, Any]  # (params, state)


class Pieces(NamedTuple):
    """What a trajectory is made of: a worker's among workers, or a server's."""

    # (first step, how many) -> (drawn, staleness), leaves [steps, ...]; staleness may be None
    ahead: Callable[[Whole, int], tuple[Any, Any]]
    step: Callable[[Whole, Any, Any, Tree, Any], Model]  # (k, drawn of this step, its staleness, params, state)
    record: Callable[[Tree, Any], dict[str, Any]]  # (params, state) -> name -> value
    # (numbers of steps, their staleness) -> what counts as age: None, [steps], or a pair ([steps, senders], whether it
    # counts) where there is one for each sender
    aged: Callable[[jax.Array, Any], Any]
    together: Callable[[Ages], Ages]  # of one worker -> of all of them
    stay: Callable[[Array, Model, Model], Model]  # as `keep`: what of a shorter run stays when it has ended


averaged = optax.contrib.schedule_free_eval_params


def keep(predicate: Array, new: Tree, old: Tree) -> Tree:
    """`new` where the predicate holds, else `old`; clocks go on, since they are the same for all."""
    return jax.tree.map(
        lambda a, b: a if isinstance(a, Clock) else jnp.where(predicate, a, b),
        new,
        old,
        is_leaf=lambda x: isinstance(x, Clock),
    )
