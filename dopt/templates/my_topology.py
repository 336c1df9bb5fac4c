"""Two rings with a few edges between them."""

import networkx as nx

import dopt


@dopt.register.topology(source="where the idea is from")
def my_topology(workers: int, *, bridges: int = 1) -> nx.Graph:
    """The first line is what `dopt list` says.

    Args:
      bridges: options are keyword-only parameters, here topology.bridges; their type annotations are checked.
    """
    half = workers // 2
    if not 1 <= bridges <= half:
        raise dopt.InputError(f"topology.bridges: must lie in 1..{half} for workers={workers}, got {bridges}")
    graph = nx.disjoint_union(nx.cycle_graph(half), nx.cycle_graph(workers - half))
    graph.add_edges_from((i, half + i) for i in range(bridges))
    return graph  # with nodes 0..workers-1; of a DiGraph's edge (u, v) u sends to v
