"""What is said of W is what its powers do: connected, its gap, effective neighbours, time to agree; and who may use it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_weights import MATCHINGS, N, graphs, refused, sequence, weights_of

import dopt
from dopt import mixing, topology
from dopt.topology import Matchings

PAIRS = mixing.weights(sequence(0.5))  # 4 workers agree exactly after the two of them
SLOW_PAIRS = mixing.weights(sequence(0.2))
HALVES = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]])
NOT_NORMAL = HALVES @ np.array([[1, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]])
ALL = Matchings(6, None, np.ones(1), 0.5)


def draws(w: Matchings) -> Iterator[tuple[float, np.ndarray]]:
    """(probability, W) of all that a random sequence may do in a step."""
    if w.partners is None:
        pairings = {
            frozenset(map(frozenset, zip(order[::2], order[1::2], strict=True)))
            for order in itertools.permutations(range(len(w)))
        }
        for pairs in pairings:
            matrix = np.eye(len(w))
            for i, j in map(tuple, pairs):
                matrix[i, i] = matrix[j, j] = 1 - w.weight
                matrix[i, j] = matrix[j, i] = w.weight
            yield 1 / len(pairings), matrix
        return
    eye = np.eye(len(w))
    for active in itertools.product([False, True], repeat=len(w.probability)):
        probability = np.prod(np.where(active, w.probability, 1 - w.probability))
        yield (
            float(probability),
            eye - w.weight * sum((eye - eye[p] for p, a in zip(w.partners, active, strict=True) if a), 0 * eye),
        )


def after(w: np.ndarray, k: int) -> np.ndarray:
    """W_k ... W_1."""
    steps = w.reshape(-1, *w.shape[-2:])
    return reduce(lambda done, i: steps[i % len(steps)] @ done, range(k), np.eye(w.shape[-1]))


# -- connected, stochastic, symmetric --


@settings(deadline=None, max_examples=64)
@given(graph=graphs())
def test_connected_means_strongly_connected(graph: nx.Graph) -> None:
    W = mixing.weights(graph, "uniform")
    assert mixing.is_connected(W) == nx.is_strongly_connected(graph.to_directed())


def test_a_sequence_is_connected_if_its_union_is() -> None:
    assert not any(map(mixing.is_connected, PAIRS))
    assert mixing.is_connected(PAIRS)
    assert not mixing.is_connected(PAIRS[[0, 0]])
    assert mixing.is_connected(MATCHINGS)
    assert mixing.is_connected(ALL)
    assert not mixing.is_connected(Matchings(4, MATCHINGS.partners[:1], np.array([0.5]), 0.4))


def test_a_sequence_is_what_each_of_its_matrices_is() -> None:
    push, pull = weights_of("exponential", 6, "push"), weights_of("star", 6, "pull")
    ring = weights_of("ring", 6)
    for W, rows, columns, symmetric in (
        (ring, True, True, True),
        (np.stack([ring, ring]), True, True, True),
        (np.stack([ring, push]), True, True, False),
        (np.stack([ring, pull]), True, False, False),
        (np.stack([pull.T, ring]), False, True, False),
        (np.stack([pull.T, pull]), False, False, False),
        (ALL, True, True, True),
    ):
        assert (mixing.is_stochastic(W, 1), mixing.is_stochastic(W, 0)) == (rows, columns)
        assert mixing.is_doubly_stochastic(W) == (rows and columns)
        assert mixing.is_symmetric(W) == symmetric


# -- the gap --


@settings(deadline=None, max_examples=64)
@given(graph=graphs(directed=False))
def test_the_gap_of_a_symmetric_matrix_is_one_minus_its_second_largest_modulus(graph: nx.Graph) -> None:
    W = mixing.weights(graph)
    moduli = np.sort(np.abs(np.linalg.eigvalsh(W)))
    assert mixing.spectral_gap(W) == pytest.approx(1 - (moduli[-2] if len(W) > 1 else 0), abs=1e-12)
    assert mixing.second_modulus(W) == pytest.approx(np.linalg.norm(W - 1 / len(W), 2), abs=1e-12)
    assert mixing.smallest_eigenvalue(W) == pytest.approx(np.linalg.eigvals(W).real.min(), abs=1e-12)
    assert mixing.gap_kind(W) == "doubly stochastic: 1 - ‖W - J‖₂"


def test_the_gap_of_what_is_not_doubly_stochastic_is_one_minus_the_second_largest_modulus() -> None:
    for W in (weights_of("star", rule="uniform"), weights_of("star", rule="push")):
        moduli = np.sort(np.abs(np.linalg.eigvals(W)))
        assert mixing.spectral_gap(W) == pytest.approx(1 - moduli[-2], abs=1e-12)
        assert mixing.gap_kind(W) == "not doubly stochastic: 1 - |λ₂|"
        assert mixing.spectral_gap(W) != pytest.approx(1 - np.linalg.norm(W - 1 / N, 2), abs=1e-2)


def test_a_doubly_stochastic_matrix_that_is_not_normal_has_the_gap_of_its_norm() -> None:
    assert mixing.spectral_gap(NOT_NORMAL) == pytest.approx(1 - np.linalg.norm(NOT_NORMAL - 1 / 3, 2), abs=1e-14)
    assert mixing.spectral_gap(NOT_NORMAL) < 1 - np.sort(np.abs(np.linalg.eigvals(NOT_NORMAL)))[-2] - 0.05


def test_the_gap_is_one_for_one_worker_and_zero_for_a_disconnected_graph() -> None:
    assert mixing.spectral_gap(np.ones((1, 1))) == mixing.spectral_gap(np.ones((3, 1, 1))) == 1
    assert mixing.spectral_gap(weights_of("disconnected")) == pytest.approx(0, abs=1e-12)


def test_the_gap_of_a_sequence_is_that_of_the_product_of_a_period_later_steps_on_the_left() -> None:
    assert mixing.spectral_gap(PAIRS) == pytest.approx(1, abs=1e-15)
    assert mixing.gap_kind(PAIRS) == "doubly stochastic: 1 - ‖W - J‖₂ of one period's product"
    several = np.stack([HALVES, NOT_NORMAL, np.diag([1.0, 1, 1])[[1, 0, 2]]])
    product = several[2] @ several[1] @ several[0]
    assert mixing.spectral_gap(several) == pytest.approx(1 - np.linalg.norm(product - 1 / 3, 2), abs=1e-14)
    assert mixing.spectral_gap(HALVES[None]) == mixing.spectral_gap(HALVES)
    pulled = np.stack([weights_of("star", rule="pull"), weights_of("path", rule="pull")])
    assert mixing.spectral_gap(pulled) == pytest.approx(
        1 - np.sort(np.abs(np.linalg.eigvals(pulled[1] @ pulled[0])))[-2], abs=1e-12
    )
    assert mixing.gap_kind(pulled) == "not doubly stochastic: 1 - |λ₂| of one period's product"


@pytest.mark.parametrize("w", [MATCHINGS, ALL], ids=["matchings", "all"])
def test_the_gap_of_a_random_sequence_is_that_of_its_mean_square(w: Matchings) -> None:
    square = sum(p * W.T @ W for p, W in draws(w))
    rho = np.linalg.norm(square - 1 / len(w), 2)
    assert mixing.spectral_gap(w) == pytest.approx(1 - rho, abs=1e-12)
    assert mixing.gap_kind(w) == "random, in the mean square: 1 - ‖E[WᵀW] - J‖₂"
    # along the eigenvector that is slowest, the consensus distance shrinks by exactly that, in the mean
    x = np.linalg.eigh(square - 1 / len(w))[1][:, -1]
    assert sum(p * (W @ x) @ (W @ x) for p, W in draws(w)) == pytest.approx(rho, abs=1e-12)


def test_the_gap_of_many_workers_is_kept_and_is_the_same() -> None:
    for name, rule in (("ring", "metropolis"), ("exponential", "uniform"), ("star", "push")):
        W = weights_of(name, 130, rule)
        small = mixing.spectrum._modulus(W)
        hits = mixing.spectrum._kept.cache_info().hits
        assert mixing.second_modulus(W) == mixing.second_modulus(W.copy()) == small
        assert mixing.spectrum._kept.cache_info().hits > hits


# -- effective neighbours --

STOCHASTIC = {
    "ring": weights_of("ring", 8),
    "star": weights_of("star", 6),
    "tight": weights_of("ring", 6, "metropolis_tight"),
    "exponential": weights_of("exponential", 7),
    "not normal": NOT_NORMAL,
    "linear": weights_of("path", 5, "laplacian"),
    "disconnected": weights_of("disconnected"),
    "pairs": PAIRS,
    "slow pairs": SLOW_PAIRS,
    "mixed": np.stack([HALVES, NOT_NORMAL, np.eye(3)]),
}


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("name", STOCHASTIC)
def test_effective_neighbours_are_the_ratio_of_two_summed_variances(name: str, decay: float) -> None:
    w = STOCHASTIC[name]
    steps = w.reshape(-1, *w.shape[-2:])
    n, sums = w.shape[-1], []
    for phase in range(len(steps)):  # what reaches a phase through the last t + 1 steps
        power, total = np.eye(n), 0.0
        for t in range(800):
            power = power @ steps[(phase - t) % len(steps)]
            total += decay**t * (power**2).sum() / n
        sums.append(total)
    assert mixing.effective_neighbours(w, decay) == pytest.approx(1 / (1 - decay) / np.mean(sums), rel=1e-10)


def test_effective_neighbours_are_the_variance_that_gossip_takes_from_a_random_walk() -> None:
    W, decay, rng = weights_of("exponential", 6), 0.8, np.random.default_rng(0)
    y = z = np.zeros((6, 20_000))
    for _ in range(60):
        noise = rng.standard_normal(y.shape)
        y, z = decay**0.5 * y + noise, W @ (decay**0.5 * z + noise)
    assert mixing.effective_neighbours(W, decay) == pytest.approx((y**2).mean() / (z**2).mean(), rel=0.02)


@settings(deadline=None, max_examples=64)
@given(graph=graphs(directed=False), decay=st.floats(0, 0.999))
def test_effective_neighbours_lie_between_1_and_n_and_grow_with_memory(graph: nx.Graph, decay: float) -> None:
    W = mixing.weights(graph)
    n = len(W)
    few, more = mixing.effective_neighbours(W, decay), mixing.effective_neighbours(W, (1 + decay) / 2)
    assert 1 - 1e-9 <= few <= more + 1e-9 <= n + 2e-9
    assert mixing.effective_neighbours(W, 0) == pytest.approx(n / (W**2).sum(), rel=1e-12)
    largest = max(map(len, nx.connected_components(graph)))
    assert mixing.effective_neighbours(W, 1 - 1e-9) <= largest * (1 + 1e-5)  # 1/(1 - γ) amplifies rounding


def test_effective_neighbours_are_n_if_complete_1_if_alone_2_in_separate_pairs_and_n_in_the_long_run() -> None:
    for decay in (0, 0.3, 0.99, 1 - 1e-9):
        assert mixing.effective_neighbours(weights_of("complete", 9), decay) == pytest.approx(9, rel=1e-6)
        assert mixing.effective_neighbours(np.eye(4), decay) == pytest.approx(1, rel=1e-6)
        assert mixing.effective_neighbours(PAIRS[0], decay) == pytest.approx(2, rel=1e-6)
    for W in (weights_of("ring"), weights_of("exponential"), PAIRS):
        assert mixing.effective_neighbours(W, 1 - 1e-9) == pytest.approx(W.shape[-1], rel=1e-6)


def test_what_varies_without_bound_has_no_effective_neighbours() -> None:
    W = weights_of("ring", 6, "constant", edge=0.9)  # eigenvalues to -2.6
    assert mixing.effective_neighbours(W, 0.5) == mixing.effective_neighbours(np.stack([W, W]), 0.5) == 0
    assert mixing.effective_neighbours(W, 0.0) == pytest.approx(6 / (W**2).sum())


# -- time to agree --


@pytest.mark.parametrize("accuracy", [0.3, 1e-2, 1e-6])
@pytest.mark.parametrize("name", [name for name in STOCHASTIC if name not in ("tight", "disconnected")])
def test_the_consensus_time_is_the_first_step_at_which_the_product_is_near_enough(name: str, accuracy: float) -> None:
    w = STOCHASTIC[name]
    n, k = w.shape[-1], 0
    while np.linalg.norm(after(w, k) - 1 / n, 2) > accuracy:
        k += 1
    assert mixing.consensus_time(w, accuracy) == k


@pytest.mark.parametrize("rule", ["pull", "push"])
@pytest.mark.parametrize("name", ["star", "path", "binary", "one way"])
def test_the_consensus_time_of_what_is_not_doubly_stochastic_is_that_to_its_own_limit(name: str, rule: str) -> None:
    graph = {
        "binary": nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 3), (3, 1)]),
        "one way": nx.DiGraph([(0, 1), (1, 0), (1, 2)]),  # who only listens has no weight in what is agreed on
    }.get(name) or topology.make(name, 5)
    W = mixing.weights(graph, rule)
    for w in (W, np.stack([W, W @ W])):
        limit = {k: after(w, 30_000 + k) for k in range(len(w))}
        k = mixing.consensus_time(w)
        period = len(w) if w.ndim == 3 else 1
        away = [np.linalg.norm(after(w, s) - limit[s % period], 2) for s in (k - 1, k)]
        assert away[1] <= 1e-6 < away[0]


def test_the_consensus_time_of_a_random_sequence_is_that_of_its_root_mean_square() -> None:
    rho = mixing.second_modulus(ALL)
    k = mixing.consensus_time(ALL, 1e-3)
    assert rho ** (k / 2) <= 1e-3 < rho ** ((k - 1) / 2)


def test_workers_agree_at_once_if_complete_and_never_if_apart_or_swinging_or_growing() -> None:
    assert mixing.consensus_time(np.ones((1, 1))) == mixing.consensus_time(np.ones((2, 1, 1))) == 0
    assert mixing.consensus_time(weights_of("complete")) == 1
    assert mixing.consensus_time(PAIRS) == 2
    for W in (
        weights_of("disconnected"),
        weights_of("ring", 6, "metropolis_tight"),
        weights_of("ring", 6, "constant", edge=0.9),
        np.eye(4)[[1, 2, 3, 0]],
        weights_of("disconnected", rule="push"),
        mixing.weights(nx.DiGraph([(0, 1), (2, 1)]), "pull"),
        PAIRS[[0, 0]],
        Matchings(4, None, np.ones(1), 1.0),
        np.array([[-0.1, 1.2], [1.1, -0.2]]),
    ):
        assert mixing.consensus_time(W) == math.inf


def test_a_permutation_that_swings_in_norm_but_mixes_in_the_end_has_a_time() -> None:
    W = np.eye(4)[[1, 2, 3, 0]]
    W[[0, 1]] = W[[0, 1]].mean(0)  # doubly stochastic, ‖W - J‖₂ = 1, and yet Wᵏ -> J
    assert mixing.second_modulus(W) == pytest.approx(1, abs=1e-12)
    k = int(mixing.consensus_time(W))
    assert np.linalg.norm(after(W, k) - 1 / 4, 2) <= 1e-6 < np.linalg.norm(after(W, k - 1) - 1 / 4, 2)


# -- who may use it --

CLOSED = "; strict: false runs it, to show the failure"
ONE_WAY = nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)])
REFUSED: dict[str, tuple[Any, str, str, str]] = {
    "rows": (
        weights_of("star", 4, "push"),
        "gossip_sgd",
        "doubly stochastic",
        "mixing: W must be doubly stochastic for gossip_sgd; largest row error 7.5e-01 (row 0); try metropolis weights",
    ),
    "columns": (
        weights_of("star", 4, "uniform"),
        "gossip_sgd",
        "doubly stochastic",
        "mixing: W must be doubly stochastic for gossip_sgd; largest column error 7.5e-01 (column 0); try metropolis weights",
    ),
    "directed": (
        mixing.weights(ONE_WAY),
        "gossip_sgd",
        "doubly stochastic",
        "mixing: W must be doubly stochastic for gossip_sgd; largest column error 3.3e-01 (column 0);"
        " try push_sum_sgd, push_diging or push_pull, or a regular graph",
    ),
    "one of a sequence": (
        np.stack([weights_of("ring", 4), weights_of("star", 4, "uniform")]),
        "gossip_sgd",
        "doubly stochastic",
        "mixing: W must be doubly stochastic for gossip_sgd; largest column error 7.5e-01 (column 0 of matrix 1);"
        " try metropolis weights",
    ),
    "disconnected": (
        weights_of("disconnected", 4),
        "gossip_sgd",
        "doubly stochastic",
        "topology: gossip_sgd needs a connected graph (directed: strongly), this one is not; add edges",
    ),
    "disconnected union": (
        PAIRS[[0, 0]],
        "gossip_sgd",
        "doubly stochastic",
        "topology: gossip_sgd needs a connected graph (directed: strongly), this one is not; add edges",
    ),
    "swings": (
        weights_of("ring", 4, "metropolis_tight"),
        "gossip_sgd",
        "doubly stochastic",
        "mixing: the graph is connected but its spectral gap is 0 (models oscillate forever); try `weights: lazy`",
    ),
    "a sequence that swings": (
        mixing.weights(sequence(1.0)),
        "gossip_sgd",
        "doubly stochastic",
        "mixing: the graph is connected but its spectral gap is 0 (models oscillate forever); try `weights: lazy`",
    ),
    "a random sequence that swings": (
        Matchings(4, None, np.ones(1), 1.0),
        "gossip_sgd",
        "doubly stochastic",
        "mixing: the graph is connected but its spectral gap is 0 (models oscillate forever); try random_matching",
    ),
    "too large": (
        np.array([[-0.1, 1.1], [1.1, -0.1]]),
        "gossip_sgd",
        "doubly stochastic",
        "mixing: gossip_sgd needs ‖W - J‖₂ < 1 to agree, got 1.2; use smaller weights",
    ),
    "too large columns": (
        np.array([[-0.1, 1.2], [1.1, -0.2]]),
        "push_sum_sgd",
        "column stochastic",
        "mixing: push_sum_sgd needs |λ₂| < 1 to agree, got 1.3; use smaller weights",
    ),
    "symmetric: rows": (
        mixing.weights(nx.path_graph(3), "uniform"),
        "extra",
        "symmetric",
        "mixing: W must be symmetric for extra; W[0, 1] is 0.5, W[1, 0] is 0.333333; try metropolis weights",
    ),
    "symmetric: directed": (
        weights_of("exponential", 5),
        "nids",
        "symmetric",
        "mixing: W must be symmetric for nids; W[0, 2] is 0.25, W[2, 0] is 0;"
        " try an undirected graph, or push_diging or push_pull",
    ),
    "symmetric: sums": (
        np.eye(3) / 2,
        "nids",
        "symmetric",
        "mixing: W must be doubly stochastic for nids; largest row error 5.0e-01 (row 0); try metropolis weights",
    ),
    "symmetric: sequence": (
        PAIRS,
        "extra",
        "symmetric",
        "topology: extra needs one fixed symmetric W, got a sequence of 2; try ring, torus or hypercube",
    ),
    "symmetric: random": (
        ALL,
        "d2",
        "symmetric, λ > -1/3",
        "topology: d2 needs one fixed symmetric W, got a random sequence; try ring, torus or hypercube",
    ),
    "symmetric: swings": (
        weights_of("ring", 4, "metropolis_tight"),
        "extra",
        "symmetric",
        "mixing: the graph is connected but its spectral gap is 0 (models oscillate forever); try `weights: lazy`",
    ),
    "d2": (
        weights_of("ring", 8),
        "d2",
        "symmetric, λ > -1/3",
        "mixing: W must have λ_min > -1/3 for d2; λ_min is -0.333333; try `weights: lazy`",
    ),
    "push": (
        weights_of("star", 4, "uniform"),
        "push_sum_sgd",
        "column stochastic",
        "mixing: W must be column stochastic for push_sum_sgd; largest column error 7.5e-01 (column 0);"
        " try `weights: push`",
    ),
    "pair: rows": (
        (weights_of("star", 4, "push"), weights_of("star", 4, "push")),
        "push_pull",
        "row and column stochastic",
        "mixing: R must be row stochastic for push_pull; largest row error 7.5e-01 (row 0); try `weights: pull`",
    ),
    "pair: columns": (
        (weights_of("star", 4, "pull"), weights_of("star", 4, "pull")),
        "push_pull",
        "row and column stochastic",
        "mixing: C must be column stochastic for push_pull; largest column error 7.5e-01 (column 0);"
        " try `weights: push`",
    ),
    "pair: falls apart": (
        (weights_of("star", 4, "pull"), weights_of("disconnected", 4, "push")),
        "push_pull",
        "row and column stochastic",
        "topology: push_pull needs a connected graph (directed: strongly), this one is not; add edges",
    ),
    "tree: directed": (
        weights_of("exponential", 5),
        "relay_sgd",
        "tree",
        "topology: relay_sgd needs an undirected graph; try ring, binary_tree or star",
    ),
    "tree: sequence": (
        PAIRS,
        "relay_sgd",
        "tree",
        "topology: relay_sgd needs one fixed undirected graph, got a sequence of 2; try ring, torus or hypercube",
    ),
    "tree: falls apart": (
        weights_of("disconnected"),
        "relay_sgd",
        "tree",
        "topology: relay_sgd needs a connected graph (directed: strongly), this one is not; add edges",
    ),
}


@pytest.mark.parametrize(("w", "method", "needs", "line"), REFUSED.values(), ids=REFUSED)
def test_what_a_method_cannot_use_is_refused_with_advice(w: Any, method: str, needs: str, line: str) -> None:
    assert refused(lambda: mixing.check(w, method, needs)) == line + CLOSED


@pytest.mark.parametrize("name", ["rows", "columns", "disconnected", "swings", "too large"])
def test_a_run_is_refused_with_the_same_line(name: str) -> None:
    W, method, _, line = REFUSED[name]
    run = dopt.Run(algorithm=method, workers=len(W), learning_rate=0.1, problem="quadratic", steps=1)
    assert refused(lambda: dopt.run(run, graph=W)) == line + CLOSED


def test_what_the_advice_says_is_accepted() -> None:
    lazy, push = weights_of("ring", 4, "lazy", base="metropolis_tight"), mixing.weights(ONE_WAY, "push")
    for w, needs in (
        *((w, "doubly stochastic") for w in (lazy, weights_of("star", 4), np.ones((1, 1)), PAIRS, ALL, MATCHINGS)),
        (weights_of("exponential", 4), "doubly stochastic"),
        (mixing.weights(sequence(1.0), "lazy"), "doubly stochastic"),
        *((w, "symmetric") for w in (weights_of("star", 4), weights_of("ring", 8))),
        (weights_of("ring", 8, "lazy"), "symmetric, λ > -1/3"),
        (push, "column stochastic"),
        (np.stack([push, push]), "column stochastic"),
        (ALL, "column stochastic"),
        ((mixing.weights(ONE_WAY, "pull"), push), "row and column stochastic"),
        ((ALL, ALL), "row and column stochastic"),
        (weights_of("path", 4, "metropolis_tight"), "tree"),
        (weights_of("path", 2, "metropolis_tight"), "tree"),  # it swings, but only its links matter
    ):
        mixing.check(w, "a_method", needs)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (
            lambda: mixing.smallest_eigenvalue(HALVES),
            "mixing: only a symmetric W has a smallest eigenvalue; try spectral_gap",
        ),
        (lambda: mixing.effective_neighbours(HALVES, 1.0), "decay: must lie in [0, 1), got 1.0"),
        (
            lambda: mixing.effective_neighbours(ALL, 0.5),
            "mixing: effective neighbours need W itself, got a random sequence; try a static or periodic one",
        ),
        (
            lambda: mixing.consensus_time(HALVES, 0.0),
            "accuracy: must be at least 1e-12, below which float64 does not see, got 0.0",
        ),
    ],
)
def test_what_a_spectrum_cannot_say_is_refused_in_one_line(call: Callable[[], Any], line: str) -> None:
    assert refused(call) == line
