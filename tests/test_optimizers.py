"""Optax by name: what descends is taken and descends, what does not is refused with the reason; noise is each worker's own."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from quadratics import quadratics, random_quadratics

import dopt
from dopt import draws
from dopt.algorithms import ALGORITHMS
from dopt.config import OPTIMIZERS
from dopt.config.optimizers import ANCHORED, COUPLED, REFUSED, make_optimizer
from dopt.engine import group_of
from dopt.types import InputError

RATES = dict.fromkeys(OPTIMIZERS, 0.05) | {
    "adadelta": 10.0,
    "adagrad": 0.5,
    "adan": 0.1,
    "lars": 10.0,
    "novograd": 0.01,
    "sm3": 0.3,
    "contrib.dadapt_adamw": 1.0,
    "contrib.dog": 1.0,
    "contrib.dowg": 1.0,
    "contrib.prodigy": 1.0,
    "contrib.schedule_free_sgd": 0.5,
    "contrib.simplified_ademamix": 0.0003,
}
MINIMUM = {"matrix": jnp.array([[1.0, -2.0], [0.5, 1.5]]), "vector": jnp.array([-1.0, 2.0, 1.0, -0.5])}
START = {"matrix": jnp.array([[0.6, 0.1], [-0.3, 0.4]]), "vector": jnp.array([0.3, 0.1, -0.2, 0.2])}
SHIFT, STEPS, SLOW = 1e-2, 100, 0.001


def _f(x: Any, minimum: Any) -> Any:
    return 0.5 * optax.tree.norm(optax.tree.sub(x, minimum), squared=True)


def _way(name: str, rate: Any, start: Any, minimum: Any, shift: Any = 0.0) -> Any:
    """[steps, d]: the models on the way; after the third step something else moves the model by `shift`."""
    run = dopt.Run(algorithm="allreduce_sgd", workers=1, learning_rate=0.1, steps=1, optimizer=name)
    made = make_optimizer(run, rate, lambda number: draws.key(0, draws.EVERYONE, number, draws.UPDATES))
    optimizer = optax.with_extra_args_support(made)

    def step(carry: tuple[Any, Any], k: Any) -> tuple[tuple[Any, Any], Any]:
        x, state = carry
        updates, state = optimizer.update(jax.grad(_f)(x, minimum), state, x)
        x = jax.tree.map(lambda a: a + jnp.where(k == 2, shift, 0.0), optax.apply_updates(x, updates))
        return (x, state), ravel_pytree(x)[0]

    return jax.lax.scan(step, (start, optimizer.init(start)), jnp.arange(STEPS))[1]


class Behaviour(NamedTuple):
    descent: Any  # f after some steps, over f at the start
    undone: Any  # part of a shift of the model that the next update takes back
    coupled: Any  # how far the halves of a model, each with an optimizer of its own, get from the whole


@lru_cache
def _behaviour(name: str) -> Behaviour:
    """All at once: to compile is what costs."""
    flat, goal = ravel_pytree(START)[0], ravel_pytree(MINIMUM)[0]

    def measure(rate: Any) -> Behaviour:
        several = jax.vmap(lambda rate, shift: _way(name, rate, START, MINIMUM, shift))
        fast, slow, shifted = several(jnp.stack([rate, SLOW, SLOW]), jnp.array([0.0, 0.0, SHIFT]))
        halves = jax.vmap(lambda x, b: _way(name, rate, x, b), 1, 2)(flat.reshape(4, 2), goal.reshape(4, 2))
        apart = jnp.abs(halves.reshape(fast.shape) - fast).max()
        return Behaviour(_f(fast[-1], goal) / _f(flat, goal), 1 - jnp.mean(shifted[3] - slow[3]) / SHIFT, apart)

    return jax.jit(measure)(RATES[name])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_descends_at_a_rate_that_suits_it(name: str) -> None:
    assert _behaviour(name).descent < 0.5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_anchored_optimizers_undo_what_others_do_to_a_model(name: str) -> None:
    assert (_behaviour(name).undone > 0.05) == (name in ANCHORED)


@pytest.mark.parametrize("name", sorted({*OPTIMIZERS} - {"noisy_sgd"}))  # a piece's draws are as good as another's
def test_only_coupled_optimizers_look_beyond_a_coordinate(name: str) -> None:
    assert (_behaviour(name).coupled > 1e-3) == (name in COUPLED)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *REFUSED.items(),
        ("scale_by_rprop", "does not descend"),
        ("scale_by_learning_rate", "does not descend"),
        ("contrib.scale_by_muon", "does not descend"),
        ("add_noise", "does not descend"),
        ("clip", "does not descend"),
        ("momo", "contrib.momo needs the value of the loss"),
        ("muon", "did you mean 'contrib.muon'"),
        ("adamm", "did you mean 'adam'"),
    ],
)
def test_what_is_no_descent_or_needs_more_than_a_gradient_is_refused(name: str, reason: str) -> None:
    with pytest.raises(InputError, match="optimizer: ") as refused:
        _run(name).resolve()
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def _run(optimizer: str = "sgd", algorithm: str = "allreduce_sgd", **more: Any) -> dopt.Run:
    options = more.pop("options", {})
    given = {"workers": 4, "steps": 40, "learning_rate": RATES.get(optimizer, 0.1)} | more
    return dopt.Run(algorithm=algorithm, optimizer=optimizer, options=options, **given)


@pytest.mark.parametrize("optimizer", sorted(ANCHORED))
def test_who_keeps_a_path_of_its_own_is_refused_where_models_are_averaged(optimizer: str) -> None:
    for name, entry in ALGORITHMS.items():
        algorithm = _run(optimizer, name, strict=False)
        if entry.traits.steps in ("common", "part"):
            algorithm.resolve()
        else:
            with pytest.raises(InputError, match="works only where its own updates"):
                algorithm.resolve()


@pytest.mark.parametrize("optimizer", sorted(COUPLED))
def test_fsdp_refuses_optimizers_that_a_piece_of_the_model_is_not_enough_for(optimizer: str) -> None:
    with pytest.raises(InputError, match="gives each worker only a piece"):
        _run(optimizer, "fsdp_sgd").resolve()


def test_a_model_that_is_cut_refuses_them_too() -> None:
    run = _run("lamb", problem="transformer", options={"problem.layout": "tensors", "problem.parts": 2}, batch_size=2)
    with pytest.raises(InputError, match=r"which problem\.layout cuts"):
        group_of([run.resolve()])


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("momentum", float("nan"), "finite"),
        ("momentum", float("inf"), "finite"),
        ("momentum", 10**400, "finite"),
        ("momentum", 1e-300, "finite"),
        ("momentum", True, "number"),
        ("momentum", [0.9], "number"),
        ("nesterov", 1, "true or false"),
        ("accumulator_dtype", "int8", "one of"),
        ("mass", 1, "no such option"),
    ],
)
def test_options_of_optimizers_are_checked(option: str, value: Any, reason: str) -> None:
    with pytest.raises(InputError, match=f"optimizer.{option}: .*{reason}"):
        _run(options={f"optimizer.{option}": value}).resolve()


@pytest.mark.parametrize(
    ("optimizer", "option", "value", "reason"),
    [
        ("adamw", "mask", True, "leave it out"),
        ("noisy_sgd", "key", 3, "run's seed"),
        ("noisy_sgd", "seed", 3, "run's seed"),
        ("contrib.prodigy", "betas", [0.9], "2 values"),
        ("contrib.prodigy", "betas", [0.9, float("nan")], "2 values"),
        ("contrib.schedule_free_sgd", "warmup_steps", 0, "at least 1"),
        ("contrib.schedule_free_sgd", "b1", 0.0, "b1: must be positive"),
        ("contrib.muon", "ns_steps", 2.5, "whole number"),
    ],
)
def test_options_that_would_be_ignored_or_break_are_refused(
    optimizer: str, option: str, value: Any, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        _run(optimizer, options={f"optimizer.{option}": value}).resolve()


def test_numbers_of_several_values_are_taken() -> None:
    assert _run("contrib.prodigy", options={"optimizer.betas": [0.8, 0.99]}).resolve().options["optimizer.betas"] == (
        0.8,
        0.99,
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"schedule": ["cosine_decay"]}, "name of an optax schedule"),
        ({"schedule": "linear", "end_value": 0.0, "transition_steps": 0}, "transition_steps: must be at least 1"),
        ({"schedule": "linear", "end_value": float("nan"), "transition_steps": 5}, "end_value: must be a finite"),
        ({"schedule": "warmup_constant", "init_value": 0.0, "warmup_steps": 0}, "warmup_steps: must be at least 1"),
        ({"schedule": "exponential_decay", "transition_steps": 5, "decay_rate": 0.0}, "decay_rate: 0"),
    ],
)
def test_schedules_that_optax_would_hold_constant_without_a_word_are_refused(
    options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        _run(options={f"learning_rate.{name}": value for name, value in options.items()}).resolve()


def test_a_float64_run_keeps_its_optimizer_in_float64() -> None:
    run = _run("adafactor", precision="float64", options={"optimizer.momentum": 0.9})
    with pytest.raises(InputError, match="dtype"):
        run.resolve()
    _run("adafactor", options={"optimizer.momentum": 0.9}).resolve()


@pytest.fixture(scope="module")
def problem() -> dopt.Problem:
    return quadratics(*random_quadratics(4))


@pytest.mark.parametrize(
    ("algorithm", "optimizer"),
    [("gossip_sgd", "contrib.ademamix"), ("allreduce_sgd", "contrib.muon"), ("local_sgd", "contrib.prodigy")],
)
def test_contributed_optimizers_run(problem: dopt.Problem, algorithm: str, optimizer: str) -> None:
    loss = dopt.run(_run(optimizer, algorithm), problem=problem).history["loss"]
    assert loss[-1] < loss[0]


@pytest.mark.parametrize(("algorithm", "precision"), [("fsdp_sgd", "float64"), ("async_sgd", "float32")])
def test_a_schedule_free_run_reports_the_average(problem: dopt.Problem, algorithm: str, precision: str) -> None:
    run = _run("contrib.schedule_free_sgd", algorithm, precision=precision)
    result = dopt.run(run, problem=problem)
    model = result.params[0]
    losses = [problem.loss(model, jax.tree.map(lambda a, i=i: a[i], problem.data)) for i in range(run.workers)]
    np.testing.assert_allclose(np.mean(losses), result.history["loss"][-1], rtol=1e-5)
    if algorithm == "fsdp_sgd":
        np.testing.assert_allclose(model, _schedule_free(problem, run), rtol=1e-5)


def _schedule_free(problem: dopt.Problem, run: dopt.Run) -> np.ndarray:
    """Defazio et al. 2024, 2405.15682, equations (3) to (5), with β = 0.9 and weights 1/t; x."""
    A, b = problem.data["A"][:, 0].astype(float), problem.data["b"][:, 0].astype(float)
    x = z = np.zeros(b.shape[1])
    for t in range(1, run.steps + 1):
        y = 0.1 * z + 0.9 * x
        z = z - run.learning_rate * np.mean([A[i] @ (y - b[i]) for i in range(len(b))], 0)
        x = (1 - 1 / t) * x + z / t
    return x


# -- noise --

FLAT = dopt.Problem(lambda key: jnp.zeros(500), lambda x, batch: 0 * jnp.sum(x), np.zeros((4, 1, 1), np.float32))


@lru_cache
def _noise(algorithm: str, **more: Any) -> np.ndarray:
    """[workers, 500]: what the noise alone makes of a model in a step at rate 1."""
    eta = {"optimizer.eta": 4.0}
    if algorithm == "local_sgd":
        eta["algorithm.local_steps"] = 100
    run = _run("noisy_sgd", algorithm, options=eta, **({"learning_rate": 1.0, "steps": 1} | more))
    return np.asarray(dopt.run(run, problem=FLAT).params)


def test_noise_is_of_each_worker_and_seed_its_own() -> None:
    drawn = np.concatenate([_noise("local_sgd", seed=seed) for seed in (0, 1)])
    between = np.corrcoef(drawn) - np.eye(8)
    assert np.abs(between).max() < 5 / np.sqrt(500)
    np.testing.assert_allclose(drawn.std(1), 2, rtol=0.15)


def test_noise_of_a_step_is_not_that_of_the_one_before() -> None:
    first, both = _noise("local_sgd"), _noise("local_sgd", steps=2)
    assert abs(np.corrcoef(first[0], both[0] - first[0])[0, 1]) < 0.2


def test_noise_is_common_where_all_step_one_model() -> None:
    drawn = _noise("allreduce_sgd")
    np.testing.assert_array_equal(drawn, np.broadcast_to(drawn[0], drawn.shape))


def test_noise_is_the_same_on_all_executors() -> None:
    np.testing.assert_array_equal(_noise("local_sgd"), _noise("local_sgd", executor="shard_map"))


@pytest.mark.parametrize("algorithm", ["fedbuff", "async_diloco", "async_easgd", "ad_psgd", "post_local_sgd"])
def test_noise_that_cannot_be_of_each_worker_and_step_is_refused(algorithm: str) -> None:
    with pytest.raises(InputError, match="noise for each worker"):
        _run("noisy_sgd", algorithm).resolve()


def test_pieces_of_one_model_get_noise_of_their_own() -> None:
    drawn = _noise("fsdp_sgd")[0].reshape(4, -1)
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 5 / np.sqrt(125)
