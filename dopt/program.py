"""What one worker does: draw a batch, take a gradient, update, and now and then record. Written once for all executors.

A trajectory is a loop over *segments*: at most `LONGEST` steps, whose batches are drawn ahead (drawing in the loop is
1.4 to 1.9 times slower), then a record where one is due. The bounds of the loop are arguments, so one compilation serves
any number of steps and the host can look in between.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from dopt import delays, draws, metrics
from dopt.algorithms.asynchronous.server import Arrival, Tables, server
from dopt.types import AXIS, Key, Problem, Tree

LONGEST = 1024  # steps of a segment: bounds the memory of batches drawn ahead
NEVER = np.int32(2**31 - 1)


class Inputs(NamedTuple):
    """What may differ between the runs of a group; stacked [runs, ...]."""

    seed: Any  # [] int32
    learning_rate: Any  # []
    form: Any  # the mixing matrix; None: no mix
    delay: Any  # [slots] distribution function of the delay; None: no delay
    arrivals: Any  # Arrival, leaves [events]: the schedule of a server; None: none
    length: Any  # [] int32 steps of this run, where the runs of a group differ in it; None: all alike


class Data(NamedTuple):
    """One worker's samples (of an event-driven method: all workers', stacked)."""

    samples: Tree  # leaves [samples, ...]
    count: Any  # [] int32 true samples
    evaluated: Tree  # leaves [evaluated, ...]: what metrics look at
    evaluated_count: Any  # [] int32
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
    bad: Any  # [] int32: first step at which the loss was not finite
    ages: Ages
    history: dict[str, Any]  # [records] each


@dataclass(frozen=True)
class Program:
    """The static description of a group: everything that changes shapes or code."""

    problem: Problem
    workers: int
    build: Callable[[Inputs], optax.GradientTransformationExtraArgs]
    dtype: Any
    batch_size: int | None
    metrics: tuple[str, ...]
    records: int
    longest: int  # steps of a segment
    full: int  # samples that every worker has
    full_evaluated: int  # the same, of what metrics look at
    staleness: str | None  # None; drawn per "step" or per "edge"; "constant"; "schedule"
    ragged: bool  # runs differ in length
    always_records: bool  # every segment ends in a record

    # -- pieces that workers and servers share --

    def loss(self, params: Tree, samples: Tree, count: Any, share: Any, key: Key | None, full: int) -> jax.Array:
        """fᵢ on all of one worker's samples, of which the first `full` are true on every worker.

        The loss of a batch is a mean, so what may be padding is taken one by one, with a mask.
        """
        size = len(jax.tree.leaves(samples)[0])
        head = self._loss(params, jax.tree.map(lambda a: a[:full], samples), key)
        if full == size:
            return share * head
        tail = jax.tree.map(lambda a: a[full:], samples)
        each = jax.vmap(lambda s: self._loss(params, jax.tree.map(lambda a: a[None], s), key))(tail)
        there = jnp.arange(full, size) < count
        return share * (full * head + jnp.sum(jnp.where(there, each, 0))) / count

    def _loss(self, params: Tree, batch: Tree, key: Key | None) -> jax.Array:
        return self.problem.loss(params, batch, key) if self.noisy else self.problem.loss(params, batch)

    @property
    def noisy(self) -> bool:
        return len(inspect.signature(self.problem.loss).parameters) > 2

    def drawn(self, inputs: Inputs, worker: Any, number: Any, count: Any) -> tuple[Any, Any]:
        """(sample numbers [batch] or None, noise key or None) of the worker's `number`-th computation."""
        index = None
        if self.batch_size is not None:
            index = draws.samples(inputs.seed, worker, number, self.batch_size, count)
        return index, draws.key(inputs.seed, worker, number) if self.noisy else None

    def gradient(
        self, params: Tree, data: Data, index: Any, key: Key | None, worker: Any = None
    ) -> tuple[jax.Array, Tree]:
        """(loss, gradient) of one worker on one batch, on all its samples where `index` is None.

        `worker` says whose, where `data` is stacked over all.
        """
        at = () if worker is None else (worker,)
        share = data.share[at]
        if index is None:
            samples, count = jax.tree.map(lambda a: a[at], (data.samples, data.count))
            return jax.value_and_grad(self.loss)(params, samples, count, share, key, self.full)
        batch = jax.tree.map(lambda a: a[*at, index], data.samples)
        return jax.value_and_grad(lambda p: share * self._loss(p, batch, key))(params)

    def local_value_and_grad(self, params: Tree, data: Data) -> tuple[jax.Array, Tree]:
        """fᵢ and ∇fᵢ on what metrics look at; the gradient only where it is asked for."""
        seen = (data.evaluated, data.evaluated_count, data.share, None, self.full_evaluated)
        if "grad_norm" not in self.metrics:
            return self.loss(params, *seen), None
        return jax.value_and_grad(self.loss)(params, *seen)

    def empty(self, params: Tree, state: Any) -> Carry:
        """A trajectory that has not begun."""
        zero = jnp.zeros((), jnp.float32)
        names = [*self.metrics, "finite", *(["staleness_mean", "staleness_max"] if self.staleness else [])]
        history = {name: jnp.full(self.records, jnp.nan, self.dtype) for name in names}
        return Carry(params, state, jnp.asarray(NEVER), Ages(zero, zero, zero), history)

    def segments(
        self, carry: Carry, common: Common, first: Any, last: Any, ahead: Callable, step: Callable, record: Callable
    ) -> Carry:
        """Segments first..last: draw ahead, step, record."""

        def segment(s: Any, carry: Carry) -> Carry:
            drawn = ahead(common.start[s])

            def one(j: Any, carry: Carry) -> Carry:
                return step(common.start[s] + j, jax.tree.map(lambda x: x[j], drawn), carry)

            carry = lax.fori_loop(0, common.count[s], one, carry)

            def write(carry: Carry) -> Carry:
                row = record(carry)
                history = {
                    name: lax.dynamic_update_index_in_dim(h, row[name].astype(h.dtype), common.slot[s], 0)
                    for name, h in carry.history.items()
                }
                return carry._replace(history=history, ages=jax.tree.map(jnp.zeros_like, carry.ages))

            return write(carry) if self.always_records else lax.cond(common.slot[s] >= 0, write, lambda c: c, carry)

        return lax.fori_loop(first, last, segment, carry)

    # -- a worker among workers --

    def worker_init(self, inputs: Inputs, start: Tree, worker: Any) -> Carry:
        params = self.problem.init(jax.random.key(inputs.seed)) if start is None else start
        params = jax.tree.map(lambda x: x.astype(self.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, params)
        return self.empty(params, self.build(inputs).init(params))

    def worker_advance(self, carry: Carry, inputs: Inputs, data: Data, common: Common, first: Any, last: Any) -> Carry:
        method, worker = self.build(inputs), lax.axis_index(AXIS)

        def ahead(start: Any) -> tuple[Any, Any, Any]:
            steps = start + jnp.arange(self.longest, dtype=jnp.int32)
            index, key = jax.vmap(lambda k: self.drawn(inputs, worker, k, data.count))(steps)
            return index, key, self.draw_delays(inputs, worker, steps)

        def step(k: Any, drawn: tuple[Any, Any, Any], carry: Carry) -> Carry:
            index, key, staleness = drawn
            extra = {} if staleness is None else {"staleness": staleness}
            loss, grads = self.gradient(method.read(carry.state, carry.params, **extra), data, index, key)
            updates, state = method.update(grads, carry.state, carry.params, **extra)
            new = Carry(
                optax.apply_updates(carry.params, updates),
                state,
                jnp.where(jnp.isfinite(loss), carry.bad, jnp.minimum(carry.bad, k)),
                self.age(carry.ages, staleness, k, self.senders(inputs, worker)),
                carry.history,
            )
            return self.only_before(inputs.length, k, new, carry)

        def record(carry: Carry) -> dict[str, Any]:
            mean_params = jax.tree.map(lambda x: lax.pmean(x, AXIS), carry.params)
            f, gradient = lax.pmean(self.local_value_and_grad(mean_params, data), AXIS)
            row = {
                "loss": f,
                "grad_norm": None if gradient is None else optax.tree.norm(gradient),
                "consensus_distance": lax.pmean(metrics.square_distance(carry.params, mean_params), AXIS),
                "finite": lax.pmin(metrics.all_finite(carry.params).astype(jnp.float32), AXIS),
            }
            return (
                row
                | self.tests(mean_params, common)
                | self.aged(
                    lax.psum(carry.ages.sum, AXIS),
                    lax.psum(carry.ages.number, AXIS),
                    lax.pmax(carry.ages.largest, AXIS),
                )
            )

        return self.segments(carry, common, first, last, ahead, step, record)

    def tests(self, params: Tree, common: Common) -> dict[str, Any]:
        return {name: f(params, common.test) for name, f in self.problem.metrics.items() if name in self.metrics}

    def draw_delays(self, inputs: Inputs, worker: Any, steps: Any) -> Any:
        """Staleness of each step: [steps], or [steps, workers] of each sender."""
        if self.staleness is None:
            return None
        if self.staleness == "constant":
            return jnp.broadcast_to(delays.at(inputs.delay, jnp.float32(0)), steps.shape)
        who, lanes = (worker, self.workers) if self.staleness == "edge" else (draws.EVERYONE, 1)
        u = jax.vmap(lambda k: draws.uniforms(inputs.seed, who, k, draws.DELAYS, lanes))(steps)
        ages = delays.at(inputs.delay, u)
        return ages if self.staleness == "edge" else ages[:, 0]

    def senders(self, inputs: Inputs, worker: Any) -> Any:
        """[workers] bool: whose models this worker mixes in; None where delays are not per sender."""
        if self.staleness != "edge":
            return None
        if hasattr(inputs.form, "off"):
            return inputs.form.off[worker] != 0
        return (
            jnp.zeros(self.workers, bool)
            .at[inputs.form.index[worker]]
            .set(inputs.form.weight[worker] != 0, mode="drop")
        )

    def age(self, ages: Ages, staleness: Any, k: Any, senders: Any) -> Ages:
        """Count this step's staleness; before the start there is only x⁰, so none is older than k."""
        if staleness is None:
            return ages
        real = jnp.minimum(staleness, k).astype(jnp.float32)
        if senders is None:
            return Ages(ages.sum + real, ages.number + 1, jnp.maximum(ages.largest, real))
        real = jnp.where(senders, real, 0)
        return Ages(
            ages.sum + real.sum(),
            ages.number + senders.sum().astype(jnp.float32),
            jnp.maximum(ages.largest, real.max()),
        )

    def aged(self, total: Any, number: Any, largest: Any) -> dict[str, Any]:
        return {"staleness_mean": total / jnp.maximum(number, 1), "staleness_max": largest} if self.staleness else {}

    def only_before(self, length: Any, k: Any, new: Carry, old: Carry) -> Carry:
        """`new`, or `old` where this run has ended already."""
        return jax.tree.map(lambda a, b: jnp.where(k < length, a, b), new, old) if self.ragged else new

    # -- a server and its arrivals --

    def server_init(self, inputs: Inputs, start: Tree, worker: Any) -> Carry:
        if start is not None:
            start = jax.tree.map(lambda x: x[0], start)
        carry = self.worker_init(inputs, start, worker)
        tables = server(self.build(inputs)).init(carry.params, self.workers)
        return carry._replace(state=(tables.state, tables.pulled))

    def server_advance(self, carry: Carry, inputs: Inputs, data: Data, common: Common, first: Any, last: Any) -> Carry:
        rule = server(self.build(inputs))

        def ahead(start: Any) -> tuple[Arrival, Any, Any]:
            arrivals = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, self.longest), inputs.arrivals)
            index, key = jax.vmap(lambda a: self.drawn(inputs, a.worker, a.batch, data.count[a.worker]))(arrivals)
            return arrivals, index, key

        def step(k: Any, drawn: tuple[Arrival, Any, Any], carry: Carry) -> Carry:
            arrival, index, key = drawn
            tables = Tables(carry.params, *carry.state)
            tables, loss = rule.event(
                tables, arrival, lambda params, worker, batch: self.gradient(params, data, index, key, worker)
            )
            bad = jnp.where(jnp.isfinite(loss), carry.bad, jnp.minimum(carry.bad, k))
            new = Carry(
                tables.params,
                (tables.state, tables.pulled),
                bad,
                self.age(carry.ages, arrival.staleness, k, None),
                carry.history,
            )
            return self.only_before(inputs.length, k, new, carry)

        def record(carry: Carry) -> dict[str, Any]:
            f, gradient = jax.vmap(self.local_value_and_grad, (None, 0))(carry.params, data)
            row = {
                "loss": f.mean(),
                "grad_norm": None if gradient is None else optax.tree.norm(jax.tree.map(lambda g: g.mean(0), gradient)),
                "consensus_distance": jnp.zeros(()),
                "finite": metrics.all_finite(carry.params).astype(jnp.float32),
            }
            return (
                row
                | self.tests(carry.params, common)
                | self.aged(carry.ages.sum, carry.ages.number, carry.ages.largest)
            )

        return self.segments(carry, common, first, last, ahead, step, record)


__all__ = ["Carry", "Common", "Data", "Inputs", "Program", "Tables"]
