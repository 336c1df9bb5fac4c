"""A weight rule is its formula on every graph: it sums to one, stays on the graph, and is signed only where it says so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cvxpy
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dopt import mixing, topology
from dopt.mixing import WEIGHTS
from dopt.topology import Matchings, Periodic, adjacency
from dopt.types import InputError

N = 7
CONVEX = ("fastest", "fastest_linear")  # a solver's: few small connected graphs
# Boyd's graph of 8 nodes, of CVX's examples "graph Laplacian", and its ‖W - J‖₂ by several rules
EIGHT = topology.make("boyd", 8)
PUBLISHED = {
    "fastest_linear": 0.6433,
    "fastest": 0.6810,
    "metropolis_tight": 0.7743,
    "max_degree": 0.7793,
    "laplacian": 0.7119,
}


def weights_of(name: str, n: int = N, rule: str | None = None, **options: Any) -> Any:
    return mixing.weights(topology.make(name, n), rule, **options)


def refused(call: Callable[[], Any]) -> str:
    """The one line in which it is refused."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@st.composite
def graphs(draw: st.DrawFn, directed: bool | None = None, most: int = 12, connected: bool = False) -> nx.Graph:
    """Any graph on 1 to 12 nodes, connected or not; its edges carry weights from -1 to 1, none of them 0."""
    n = draw(st.integers(1, most))
    kind = nx.DiGraph if (draw(st.booleans()) if directed is None else directed) else nx.Graph
    pairs = [(u, v) for u in range(n) for v in range(n) if u != v]
    graph = kind()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else [])
    if connected:
        graph.add_edges_from((draw(st.integers(0, i - 1)), i) for i in range(1, n))
    for i, edge in enumerate(graph.edges):
        graph.edges[edge]["weight"] = np.cos(2 + i)
    return graph


def a_graph_and_its_weights(rule: str, data: st.DataObject) -> tuple[nx.Graph, np.ndarray]:
    undirected = WEIGHTS[rule].traits.get("undirected")
    small = {"most": 7, "connected": True} if rule in CONVEX else {}
    graph = data.draw(graphs(directed=False if undirected else None, **small))
    return graph, mixing.weights(graph, rule, **({"edge": 0.3} if rule == "constant" else {}))


@pytest.mark.parametrize("rule", WEIGHTS)
@settings(deadline=None, max_examples=64)
@given(data=st.data())
def test_weights_are_nonnegative_sum_to_one_and_stay_on_the_graph(rule: str, data: st.DataObject) -> None:
    graph, W = a_graph_and_its_weights(rule, data)
    traits = WEIGHTS[rule].traits
    assert W.shape == (len(graph), len(graph))
    assert W.dtype == np.float64
    assert traits.get("signed") or (W >= 0).all()
    sums = W.sum(0) if traits.get("stochastic") == "column" else W.sum(1)
    np.testing.assert_allclose(sums, 1, rtol=0, atol=1e-12)
    links = (W != 0) & ~np.eye(len(W), dtype=bool)
    if rule in CONVEX:  # the optimum may do without a link
        assert not (links & ~adjacency(graph)).any()
        assert mixing.is_connected(W)
    else:  # every link carries something, and nothing else does
        np.testing.assert_array_equal(links, adjacency(graph))
    if traits.get("undirected") or (rule in ("lazy", "given") and not graph.is_directed()):
        np.testing.assert_array_equal(W, W.T)
        np.testing.assert_allclose(W.sum(0), 1, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=64)
@given(graph=graphs(directed=False))
def test_rules_are_their_formulas(graph: nx.Graph) -> None:
    a = adjacency(graph)
    n, d = len(a), a.sum(1)
    spectrum = np.linalg.eigvalsh(np.diag(d) - a)
    formulas: dict[str, Callable[[int, int], float]] = {
        "metropolis": lambda i, j: 1 / (1 + max(d[i], d[j])),
        "metropolis_tight": lambda i, j: 1 / max(d[i], d[j]),
        "max_degree": lambda i, j: 1 / d.max(),
        "laplacian": lambda i, j: 2 / (spectrum[-1] + spectrum[1]),
        "constant": lambda i, j: 0.7,
        "given": lambda i, j: graph.edges[i, j]["weight"],
        "uniform": lambda i, j: 1 / (1 + d[i]),
        "pull": lambda i, j: 1 / (1 + d[i]),
        "push": lambda i, j: 1 / (1 + d[j]),
        "lazy": lambda i, j: 0.5 / (1 + max(d[i], d[j])),
    }
    assert {*formulas, *CONVEX} == set(WEIGHTS)
    for rule, edge in formulas.items():
        W = mixing.weights(graph, rule, **({"edge": 0.7} if rule == "constant" else {}))
        for i in range(n):
            for j in range(n):
                if i != j:
                    assert W[i, j] == pytest.approx(edge(i, j) if a[i, j] else 0, abs=1e-12), (rule, i, j)


def test_directed_rules_follow_the_direction_of_the_edges() -> None:
    graph = nx.DiGraph([(0, 1), (0, 2), (1, 2), (2, 0)])
    np.testing.assert_allclose(mixing.weights(graph, "pull"), [[1 / 2, 0, 1 / 2], [1 / 2, 1 / 2, 0], [1 / 3] * 3])
    np.testing.assert_allclose(
        mixing.weights(graph, "push"), [[1 / 3, 0, 1 / 2], [1 / 3, 1 / 2, 0], [1 / 3, 1 / 2, 1 / 2]]
    )
    for place, weight in zip(graph.edges, (0.1, 0.2, 0.3, 0.4), strict=True):
        graph.edges[place]["weight"] = weight
    np.testing.assert_allclose(mixing.weights(graph, "given"), [[0.6, 0, 0.4], [0.1, 0.9, 0], [0.2, 0.3, 0.5]])


def test_given_takes_workers_in_the_order_of_the_nodes_and_refuses_loops_that_say_otherwise() -> None:
    graph = nx.DiGraph()
    graph.add_nodes_from("ba")
    graph.add_weighted_edges_from([("b", "a", 0.25), ("a", "a", 0.75)])
    np.testing.assert_array_equal(mixing.weights(graph, "given"), [[1, 0], [0.25, 0.75]])
    graph.edges["a", "a"]["weight"] = 0.5
    assert refused(lambda: mixing.weights(graph, "given")) == (
        "weights: given leaves worker 1 a weight of 0.75 for itself, but its self-loop says 0.5; leave the self-loop out"
    )


def test_lazy_is_half_the_base_and_has_no_negative_eigenvalue() -> None:
    W = weights_of("ring", 8, "metropolis_tight")
    half = weights_of("ring", 8, "lazy", base="metropolis_tight")
    np.testing.assert_array_equal(half, (np.eye(8) + W) / 2)
    assert np.linalg.eigvalsh(W).min() == pytest.approx(-1, abs=1e-12)
    assert np.linalg.eigvalsh(half).min() >= -1e-12


# -- the least ‖W - J‖₂ --


@pytest.mark.parametrize("rule", PUBLISHED)
def test_on_the_published_graph_a_rule_has_its_published_modulus(rule: str) -> None:
    W = mixing.weights(EIGHT, rule)
    assert np.linalg.norm(W - 1 / 8, 2) == pytest.approx(PUBLISHED[rule], abs=1e-3)
    assert bool(WEIGHTS[rule].traits.get("signed")) == (W.min() < 0)


def test_the_laplacian_rule_puts_the_best_constant_on_the_edges() -> None:
    values = np.sort(nx.laplacian_spectrum(EIGHT))
    W = mixing.weights(EIGHT, "laplacian")
    assert W[0, 1] == pytest.approx(2 / (values[-1] + values[1]), abs=1e-10)
    best = np.linalg.norm(W - 1 / 8, 2)
    for edge in np.linspace(0.01, 0.5, 50):
        assert np.linalg.norm(mixing.weights(EIGHT, "constant", edge=edge) - 1 / 8, 2) >= best - 1e-12


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_the_fastest_weights_of_a_path_are_one_half(n: int) -> None:
    # Boyd-Diaconis-Sun-Xiao 2006, fastest mixing Markov chain on a path: ‖W - J‖₂ = cos(π/n)
    for rule in CONVEX:
        W = weights_of("path", n, rule)
        assert np.linalg.norm(W - 1 / n, 2) == pytest.approx(np.cos(np.pi / n), abs=1e-7)
        np.testing.assert_allclose(np.diag(W, 1), 0.5, atol=1e-3)


@settings(deadline=None, max_examples=8)
@given(graph=graphs(directed=False, most=7, connected=True))
def test_no_rule_is_faster_than_the_fastest(graph: nx.Graph) -> None:
    def modulus(rule: str) -> float:
        return np.linalg.norm(mixing.weights(graph, rule) - 1 / len(graph), 2)

    assert modulus("fastest_linear") <= min(modulus("fastest"), modulus("laplacian")) + 1e-6
    rules = ("metropolis", "metropolis_tight", "max_degree", "lazy")
    assert modulus("fastest") <= min(map(modulus, rules)) + 1e-6


def test_the_convex_rules_are_found_where_the_solver_is_inaccurate_at_first() -> None:
    """A triangle with a pendant at each of its corners: ‖W - J‖₂ = 1/√2."""
    graph = nx.empty_graph(6)
    graph.add_edges_from([(0, 4), (0, 1), (0, 3), (1, 2), (1, 4), (4, 5)])
    assert mixing.spectral_gap(mixing.weights(graph, "fastest_linear")) == pytest.approx(1 - 2**-0.5, abs=1e-6)


@pytest.mark.parametrize("rule", CONVEX)
def test_where_the_solver_cannot_help_one_line_says_why(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(lambda: weights_of("disconnected", rule=rule)) == (
        f"weights: {rule} needs a connected graph, this one is not; add edges"
    )
    for status in (None, "optimal_inaccurate"):

        def fail(problem: Any, status: str | None = status, **options: Any) -> None:
            problem._status = status
            if status is None:
                raise cvxpy.error.SolverError("it gave up")

        monkeypatch.setattr(cvxpy.Problem, "solve", fail)
        assert refused(lambda: weights_of("ring", rule=rule)) == (
            f"weights: the solver did not find {rule} weights ({status or 'no answer'}); try laplacian or metropolis"
        )
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    assert refused(lambda: weights_of("ring", rule=rule)) == (
        f"weights: {rule} needs cvxpy, which is not installed; pip install 'dopt[weights]'"
    )


# -- sequences --


def sequence(weight: float | None = None) -> Periodic:
    """Pairs of 4 workers that take turns."""
    several = [nx.Graph([(0, 1), (2, 3)]), nx.Graph([(0, 2), (1, 3)])]
    for graph in several:
        if weight is not None:
            nx.set_edge_attributes(graph, weight, "weight")
    return Periodic(tuple(several))


MATCHINGS = Matchings(4, np.array([[1, 0, 3, 2], [3, 2, 1, 0]], np.int32), np.array([0.5, 0.7]), 0.4)


def test_the_default_is_what_edges_carry_else_metropolis_or_uniform_for_directed_graphs() -> None:
    for name, rule in (("star", "metropolis"), ("exponential", "uniform")):
        assert mixing.default_rule(topology.make(name, N)) == rule
        np.testing.assert_array_equal(weights_of(name), weights_of(name, rule=rule))
    assert mixing.default_rule(MATCHINGS) is None
    assert mixing.default_rule(sequence()) == "metropolis"
    assert mixing.default_rule(sequence(0.3)) == "given"
    some = Periodic((sequence(0.3).graphs[0], sequence().graphs[1]))
    assert mixing.default_rule(some) == "metropolis"
    ways = Periodic((nx.DiGraph([(0, 1), (1, 0)]), nx.DiGraph([(1, 0)])))
    assert mixing.default_rule(ways) == "uniform"
    carried = nx.path_graph(3)
    nx.set_edge_attributes(carried, 0.1, "weight")
    assert mixing.default_rule(carried) == "metropolis"  # as a social graph's strengths, which are no mixing weights


def test_a_rule_is_applied_to_each_graph_of_a_sequence() -> None:
    for rule, options in (("metropolis", {}), ("lazy", {"base": "max_degree"}), ("constant", {"edge": 0.2})):
        W = mixing.weights(sequence(), rule, **options)
        assert W.shape == (2, 4, 4)
        for matrix, graph in zip(W, sequence().graphs, strict=True):
            np.testing.assert_array_equal(matrix, mixing.weights(graph, rule, **options))
    np.testing.assert_allclose(mixing.weights(sequence(0.3))[0, 0], [0.7, 0.3, 0, 0])
    np.testing.assert_allclose(mixing.weights(sequence(0.3), "lazy")[0, 0], [0.85, 0.15, 0, 0])


def test_a_random_sequence_brings_its_own_weights() -> None:
    assert mixing.weights(MATCHINGS) is MATCHINGS
    assert mixing.as_matrix(MATCHINGS, 4) is MATCHINGS
    assert refused(lambda: mixing.weights(MATCHINGS, "metropolis")) == (
        "weights: a random sequence brings its own weights, got metropolis; leave weights out"
    )
    assert refused(lambda: mixing.as_matrix(MATCHINGS, 5)) == (
        "mixing: W is for 4 workers, got workers=5; set workers to 4"
    )


# -- what a user can mend --

NAN = np.full((2, 2), 0.5)
NAN[1, 0] = np.nan
LIGHT = np.array([[0.5, 0.5], [0.4, 0.3]])


@pytest.mark.parametrize(
    ("matrix", "workers", "message"),
    [
        (np.ones((2, 3)) / 3, None, "mixing: W must be square, got shape (2, 3)"),
        (np.ones(3), None, "mixing: W must be square, got shape (3,)"),
        (np.ones((1, 2, 2, 2)), None, "mixing: W must be square, got shape (1, 2, 2, 2)"),
        (np.ones((0, 2, 2)), None, "mixing: W must be square, got shape (0, 2, 2)"),
        (np.eye(3), 4, "mixing: W is for 3 workers, got workers=4; set workers to 3"),
        (np.eye(3)[None], 1, "mixing: W is for 3 workers, got workers=1; set workers to 3"),
        (NAN, None, "mixing: W must be finite; W[1, 0] is nan"),
        (np.stack([np.eye(2), NAN]), None, "mixing: W must be finite; W[1, 1, 0] is nan"),
        (LIGHT, None, "mixing: rows (or columns) of W must sum to one; largest row error 3.0e-01 (row 1)"),
        (
            np.stack([np.eye(2), np.eye(2), LIGHT]),
            None,
            "mixing: rows (or columns) of W must sum to one; largest row error 3.0e-01 (row 1 of matrix 2)",
        ),
    ],
)
def test_what_is_no_mixing_matrix_is_refused_in_one_line(matrix: Any, workers: int | None, message: str) -> None:
    assert refused(lambda: mixing.as_matrix(matrix, workers)) == message
    if workers is None:
        assert refused(lambda: mixing.mix(matrix)) == message


def test_rows_or_columns_that_sum_to_one_to_1e_9_are_a_mixing_matrix() -> None:
    for W in (weights_of("star", rule="uniform"), weights_of("star", rule="push")):
        np.testing.assert_array_equal(mixing.as_matrix(W), W)
        np.testing.assert_array_equal(mixing.as_matrix([W, W]), [W, W])
    W = np.eye(3)
    W[0, 0] += 5e-10
    np.testing.assert_array_equal(mixing.as_matrix(W), W)
    W[0, 0] += 1e-9
    refused(lambda: mixing.as_matrix(W))
    # all by rows, or all by columns
    refused(lambda: mixing.as_matrix([weights_of("star", rule="uniform"), weights_of("star", rule="push")]))


@pytest.mark.parametrize("rule", [rule for rule, entry in WEIGHTS.items() if entry.traits.get("undirected")])
def test_a_directed_graph_with_a_rule_for_undirected_ones_is_refused(rule: str) -> None:
    options = {"edge": 0.1} if rule == "constant" else {}
    graph = topology.make("exponential", N)
    for line in (
        refused(lambda: mixing.weights(graph, rule, **options)),
        refused(lambda: mixing.weights(Periodic((topology.make("ring", N), graph)), rule, **options)),
        refused(lambda: mixing.weights(graph, "lazy", base=rule)) if not options else None,
    ):
        assert line in (
            f"weights: {rule} needs an undirected graph; for a directed one try uniform, push or pull",
            None,
        )


def test_unknown_rules_and_options_are_refused_with_what_was_meant() -> None:
    assert refused(lambda: weights_of("ring", rule="metropolys")) == (
        "weights: unknown name 'metropolys'; did you mean 'metropolis'?"
    )
    assert refused(lambda: weights_of("ring", rule="lazy", bas="push")) == (
        "weights.bas: lazy has no such option; did you mean 'base'?"
    )
    assert refused(lambda: weights_of("ring", rule="push", lazy=True)) == (
        "weights.lazy: push has no such option; it has no options"
    )
    assert refused(lambda: weights_of("ring", rule="constant")) == (
        "weights.edge: constant needs it; give weights.edge"
    )


def test_given_weights_that_are_missing_or_no_numbers_are_refused() -> None:
    graph = nx.path_graph(3)
    graph.edges[0, 1]["weight"] = 0.5
    assert refused(lambda: mixing.weights(graph, "given")) == (
        "weights: given needs an attribute `weight` on every edge; (1, 2) has none; try metropolis"
    )
    graph.edges[1, 2]["weight"] = "much"
    line = refused(lambda: mixing.weights(graph, "given"))
    assert line.startswith("weights: given needs numbers as weights of the edges (")


def test_a_matrix_in_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    W = weights_of("star", 4)
    np.save(tmp_path / "w.npy", W)
    np.savetxt(tmp_path / "w.csv", W, delimiter=",", fmt="%.17g")
    np.savetxt(tmp_path / "w.txt", W, fmt="%.17g")
    np.savetxt(tmp_path / "w.short.csv", W, delimiter=",", fmt="%.10f")  # as many digits as a sum to 1e-9 needs
    for name in ("w.npy", "w.csv", "w.txt"):
        np.testing.assert_array_equal(mixing.weights(topology.make("star", 4), str(tmp_path / name)), W)
    np.testing.assert_allclose(mixing.read(tmp_path / "w.short.csv"), W, rtol=0, atol=1e-10)
    several = mixing.weights(sequence(), "metropolis")
    np.save(tmp_path / "several.npy", several)
    for network in (topology.make("complete", 4), sequence()):
        np.testing.assert_array_equal(mixing.weights(network, str(tmp_path / "several.npy")), several)


def test_a_file_that_is_no_matrix_is_refused_in_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "big.npy", np.eye(5))
    (tmp_path / "words.csv").write_text("a,b\nc,d\n")
    (tmp_path / "ragged.csv").write_text("1,0\n0\n")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "big.npy").read_bytes()[:-8])
    (tmp_path / "empty.csv").write_text("")
    for name in ("pickled.npy", "words.csv", "ragged.csv", "empty.npy", "cut.npy", "empty.csv"):
        line = refused(lambda: mixing.weights(topology.make("star", 4), str(tmp_path / name)))
        assert line.startswith("weights: "), line
        assert name in line
    assert refused(lambda: mixing.read(tmp_path / "metropolis.npy")).endswith("did you mean 'metropolis'?")
    assert refused(lambda: mixing.weights(topology.make("star", 4), str(tmp_path / "big.npy"))) == (
        "mixing: W is for 5 workers, got workers=4; set workers to 5"
    )
