"""Graph -> mixing matrix W. W[i, j] is the weight that worker i gives worker j's model; rows act, X <- W X, X [n, d].

A new weight rule is one function here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from dopt.mixing.spectrum import is_stochastic, worst
from dopt.registry import Registry, did_you_mean
from dopt.topology import adjacency
from dopt.types import InputError

WEIGHTS = Registry("weights")
rule = WEIGHTS.register


def weights(graph: nx.Graph, name: str | None = None, **options: Any) -> np.ndarray:
    """The mixing matrix W [n, n] float64 of `graph` by the rule `name`.

    Args:
      graph: who talks to whom; edge (u, v) says that u sends to v.
      name: a rule, or a file with a matrix (.npy, or text as numpy.loadtxt reads it); None: metropolis for undirected
        graphs, uniform for directed ones.
      **options: the rule's own.

    Raises:
      InputError: an unknown rule or option, or a directed graph where the rule needs an undirected one.
    """
    name = name or default_rule(graph)
    if Path(name).suffix:
        return read(name, len(graph))
    entry = WEIGHTS[name]
    if entry.traits.get("undirected") and graph.is_directed():
        raise InputError(f"weights: {name} needs an undirected graph; for a directed one try uniform, push or pull")
    return entry.make(graph, **entry.options(options, "weights"))


def default_rule(graph: nx.Graph) -> str:
    return "uniform" if graph.is_directed() else "metropolis"


def read(path: str | Path, workers: int | None = None) -> np.ndarray:
    """A matrix from a .npy file or from text; InputError where it is missing, not square, or of another size."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights: no file {str(path)!r}{did_you_mean(path.stem, WEIGHTS)}")
    try:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        matrix = (
            np.load(path, allow_pickle=False)
            if path.suffix == ".npy"
            else np.loadtxt(path, delimiter="," if path.suffix == ".csv" else None)
        )
    except ValueError as error:
        raise InputError(f"weights: {str(path)!r} is not a matrix of numbers ({error})") from error
    return as_matrix(matrix, workers)


def as_matrix(matrix: Any, workers: int | None = None) -> np.ndarray:
    """[n, n] float64, checked: square, finite, rows or columns that sum to one."""
    w = np.asarray(matrix, np.float64)
    if w.ndim != 2 or w.shape[0] != w.shape[1]:
        raise InputError(f"mixing: W must be square, got shape {w.shape}")
    if workers is not None and len(w) != workers:
        raise InputError(f"mixing: W is for {len(w)} workers, got workers={workers}; set workers to {len(w)}")
    if not np.isfinite(w).all():
        row, column = np.argwhere(~np.isfinite(w))[0]
        raise InputError(f"mixing: W must be finite; W[{row}, {column}] is {w[row, column]}")
    if not is_stochastic(w, axis=1) and not is_stochastic(w, axis=0):
        raise InputError(f"mixing: rows (or columns) of W must sum to one; {worst(w, 1, 'row')}")
    return w


def _undirected(graph: nx.Graph, edge: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Symmetric W from edge weights, a function of the degrees [n, 1]; the rest goes to oneself."""
    a = adjacency(graph)
    degree = a.sum(1, keepdims=True).astype(float)
    w = np.where(a, edge(degree), 0.0)
    np.fill_diagonal(w, 1 - w.sum(1))
    return w


@rule(source="Xiao-Boyd-Kim 2007, Metropolis-Hastings with self-loops", undirected=True)
def metropolis(graph: nx.Graph) -> np.ndarray:
    """1 / (1 + max(dᵢ, dⱼ)) on each edge, the rest to oneself: symmetric, doubly stochastic."""
    return _undirected(graph, lambda d: 1 / (1 + np.maximum(d, d.T)))


@rule(source="Boyd-Diaconis-Xiao 2004", undirected=True)
def metropolis_tight(graph: nx.Graph) -> np.ndarray:
    """1 / max(dᵢ, dⱼ) on each edge: faster, but a bipartite regular graph never agrees."""
    return _undirected(graph, lambda d: 1 / np.maximum(np.maximum(d, d.T), 1))


@rule(source="Ying et al. 2021, 2110.13363")
def uniform(graph: nx.Graph) -> np.ndarray:
    """1 / (1 + number of senders) for each sender and oneself; doubly stochastic on regular graphs."""
    a = adjacency(graph) + np.eye(len(graph))
    return a / a.sum(1, keepdims=True)


@rule(source="lazy random walk")
def lazy(graph: nx.Graph, *, base: str | None = None) -> np.ndarray:
    """(I + W) / 2 of another rule (`weights.base`): no negative eigenvalue is left."""
    return (np.eye(len(graph)) + weights(graph, base)) / 2


@rule(source="Assran et al. 2019, 1811.10792", stochastic="column")
def push(graph: nx.Graph) -> np.ndarray:
    """Column-stochastic: each splits what it has evenly over its receivers and itself."""
    a = adjacency(graph) + np.eye(len(graph))
    return a / a.sum(0, keepdims=True)


@rule(source="Pu et al. 2018, 1803.07588", stochastic="row")
def pull(graph: nx.Graph) -> np.ndarray:
    """Row-stochastic: each averages what it receives with its own."""
    return uniform(graph)
