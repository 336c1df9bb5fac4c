"""What dopt computes is what theory says: gaps, the edge of stability, fixed points, and averages under delay."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from scipy import linalg, special, stats

from dopt import Problem, Run, engine, mixing, theory, topology
from dopt.engine import group_of, run_slab

N = 6


def gap(name: str, workers: int, **options: Any) -> float:
    return mixing.spectral_gap(mixing.weights(topology.make(name, workers, **options)))


def outcomes(runs: list[dict[str, Any]], **own: Any) -> list[Any]:
    """The runs as one slab: they share a compilation."""
    resolved = [
        Run.from_dict(run).resolve(**{name: own[name] for name in ("problem", "graph") if name in own}) for run in runs
    ]
    return run_slab(engine.compile(group_of(resolved, **own), len(resolved)), resolved)


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
        ("directed_ring", theory.directed_ring_gap, [1, 2, 3, 4, 5, 8, 31, 64]),
        ("random_matching", theory.matching_gap, [1, 2, 3, 4, 5, 8, 31, 64]),
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


@pytest.mark.parametrize("family", ["ring", "path", "star", "torus", "complete"])
def test_the_gap_of_the_best_constant_weight_is_its_closed_form(family: str) -> None:
    graph = topology.make(family, 12)
    values = np.sort(nx.laplacian_spectrum(graph))
    W = mixing.weights(graph, "laplacian")
    assert mixing.spectral_gap(W) == pytest.approx(theory.laplacian_gap(values[-1], values[1]), abs=1e-12)


def test_one_peer_exponential_and_base_k_average_exactly_within_a_period() -> None:
    for name, sizes in (("one_peer_exponential", (2, 4, 8, 32)), ("base_k", (2, 3, 5, 6, 7, 12, 25))):
        for n in sizes:
            assert gap(name, n) == pytest.approx(1, abs=1e-12), (name, n)


# -- faster mixing --


@pytest.mark.parametrize("rounds", [1, 2, 3, 5, 8])
def test_chebyshev_rounds_contract_by_the_least_a_polynomial_can(rounds: int) -> None:
    polynomial = np.polynomial.Chebyshev.basis(rounds)
    for modulus in (0.3, 0.9, 0.999):
        values = np.abs(polynomial(np.linspace(-1, 1, 2001))) / polynomial(1 / modulus)
        assert theory.chebyshev_contraction(modulus, rounds) == pytest.approx(values.max(), rel=1e-10)
        assert theory.chebyshev_contraction(modulus, rounds) <= modulus**rounds * (1 + 1e-12)
    assert theory.chebyshev_contraction(0.0, rounds) == 0
    assert theory.chebyshev_contraction(1.0, rounds) == 1


def test_chebyshev_rounds_do_not_overflow() -> None:
    assert theory.chebyshev_contraction(1e-3, 1000) == 0
    assert theory.chebyshev_contraction(0.5, 0) == 1


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


def test_no_step_on_a_grid_is_better_under_delay_than_the_best() -> None:
    for delay in (0, *DELAYS):
        best, factor = theory.delayed_best_step(delay), theory.delayed_best_factor(delay)
        # a double root moves by the root of the rounding
        assert theory.delayed_factor(best, delay) == pytest.approx(factor, abs=1e-6)
        steps = best * np.linspace(0.02, 1.98, 99)
        factors = np.array([theory.delayed_factor(step, delay) for step in steps])
        assert factors[steps != best].min() > factor - 1e-6
        assert (np.diff(factors[steps <= best]) < 0).all()
        assert (np.diff(factors[steps >= best]) > 0).all()
    assert (theory.delayed_best_step(0), theory.delayed_best_factor(0)) == (1, 0)
    assert theory.delayed_best_step(1000) == pytest.approx(1 / (np.e * 1001), rel=1e-3)


def test_the_best_step_under_delay_makes_the_double_root() -> None:
    for delay in (0, *DELAYS):
        z, a = theory.delayed_best_factor(delay), theory.delayed_best_step(delay)
        polynomial = np.polynomial.Polynomial([a] + [0] * (delay - 1) + [-1, 1]) if delay else np.poly1d([1, a - 1])
        assert polynomial(z) == pytest.approx(0, abs=1e-15)
        assert delay == 0 or polynomial.deriv()(z) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("delay", [0, *DELAYS])
def test_the_variance_under_delay_solves_the_lyapunov_equation(delay: int, share: float) -> None:
    rate, curvature, noise = share * theory.stability_limit(4.0, delay), 4.0, 0.3
    step = np.eye(delay + 1, k=-1)  # (x, x⁻, ..., x^{k-τ})
    step[0, 0] += 1
    step[0, -1] -= rate * curvature
    push = np.zeros((delay + 1, delay + 1))
    push[0, 0] = rate**2 * noise
    variance = linalg.solve_discrete_lyapunov(step, push)[0, 0]
    assert theory.delayed_variance(rate, curvature, noise, delay) == pytest.approx(variance, rel=1e-8)


def test_the_variance_under_delay_has_the_known_limits() -> None:
    rate, curvature, noise = 0.1, 4.0, 0.3
    plain = rate**2 * noise / (0.4 * 1.6)
    assert theory.delayed_variance(rate, curvature, noise, 0) == pytest.approx(plain, rel=1e-14)
    for delay in (0, *DELAYS):
        small = theory.delayed_variance(1e-6, curvature, noise, delay)
        assert small == pytest.approx(1e-6 * noise / (2 * curvature), rel=1e-3)  # no delay is felt
        limit = theory.stability_limit(curvature, delay)
        near, nearer = (theory.delayed_variance((1 - gap) * limit, curvature, noise, delay) for gap in (1e-4, 1e-5))
        assert nearer == pytest.approx(10 * near, rel=1e-2)  # a simple pole
        assert theory.delayed_variance(limit, curvature, noise, delay) == np.inf
        assert theory.delayed_variance(9.0, curvature, noise, delay) == np.inf


@pytest.mark.parametrize("step", [0.0, 0.01, 0.1, 0.5, 0.9])
def test_d2_is_stable_down_to_its_limit_and_not_below(step: float) -> None:
    def factor(value: float) -> float:  # X⁺ = W(2X - X⁻ - αμ(X - X⁻)) along an eigenvector
        return np.abs(np.roots([1, -value * (2 - step), value * (1 - step)])).max()

    limit = theory.d2_limit(step / 2, 2.0)
    assert factor(limit) == pytest.approx(1, abs=1e-12)
    assert factor(limit + 1e-3) < 1 < factor(limit - 1e-3)
    for value in np.linspace(limit + 1e-3, 1 - 1e-3, 100):
        assert factor(value) < 1
    assert theory.d2_limit(0.0, 1.0) == -1 / 3


# -- gossip on random quadratics --

ALIKE: dict[str, dict[str, Any]] = {  # graphs on which all workers look alike
    "ring": {"workers": 8},
    "torus": {"workers": 12},
    "hypercube": {"workers": 8},
    "complete": {"workers": 5},
    "exponential": {"workers": 8},
    "disconnected": {"workers": 8},
}
NOISE = 12.0  # dim 10 + 2


def shrinks(W: np.ndarray, learning_rate: float, noise: float = NOISE) -> float:
    """1 - the factor per step of S <- W[(1 - α)² S + α²(ζ - 1) diag(S)]Wᵀ."""
    S, factor = np.ones_like(W), 1.0
    for _ in range(3000):
        S = W @ ((1 - learning_rate) ** 2 * S + learning_rate**2 * (noise - 1) * np.diag(np.diag(S))) @ W.T
        factor = np.trace(S)
        S /= factor
    return 1 - factor


@pytest.mark.parametrize("learning_rate", [0.01, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("family", ALIKE)
def test_the_rate_on_random_quadratics_is_that_of_the_second_moments(family: str, learning_rate: float) -> None:
    W = mixing.weights(topology.make(family, **ALIKE[family]))
    values = np.linalg.eigvals(W)
    rate = theory.random_quadratic_rate(values, learning_rate, NOISE)
    assert rate == pytest.approx(shrinks(W, learning_rate), abs=1e-6)
    # and it is the fixed point that the theorem states
    decay = (1 - learning_rate) ** 2 / (1 - rate)
    assert 0 <= decay < 1
    neighbours = theory.effective_neighbours(values, decay)
    stated = 1 - (1 - learning_rate) ** 2 - (NOISE - 1) * learning_rate**2 / neighbours
    assert rate == pytest.approx(stated, abs=1e-8)
    assert neighbours == pytest.approx(mixing.effective_neighbours(W, decay), rel=1e-6)


def test_the_rate_is_approximate_where_workers_differ() -> None:
    W = mixing.weights(topology.make("star", 8))
    rate = theory.random_quadratic_rate(np.linalg.eigvalsh(W), 0.1, NOISE)
    assert 1e-4 < abs(rate - shrinks(W, 0.1)) < 0.1


def test_the_noise_of_standard_normal_samples_is_dim_plus_2() -> None:
    d = np.random.default_rng(0).standard_normal((400_000, 10))
    second = (d * (d**2).sum(1, keepdims=True)).T @ d / len(d)
    np.testing.assert_allclose(second, NOISE * np.eye(10), atol=0.15)


def test_the_best_rate_is_that_of_one_worker_with_as_many_samples_as_effective_neighbours() -> None:
    learning_rate, rate = theory.best_random_quadratic_rate(np.ones(1), NOISE)
    assert (learning_rate, rate) == pytest.approx((1 / NOISE, 1 / NOISE), abs=1e-6)
    for n in (2, 8, 50):  # a batch of n: ζ - 1 becomes (ζ - 1)/n
        learning_rate, rate = theory.best_random_quadratic_rate(np.eye(n)[0], NOISE)
        assert (learning_rate, rate) == pytest.approx((1 / (1 + (NOISE - 1) / n),) * 2, abs=1e-6)


@pytest.mark.parametrize("family", ["ring", "hypercube", "exponential"])
def test_no_learning_rate_on_a_grid_is_better_than_the_best(family: str) -> None:
    values = np.linalg.eigvals(mixing.weights(topology.make(family, 16)))
    learning_rate, best = theory.best_random_quadratic_rate(values, NOISE)
    rates = [theory.random_quadratic_rate(values, rate, NOISE) for rate in np.linspace(0, 1.2, 241)]
    assert best - 1e-3 < max(rates) <= best
    assert theory.random_quadratic_rate(values, learning_rate, NOISE) == best
    assert 1 / NOISE < best < 1 / (1 + (NOISE - 1) / 16)  # better than alone, worse than all together


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


# -- asynchronous SGD on quadratics --


def arrivals(workers: int, step: float) -> np.ndarray:
    """[n, n + 1, n + 1]: what worker i's arrival does to (x, y₁, ..., y_n): x <- x - a yᵢ, then yᵢ <- x."""
    events = np.tile(np.eye(workers + 1), (workers, 1, 1))
    for i, event in enumerate(events):
        event[0, i + 1] = -step
        event[i + 1] = event[0]
    return events


def every_schedule(workers: int, step: float, steps: int) -> np.ndarray:
    """[n^steps, n + 1] states after every equally likely schedule, by the definition."""
    ends = []
    for schedule in product(range(workers), repeat=steps):
        x, y = 1.0, [1.0] * workers
        for i in schedule:
            x = x - step * y[i]
            y[i] = x
        ends.append([x, *y])
    return np.array(ends)


@pytest.mark.parametrize(("workers", "steps"), [(1, 6), (2, 11), (3, 7), (5, 5)])
def test_the_memoryless_mean_is_that_over_all_schedules_at_every_step(workers: int, steps: int) -> None:
    for step in (0.1, 0.9, 3.0):
        mean = theory.memoryless_mean(workers, step, steps + 1)
        assert mean.shape == (steps + 1, 2)
        for k in range(steps + 1):
            ends = every_schedule(workers, step, k)
            np.testing.assert_allclose(mean[k], [ends[:, 0].mean(), ends[:, 1:].mean()], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("workers", [1, 2, 8, 40])
def test_the_memoryless_mean_is_heavy_ball(workers: int) -> None:
    step, momentum = 0.3, theory.memoryless_momentum(workers)
    x, m = theory.memoryless_mean(workers, step, 100).T
    ball, before = 1.0, 1.0
    for k in range(100):
        assert m[k] == pytest.approx(ball, abs=1e-12)  # from rest
        ball, before = ball + momentum * (ball - before) - step / workers * ball, ball
    np.testing.assert_allclose(x[2:], x[1:-1] + momentum * (x[1:-1] - x[:-2]) - step / workers * x[1:-1], atol=1e-12)
    assert x[1] == 1 - step  # not 1 - step/n


def test_the_memoryless_mean_converges_below_its_limit_and_diverges_above() -> None:
    for n in (1, 2, 8, 40):
        limit = theory.memoryless_mean_limit(n)
        for share in (0.01, 0.5, 0.99):
            tail = np.abs(theory.memoryless_mean(n, share * limit, 4001)[-10:])
            assert tail.max() < 1e-3, (n, share)
        assert np.abs(theory.memoryless_mean(n, 1.01 * limit, 401)[-10:]).max() > 1e3, n


@pytest.mark.parametrize(("workers", "steps"), [(1, 6), (2, 10), (3, 6), (4, 5)])
def test_the_memoryless_moments_are_those_over_all_schedules_at_every_step(workers: int, steps: int) -> None:
    for step in (0.1, 0.9, 3.0):
        moments, once = np.ones(4), theory.memoryless_moments(workers, step)
        for k in range(steps + 1):
            x, *pulled = every_schedule(workers, step, k).T
            y = np.array(pulled)
            pairs = np.array([(y[i] * y[j]).mean() for i in range(workers) for j in range(workers) if i != j])
            expected = [(x**2).mean(), (y**2).mean(), (x * y).mean(), pairs.mean() if workers > 1 else moments[3]]
            np.testing.assert_allclose(moments, expected, rtol=1e-11)
            square = moments[1] / workers + (1 - 1 / workers) * moments[3]
            assert square == pytest.approx((y.mean(0) ** 2).mean(), rel=1e-11)
            moments = once @ moments


@pytest.mark.parametrize(("workers", "steps"), [(1, 6), (2, 9), (3, 6)])
def test_the_momentum_moments_are_those_over_all_schedules_at_every_step(workers: int, steps: int) -> None:
    for step, momentum in ((0.3, 0.6), (0.9, -0.4)):
        states = np.concatenate([np.ones((1, workers + 1)), np.zeros((1, 1))], 1)  # x, yᵢ, v of each schedule
        moments, once = None, theory.memoryless_momentum_moments(workers, step, momentum)
        for _ in range(steps + 1):
            x, y, v = states[:, 0], states[:, 1:-1], states[:, -1]
            off = (y.sum(1) ** 2 - (y**2).sum(1)).mean() / max(workers * (workers - 1), 1)
            crossed = [(x * v).mean(), (v * y.mean(1)).mean()]
            expected = [(x**2).mean(), (y**2).mean(), (x * y.mean(1)).mean(), off, (v**2).mean(), *crossed]
            moments = np.array(expected) if moments is None else once @ moments
            np.testing.assert_allclose(moments, expected, rtol=1e-11, atol=1e-13)
            after = []
            for i in range(workers):
                new = states.copy()
                new[:, -1] = momentum * v + y[:, i]
                new[:, 0] = new[:, 1 + i] = x - step * new[:, -1]
                after.append(new)
            states = np.concatenate(after)
    plain = theory.memoryless_momentum_moments(workers, 0.3, 0.0)[:4, :4]
    np.testing.assert_allclose(plain, theory.memoryless_moments(workers, 0.3), rtol=0, atol=1e-15)


def radius(workers: int, step: float) -> float:
    return np.abs(np.linalg.eigvals(theory.memoryless_moments(workers, step))).max()


def test_the_mean_square_limit_is_where_the_moments_neither_grow_nor_shrink() -> None:
    for n in (1, 2, 3, 8, 40, 1000):
        limit = theory.memoryless_mean_square_limit(n)
        assert radius(n, limit) == pytest.approx(1, abs=1e-12)
        for share in np.linspace(0.02, 0.98, 49):  # and it crosses 1 nowhere else
            assert radius(n, share * limit) < 1 < radius(n, limit / share), (n, share)
    assert theory.memoryless_mean_square_limit(1) == 2
    known = {2: 1.2808, 8: 0.5664, 40: 0.2365}
    assert {n: round(theory.memoryless_mean_square_limit(n), 4) for n in known} == known
    assert theory.memoryless_mean_square_limit(10**6) == pytest.approx(np.sqrt(2e-6), rel=1e-3)


@pytest.mark.parametrize("workers", [2, 8, 40])
def test_all_second_moments_together_decay_below_the_mean_square_limit_and_grow_above(workers: int) -> None:
    # no symmetry used: S <- E[A S Aᵀ] on all of (x, y₁, ..., y_n), from a start in which no two workers are alike
    start = np.diag(np.arange(1.0, workers + 2))
    for share in (0.98, 1.02):
        step = share * theory.memoryless_mean_square_limit(workers)
        events, S, factor = arrivals(workers, step), start, 1.0
        for _ in range(60 * workers):
            S = (events @ S @ events.transpose(0, 2, 1)).mean(0)
            factor = np.trace(S)
            S /= factor
        assert (factor > 1) == (share > 1), (share, factor)
        assert factor == pytest.approx(radius(workers, step), rel=1e-9), share


@pytest.mark.parametrize("workers", [2, 8, 40])
def test_sampled_schedules_decay_in_mean_square_below_the_limit_and_grow_above(workers: int) -> None:
    # rare schedules carry the mean square, so plain averages miss them: resample in proportion to ‖(x, y)‖² instead,
    # which keeps E‖(x, y)‖² = the product of the mean growths
    rng, paths, every = np.random.default_rng(0), 4000, 5
    for share in (0.9, 1.1):
        step = share * theory.memoryless_mean_square_limit(workers)
        states, growth = np.ones((paths, workers + 1)), []
        for _ in range(40 + 8 * workers):
            states /= np.linalg.norm(states, axis=1, keepdims=True)
            for _ in range(every):
                i = rng.integers(workers, size=paths)
                x = states[:, 0] - step * states[np.arange(paths), i + 1]
                states[:, 0] = states[np.arange(paths), i + 1] = x
            weight = (states**2).sum(1)
            growth.append(np.log(weight.mean()) / every)
            states = states[rng.choice(paths, paths, p=weight / weight.sum())]
        measured, expected = np.mean(growth[len(growth) // 3 :]), np.log(radius(workers, step))
        assert (measured > 0) == (share > 1), (share, measured)
        assert measured == pytest.approx(expected, rel=0.15), share


def at_rest(a: np.ndarray, b: np.ndarray, times: np.ndarray, learning_rate: float, until: float) -> np.ndarray:
    """The server's model of plain asynchronous SGD at time `until`, event by event."""
    x, pulled, finish = np.zeros(b.shape[1]), np.zeros_like(b), times.astype(float)
    while finish.min() <= until:
        i = int(finish.argmin())
        x = x - learning_rate * a[i] @ (pulled[i] - b[i])
        pulled[i] = x
        finish[i] += times[i]
    return x


def test_plain_asynchronous_sgd_ends_near_the_speed_weighted_optimum_by_its_learning_rate() -> None:
    _, a, b = quadratics(4)
    times = np.array([1, 2, 3, 6])
    weighted = theory.speed_weighted_optimum(a, b, 1 / times)
    rates = (0.02, 0.01, 0.005)
    ends = [at_rest(a, b, times, rate, until=6 * round(4 / rate)) for rate in rates]  # all at the end of a period
    away = [np.abs(end - weighted).max() for end in ends]
    assert 0.1 > away[0] > 1e-3
    assert away[0] / away[1] == pytest.approx(2, rel=0.1)
    assert away[1] / away[2] == pytest.approx(2, rel=0.05)
    without = (8 * ends[2] - 6 * ends[1] + ends[0]) / 3  # of its first and second order in the learning rate
    np.testing.assert_allclose(without, weighted, rtol=0, atol=away[2] / 50)
    assert np.abs(weighted - theory.speed_weighted_optimum(a, b, np.ones(4))).max() > 0.1


def test_the_speed_weighted_optimum_zeroes_the_weighted_gradient_and_is_the_true_one_for_equal_rates() -> None:
    _, a, b = quadratics(N)
    rates = np.array([1, 2, 3, 5, 8, 13.0])
    gradients = np.einsum("nij,nj->ni", a, theory.speed_weighted_optimum(a, b, rates) - b)
    np.testing.assert_allclose(rates @ gradients, 0, atol=1e-12)
    optimum = np.linalg.solve(a.sum(0), np.einsum("nij,nj->i", a, b))
    np.testing.assert_allclose(theory.speed_weighted_optimum(a, b, np.full(N, 7.0)), optimum, rtol=0, atol=1e-13)


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


def exponential(u: np.ndarray) -> np.ndarray:
    return -np.log1p(-u)


def pareto(shape: float) -> Callable[[np.ndarray], np.ndarray]:
    """Of mean 1, or from 1 on where it has none."""
    return lambda u: (shape - 1 if shape > 1 else 1) / shape * (1 - u) ** (-1 / shape)


@pytest.mark.parametrize(("workers", "k"), [(1, 1), (2, 1), (8, 1), (8, 5), (8, 8), (1000, 1000), (10_000, 5000)])
def test_expected_order_statistics_have_their_closed_forms(workers: int, k: int) -> None:
    def of(law: Callable[[np.ndarray], np.ndarray]) -> float:
        return theory.order_statistic_mean(law, workers, k)

    assert of(exponential) == pytest.approx(theory.exponential_order_statistic(workers, k), rel=1e-9)
    assert of(lambda u: 0.3 + exponential(u)) == pytest.approx(0.3 + of(exponential), rel=1e-9)
    assert of(lambda u: 2 * u) == pytest.approx(2 * k / (workers + 1), rel=1e-9)
    assert of(np.ones_like) == pytest.approx(1, rel=1e-12)
    above = workers - k + 1
    for shape, error in ((2.5, 1e-9), (1.2, 1e-6), (0.9, 1e-9)):
        if above > 1 / shape:  # c Γ(n + 1) Γ(n - k + 1 - 1/shape) / (Γ(n - k + 1) Γ(n + 1 - 1/shape))
            ratio = special.poch(above, -1 / shape) / special.poch(workers + 1, -1 / shape)
            assert of(pareto(shape)) == pytest.approx(pareto(shape)(np.zeros(1))[0] * ratio, rel=error), shape
        else:
            assert of(pareto(shape)) == np.inf


@pytest.mark.parametrize("law", [stats.lognorm(1.0), stats.gamma(0.5), stats.halfnorm()])
def test_expected_order_statistics_integrate_the_chance_that_fewer_than_k_have_ended(law: Any) -> None:
    for n, k in ((1, 1), (8, 3), (8, 8)):
        y = np.linspace(-35, 8, 40_001)  # over the logarithm of time
        later = special.betainc(n - k + 1, k, law.sf(np.exp(y))) * np.exp(y)
        assert theory.order_statistic_mean(law.ppf, n, k) == pytest.approx(np.trapezoid(later, y), rel=1e-7), (n, k)


def test_a_quantile_with_jumps_costs_a_thousandth() -> None:
    seconds = np.sort(np.random.default_rng(0).lognormal(size=50))
    for n, k in ((8, 1), (8, 5), (8, 8)):
        exact = np.diff(stats.beta(k, n - k + 1).cdf(np.arange(51) / 50)) @ seconds
        mean = theory.order_statistic_mean(lambda u: seconds[(u * 50).astype(int)], n, k)
        assert mean == pytest.approx(exact, rel=1e-3)


def test_expected_order_statistics_of_all_workers_add_up_to_n_means() -> None:
    for law, error in ((exponential, 1e-10), (pareto(2.5), 1e-10), (pareto(1.2), 1e-6)):
        total = sum(theory.order_statistic_mean(law, 6, k) for k in range(1, 7))
        assert total == pytest.approx(6, rel=error)


def test_the_exponential_order_statistic_is_the_barrier_at_k_n_and_with_backup_workers_less() -> None:
    for n in (1, 2, 10):
        assert theory.exponential_order_statistic(n, n) == pytest.approx(theory.barrier_time(n), rel=1e-14)
        assert theory.exponential_order_statistic(n, 1) == pytest.approx(1 / n, rel=1e-14)
        backup = theory.barrier_time(n + 3) - theory.barrier_time(3)
        assert theory.exponential_order_statistic(n + 3, n) == pytest.approx(backup, rel=1e-12)


# seconds per update, as `theory` lists them, by the plainest simulation


def round_seconds(draw: Callable[..., np.ndarray], workers: int, k: int, *, batch: bool, fresh: bool) -> float:
    """Mean seconds per update of K gradients; `batch`: of anyone, workers never wait; `fresh`: all restart at an update."""
    finish, last, took = draw(size=workers), 0.0, []
    for _ in range(6000):
        waiting: list[int] = []
        for _ in range(k):
            i = int(finish.argmin())
            now = finish[i]
            waiting.append(i)
            finish[i] = now + draw() if batch else np.inf
        took.append(now - last)
        last = now
        if fresh:
            finish = now + draw(size=workers)
        elif not batch:
            finish[waiting] = now + draw(size=k)
    return float(np.mean(took[100:]))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_exponential_rounds_take_the_listed_seconds(k: int) -> None:
    draw = np.random.default_rng(k).exponential
    for fresh in (True, False):  # k_sync_sgd, k_async_sgd
        mean = round_seconds(draw, 5, k, batch=False, fresh=fresh)
        assert mean == pytest.approx(theory.exponential_order_statistic(5, k), rel=0.04)
    for fresh in (True, False):  # k_batch_sync_sgd, k_batch_async_sgd
        assert round_seconds(draw, 5, k, batch=True, fresh=fresh) == pytest.approx(k / 5, rel=0.04)


def test_under_other_laws_only_k_sync_and_k_batch_async_take_the_listed_seconds() -> None:
    rng = np.random.default_rng(0)

    def draw(size: int | None = None) -> Any:
        return 2 * rng.random(size)

    order = theory.order_statistic_mean(lambda u: 2 * u, 5, 3)
    assert round_seconds(draw, 5, 3, batch=False, fresh=True) == pytest.approx(order, rel=0.02)
    assert round_seconds(draw, 5, 3, batch=True, fresh=False) == pytest.approx(3 / 5, rel=0.02)
    assert abs(round_seconds(draw, 5, 3, batch=False, fresh=False) / order - 1) > 0.1
    assert abs(round_seconds(draw, 5, 3, batch=True, fresh=True) / (3 / 5) - 1) > 0.1


def test_unequal_workers_take_k_over_the_sum_of_their_rates_an_update() -> None:
    times = np.array([1.0, 2.0, 0.5, 7.0])
    ends = np.sort(np.concatenate([np.arange(c, 1400.1, c) for c in times]))
    for k in (1, 3, 6):  # K may exceed n
        updates = ends[k - 1 :: k]
        assert (updates[-1] - updates[0]) / (len(updates) - 1) == pytest.approx(k / (1 / times).sum(), rel=2e-2)
