"""Graphs: each family has the degrees its name promises, and an n that it does not exist for is refused with advice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dopt import topology
from dopt.topology import TOPOLOGIES, adjacency
from dopt.types import InputError

SIZES = range(1, 18)


def make(name: str, workers: int | None = None, **options: Any) -> nx.Graph:
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
    }.get(name, True)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_a_family_has_n_nodes_0_to_n_minus_1_or_does_not_exist(name: str) -> None:
    for n in SIZES:
        if not exists(name, n):
            assert str(n) in refused(name, n)
            continue
        graph = make(name, n)
        assert sorted(graph) == list(range(n))
        assert nx.number_of_selfloops(graph) == 0
        assert not graph.is_multigraph()
        assert graph.is_directed() == bool(TOPOLOGIES[name].traits.get("directed")) or n == 1


@pytest.mark.parametrize("name", [name for name in TOPOLOGIES if name not in ("disconnected", "erdos_renyi")])
def test_every_family_but_the_disconnected_is_strongly_connected(name: str) -> None:
    for n in filter(lambda n: exists(name, n), SIZES):
        assert nx.is_strongly_connected(make(name, n).to_directed()), n


@pytest.mark.parametrize(
    ("name", "degree"),
    [
        ("ring", lambda n: min(2, n - 1)),
        ("complete", lambda n: n - 1),
        ("hypercube", lambda n: int(np.log2(n))),
        ("torus", lambda n: 4),
        ("exponential", lambda n: int(np.ceil(np.log2(n)))),
        ("random_regular", lambda n: 3),
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
    for name in ("random_regular", "erdos_renyi"):
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
        ("grid", 10, {"shape": [2.5, 4]}, "topology.shape: must be int, got 2.5"),
        ("grid", 10, {"shape": ["2", "5"]}, "topology.shape: must be int, got '2'"),
        ("ring", 0, {}, "workers: ring needs at least 1 worker, got 0"),
        ("ring", None, {}, "workers: ring needs at least 1 worker, got None"),
        ("disconnected", 1, {}, "workers: disconnected needs at least 2, got 1"),
        ("random_regular", 5, {}, "topology.degree: random_regular needs 0 < degree < workers and an even degree"),
        ("random_regular", 4, {"degree": 4}, "topology.degree: random_regular needs 0 < degree < workers"),
        ("erdos_renyi", 4, {"probability": 1.5}, "topology.probability: must lie in [0, 1], got 1.5"),
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
        ("networkx:cycle_graph", 5, {"m": 5}, "topology: networkx:cycle_graph refused its arguments {'m': 5}"),
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


@pytest.mark.parametrize("kind", [nx.Graph, nx.DiGraph])
def test_a_graphml_file_comes_back_as_it_was(tmp_path: Path, kind: type[nx.Graph]) -> None:
    graph = kind([("a", "c"), ("c", "b"), ("d", "a")])
    nx.write_graphml(graph, tmp_path / "g.graphml")
    again = make(str(tmp_path / "g.graphml"), 4)
    assert again.is_directed() == graph.is_directed()
    np.testing.assert_array_equal(adjacency(again), adjacency(graph))


def test_a_file_that_is_no_graph_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("hello world\n")
    (tmp_path / "commas.txt").write_text("0,1\n1,2\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "cut.graphml").write_text("<graphml><graph>")
    for name in ("words.txt", "commas.txt", "empty.txt", "bytes.txt", "cut.graphml"):
        message = refused(str(tmp_path / name), 3)
        assert message.startswith("topology: "), name
        assert name in message
    assert refused(str(tmp_path / "ring.txt")).endswith("did you mean 'ring'?")
    (tmp_path / "three.txt").write_text("0 1\n1 2\n")
    assert refused(str(tmp_path / "three.txt"), 4).endswith("has 3 nodes, got workers=4; set workers to 3")
    assert refused(str(tmp_path / "three.txt"), 3, degree=2) == "topology.degree: a file has no options"
