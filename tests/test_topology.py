"""Graphs and sequences: each has the links its name promises, and an n that it does not exist for is refused with advice."""

from __future__ import annotations

import sys
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dopt import mixing, topology
from dopt.topology import TOPOLOGIES, Matchings, Periodic, adjacency, attribute
from dopt.topology.sequences import laplacians, matchings
from dopt.types import InputError

SIZES = range(1, 18)


def make(name: str, workers: int | None = None, **options: Any) -> Any:
    return topology.make(name, workers, **options)


def degrees(name: str, workers: int, **options: Any) -> list[int]:
    """Ascending numbers of senders."""
    return sorted(adjacency(make(name, workers, **options)).sum(1).tolist())


def refused(name: str, workers: int | None = None, **options: Any) -> str:
    """The one line in which it is refused."""
    with pytest.raises(InputError) as caught:
        make(name, workers, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- families --


def exists(name: str, n: int) -> bool:
    """For which n a family exists, by its definition."""
    factors = [(a, n // a) for a in range(1, n + 1) if n % a == 0]
    return {
        "hypercube": n & (n - 1) == 0,
        "torus": any(min(sides) >= 3 for sides in factors),
        "grid": any(min(sides) >= 2 for sides in factors),
        "random_regular": n > 3 and n % 2 == 0,
        "disconnected": n > 1,
        "barbell": n >= 4,
        "lollipop": n >= 3,
        "ladder": n >= 4 and n % 2 == 0,
        "watts_strogatz": n > 4,
        "barabasi_albert": n > 2,
        "expander": n in (4, 9, 16),
        "social": n == 15,
        "boyd": n == 8,
        "matcha": n > 1,
    }.get(name, True)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_a_family_has_n_nodes_0_to_n_minus_1_or_does_not_exist(name: str) -> None:
    for n in SIZES:
        if not exists(name, n):
            assert str(n) in refused(name, n)
            continue
        network = make(name, n)
        assert len(network) == n
        assert type(network) is {None: type(network), "periodic": Periodic, "random": Matchings}[sequence(name)]
        for graph in graphs(network):
            assert sorted(graph) == list(range(n))
            assert nx.number_of_selfloops(graph) == 0
            assert not graph.is_multigraph()
            assert graph.is_directed() == bool(TOPOLOGIES[name].traits.get("directed")) or n == 1
            weighted = len(nx.get_edge_attributes(graph, "weight")) == graph.number_of_edges() > 0
            assert weighted == bool(TOPOLOGIES[name].traits.get("weighted")) or n == 1


def sequence(name: str) -> str | None:
    return TOPOLOGIES[name].traits.get("sequence")


def graphs(network: topology.Network) -> tuple[nx.Graph, ...]:
    """Those that are fixed."""
    return network.graphs if isinstance(network, Periodic) else () if isinstance(network, Matchings) else (network,)


BY_CHANCE = ("erdos_renyi", "random_geometric")  # connected with high probability


@pytest.mark.parametrize("name", [name for name in TOPOLOGIES if name not in ("disconnected", *BY_CHANCE)])
def test_every_family_but_the_disconnected_is_strongly_connected(name: str) -> None:
    for n in filter(lambda n: exists(name, n), SIZES):
        links = nx.from_numpy_array(adjacency(make(name, n)).astype(int), create_using=nx.DiGraph)
        assert nx.is_strongly_connected(links), n


@pytest.mark.parametrize("name", BY_CHANCE)
def test_by_default_chance_mostly_connects(name: str) -> None:
    assert sum(nx.is_connected(make(name, 64, seed=seed)) for seed in range(30)) >= 25


@pytest.mark.parametrize(
    ("name", "degree"),
    [
        ("ring", lambda n: min(2, n - 1)),
        ("complete", lambda n: n - 1),
        ("hypercube", lambda n: int(np.log2(n))),
        ("torus", lambda n: 4),
        ("exponential", lambda n: int(np.ceil(np.log2(n)))),
        ("random_regular", lambda n: 3),
        ("directed_ring", lambda n: min(1, n - 1)),
        ("random_matching", lambda n: n - 1),  # sooner or later
        ("one_peer_ring", lambda n: min(2, n - 1)),
        ("one_peer_exponential", lambda n: int(np.ceil(np.log2(n)))),
    ],
)
def test_regular_families_are_regular(name: str, degree: Any) -> None:
    for n in filter(lambda n: exists(name, n), SIZES):
        a = adjacency(make(name, n))
        np.testing.assert_array_equal(a.sum(1), np.full(n, degree(n)), err_msg=f"{n} senders")
        np.testing.assert_array_equal(a.sum(0), np.full(n, degree(n)), err_msg=f"{n} receivers")


def test_irregular_families_have_their_degrees() -> None:
    assert degrees("path", 6) == [1, 1, 2, 2, 2, 2]
    assert degrees("star", 6) == [1, 1, 1, 1, 1, 5]
    assert degrees("grid", 6) == [2, 2, 2, 2, 3, 3]  # 2 x 3
    assert degrees("grid", 9) == [2, 2, 2, 2, 3, 3, 3, 3, 4]
    assert degrees("binary_tree", 7) == [1, 1, 1, 1, 2, 3, 3]
    assert degrees("barbell", 7) == [2, 2, 3, 3, 3, 3, 4]  # cliques of 3 and 4
    assert degrees("lollipop", 7) == [1, 2, 2, 3, 3, 3, 4]  # a clique of 4 with a tail of 3
    assert degrees("ladder", 8) == [2, 2, 2, 2, 3, 3, 3, 3]
    assert degrees("barbell", 4) == degrees("binary_tree", 4) == [1, 1, 2, 2]


def test_neighbours_are_the_definitions() -> None:
    for n in (3, 8):
        i, j = np.indices((n, n))
        np.testing.assert_array_equal(adjacency(make("ring", n)), np.isin((i - j) % n, [1, n - 1]))
        np.testing.assert_array_equal(adjacency(make("path", n)), abs(i - j) == 1)
        np.testing.assert_array_equal(adjacency(make("star", n)), (i == 0) ^ (j == 0))
        np.testing.assert_array_equal(adjacency(make("complete", n)), i != j)
    i, j = np.indices((8, 8))
    np.testing.assert_array_equal(adjacency(make("hypercube", 8)), np.isin(i ^ j, [1, 2, 4]))
    i, j = np.indices((12, 12))
    rows, columns = abs(i // 3 - j // 3), abs(i % 3 - j % 3)
    np.testing.assert_array_equal(adjacency(make("grid", 12)), rows + columns == 1)
    around = np.minimum(rows, 4 - rows) + np.minimum(columns, 3 - columns)
    np.testing.assert_array_equal(adjacency(make("torus", 12)), around == 1)


def test_new_families_have_the_links_of_their_definitions() -> None:
    i, j = np.indices((11, 11))
    np.testing.assert_array_equal(adjacency(make("binary_tree", 11)), (i == (j - 1) // 2) | (j == (i - 1) // 2))
    np.testing.assert_array_equal(adjacency(make("directed_ring", 11)), (i - j) % 11 == 1)  # j sends to j + 1
    bridge = (np.minimum(i, j) == 4) & (np.maximum(i, j) == 5)
    np.testing.assert_array_equal(adjacency(make("barbell", 11)), (i != j) & ((i < 5) == (j < 5)) | bridge)
    clique = np.maximum(i, j) < 6
    np.testing.assert_array_equal(adjacency(make("lollipop", 11)), (i != j) & clique | (abs(i - j) == 1))
    i, j = np.indices((10, 10))
    np.testing.assert_array_equal(adjacency(make("ladder", 10)), abs(i // 5 - j // 5) + abs(i % 5 - j % 5) == 1)


@pytest.mark.parametrize("side", [2, 3, 5, 9])
def test_the_expander_is_its_four_maps_and_keeps_its_gap(side: int) -> None:
    n = side**2
    x, y = np.divmod(np.arange(n), side)
    maps = ((x + 2 * y, y), (x + 2 * y + 1, y), (x, y + 2 * x), (x, y + 2 * x + 1))
    expected = np.zeros((n, n), bool)
    for z, w in maps:
        expected[np.arange(n), z % side * side + w % side] = True
    expected |= expected.T
    np.fill_diagonal(expected, False)
    a = adjacency(make("expander", n))
    np.testing.assert_array_equal(a, expected)
    assert a.sum(1).max() <= 8
    assert np.linalg.eigvalsh(np.diag(a.sum(1)) - a)[1] >= 8 - 5 * np.sqrt(2)  # Gabber-Galil: whatever n


def test_the_gap_of_the_expander_does_not_shrink_with_n() -> None:
    for side in range(4, 17):
        assert mixing.spectral_gap(mixing.weights(make("expander", side**2), "metropolis")) >= 0.15, side


@pytest.mark.parametrize(("network", "n", "links"), [("davis", 32, 89), ("florentine", 15, 20), ("karate", 34, 78)])
def test_a_social_network_is_found_by_its_number_of_people(network: str, n: int, links: int) -> None:
    graph = make("social", n)
    assert graph.number_of_edges() == links
    assert nx.utils.graphs_equal(graph, make("social", n, network=network))
    assert refused("social", n + 5, network=network).endswith(f"got {n + 5}")
    assert f"{n} ({network})" in refused("social", 20)


def test_the_published_example_has_8_workers_and_13_edges() -> None:
    graph = make("boyd", 8)
    assert graph.number_of_edges() == 13
    assert sorted(graph[1]) == [0, 2, 3, 6, 7]  # 2 with 1, 3, 4, 7 and 8, as the publication counts
    assert refused("boyd", 9) == "workers: boyd is one graph of 8 workers, got 9; set workers to 8"


def test_random_families_have_as_many_links_as_asked_for() -> None:
    for n, seed in product((6, 11), range(5)):
        assert make("watts_strogatz", n, degree=4, probability=0.5, seed=seed).number_of_edges() == 2 * n
        assert make("barabasi_albert", n, links=3, seed=seed).number_of_edges() == 3 * (n - 3)
    i, j = np.indices((9, 9))
    around = np.minimum((i - j) % 9, (j - i) % 9)
    unwired = make("watts_strogatz", 9, degree=4, probability=0.0)
    np.testing.assert_array_equal(adjacency(unwired), np.isin(around, [1, 2]))
    assert degrees("random_geometric", 9, radius=1.5) == [8] * 9
    assert make("random_geometric", 9, radius=1e-9).number_of_edges() == 0
    found = [adjacency(make("random_geometric", 12, radius=radius)) for radius in (0.2, 0.3, 0.5)]
    assert all((less <= more).all() for less, more in pairwise(found))


def test_a_random_digraph_is_a_cycle_and_links_by_chance() -> None:
    for n, seed in product((2, 7, 12), range(3)):
        assert degrees("random_digraph", n, probability=0.0, seed=seed) == [1] * n
        assert nx.is_strongly_connected(make("random_digraph", n, probability=0.0, seed=seed))
        assert degrees("random_digraph", n, probability=1.0, seed=seed) == [n - 1] * n
    n, p = 100, 0.3
    links = make("random_digraph", n, probability=p, seed=1).number_of_edges()
    pairs = n * (n - 1)
    assert abs(links - p * pairs - (1 - p) * n) < 5 * np.sqrt(p * (1 - p) * pairs)
    links = make("random_digraph", n).number_of_edges()  # by default 2 log n / n
    p = 2 * np.log(n) / n
    assert abs(links - p * pairs - (1 - p) * n) < 5 * np.sqrt(p * (1 - p) * pairs)


@pytest.mark.parametrize("n", [2, 6, 7, 8])
def test_in_the_exponential_graph_i_receives_from_i_plus_powers_of_two(n: int) -> None:
    a = adjacency(make("exponential", n))
    for i in range(n):
        senders = {(i + 2**k) % n for k in range(10) if 2**k < n}
        assert set(np.flatnonzero(a[i]).tolist()) == senders


def test_disconnected_is_two_rings() -> None:
    a = adjacency(make("disconnected", 9))
    np.testing.assert_array_equal(a[:4, :4], adjacency(make("ring", 4)))
    np.testing.assert_array_equal(a[4:, 4:], adjacency(make("ring", 5)))
    assert not a[:4, 4:].any()
    assert not a[4:, :4].any()


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 12), data=st.data())
def test_random_regular_has_the_degree_asked_for(n: int, data: st.DataObject) -> None:
    degree = data.draw(st.integers(1, n - 1).filter(lambda degree: degree * n % 2 == 0))
    assert degrees("random_regular", n, degree=degree, seed=data.draw(st.integers(0, 1000))) == [degree] * n


def test_random_graphs_follow_their_seed() -> None:
    for name in (
        "random_regular",
        "erdos_renyi",
        "watts_strogatz",
        "barabasi_albert",
        "random_geometric",
        "random_digraph",
    ):
        one, again, other = (adjacency(make(name, 16, seed=seed)) for seed in (3, 3, 4))
        np.testing.assert_array_equal(one, again)
        assert (one != other).any()


def test_erdos_renyi_has_every_edge_with_its_probability() -> None:
    assert make("erdos_renyi", 9, probability=0.0).number_of_edges() == 0
    assert make("erdos_renyi", 9, probability=1.0).number_of_edges() == 36
    edges = make("erdos_renyi", 100, probability=0.3, seed=1).number_of_edges()
    assert abs(edges - 0.3 * 4950) < 5 * np.sqrt(0.3 * 0.7 * 4950)
    edges = make("erdos_renyi", 100).number_of_edges()  # by default 2 log n / n
    p = 2 * np.log(100) / 100
    assert abs(edges - p * 4950) < 5 * np.sqrt(p * (1 - p) * 4950)


# -- shapes, and n that does not exist --


@pytest.mark.parametrize(
    ("name", "n", "shape"),
    [
        ("torus", 27, (3, 3, 3)),
        ("torus", 18, (3, 6)),
        ("torus", 60, (3, 4, 5)),
        ("torus", 7, (7,)),
        ("grid", 8, (2, 2, 2)),
        ("grid", 10, (5, 2)),
        ("grid", 5, (5,)),
    ],
)
def test_shape_overrides_the_most_square_factors(name: str, n: int, shape: tuple[int, ...]) -> None:
    place = np.stack(np.unravel_index(np.arange(n), shape), 1)
    apart = abs(place[:, None] - place[None])
    if name == "torus":
        apart = np.minimum(apart, np.array(shape) - apart)
    # networkx turns the order of the sides round; the graph is the same up to the numbering of its workers
    expected = nx.from_numpy_array((apart.sum(-1) == 1).astype(int))
    assert nx.is_isomorphic(make(name, n, shape=list(shape)), expected)


@pytest.mark.parametrize(("n", "shape"), [(12, (3, 4)), (16, (4, 4)), (24, (4, 6)), (36, (6, 6)), (45, (5, 9))])
def test_sides_are_the_most_square(n: int, shape: tuple[int, int]) -> None:
    assert topology.sides(n, None, 3, "torus") == shape


@pytest.mark.parametrize(
    ("name", "n", "least"), [("torus", 10, 3), ("torus", 7, 3), ("torus", 1, 3), ("grid", 7, 2), ("grid", 1, 2)]
)
def test_an_n_without_two_sides_is_refused_with_an_n_that_works(name: str, n: int, least: int) -> None:
    message = refused(name, n)
    assert message.startswith(f"workers: {name} needs two sides >= {least}, which {n} does not have; try workers=")
    works = int(message.split("workers=")[1].split()[0])
    assert n < works
    assert len(make(name, works)) == works


def test_a_hypercube_that_is_no_power_of_two_is_refused_with_the_powers_around() -> None:
    assert refused("hypercube", 12) == "workers: hypercube needs a power of two, got 12; try workers=8 or 16"


@pytest.mark.parametrize(
    ("name", "n", "options", "message"),
    [
        ("torus", 12, {"shape": [2, 6]}, "topology.shape: torus needs sides >= 3 whose product is workers=12"),
        ("torus", 12, {"shape": [3, 5]}, "topology.shape: torus needs sides >= 3 whose product is workers=12"),
        ("grid", 12, {"shape": [12, 1]}, "topology.shape: grid needs sides >= 2 whose product is workers=12"),
        ("grid", 4, {"shape": [-2, -2]}, "topology.shape: grid needs sides >= 2"),
        ("grid", 1, {"shape": []}, "topology.shape: grid needs sides >= 2"),
        ("grid", 10, {"shape": [2.5, 4]}, "topology.shape: must be int, got 2.5 (float)"),
        ("grid", 10, {"shape": ["2", "5"]}, "topology.shape: must be int, got '2' (str)"),
        ("ring", 0, {}, "workers: ring needs at least 1 worker, got 0"),
        ("ring", None, {}, "workers: ring needs at least 1 worker, got None"),
        ("disconnected", 1, {}, "workers: disconnected needs at least 2, got 1"),
        ("random_regular", 5, {}, "topology.degree: random_regular needs 0 < degree < workers and an even degree"),
        ("random_regular", 4, {"degree": 4}, "topology.degree: random_regular needs 0 < degree < workers"),
        ("erdos_renyi", 4, {"probability": 1.5}, "topology.probability: must lie in [0, 1], got 1.5"),
        ("barbell", 3, {}, "workers: barbell needs at least 4, got 3"),
        ("lollipop", 2, {}, "workers: lollipop needs at least 3, got 2"),
        ("ladder", 7, {}, "workers: ladder needs an even number of at least 4, got 7; try 8"),
        ("ladder", 2, {}, "workers: ladder needs an even number of at least 4, got 2; try 4"),
        ("expander", 12, {}, "workers: expander needs a square of at least 4, got 12; try workers=9 or 16"),
        ("expander", 1, {}, "workers: expander needs a square of at least 4, got 1; try workers=4"),
        ("social", 5, {}, "workers: social networks have 32 (davis), 15 (florentine), 34 (karate), got 5"),
        ("social", 15, {"network": "davis"}, "workers: social networks have 32 (davis)"),
        ("social", 34, {"network": "karat"}, "topology.network: unknown name 'karat'; did you mean 'karate'?"),
        ("watts_strogatz", 4, {}, "topology.degree: watts_strogatz needs an even degree, 2 <= degree < workers, got"),
        ("watts_strogatz", 9, {"degree": 3}, "topology.degree: watts_strogatz needs an even degree, 2 <= degree"),
        ("watts_strogatz", 9, {"degree": 0}, "topology.degree: watts_strogatz needs an even degree, 2 <= degree"),
        ("watts_strogatz", 9, {"probability": -1.0}, "topology.probability: must lie in [0, 1], got -1.0"),
        ("barabasi_albert", 2, {}, "topology.links: barabasi_albert needs 1 <= links < workers, got links=2"),
        ("barabasi_albert", 4, {"links": 0}, "topology.links: barabasi_albert needs 1 <= links < workers, got links=0"),
        ("random_geometric", 4, {"radius": 0.0}, "topology.radius: must be positive, got 0.0"),
        ("random_digraph", 4, {"probability": 2.0}, "topology.probability: must lie in [0, 1], got 2.0"),
        ("base_k", 4, {"degree": 0}, "topology.degree: must be at least 1, got 0"),
        ("matcha", 1, {}, "workers: matcha needs at least 2, got 1"),
        ("matcha", 4, {"budget": 0.0}, "topology.budget: must lie in (0, 1], got 0.0"),
        ("matcha", 4, {"budget": 1.1}, "topology.budget: must lie in (0, 1], got 1.1"),
        ("matcha", 4, {"base": "rign"}, "topology.base: unknown name 'rign'; did you mean 'ring'?"),
        ("matcha", 4, {"base": "ring.edges"}, "topology.base: unknown name 'ring.edges'"),
        ("matcha", 4, {"base": "networkx:cubical_graph"}, "topology.base: unknown name 'networkx:cubical_graph'"),
        ("matcha", 4, {"base": "exponential"}, "topology.base: matcha needs one fixed undirected graph, got expo"),
        ("matcha", 4, {"base": "base_k"}, "topology.base: matcha needs one fixed undirected graph, got base_k"),
        ("matcha", 4, {"base": "matcha"}, "topology.base: matcha needs one fixed undirected graph, got matcha"),
        ("matcha", 4, {"base": "disconnected"}, "topology.base: matcha needs a connected graph, this disconnected"),
        ("matcha", 6, {"base": "hypercube"}, "workers: hypercube needs a power of two, got 6"),
        ("rign", 4, {}, "topology: unknown name 'rign'; did you mean 'ring'?"),
        ("ring", 4, {"degree": 3}, "topology.degree: ring has no such option; it has no options"),
        (
            "random_regular",
            4,
            {"degre": 3},
            "topology.degre: random_regular has no such option; did you mean 'degree'?",
        ),
        ("networkx:petersen_grap", 10, {}, "topology: networkx has no generator 'petersen_grap'; did you mean"),
        ("networkx:Graph", None, {}, "topology: networkx has no generator 'Graph'"),
        ("networkx:cycle_graph", 5, {"m": 5}, "topology.m: networkx:cycle_graph has no such option; known: n"),
        ("networkx:cycle_graph", 5, {}, "topology: networkx:cycle_graph refused its arguments {} ("),
        (
            "networkx:petersen_graph",
            9,
            {},
            "workers: networkx:petersen_graph has 10 nodes, got workers=9; set workers to 10",
        ),
    ],
)
def test_what_gives_no_graph_is_refused_in_one_line(name: str, n: int | None, options: dict, message: str) -> None:
    assert refused(name, n, **options).startswith(message)


# -- periodic sequences --


def averaging(graph: nx.Graph) -> np.ndarray:
    """W of the edges' own weights, without any 1 / (1 + number of senders); the rest to oneself."""
    a = adjacency(graph)
    w = attribute(graph, "weight", missing=np.nan) if graph.number_of_edges() else np.zeros_like(a, float)
    if np.isnan(w).any():
        w = a / (1 + a.sum(1, keepdims=True))
    return w + np.diag(1 - w.sum(1))


def period(network: Periodic) -> np.ndarray:
    """W of all steps, one after the other."""
    product = np.eye(len(network))
    for graph in network.graphs:
        product = averaging(graph) @ product
    return product


def test_one_peer_exponential_takes_the_hops_in_turn() -> None:
    assert [len(make("one_peer_exponential", n).graphs) for n in (1, 2, 3, 4, 5, 8, 9)] == [1, 1, 2, 2, 3, 3, 4]
    for n in (2, 5, 8):
        i, j = np.indices((n, n))
        for k, graph in enumerate(make("one_peer_exponential", n).graphs):
            np.testing.assert_array_equal(adjacency(graph), (j - i) % n == 2**k % n)


def test_one_peer_exponential_averages_exactly_in_a_period_iff_n_is_a_power_of_two() -> None:
    for n in range(1, 65):
        error = abs(period(make("one_peer_exponential", n)) - 1 / n).max()
        assert (error < 1e-15) == (n & (n - 1) == 0), n


def test_one_peer_ring_covers_the_ring_by_near_perfect_matchings() -> None:
    for n in SIZES:
        network = make("one_peer_ring", n)
        assert len(network.graphs) == (1 if n <= 2 else 2 + n % 2)
        for graph in network.graphs:
            np.testing.assert_array_less(adjacency(graph).sum(1), 2)
            assert graph.number_of_edges() == n // 2
        np.testing.assert_array_equal(adjacency(network), adjacency(make("ring", n)))


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_base_k_averages_exactly_in_a_period_with_k_neighbours_a_step(degree: int) -> None:
    for n in range(1, 65):
        network = make("base_k", n, degree=degree)
        for graph in network.graphs:
            w = averaging(graph)
            np.testing.assert_array_equal(w, w.T)
            assert w.min() >= -1e-15
            assert ((w > 0) & ~np.eye(n, dtype=bool)).sum(1).max() <= degree
        np.testing.assert_allclose(period(network), 1 / n, rtol=0, atol=1e-12, err_msg=f"{n}")
        assert len(network.graphs) <= 2 * np.log(n) / np.log(degree + 1) + 2  # Theorem 1


def test_base_k_is_the_hypercube_or_the_complete_graph_where_these_are_of_its_degrees() -> None:
    for graph, bit in zip(make("base_k", 8).graphs, (1, 2, 4), strict=True):
        i, j = np.indices((8, 8))
        np.testing.assert_array_equal(averaging(graph), ((i ^ j == bit) | (i == j)) / 2)
    (graph,) = make("base_k", 7, degree=6).graphs
    np.testing.assert_allclose(averaging(graph), 1 / 7, atol=1e-15)
    # 6 = 2 x 3: two simple graphs on 3 nodes, then across; one simple graph on 6 would take longer
    assert len(make("base_k", 6).graphs) == 4


# -- random sequences --


def matrices(network: Matchings, seed: int, steps: int) -> np.ndarray:
    """[steps, n, n]: W_k = I - a Σⱼ Bⱼ Lⱼ, matching by matching."""
    partner, active = network.draw(seed, steps)
    w = np.tile(np.eye(len(network)), (steps, 1, 1))
    step, matching, worker = np.nonzero(active[:, :, None] & np.ones(len(network), bool))
    met = np.broadcast_to(partner, (steps, *partner.shape[1:]))[step, matching, worker]
    np.add.at(w, (step, worker, worker), -network.weight)
    np.add.at(w, (step, worker, met), network.weight)
    return w


@pytest.mark.parametrize("name", ["random_matching", "matcha"])
@pytest.mark.parametrize("n", [2, 5, 6])
def test_a_draw_is_of_matchings_and_depends_on_seed_and_step_alone(name: str, n: int) -> None:
    network = make(name, n)
    partner, active = network.draw(3, 50)
    assert partner.dtype == np.int32
    assert active.dtype == bool
    assert partner.shape == (50 if name == "random_matching" else 1, len(network.probability), n)
    assert active.shape == (50, len(network.probability))
    np.testing.assert_array_equal(
        np.take_along_axis(partner, partner, -1), np.broadcast_to(np.arange(n), partner.shape)
    )
    for steps in (0, 1, 20):
        less, active_before = network.draw(3, steps)
        np.testing.assert_array_equal(less, partner[:steps] if name == "random_matching" else partner)
        np.testing.assert_array_equal(active_before, active[:steps])
    other, active_then = network.draw(4, 50)
    assert n == 2 or (other != partner).any() or (active_then != active).any()
    if name == "random_matching":
        assert active.all()
        np.testing.assert_array_equal((partner == np.arange(n)).sum(-1), n % 2)


@pytest.mark.parametrize(
    ("name", "n", "options"),
    [
        *[("random_matching", n, {}) for n in (1, 2, 5, 6)],
        ("matcha", 7, {}),
        ("matcha", 8, {"base": "barbell", "budget": 0.3}),
    ],
)
def test_moments_are_those_of_many_draws(name: str, n: int, options: dict) -> None:
    network, steps = make(name, n, **options), 20_000
    w = matrices(network, 1, steps)
    for found, expected in zip((w, np.swapaxes(w, 1, 2) @ w), network.moments(), strict=True):
        sigma = found.std(0) / np.sqrt(steps)
        np.testing.assert_array_less(abs(found.mean(0) - expected), 5 * sigma + 1e-12)


@pytest.mark.parametrize(("base", "n"), [("ring", 7), ("star", 6), ("complete", 6), ("path", 2)])
def test_moments_of_matcha_are_the_sums_over_all_subsets(base: str, n: int) -> None:
    network = make("matcha", n, base=base, budget=0.4)
    first, second = np.zeros((2, n, n))
    for subset in product((0, 1), repeat=len(network.probability)):
        chance = np.where(subset, network.probability, 1 - network.probability).prod()
        w = np.eye(n) - network.weight * np.tensordot(subset, laplacians(network.partners), 1)
        first, second = first + chance * w, second + chance * w.T @ w
    for found, expected in zip(network.moments(), (first, second), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_random_matching_is_each_with_the_same_chance() -> None:
    for n, kinds in ((4, 3), (5, 15)):
        partner, _ = make("random_matching", n).draw(0, 20_000)
        _, counts = np.unique(partner[:, 0], axis=0, return_counts=True)
        assert len(counts) == kinds
        assert abs(counts - 20_000 / kinds).max() < 5 * np.sqrt(20_000 / kinds)


@settings(deadline=None, max_examples=100)
@given(n=st.integers(1, 14), p=st.floats(0, 1), seed=st.integers(0, 10_000))
def test_an_edge_colouring_is_proper_and_has_one_colour_more_than_the_degree_at_most(
    n: int, p: float, seed: int
) -> None:
    graph = nx.gnp_random_graph(n, p, seed=seed)
    partners = matchings(graph)
    a = adjacency(graph)
    assert len(partners) <= a.sum(1).max() + 1
    np.testing.assert_array_equal(np.take_along_axis(partners, partners, 1), np.tile(np.arange(n), (len(partners), 1)))
    # each edge in exactly one of them
    np.testing.assert_array_equal((partners[:, :, None] == np.arange(n)).sum(0) * ~np.eye(n, dtype=bool), a)


@pytest.mark.parametrize("budget", [0.01, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(
    ("base", "n"), [("ring", 9), ("ring", 16), ("star", 7), ("barbell", 10), ("random_regular", 12)]
)
def test_matcha_spends_its_budget_so_that_no_other_probabilities_connect_better(
    base: str, n: int, budget: float
) -> None:
    network = make("matcha", n, base=base, budget=budget)
    p, each = network.probability, laplacians(network.partners)
    count = len(p)
    np.testing.assert_array_equal(adjacency(network), adjacency(make(base, n)))
    assert p.min() >= 0
    assert p.max() <= 1
    np.testing.assert_allclose(p.sum(), budget * count, atol=1e-5)
    if budget == 1:
        np.testing.assert_array_equal(p, np.ones(count))

    def connectivity(p: np.ndarray) -> float:
        return np.linalg.eigvalsh(np.tensordot(p, each, 1))[1]

    rng, best = np.random.default_rng(0), connectivity(p)
    assert best >= connectivity(np.full(count, budget)) * (1 - 1e-3)
    for _ in range(100):  # concave: a better one were better on the way to it, too
        near = np.clip(p + 0.05 * budget * rng.standard_normal(count), 0, 1)
        near *= min(1, budget * count / near.sum())
        assert connectivity(near) <= best * (1 + 1e-3)


@pytest.mark.parametrize(
    ("base", "n", "budget"), [("ring", 9, 0.5), ("star", 6, 0.9), ("barbell", 8, 0.1), ("path", 3, 1.0)]
)
def test_no_other_weight_of_matcha_contracts_more(base: str, n: int, budget: float) -> None:
    network = make("matcha", n, base=base, budget=budget)

    def norm(a: float) -> float:
        again = Matchings(n, network.partners, network.probability, a)
        return np.linalg.norm(again.moments()[1] - 1 / n, 2)

    best = norm(network.weight)
    assert best < 1
    assert all(norm(a) >= best - 1e-7 for a in np.linspace(0, 2, 201))


def test_two_workers_of_matcha_meet_as_often_as_the_budget_and_average() -> None:
    network = make("matcha", 2, budget=0.25)
    np.testing.assert_allclose(network.probability, [0.25], atol=1e-6)
    np.testing.assert_allclose(network.weight, 0.5, atol=1e-6)


def test_matchings_of_matcha_are_active_with_their_probabilities() -> None:
    network, steps = make("matcha", 8, base="barbell", budget=0.4), 20_000
    _, active = network.draw(5, steps)
    p = network.probability
    np.testing.assert_array_less(abs(active.mean(0) - p), 5 * np.sqrt(p * (1 - p) / steps) + 1e-6)
    independent = np.cov(active.T.astype(float)) - np.diag(active.var(0))
    assert abs(independent).max() < 5 * 0.25 / np.sqrt(steps) + 1e-3


def test_matcha_is_solved_once() -> None:
    assert make("matcha", 9, budget=0.37) is make("matcha", 9, budget=0.37)


def test_matcha_without_a_solver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    assert refused("matcha", 11, budget=0.123).endswith("pip install 'dopt[weights]'")
    assert make("matcha", 11, budget=1.0).probability.min() == 1  # needs none


# -- networkx, labels, files --


def test_any_networkx_generator_is_a_topology() -> None:
    assert degrees("networkx:petersen_graph", 10) == [3] * 10
    assert degrees("networkx:circulant_graph", 9, n=9, offsets=[1, 3]) == [4] * 9
    assert len(make("networkx:karate_club_graph")) == 34
    davis = make("networkx:davis_southern_women_graph", 32)
    assert adjacency(davis).sum() == 2 * davis.number_of_edges()


def test_multigraphs_and_self_loops_become_simple_graphs_on_the_same_nodes() -> None:
    expander = make("networkx:margulis_gabber_galil_graph", 16, n=4)
    assert not expander.is_multigraph()
    assert nx.number_of_selfloops(expander) == 0
    # a worker whose only link is to itself is still a worker
    alone = make("networkx:circulant_graph", 3, n=3, offsets=[0])
    assert sorted(alone) == [0, 1, 2]
    assert not adjacency(alone).any()


def test_worker_i_is_node_i_where_nodes_are_numbers_else_the_ith_listed() -> None:
    numbers = nx.Graph([(2, 0), (0, 1)])
    np.testing.assert_array_equal(adjacency(numbers), [[0, 1, 1], [1, 0, 0], [1, 0, 0]])
    letters = nx.Graph([("c", "a"), ("a", "b")])  # listed as c, a, b
    np.testing.assert_array_equal(adjacency(letters), [[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    gaps = nx.Graph([(5, 3), (3, 9)])
    np.testing.assert_array_equal(adjacency(gaps), adjacency(letters))


def test_an_edge_u_v_says_that_u_sends_to_v() -> None:
    np.testing.assert_array_equal(adjacency(nx.DiGraph([(0, 1), (1, 2)])), [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    loops = nx.DiGraph([(0, 0), (0, 1)])
    np.testing.assert_array_equal(adjacency(loops), [[0, 0], [1, 0]])


def test_an_edge_list_comes_back_directed_where_its_first_line_says_so(tmp_path: Path) -> None:
    lines = "0 1\n1 2 # a comment\n2 0 0.5\n3 0\n"
    (tmp_path / "g.edges").write_text(lines)
    (tmp_path / "d.txt").write_text(f"# Directed\n{lines}")
    np.testing.assert_array_equal(
        adjacency(make(str(tmp_path / "g.edges"), 4)), [[0, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        adjacency(make(str(tmp_path / "d.txt"))), [[0, 0, 1, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    )


def test_an_adjacency_list_comes_back_directed_where_its_first_line_says_so(tmp_path: Path) -> None:
    lines = "0 1 3\n1 2\n2 0\n3\n"
    (tmp_path / "g.adjlist").write_text(lines)
    (tmp_path / "d.adjlist").write_text(f"# directed\n{lines}")
    directed = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]], bool)
    np.testing.assert_array_equal(adjacency(make(str(tmp_path / "d.adjlist"), 4)), directed)
    np.testing.assert_array_equal(adjacency(make(str(tmp_path / "g.adjlist"), 4)), directed | directed.T)


@pytest.mark.parametrize("ending", ["graphml", "gml", "gexf"])
@pytest.mark.parametrize("kind", [nx.Graph, nx.DiGraph])
def test_a_file_of_networkx_comes_back_as_it_was(tmp_path: Path, kind: type[nx.Graph], ending: str) -> None:
    graph = kind([("a", "c", {"delay": 2}), ("c", "b", {"delay": 0}), ("d", "a", {"delay": 1})])
    getattr(nx, f"write_{ending}")(graph, tmp_path / f"g.{ending}")
    again = make(str(tmp_path / f"g.{ending}"), 4)
    np.testing.assert_array_equal(attribute(again, "delay"), attribute(graph, "delay"))
    assert again.is_directed() == graph.is_directed()
    np.testing.assert_array_equal(adjacency(again), adjacency(graph))


def test_a_file_that_is_no_graph_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("hello world\n")
    (tmp_path / "commas.txt").write_text("0,1\n1,2\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "cut.graphml").write_text("<graphml><graph>")
    bad = ["words.txt", "commas.txt", "empty.txt", "bytes.txt", "cut.graphml"]
    for ending, content in product(
        ("graphml", "gml", "gexf", "adjlist"), (b"", b"\xff\xfe\x00", b"no graph\n", b"<a/>")
    ):
        bad.append(f"{len(bad)}.{ending}")
        (tmp_path / bad[-1]).write_bytes(content)
    (tmp_path / "cut.gml").write_text("graph [\n  node [\n")
    (tmp_path / "nobody.gml").write_text("graph [\n  node [\n    id 0\n  ]\n  edge [\n    source 0\n  ]\n]\n")
    for name in [*bad, "cut.gml", "nobody.gml"]:
        message = refused(str(tmp_path / name), 3)
        assert message.startswith("topology: "), name
        assert name in message
    assert refused(str(tmp_path / "ring.txt")).endswith("did you mean 'ring'?")
    (tmp_path / "three.txt").write_text("0 1\n1 2\n")
    assert refused(str(tmp_path / "three.txt"), 4).endswith("has 3 nodes, got workers=4; set workers to 3")
    assert refused(str(tmp_path / "three.txt"), 3, degree=2) == "topology.degree: a file has no options"


# -- adjacency and attributes --


def test_the_links_of_a_sequence_are_all_that_ever_occur() -> None:
    one, two = nx.DiGraph([(0, 1)]), nx.DiGraph([(1, 2)])
    one.add_node(2)
    two.add_node(0)
    np.testing.assert_array_equal(adjacency(Periodic((one, two))), [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(adjacency(make("one_peer_exponential", 11)), adjacency(make("exponential", 11)))
    partners = np.array([[1, 0, 2, 3], [0, 1, 3, 2]], np.int32)
    never = Matchings(4, partners, np.array([0.5, 0.0]), 0.5)
    np.testing.assert_array_equal(adjacency(never), [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_an_attribute_stands_where_its_edge_does() -> None:
    edges = [(2, 0, {"delay": 3}), (0, 1, {})]
    np.testing.assert_array_equal(attribute(nx.Graph(edges), "delay"), [[0, 0, 3], [0, 0, 0], [3, 0, 0]])
    np.testing.assert_array_equal(attribute(nx.DiGraph(edges), "delay"), [[0, 0, 3], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(attribute(nx.DiGraph(edges), "delay", 7), [[0, 0, 3], [7, 0, 0], [0, 0, 0]])
    with pytest.raises(InputError, match=r"^topology: edge \(0, 1\) needs a number as delay, got 'two'$"):
        attribute(nx.Graph([(0, 1, {"delay": "two"})]), "delay")
