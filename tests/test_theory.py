"""What dopt computes is what theory says: gaps, the edge of stability, fixed points, and averages under delay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopt import Problem, Run, mixing, theory, topology
from dopt.group import Group

N = 6


def gap(name: str, workers: int, **options: Any) -> float:
    return mixing.spectral_gap(mixing.weights(topology.make(name, workers, **options)))


def outcomes(runs: list[dict[str, Any]], **own: Any) -> list[Any]:
    """The runs as one slab: they share a compilation."""
    resolved = [
        Run.from_dict(run).resolve(**{name: own[name] for name in ("problem", "graph") if name in own}) for run in runs
    ]
    return Group(resolved, **own).compile(len(resolved)).execute(resolved)


# -- spectral gaps --


@pytest.mark.parametrize(
    ("family", "closed_form", "sizes"),
    [
        ("complete", theory.complete_gap, [1, 2, 3, 10]),
        ("ring", theory.ring_gap, [1, 2, 3, 4, 5, 8, 31, 64]),
        ("path", theory.path_gap, [1, 2, 3, 4, 5, 8, 31, 64]),
        ("star", theory.star_gap, [1, 2, 3, 4, 5, 8, 31, 64]),
        ("hypercube", theory.hypercube_gap, [1, 2, 4, 8, 16, 32, 64]),
        ("exponential", theory.exponential_gap, [*range(2, 34, 2), 64, 100]),
    ],
)
def test_the_spectral_gap_of_a_family_is_its_closed_form(
    family: str, closed_form: Callable[[int], float], sizes: list[int]
) -> None:
    for n in sizes:
        assert gap(family, n) == pytest.approx(closed_form(n), abs=1e-12), n


@pytest.mark.parametrize(
    "shape", [[3], [8], [3, 3], [3, 4], [4, 4], [5, 3], [4, 8], [7, 6], [3, 3, 3], [4, 4, 4], [3, 4, 5]]
)
def test_the_spectral_gap_of_a_torus_is_its_closed_form(shape: list[int]) -> None:
    assert gap("torus", int(np.prod(shape)), shape=shape) == pytest.approx(theory.torus_gap(shape), abs=1e-12)


def test_a_torus_of_one_side_is_a_ring() -> None:
    assert theory.torus_gap([9]) == pytest.approx(theory.ring_gap(9), abs=1e-15)


def test_the_exponential_graph_of_odd_n_has_a_larger_gap_than_the_closed_form() -> None:
    # proposition 1 of 2110.13363: equality for even n only
    for n in (3, 5, 7, 9, 11, 33):
        assert gap("exponential", n) > theory.exponential_gap(n) + 1e-3


# -- the edge of stability --

DELAYS = (1, 2, 5, 20)


def test_the_stability_limit_is_where_the_factor_per_step_is_one() -> None:
    for delay in (0, *DELAYS, 50):
        limit = theory.stability_limit(4.0, delay) * 4.0
        assert theory.delayed_factor(limit, delay) == pytest.approx(1, abs=1e-12)
        assert theory.delayed_factor(0.99 * limit, delay) < 1 < theory.delayed_factor(1.01 * limit, delay)
    assert theory.stability_limit(4.0, 0) == 0.5


@pytest.mark.parametrize("read", ["iterate", "queue"])
def test_delayed_sgd_converges_below_the_stability_limit_and_diverges_above(read: str) -> None:
    curvature, steps, every = 4.0, 40_000, 100
    cases = [(delay, share) for delay in DELAYS for share in (0.99, 1.01)]
    shared = {
        "algorithm": "delayed_sgd",
        "algorithm.read": read,
        "workers": 1,
        "problem": "quadratic",
        "problem.dim": 1,
        "problem.L": curvature,
        "problem.mu": curvature,
        "problem.heterogeneity": 0.0,
        "steps": steps,
        "record_every": every,
        "precision": "float64",
    }
    runs = [
        {**shared, "delay": delay, "learning_rate": share * theory.stability_limit(curvature, delay)}
        for delay, share in cases
    ]
    for (delay, share), outcome in zip(cases, outcomes(runs), strict=True):
        f = outcome.history["suboptimality"]
        assert outcome.diverged_step is None  # it grows, but 1e308 is far
        assert (f[-1] < 1e-4 * f[0]) if share < 1 else (f[-1] > 1e4 * f[0]), (delay, share, f[0], f[-1])
        # and at the rate of the dominant root: f goes as its square (oscillating, so take the highest of a while);
        # where f falls below 1e-24, rounding takes over
        size = np.maximum.accumulate(f[::-1])[::-1] if share < 1 else np.maximum.accumulate(f)
        first, last = 20, min(len(f) - 20, int(np.argmax(size < 1e-24)) or len(f))
        rate = np.log(size[last - 1] / size[first]) / (2 * every * (last - 1 - first))
        expected = np.log(theory.delayed_factor(share * theory.stability_limit(1.0, delay), delay))
        assert rate == pytest.approx(expected, rel=0.05), (delay, share)


# -- fixed points of gossip --


def quadratics(workers: int, dim: int = 3) -> tuple[Problem, np.ndarray, np.ndarray]:
    """½(x - bᵢ)ᵀAᵢ(x - bᵢ) with the Aᵢ as different as the bᵢ; eigenvalues of each from 0.5 to 2."""
    rng = np.random.default_rng(7)
    turns = np.linalg.qr(rng.standard_normal((workers, dim, dim)))[0]
    a = turns @ (np.linspace(0.5, 2, dim)[:, None] * turns.transpose(0, 2, 1))
    b = rng.standard_normal((workers, dim))

    def loss(x: Any, batch: Any) -> jax.Array:
        apart = x - batch["b"]
        return 0.5 * jnp.mean(jnp.einsum("si,sij,sj->s", apart, batch["a"], apart))

    return Problem(lambda key: jnp.zeros(dim), loss, {"a": a[:, None], "b": b[:, None]}), a, b


@pytest.mark.parametrize("adapt_then_combine", [False, True])
def test_gossip_sgd_on_quadratics_comes_to_rest_at_its_fixed_point(adapt_then_combine: bool) -> None:
    problem, a, b = quadratics(N)
    rate, graphs = 0.2, ("ring", "star", "path", "exponential", "complete")
    runs = [
        {
            "algorithm": "gossip_sgd",
            "algorithm.adapt_then_combine": adapt_then_combine,
            "workers": N,
            "learning_rate": rate,
            "topology": graph,
            "steps": 1000,
            "precision": "float64",
        }
        for graph in graphs
    ]
    optimum = np.linalg.solve(a.sum(0), np.einsum("nij,nj->i", a, b))
    for graph, outcome in zip(graphs, outcomes(runs, problem=problem), strict=True):
        W = mixing.weights(topology.make(graph, N))
        fixed = theory.gossip_fixed_point(W, a, b, rate, adapt_then_combine=adapt_then_combine)
        np.testing.assert_allclose(outcome.params, fixed, rtol=0, atol=1e-10, err_msg=graph)
        biased = not (adapt_then_combine and graph == "complete")  # there it is all-reduce
        assert (np.abs(fixed - optimum).max() > 1e-2) == biased, graph


def test_the_two_fixed_points_solve_their_equations_and_differ_by_one_averaging() -> None:
    _, a, b = quadratics(N)
    W = mixing.weights(topology.make("star", N))

    def step(X: np.ndarray) -> np.ndarray:
        return -0.1 * np.einsum("nij,nj->ni", a, X - b)

    combine = theory.gossip_fixed_point(W, a, b, 0.1)
    adapt = theory.gossip_fixed_point(W, a, b, 0.1, adapt_then_combine=True)
    np.testing.assert_allclose(W @ combine + step(combine), combine, rtol=0, atol=1e-13)
    np.testing.assert_allclose(W @ (adapt + step(adapt)), adapt, rtol=0, atol=1e-13)
    assert np.abs(adapt - combine).max() > 1e-3


def test_with_w_of_ones_adapt_then_combine_rests_at_the_optimum() -> None:
    _, a, b = quadratics(N)
    fixed = theory.gossip_fixed_point(np.full((N, N), 1 / N), a, b, 0.1, adapt_then_combine=True)
    optimum = np.linalg.solve(a.sum(0), np.einsum("nij,nj->i", a, b))
    np.testing.assert_allclose(fixed, np.tile(optimum, (N, 1)), rtol=0, atol=1e-12)


# -- averages --

REGULAR = [{"topology": "ring"}, {"topology": "complete"}, {"topology": "random_regular"}, {"topology": "exponential"}]
IRREGULAR = [{"topology": "star"}, {"topology": "path"}]


def averaging(changes: dict[str, Any]) -> dict[str, Any]:
    return {
        "algorithm": "gossip_sgd",
        "workers": N,
        "learning_rate": 1.0,
        "problem": "consensus",
        "steps": 6000,
        "precision": "float64",
        **changes,
    }


def test_doubly_stochastic_gossip_keeps_the_mean_and_agrees_on_it() -> None:
    start = np.random.default_rng(1).standard_normal((N, 1))
    for few in (5, 2000):
        runs = [averaging({**graph, "steps": few}) for graph in (*REGULAR, *IRREGULAR)]
        for run, outcome in zip(runs, outcomes(runs, start=start), strict=True):
            assert outcome.params.mean() == pytest.approx(start.mean(), abs=1e-14), run["topology"]
            if few > 5:
                np.testing.assert_allclose(outcome.params, start.mean(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("delay_self", [False, True])
def test_delayed_gossip_agrees_on_the_weighted_average_and_with_delay_self_on_the_plain_one(delay_self: bool) -> None:
    # of a path 0..n-1 the weighted average is the plain one, by symmetry: so squares, too
    start = np.arange(N, dtype=float)[:, None] ** [1, 2]
    runs = [
        averaging(
            {"algorithm": "delayed_gossip_sgd", "algorithm.delay_self": delay_self, "problem.dim": 2, "delay": delay}
            | graph
        )
        for graph in (*REGULAR, *IRREGULAR)
        for delay in (0, 1, 4)
    ]
    for run, outcome in zip(runs, outcomes(runs, start=start), strict=True):
        W = mixing.weights(topology.make(run["topology"], N))
        limit = start.mean(0) if delay_self else theory.delayed_consensus(W, start, run["delay"])
        name = f"{run['topology']}, delay {run['delay']}"
        np.testing.assert_allclose(outcome.params, np.tile(limit, (N, 1)), rtol=0, atol=1e-11, err_msg=name)
        away = np.abs(theory.delayed_consensus(W, start, run["delay"]) - start.mean(0)).max()
        if {"topology": run["topology"]} in REGULAR or not run["delay"]:
            assert away < 1e-13, name
        else:
            assert away > 0.05, name


def test_the_star_with_delay_4_agrees_on_the_average_weighted_by_1_plus_1_minus_w_ii_tau() -> None:
    # by hand: metropolis on a star of 6: W_00 = 1/6, W_ii = 5/6, so weights 1 + 5/6·4 and 1 + 1/6·4
    W = mixing.weights(topology.make("star", 6))
    limit = theory.delayed_consensus(W, np.arange(6.0)[:, None], 4)
    assert limit == pytest.approx((1 + 4 / 6) * 15 / (1 + 20 / 6 + 5 * (1 + 4 / 6)), abs=1e-14)


def test_under_random_delays_all_agree_within_the_hull_of_the_starts() -> None:
    # the average itself moves: nothing is conserved when every sender's age is drawn anew
    start = np.arange(N, dtype=float)[:, None]
    runs = [
        averaging({"algorithm": "delayed_gossip_sgd", "delay": "uniform", "delay.max": 4, "seed": seed, **graph})
        for graph in ({"topology": "ring"}, {"topology": "star"}, {"topology": "path"})
        for seed in (0, 1)
    ]
    limits = [outcome.params for outcome in outcomes(runs, start=start)]
    for x in limits:
        assert np.ptp(x) < 1e-11
        assert start.min() < x.min() <= x.max() < start.max()
    assert abs(limits[0][0, 0] - limits[1][0, 0]) > 1e-3


# -- staleness and time: the schedule's own tests compare; here the formulas with themselves --


def test_geometric_staleness_is_a_law_of_mean_n_minus_1() -> None:
    law = theory.geometric_staleness(8, 2000)
    assert law.sum() == pytest.approx(1, abs=1e-12)
    assert law @ np.arange(2000) == pytest.approx(7, abs=1e-9)


def test_expected_staleness_weighted_by_arrivals_is_n_minus_1() -> None:
    times = np.array([1.0, 2.0, 0.5, 7.0])
    assert (theory.expected_staleness(times) / times).sum() / (1 / times).sum() == pytest.approx(3, abs=1e-12)
