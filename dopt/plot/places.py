"""Where the workers of a network stand in its picture, so that a torus looks like a torus.

A topology says by its trait `layout` which of `LAYOUTS` shows what it is. Without one, a graph that stays the same when it is turned
is a circle, a star is a star, and any other is laid out as if its links were springs, the same way each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import networkx as nx
import numpy as np

from dopt.registry import did_you_mean
from dopt.text import quoted
from dopt.topology import GENERATOR, TOPOLOGIES, is_file
from dopt.topology.graphs import sides
from dopt.types import InputError

TILT, TUBE = (
    math.radians(42),
    0.42,
)  # of a torus: how far it is tipped towards us, and its tube's radius, as a share of the ring's
ASIDE = np.array([0.34, 0.24])  # where the third dimension of a grid leads, as a share of a step
CURVE = 24  # points of a link that is no straight line
PLAIN = 0.5  # how near a link is where nothing is behind another
SPRINGS = 200  # workers: up to here all distances are springs

Way = Callable[[int, int], np.ndarray]


class Layout(NamedTuple):
    """A picture's places, in [-1, 1]."""

    places: np.ndarray  # [n, 2]
    way: Way | None = None  # of a link (u, v), [points, 3]: x, y, and how near it is, 0 to 1; None: all are straight
    near: np.ndarray | None = None  # [n] how near a worker is, 0 to 1; None: nobody is behind others


def layout(name: str, options: Mapping[str, Any], links: np.ndarray) -> Layout:
    """The layout of a network.

    Args:
      name: as `topology.make` takes it.
      options: the topology's own.
      links: [n, n] bool, of all steps together; [i, j]: j sends to i.

    Raises:
      InputError: its topology names a layout that is not there.
    """
    if is_file(name) or name.startswith(GENERATOR) or name not in TOPOLOGIES or len(links) < 2:
        return unnamed(links)
    entry = TOPOLOGIES[name]
    kind, full = entry.traits.get("layout"), entry.options(options, "topology")
    if kind == "base":  # that of the topology which its option `base` names
        return layout(full["base"], {}, links)
    if kind is None:
        return unnamed(links)
    if kind not in LAYOUTS:
        raise InputError(f"topology: {name} names the layout {quoted(kind)}{did_you_mean(kind, LAYOUTS)}")
    return LAYOUTS[kind](links, full)


def unnamed(links: np.ndarray) -> Layout:
    """The layout of a graph of which nothing is known but its links [n, n]; its parts lie side by side."""
    graph = nx.from_numpy_array(links | links.T)
    parts = [sorted(part) for part in nx.connected_components(graph)]
    place, columns = np.zeros((len(links), 2)), math.ceil(math.sqrt(len(parts)))
    for number, part in enumerate(parts):
        inner = links[np.ix_(part, part)]
        turns = np.array_equal(np.roll(inner, (1, 1), (0, 1)), inner)
        found = _circle(len(part)) if turns else _springs(nx.convert_node_labels_to_integers(graph.subgraph(part)))
        place[part] = found + np.array([2.5 * (number % columns), -2.5 * (number // columns)])
    return Layout(_fit(place))


def _circle(n: int, first: float = math.pi / 2) -> np.ndarray:
    """[n, 2], clockwise from the top."""
    angles = first - 2 * np.pi * np.arange(n) / n
    return np.column_stack([np.cos(angles), np.sin(angles)]) * (n > 1)


def _springs(graph: nx.Graph) -> np.ndarray:
    """[n, 2]; the hub of a star in the middle."""
    n = len(graph)
    hub, most = max(graph.degree, key=lambda pair: pair[1])
    if most == graph.number_of_edges() == n - 1:
        return _star(n, hub)
    found = nx.kamada_kawai_layout(graph) if n <= SPRINGS else nx.spring_layout(graph, seed=0)
    return np.array([found[i] for i in range(n)])


def _star(n: int, hub: int = 0) -> np.ndarray:
    return np.insert(_circle(n - 1) if n > 2 else np.array([[1.0, 0.0]]), hub, 0.0, axis=0)


def _fit(place: np.ndarray) -> np.ndarray:
    """As large as [-1, 1] allows, and in its middle."""
    place = place - (place.max(0) + place.min(0)) / 2
    return place / max(float(np.abs(place).max()), 1e-9)


# -- those that topologies name ---------------------------------------------------------------------------------------


def circle(links: np.ndarray, _: Mapping[str, Any]) -> Layout:
    """A regular polygon."""
    return Layout(_circle(len(links)))


def small_world(links: np.ndarray, _: Mapping[str, Any]) -> Layout:
    """A circle, whose chords bend inwards, so that those that span two or three workers can be seen."""
    place, n = _circle(len(links)), len(links)
    part = np.linspace(0, 1, CURVE)[:, None]

    def way(u: int, v: int) -> np.ndarray:
        bend = 1.0 if (u - v) % n in (1, n - 1) else 0.6
        middle = bend * (place[u] + place[v]) / 2
        curve = (1 - part) ** 2 * place[u] + 2 * part * (1 - part) * middle + part**2 * place[v]
        return np.column_stack([curve, np.full(CURVE, PLAIN)])

    return Layout(place, way)


def star(links: np.ndarray, _: Mapping[str, Any]) -> Layout:
    """Worker 0 in the middle."""
    return Layout(_fit(_star(len(links))))


def line(links: np.ndarray, _: Mapping[str, Any]) -> Layout:
    """A line, that turns at the ends of rows where it is long."""
    n = len(links)
    columns = n if n <= 8 else math.ceil(math.sqrt(n))
    row, at = np.divmod(np.arange(n), columns)
    return Layout(_fit(np.column_stack([np.where(row % 2, columns - 1 - at, at), -row]).astype(float)))


def ladder(links: np.ndarray, _: Mapping[str, Any]) -> Layout:
    """Two rows."""
    side, at = np.divmod(np.arange(len(links)), len(links) // 2)
    return Layout(_fit(np.column_stack([at, -side]).astype(float)))


def tree(links: np.ndarray, _: Mapping[str, Any]) -> Layout:
    """Worker 0 at the top, the children of i, 2i + 1 and 2i + 2, below it."""
    number = np.arange(1, len(links) + 1)
    level = np.floor(np.log2(number))
    across = (number - 2**level + 0.5) / 2**level
    return Layout(_fit(np.column_stack([2 * across, -2 * level / max(level.max(), 1)])))


def cliques(links: np.ndarray, _: Mapping[str, Any]) -> Layout:
    """Two circles, the last worker of the first beside the first one of the second."""
    half = len(links) // 2
    left = _circle(half, 2 * np.pi * (half - 1) / max(half, 1))  # its last one to the right
    right = _circle(len(links) - half, np.pi)  # its first one to the left
    return Layout(_fit(np.concatenate([left, right + np.array([2.9, 0])])))


def clique_and_tail(links: np.ndarray, _: Mapping[str, Any]) -> Layout:
    """A circle, and a line that begins beside its last worker."""
    clique = (len(links) + 1) // 2
    tail = len(links) - clique
    head = _circle(clique, 2 * np.pi * (clique - 1) / clique)
    step = 2 * math.sin(math.pi / max(clique, 4))
    return Layout(_fit(np.concatenate([head, np.column_stack([1 + step * np.arange(1, tail + 1), np.zeros(tail)])])))


def grid(links: np.ndarray, options: Mapping[str, Any]) -> Layout:
    """Rows and columns; a third dimension leads aside."""
    shape = sides(len(links), options.get("shape"), 2, "grid")
    if len(shape) > 3:
        return unnamed(links)
    *deep, row, column = _coordinates((*shape, *(1,) * (2 - len(shape))))
    behind = deep[0][:, None] if deep else 0.0
    return Layout(_fit(np.column_stack([column, -row]) + behind * ASIDE))


def _coordinates(shape: Sequence[int]) -> np.ndarray:
    """[dimensions, n]: where workers stand in a mesh; networkx counts along its first side first."""
    return np.array(np.unravel_index(np.arange(math.prod(shape)), shape[::-1]), float)


def torus(links: np.ndarray, options: Mapping[str, Any]) -> Layout:
    """A torus of two dimensions as it is: the longer side goes around the ring, the shorter one around its tube."""
    shape = sides(len(links), options.get("shape"), 3, "torus")
    if len(shape) != 2:
        return unnamed(links)
    around, tube = _coordinates(shape) / np.array(shape[::-1])[:, None]
    if shape[0] > shape[1]:
        around, tube = tube, around

    def at(around: np.ndarray, tube: np.ndarray) -> np.ndarray:
        """[..., 3]: x, y, and towards us."""
        a, t = 2 * np.pi * (around + 0.06), 2 * np.pi * (tube + 0.19)
        x, y, z = (1 + TUBE * np.cos(t)) * np.cos(a), (1 + TUBE * np.cos(t)) * np.sin(a), TUBE * np.sin(t)
        seen = np.stack([x, y * np.cos(TILT) + z * np.sin(TILT), z * np.cos(TILT) - y * np.sin(TILT)], -1)
        most = 1 + TUBE
        return seen / most * (1, 1, 0.5) + (0, 0, 0.5)

    def way(u: int, v: int) -> np.ndarray:
        part = np.linspace(0, 1, CURVE)
        return at(*(one[u] + part * _shortest(one[v] - one[u]) for one in (around, tube)))

    found = at(around, tube)
    return Layout(found[:, :2], way, found[:, 2])


def _shortest(turn: float) -> float:
    """The same turn in [-1/2, 1/2)."""
    return (turn + 0.5) % 1 - 0.5


def cubes(links: np.ndarray, _: Mapping[str, Any]) -> Layout:
    """Squares, cubes, a cube within a cube, and then two of what came before, side by side and one above the other by turns."""
    bits = (np.arange(len(links))[:, None] >> np.arange(len(links).bit_length() - 1)) & 1
    place = np.zeros((len(links), 2))
    for dimension, bit in enumerate(bits.T[:, :, None]):
        if dimension < 2:
            place = place + bit * 2 * np.eye(2)[dimension]
        elif dimension == 2:
            place = place + bit * 2 * ASIDE
        elif dimension == 3:
            middle = (place.max(0) + place.min(0)) / 2
            place = middle + (place - middle) * np.where(bit, 0.4, 1.0)
        else:
            place = place + bit * 1.2 * np.ptp(place, axis=0) * np.eye(2)[dimension % 2]
    return Layout(_fit(place))


LAYOUTS: dict[str, Callable[[np.ndarray, Mapping[str, Any]], Layout]] = {
    "circle": circle,
    "clique and tail": clique_and_tail,
    "cliques": cliques,
    "cubes": cubes,
    "grid": grid,
    "ladder": ladder,
    "line": line,
    "small world": small_world,
    "star": star,
    "torus": torus,
    "tree": tree,
}
