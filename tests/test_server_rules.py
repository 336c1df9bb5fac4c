"""Server rules in the engine: as optax transformations of their own, and what theory says of them on quadratics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quadratics import quadratics, random_quadratics
from refusals import refused

import dopt
from dopt import InputError, Problem, Run, algorithms, engine, schedule, theory
from dopt.algorithms import ALGORITHMS, traits
from dopt.engine import group_of, run_slab
from dopt.facts.clock import coordination_of, machines_of

RULES = {
    "async_sgd": {},
    "staleness_aware_sgd": {},
    "delay_adaptive_sgd": {"threshold": 2},
    "drop_stale_sgd": {"max_staleness": 3},
    "ringmaster_sgd": {"threshold": 3},
    "ssp_sgd": {"slack": 1},
    "dc_asgd": {"variant": "adaptive"},
    "k_sync_sgd": {"k": 3},
    "k_batch_sync_sgd": {"k": 7},
    "k_async_sgd": {"k": 3},
    "k_batch_async_sgd": {"k": 7},
    "rennala_sgd": {"batch": 4},
    "malenia_sgd": {"batch": 8},
}
COLLECTS = ("k_sync_sgd", "k_batch_sync_sgd", "k_async_sgd", "k_batch_async_sgd", "rennala_sgd", "malenia_sgd")


def run(problem: Problem, **fields: Any) -> Any:
    n = len(jax.tree.leaves(problem.data)[0])
    flat = {"workers": n, "learning_rate": 0.05, "cluster": "exponential", "precision": "float64", **fields}
    return dopt.run(Run.from_dict(flat), problem=problem)


# -- as transformations that have never heard of a schedule's replay -------------------------------------------------


def one_by_one(found: Any, problem: Problem, told: Callable[[Any, int, int], dict[str, Any]]) -> np.ndarray:
    """The rule in one's own loop: each delivered gradient is handed over by itself, in the order of the schedule."""
    described, n = found.run, found.run.workers
    options = {k.removeprefix("algorithm."): v for k, v in described.options.items() if k.startswith("algorithm.")}
    if "workers" in ALGORITHMS[described.algorithm].known:
        options["workers"] = n
    rule = ALGORITHMS[described.algorithm].make(optax.sgd(described.learning_rate), **options)
    line = schedule.arrivals(machines_of(described), coordination_of(described), steps=described.steps)
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(problem.loss))
        data = [jax.tree.map(lambda a, i=i: jnp.asarray(a[i]), problem.data) for i in range(n)]
        models = [problem.init(None).astype(float)]
        state = rule.init(models[0])
        for row in np.flatnonzero(line.delivered):
            stale = models[line.read_version[row]]
            grads = gradient(stale, data[line.worker[row]])
            extra = {"staleness": int(line.staleness[row]), "stale_params": stale} | told(line, row, len(models))
            updates, state = rule.update(grads, state, models[-1], **extra)
            after = optax.apply_updates(models[-1], updates)
            if line.fate[row] == schedule.APPLIED and _closes(line, row):
                models.append(after)
            else:
                np.testing.assert_array_equal(
                    after, models[-1]
                )  # a gradient that does not fill an update moves nothing
    return np.asarray(models[-1])


def _closes(line: schedule.Schedule, row: int) -> bool:
    rest = line.applied[row + 1 :] & (line.write_version[row + 1 :] == line.write_version[row])
    return not rest.any()


def as_scheduled(line: Any, row: int, made: int) -> dict[str, Any]:
    applied = bool(line.fate[row] == schedule.APPLIED)
    return {"applied": applied and _closes(line, row), "weight": float(line.weight[row])}


@pytest.mark.parametrize("name", RULES)
def test_gradients_handed_over_one_by_one_give_what_the_engine_gives(name: str) -> None:
    problem = quadratics(*random_quadratics(5))
    options = {f"algorithm.{k}": v for k, v in RULES[name].items()}
    found = run(problem, algorithm=name, steps=15, **options)
    np.testing.assert_allclose(one_by_one(found, problem, as_scheduled), found.params[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in RULES if name != "malenia_sgd"])
def test_a_rule_that_is_told_the_staleness_only_decides_by_itself(name: str) -> None:
    problem = quadratics(*random_quadratics(5))
    options = {f"algorithm.{k}": v for k, v in RULES[name].items()}
    found = run(problem, algorithm=name, steps=15, **options)
    alone = one_by_one(found, problem, lambda line, row, made: {})
    np.testing.assert_allclose(alone, found.params[0], rtol=1e-10, atol=1e-12)


def test_a_mean_per_worker_cannot_be_known_without_its_schedule() -> None:
    rule = ALGORITHMS["malenia_sgd"].make(optax.sgd(0.1))
    with pytest.raises(InputError, match="must be told"):
        rule.update(jnp.ones(2), rule.init(jnp.ones(2)), jnp.ones(2), staleness=0)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "adagrad"])
def test_any_optax_optimizer_can_be_the_servers(optimizer: str) -> None:
    found = run(quadratics(*random_quadratics(4)), algorithm="async_sgd", steps=400, optimizer=optimizer)
    assert found.history["loss"][-1] < 0.7 * found.history["loss"][0]


# -- delay compensation --


def test_compensation_by_the_exact_hessian_of_a_quadratic_is_undelayed_descent() -> None:
    curvature, minima = random_quadratics(1)
    problem = quadratics(np.repeat(curvature, 6, 0), np.repeat(minima, 6, 0))
    found = run(problem, algorithm="dc_asgd", steps=50, **{"algorithm.variant": "hessian"})
    x = np.zeros(3)
    for _ in range(50):
        x = x - 0.05 * curvature[0] @ (x - minima[0])
    np.testing.assert_allclose(found.params[0], x, rtol=1e-10)
    assert found.history["staleness_mean"][-1] > 3


# -- unequal speeds and data that differ --


def plain_limit(name: str, rate: float, **options: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(mean of the last models, A, b, times) of a long run on workers of unequal constant speeds."""
    curvature, minima = random_quadratics(4, seed=3)
    times = np.array([1.0, np.sqrt(2), 2.6, 7.1])
    found = run(
        quadratics(curvature, minima),
        algorithm=name,
        learning_rate=rate,
        steps=int(20 / rate),
        cluster="constant",
        record_every=10,
        **{"cluster.scale": [float(c) for c in times]},
        **options,
    )
    return found.params[0], curvature, minima, times


def test_plain_asynchrony_goes_to_the_speed_weighted_optimum() -> None:
    apart = []
    for rate in (0.02, 0.005):
        x, curvature, minima, times = plain_limit("async_sgd", rate)
        apart.append(np.linalg.norm(x - theory.speed_weighted_optimum(curvature, minima, 1 / times)))
    true = np.linalg.solve(curvature.mean(0), (curvature @ minima[..., None]).mean(0)[:, 0])
    assert apart[1] < 0.35 * apart[0]  # what is left is O(rate)
    assert apart[1] < 0.05 * np.linalg.norm(x - true)


def test_a_mean_per_worker_goes_to_the_true_optimum_however_unequal_the_speeds() -> None:
    x, curvature, minima, _ = plain_limit("malenia_sgd", 0.05)
    true = np.linalg.solve(curvature.mean(0), (curvature @ minima[..., None]).mean(0)[:, 0])
    np.testing.assert_allclose(x, true, rtol=1e-8, atol=1e-8)


# -- memoryless workers --


def test_the_mean_over_memoryless_schedules_is_heavy_ball_with_momentum_1_minus_1_over_n() -> None:
    n, steps, runs, step = 4, 24, 3000, 0.3
    problem = quadratics(np.full((n, 1, 1), 1.0), np.full((n, 1), 1.0))
    fields = {"algorithm": "async_sgd", "workers": n, "learning_rate": step, "cluster": "exponential"}
    fields |= {"precision": "float64", "steps": steps, "record_every": 1, "metrics": ("loss",)}
    each = [Run.from_dict(fields | {"seed": seed}).resolve(problem=problem) for seed in range(runs)]
    compiled = engine.compile(group_of(each, problem=problem), 500)
    last = [o.params[0, 0] for i in range(0, runs, 500) for o in run_slab(compiled, each[i : i + 500])]
    # f(x) = ½ (x - 1)², x⁰ = 0: the distance y = x - 1 starts from -1, and so do the models that are pulled
    y, m = -1.0, -1.0
    for _ in range(steps):
        y = y - step * m
        m = (1 - 1 / n) * m + y / n
    error = np.std(last) / np.sqrt(runs)
    assert abs(np.mean(last) - 1 - y) < 4 * error
    assert error < 0.01


# -- what is kept --


def kept(name: str, n: int = 40, **options: Any) -> int:
    flat = {"algorithm": name, "workers": n, "learning_rate": 0.1, "steps": 500, "cluster": "exponential"}
    flat |= {f"algorithm.{k}": v for k, v in options.items()}
    return group_of([Run.from_dict(flat | {"problem": "quadratic"}).resolve()]).kept


def test_models_are_kept_only_while_somebody_may_still_deliver_a_gradient_of_them() -> None:
    assert kept("async_sgd") <= 40
    assert kept("ringmaster_sgd", threshold=7) <= 7
    assert kept("drop_stale_sgd", max_staleness=6) <= 7
    assert kept("rennala_sgd", batch=5) == kept("k_sync_sgd", k=20) == kept("k_batch_sync_sgd", k=20) == 1


def test_every_server_rule_says_what_it_tells_the_clock() -> None:
    for name in RULES:
        how = traits.coordination_of(ALGORITHMS[name].traits.exchange(algorithms.options(name, {}), 8))
        schedule.check(how, 8)
        assert (how.gradients is not None) == (name in COLLECTS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"algorithm.count": "updates"}, "algorithm.count: must be applied or arrivals, got 'updates'"),
        (
            {"algorithm.count": "arrivals", "algorithm.max_staleness": 2},
            "limit (algorithm.max_staleness): the last 10801 gradients were all older than 2 arrivals",
        ),
    ],
)
def test_a_count_that_is_none_or_leaves_nothing_is_refused_in_one_line(
    options: dict[str, Any], said: str, capsys: pytest.CaptureFixture
) -> None:
    fields = {"algorithm": "drop_stale_sgd", "workers": 8, "learning_rate": 0.1, "steps": 50, "problem": "consensus"}
    refused(capsys, ["run", *(f"--{name}={value}" for name, value in (fields | options).items())], said)
