"""Ratings are made as said; their factorization is its formula, touches the rows of its batch only, and only those travel."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from refusals import refused

import dopt
from dopt import InputError, Problem, Run, data, draws
from dopt.engine import group_of
from dopt.facts import make_problem
from dopt.problems import PROBLEMS, Shards

BASE: dict[str, Any] = {
    "algorithm": "async_sgd",
    "learning_rate": 0.1,
    "problem": "embedding",
    "partition": "contiguous",
}
SMALL: dict[str, Any] = {"data.users": 8, "data.items": 20, "data.density": 0.4, "problem.rank": 3}
ROW = 4  # numbers of a row: three and a bias


def resolved(**fields: Any) -> Run:
    return Run.from_dict({**BASE, **SMALL, "workers": 4, "batch_size": 2, "steps": 10, **fields}).resolve()


def some(problem: Problem) -> tuple[Any, Any]:
    """A model that is not special, float64, and all samples of worker 0."""
    rng, first = np.random.default_rng(2), problem.init(jax.random.key(0))
    params = jax.tree.map(lambda p: np.asarray(p, np.float64) + rng.standard_normal(p.shape), first)
    return params, jax.tree.map(lambda a: np.asarray(a[0]), problem.data)


# -- ratings --


def test_ratings_are_of_low_rank_but_for_their_noise() -> None:
    quiet = data.load("ratings", users=30, items=20, rank=2, density=1.0, noise=0.0)
    assert quiet.test is not None
    x, y = (np.concatenate([quiet.train[name], quiet.test[name]]) for name in ("x", "y"))
    full = np.full((30, 20), np.nan)
    full[x[:, 0], x[:, 1]] = y
    assert np.isfinite(full).all()  # density 1: everything is rated, once
    assert len(y) == 600
    assert np.linalg.matrix_rank(full) == 4  # two of the product, two of the biases
    loud = data.load("ratings", users=30, items=20, rank=2, density=1.0, noise=0.5)
    np.testing.assert_array_equal(loud.train["x"], quiet.train["x"])
    assert np.std(loud.train["y"] - quiet.train["y"]) == pytest.approx(0.5, rel=0.15)


def test_each_user_rates_as_many_items_and_a_tenth_is_held_out() -> None:
    found = data.load("ratings", users=6, items=50, density=0.4)
    assert found.test is not None
    assert (np.bincount(found.train["x"][:, 0]) == 18).all()
    assert (np.bincount(found.test["x"][:, 0]) == 2).all()
    for user in range(6):
        both = [part["x"][part["x"][:, 0] == user, 1] for part in (found.train, found.test)]
        assert len(np.unique(np.concatenate(both))) == 20


def test_contiguous_gives_whole_users_to_the_workers() -> None:
    users = make_problem(resolved()).data["x"][..., 0]
    assert [sorted(set(own)) for own in users.tolist()] == [[0, 1], [2, 3], [4, 5], [6, 7]]


# -- the problem --


def test_the_loss_is_its_formula() -> None:
    problem = make_problem(resolved(**{"problem.l2": 0.3}))
    params, batch = some(problem)
    each = []
    for (user, item), r in zip(batch["x"], batch["y"], strict=True):
        u, v = params["users"][user], params["items"][item]
        each.append(0.5 * (u[:-1] @ v[:-1] + u[-1] + v[-1] - r) ** 2 + 0.15 * (u @ u + v @ v))
    with jax.enable_x64(True):
        assert float(problem.loss(params, batch)) == pytest.approx(np.mean(each), abs=1e-13)
        test = problem.test
        errors = [
            params["users"][u, :-1] @ params["items"][v, :-1] + params["users"][u, -1] + params["items"][v, -1] - r
            for (u, v), r in zip(test["x"], test["y"], strict=True)
        ]
        found = problem.metrics["rmse"](params, jax.tree.map(jnp.asarray, test))
        assert float(found) == pytest.approx(np.sqrt(np.mean(np.square(errors))), abs=1e-13)


def test_gradients_are_finite_differences_and_zero_but_for_the_rows_of_the_batch() -> None:
    problem = make_problem(resolved(**{"problem.l2": 0.3}))
    params, batch = some(problem)
    batch = jax.tree.map(lambda a: jnp.asarray(a[:3]), batch)
    with jax.enable_x64(True):
        x, unravel = ravel_pytree(jax.tree.map(jnp.asarray, params))
        f = jax.jit(lambda x: problem.loss(unravel(x), batch))
        h = 1e-5
        numerical = np.array([float(f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.eye(len(x))])
        gradient = jax.grad(f)(x)
    np.testing.assert_allclose(gradient, numerical, rtol=0, atol=1e-8)
    for name, column in (("users", 0), ("items", 1)):
        touched = set(np.flatnonzero(np.any(np.asarray(unravel(gradient)[name]) != 0, 1)))
        assert touched == set(np.asarray(batch["x"])[:, column].tolist())


def test_hogwild_writes_the_rows_that_some_batch_touched_and_no_others() -> None:
    run = resolved(
        algorithm="hogwild_sgd", delay=2, steps=6, **{"problem.l2": 0.3, "data.users": 16, "data.density": 0.5}
    )
    problem, result = make_problem(run), dopt.run(run)
    first = jax.tree.map(np.asarray, jax.jit(problem.init)(jax.random.key(run.seed)))
    line = group_of([run]).facts.replay(0, run.seed).line
    count = len(problem.data["y"][0])
    rows: dict[str, set[int]] = {"users": set(), "items": set()}
    for worker, number in zip(line.worker[line.applied], line.batch[line.applied], strict=True):
        index = np.asarray(draws.samples(run.seed, worker, number, 2, count))
        for name, column in (("users", 0), ("items", 1)):
            rows[name] |= set(problem.data["x"][worker][index][:, column].tolist())
    for name, touched in rows.items():
        moved = np.flatnonzero((result.params[name][0] != first[name]).any(1))
        assert set(moved.tolist()) == touched
        assert len(touched) < len(first[name])


def test_workers_learn_ratings_nearly_to_their_noise() -> None:
    fields = {"data.users": 64, "data.items": 32, "data.density": 0.6, "data.rank": 1, "problem.rank": 1}
    run = resolved(algorithm="async_sgd", batch_size=8, steps=4000, learning_rate=0.5, **fields)
    rmse = dopt.run(run).history["rmse"]
    assert rmse[0] > 0.8
    assert rmse[-1] < 0.25  # of a noise of 0.1


# -- what travels --


def rows_of(batch: int, users: int = 8, items: int = 20) -> int:
    return min(batch, users) + min(batch, items)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_a_message_to_a_server_is_the_touched_rows_and_their_indices(batch: int, precision: str) -> None:
    run = resolved(batch_size=batch, precision=precision)
    width = {"float32": 4, "float64": 8}[precision]
    bound = rows_of(batch) * (ROW * width + 4)
    assert group_of([run]).facts.sizes.bytes == min(bound, (8 + 20) * ROW * width)


def test_what_is_sent_is_counted_in_such_messages() -> None:
    bound, history = rows_of(2) * (ROW * 4 + 4), dopt.run(resolved()).history
    np.testing.assert_allclose(history["bytes_sent"], history["gradients"] * bound / 4, rtol=1e-12)
    assert history["server_bytes_sent"][-1] % bound == 0


def test_no_message_is_larger_than_the_model() -> None:
    assert group_of([resolved(batch_size=None, **{"data.density": 0.8})]).facts.sizes.bytes == (8 + 20) * ROW * 4


@pytest.mark.parametrize("method", ["async_easgd", "fedbuff", "async_diloco", "allreduce_sgd", "gossip_sgd"])
def test_where_models_or_sums_travel_they_travel_whole(method: str) -> None:
    assert group_of([resolved(algorithm=method)]).facts.sizes.bytes == (8 + 20) * ROW * 4


@pytest.mark.parametrize("method", ["async_sgd", "dc_asgd", "ssp_sgd", "rennala_sgd", "k_sync_sgd", "hogwild_sgd"])
def test_where_gradients_go_to_a_server_their_rows_travel(method: str) -> None:
    assert group_of([resolved(algorithm=method)]).facts.sizes.bytes == rows_of(2) * (ROW * 4 + 4)


def test_the_clock_counts_the_touched_rows_only() -> None:
    fields = {"workers": 1, "cluster": "constant", "cluster.bandwidth": 100.0}
    run = resolved(**fields)
    problem = make_problem(run)
    whole = dataclasses.replace(problem, touched=None)
    own = Run.from_dict(
        {"algorithm": "async_sgd", "learning_rate": 0.1, "batch_size": 2, "steps": 10, "metrics": ["loss"], **fields}
    )
    touched, all_of_it = (dopt.run(own, problem=p).history["time"][-1] - 10 for p in (problem, whole))
    assert touched > 0
    assert touched / all_of_it == pytest.approx(rows_of(2) * (ROW * 4 + 4) / ((8 + 20) * ROW * 4), rel=1e-9)


# -- what does not fit --


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"users": 0}, "data.users: must be at least 1, got 0"),
        ({"items": 1}, "data.items: must be at least 2, got 1"),
        ({"rank": 0}, "data.rank: must be at least 1, got 0"),
        (
            {"density": 0.0},
            "data.density: must lie in (0, 1] and give each user two of items=128 at least, got 0.0; use 0.015625",
        ),
        ({"density": 1.5}, "data.density: must lie in (0, 1]"),
        ({"density": 0.001}, "data.density: must lie in (0, 1]"),
        ({"density": float("nan")}, "data.density: must be finite"),
        ({"noise": -1.0}, "data.noise: must be finite and not negative, got -1.0"),
        ({"seed": -1}, "data.seed: must not be negative, got -1"),
    ],
)
def test_ratings_that_cannot_be_made_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        data.load("ratings", **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.zeros((1, 4, 2), int), np.zeros((1, 4)), {"rank": 0}, "problem.rank: must be at least 1, got 0"),
        (
            np.zeros((1, 4, 2), int),
            np.zeros((1, 4)),
            {"start": 0.0},
            "problem.start: must be positive and finite, got 0.0",
        ),
        (np.zeros((1, 4, 2), int), np.zeros((1, 4)), {"l2": -1.0}, "problem.l2: must be finite and not negative"),
        (np.zeros((1, 4, 2)), np.zeros((1, 4)), {}, "data: embedding learns from ratings, x [workers, samples, 2]"),
        (
            np.zeros((1, 4, 3), int),
            np.zeros((1, 4)),
            {},
            "data: embedding learns from ratings, x [workers, samples, 2]",
        ),
        (
            np.full((1, 4, 2), -1),
            np.zeros((1, 4)),
            {},
            "data: users and items must be numbers from 0, got a negative one",
        ),
    ],
)
def test_what_is_no_problem_of_ratings_is_refused(x: Any, y: Any, options: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        PROBLEMS["embedding"].make(Shards({"x": x, "y": y}, np.array([4]), None, 0), 1, **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_command_refuses_ratings_in_one_line(capsys: pytest.CaptureFixture) -> None:
    base = ["run", "--algorithm", "async_sgd", "--workers", "2", "--learning_rate", "0.1", "--steps", "1"]
    refused(
        capsys, [*base, "--problem", "embedding", "--data", "digits"], "data: embedding learns from ratings, got digits"
    )
    refused(
        capsys, [*base, "--problem", "embedding", "--partition", "by_label"], "partition: these samples have no class"
    )
