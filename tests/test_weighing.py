"""problem.weighted: f = Σ n_k/N f_k. Gradients count n_k, or else models that are averaged do: never both, never silently neither."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from refusals import refused

import dopt
from dopt import InputError, Problem, Result, Run, draws, mixing
from dopt.algorithms import ALGORITHMS

COUNTS, STEPS, H = np.array([1, 4, 2, 6]), 9, 3
N, DIM, RATE = len(COUNTS), 3, 0.1
RNG = np.random.default_rng(0)
A, Y = RNG.standard_normal((N, COUNTS.max(), DIM)), RNG.standard_normal((N, COUNTS.max()))
SHARE = COUNTS / COUNTS.mean()


def problem() -> Problem:
    """fᵢ = mean of ½ (a·x - y)² over worker i's samples, of which it has few or many."""

    def loss(x: Any, batch: Any) -> jax.Array:
        return 0.5 * jnp.mean((batch["a"] @ x - batch["y"]) ** 2)

    return Problem(lambda key: jnp.ones(DIM), loss, {"a": A, "y": Y}, COUNTS, weighted=True)


def gradient(i: int, x: np.ndarray, m: int = 0) -> np.ndarray:
    rows, y = A[i, : COUNTS[i]], Y[i, : COUNTS[i]]
    return rows.T @ (rows @ x - y) / COUNTS[i]


def setting(options: dict[str, Any], **changes: Any) -> oracles.Setting:
    W = mixing.weights(dopt.topology.make("ring", N))
    base = oracles.Setting(
        gradient, np.ones((N, DIM)), STEPS, RATE, 0.0, lambda k: W, np.zeros((STEPS, N, N), int), lambda i, m: 1.0
    )
    return base._replace(options=options, samples=COUNTS, **changes)


def run(algorithm: str, options: dict[str, Any], **fields: Any) -> Result:
    flat = {"workers": N, "learning_rate": RATE, "steps": STEPS, "precision": "float64", **fields}
    flat |= {"algorithm": algorithm, **{f"algorithm.{name}": value for name, value in options.items()}}
    return dopt.run(Run.from_dict(flat), problem=problem())


MODELS = [
    ("local_sgd", {"local_steps": H, "participation": 1.0}),
    ("local_sgd", {"local_steps": H, "participation": 0.5}),
    ("post_local_sgd", {"local_steps": H, "switch_step": 3}),
    ("slowmo", {"local_steps": H, "momentum": 0.6, "slow_rate": 0.8}),
    ("diloco", {"local_steps": H, "outer_learning_rate": 0.7, "outer_momentum": 0.9}),
    ("fedbuff", {"local_steps": 2, "buffer": 3, "power": 0.5}),
]


@pytest.mark.parametrize(("algorithm", "options"), MODELS)
def test_models_are_weighed_by_samples_and_local_steps_are_plain(algorithm: str, options: dict[str, Any]) -> None:
    """McMahan et al. 2017, algorithm 1: w <- Σ n_k w_k / Σ n_k over those who take part."""
    s = setting(options)
    if options.get("participation", 1.0) < 1:
        s = s._replace(takes_part=lambda r: np.asarray(draws.subset(np.int32(0), r, N, N // 2)))
    expected = getattr(oracles, algorithm)(s)[-1]
    found = run(algorithm, options).params
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    alike = getattr(oracles, algorithm)(s._replace(samples=None))[-1]
    assert np.abs(alike - found).max() > 1e-2


def test_every_method_that_averages_models_after_local_steps_is_above() -> None:
    told = {name for name, entry in ALGORITHMS.items() if entry.traits.weighs in ("models", "arrivals")}
    assert told == {name for name, _ in MODELS}
    rest = {name for name, entry in ALGORITHMS.items() if entry.traits.weighs is None}
    assert rest == {"easgd", "async_easgd", "async_diloco", "sign_majority"}


def test_one_local_step_is_weighted_minibatch_descent() -> None:
    x = np.ones(DIM)
    for _ in range(STEPS):
        x = x - RATE * sum(n * gradient(i, x) for i, n in enumerate(COUNTS)) / COUNTS.sum()
    for algorithm, options in (("local_sgd", {"local_steps": 1}), ("allreduce_sgd", {})):
        np.testing.assert_allclose(run(algorithm, options).params, np.tile(x, (N, 1)), rtol=1e-12)


def test_a_buffer_of_all_equally_fast_workers_is_weighted_federated_averaging() -> None:
    rounds = run("fedbuff", {"local_steps": H, "buffer": N, "power": 0.5}, steps=STEPS // H)
    np.testing.assert_allclose(rounds.params[0], run("local_sgd", {"local_steps": H}).params[0], rtol=1e-12)


def test_gossip_with_local_steps_weighs_the_gradients() -> None:
    """W is doubly stochastic: each model counts alike in the mean, so that the gradients must differ."""
    s = setting({"local_steps": H}, gradient=lambda i, x, m: SHARE[i] * gradient(i, x))
    found = run("gossip_sgd", {"local_steps": H}, topology="ring")
    np.testing.assert_allclose(found.params, oracles.gossip_often(s)[-1], rtol=1e-12)


def test_four_devices_weigh_as_one() -> None:
    options = {"local_steps": H, "participation": 0.5}
    there, here = (run("local_sgd", options, executor=name).params for name in ("shard_map", "vmap"))
    np.testing.assert_allclose(there, here, rtol=1e-12)


@pytest.mark.parametrize("algorithm", ["easgd", "async_easgd", "async_diloco", "sign_majority"])
def test_a_method_without_a_rule_for_unequal_workers_is_refused_before_compiling(algorithm: str) -> None:
    with pytest.raises(InputError, match=f"problem.weighted: {algorithm} has no rule for workers of unequal weight"):
        run(algorithm, {})


@pytest.mark.parametrize("algorithm", ["gossip_sgd", "ad_psgd"])
def test_a_local_optimizer_that_scales_weights_away_is_refused(algorithm: str) -> None:
    with pytest.raises(InputError, match=f"{algorithm} weighs the gradients .* adam hardly depends on their size"):
        run(algorithm, {}, optimizer="adam")


def test_the_refusal_is_one_line(capsys: pytest.CaptureFixture) -> None:
    fields = {"algorithm": "easgd", "workers": 4, "learning_rate": 0.1, "steps": 5, "problem": "softmax"}
    fields |= {"problem.weighted": "true"}
    refused(capsys, ["run", *(f"--{name}={value}" for name, value in fields.items())], "problem.weighted: easgd has no")
