"""Arrivals, at a server or among peers: no axis of workers, since each arrival concerns one of them, or a few."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from dopt import metrics, rings
from dopt.algorithms.server import Arrivals, Tables, at, server_of
from dopt.engine.carry import Carry, Model, Pieces, keep
from dopt.engine.program import Program
from dopt.facts.inputs import Data, Inputs
from dopt.types import Array, Tree, Whole


def start(program: Program, inputs: Inputs, given: Tree) -> Carry:
    """A server's trajectory that has not begun, or that of peers. `given`: models of all workers; None: the problem's start."""
    rule = program.build(inputs)
    if not program.is_peer_to_peer:
        params = program.model_0(inputs, None if given is None else at(given, 0))
    elif given is None:
        params = rings.copies(program.model_0(inputs, None), program.workers)
    else:
        params = program.model_0(inputs, given)
    tables = server_of(rule).init(params, program.workers, program.kept)
    return program.empty(tables.params, (tables.state, tables.models))


def pieces(program: Program, inputs: Inputs, data: Data, test: Tree) -> Pieces:
    event = server_of(program.build(inputs)).event

    def ahead(first: Whole, total: int) -> tuple[Any, Any]:
        arrivals = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, first, total), inputs.arrivals)
        numbers = arrivals.number[..., None] + jnp.arange(program.local_steps, dtype=jnp.int32)

        def drawn(worker: Whole, number: Whole) -> tuple[Any, Any]:
            return program.drawn(inputs, worker, number, data.count[worker])

        of_one_arrival = jax.vmap(drawn, (None, 0))
        of_one_update = jax.vmap(of_one_arrival)
        return (arrivals, jax.vmap(of_one_update)(arrivals.worker, numbers)), arrivals

    def step(k: Whole, row: tuple[Arrivals, Any], _: Any, params: Tree, state: Tree) -> Model:
        arrivals, drawn = row
        arrivals = arrivals._replace(version=k - arrivals.staleness)

        def gradient(params: Tree, which: Any, h: Any) -> Tree:
            index, key = jax.tree.map(lambda x: x[which, h], drawn)
            return program.gradient(params, data, index, key, arrivals.worker[which])

        tables = event(Tables(params, *state), arrivals, gradient)
        return tables.params, (tables.state, tables.models)

    def record(params: Tree, state: Tree) -> dict[str, Any]:
        return recorded(program, data, test, params, state)

    return Pieces(ahead, step, record, aged, lambda ages: ages, stay)


def recorded(program: Program, data: Data, test: Tree, params: Tree, state: Tree) -> dict[str, Any]:
    """What a record says of the server's model, or of the mean of the peers'."""
    mean, apart = program.model(params, state), jnp.zeros(())
    models = jax.tree.map(lambda x: x[None], mean)
    if program.is_peer_to_peer:
        mean, models = jax.tree.map(lambda x: x.mean(0), params), params
        apart = jax.vmap(metrics.square_distance, (0, None))(params, mean).mean()

    f, gradient = program.evaluate(lambda p: program.mean_loss(p, data.seen, data.share), mean)
    row = {
        "loss": f,
        "grad_norm": None if gradient is None else optax.tree.norm(gradient),
        "consensus_distance": apart,
        "finite": metrics.all_finite(params),
    }
    return row | program.tests(mean, lambda: models, test)


def aged(steps: jax.Array, arrivals: Arrivals) -> Any:
    return arrivals.staleness, arrivals.weight > 0


def stay(there: Array, new: Model, old: Model) -> Model:
    """Nobody reads the old models after the end, and to choose among all of them would copy them in every step."""
    (params, (state, models)), (before, (state_before, _)) = new, old
    return keep(there, params, before), (keep(there, state, state_before), models)
