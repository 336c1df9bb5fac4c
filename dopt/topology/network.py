"""A name or a file -> a networkx graph of who talks to whom, or a sequence of such graphs.

An edge (u, v) of a DiGraph says that u sends to v; an undirected edge says both. Worker i is node i where the nodes
are 0..n-1, else the i-th of `list(graph)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from dopt import memory, registry
from dopt.registry import Registry, did_you_mean
from dopt.topology import files, generators
from dopt.topology.sequences import Matchings, Periodic
from dopt.types import InputError

TOPOLOGIES = Registry("topology")
topology = TOPOLOGIES.register
GENERATOR = "networkx:"

Graph = nx.Graph  # a DiGraph is one, too
Network = Graph | Periodic | Matchings
NODE, EDGE = 1000, 300  # bytes of networkx's; in dense graphs an edge takes half of that
PAIR = 8  # bytes of a number


def make(name: str, workers: int | None = None, **options: Any) -> Network:
    """The graph called `name` on `workers` nodes, or a sequence of them.

    Args:
      name: a registered name, `networkx:<function>` with its arguments as options, or a file (see `read`).
      workers: number of nodes n; for files and networkx generators the graph must have that many (None: any).
      **options: the topology's own, as `degree=4`.

    Raises:
      InputError: an unknown name or option, or an n for which the family does not exist.
    """
    if is_generator(name):
        graph = generators.make(name.removeprefix(GENERATOR), options)
    elif is_file(name):
        resolved(name, options)
        graph = read(name)
    else:
        entry = TOPOLOGIES[name]
        if workers is None or workers < 1:
            raise InputError(f"workers: {name} needs at least 1 worker, got {workers}")
        options = entry.options(options, "topology")
        memory.refuse_beyond([need(name, workers, options)])
        return _checked(name, entry.make(workers, **options), workers)
    if workers is not None and len(graph) != workers:
        raise InputError(f"workers: {name} has {len(graph)} nodes, got workers={workers}; set workers to {len(graph)}")
    return graph


def _checked(name: str, made: Any, workers: int) -> Network:
    """What a registered function made, which may be anybody's."""
    if not isinstance(made, Network):
        raise InputError(f"topology: {name} must give a networkx graph, got {type(made).__name__}; return one")
    if len(made) != workers:
        raise InputError(f"topology: {name} must give a graph of workers={workers} nodes, got {len(made)}")
    return made


def need(name: str, workers: int, options: Mapping[str, object]) -> memory.Need:
    """What the graph takes while it is built, by its registered name and its options alone: the trait `bytes` says it.

    Else it has the edges of n log₂ n.
    """
    n = float(min(workers, 10**18))
    count = TOPOLOGIES[name].traits.get("bytes", lambda n, **_: EDGE * n * math.log2(n + 1))
    size = NODE * n * phases(name, workers) + float(count(n, **options))
    return memory.Need("workers", f"the graph {name} of {workers} workers", size, "use fewer workers")


def most_links(name: str, workers: int, options: Mapping[str, object]) -> float:
    """About how many links a worker has: the trait `degree`, or as many as any other one, as `need` counts edges."""
    n, traits = float(min(workers, 10**18)), TOPOLOGIES[name].traits
    edges = (need(name, workers, options).bytes - NODE * n * phases(name, workers)) / EDGE
    return float(traits["degree"](n)) if "degree" in traits else 2 * edges / n


def phases(name: str, workers: int) -> float:
    """About how many graphs take turns: the trait `phases`, a number or a function of n."""
    count = TOPOLOGIES[name].traits.get("phases", 1)
    return float(count(float(min(workers, 10**18))) if callable(count) else count)


def is_file(name: str) -> bool:
    """Whether `name` is meant as a path and not as a registered name."""
    return "/" in name or bool(Path(name).suffix)


def is_generator(name: str) -> bool:
    return name.startswith(GENERATOR)


def read(path: str | Path) -> Graph:
    """The graph in a file: .graphml, .gml, .gexf, .adjlist (`u v w ...`: u's neighbours), else an edge list (`u v` a line).

    A line of an edge list may end in a weight, or in networkx's `{'weight': 0.2, 'delay': 3}`. A first line `# directed`
    directs the two kinds of list. Nodes 0..n-1 are the workers; others are numbered in the order of the file: `notes`.

    Raises:
      InputError: the file is missing or is not a graph.
    """
    return files.read(
        path,
        f"; give an edge list, or {', '.join(filter(None, files.READERS))}{did_you_mean(Path(path).stem, TOPOLOGIES)}",
    )


def resolved(name: str, given: Mapping[str, object]) -> dict[str, Any]:
    """All options of a topology, checked: of a registered one, of a generator of networkx (the seed filled in), of a file none."""
    if is_generator(name):
        return generators.options(name.removeprefix(GENERATOR), given)
    if not is_file(name):
        return TOPOLOGIES[name].options(given, "topology")
    if given:
        raise InputError(f"topology.{next(iter(given))}: a file has no options")
    return {}


def readable(generator: str, given: Mapping[str, object]) -> dict[str, Any]:
    """`given` without what only registered topologies read, and not this generator of networkx."""
    return registry.readable(given, generators.parameters(generator.removeprefix(GENERATOR)), TOPOLOGIES)


def notes(network: object) -> tuple[str, ...]:
    """What a reader should know of how a graph was read."""
    return (network.graph[files.NOTE],) if isinstance(network, nx.Graph) and files.NOTE in network.graph else ()


def adjacency(network: Network) -> np.ndarray:
    """A [n, n] bool: A[v, u] says that u sends to v; of a sequence, at some step. Self-loops are left out."""
    if isinstance(network, Matchings):
        met = network.moments()[0] != 0
    elif isinstance(network, Periodic):
        met = np.any([adjacency(graph) for graph in network.graphs], axis=0)
    else:
        met = attribute(network, None) != 0
    np.fill_diagonal(met, False)
    return met


def places(graph: Graph) -> dict[Any, int]:
    """Node -> its worker."""
    order = range(len(graph)) if set(graph) == set(range(len(graph))) else list(graph)
    return {node: i for i, node in enumerate(order)}


def attribute(graph: Graph, name: str | None, missing: float = 0.0) -> np.ndarray:
    """[n, n] what the edge (u, v) says of `name`, at [v, u]; 1 for every edge where `name` is None.

    Raises:
      InputError: it is not a number, or parallel edges say it twice.
    """
    reader, sender, value = entries(graph, name, missing)
    a = np.zeros((len(graph), len(graph)))
    a[reader, sender] = value
    return a


def entries(graph: Graph, name: str | None, missing: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(reader, sender, value) [links] of what `attribute` has: its entries, each once; an undirected edge says two.

    Raises:
      InputError: as `attribute`.
    """
    place, directed = places(graph), graph.is_directed()
    if name is not None:
        graph = files.merged(graph)
    elif graph.is_multigraph():
        graph = nx.DiGraph(graph) if directed else nx.Graph(graph)
    ends = np.array([(place[v], place[u]) for u, v in graph.edges()], np.int64).reshape(-1, 2)
    if name is None:
        value = np.ones(len(ends))
    else:
        value = np.array([_number(u, v, name, said.get(name, missing)) for u, v, said in graph.edges(data=True)], float)
    if not directed:
        both = ends[:, 0] != ends[:, 1]
        ends, value = np.concatenate([ends, ends[both, ::-1]]), np.concatenate([value, value[both]])
    return ends[:, 0], ends[:, 1], value


def _number(u: object, v: object, name: str, found: Any) -> float:
    """What the edge (u, v) says."""
    try:
        if isinstance(found, bool):
            raise TypeError
        return float(found)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"topology: edge ({u}, {v}) needs a number as {name}, got {found!r:.40}") from error


def edge_delays(graph: Graph) -> np.ndarray:
    """[n, n] int32: the attribute `delay` of each edge (u, v), in steps, at [v, u].

    Raises:
      InputError: some edge has none, or one that is no number of steps; or a self-loop has one.
    """
    found = attribute(graph, "delay", missing=np.nan)
    for u, v, data in graph.edges(data=True):
        if data.get("delay") is None:
            raise InputError(f"delay: edges needs an attribute `delay` on every edge, ({u}, {v}) has none")
    for v, u in np.argwhere((found < 0) | (found != np.round(found)) | (found >= 2**31)):
        raise InputError(
            f"delay: an edge's attribute `delay` must be a whole number of steps, not negative, got {found[v, u]:g}"
        )
    if found.diagonal().any():
        raise InputError("delay: a worker has its own model at once, got a self-loop with a delay; leave it out")
    return found.astype(np.int32)
