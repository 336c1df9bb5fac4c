"""What fields say to all methods: precisions, schedules by name, and what is not read or left out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import BASE, DIM, NOISE, make, same, slab

import dopt
from dopt import InputError, Problem, Run
from dopt.algorithms import ALGORITHMS
from dopt.config import RATES, SCHEDULES
from dopt.engine import group_of, key, pack
from dopt.engine.compiled import carry_of_one

# -- precision, schedules, options ---------------------------------------------------------------------------------------


def least_squares() -> Problem:
    """Float64 data, int64 labels, and a start: all to be cast."""
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((4, 3, DIM)), "y": rng.integers(0, 2, (4, 3))}

    def loss(w: Any, batch: Mapping[str, Any]) -> Any:
        assert batch["y"].dtype == jnp.int32
        return jnp.mean((batch["x"] @ w - batch["y"]) ** 2)

    return Problem(lambda key: jnp.zeros(DIM), loss, data, start=rng.standard_normal((4, DIM)))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_data_and_starts_are_cast_to_the_precision_whatever_x64_says(precision: str) -> None:
    run = Run(algorithm="gossip_sgd", workers=4, learning_rate=0.1, steps=10, batch_size=2, precision=precision)
    results = []
    for x64 in (False, True):
        with jax.enable_x64(x64):
            results.append(dopt.run(run, problem=least_squares()))
    same(*results)
    assert results[0].id == results[1].id
    assert results[0].params.dtype == np.dtype(precision)
    assert np.isfinite(results[0].history["loss"]).all()


def test_both_precisions_see_the_same_batches_and_delays() -> None:
    run = make(algorithm="delayed_gossip_sgd", delay="uniform", **{"delay.max": 3}, **NOISE)
    low, high = (dopt.run(Run.from_dict({**run.to_dict(), "precision": p})) for p in ("float32", "float64"))
    np.testing.assert_allclose(low.history["loss"], high.history["loss"], rtol=1e-4)
    np.testing.assert_array_equal(low.history["staleness_mean"], high.history["staleness_mean"])


@pytest.mark.parametrize(
    ("options", "schedule"),
    [
        ({"schedule": "cosine_decay", "decay_steps": 15}, lambda rate: optax.cosine_decay_schedule(rate, 15)),
        (
            {"schedule": "exponential_decay", "transition_steps": 5, "decay_rate": 0.5, "staircase": True},
            lambda rate: optax.exponential_decay(rate, 5, 0.5, staircase=True),
        ),
        (
            {"schedule": "warmup_cosine_decay", "init_value": 0.0, "warmup_steps": 5, "decay_steps": 20},
            lambda rate: optax.warmup_cosine_decay_schedule(0.0, np.float64(rate), 5, 20),
        ),
    ],
    ids=["cosine", "exponential", "warmup"],
)
def test_a_schedule_by_name_is_the_optax_loop(options: dict[str, Any], schedule: Callable) -> None:
    problem = least_squares()
    run = Run.from_dict(
        {"algorithm": "allreduce_sgd", "workers": 4, "learning_rate": 0.3, "steps": 20, "precision": "float64"}
        | {"optimizer": "sgd", "optimizer.momentum": 0.9}
        | {f"learning_rate.{name}": value for name, value in options.items()}
    )
    start = np.broadcast_to(problem.start[:1], problem.start.shape)
    result = dopt.run(run, problem=problem, start=start)
    with jax.enable_x64(True):
        over = schedule(jnp.float64(0.3))  # of whole numbers it would make float32
        optimizer = optax.sgd(lambda count: over(jnp.float64(count)), momentum=0.9)
        x, state = jnp.asarray(start[0]), optimizer.init(jnp.asarray(start[0]))
        data = {"x": jnp.asarray(problem.data["x"]), "y": jnp.asarray(problem.data["y"], jnp.int32)}
        for _ in range(20):
            grads = jax.grad(
                lambda x: jnp.mean(
                    jnp.stack([problem.loss(x, jax.tree.map(lambda a, i=i: a[i], data)) for i in range(4)])
                )
            )(x)
            updates, state = optimizer.update(grads, state, x)
            x = optax.apply_updates(x, updates)
    np.testing.assert_allclose(result.params[0], x, rtol=1e-10)


def test_a_schedule_that_needs_its_rate_as_a_number_starts_a_group_for_each() -> None:
    def keys(name: str) -> set[str]:
        options = {"learning_rate.schedule": name, "learning_rate.decay_steps": 20}
        if name.startswith("warmup"):
            options |= {"learning_rate.init_value": 0.0, "learning_rate.warmup_steps": 5}
        return {key(make(learning_rate=rate, **options)) for rate in (0.1, 0.2)}

    assert len(keys("cosine_decay")) == 1
    assert len(keys("warmup_cosine_decay")) == 2


UNREAD = [
    ({"algorithm": "allreduce_sgd", "topology": "ring"}, "topology: allreduce_sgd does not read it"),
    ({"algorithm": "allreduce_sgd", "weights": "lazy"}, "weights: allreduce_sgd does not read it"),
    ({"algorithm": "allreduce_sgd", "topology.degree": 3}, "topology.degree: allreduce_sgd does not read it"),
    ({"algorithm": "allreduce_sgd", "delay": 3}, "delay: allreduce_sgd does not read it"),
    ({"algorithm": "allreduce_sgd", "link_loss": 0.1}, "link_loss: allreduce_sgd does not read it"),
    ({"algorithm": "allreduce_sgd", "mix": "dense"}, "mix: allreduce_sgd does not read it"),
    ({"link_loss.symmetric": True}, "link_loss.symmetric: a run whose links do not fail does not read it"),
    ({"algorithm": "delayed_sgd", "cluster": "constant"}, "cluster: delayed_sgd does not read it"),
    ({"data": "digits"}, "data: problem quadratic does not read it"),
    ({"partition": "iid"}, "partition: problem quadratic does not read it"),
    ({"cluster.profile": "linear"}, "cluster.profile: a run without a cluster does not read it"),
]


def test_every_schedule_that_is_offered_can_be_run_or_says_what_it_needs() -> None:
    numbers = {"decay_steps": 20, "transition_steps": 20, "decay_rate": 0.5, "warmup_steps": 5}
    numbers |= {"init_value": 0.01, "end_value": 0.01, "peak_value": 0.2, "value": 0.1, "power": 1.0}
    for name, schedule in SCHEDULES.items():
        needed = [p.name for p in inspect.signature(schedule).parameters.values() if p.default is p.empty]
        given = {f"learning_rate.{n}": numbers[n] for n in needed if n in numbers}
        for rate in RATES:
            if rate in inspect.signature(schedule).parameters:
                given.pop(f"learning_rate.{rate}", None)
                break
        try:
            run = make(**given, **{"learning_rate.schedule": name, "steps": 2})
        except InputError as error:
            assert "needs it" in str(error)  # noqa: PT017
            continue
        group = group_of([run])
        assert carry_of_one(group, pack(group, group.facts.runs, 1)).params.shape == (DIM,)


@pytest.mark.parametrize(("changes", "said"), UNREAD, ids=[said.split(" ")[0] for _, said in UNREAD])
def test_what_a_method_does_not_read_is_refused_by_a_run(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        dopt.run(Run.from_dict({**BASE, **changes}))
    assert str(caught.value).startswith(said)
    dropped = Run.from_dict({**BASE, **changes}).resolve(unread="drop")
    assert dropped == Run.from_dict({**BASE, "algorithm": changes.get("algorithm", "gossip_sgd")}).resolve()


def test_every_method_runs_and_says_what_it_left_out() -> None:
    """Options aside, BASE means something for every registered method."""
    calmer = {
        "d2": {"weights": "lazy"},
        "async_diloco": {"algorithm.outer_learning_rate": 0.05},
    }  # momentum on stale steps
    for name in ALGORITHMS:
        (outcome,) = slab([make(algorithm=name, metrics=("accuracy", "loss"), **calmer.get(name, {}))])
        assert outcome.diverged_step is None
        assert outcome.history["loss"][-1] < outcome.history["loss"][0]
        assert "accuracy" not in outcome.history
    assert group_of([make(metrics=("accuracy", "loss"))]).facts.notes == (
        "accuracy is left out: the problem or its data do not have it",
    )
