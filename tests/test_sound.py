"""A problem that cannot be minimized, or would be another one, is refused in one line before anything is compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import dopt
from dopt import Problem
from dopt.problems import PROBLEMS
from dopt.problems.sound import takes_key
from dopt.types import InputError

N = 2
DATA = np.ones((N, 3, 2), np.float32)


def _loss(x: Any, batch: Any) -> Any:
    return jnp.mean((batch @ x) ** 2)


GOOD = Problem(lambda key: jnp.zeros(2), _loss, DATA)


def _run(problem: Problem | None = GOOD, start: Any = None, **more: Any) -> Any:
    run = dopt.Run(algorithm="local_sgd", workers=N, learning_rate=0.1, steps=2, **more)
    return dopt.run(run, problem=problem, start=start)


@pytest.fixture(autouse=True)
def nothing_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(*_: Any, **__: Any) -> None:
        raise AssertionError("it was compiled")

    monkeypatch.setattr("dopt.devices.executors.place", compiled)


def test_a_sound_problem_comes_to_be_compiled() -> None:
    with pytest.raises(AssertionError, match="it was compiled"):
        _run()


def _gives(x: Any) -> Callable:
    return lambda key: x


def _says(value: Callable) -> Callable:
    return lambda x, batch: value(_loss(x, batch))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("init", _gives(jnp.zeros(2, complex)), "problem.init: params must be floating-point numbers, got complex64"),
        ("init", _gives(jnp.zeros(2, int)), "problem.init: params must be floating-point numbers, got int32"),
        ("init", _gives(jnp.zeros(2, bool)), "problem.init: params must be floating-point numbers, got bool"),
        ("init", _gives({"w": 1}), "got int32, at ['w']"),
        ("init", lambda key: key, "problem.init: params must be floating-point numbers, got key"),
        ("init", _gives(None), "problem.init: gives no number"),
        ("init", _gives({}), "problem.init: gives no number"),
        ("init", _gives(jnp.zeros((0, 3))), "problem.init: gives no number"),
        ("init", _gives("zero"), "problem.init: cannot be computed (TypeError"),
        ("init", lambda: jnp.zeros(2), "problem.init: cannot be computed (TypeError"),
        ("loss", lambda x, batch: batch @ x, "problem.loss: must be one number, got shape (3,); take the mean"),
        ("loss", lambda x, batch: (_loss(x, batch), x), "problem.loss: must be one number, got 2 values"),
        ("loss", lambda x, batch: {"loss": _loss(x, batch)}, "problem.loss: must be one number, got 1 values"),
        ("loss", lambda x, batch: None, "problem.loss: must be one number, got 0 values"),
        ("loss", _says(lambda f: f + 0j), "problem.loss: must be a floating-point number, got complex64"),
        ("loss", _says(lambda f: f.astype(int)), "problem.loss: must be a floating-point number, got int32"),
        ("loss", _says(lambda f: f > 0), "problem.loss: must be a floating-point number, got bool"),
        ("loss", lambda x, batch: _loss(x, batch[..., :1]), "problem.loss: cannot be computed (TypeError: dot_general"),
        ("loss", lambda x: x @ x, "problem.loss: cannot be computed (TypeError"),
        ("loss", _says(float), "problem.loss: cannot be computed (ConcretizationTypeError"),
        ("weighted_loss", lambda x, batch, weights: weights, "problem.weighted_loss: must be one number, got shape (3,); sum"),
        ("weighted_loss", _loss, "problem.weighted_loss: cannot be computed (TypeError"),
        ("weighted_loss", lambda x, batch, weights: weights.sum() > 0, "problem.weighted_loss: must be a floating-point"),
        ("data", DATA.astype(complex), "problem.data: must be real numbers, whole numbers or truth values, got complex128"),
        ("data", DATA.astype(object), "problem.data: must be real numbers, whole numbers or truth values, got object"),
        ("data", DATA.astype(str), "problem.data: must be real numbers, whole numbers or truth values, got <U"),
        ("data", {"x": DATA, "t": np.zeros((N, 3), "M8[s]")}, "problem.data['t']: must be real numbers"),
        ("data", {"x": DATA, "y": np.full((N, 3), 2**31)}, "problem.data['y']: whole numbers must fit into int32"),
        ("data", np.full((N, 3, 2), 1e39), "problem.data: 1e+39 does not fit into float32"),
        ("test", DATA.astype(complex), "problem.test: must be real numbers"),
        ("counts", [1.5, 2], "problem: counts must be [workers] between 1 and 3"),
        ("counts", [1j, 2], "problem: counts must be [workers] between 1 and 3"),
        ("metrics", {"far": lambda x, test: x}, "problem.metrics['far']: must be one number, got shape (2,)"),
        ("metrics", {"far": lambda x, test: x[0] * 1j}, "problem.metrics['far']: must be a real number, got complex64"),
        ("metrics", {"far": lambda x, test: test["x"]}, "problem.metrics['far']: cannot be computed (TypeError"),
        ("metrics", {"loss": lambda x, test: x[0]}, "problem.metrics: the name 'loss' is taken"),
        ("metrics", {"time": lambda x, test: x[0]}, "problem.metrics: the name 'time' is taken"),
        ("optimum", float("nan"), "problem.optimum: must be a finite real number"),
        ("optimum", 1j, "problem.optimum: must be a"),
        ("optimum", "0", "problem.optimum: must be a number"),
    ],
)  # fmt: skip
def test_what_has_no_descent_is_refused_before_compiling(field: str, value: Any, said: str) -> None:
    with pytest.raises(InputError) as refused:
        _run(dataclasses.replace(GOOD, **{field: value}))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_registered_problem_is_checked_as_ones_own_is(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dataclasses.replace(GOOD, init=_gives(jnp.zeros(2, complex)))
    entry = dataclasses.replace(PROBLEMS["quadratic"], make=lambda shards, workers, *, dim=2: whole)
    monkeypatch.setitem(PROBLEMS, "quadratic", entry)
    with pytest.raises(InputError, match=r"problem\.init: params must be floating-point"):
        dopt.run(dopt.Run(algorithm="local_sgd", workers=N, learning_rate=0.1, steps=2, problem="quadratic"))


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (np.zeros((3, 2)), "start: leaves must be [workers, ...] with workers=2"),
        (np.zeros((N, 3)), "start: must be [workers, *(2,)], as problem.init gives, got shape (2, 3)"),
        (np.zeros((N, 2), int), "start: must be floating-point numbers, got int64"),
        (np.zeros((N, 2), complex), "start: must be floating-point numbers, got complex128"),
        ({"w": np.zeros((N, 2))}, "start: must be built as what problem.init gives"),
        (np.full((N, 2), 1e300), "start: 1e+300 does not fit into float32"),
    ],
)
def test_a_start_is_a_model_for_each_worker(start: Any, said: str) -> None:
    for given in (lambda: _run(start=start), lambda: _run(dataclasses.replace(GOOD, start=start))):
        with pytest.raises(InputError) as refused:
            given()
        assert said in str(refused.value)


@pytest.mark.parametrize(
    "problem",
    [
        dataclasses.replace(GOOD, init=_gives([0.0, 0.0]), loss=lambda x, batch: x[0] ** 2 + x[1] ** 2),
        dataclasses.replace(GOOD, init=_gives(jnp.zeros(2, jnp.bfloat16))),
        dataclasses.replace(GOOD, data=DATA.astype(ml_dtypes.bfloat16)),
        dataclasses.replace(GOOD, data=DATA.astype(np.int64)),
        dataclasses.replace(GOOD, data=DATA > 0),
        dataclasses.replace(GOOD, loss=partial(lambda x, batch, c: c * _loss(x, batch), c=2.0)),
        dataclasses.replace(GOOD, loss=lambda x, batch, c=2.0: c * _loss(x, batch)),
        dataclasses.replace(GOOD, metrics={"right": lambda x, test: x[0] > 0, "count": lambda x, test: 3}),
    ],
)
def test_whatever_can_be_minimized_is_taken(problem: Problem) -> None:
    with pytest.raises(AssertionError, match="it was compiled"):
        _run(problem)


def test_a_loss_draws_if_its_third_argument_is_a_key() -> None:
    assert takes_key(lambda x, batch, key: x)
    assert takes_key(lambda x, batch, key=None: x)
    assert takes_key(lambda x, batch, k: x)
    assert not takes_key(lambda x, batch, scale=2.0: x)
    assert not takes_key(partial(lambda x, batch, scale: x, scale=2.0))
    assert not takes_key(lambda x, batch, *, scale=2.0: x)


@pytest.mark.parametrize("optimum", [lambda: float("nan"), lambda: None])
def test_an_optimum_that_was_not_found_is_refused(optimum: Callable) -> None:
    group = dopt.engine.group_of([dopt.Run(algorithm="local_sgd", workers=N, learning_rate=0.1, steps=2).resolve(problem=GOOD)], problem=dataclasses.replace(GOOD, optimum=optimum))  # fmt: skip
    with pytest.raises(InputError, match=r"problem\.optimum"):
        _ = group.facts.optimum


def test_models_and_data_of_other_precision_are_the_runs() -> None:
    problem = dataclasses.replace(GOOD, init=_gives(jnp.zeros(2, jnp.bfloat16)), data=DATA.astype(ml_dtypes.bfloat16))
    for precision in ("float32", "float64"):
        run = dopt.Run(algorithm="local_sgd", workers=N, learning_rate=0.1, steps=2, precision=precision)
        group = dopt.engine.group_of([run.resolve(problem=problem)], problem=problem)
        assert {str(x.dtype) for x in jax.tree.leaves((group.facts.model, group.facts.data.samples))} == {precision}
