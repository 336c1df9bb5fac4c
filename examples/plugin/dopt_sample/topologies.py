"""Two rings that a few edges join."""

import networkx as nx

import dopt


@dopt.register.topology
def two_rings(workers: int, *, bridges: int = 1) -> nx.Graph:
    """Two rings with a few edges between them.

    Args:
      bridges: edges from one ring to the other.
    """
    half = workers // 2
    if workers < 6 or not 1 <= bridges <= half:
        raise dopt.InputError(
            f"topology.bridges: needs 6 workers and 1..workers/2 bridges, got {workers} and {bridges}"
        )
    graph = nx.disjoint_union(nx.cycle_graph(half), nx.cycle_graph(workers - half))
    graph.add_edges_from((i, half + i) for i in range(bridges))
    return graph
