"""Files of graphs lose nothing or are refused; generators of networkx follow from their options; W is what its row says."""

from __future__ import annotations

import datetime
import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from scipy import sparse

from dopt import mixing, run, topology
from dopt.config import Run
from dopt.topology import adjacency, attribute, edge_delays, generators
from dopt.types import InputError

RING = [(0, 1), (1, 2), (2, 3), (3, 0)]
BASE = {"algorithm": "gossip_sgd", "workers": 4, "learning_rate": 0.1, "problem": "consensus", "steps": 4}


def refused(call: Callable[[], Any]) -> str:
    """The one line in which it is refused."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(tmp_path: Path, name: str, content: str) -> str:
    (tmp_path / name).write_text(content)
    return str(tmp_path / name)


# -- edge lists and adjacency lists --


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.edges", "0 1\n1,2\n2 0\n", 2),
        ("a.edges", "0 1\n1 2\n5\n", 3),
        ("a.edges", "0 1 0.5 0.5\n", 1),
        ("a.edges", "0 1 nan\n", 1),
        ("a.edges", "0 1_0\n", 1),
        ("a.edges", "0 1.0\n", 1),
        ("a.edges", "0 1 {'delay': 1\n", 1),
        ("a.edges", "0 1 {'delay': 1, 'delay': 2}\n", 1),
        ("a.edges", "0 1 {1: 2}\n", 1),
        ("a.edges", "0 1 {1, 2}\n", 1),
        ("a.edges", "0 1 {'delay': __import__('os')}\n", 1),
        ("a.edges", f"0 1 {{'delay': {'[' * 9999}}}\n", 1),
        ("a.edges", "0 1\n# directed\n1 2\n", 2),
        ("a.adjlist", "0 1 2\n1 two\n", 2),
        ("a.adjlist", "0,1\n", 1),
    ],
)
def test_a_line_that_does_not_fit_is_named(name: str, content: str, line: int, tmp_path: Path) -> None:
    message = refused(lambda: topology.read(written(tmp_path, name, content)))
    assert f"(line {line}: " in message


def test_an_edge_list_keeps_what_its_edges_carry(tmp_path: Path) -> None:
    lines = "0 1 {'delay': 2, 'weight': 0.25}\n1 2 {'delay': 0, 'weight': .25} # so\n2 0 {'delay': 1, 'weight': 1e-1}\n"
    graph = topology.read(written(tmp_path, "a.edges", lines))
    np.testing.assert_array_equal(edge_delays(graph), [[0, 2, 1], [2, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(attribute(graph, "weight"), [[0, 0.25, 0.1], [0.25, 0, 0.25], [0.1, 0.25, 0]])
    plain = topology.read(written(tmp_path, "b.edges", "#Directed\n0 1 .25\n1 0 -2e-1\n"))
    np.testing.assert_array_equal(attribute(plain, "weight"), [[0, -0.2], [0.25, 0]])
    nx.write_edgelist(graph, tmp_path / "again.edges")
    again = topology.read(tmp_path / "again.edges")
    for name in ("weight", "delay"):
        np.testing.assert_array_equal(attribute(again, name), attribute(graph, name))


def test_an_edge_that_stands_twice_is_one_edge_or_refused_where_it_carries_numbers(tmp_path: Path) -> None:
    twice = topology.read(written(tmp_path, "a.edges", "0 1\n1 0\n1 2\n"))
    assert twice.number_of_edges() == 2
    for content in ("0 1 0.5\n1 0 0.5\n", "0 1\n0 1 {'delay': 1}\n"):
        assert "edge (0, 1) is there twice" in refused(lambda c=content: topology.read(written(tmp_path, "b.edges", c)))
    both = nx.MultiGraph([(0, 1, {"weight": 0.2}), (0, 1, {"weight": 0.3}), (1, 2, {"weight": 0.25})])
    for ending in ("graphml", "gml", "gexf"):
        getattr(nx, f"write_{ending}")(both, tmp_path / f"g.{ending}")
        assert "is there twice" in refused(lambda ending=ending: topology.read(tmp_path / f"g.{ending}")), ending
    assert "is there twice" in refused(lambda: mixing.weights(both, "given"))
    assert mixing.weights(both, "metropolis")[0, 1] == pytest.approx(1 / 3)


# -- who is which worker --


@pytest.mark.parametrize("ending", ["graphml", "gml", "gexf"])
def test_labels_that_are_whole_numbers_name_the_workers_whatever_the_order(ending: str, tmp_path: Path) -> None:
    hub = nx.Graph()
    hub.add_nodes_from([4, 0, 1, 2, 3])
    hub.add_edges_from([(4, i) for i in range(4)] + [(0, 1)])
    getattr(nx, f"write_{ending}")(hub, tmp_path / f"hub.{ending}")
    graph = topology.read(tmp_path / f"hub.{ending}")
    np.testing.assert_array_equal(adjacency(graph), adjacency(hub))
    assert topology.notes(graph) == ()


def test_where_no_label_is_a_worker_the_order_of_the_file_counts_and_the_run_says_so(tmp_path: Path) -> None:
    file = written(tmp_path, "a.edges", "".join(f"{u + 7} {v + 7}\n" for u, v in RING))
    done = run(Run.from_dict({**BASE, "topology": file}))
    assert done.notes == (
        "topology: nodes are not named 0..3: workers are numbered in the order of the file, worker 0 is '7'",
    )


@pytest.mark.parametrize(
    "inner",
    [
        '<node id="0"/><node id="1"/><node id="1"/><edge source="0" target="1"/>',
        '<node id="0"/><edge source="0" target="1"/>',
        '<node id="0"/><node id="1"/><edge source="0"/>',
        '<node id="0"/><node id="1"/><edge id="e" source="0" target="1"/><edge id="e" source="0" target="1"/>',
        '<node id="0"/><node id="1"/><edge source="0" target="1"/></graph><graph edgedefault="undirected"><node id="2"/>',
        '<node id="0"><port name="p"/></node><node id="1"/><edge source="0" target="1"/>',
    ],
)
def test_elements_that_a_graph_would_not_keep_are_refused(inner: str, tmp_path: Path) -> None:
    content = f'<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="undirected">{inner}</graph></graphml>'
    assert "is not GraphML" in refused(lambda: topology.read(written(tmp_path, "a.graphml", content)))


def test_the_default_of_an_attribute_counts_where_an_edge_has_none(tmp_path: Path) -> None:
    content = """<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
    <key id="w" for="edge" attr.name="weight" attr.type="double"><default>0.25</default></key>
    <graph edgedefault="undirected"><node id="0"/><node id="1"/><edge source="0" target="1"/></graph></graphml>"""
    graph = topology.read(written(tmp_path, "a.graphml", content))
    assert mixing.weights(graph, "given").tolist() == [[0.75, 0.25], [0.25, 0.75]]


# -- delays of edges --


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        ([(0, 1, {}), (1, 2, {})], "(0, 1) has none"),
        ([(0, 1, {"delay": 1}), (1, 2, {})], "(1, 2) has none"),
        ([(0, 1, {"delay": -1})], "must be a whole number of steps, not negative, got -1"),
        ([(0, 1, {"delay": 0.5})], "must be a whole number of steps, not negative, got 0.5"),
        ([(0, 1, {"delay": True})], "edge (0, 1) needs a number as delay, got True"),
        ([(0, 1, {"delay": float("nan")})], "must be a whole number of steps, not negative, got nan"),
        ([(0, 1, {"delay": float("inf")})], "must be a whole number of steps, not negative, got inf"),
        ([(0, 1, {"delay": 10**400})], "needs a number as delay"),
        ([(0, 0, {"delay": 1}), (0, 1, {"delay": 1})], "a self-loop with a delay"),
    ],
)
def test_delays_of_edges_are_those_of_every_edge_or_refused(edges: list, said: str) -> None:
    assert said in refused(lambda: edge_delays(nx.Graph(edges)))


def test_a_run_at_the_delays_of_edges_that_have_none_is_refused() -> None:
    options = {**BASE, "algorithm": "delayed_gossip_sgd", "delay": "edges"}
    assert refused(lambda: run(Run.from_dict(options))).startswith("delay: edges needs an attribute")


# -- generators of networkx --

DRAWN: dict[str, dict[str, Any]] = {
    "gnp_random_graph": {"n": 12, "p": 0.5},
    "random_geometric_graph": {"n": 12, "radius": 0.5},
    "gaussian_random_partition_graph": {"n": 12, "s": 4, "v": 3, "p_in": 0.9, "p_out": 0.2},
    "navigable_small_world_graph": {"n": 4},
    "scale_free_graph": {"n": 12},
    "uniform_random_intersection_graph": {"n": 12, "m": 5, "p": 0.5},
    "random_k_out_graph": {"n": 12, "k": 2, "alpha": 1},
    "maybe_regular_expander_graph": {"n": 12, "d": 4},
    "geometric_soft_configuration_graph": {"n": 12, "beta": 2, "gamma": 2.7, "mean_degree": 3},
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_generator_draws_from_its_options_alone(name: str) -> None:
    def drawn(process: int, **seed: int) -> set[frozenset[Any]]:
        random.seed(process)
        np.random.seed(process)
        return set(map(frozenset, topology.make(f"networkx:{name}", **DRAWN[name], **seed).edges))

    assert drawn(1) == drawn(2) == drawn(3, seed=0)
    assert any(drawn(1) != drawn(1, seed=seed) for seed in (1, 2, 3))


def test_the_seed_of_a_generator_is_among_the_resolved_options_and_so_in_the_id() -> None:
    options = {**BASE, "topology": "networkx:gnp_random_graph", "topology.n": 4, "topology.p": 0.9}
    resolved = Run.from_dict(options).resolve()
    assert resolved.options["topology.seed"] == 0
    assert Run.from_dict({**options, "topology.seed": 0}).id == resolved.id
    assert Run.from_dict({**options, "topology.seed": 1}).id != resolved.id
    fixed = Run.from_dict({**BASE, "topology": "networkx:cycle_graph", "topology.n": 4}).resolve()
    assert "topology.seed" not in fixed.options


def test_a_sweep_drops_the_seed_where_a_generator_takes_none() -> None:
    options = {**BASE, "topology": "networkx:cycle_graph", "topology.n": 4, "topology.seed": 3}
    assert "topology.seed" not in Run.from_dict(options).resolve(unread="drop").options
    assert refused(Run.from_dict(options).resolve).startswith("topology.seed: networkx:cycle_graph has no such option")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("is_perfect_graph", {}, "networkx has no generator"),
        ("node_link_graph", {"data": "x"}, "networkx has no generator"),
        ("to_networkx_graph", {"data": "x"}, "networkx has no generator"),
        ("line_graph", {"G": 3}, "networkx has no generator"),
        ("cycle_graph", {"n": 4, "backend": "cugraph"}, "topology.backend: networkx:cycle_graph has no such option"),
        ("cycle_graph", {"n": 4, "create_using": "x"}, "topology.create_using: networkx:cycle_graph has no such"),
        ("barabasi_albert_graph", {"n": 4, "m": 2, "initial_graph": 1}, "topology.initial_graph: "),
        ("cycle_graph", {"n": datetime.date(2024, 1, 1)}, "topology.n: must be a number or a list of them"),
        ("cycle_graph", {"n": "four"}, "topology.n: must be a number or a list of them, got 'four'"),
        ("cycle_graph", {"n": True}, "topology.n: must be a number or a list of them, got True"),
        ("grid_graph", {"dim": [2, "x"]}, "topology.dim: must be a number or a list of them, got 'x'"),
        ("cycle_graph", {"n": 10**9}, "topology.n: must lie within ±100000"),
        ("cycle_graph", {"n": float("nan")}, "topology.n: must lie within ±100000"),
        ("gnp_random_graph", {"n": 4, "p": 0.5, "seed": -1}, "topology.seed: must lie in [0, 2^32), got -1"),
        ("gnp_random_graph", {"n": 4, "p": 0.5, "seed": 0.5}, "topology.seed: must be int"),
        ("kneser_graph", {"n": 99, "k": 40}, "makes too large a graph"),
        ("hypercube_graph", {"n": 99999}, "makes too large a graph"),
        ("sudoku_graph", {"n": 99}, "makes too large a graph"),
        ("random_regular_graph", {"n": 99999, "d": 9999}, "makes too large a graph"),
        ("caveman_graph", {"l": 31623, "k": 31623}, "makes too large a graph"),
        ("connected_caveman_graph", {"l": 99999, "k": 4000}, "makes too large a graph"),
        ("relaxed_caveman_graph", {"l": 4000, "k": 99999, "p": 0.1}, "makes too large a graph"),
        ("planted_partition_graph", {"l": 99999, "k": 1000, "p_in": 0.5, "p_out": 0.5}, "makes too large a graph"),
        ("random_geometric_graph", {"n": 99999, "radius": 2}, "makes too large a graph"),
        ("random_k_out_graph", {"n": 4000, "k": 4000, "alpha": 1}, "makes too large a graph"),
        ("visibility_graph", {"series": [0.9] * 9999}, "makes too large a graph"),
        ("random_lobster_graph", {"n": 4, "p1": 1.0, "p2": 1.0}, "refused its arguments"),
    ],
)
def test_what_makes_no_graph_of_plain_values_is_refused_at_once(name: str, options: dict, said: str) -> None:
    line = refused(lambda: topology.make(f"networkx:{name}", **options))
    assert line.startswith("topology")
    assert said in line


def test_a_generator_is_stopped_where_it_makes_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generators, "WORK", 10**5)
    assert "makes too large a graph" in refused(lambda: topology.make("networkx:complete_graph", n=99999))
    assert "makes too large a graph" in refused(lambda: topology.make("networkx:mycielski_graph", n=16))
    assert len(topology.make("networkx:complete_graph", n=9)) == 9


# -- matrices --


def test_a_line_that_no_square_matrix_has_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.csv.gz"
    path.write_bytes(gzip.compress(b"0\n" + b"0" * 2_000_000))
    assert refused(lambda: mixing.read(path, 4)).endswith("(line 2 of 2 has 2000000 characters)")
    np.savetxt(tmp_path / "wide.csv", np.full((300, 300), 1 / 300), "%.330f", delimiter=",")
    assert len(mixing.read(tmp_path / "wide.csv", 300)) == 300


@pytest.mark.parametrize("ending", [".npy", ".csv", ".txt", ".npy.gz", ".csv.bz2", ".txt.xz", ".gz"])
def test_a_matrix_is_read_packed_or_not_and_damage_is_one_line(ending: str, tmp_path: Path) -> None:
    W, path = mixing.weights(topology.make("path", 4)), tmp_path / f"w{ending}"
    if ".npy" in ending:
        np.save(tmp_path / "plain.npy", W)
        path.write_bytes((tmp_path / "plain.npy").read_bytes())
        if ending.endswith(".gz"):
            path.write_bytes(gzip.compress(path.read_bytes()))
    else:
        np.savetxt(path, W, delimiter="," if ".csv" in ending else " ")  # packs by the ending
    np.testing.assert_array_equal(mixing.read(path, 4), W)
    content = path.read_bytes()
    for damaged in (b"0.5 0.5\n", content[:-9], content[5:], b"\xff" + content, b"# nothing\n"):
        path.write_bytes(damaged)
        assert refused(lambda: mixing.read(path, 4)).startswith(("weights: ", "mixing: "))


def test_links_that_the_named_graph_lacks_are_refused_and_alone_a_matrix_is_own(tmp_path: Path) -> None:
    W = mixing.weights(topology.make("star", 4))
    np.savetxt(tmp_path / "star.csv", W, delimiter=",")
    options = {**BASE, "weights": str(tmp_path / "star.csv")}
    for name in ("ring", "path"):
        assert "which the topology lacks" in refused(lambda name=name: Run.from_dict({**options, "topology": name}).id)
    assert Run.from_dict({**options, "topology": "star"}).resolve().topology == "star"
    alone = Run.from_dict(options).resolve()
    assert alone.topology == "own"
    assert alone.resolve() == alone
    assert refused(Run.from_dict({**options, "topology.degree": 2}).resolve).startswith("topology.degree: ")
    done = run(Run.from_dict({**options, "metrics": ["loss"]}))
    assert (done.run.topology, done.spectral_gap) == ("own", pytest.approx(mixing.spectral_gap(W)))


def test_two_matrices_that_take_turns_must_be_of_the_graphs_that_do(tmp_path: Path) -> None:
    sequence = topology.make("one_peer_exponential", 4)
    W = mixing.weights(sequence)
    np.save(tmp_path / "w.npy", W)
    np.testing.assert_array_equal(mixing.weights(sequence, str(tmp_path / "w.npy")), W)
    np.save(tmp_path / "w.npy", W[::-1])
    assert "which the topology lacks" in refused(lambda: mixing.weights(sequence, str(tmp_path / "w.npy")))
    np.save(tmp_path / "w.npy", np.full((4, 4), 0.25))
    assert "a period of 2" in refused(lambda: mixing.weights(sequence, str(tmp_path / "w.npy")))


@pytest.mark.parametrize(
    "W",
    [
        mixing.weights(topology.make("erdos_renyi", 12)),
        mixing.weights(topology.make("random_digraph", 12)),
        mixing.weights(topology.make("random_digraph", 12), "push"),
        (np.eye(9) + 2 * np.roll(np.eye(9), 1, 1) + 4 * np.roll(np.eye(9), 3, 1)) / 7,
        mixing.weights(topology.make("base_k", 12, degree=2)),
    ],
    ids=["symmetric", "rows", "columns", "both", "a period"],
)
def test_a_matrix_rounded_to_float32_is_scaled_and_keeps_what_it_promises(W: np.ndarray) -> None:
    rounded = W.astype(np.float32)
    again = mixing.as_matrix(rounded)
    for axis in (0, 1):
        if mixing.is_stochastic(W, axis):
            np.testing.assert_allclose(again.sum(axis - 2), 1, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(again != 0, W != 0)
    np.testing.assert_allclose(again, W, rtol=0, atol=3e-7)
    assert mixing.is_symmetric(again) == mixing.is_symmetric(W)
    assert len(mixing.notes(rounded)) == 1
    assert mixing.notes(W) == ()


def test_other_kinds_of_matrices_are_taken_whole_or_refused() -> None:
    W = mixing.weights(topology.make("path", 3))
    for same in (sparse.csr_array(W), sparse.coo_matrix(W), W + 0j, W.tolist()):
        np.testing.assert_array_equal(mixing.as_matrix(same, 3), W)
    assert refused(lambda: mixing.as_matrix(W + 1e-9j)) == "mixing: W must be real; W[0, 0] is " + str(W[0, 0] + 1e-9j)
    assert refused(lambda: mixing.as_matrix(sparse.eye_array(10**6), 3)).startswith("mixing: W must be 3 x 3")
    assert refused(lambda: mixing.as_matrix(np.ma.masked_less(W, 0.1))).startswith(
        "mixing: W must have all its entries"
    )
    assert refused(lambda: mixing.as_matrix([[1, 0], [1]])).startswith("mixing: W must be an array of numbers")
    assert refused(lambda: mixing.as_matrix(W * 1e300)).startswith("mixing: rows (or columns) of W must sum to one")
    assert refused(lambda: mixing.as_matrix(W * np.nan)).startswith("mixing: W must be finite")
    assert refused(lambda: mixing.as_matrix(np.round(W, 3))).endswith("; divide each row by its sum, in float64")


def test_a_sparse_matrix_runs_as_the_dense_one() -> None:
    W = mixing.weights(topology.make("ring", 4))
    options = Run.from_dict({**BASE, "metrics": ["loss"]})
    assert run(options, graph=sparse.csr_array(W)).id == run(options, graph=W).id
