"""What one worker does: draw a batch, take a gradient, update, and now and then record. Written once for all executors.

A trajectory is a loop over *segments*: at most `LONGEST` steps, whose batches are drawn ahead (drawing in the loop is
1.4 to 1.9 times slower), then a record where one is due. The bounds of the loop are arguments, so one compilation serves
any number of steps and the host can look in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax import lax

from dopt import delays, draws, metrics, mixing, rings
from dopt.algorithms.method import Method
from dopt.algorithms.server import Arrivals, Tables, at, server_of
from dopt.problems.sound import takes_key
from dopt.types import AXIS, Clock, Key, Problem, Tree

LONGEST = 1024  # steps of a segment: bounds the memory of batches drawn ahead


class Inputs(NamedTuple):
    """What may differ between the runs of a group; stacked [runs, ...]."""

    seed: Any  # [] int32
    learning_rate: Any  # []
    form: Any  # the mixing matrix, or two of them; None: no mix
    modulus: Any  # [] ‖W - J‖₂, for methods that ask for it
    link_loss: Any  # [] probability with which a link fails; None: none does
    delay: Any  # [slots] distribution function of the delay; None: no delay, or one that is not drawn
    ages: Any  # [workers, workers] int32: how old each reader reads each sender, for good; None: it changes
    turns: Any  # Turns, leaves [waves, workers]: whose turn it is, where nobody waits; None: everyone's
    arrivals: Any  # Arrivals, leaves [steps, ...]: the schedule of a server; None: none
    length: Any  # [] int32 steps of this run, where the runs of a group differ in it; None: all alike


class Turns(NamedTuple):
    """Workers that wait for nobody: who updates in which wave."""

    applied: Any  # bool
    batch: Any  # int32: which of the worker's computations it is


class Shard(NamedTuple):
    """All samples of one worker, or those that metrics look at."""

    head: Tree  # leaves [common, ...]: true on every worker
    tail: Tree  # leaves [rest, ...]: true up to `count`, then padding
    count: Any  # [] int32 true samples, head and tail together


class Data(NamedTuple):
    """One worker's samples (of an event-driven method: all workers', stacked)."""

    samples: Tree  # leaves [samples, ...]: where batches are drawn from
    count: Any  # [] int32 true samples
    whole: Shard | None  # for full local gradients; None: batches are drawn
    seen: Shard  # what metrics look at
    share: Any  # [] the worker's weight in f, mean 1


class Common(NamedTuple):
    """The same for all: the held-out test set and the segments."""

    test: Tree
    start: Any  # [segments] int32 first step
    count: Any  # [segments] int32 steps
    slot: Any  # [segments] int32 where the record goes; -1: no record


class Ages(NamedTuple):
    """Staleness since the last record."""

    sum: Any
    number: Any
    largest: Any


class Carry(NamedTuple):
    """One worker's part of a trajectory."""

    params: Tree
    state: Any
    ages: Ages
    history: dict[str, Any]  # [records] each


class Reported(NamedTuple):
    """What of a state a result needs."""

    center: Tree  # a model that all share beside their own; None: there is none
    average: Any  # what a schedule-free optimizer's model is made of; None: it is the params


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
    longest: int  # steps of a segment
    staleness: str | None  # None; drawn per "step", "edge" or "coordinate"; "constant"; "fixed" per edge; "schedule"
    ragged: bool  # runs differ in length
    always_records: bool  # every segment ends in a record
    kept: int = 1  # models that a server's replay keeps
    rounds: int = 1  # computations between a pull and a push
    peers: bool = False  # driven by arrivals, without a server: all workers' models are there
    parts: bool = False  # each worker keeps but a part of the model
    center: Callable[[Any], Tree] | None = None  # state -> a model that all share beside their own
    weighs: str = "gradients"  # what counts by a worker's share: those, or "models", or "arrivals" at a server
    average: Callable[[Any], Any] | None = None  # state -> what schedule-free averages; None: params are the model

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

    def empty(self, params: Tree, state: Any) -> Carry:
        """A trajectory that has not begun."""
        zero = jnp.zeros((), self.dtype)
        names = [*self.metrics, "finite", *(["staleness_mean", "staleness_max"] if self.has_ages else [])]
        names += ["center_loss"] if self.center is not None else []
        history = {name: jnp.full(self.records, jnp.nan, self.dtype) for name in names}
        return Carry(params, state, Ages(zero, zero, zero), history)

    def segments(
        self,
        carry: Carry,
        inputs: Inputs,
        common: Common,
        bounds: tuple[Any, Any],
        ahead: Callable,
        step: Callable,
        record: Callable,
        aged: Callable = lambda start, staleness: staleness,
        stay: Callable | None = None,
    ) -> Carry:
        """The segments within `bounds`: draw ahead, step, record.

        Args:
          ahead: first step -> (drawn, staleness), leaves [steps of a segment, ...]; staleness may be None.
          step: (k, drawn of this step, its staleness, params, state) -> (params, state).
          record: carry -> name -> value.
          aged: (first step, staleness of the steps) -> what counts as age of a segment: None, [steps], or a pair
            ([steps, senders], whether it counts) where there is one for each sender.
          stay: as `keep`, which it is by default: what of a shorter run stays when it has ended.
        """

        def segment(s: Any, carry: Carry) -> Carry:
            start, count = common.start[s], common.count[s]
            drawn, staleness = ahead(start)

            def one(j: Any, model: tuple[Tree, Any]) -> tuple[Tree, Any]:
                here = jax.tree.map(lambda x: x[j], (drawn, staleness))
                new = step(start + j, *here, *model)
                return new if not self.ragged else (stay or keep)(start + j < inputs.length, new, model)

            params, state = lax.fori_loop(0, count, one, (carry.params, carry.state))
            taken = jnp.arange(self.longest) < (jnp.minimum(count, inputs.length - start) if self.ragged else count)
            carry = Carry(params, state, self.age(carry.ages, aged(start, staleness), start, taken), carry.history)

            def write(carry: Carry) -> Carry:
                row = record(carry)
                history = {
                    name: lax.dynamic_update_index_in_dim(h, row[name].astype(h.dtype), common.slot[s], 0)
                    for name, h in carry.history.items()
                }
                return carry._replace(history=history, ages=jax.tree.map(jnp.zeros_like, carry.ages))

            return write(carry) if self.always_records else lax.cond(common.slot[s] >= 0, write, lambda c: c, carry)

        return lax.fori_loop(*bounds, segment, carry)

    def age(self, ages: Ages, aged: Any, start: Any, taken: Any) -> Ages:
        """Count the ages of the steps `taken`; before step 0 there is only x⁰, so none is older than its step."""
        if aged is None:
            return ages
        known, counts, old = start + jnp.arange(self.longest), taken, aged
        if isinstance(aged, tuple):
            old, there = aged
            known, counts = known[:, None], taken[:, None] & there
        real = jnp.where(counts, jnp.minimum(old, known), 0).astype(self.dtype)
        return Ages(
            ages.sum + real.sum(), ages.number + counts.sum(dtype=self.dtype), jnp.maximum(ages.largest, real.max())
        )

    def aged(self, total: Any, number: Any, largest: Any) -> dict[str, Any]:
        return {"staleness_mean": total / jnp.maximum(number, 1), "staleness_max": largest} if self.has_ages else {}

    def model(self, carry: Carry) -> Tree:
        """What is evaluated: the params, or the average that a schedule-free optimizer keeps of them."""
        return carry.params if self.average is None else averaged(self.average(carry.state), carry.params)

    def reported(self, state: Any) -> Reported:
        return Reported(*(None if part is None else part(state) for part in (self.center, self.average)))

    def tests(self, params: Tree, common: Common) -> dict[str, Any]:
        return {name: f(params, common.test) for name, f in self.problem.metrics.items() if name in self.metrics}

    # -- a worker among workers --

    def start(self, inputs: Inputs, start: Tree) -> Tree:
        """The model a worker starts from, in the run's precision."""
        params = self.problem.init(draws.start(inputs.seed)) if start is None else start
        return jax.tree.map(lambda x: jnp.asarray(x, self.dtype), params)

    def worker_init(self, inputs: Inputs, start: Tree, worker: Any) -> Carry:
        params, method = self.start(inputs, start), self.build(inputs)
        return self.empty(method.place(params), method.init(params))

    def worker_advance(self, carry: Carry, inputs: Inputs, data: Data, common: Common, first: Any, last: Any) -> Carry:
        method, worker = self.build(inputs), lax.axis_index(AXIS)

        def ahead(start: Any) -> tuple[Any, Any]:
            steps = start + jnp.arange(self.longest, dtype=jnp.int32)
            numbers, turns = steps, None
            if inputs.turns is not None:
                here = jax.tree.map(lambda t: lax.dynamic_slice_in_dim(t, start, self.longest)[:, worker], inputs.turns)
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

        def record(carry: Carry) -> dict[str, Any]:
            params = self.model(carry)
            params = method.read(carry.state, params) if self.parts else params
            mean_params = jax.tree.map(lambda x: lax.pmean(x, AXIS), params)
            local = self.evaluate(lambda p: self.loss(p, data.seen, data.share, None), mean_params)
            f, gradient = lax.pmean(local, AXIS)
            row = {
                "loss": f,
                "grad_norm": None if gradient is None else optax.tree.norm(gradient),
                "consensus_distance": lax.pmean(metrics.square_distance(params, mean_params), AXIS),
                "finite": lax.pmin(metrics.all_finite(carry.params).astype(jnp.float32), AXIS),
            }
            if self.center is not None:
                z = self.center(carry.state)
                row["center_loss"] = lax.pmean(self.loss(z, data.seen, data.share, None), AXIS)
            return (
                row
                | self.tests(mean_params, common)
                | self.aged(
                    lax.psum(carry.ages.sum, AXIS),
                    lax.psum(carry.ages.number, AXIS),
                    lax.pmax(carry.ages.largest, AXIS),
                )
            )

        def aged(start: Any, staleness: Any) -> Any:
            if self.staleness not in ("edge", "fixed"):
                return staleness
            who, there = self.senders(inputs, worker, start + jnp.arange(self.longest, dtype=jnp.int32))
            if self.staleness == "fixed":
                return jnp.asarray(inputs.ages)[worker][who], there
            return staleness.senders, there

        return self.segments(carry, inputs, common, (first, last), ahead, step, record, aged)

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
        lanes = jnp.concatenate([who, jnp.full((self.longest, 1), worker, who.dtype)], 1)
        ages = jax.vmap(drawn)(steps, lanes)
        return mixing.Ages(ages[:, :-1], ages[:, -1])

    def senders(self, inputs: Inputs, worker: Any, steps: Any) -> Any:
        """(whose models this worker mixes in, whether that counts), [steps, senders]."""
        form = inputs.form[0] if isinstance(inputs.form, tuple) else inputs.form
        return jax.vmap(lambda k: mixing.senders(form, k, worker))(steps)

    # -- arrivals, at a server or among peers --

    def server_init(self, inputs: Inputs, start: Tree, worker: Any) -> Carry:
        rule = self.build(inputs)
        if not self.peers:
            params = self.start(inputs, None if start is None else at(start, 0))
        elif start is None:
            params = rings.ring(self.start(inputs, None), self.workers)
        else:
            params = self.start(inputs, start)
        tables = server_of(rule).init(params, self.workers, self.kept)
        return self.empty(tables.params, (tables.state, tables.models))

    def server_advance(self, carry: Carry, inputs: Inputs, data: Data, common: Common, first: Any, last: Any) -> Carry:
        event = server_of(self.build(inputs)).event

        def ahead(start: Any) -> tuple[Any, Any]:
            arrivals = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, self.longest), inputs.arrivals)
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

        def record(carry: Carry) -> dict[str, Any]:
            each = jax.vmap(lambda p, seen, share: self.loss(p, seen, share, None), (None, 0, 0))
            mean, apart = self.model(carry), jnp.zeros(())
            if self.peers:
                mean = jax.tree.map(lambda x: x.mean(0), carry.params)
                apart = jax.vmap(metrics.square_distance, (0, None))(carry.params, mean).mean()
            f, gradient = self.evaluate(lambda p: each(p, data.seen, data.share).mean(), mean)
            row = {
                "loss": f,
                "grad_norm": None if gradient is None else optax.tree.norm(gradient),
                "consensus_distance": apart,
                "finite": metrics.all_finite(carry.params).astype(jnp.float32),
            }
            return row | self.tests(mean, common) | self.aged(carry.ages.sum, carry.ages.number, carry.ages.largest)

        def aged(start: Any, arrivals: Arrivals) -> Any:
            return (arrivals.staleness, arrivals.weight > 0) if self.has_ages else None

        def stay(there: Any, new: tuple[Tree, Any], old: tuple[Tree, Any]) -> tuple[Tree, Any]:
            # nobody reads the old models after the end, and to choose among all of them would copy them in every step
            (params, (state, models)), (before, (state_before, _)) = new, old
            return keep(there, params, before), (keep(there, state, state_before), models)

        return self.segments(carry, inputs, common, (first, last), ahead, step, record, aged, stay)


averaged = optax.contrib.schedule_free_eval_params


def keep(predicate: Any, new: Tree, old: Tree) -> Tree:
    """`new` where the predicate holds, else `old`; clocks go on, since they are the same for all."""
    return jax.tree.map(
        lambda a, b: a if isinstance(a, Clock) else jnp.where(predicate, a, b),
        new,
        old,
        is_leaf=lambda x: isinstance(x, Clock),
    )


__all__ = ["Carry", "Common", "Data", "Inputs", "Program", "Reported", "Tables", "averaged"]
