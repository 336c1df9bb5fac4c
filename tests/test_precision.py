"""What is measured of a float64 run is measured in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadratics import quadratics, random_quadratics

import dopt
from dopt import Run
from dopt.problems import PROBLEMS, Shards


def shards() -> Shards:
    """Images of 4 x 4 in two classes."""
    rng, features = np.random.default_rng(0), 16
    train = {"x": rng.standard_normal((2, 3, features)), "y": rng.integers(0, 2, (2, 3))}
    test = {"x": rng.standard_normal((7, features)), "y": rng.integers(0, 2, 7)}
    return Shards(train, np.array([3, 3]), test, 2)


def ratings() -> Shards:
    rng = np.random.default_rng(0)
    pairs = {"x": rng.integers(0, 3, (2, 3, 2)), "y": rng.standard_normal((2, 3))}
    return Shards(pairs, np.array([3, 3]), {"x": rng.integers(0, 3, (7, 2)), "y": rng.standard_normal(7)}, 0)


LEARNS = [name for name, entry in PROBLEMS.items() if entry.traits["data"]]


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("name", [name for name in LEARNS if name != "transformer"])
def test_every_metric_of_a_problem_is_in_the_precision_of_the_model(name: str, precision: Any) -> None:
    problem = PROBLEMS[name].make(ratings() if name == "embedding" else shards(), 2)
    assert problem.metrics

    def shape(x: Any) -> Any:
        real = jnp.issubdtype(x.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(np.shape(x), precision if real else np.int32)

    with jax.enable_x64(precision == np.float64):
        params, test = jax.tree.map(shape, (jax.eval_shape(problem.init, jax.random.key(0)), problem.test))
        for metric in problem.metrics.values():
            assert jax.eval_shape(metric, params, test).dtype == precision


def test_the_accuracy_of_a_float64_run_is_a_whole_number_of_samples_to_its_last_bit() -> None:
    fields = {"algorithm": "allreduce_sgd", "workers": 2, "learning_rate": 0.1, "steps": 2, "metrics": ("accuracy",)}
    found = dopt.run(Run.from_dict({**fields, "data": "digits", "precision": "float64"})).history["accuracy"]
    right = found * 359  # held-out digits
    np.testing.assert_allclose(right, np.round(right), rtol=1e-15)
    assert (found != found.astype(np.float32)).any()


def test_the_mean_staleness_of_a_float64_run_is_a_float64() -> None:
    problem = quadratics(*random_quadratics(3))
    fields = {"algorithm": "async_sgd", "learning_rate": 0.1, "steps": 7, "cluster": "constant", "precision": "float64"}
    found = dopt.run(Run.from_dict({**fields, "workers": 3, "record_every": 7}), problem=problem).history
    assert found["staleness_mean"][-1] == (0 + 1 + 5 * 2) / 7
