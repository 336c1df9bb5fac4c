"""A name or a file -> a networkx graph of who talks to whom.

An edge (u, v) of a DiGraph says that u sends to v; an undirected edge says both. Worker i is node i where the nodes
are 0..n-1, else the i-th of `list(graph)`. A new topology is one function here.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from dopt.registry import Registry, coerce, did_you_mean
from dopt.types import InputError

TOPOLOGIES = Registry("topology")
topology = TOPOLOGIES.register

Graph = nx.Graph  # a DiGraph is one, too


@dataclass(frozen=True)
class Periodic:
    """Graphs on the same workers that take turns: step k uses graphs[k % period]."""

    graphs: tuple[Graph, ...]

    def __len__(self) -> int:
        """Number of workers."""
        return len(self.graphs[0])


@dataclass(frozen=True, eq=False)
class Matchings:
    """A random sequence: at each step disjoint pairs meet and draw together, W_k = I - a Σⱼ Bⱼ Lⱼ, B random.

    Attributes:
      workers: n.
      partners: [matchings, workers] int32, whom each worker meets in each matching (itself: nobody); None: one matching
        a step, uniformly random among all of them.
      probability: [matchings] with which each is active at a step, independently.
      weight: a.
    """

    workers: int
    partners: np.ndarray | None
    probability: np.ndarray
    weight: float

    def __len__(self) -> int:
        """Number of workers."""
        return self.workers


Network = Graph | Periodic | Matchings


def make(name: str, workers: int | None = None, **options: Any) -> Graph:
    """The graph called `name` on `workers` nodes.

    Args:
      name: a registered name, `networkx:<function>` with its arguments as options, or a file (edge list, GraphML).
      workers: number of nodes n; for files and networkx generators the graph must have that many (None: any).
      **options: the topology's own, as `degree=4`.

    Raises:
      InputError: an unknown name or option, or an n for which the family does not exist.
    """
    if name.startswith("networkx:"):
        graph = _networkx(name.removeprefix("networkx:"), options)
    elif is_file(name):
        if options:
            raise InputError(f"topology.{next(iter(options))}: a file has no options")
        graph = read(name)
    else:
        entry = TOPOLOGIES[name]
        if workers is None or workers < 1:
            raise InputError(f"workers: {name} needs at least 1 worker, got {workers}")
        return entry.make(workers, **entry.options(options, "topology"))
    if workers is not None and len(graph) != workers:
        raise InputError(f"workers: {name} has {len(graph)} nodes, got workers={workers}; set workers to {len(graph)}")
    return graph


def is_file(name: str) -> bool:
    """Whether `name` is meant as a path and not as a registered name."""
    return "/" in name or bool(Path(name).suffix)


def read(path: str | Path) -> Graph:
    """The graph in a file: GraphML by its ending, else an edge list (`u v` a line; a first line `# directed` directs it).

    Raises:
      InputError: the file is missing or is not a graph.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"topology: no file {str(path)!r}; give an edge list or GraphML file{did_you_mean(path.stem, TOPOLOGIES)}"
        )
    try:
        if path.suffix == ".graphml":
            graph = nx.read_graphml(path)
        else:
            kind: Any = nx.DiGraph if path.read_text().lstrip().lower().startswith("# directed") else nx.Graph
            graph = nx.read_edgelist(path, nodetype=int, data=False, create_using=kind)
        if not graph:  # networkx passes over lines that are no edges
            raise ValueError("it has no edge")
        return graph
    except (nx.NetworkXException, TypeError, ValueError, SyntaxError, UnicodeDecodeError) as error:
        raise InputError(
            f"topology: {str(path)!r} is neither GraphML nor an edge list of whole numbers ({error})"
        ) from error


def _networkx(function: str, options: dict[str, Any]) -> Graph:
    known = {name: f for name, f in vars(nx).items() if name.endswith("_graph") and inspect.isroutine(f)}
    if function not in known:
        raise InputError(f"topology: networkx has no generator {function!r}{did_you_mean(function, known)}")
    try:
        graph = known[function](**options)
    except (TypeError, ValueError, nx.NetworkXException) as error:
        raise InputError(f"topology: networkx:{function} refused its arguments {options} ({error})") from error
    if graph.is_multigraph() or nx.number_of_selfloops(graph):
        simple: Graph = (nx.DiGraph if graph.is_directed() else nx.Graph)()
        simple.add_nodes_from(graph)
        simple.add_edges_from((u, v) for u, v in graph.edges() if u != v)
        return simple
    return graph


def adjacency(graph: Graph) -> np.ndarray:
    """A [n, n] bool: A[v, u] says that u sends to v. Self-loops are left out."""
    order = range(len(graph)) if set(graph) == set(range(len(graph))) else list(graph)
    place = {node: i for i, node in enumerate(order)}
    a = np.zeros((len(graph), len(graph)), bool)
    for u, v in graph.edges():
        a[place[v], place[u]] = True
        if not graph.is_directed():
            a[place[u], place[v]] = True
    np.fill_diagonal(a, False)
    return a


def sides(workers: int, shape: Any, least: int, name: str) -> tuple[int, ...]:
    """`shape`, or the most square two factors of n whose sides are at least `least`."""
    if shape is not None:
        shape = tuple(coerce("topology.shape", side, int) for side in shape)
        if not shape or math.prod(shape) != workers or min(shape) < least:
            raise InputError(
                f"topology.shape: {name} needs sides >= {least} whose product is workers={workers}, got {list(shape)}"
            )
        return shape
    for a in range(math.isqrt(workers), least - 1, -1):
        if workers % a == 0:
            return a, workers // a
    fits = [
        n
        for n in range(workers, 4 * workers + least**2)
        if any(n % a == 0 and n // a >= a for a in range(least, math.isqrt(n) + 1))
    ]
    raise InputError(
        f"workers: {name} needs two sides >= {least}, which {workers} does not have; try workers={fits[0]} or topology.shape"
    )


def _at_least(name: str, workers: int, least: int) -> None:
    if workers < least:
        raise InputError(f"workers: {name} needs at least {least}, got {workers}")


@topology(source="cycle graph Cₙ")
def ring(workers: int) -> Graph:
    """A cycle: each worker talks to two neighbours."""
    return nx.Graph((i, (i + 1) % workers) for i in range(workers)) if workers > 2 else path(workers)


@topology(source="path graph Pₙ")
def path(workers: int) -> Graph:
    """A line: the ends have one neighbour."""
    return nx.path_graph(workers)


@topology(source="star graph")
def star(workers: int) -> Graph:
    """Everyone talks to worker 0 alone."""
    return nx.star_graph(workers - 1)


@topology(source="complete graph Kₙ")
def complete(workers: int) -> Graph:
    """Everyone talks to everyone."""
    return nx.complete_graph(workers)


@topology(source="grid graph")
def grid(workers: int, *, shape: list[int] | None = None) -> Graph:
    """A mesh without wrap-around, as square as n allows."""
    return nx.convert_node_labels_to_integers(nx.grid_graph(sides(workers, shape, 2, "grid")), ordering="sorted")


@topology(source="torus grid graph")
def torus(workers: int, *, shape: list[int] | None = None) -> Graph:
    """A mesh with wrap-around, as square as n allows; k-dimensional by `shape`."""
    return nx.convert_node_labels_to_integers(
        nx.grid_graph(sides(workers, shape, 3, "torus"), periodic=True), ordering="sorted"
    )


@topology(source="hypercube graph Q_k")
def hypercube(workers: int) -> Graph:
    """Workers whose numbers differ in one bit are neighbours."""
    dimension = workers.bit_length() - 1
    if workers != 2**dimension:
        raise InputError(
            f"workers: hypercube needs a power of two, got {workers}; try workers={2**dimension} or {2 ** (dimension + 1)}"
        )
    return (
        nx.Graph()
        if not workers
        else _with_nodes(workers, ((i, i ^ 1 << k) for i in range(workers) for k in range(dimension)))
    )


@topology(source="Ying et al. 2021, 2110.13363", directed=True)
def exponential(workers: int) -> Graph:
    """Static exponential graph: i receives from i + 2^k, so log n neighbours and a gap of order 1 / log n."""
    hops = [2**k for k in range((workers - 1).bit_length())]
    return _with_nodes(workers, (((i + h) % workers, i) for i in range(workers) for h in hops), nx.DiGraph)


@topology(source="Steger-Wormald 1999 (networkx)")
def random_regular(workers: int, *, degree: int = 3, seed: int = 0) -> Graph:
    """A random graph in which everyone has `degree` neighbours."""
    if not 0 < degree < workers or degree * workers % 2:
        raise InputError(
            f"topology.degree: random_regular needs 0 < degree < workers and an even degree x workers, got degree={degree}, workers={workers}"
        )
    return _with_nodes(workers, nx.random_regular_graph(degree, workers, seed=seed).edges)


@topology(source="Erdős-Rényi 1959 (networkx)")
def erdos_renyi(workers: int, *, probability: float | None = None, seed: int = 0) -> Graph:
    """Each edge is there with a probability, 2 log n / n by default (connected with high probability)."""
    p = min(1.0, 2 * math.log(max(workers, 2)) / workers) if probability is None else probability
    if not 0 <= p <= 1:
        raise InputError(f"topology.probability: must lie in [0, 1], got {p}")
    return nx.gnp_random_graph(workers, p, seed=seed)


@topology(source="two cycles, to show that gossip needs connection")
def disconnected(workers: int) -> Graph:
    """Two rings that never hear of each other."""
    _at_least("disconnected", workers, 2)
    half = workers // 2
    return nx.disjoint_union(ring(half), ring(workers - half))


def _with_nodes(workers: int, edges: Any, kind: type[nx.Graph] = nx.Graph) -> Graph:
    graph = kind()
    graph.add_nodes_from(range(workers))
    graph.add_edges_from(edges)
    return graph
