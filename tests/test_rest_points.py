"""Closed forms of where methods rest on unlike quadratics, against their own recursions."""

from __future__ import annotations

import numpy as np
import pytest

from dopt import theory

N, D, ALPHA = 4, 3, 0.2


@pytest.fixture
def unlike() -> tuple[np.ndarray, np.ndarray]:
    """Aᵢ [n, d, d] and bᵢ [n, d]."""
    rng = np.random.default_rng(0)
    turns = np.linalg.qr(rng.standard_normal((N, D, D)))[0]
    return turns @ np.diag([0.1, 0.5, 1.0]) @ turns.transpose(0, 2, 1), rng.standard_normal((N, D))


def gradient(A: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.einsum("nij,nj->ni", A, x - b)


@pytest.mark.parametrize("order", ["joint", "gradient_first"])
@pytest.mark.parametrize("local_steps", [1, 3])
def test_easgd_rests_at_its_closed_form(unlike: tuple[np.ndarray, np.ndarray], order: str, local_steps: int) -> None:
    (A, b), beta = unlike, 0.9 / N
    x, z = np.zeros((N, D)), np.zeros(D)
    for step in range(1, 1 + 1500 * local_steps):
        before, x = x, x - ALPHA * gradient(A, b, x)
        if step % local_steps == 0:
            force = beta * ((before if order == "joint" else x) - z)
            x, z = x - force, z + force.sum(0)
    rests = theory.elastic_fixed_point(A, b, ALPHA, local_steps, elastic_rate=beta, order=order)
    np.testing.assert_allclose(x.mean(0), rests, rtol=1e-10)


def test_local_pulls_are_what_local_steps_do(unlike: tuple[np.ndarray, np.ndarray]) -> None:
    (A, b), start = unlike, np.ones((N, D))
    x = start
    for _ in range(5):
        x = x - ALPHA * gradient(A, b, x)
    pulls = theory.local_pulls(A, ALPHA, 5)
    np.testing.assert_allclose(x, start + np.einsum("nij,nj->ni", pulls, b - start), rtol=1e-12)


def test_nesterov_outside_rests_where_local_sgd_does(unlike: tuple[np.ndarray, np.ndarray]) -> None:
    rounds = theory.outer_nesterov(*unlike, ALPHA, 5, 1000)
    np.testing.assert_allclose(rounds[-1], theory.local_sgd_fixed_point(*unlike, ALPHA, 5), rtol=1e-9)


def test_ad_psgd_of_alike_workers_rests_at_the_optimum_and_else_at_its_second_moments() -> None:
    near = ~np.eye(N, dtype=bool)
    assert abs(theory.paired_descent_floor(near, np.full(N, 0.7), 0.5)) < 1e-12
    rng, minima = np.random.default_rng(0), np.array([1.0, -1.0, 0.5, 2.0])
    runs, steps = 4000, 60
    x = np.zeros((runs, N))
    y, rows = x.copy(), np.arange(runs)
    for _ in range(steps):
        i = rng.integers(N, size=runs)
        j = (i + rng.integers(1, N, size=runs)) % N
        middle = (x[rows, i] + x[rows, j]) / 2
        x[rows, j] = middle
        x[rows, i] = middle - 0.5 * (y[rows, i] - minima[i])
        y[rows, i] = x[rows, i]
    found = 0.5 * (x.mean(1) - minima.mean()) ** 2
    error = found.std() / np.sqrt(runs)
    assert abs(found.mean() - theory.paired_descent_floor(near, minima, 0.5)) < 4 * error
