"""The static description of a group's program, and what every worker does in it: draw a batch, take a loss and a gradient."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dopt import draws, metrics
from dopt.algorithms.method import Method
from dopt.engine.carry import Ages, Carry, Reported, averaged
from dopt.facts.inputs import Data, Inputs, Shard, Weighed
from dopt.problems.sound import takes_key
from dopt.types import Array, Key, Problem, Tree, Whole

AGES = ("staleness_mean", "staleness_max")


@dataclass(frozen=True)
class Program:
    """Everything that changes shapes or code."""

    problem: Problem
    workers: int
    build: Callable[[Inputs], Method]
    dtype: Any
    batch_size: int | None
    metrics: tuple[str, ...]
    registered: tuple[str, ...]  # of them those that come from outside
    records: int
    every: int  # steps between two records
    staleness: str | None  # None; drawn per "step", "edge" or "coordinate"; "constant"; "fixed" per edge; "schedule"
    ragged: bool  # runs differ in length
    kept: int = 1  # models that a server's replay keeps
    events: bool = False  # driven by arrivals
    local_steps: int = 1  # computations between a pull and a push
    is_peer_to_peer: bool = False  # driven by arrivals, without a server: all workers' models are there
    is_sharded: bool = False  # each worker keeps only a part of the model
    center: Callable[[Any], Tree] | None = None  # state -> a model that all share beside their own
    weighs: str = "gradients"  # what counts by a worker's share: those, or "models", or "arrivals" at a server
    average: Callable[[Any], Any] | None = None  # state -> what schedule-free averages; None: params are the model

    # -- what is known of it --

    @property
    def has_ages(self) -> bool:
        """Whether the staleness is one number for each step or sender."""
        return self.staleness not in (None, "coordinate")

    @property
    def noisy(self) -> bool:
        return takes_key(self.problem.loss)

    @property
    def columns(self) -> tuple[str, ...]:
        """What a record says, by columns of the history: the metrics, and at the end the ages."""
        center = ("center_loss",) if self.center is not None else ()
        return (*self.metrics, "finite", *center, *(AGES if self.has_ages else ()))

    # -- its history --

    def empty(self, params: Tree, state: Tree) -> Carry:
        """A trajectory that has not begun."""
        zero = jnp.zeros((), self.dtype)
        history = jnp.full((self.records, len(self.columns)), jnp.nan, self.dtype)
        return Carry(params, state, Ages(zero, zero, zero), history)

    def row(self, found: Mapping[str, Any], columns: tuple[str, ...] | None = None) -> jax.Array:
        """[columns]: what a record has found, in order."""
        return jnp.stack([jnp.asarray(found[name], self.dtype) for name in columns or self.columns])

    def named(self, history: Array) -> dict[str, Any]:
        """A history [..., records, columns] by name, [..., records] each."""
        return {name: history[..., i] for i, name in enumerate(self.columns)}

    def reported(self, state: Tree) -> Reported:
        return Reported(*(None if part is None else part(state) for part in (self.center, self.average)))

    # -- what a worker does --

    def model_0(self, inputs: Inputs, start: Tree) -> Tree:
        """The model a worker starts from, in the run's precision."""
        params = self.problem.init(draws.start(inputs.seed)) if start is None else start
        return jax.tree.map(lambda x: jnp.asarray(x, self.dtype), params)

    def drawn(self, inputs: Inputs, worker: Whole, number: Whole, count: Array) -> tuple[Any, Any]:
        """(sample numbers [batch] or None, noise key or None) of the worker's `number`-th computation."""
        index = None
        if self.batch_size is not None:
            index = draws.samples(inputs.seed, worker, number, self.batch_size, count)
        return index, draws.key(inputs.seed, worker, number) if self.noisy else None

    def gradient(self, params: Tree, data: Data, index: Any, key: Key | None, worker: Whole | None = None) -> Tree:
        """Gradient of one worker on one batch, on all its samples where `index` is None.

        `worker` says whose, where `data` is stacked over all.
        """
        at = () if worker is None else (worker,)
        share = data.share[at] if self.weighs == "gradients" else jnp.ones_like(data.share[at])
        if index is None:
            return jax.grad(self.loss)(params, jax.tree.map(lambda a: a[at], data.whole), share, key)
        batch = jax.tree.map(lambda a: a[*at, index], data.samples)
        return jax.grad(lambda p: share * self._loss(p, batch, key))(params)

    def loss(self, params: Tree, shard: Shard, share: jax.Array, key: Key | None) -> jax.Array:
        """fᵢ on one worker's shard.

        The loss of a batch is a mean, so what may be padding is taken one by one, with a mask.
        """
        full, rest = (len(jax.tree.leaves(part)[0]) for part in (shard.head, shard.tail))
        head = self._loss(params, shard.head, key)
        if not rest:
            return share * head
        each = jax.vmap(lambda s: self._loss(params, jax.tree.map(lambda a: a[None], s), key))(shard.tail)
        there = jnp.arange(full, full + rest) < shard.count
        mean: jax.Array = share * (full * head + jnp.sum(jnp.where(there, each, 0))) / shard.count
        return mean

    def mean_loss(self, params: Tree, seen: Shard | Weighed, share: jax.Array) -> jax.Array:
        """F, the mean of all fᵢ. `seen`, `share`: stacked over all workers."""
        if isinstance(seen, Shard):
            each: jax.Array = jax.vmap(lambda shard, weight: self.loss(params, shard, weight, None))(seen, share)
            return each.mean()
        assert self.problem.weighted_loss is not None
        samples = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), seen.samples)
        if not self.problem.weighted:
            return self.problem.weighted_loss(params, samples, seen.weights.reshape(-1) / len(share))
        weights = seen.weights * (share / share.sum())[:, None]
        return share.mean() * self.problem.weighted_loss(params, samples, weights.reshape(-1))

    def own_loss(self, params: Tree, seen: Shard | Weighed, share: jax.Array) -> jax.Array:
        """fᵢ, by what metrics look at of one worker."""
        return self.mean_loss(params, *jax.tree.map(lambda a: a[None], (seen, share)))

    def _loss(self, params: Tree, batch: Tree, key: Key | None) -> jax.Array:
        return self.problem.loss(params, batch, key) if self.noisy else self.problem.loss(params, batch)

    # -- what a record asks --

    def model(self, params: Tree, state: Tree) -> Tree:
        """What is evaluated: the params, or the average that a schedule-free optimizer keeps of them."""
        return params if self.average is None else averaged(self.average(state), params)

    def evaluate(self, f: Callable[[Tree], jax.Array], params: Tree) -> tuple[jax.Array, Tree]:
        """A function and its gradient from one evaluation; the gradient only where it is asked for."""
        return jax.value_and_grad(f)(params) if "grad_norm" in self.metrics else (f(params), None)

    def tests(self, mean: Tree, models: Callable[[], Tree], test: Tree) -> dict[str, Any]:
        """What the problem's own metrics and registered ones say of the mean model, or of all: `models` stacks them."""
        found = {name: f(mean, test) for name, f in self.problem.metrics.items() if name in self.metrics}
        seen = dataclasses.replace(self.problem, test=test)
        for name in self.registered:
            found[name] = metrics.METRICS[name].make(models() if metrics.of_models(name) else mean, seen)
        return found
