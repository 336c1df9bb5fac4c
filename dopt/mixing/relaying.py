"""The mix of a method that hands models on along a tree."""

from __future__ import annotations

import networkx as nx
import numpy as np
from scipy.sparse import csgraph, csr_array

from dopt.mixing.displacement import Mix, mix
from dopt.mixing.forms import form
from dopt.topology import Network, adjacency
from dopt.types import InputError


def spanning_tree(network: Network) -> nx.Graph:
    """The breadth-first tree from worker 0: what a method on trees makes of any connected undirected graph.

    Raises:
      InputError: a directed graph, a sequence, or one that is not connected.
    """
    if not isinstance(network, nx.Graph) or network.is_directed():
        raise InputError(
            "topology: relay_sgd needs an undirected graph that does not change; try binary_tree, path or star"
        )
    links = adjacency(network)
    order, parent = csgraph.breadth_first_order(csr_array(links), 0, directed=False)
    if len(order) < len(links):
        raise InputError(
            f"topology: relay_sgd needs a connected graph, worker 0 reaches {len(order)} of {len(links)}; add edges"
        )
    tree: nx.Graph = nx.Graph()
    tree.add_nodes_from(range(len(links)))
    tree.add_edges_from((int(parent[i]), int(i)) for i in order[1:])
    return tree


def relay_ages(w: np.ndarray) -> np.ndarray:
    """[n, n] int32: max(hops - 1, 0) between workers on the tree that W [n, n] has its links from."""
    hops = csgraph.shortest_path(csr_array(w != 0), unweighted=True)
    return np.maximum(hops - 1, 0).astype(np.int32)


def relay(network: Network) -> Mix:
    """The mix of `relay_sgd`: the mean of all models; the longer the way along the tree, the older the model.

    Args:
      network: a tree, or a connected undirected graph, whose `spanning_tree` is taken.
    """
    tree = spanning_tree(network)
    n = len(tree)
    return mix(form(np.full((n, n), 1 / n), "dense"), ages=relay_ages(adjacency(tree) + np.eye(n)))
