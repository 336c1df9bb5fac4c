"""Elastic averaging: where gradient and force balance, in both orders of the two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from quadratics import quadratics, random_quadratics
from refusals import refused

import dopt
from dopt import Result, Run

ALPHA, BETA = 0.1, 0.2
CURVATURE, MINIMA = random_quadratics(4, seed=7)
ORDERS = pytest.mark.parametrize(("order", "share"), [("joint", 1.0), ("gradient_first", 1 - BETA)])


def run(algorithm: str, order: str, **fields: Any) -> Result:
    flat = {"algorithm": algorithm, "workers": 4, "learning_rate": ALPHA, "precision": "float64", **fields}
    flat |= {"algorithm.elastic_rate": BETA, "algorithm.order": order}
    return dopt.run(Run.from_dict(flat), problem=quadratics(CURVATURE, MINIMA))


@ORDERS
def test_easgd_rests_where_the_force_is_minus_the_gradient_or_less_by_1_minus_beta(order: str, share: float) -> None:
    """β (xᵢ - z) = -α gᵢ (joint), -(1 - β) α gᵢ (gradient first), and the gradients add up to nothing."""
    found = run("easgd", order, steps=4000)
    gradients = np.einsum("nij,nj->ni", CURVATURE, found.params - MINIMA)
    force = BETA * (found.params - found.extra["center"])
    np.testing.assert_allclose(force, -share * ALPHA * gradients, rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradients.sum(0), 0, atol=1e-10)
    assert np.abs(gradients).max() > 0.1


@ORDERS
def test_async_easgd_in_turns_rests_there_worker_by_worker(order: str, share: float) -> None:
    """xᵢ = z - (share α/β) gᵢ(xᵢ) and z <- z - α gᵢ, z as worker i finds it: a round of that leaves z where it was."""
    found = run("async_easgd", order, steps=4 * 2000, cluster="constant").params[0]
    z, c = found, share * ALPHA / BETA
    for A, b in zip(CURVATURE, MINIMA, strict=True):
        x = np.linalg.solve(np.eye(3) + c * A, z + c * A @ b)
        z = z - ALPHA * A @ (x - b)
    np.testing.assert_allclose(z, found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("algorithm", ["easgd", "async_easgd"])
def test_another_order_is_refused_in_one_line(algorithm: str, capsys: pytest.CaptureFixture) -> None:
    fields = {"algorithm": algorithm, "workers": 4, "learning_rate": 0.1, "steps": 5, "algorithm.order": "gauss_seidel"}
    given = [f"--{name}={value}" for name, value in fields.items()]
    refused(capsys, ["run", *given], "algorithm.order: must be joint or gradient_first, got 'gauss_seidel'")
