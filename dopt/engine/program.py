"""What one worker does: draw a batch, take a gradient, update, and now and then record. Written once for all executors.

A trajectory is made by calls of one program, a *segment* each (`dopt.engine.segments`): all its batches are drawn ahead (drawing in
the loop is 1.4 to 1.9 times slower), then come stretches of steps, with a record at the end of each. Both loops have bounds
that the compiler knows, since a device that does not know them asks the host before each step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
from jax import lax

from dopt import delays, draws, metrics, mixing, rings
from dopt.algorithms.method import Method
from dopt.algorithms.server import Arrivals, Tables, at, server_of
from dopt.engine.segments import Segment
from dopt.facts.inputs import Data, Inputs, Shard
from dopt.problems.sound import takes_key
from dopt.types import AXIS, Clock, Key, Problem, Tree

AGES = ("staleness_mean", "staleness_max")


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


class Pieces(NamedTuple):
    """What a trajectory is made of: a worker's among workers, or a server's."""

    ahead: Callable  # (first step, how many) -> (drawn, staleness), leaves [steps, ...]; staleness may be None
    step: Callable  # (k, drawn of this step, its staleness, params, state) -> (params, state)
    record: Callable  # (params, state) -> name -> value
    # (numbers of steps, their staleness) -> what counts as age: None, [steps], or a pair ([steps, senders], whether it
    # counts) where there is one for each sender
    aged: Callable
    together: Callable  # `Ages` of one worker -> of all of them
    stay: Callable  # as `keep`: what of a shorter run stays when it has ended


@dataclass(frozen=True)
class Program:
    """The static description of a group: everything that changes shapes or code."""

    problem: Problem
    workers: int
    build: Callable[[Inputs], Method]
    dtype: Any
    batch_size: int | None
    metrics: tuple[str, ...]
    records: int
    every: int  # steps between two records
    staleness: str | None  # None; drawn per "step", "edge" or "coordinate"; "constant"; "fixed" per edge; "schedule"
    ragged: bool  # runs differ in length
    kept: int = 1  # models that a server's replay keeps
    events: bool = False  # driven by arrivals
    rounds: int = 1  # computations between a pull and a push
    peers: bool = False  # driven by arrivals, without a server: all workers' models are there
    parts: bool = False  # each worker keeps but a part of the model
    center: Callable[[Any], Tree] | None = None  # state -> a model that all share beside their own
    weighs: str = "gradients"  # what counts by a worker's share: those, or "models", or "arrivals" at a server
    average: Callable[[Any], Any] | None = None  # state -> what schedule-free averages; None: params are the model

    # -- what is compiled --

    def start(self, inputs: Inputs, start: Tree, worker: Any) -> Carry:
        """A trajectory that has not begun. `worker`: an axis of workers, where no start is given."""
        return self.server_start(inputs, start) if self.events else self.worker_start(inputs, start)

    def begin(self, inputs: Inputs, start: Tree, worker: Any, data: Data, test: Tree) -> Carry:
        """A trajectory with its first record, that of step 0."""
        carry = self.start(inputs, start, worker)
        found = self.pieces(inputs, data, test).record(carry.params, carry.state)
        return carry._replace(history=carry.history.at[0].set(self.row(found | dict.fromkeys(AGES, 0))))

    def replay(
        self, carry: Carry, inputs: Inputs, data: Data, test: Tree, start: Any, slot: Any, *, segment: Segment
    ) -> Carry:
        """One segment, whose first step is `start` and whose first record goes to `slot`: draw ahead, then step and record."""
        pieces = self.pieces(inputs, data, test)
        drawn, staleness = pieces.ahead(start, segment.records * segment.steps)
        columns = tuple(name for name in self.columns if name not in AGES)

        def stretch(model: tuple[Tree, Any], record: Any) -> tuple[tuple[Tree, Any], jax.Array]:
            def one(j: Any, model: tuple[Tree, Any]) -> tuple[Tree, Any]:
                t = record * segment.steps + j
                return self.stepped(pieces, inputs, start + t, jax.tree.map(lambda x: x[t], (drawn, staleness)), model)

            model = lax.fori_loop(np.int32(0), np.int32(segment.steps), one, model)
            return model, self.row(pieces.record(*model), columns)

        model, rows = lax.scan(stretch, (carry.params, carry.state), jnp.arange(segment.records, dtype=jnp.int32))
        ages = carry.ages
        if self.has_ages:
            each = self.ages(carry.ages, pieces, inputs, segment, start, staleness)
            said = pieces.together(each)
            rows = jnp.concatenate([rows, jnp.stack([said.sum / jnp.maximum(said.number, 1), said.largest], 1)], 1)
            ages = jax.tree.map(lambda x: x[-1], each)
        return Carry(*model, ages, lax.dynamic_update_slice_in_dim(carry.history, rows, slot, 0))

    def retrace(
        self, carry: Carry, inputs: Inputs, data: Data, test: Tree, start: Any, number: Any, slot: Any
    ) -> Carry:
        """`number` steps, and after each a record that says only whether all is finite; none where `slot` is -1.

        The number is not known to the compiler: this is for the stretch in which a run has diverged, and the way to it.
        """
        pieces = self.pieces(inputs, data, test)

        def one(j: Any, carry: Carry) -> Carry:
            here = jax.tree.map(lambda x: x[0], pieces.ahead(start + j, 1))
            params, state = self.stepped(pieces, inputs, start + j, here, (carry.params, carry.state))

            def written() -> jax.Array:
                found = pieces.record(params, state)
                said = {name: found[name] for name in ("loss", "finite") if name in self.columns}
                row = self.row(dict.fromkeys(self.columns, jnp.nan) | said)
                return lax.dynamic_update_slice_in_dim(carry.history, row[None], slot + j, 0)

            return Carry(params, state, carry.ages, lax.cond(slot >= 0, written, lambda: carry.history))

        return lax.fori_loop(0, number, one, carry)

    def pieces(self, inputs: Inputs, data: Data, test: Tree) -> Pieces:
        return (self.server_pieces if self.events else self.worker_pieces)(inputs, data, test)

    # -- pieces that workers and servers share --

    def loss(self, params: Tree, shard: Shard, share: Any, key: Key | None) -> jax.Array:
        """fᵢ on one worker's shard.

        The loss of a batch is a mean, so what may be padding is taken one by one, with a mask.
        """
        full, rest = (len(jax.tree.leaves(part)[0]) for part in (shard.head, shard.tail))
        head = self._loss(params, shard.head, key)
        if not rest:
            return share * head
        each = jax.vmap(lambda s: self._loss(params, jax.tree.map(lambda a: a[None], s), key))(shard.tail)
        there = jnp.arange(full, full + rest) < shard.count
        return share * (full * head + jnp.sum(jnp.where(there, each, 0))) / shard.count

    def _loss(self, params: Tree, batch: Tree, key: Key | None) -> jax.Array:
        return self.problem.loss(params, batch, key) if self.noisy else self.problem.loss(params, batch)

    @property
    def has_ages(self) -> bool:
        """Whether the staleness is one number for each step or sender."""
        return self.staleness not in (None, "coordinate")

    @property
    def noisy(self) -> bool:
        return takes_key(self.problem.loss)

    def drawn(self, inputs: Inputs, worker: Any, number: Any, count: Any) -> tuple[Any, Any]:
        """(sample numbers [batch] or None, noise key or None) of the worker's `number`-th computation."""
        index = None
        if self.batch_size is not None:
            index = draws.samples(inputs.seed, worker, number, self.batch_size, count)
        return index, draws.key(inputs.seed, worker, number) if self.noisy else None

    def gradient(self, params: Tree, data: Data, index: Any, key: Key | None, worker: Any = None) -> Tree:
        """Gradient of one worker on one batch, on all its samples where `index` is None.

        `worker` says whose, where `data` is stacked over all.
        """
        at = () if worker is None else (worker,)
        share = data.share[at] if self.weighs == "gradients" else jnp.ones_like(data.share[at])
        if index is None:
            return jax.grad(self.loss)(params, jax.tree.map(lambda a: a[at], data.whole), share, key)
        batch = jax.tree.map(lambda a: a[*at, index], data.samples)
        return jax.grad(lambda p: share * self._loss(p, batch, key))(params)

    def evaluate(self, f: Callable[[Tree], jax.Array], params: Tree) -> tuple[jax.Array, Tree]:
        """A function and its gradient from one evaluation; the gradient only where it is asked for."""
        return jax.value_and_grad(f)(params) if "grad_norm" in self.metrics else (f(params), None)

    @property
    def columns(self) -> tuple[str, ...]:
        """What a record says, by columns of the history: the metrics, and at the end the ages."""
        center = ("center_loss",) if self.center is not None else ()
        return (*self.metrics, "finite", *center, *(AGES if self.has_ages else ()))

    def named(self, history: Any) -> dict[str, Any]:
        """A history [..., records, columns] by name, [..., records] each."""
        return {name: history[..., i] for i, name in enumerate(self.columns)}

    def empty(self, params: Tree, state: Any) -> Carry:
        """A trajectory that has not begun."""
        zero = jnp.zeros((), self.dtype)
        history = jnp.full((self.records, len(self.columns)), jnp.nan, self.dtype)
        return Carry(params, state, Ages(zero, zero, zero), history)

    def row(self, found: Mapping[str, Any], columns: tuple[str, ...] | None = None) -> jax.Array:
        """[columns]: what a record has found, in order."""
        return jnp.stack([jnp.asarray(found[name], self.dtype) for name in columns or self.columns])

    def stepped(self, pieces: Pieces, inputs: Inputs, k: Any, here: tuple[Any, Any], model: Any) -> tuple[Tree, Any]:
        """(params, state) after step k; those of a run that has ended stay."""
        new = pieces.step(k, *here, *model)
        return pieces.stay(k < inputs.length, new, model) if self.ragged else new

    def ages(self, before: Ages, pieces: Pieces, inputs: Inputs, segment: Segment, start: Any, staleness: Any) -> Ages:
        """The ages that each record of a segment speaks of; before step 0 there is only x⁰, so none is older than its step."""
        known = start + jnp.arange(segment.records * segment.steps, dtype=jnp.int32)
        old, counts = (
            pieces.aged(known, staleness),
            known < inputs.length if self.ragged else jnp.ones_like(known, bool),
        )
        if isinstance(old, tuple):
            old, there = old
            known, counts = known[:, None], counts[:, None] & there
        real, taken = (
            x.astype(self.dtype).reshape(segment.records, -1)
            for x in (jnp.where(counts, jnp.minimum(old, known), 0), counts)
        )
        found = Ages(real.sum(1), taken.sum(1), real.max(1))
        if segment.steps == self.every:
            return found
        # a segment that begins within a stretch goes on from the one before
        so_far = jax.tree.map(lambda x: jnp.where(start % self.every == 0, 0, x), before)
        return Ages(found.sum + so_far.sum, found.number + so_far.number, jnp.maximum(found.largest, so_far.largest))

    def model(self, params: Tree, state: Any) -> Tree:
        """What is evaluated: the params, or the average that a schedule-free optimizer keeps of them."""
        return params if self.average is None else averaged(self.average(state), params)

    def reported(self, state: Any) -> Reported:
        return Reported(*(None if part is None else part(state) for part in (self.center, self.average)))

    def tests(self, params: Tree, test: Tree) -> dict[str, Any]:
        return {name: f(params, test) for name, f in self.problem.metrics.items() if name in self.metrics}

    # -- a worker among workers --

    def model_0(self, inputs: Inputs, start: Tree) -> Tree:
        """The model a worker starts from, in the run's precision."""
        params = self.problem.init(draws.start(inputs.seed)) if start is None else start
        return jax.tree.map(lambda x: jnp.asarray(x, self.dtype), params)

    def worker_start(self, inputs: Inputs, start: Tree) -> Carry:
        params, method = self.model_0(inputs, start), self.build(inputs)
        return self.empty(method.place(params), method.init(params))

    def worker_pieces(self, inputs: Inputs, data: Data, test: Tree) -> Pieces:
        method, worker = self.build(inputs), lax.axis_index(AXIS)

        def ahead(start: Any, total: int) -> tuple[Any, Any]:
            steps = start + jnp.arange(total, dtype=jnp.int32)
            numbers, turns = steps, None
            if inputs.turns is not None:
                here = jax.tree.map(lambda t: lax.dynamic_slice_in_dim(t, start, total)[:, worker], inputs.turns)
                numbers, turns = here.batch, here.applied
            drawn = jax.vmap(lambda k: self.drawn(inputs, worker, k, data.count))(numbers)
            return (turns, drawn), self.draw_delays(inputs, worker, steps)

        def step(k: Any, here: tuple[Any, Any], staleness: Any, params: Tree, state: Any) -> tuple[Tree, Any]:
            mine, drawn = here
            extra = {} if staleness is None else {"staleness": staleness}
            extra |= {"share": data.share} if self.weighs == "models" else {}
            grads = self.gradient(method.read(state, params, **extra), data, *drawn)
            updates, new = method.update(grads, state, params, **extra)
            moved = optax.apply_updates(params, updates)
            return (moved, new) if mine is None else keep(mine, (moved, new), (params, state))

        def record(params: Tree, state: Any) -> dict[str, Any]:
            model = self.model(params, state)
            model = method.read(state, model) if self.parts else model
            mean_model = jax.tree.map(lambda x: lax.pmean(x, AXIS), model)
            local = self.evaluate(lambda p: self.loss(p, data.seen, data.share, None), mean_model)
            f, gradient = lax.pmean(local, AXIS)
            row = {
                "loss": f,
                "grad_norm": None if gradient is None else optax.tree.norm(gradient),
                "consensus_distance": lax.pmean(metrics.square_distance(model, mean_model), AXIS),
                "finite": lax.pmin(metrics.all_finite(params).astype(jnp.float32), AXIS),
            }
            if self.center is not None:
                z = self.center(state)
                row["center_loss"] = lax.pmean(self.loss(z, data.seen, data.share, None), AXIS)
            return row | self.tests(mean_model, test)

        def aged(steps: Any, staleness: Any) -> Any:
            if self.staleness not in ("edge", "fixed"):
                return staleness
            who, there = self.senders(inputs, worker, steps)
            if self.staleness == "fixed":
                return jnp.asarray(inputs.ages)[worker][who], there
            return staleness.senders, there

        def together(ages: Ages) -> Ages:
            return Ages(lax.psum(ages.sum, AXIS), lax.psum(ages.number, AXIS), lax.pmax(ages.largest, AXIS))

        return Pieces(ahead, step, record, aged, together, keep)

    def draw_delays(self, inputs: Inputs, worker: Any, steps: Any) -> Any:
        """Staleness of each step: [steps], or `mixing.Ages` [steps, senders]; None where it is not drawn."""
        if self.staleness in (None, "fixed"):
            return None
        if self.staleness == "constant":
            return jnp.broadcast_to(delays.at(inputs.delay, jnp.float32(0)), steps.shape)
        if self.staleness == "step":
            u = jax.vmap(lambda k: draws.uniforms(inputs.seed, draws.EVERYONE, k, draws.DELAYS, 1))(steps)
            return delays.at(inputs.delay, u)[:, 0]

        def drawn(k: Any, lanes: Any) -> jax.Array:  # a sender's number is its lane, in whatever form W runs
            return delays.at(inputs.delay, draws.uniform_at(inputs.seed, worker, k, draws.DELAYS, lanes))

        who, _ = self.senders(inputs, worker, steps)
        lanes = jnp.concatenate([who, jnp.full((len(steps), 1), worker, who.dtype)], 1)
        ages = jax.vmap(drawn)(steps, lanes)
        return mixing.Ages(ages[:, :-1], ages[:, -1])

    def senders(self, inputs: Inputs, worker: Any, steps: Any) -> Any:
        """(whose models this worker mixes in, whether that counts), [steps, senders]."""
        form = inputs.form[0] if isinstance(inputs.form, tuple) else inputs.form
        return jax.vmap(lambda k: mixing.senders(form, k, worker))(steps)

    # -- arrivals, at a server or among peers --

    def server_start(self, inputs: Inputs, start: Tree) -> Carry:
        rule = self.build(inputs)
        if not self.peers:
            params = self.model_0(inputs, None if start is None else at(start, 0))
        elif start is None:
            params = rings.ring(self.model_0(inputs, None), self.workers)
        else:
            params = self.model_0(inputs, start)
        tables = server_of(rule).init(params, self.workers, self.kept)
        return self.empty(tables.params, (tables.state, tables.models))

    def server_pieces(self, inputs: Inputs, data: Data, test: Tree) -> Pieces:
        event = server_of(self.build(inputs)).event

        def ahead(start: Any, total: int) -> tuple[Any, Any]:
            arrivals = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, total), inputs.arrivals)
            numbers = arrivals.number[..., None] + jnp.arange(self.rounds, dtype=jnp.int32)
            # the computations of one arrival
            each = jax.vmap(lambda i, m: self.drawn(inputs, i, m, data.count[i]), (None, 0))
            return (arrivals, jax.vmap(jax.vmap(each))(arrivals.worker, numbers)), arrivals

        def step(k: Any, row: tuple[Arrivals, Any], _: Any, params: Tree, state: Any) -> tuple[Tree, Any]:
            arrivals, drawn = row
            arrivals = arrivals._replace(version=k - arrivals.staleness)

            def gradient(params: Tree, which: Any, h: Any) -> Tree:
                index, key = jax.tree.map(lambda x: x[which, h], drawn)
                return self.gradient(params, data, index, key, arrivals.worker[which])

            tables = event(Tables(params, *state), arrivals, gradient)
            return tables.params, (tables.state, tables.models)

        def record(params: Tree, state: Any) -> dict[str, Any]:
            each = jax.vmap(lambda p, seen, share: self.loss(p, seen, share, None), (None, 0, 0))
            mean, apart = self.model(params, state), jnp.zeros(())
            if self.peers:
                mean = jax.tree.map(lambda x: x.mean(0), params)
                apart = jax.vmap(metrics.square_distance, (0, None))(params, mean).mean()
            f, gradient = self.evaluate(lambda p: each(p, data.seen, data.share).mean(), mean)
            row = {
                "loss": f,
                "grad_norm": None if gradient is None else optax.tree.norm(gradient),
                "consensus_distance": apart,
                "finite": metrics.all_finite(params),
            }
            return row | self.tests(mean, test)

        def aged(steps: Any, arrivals: Arrivals) -> Any:
            return arrivals.staleness, arrivals.weight > 0

        def stay(there: Any, new: tuple[Tree, Any], old: tuple[Tree, Any]) -> tuple[Tree, Any]:
            # nobody reads the old models after the end, and to choose among all of them would copy them in every step
            (params, (state, models)), (before, (state_before, _)) = new, old
            return keep(there, params, before), (keep(there, state, state_before), models)

        return Pieces(ahead, step, record, aged, lambda ages: ages, stay)


averaged = optax.contrib.schedule_free_eval_params


def keep(predicate: Any, new: Tree, old: Tree) -> Tree:
    """`new` where the predicate holds, else `old`; clocks go on, since they are the same for all."""
    return jax.tree.map(
        lambda a, b: a if isinstance(a, Clock) else jnp.where(predicate, a, b),
        new,
        old,
        is_leaf=lambda x: isinstance(x, Clock),
    )


__all__ = ["Carry", "Program", "Reported", "averaged"]
