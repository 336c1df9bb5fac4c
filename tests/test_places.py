"""Where workers stand in a picture: each named layout shows what its graph is, and no two workers stand on each other."""

from __future__ import annotations

import dataclasses
from typing import Any

import networkx as nx
import numpy as np
import pytest
from scipy.spatial.distance import pdist

from dopt import topology
from dopt.plot import places
from dopt.topology import TOPOLOGIES
from dopt.types import InputError

SIZES = (2, 3, 8, 9, 16, 24, 32)


def placed(name: str, n: int, **options: Any) -> tuple[places.Layout, np.ndarray]:
    """(layout, links [n, n])."""
    links = topology.adjacency(topology.make(name, n, **options))
    return places.layout(name, options, links), links


def edges(links: np.ndarray) -> np.ndarray:
    return np.argwhere(np.triu(links | links.T))


@pytest.mark.parametrize("name", sorted(TOPOLOGIES))
def test_no_two_workers_stand_at_one_place_and_all_stand_within_the_picture(name: str) -> None:
    for n in SIZES if "layout" in TOPOLOGIES[name].traits else (16,):
        try:
            layout, links = placed(name, n)
        except InputError:
            continue
        depth = np.zeros(n) if layout.near is None else layout.near
        assert layout.places.shape == (n, 2)
        assert np.abs(layout.places).max() <= 1 + 1e-9
        assert pdist(np.column_stack([layout.places, depth])).min() > 0.2 / n, n
        again, _ = placed(name, n)
        np.testing.assert_array_equal(again.places, layout.places)
        if layout.way is not None:
            for u, v in edges(links):
                np.testing.assert_allclose(layout.way(u, v)[[0, -1], :2], layout.places[[u, v]], atol=1e-12)


def test_every_layout_that_a_topology_names_is_there_and_each_is_named() -> None:
    named = {entry.traits["layout"] for entry in TOPOLOGIES.values() if "layout" in entry.traits}
    assert named == {*places.LAYOUTS, "base"}


@pytest.mark.parametrize("shape", [[4, 4], [3, 8], [8, 3]])
def test_links_of_a_torus_go_around_its_ring_or_its_tube(shape: list[int]) -> None:
    layout, links = placed("torus", int(np.prod(shape)), shape=shape)
    assert layout.way is not None
    assert layout.near is not None
    found = edges(links)
    lengths = [np.abs(np.diff(layout.way(u, v)[:, :2], axis=0)).sum() for u, v in found]
    assert max(lengths) < 2.2  # a third of a ring, and never the long way
    middle = np.array([layout.way(u, v)[places.CURVE // 2, :2] for u, v in found])
    straight = layout.places[found].mean(1)
    assert np.linalg.norm(middle - straight, axis=1).min() > 0.01  # none is straight
    hole = np.linalg.norm(layout.places, axis=1).min()
    assert hole > 0.2


@pytest.mark.parametrize(("n", "options"), [(16, {}), (24, {}), (24, {"shape": [2, 12]})])
def test_neighbours_in_a_grid_are_a_step_apart_along_rows_or_columns(n: int, options: dict[str, Any]) -> None:
    layout, links = placed("grid", n, **options)
    steps = np.abs(np.diff(layout.places[edges(links)], axis=1)[:, 0])
    np.testing.assert_allclose(steps.min(1), 0, atol=1e-12)
    np.testing.assert_allclose(steps.max(1), steps.max())


def test_links_of_one_dimension_of_a_cube_are_parallel_and_the_fourth_nests() -> None:
    layout, links = placed("hypercube", 16)
    u, v = edges(links).T
    for bit in range(3):
        chosen = (u ^ v) == 1 << bit
        outer = chosen & (u < 8)
        ways = layout.places[v[outer]] - layout.places[u[outer]]
        np.testing.assert_allclose(ways, ways[:1].repeat(len(ways), 0), atol=1e-12)
    outside, inside = layout.places[:8], layout.places[8:]
    np.testing.assert_allclose(np.ptp(inside, axis=0), 0.4 * np.ptp(outside, axis=0))


def test_neighbours_on_a_ring_are_next_to_each_other_and_the_first_stands_on_top() -> None:
    layout, links = placed("ring", 12)
    np.testing.assert_allclose(layout.places[0], [0, 1], atol=1e-12)
    np.testing.assert_allclose(
        pdist(layout.places).min(), np.linalg.norm(np.diff(layout.places[edges(links)], axis=1), axis=-1)
    )


def test_children_stand_below_their_parents_and_a_star_around_its_hub() -> None:
    layout, _ = placed("binary_tree", 16)
    heights = layout.places[:, 1]
    assert all(heights[i] < heights[(i - 1) // 2] for i in range(1, 16))
    layout, _ = placed("star", 9)
    np.testing.assert_allclose(np.linalg.norm(layout.places, axis=1), [0, *[1] * 8], atol=1e-12)


def test_parts_that_are_not_linked_stand_side_by_side() -> None:
    layout, _ = placed("disconnected", 16)
    assert layout.places[:8, 0].max() < layout.places[8:, 0].min()


def test_a_graph_of_ones_own_is_laid_out_by_its_links_alone_the_same_way_each_time() -> None:
    links = nx.to_numpy_array(nx.petersen_graph()) > 0
    one, two = (places.layout("networkx:petersen_graph", {}, links) for _ in range(2))
    np.testing.assert_array_equal(one.places, two.places)
    star = np.roll(nx.to_numpy_array(nx.star_graph(6)) > 0, (3, 3), (0, 1))  # whose hub is worker 3
    np.testing.assert_allclose(places.unnamed(star).places[3], 0, atol=1e-9)


def test_matchings_of_a_base_graph_are_drawn_where_that_is() -> None:
    np.testing.assert_array_equal(placed("matcha", 16, base="torus")[0].places, placed("torus", 16)[0].places)


def test_a_layout_that_is_not_there_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = TOPOLOGIES["ring"]
    monkeypatch.setitem(TOPOLOGIES, "mine", dataclasses.replace(ring, name="mine", traits={"layout": "circl"}))
    with pytest.raises(InputError, match=r"^topology: mine names the layout 'circl'; did you mean 'circle'\?$"):
        placed("mine", 4)
