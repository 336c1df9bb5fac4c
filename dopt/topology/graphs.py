"""The topologies that have a name. A new one is one function here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import networkx as nx
import numpy as np

from dopt.registry import coerce, did_you_mean
from dopt.topology.network import EDGE, PAIR, TOPOLOGIES, Graph, adjacency, make, need, topology
from dopt.topology.sequences import Matchings, Periodic, base_graphs, matcha_of
from dopt.types import InputError


def sides(workers: int, shape: Sequence[int] | None, least: int, name: str) -> tuple[int, ...]:
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


@topology(source="cycle graph Cₙ", layout="circle")
def ring(workers: int) -> Graph:
    """A cycle: each worker talks to two neighbours."""
    return nx.Graph((i, (i + 1) % workers) for i in range(workers)) if workers > 2 else path(workers)


@topology(source="path graph Pₙ", layout="line")
def path(workers: int) -> Graph:
    """A line: the ends have one neighbour."""
    return nx.path_graph(workers)


@topology(source="star graph", degree=lambda n: n - 1, layout="star")
def star(workers: int) -> Graph:
    """All workers talk to worker 0, and to no other."""
    return nx.star_graph(workers - 1)


@topology(source="complete graph Kₙ", bytes=lambda n: EDGE * n**2 / 4, layout="circle")
def complete(workers: int) -> Graph:
    """Everyone talks to everyone."""
    return nx.complete_graph(workers)


@topology(source="grid graph", layout="grid")
def grid(workers: int, *, shape: list[int] | None = None) -> Graph:
    """A mesh without wrap-around, as square as n allows."""
    return nx.convert_node_labels_to_integers(nx.grid_graph(sides(workers, shape, 2, "grid")), ordering="sorted")


@topology(source="torus grid graph", layout="torus")
def torus(workers: int, *, shape: list[int] | None = None) -> Graph:
    """A mesh with wrap-around, as square as n allows; k-dimensional by `shape`."""
    return nx.convert_node_labels_to_integers(
        nx.grid_graph(sides(workers, shape, 3, "torus"), periodic=True), ordering="sorted"
    )


@topology(source="hypercube graph Q_k", layout="cubes")
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


@topology(source="Ying et al. 2021, 2110.13363", directed=True, layout="circle")
def exponential(workers: int) -> Graph:
    """Static exponential graph: i receives from i + 2^k, so log n neighbours and a gap of order 1 / log n."""
    hops = [2**k for k in range((workers - 1).bit_length())]
    return _with_nodes(workers, (((i + h) % workers, i) for i in range(workers) for h in hops), nx.DiGraph)


@topology(source="Steger-Wormald 1999 (networkx)", bytes=lambda n, degree, **_: EDGE * n * min(degree, n) / 2)
def random_regular(workers: int, *, degree: int = 3, seed: int = 0) -> Graph:
    """A random graph in which everyone has `degree` neighbours."""
    if not 0 < degree < workers or degree * workers % 2:
        raise InputError(
            f"topology.degree: random_regular needs 0 < degree < workers and an even degree x workers, got degree={degree}, workers={workers}"
        )
    return _with_nodes(workers, nx.random_regular_graph(degree, workers, seed=seed).edges)


@topology(
    source="Erdős-Rényi 1959 (networkx)", bytes=lambda n, probability, **_: EDGE * _chance(n, probability) * n**2 / 2
)
def erdos_renyi(workers: int, *, probability: float | None = None, seed: int = 0) -> Graph:
    """Each edge is there with a probability, 2 log n / n by default (connected with high probability)."""
    p = _chance(workers, probability)
    _probability(p)
    return nx.gnp_random_graph(workers, p, seed=seed)


@topology(source="complete binary tree", layout="tree")
def binary_tree(workers: int) -> Graph:
    """A tree in which i's parent is (i - 1) // 2."""
    return _with_nodes(workers, ((i, (i - 1) // 2) for i in range(1, workers)))


@topology(source="barbell graph", bytes=lambda n: EDGE * n**2 / 8, layout="cliques")
def barbell(workers: int) -> Graph:
    """Two cliques joined by one edge."""
    _at_least("barbell", workers, 4)
    half = workers // 2
    cliques = nx.disjoint_union(nx.complete_graph(half), nx.complete_graph(workers - half))
    cliques.add_edge(half - 1, half)
    return cliques


@topology(source="lollipop graph", bytes=lambda n: EDGE * n**2 / 16, layout="clique and tail")
def lollipop(workers: int) -> Graph:
    """A clique of half the workers with a tail of the others."""
    _at_least("lollipop", workers, 3)
    clique = (workers + 1) // 2
    return nx.lollipop_graph(clique, workers - clique)


@topology(source="ladder graph", layout="ladder")
def ladder(workers: int) -> Graph:
    """Two paths side by side, with rungs."""
    if workers < 4 or workers % 2:
        raise InputError(
            f"workers: ladder needs an even number of at least 4, got {workers}; try {max(4, workers + 1)}"
        )
    return nx.ladder_graph(workers // 2)


@topology(
    source="Watts-Strogatz 1998 (networkx)",
    bytes=lambda n, degree, **_: EDGE * n * min(degree, n) / 2,
    layout="small world",
)
def watts_strogatz(workers: int, *, degree: int = 4, probability: float = 0.1, seed: int = 0) -> Graph:
    """A small world: a ring of `degree` neighbours, some of whose edges are rewired; drawn until it is connected."""
    _probability(probability)
    if not 2 <= degree < workers or degree % 2:
        raise InputError(
            f"topology.degree: watts_strogatz needs an even degree, 2 <= degree < workers, got degree={degree}, workers={workers}"
        )
    return nx.connected_watts_strogatz_graph(workers, degree, probability, tries=1000, seed=seed)


@topology(source="Barabási-Albert 1999 (networkx)", bytes=lambda n, links, **_: EDGE * n * min(links, n))
def barabasi_albert(workers: int, *, links: int = 2, seed: int = 0) -> Graph:
    """Scale-free: each new worker takes `links` neighbours, preferably those that have many."""
    if not 1 <= links < workers:
        raise InputError(
            f"topology.links: barabasi_albert needs 1 <= links < workers, got links={links}, workers={workers}"
        )
    return nx.barabasi_albert_graph(workers, links, seed=seed)


@topology(
    source="Penrose 2003, random geometric graphs (networkx)",
    bytes=lambda n, radius, **_: EDGE * min(1.0, math.pi * _radius(n, radius) ** 2) * n**2 / 2,
)
def random_geometric(workers: int, *, radius: float | None = None, seed: int = 0) -> Graph:
    """Workers lie at random in the unit square, linked within a radius, 2 √(log n / πn) by default (connected with high probability)."""
    near = _radius(workers, radius)
    if not near > 0:
        raise InputError(f"topology.radius: must be positive, got {radius}")
    return _with_nodes(workers, nx.random_geometric_graph(workers, near, seed=seed).edges)


@topology(source="Margulis 1973, Gabber-Galil 1981 (networkx)")
def expander(workers: int) -> Graph:
    """The Margulis-Gabber-Galil expander on Z_m x Z_m, n = m²: few neighbours, and a gap that does not shrink with n."""
    side = math.isqrt(workers)
    if workers < 4 or side * side != workers:
        raise InputError(
            f"workers: expander needs a square of at least 4, got {workers}; try workers={max(side, 2) ** 2} or {(max(side, 1) + 1) ** 2}"
        )
    found = nx.margulis_gabber_galil_graph(side)
    return _with_nodes(workers, {(a * side + b, c * side + d) for (a, b), (c, d) in found.edges() if (a, b) != (c, d)})


SOCIAL = {
    "davis": (32, nx.davis_southern_women_graph),
    "florentine": (15, nx.florentine_families_graph),
    "karate": (34, nx.karate_club_graph),
}


@topology(source="Davis 1941, Padgett 1994, Zachary 1977 (networkx)")
def social(workers: int, *, network: str | None = None) -> Graph:
    """A real network of people: davis (32), florentine (15) or karate (34)."""
    sizes = ", ".join(f"{size} ({name})" for name, (size, _) in SOCIAL.items())
    if network is None:
        network = next((name for name, (size, _) in SOCIAL.items() if size == workers), None)
    elif network not in SOCIAL:
        raise InputError(f"topology.network: unknown name {network!r}{did_you_mean(network, SOCIAL)}")
    if network is None or SOCIAL[network][0] != workers:
        raise InputError(f"workers: social networks have {sizes}, got {workers}")
    return _with_nodes(workers, nx.convert_node_labels_to_integers(SOCIAL[network][1]()).edges)


# who is whose neighbour, counted from 1: 12 is the edge 1-2
BOYD = (12, 23, 34, 15, 28, 24, 56, 57, 37, 48, 67, 78, 27)


@topology(source="Boyd 2006, convex optimization of graph Laplacian eigenvalues; CVX's examples")
def boyd(workers: int) -> Graph:
    """The small example of fastest mixing, 8 workers and 13 edges, for which published values exist."""
    if workers != 8:
        raise InputError(f"workers: boyd is one graph of 8 workers, got {workers}; set workers to 8")
    return _with_nodes(workers, (divmod(edge - 11, 10) for edge in BOYD))


@topology(source="directed cycle", directed=True, layout="circle")
def directed_ring(workers: int) -> Graph:
    """Each worker sends to the next one only."""
    return _with_nodes(workers, ((i, (i + 1) % workers) for i in range(workers) if workers > 1), nx.DiGraph)


@topology(
    source="random directed graph, strongly connected",
    directed=True,
    bytes=lambda n, probability, **_: (EDGE * _chance(n, probability) + PAIR) * n**2,
)
def random_digraph(workers: int, *, probability: float | None = None, seed: int = 0) -> Graph:
    """Each directed link is there with a probability, 2 log n / n by default; and a cycle through all in random order."""
    p = _chance(workers, probability)
    _probability(p)
    rng = np.random.default_rng(seed % 2**64)  # which are not negative
    order = rng.permutation(workers)
    chosen = np.argwhere(rng.random((workers, workers)) < p).tolist()
    cycle = zip(order.tolist(), np.roll(order, 1).tolist(), strict=True)
    return _with_nodes(workers, ((u, v) for u, v in [*chosen, *cycle] if u != v), nx.DiGraph)


# -- sequences --------------------------------------------------------------------------------------------------------


@topology(
    source="Ying et al. 2021, 2110.13363",
    directed=True,
    sequence="periodic",
    phases=lambda n: math.log2(n + 1),
    layout="circle",
)
def one_peer_exponential(workers: int) -> Periodic:
    """One neighbour a step: i receives from i + 2^k; exact after log₂ n steps where n is a power of two."""
    hops = [2**k for k in range((workers - 1).bit_length())] or [0]
    return Periodic(
        tuple(
            _with_nodes(workers, (((i + hop) % workers, i) for i in range(workers) if hop), nx.DiGraph) for hop in hops
        )
    )


@topology(source="matchings of the cycle", sequence="periodic", phases=3, layout="circle")
def one_peer_ring(workers: int) -> Periodic:
    """A ring whose neighbours meet in turn, pair by pair: two phases; if n is odd, three, in each of which one worker is left alone."""
    starts = range(2 + workers % 2 if workers > 2 else 1)
    phases = [[((s + i) % workers, (s + i + 1) % workers) for i in range(0, workers - 1, 2)] for s in starts]
    return Periodic(tuple(_with_nodes(workers, phase) for phase in phases))


@topology(
    source="Takezawa et al. 2023, 2305.11420",
    sequence="periodic",
    weighted=True,
    phases=lambda n: 2 * math.log2(n + 1),
    bytes=lambda n, degree: EDGE * n * min(degree, n) * 2 * math.log2(n + 1),
    layout="circle",
)
def base_k(workers: int, *, degree: int = 1) -> Periodic:
    """Base-(k+1) graphs: at most k = `degree` neighbours a step, and exact after a period, for every n."""
    if degree < 1:
        raise InputError(f"topology.degree: must be at least 1, got {degree}")
    graphs = []
    for one in base_graphs(workers, degree) or [{}]:
        graph = _with_nodes(workers, one)
        nx.set_edge_attributes(graph, one, "weight")
        graphs.append(graph)
    return Periodic(tuple(graphs))


@topology(
    source="Boyd et al. 2006, randomized gossip algorithms",
    sequence="random",
    bytes=lambda n: 4 * PAIR * n**2,
    layout="circle",
)
def random_matching(workers: int) -> Matchings:
    """At each step everyone meets one other, all matchings equally likely; if n is odd, one stays alone."""
    return Matchings(workers, None, np.ones(1), 0.5)


def _matcha_bytes(n: float, base: str, **_: object) -> float:
    """The base graph, and a Laplacian for each matching, of which there are about as many as neighbours."""
    if not TOPOLOGIES.has(base):
        return 0.0
    graph = need(base, int(n), TOPOLOGIES[base].options({}, "topology.base")).bytes
    return graph + 2 * PAIR * n**2 * (3 + graph / (EDGE * n))


@topology(source="Wang et al. 2019, 1905.09435", sequence="random", bytes=_matcha_bytes, layout="base")
def matcha(workers: int, *, base: str = "ring", budget: float = 0.5) -> Matchings:
    """MATCHA: matchings of a base graph, each active at random; links that keep it connected are active more often."""
    _at_least("matcha", workers, 2)
    if not 0 < budget <= 1:
        raise InputError(f"topology.budget: must lie in (0, 1], got {budget}")
    if not TOPOLOGIES.has(base):  # nor a file, whose content no run's identity would know
        raise InputError(f"topology.base: unknown name {base!r}{did_you_mean(base, TOPOLOGIES)}")
    graph = make(base, workers)
    if not isinstance(graph, nx.Graph) or graph.is_directed():
        raise InputError(f"topology.base: matcha needs one fixed undirected graph, got {base}; try ring")
    if not nx.is_connected(graph):
        raise InputError(f"topology.base: matcha needs a connected graph, this {base} is not; try ring")
    upper = np.argwhere(np.triu(adjacency(graph)))
    return matcha_of(tuple((int(u), int(v)) for u, v in upper), workers, budget)


# -- to show that gossip needs connection -----------------------------------------------------------------------------


@topology(source="two cycles, to show that gossip needs connection")
def disconnected(workers: int) -> Graph:
    """Two rings with no link between them."""
    _at_least("disconnected", workers, 2)
    half = workers // 2
    return nx.disjoint_union(ring(half), ring(workers - half))


def _chance(workers: int, probability: float | None) -> float:
    """The probability of a link; None: that at which n workers are connected with high probability."""
    return min(1.0, 2 * math.log(max(workers, 2)) / workers) if probability is None else probability


def _radius(workers: int, radius: float | None) -> float:
    """The radius of links; None: that at which n workers are connected with high probability."""
    return 2 * math.sqrt(math.log(max(workers, 2)) / (math.pi * workers)) if radius is None else radius


def _probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise InputError(f"topology.probability: must lie in [0, 1], got {p}")


def _with_nodes(workers: int, edges: Iterable[tuple[int, int]], kind: type[nx.Graph] = nx.Graph) -> Graph:
    graph = kind()
    graph.add_nodes_from(range(workers))
    graph.add_edges_from(edges)
    return graph
