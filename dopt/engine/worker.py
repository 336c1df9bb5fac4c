"""One worker among workers: draw a batch, take a gradient, update, and now and then record with the others."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.custom_batching import custom_vmap

from dopt import delays, draws, metrics, mixing
from dopt.algorithms.method import Method
from dopt.engine.carry import Ages, Carry, Model, Pieces, keep
from dopt.engine.program import Program
from dopt.facts.inputs import Data, Inputs, Shard, Weighed
from dopt.types import AXIS, Tree, Whole


def start(program: Program, inputs: Inputs, given: Tree) -> Carry:
    """A worker's trajectory that has not begun. `given`: the model it starts from; None: the problem's."""
    params, method = program.model_0(inputs, given), program.build(inputs)
    return program.empty(method.place(params), method.init(params))


def pieces(program: Program, inputs: Inputs, data: Data, test: Tree) -> Pieces:
    method, worker = program.build(inputs), lax.axis_index(AXIS)

    def ahead(first: Whole, total: int) -> tuple[Any, Any]:
        steps = first + jnp.arange(total, dtype=jnp.int32)
        numbers, turns = steps, None
        if inputs.turns is not None:
            here = jax.tree.map(lambda t: lax.dynamic_slice_in_dim(t, first, total)[:, worker], inputs.turns)
            numbers, turns = here.number, here.applied
        drawn = jax.vmap(lambda k: program.drawn(inputs, worker, k, data.count))(numbers)
        return (turns, drawn), draw_delays(program, inputs, worker, steps)

    def step(k: Whole, here: tuple[Any, Any], staleness: Any, params: Tree, state: Tree) -> Model:
        mine, drawn = here
        extra = {} if staleness is None else {"staleness": staleness}
        extra |= {"share": data.share} if program.weighs == "models" else {}
        grads = program.gradient(method.read(state, params, **extra), data, *drawn)
        updates, new_state = method.update(grads, state, params, **extra)
        new: Model = optax.apply_updates(params, updates), new_state
        return new if mine is None else keep(mine, new, (params, state))

    def record(params: Tree, state: Tree) -> dict[str, Any]:
        return recorded(program, method, data, test, params, state)

    def aged(steps: jax.Array, staleness: Any) -> Any:
        if program.staleness not in ("edge", "fixed"):
            return staleness
        who, there = senders(inputs, worker, steps)
        if program.staleness == "fixed":
            return jnp.asarray(inputs.ages)[worker][who], there
        return staleness.senders, there

    return Pieces(ahead, step, record, aged, together, keep)


def recorded(program: Program, method: Method, data: Data, test: Tree, params: Tree, state: Tree) -> dict[str, Any]:
    """What a record says of the mean of all workers' models."""
    model = program.model(params, state)
    model = method.read(state, model) if program.is_sharded else model
    mean_model = mean(model)
    f, gradient = evaluated(program, mean_model, data)
    # each leaf over all workers, and then the leaves: one sum for each leaf instead of one for each worker and leaf
    apart = lax.pmean(metrics.squares(model, mean_model), AXIS)
    row = {
        "loss": f,
        "grad_norm": None if gradient is None else optax.tree.norm(gradient),
        "consensus_distance": sum(jax.tree.leaves(apart)),
        "finite": metrics.all_finite(mean(params)),
    }
    if program.center is not None:
        z = program.center(state)
        row["center_loss"] = lax.pmean(program.own_loss(z, data.seen, data.share), AXIS)
    return row | program.tests(mean_model, lambda: lax.all_gather(model, AXIS), test)


def mean(tree: Tree) -> Tree:
    """The mean over workers: finite just where all of them are, since no sum of parts of the mean is larger than the largest."""
    return jax.tree.map(lambda x: lax.psum(x / lax.axis_size(AXIS), AXIS), tree)


def evaluated(program: Program, params: Tree, data: Data) -> tuple[jax.Array, Tree]:
    """F at a model that all workers share, and its gradient if somebody asks for it.

    Workers that one device simulates look at all their samples at once: one by one, each of them would make a gradient of its own.
    """

    def of_one(params: Tree, seen: Shard | Weighed, share: jax.Array) -> tuple[jax.Array, Tree]:
        return program.evaluate(lambda p: program.own_loss(p, seen, share), params)

    def of_several(size: int, mapped: Any, params: Tree, seen: Shard | Weighed, share: jax.Array) -> tuple[Any, Any]:
        if any(jax.tree.leaves(mapped[0])):  # several runs, and not several workers
            axes = jax.tree.map(lambda there: 0 if there else None, tuple(mapped))
            each = jax.vmap(of_one, axes)(params, seen, share)
            return each, jax.tree.map(lambda _: True, each)
        found = program.evaluate(lambda p: program.mean_loss(p, seen, share), params)
        return found, jax.tree.map(lambda _: False, found)

    local = custom_vmap(of_one)
    local.def_vmap(of_several)
    found: tuple[jax.Array, Tree] = lax.pmean(local(params, data.seen, data.share), AXIS)
    return found


def together(ages: Ages) -> Ages:
    """Ages of one worker -> of all."""
    return Ages(lax.psum(ages.sum, AXIS), lax.psum(ages.number, AXIS), lax.pmax(ages.largest, AXIS))


def draw_delays(program: Program, inputs: Inputs, worker: Whole, steps: jax.Array) -> Any:
    """Staleness of each step: [steps], or `mixing.Ages` [steps, senders]; None where it is not drawn."""
    if program.staleness in (None, "fixed"):
        return None
    if program.staleness == "constant":
        return jnp.broadcast_to(delays.at(inputs.delay, jnp.float32(0)), steps.shape)
    if program.staleness == "step":
        u = jax.vmap(lambda k: draws.uniforms(inputs.seed, draws.EVERYONE, k, draws.DELAYS, 1))(steps)
        return delays.at(inputs.delay, u)[:, 0]

    def drawn(k: jax.Array, lanes: jax.Array) -> jax.Array:  # a sender's number is its lane, in whatever form W runs
        return delays.at(inputs.delay, draws.uniform_at(inputs.seed, worker, k, draws.DELAYS, lanes))

    who, _ = senders(inputs, worker, steps)
    lanes = jnp.concatenate([who, jnp.full((len(steps), 1), worker, who.dtype)], 1)
    ages = jax.vmap(drawn)(steps, lanes)
    return mixing.Ages(ages[:, :-1], ages[:, -1])


def senders(inputs: Inputs, worker: Whole, steps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(whose models this worker mixes in, whether that counts), [steps, senders]."""
    form = inputs.form[0] if isinstance(inputs.form, tuple) else inputs.form
    each: tuple[jax.Array, jax.Array] = jax.vmap(lambda k: mixing.senders(form, k, worker))(steps)
    return each
