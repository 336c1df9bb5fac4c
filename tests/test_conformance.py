"""The conformance table: every method is its equation, on every executor, and its special cases hold.

A row of `TABLE` is a method, or a variant of it. The right-hand sides are `oracles`: NumPy, float64. Random numbers are
recomputed through `dopt.draws`, `dopt.delays` and `dopt.cluster`: they are a function of (seed, worker, number) alone,
which is what these tests rest on, and what the tests of those modules prove.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from jax import lax

import dopt
from dopt import Problem, Result, Run, cluster, delays, draws
from dopt.algorithms import ALGORITHMS
from dopt.group import matrix
from dopt.run import options_of

DIM, SAMPLES, STEPS, EVERY = 3, 4, 12, 5  # records at 0, 5, 10 and, off the beat, 12
ROUNDING = {"float32": 1e-6, "float64": 1e-10}


# -- the table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Special:
    """One special case: the row with `changes` is the run `equals`, or a plain optax loop."""

    name: str
    equals: dict[str, Any] | Callable[[Problem], np.ndarray]  # fields of another run; or problem -> models [n, d]
    how: str  # exact: to the last bit; rounding
    changes: dict[str, Any] = field(default_factory=dict)
    workers: int = 8
    graph: Any = None
    apart: bool = True  # workers start apart


@dataclass(frozen=True, eq=False)
class Row:
    """One method, or a variant of it."""

    name: str
    run: dict[str, Any]
    oracle: Callable[[oracles.Setting], np.ndarray]
    others: tuple[dict[str, Any], ...]  # changes that need no second compilation
    special: tuple[Special, ...]
    equivariant: bool = True  # permuting the workers permutes the result: not where each worker draws delays of its own
    relabelled: dict[str, Any] = field(default_factory=dict)  # changes without which it would not

    @property
    def has_worker_axis(self) -> bool:
        return not ALGORITHMS[self.run["algorithm"]].traits["events"]

    @property
    def is_random(self) -> bool:
        return isinstance(self.run.get("delay"), str) or self.run.get("cluster") == "exponential"


def plain_optax(problem: Problem, optimizer: optax.GradientTransformation, together: bool = False) -> np.ndarray:
    """[n, d]: what a loop that has never heard of dopt makes of each fᵢ, or (together) of f."""

    def descend(start: Any, f: Callable[[Any], jax.Array]) -> Any:
        def step(_: Any, carry: Any) -> Any:
            params, state = carry
            updates, state = optimizer.update(jax.grad(f)(params), state, params)
            return optax.apply_updates(params, updates), state

        return lax.fori_loop(0, STEPS, step, (start, optimizer.init(start)))[0]

    def mean_loss(params: Any) -> jax.Array:
        return jnp.mean(jax.vmap(problem.loss, (None, 0))(params, data))

    with jax.enable_x64(True):
        data, start = jax.tree.map(jnp.asarray, (problem.data, problem.start))
        if together:
            one = jax.jit(partial(descend, f=mean_loss))(jax.tree.map(lambda x: x[0], start))
            return np.broadcast_to(vector(one), (len(problem.data["y"]), DIM + 1))
        each = jax.vmap(lambda own, start: descend(start, lambda params: problem.loss(params, own)))
        return vector(jax.jit(each)(data, start))


def is_sgd(name: str = "one_worker_is_sgd", **changes: Any) -> Special:
    graph = changes.pop("graph", None)
    return Special(
        name, lambda problem: plain_optax(problem, optax.sgd(0.05)), "rounding", changes, workers=1, graph=graph
    )


def any_optimizer(name: str, optimizer: optax.GradientTransformation, **options: Any) -> Special:
    return Special(
        f"with_{name}_is_the_optax_loop",
        lambda problem: plain_optax(problem, optimizer, together=True),
        "rounding",
        {"optimizer": name, **options},
        apart=False,
    )


separate = Special(
    "identity_mixing_is_separate_sgds",
    lambda problem: plain_optax(problem, optax.sgd(0.05)),
    "rounding",
    {"strict": False},
    graph=np.eye(8),
)
ALONE = np.ones((1, 1))
GOSSIP = {"algorithm": "gossip_sgd", "topology": "exponential"}  # directed: W and its transpose differ
DELAYED = {"algorithm": "delayed_gossip_sgd", "topology": "exponential"}
UNIFORM, GEOMETRIC = {"delay": "uniform", "delay.max": 3}, {"delay": "geometric", "delay.max": 5, "delay.mean": 2.0}
GRAPHS = ({"topology": "star"}, {"topology": "complete", "learning_rate": 0.1})
NO_DELAY = {"delay": 0, "delay.max": None}
no_delay_is_gossip = Special("no_delay_is_gossip", GOSSIP, "exact", NO_DELAY)

TABLE = [
    Row(
        "allreduce_sgd",
        {"algorithm": "allreduce_sgd"},
        oracles.allreduce_sgd,
        ({"learning_rate": 0.1}, {"learning_rate": 0.02}),
        (
            is_sgd(),
            any_optimizer("adam", optax.adam(0.05)),
            any_optimizer("sgd", optax.sgd(0.05, 0.9, True), **{"optimizer.momentum": 0.9, "optimizer.nesterov": True}),
        ),
    ),
    Row(
        "delayed_sgd, iterate",
        {"algorithm": "delayed_sgd", **UNIFORM},
        oracles.delayed_sgd_iterate,
        ({"delay": 2, "delay.max": None}, GEOMETRIC | {"learning_rate": 0.1}),
        (is_sgd(**NO_DELAY), Special("no_delay_is_allreduce", {"algorithm": "allreduce_sgd"}, "exact", NO_DELAY)),
    ),
    Row(
        "delayed_sgd, queue",
        {"algorithm": "delayed_sgd", "algorithm.read": "queue", "delay": 3},
        oracles.delayed_sgd_queue,
        ({"delay": 5}, {"delay": 0, "learning_rate": 0.1}),
        (is_sgd(**NO_DELAY), Special("no_delay_is_allreduce", {"algorithm": "allreduce_sgd"}, "exact", NO_DELAY)),
    ),
    Row(
        "async_sgd",
        {"algorithm": "async_sgd", "cluster": "exponential", "cluster.profile": "straggler", "cluster.slowdown": 4.0},
        oracles.async_sgd,
        ({"cluster.slowdown": 20.0}, {"cluster": "constant", "cluster.profile": "linear", "cluster.slowdown": None}),
        (is_sgd(),),
        relabelled={"cluster": "constant", "cluster.profile": None, "cluster.slowdown": None},
    ),
    Row(
        "gossip_sgd, combine then adapt",
        GOSSIP,
        oracles.combine_then_adapt,
        GRAPHS,
        (is_sgd(graph=ALONE), separate),
    ),
    Row(
        "gossip_sgd, adapt then combine",
        GOSSIP | {"algorithm.adapt_then_combine": True},
        oracles.adapt_then_combine,
        GRAPHS,
        (
            is_sgd(graph=ALONE),
            separate,
            Special(
                "averaging_all_is_allreduce",
                {"algorithm": "allreduce_sgd"},
                "rounding",
                {"topology": "complete"},
                apart=False,
            ),
        ),
    ),
    Row(
        "delayed_gossip_sgd, constant delay",
        DELAYED | {"delay": 3},
        oracles.delayed_gossip,
        (*GRAPHS, {"topology": "path", "delay": 1}),
        (is_sgd("one_worker_is_sgd_whatever_the_delay", delay=3, graph=ALONE), no_delay_is_gossip),
    ),
    Row(
        "delayed_gossip_sgd, constant delay, of oneself too",
        DELAYED | {"delay": 3, "algorithm.delay_self": True},
        oracles.delayed_gossip_self,
        (*GRAPHS, {"topology": "path", "delay": 1}),
        (no_delay_is_gossip,),
    ),
    Row(
        "delayed_gossip_sgd, random delays",
        DELAYED | UNIFORM,
        oracles.delayed_gossip,
        (*GRAPHS, GEOMETRIC | {"topology": "path"}),
        (),
        equivariant=False,
    ),
    Row(
        "delayed_gossip_sgd, random delays, of oneself too",
        DELAYED | UNIFORM | {"algorithm.delay_self": True},
        oracles.delayed_gossip_self,
        (*GRAPHS, GEOMETRIC | {"topology": "path"}),
        (),
        equivariant=False,
    ),
]
ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
AXIS_ROWS = pytest.mark.parametrize("row", [row for row in TABLE if row.has_worker_axis], ids=lambda row: row.name)
EVENT_ROWS = pytest.mark.parametrize("row", [row for row in TABLE if not row.has_worker_axis], ids=lambda row: row.name)


# -- one problem for all --------------------------------------------------------------------------------------------


@cache
def least_squares(n: int, apart: bool = True) -> Problem:
    """fᵢ = mean of ½ (a·w + b - y)² over worker i's samples; a pytree of a vector and a scalar."""
    rng = np.random.default_rng(n)
    data = {"a": rng.standard_normal((n, SAMPLES, DIM)), "y": rng.standard_normal((n, SAMPLES))}
    start = {"w": rng.standard_normal((n, DIM)), "b": rng.standard_normal(n)}
    if not apart:
        start = jax.tree.map(lambda x: np.broadcast_to(x[0], x.shape), start)

    def loss(params: Any, batch: Any) -> jax.Array:
        return 0.5 * jnp.mean((batch["a"] @ params["w"] + params["b"] - batch["y"]) ** 2)

    return Problem(lambda key: jax.tree.map(lambda x: jnp.zeros(x.shape[1:]), start), loss, data, start=start)


def permuted(problem: Problem, order: np.ndarray) -> Problem:
    data, start = jax.tree.map(lambda x: x[order], (problem.data, problem.start))
    return Problem(problem.init, problem.loss, data, start=start)


def vector(params: Any) -> np.ndarray:
    """[..., d] of a tree."""
    return np.concatenate([np.asarray(params["b"])[..., None], np.asarray(params["w"])], -1)


def rows_of(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """A [n, samples, d] and y [n, samples], so that fᵢ(x) = ‖Aᵢx - yᵢ‖² / (2 samples), x as `vector` has it."""
    a, y = problem.data["a"], problem.data["y"]
    return np.concatenate([np.ones((*y.shape, 1)), a], -1), y


# -- runs and their right-hand sides ---------------------------------------------------------------------------------


def describe(row: Row, workers: int, changes: dict[str, Any], **fields: Any) -> Run:
    """A row's run; a change to None takes an option away."""
    flat = {
        "workers": workers,
        "learning_rate": 0.05,
        "steps": STEPS,
        "record_every": EVERY,
        "metrics": ("consensus_distance", "loss"),
        "precision": "float64",
        "seed": 3,
        **row.run,
        **fields,
        **changes,
    }
    return Run.from_dict({name: value for name, value in flat.items() if value is not None})


@cache
def result(row: Row, workers: int, executor: str, **fields: Any) -> Result:
    """One run of a row; the same is made once."""
    described = describe(row, workers, {}, executor=executor, **fields)
    return dopt.run(described, problem=least_squares(workers))


def models(result: Any) -> np.ndarray:
    return vector(result.params)


def ages(run: Run) -> np.ndarray:
    """[steps, n, n]: how old the model of worker j is that worker i reads at step k."""
    n, law = run.workers, delays.table(run.delay, options_of(run, "delay"))
    if isinstance(run.delay, int):
        return np.full((STEPS, n, n), run.delay)
    together = ALGORITHMS[run.algorithm].traits["staleness"] == "step"

    def draw(step: Any, worker: Any) -> jax.Array:
        who, lanes = (draws.EVERYONE, 1) if together else (worker, n)
        u = draws.uniforms(run.seed, who, step, draws.DELAYS, lanes)
        return delays.at(jnp.asarray(delays.cumulative(law, len(law))), u) * jnp.ones(n, jnp.int32)

    workers, steps = np.arange(n, dtype=np.int32), np.arange(STEPS, dtype=np.int32)
    return np.asarray(jax.jit(jax.vmap(jax.vmap(draw, (None, 0)), (0, None)))(steps, workers))


def oracle(row: Row, run: Run, w: np.ndarray | None = None) -> np.ndarray:
    """[steps + 1, n, d]: the models of a resolved run, by NumPy."""
    n, problem = run.workers, least_squares(run.workers)
    a, y = rows_of(problem)
    batches = np.broadcast_to(np.arange(SAMPLES), (n, STEPS, SAMPLES))
    if run.batch_size is not None:

        def draw(worker: Any, number: Any) -> jax.Array:
            return draws.samples(run.seed, worker, number, run.batch_size, np.int32(SAMPLES))

        numbers = np.arange(STEPS, dtype=np.int32)
        drawn = jax.jit(jax.vmap(jax.vmap(draw, (None, 0)), (0, None)))(np.arange(n, dtype=np.int32), numbers)
        batches = np.asarray(drawn)

    def gradient(i: int, x: np.ndarray, m: int) -> np.ndarray:
        rows = batches[i, m]
        return a[i, rows].T @ (a[i, rows] @ x - y[i, rows]) / len(rows)

    def seconds(i: int, m: int) -> float:
        machines = cluster.make(run.cluster, n, run.seed, **options_of(run, "cluster"))
        return float(cluster.worker_times(machines, i, m + 1)[m])

    if w is None and run.topology is not None:
        w = matrix(run)
    momentum = run.options.get("optimizer.momentum", 0.0)
    return row.oracle(
        oracles.Setting(
            gradient, vector(problem.start), STEPS, run.learning_rate, momentum, w, ages(run), cache(seconds)
        )
    )


def recorded(trajectory: np.ndarray) -> dict[str, np.ndarray]:
    """What the history of [steps + 1, n, d] models must say."""
    at = trajectory[[0, 5, 10, 12]]
    mean = at.mean(1, keepdims=True)
    return {"mean": mean, "consensus_distance": ((at - mean) ** 2).sum(-1).mean(-1)}


def assert_is(found: Any, trajectory: np.ndarray, tolerance: float) -> None:
    """The models at the end, and f(x̄) and the consensus distance on the way, are those of NumPy."""
    np.testing.assert_allclose(models(found), trajectory[-1], rtol=tolerance, atol=tolerance)
    run_workers = trajectory.shape[1]
    expected = recorded(trajectory)
    n = max(run_workers, found.run.workers) if isinstance(found, Result) else run_workers
    a, y = rows_of(least_squares(n))
    loss = [0.5 * np.mean((a @ x[0] - y) ** 2) for x in expected["mean"]]
    np.testing.assert_allclose(found.history["loss"], loss, rtol=tolerance, atol=tolerance)
    distance = found.history["consensus_distance"]
    np.testing.assert_allclose(distance, expected["consensus_distance"], rtol=tolerance, atol=tolerance)
