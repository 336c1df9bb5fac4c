"""How large the messages of a method are: what it really hands over, measured in a dry step. Host."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from dopt import flags, mixing
from dopt.algorithms.traits import AllReduce, Exchange, Neighbours, has_server
from dopt.config import Resolved
from dopt.config.exchanges import exchange_of, traits_of
from dopt.facts import shards
from dopt.facts.inputs import Inputs
from dopt.facts.method import Building
from dopt.facts.problem import dtype_of
from dopt.types import AXIS, Problem, Tree

INDEX = 4  # bytes of a row's number


# of each exchange: of each message that all reduce; or over a link in a round of mixing, of each mix
Bits = tuple[tuple[int, ...], ...]


class Sizes(NamedTuple):
    """What one worker sends at once."""

    bytes: (
        int  # of one model, as it travels; to and from a server the rows that a gradient touches, each with its index
    )
    bits: Bits


def sizes(building: Building, problem: Problem, model: Tree) -> Sizes:
    """The sizes of a method's messages. `model`: one worker's, as shapes."""
    size = _bytes(building.run, problem, model)

    def bits(one: Exchange) -> tuple[int, ...]:
        if isinstance(one, Neighbours):
            return tuple(sum(found) // one.rounds for found in _mixed(building, model))
        if isinstance(one, AllReduce) and one.reduction.bits is not None:
            return one.reduction.bits(model)
        return (8 * size,)

    return Sizes(size, tuple(map(bits, exchange_of(building.run))))


def _bytes(run: Resolved, problem: Problem, model: Tree) -> int:
    whole = sum(int(np.prod(x.shape)) * int(x.dtype.itemsize) for x in jax.tree.leaves(model))
    exchange, touched = exchange_of(run), problem.touched
    if touched is None or not has_server(exchange) or traits_of(run).sends_model:
        return whole
    batch = run.batch_size or int(shards.counts(problem).max())
    numbers, indices = touched(batch)
    return min(whole, numbers * dtype_of(run).itemsize + indices * INDEX)


def _mixed(building: Building, model: Tree) -> list[list[int]]:
    """Bits of all that is handed to each mix in a step that mixes."""
    run = building.run
    sent: list[list[int]] = [[] for _ in range(2 if building.needs == "row and column stochastic" else 1)]

    def recorder(found: list[int]) -> mixing.Mix:
        def apply(tree: Tree, state: Any, *, bits: int | None = None, **extra: Any) -> tuple[Tree, Any]:
            found.append(sum(8 * x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) if bits is None else bits)
            return tree, state

        return mixing.Mix(lambda tree: (), apply)

    number = dtype_of(run).type
    anything = Inputs(np.int32(0), number(0.1), *[None] * (len(Inputs._fields) - 2))._replace(modulus=number(0.5))

    def step(params: Tree) -> Tree:
        method = building(anything, tuple(map(recorder, sent)))
        return method.update(params, method.init(params), params)[0]

    stacked = jax.tree.map(lambda x: jax.ShapeDtypeStruct((run.workers, *x.shape), x.dtype), model)
    with flags.fixed(run.precision == "float64"):
        jax.eval_shape(jax.vmap(step, axis_name=AXIS), stacked)
    return sent
