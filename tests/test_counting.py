"""What the schedule of a learning rate counts; that it counts on is in test_conformance.py."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from refusals import refused

from dopt import InputError, Run
from dopt.algorithms.method import at_count
from dopt.config.schedules import make_rate

FIELDS = {"workers": 8, "learning_rate": 0.1, "steps": 20}
LINEAR = {"learning_rate.schedule": "linear_schedule", "learning_rate.end_value": 0.0}


def described(**fields: Any) -> Run:
    return Run.from_dict(FIELDS | fields)


def test_a_schedule_is_told_its_count_and_moments_keep_theirs() -> None:
    optimizer = optax.chain(optax.adam(0.1), optax.masked(optax.scale_by_schedule(lambda k: 0.5**k), {"x": True}))
    params = {"x": jnp.ones(2)}
    _, state = optimizer.update(params, optimizer.init(params), params)
    told = at_count(state, 7)
    assert told[0][0].count == state[0][0].count == 1  # of Adam's bias correction
    assert told[1].inner_state.count == 7
    updates, _ = optimizer.update(params, told, params)
    plain, _ = optimizer.update(params, at_count(state, 0), params)
    np.testing.assert_allclose(updates["x"], plain["x"] * 0.5**7, rtol=1e-6)


def test_the_rate_of_a_float64_run_is_a_float64() -> None:
    options = {"learning_rate.schedule": "exponential_decay", "learning_rate.decay_rate": 0.5}
    run = described(algorithm="allreduce_sgd", precision="float64", **options, **{"learning_rate.transition_steps": 3})
    with jax.enable_x64(True):
        assert make_rate(run, 0.1)(jnp.int32(1)) == pytest.approx(0.1 * 0.5 ** (1 / 3), rel=1e-15)


@pytest.mark.parametrize(
    ("algorithm", "options"), [("fedbuff", {}), ("async_diloco", {}), ("local_sgd", {"algorithm.participation": 0.5})]
)
def test_an_optimizer_that_cannot_be_told_a_count_is_refused_where_it_restarts(
    algorithm: str, options: dict[str, Any], capsys: pytest.CaptureFixture
) -> None:
    fields = FIELDS | {"algorithm": algorithm, "optimizer": "contrib.prodigy", **options, **LINEAR}
    fields |= {"learning_rate.transition_steps": 50}
    given = [f"--{name}={value}" for name, value in fields.items()]
    refused(
        capsys, ["run", *given], "learning_rate.schedule: ", "contrib.prodigy has no separate count for its schedule"
    )
    assert described(
        algorithm=algorithm, optimizer="contrib.prodigy", **options
    ).resolve()  # without a schedule it runs


@pytest.mark.parametrize(
    ("algorithm", "options", "step"),
    [("qg_dsgdm", {}, 6), ("slowmo", {"algorithm.local_steps": 4}, 7), ("slowmo", {"algorithm.local_steps": 30}, None)],
)
def test_a_rate_that_falls_to_0_is_refused_where_it_divides(
    algorithm: str, options: dict[str, Any], step: int | None
) -> None:
    run = described(algorithm=algorithm, **options, **LINEAR, **{"learning_rate.transition_steps": 6})
    if step is None:  # no round ends
        run.resolve()
        return
    with pytest.raises(InputError, match=f"{algorithm} divides by the rate, got one that is 0 at step {step};"):
        run.resolve()
