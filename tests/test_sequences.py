"""Sequences with their weights: W of a period averages exactly, W of random steps has its moments. Links: test_topology."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dopt import mixing, topology
from dopt.topology.sequences import Matchings, matcha_of
from dopt.types import InputError


def period(W: np.ndarray) -> np.ndarray:
    """The product of [period, n, n], later steps on the left."""
    return np.linalg.multi_dot([*W[::-1], np.eye(W.shape[-1])])


def pairings(workers: tuple[int, ...]) -> Iterator[list[tuple[int, int]]]:
    """All (nearly) perfect matchings."""
    if len(workers) < 2:
        yield []
        return
    first, *others = workers
    for other in others:
        rest = tuple(w for w in others if w != other)
        yield from ([(first, other), *pairs] for pairs in pairings(rest))
    if len(workers) % 2:  # first stays alone
        yield from pairings(tuple(others))


def averaging(pairs: list[tuple[int, int]], n: int) -> np.ndarray:
    W = np.eye(n)
    for pair in pairs:
        W[np.ix_(pair, pair)] = 0.5
    return W


# -- periodic --


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_weights_of_base_k_are_symmetric_doubly_stochastic_and_average_in_a_period(degree: int) -> None:
    for n in range(1, 65):
        W = mixing.weights(topology.make("base_k", n, degree=degree))
        assert W.min() >= 0
        np.testing.assert_array_equal(W, np.swapaxes(W, 1, 2))
        np.testing.assert_allclose(W.sum(2), 1, rtol=0, atol=1e-14)
        assert ((W != 0) & ~np.eye(n, dtype=bool)).sum(2).max() <= degree
        np.testing.assert_allclose(period(W), 1 / n, rtol=0, atol=1e-12, err_msg=f"{n}")


def test_weights_of_one_peer_exponential_average_in_a_period_iff_n_is_a_power_of_two() -> None:
    for n in range(1, 65):
        error = abs(period(mixing.weights(topology.make("one_peer_exponential", n))) - 1 / n).max()
        assert (error < 1e-12) == (n & (n - 1) == 0), n


@pytest.mark.parametrize("n", [2, 3, 6, 7])
def test_weights_of_one_peer_ring_are_projections_whose_period_contracts(n: int) -> None:
    W = mixing.weights(topology.make("one_peer_ring", n))
    assert len(W) == (1 if n == 2 else 2 + n % 2)
    np.testing.assert_allclose(W @ W, W, atol=1e-15)  # pairs average
    np.testing.assert_array_equal(W, np.swapaxes(W, 1, 2))
    assert np.linalg.norm(period(W) - 1 / n, 2) < 1


# -- random --


@pytest.mark.parametrize(("n", "kinds"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 15), (6, 15), (7, 105)])
def test_moments_of_a_random_matching_are_the_means_over_all_of_them(n: int, kinds: int) -> None:
    W = np.array([averaging(pairs, n) for pairs in pairings(tuple(range(n)))])
    assert len(W) == kinds
    for found, expected in zip(
        topology.make("random_matching", n).moments(), (W, np.swapaxes(W, 1, 2) @ W), strict=True
    ):
        np.testing.assert_allclose(found, expected.mean(0), atol=1e-14)


@pytest.mark.parametrize("n", [6, 7])
def test_the_mean_of_many_random_matchings_is_their_first_moment(n: int) -> None:
    network, steps = topology.make("random_matching", n), 20_000
    partner, _ = network.draw(2, steps)
    W = (np.eye(n) + np.eye(n)[partner[:, 0]]) / 2
    np.testing.assert_array_less(abs(W.mean(0) - network.moments()[0]), 5 * W.std(0) / np.sqrt(steps) + 1e-12)


# -- MATCHA --


@pytest.mark.parametrize(("base", "n"), [("ring", 6), ("ring", 9), ("barbell", 8), ("star", 7), ("complete", 6)])
def test_the_gap_of_matcha_grows_with_its_budget_and_no_weight_nearby_has_a_larger_one(base: str, n: int) -> None:
    gaps = []
    for budget in (0.1, 0.25, 0.5, 0.75, 1.0):
        network = topology.make("matcha", n, base=base, budget=budget)
        gaps.append(mixing.spectral_gap(network))
        for factor in (0.98, 1.02):
            other = Matchings(n, network.partners, network.probability, factor * network.weight)
            assert mixing.spectral_gap(other) < gaps[-1], (budget, factor)
    assert (np.diff(gaps) > 0).all()


def test_where_the_solver_cannot_help_matcha_one_line_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    cvxpy = pytest.importorskip("cvxpy")
    for status in (None, "infeasible"):

        def fail(problem: Any, status: str | None = status, **options: Any) -> None:
            problem._status = status
            if status is None:
                raise cvxpy.error.SolverError("it gave up")

        matcha_of.cache_clear()
        monkeypatch.setattr(cvxpy.Problem, "solve", fail)
        with pytest.raises(InputError) as caught:
            topology.make("matcha", 6)
        assert str(caught.value) == (
            f"topology: matcha's probabilities were not found ({status or 'it gave up'}); try another budget"
        )
