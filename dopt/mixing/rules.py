"""Graph -> mixing matrix W. W[i, j] is the weight that worker i gives worker j's model; rows act, X <- W X, X [n, d].

A new weight rule is one function here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from scipy.sparse import csr_array

from dopt import memory
from dopt.mixing.spectrum import is_stochastic, worst
from dopt.registry import Registry, did_you_mean
from dopt.topology import Graph, Matchings, Network, Periodic, adjacency, attribute
from dopt.types import InputError

WEIGHTS = Registry("weights")
rule = WEIGHTS.register
COPIES = 6  # of W that are there at once while it is made, checked and laid out; of a period of them 3
UNUSED = 1e-7  # what a convex solver leaves on an edge that the optimum does not use


def weights(network: Network, name: str | None = None, **options: Any) -> Any:
    """The mixing matrix of `network` by the rule `name`, float64.

    Args:
      network: who talks to whom; edge (u, v) says that u sends to v.
      name: a rule, or a file with a matrix (.npy, or text as numpy.loadtxt reads it); None: `default_rule`.
      **options: the rule's own.

    Returns:
      W [n, n] of a graph; [period, n, n] of a sequence, the rule applied to each of its graphs; `Matchings` as they are.

    Raises:
      InputError: an unknown rule or option, a directed graph where the rule needs an undirected one, or a rule for
        what brings its own weights.
    """
    if isinstance(network, Matchings):
        if name is not None:
            raise InputError(f"weights: a random sequence brings its own weights, got {name}; leave weights out")
        return network
    memory.refuse_beyond([need(len(network), len(_graphs(network)))])
    name = name or default_rule(network)
    assert name is not None
    if Path(name).suffix:
        return read(name, len(network))
    entry, graphs = WEIGHTS[name], _graphs(network)
    if entry.traits.get("undirected") and any(graph.is_directed() for graph in graphs):
        raise InputError(f"weights: {name} needs an undirected graph; for a directed one try uniform, push or pull")
    options = entry.options(options, "weights")
    if "base" in options:  # that of a sequence follows from all of its graphs
        options["base"] = options["base"] or default_rule(network)
    w = [entry.make(graph, **options) for graph in graphs]
    return np.stack(w) if isinstance(network, Periodic) else w[0]


def need(workers: int, phases: float = 1) -> memory.Need:
    """What the mixing matrix takes: dense, [n, n] float64 for each of its phases."""
    copies = COPIES if phases == 1 else COPIES / 2 * phases
    what = f"the mixing matrix of {workers} workers, {copies:.3g} arrays of {workers} x {workers},"
    return memory.Need("workers", what, 8.0 * workers**2 * copies, "use fewer workers")


def default_rule(network: Network) -> str | None:
    """Given for sequences whose edges carry weights, uniform for directed graphs, none for `Matchings`, else metropolis."""
    if isinstance(network, Matchings):
        return None
    graphs = _graphs(network)
    if isinstance(network, Periodic) and all(_unweighted(graph) is None for graph in graphs):
        return "given"
    return "uniform" if any(graph.is_directed() for graph in graphs) else "metropolis"


def _graphs(network: Graph | Periodic) -> tuple[Graph, ...]:
    return network.graphs if isinstance(network, Periodic) else (network,)


def _unweighted(graph: Graph) -> tuple[Any, Any] | None:
    """The first edge without a weight."""
    return next(((u, v) for u, v, data in graph.edges(data=True) if data.get("weight") is None), None)


def read(path: str | Path, workers: int | None = None) -> np.ndarray:
    """A matrix, or a period of them, from a .npy file or from text.

    Raises:
      InputError: the file is missing, or its matrix is not square, not stochastic or of another size.
    """
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


def as_matrix(matrix: Any, workers: int | None = None) -> Any:
    """[n, n] or [period, n, n] float64, checked: square, finite, rows or columns that sum to one; `Matchings` as they are."""
    w = matrix if isinstance(matrix, Matchings) else np.asarray(matrix, np.float64)
    if not isinstance(w, Matchings) and (w.ndim not in (2, 3) or w.shape[-1] != w.shape[-2] or not w.size):
        raise InputError(f"mixing: W must be square, got shape {w.shape}")
    n = len(w) if isinstance(w, Matchings) else w.shape[-1]
    if workers is not None and n != workers:
        raise InputError(f"mixing: W is for {n} workers, got workers={workers}; set workers to {n}")
    if isinstance(w, Matchings):
        return w
    if not np.isfinite(w).all():
        place = tuple(np.argwhere(~np.isfinite(w))[0])
        raise InputError(f"mixing: W must be finite; W[{', '.join(map(str, place))}] is {w[place]}")
    if not is_stochastic(w, axis=1) and not is_stochastic(w, axis=0):
        raise InputError(f"mixing: rows (or columns) of W must sum to one; {worst(w, 1, 'row')}")
    return w


def _keep_the_rest(w: np.ndarray) -> np.ndarray:
    """W whose diagonal makes its rows sum to one; a rest that is rounding alone is none."""
    np.fill_diagonal(w, 0)
    rest = 1 - w.sum(1)
    np.fill_diagonal(w, np.where(np.abs(rest) < 1e-14, 0.0, rest))
    return w


def _undirected(graph: Graph, edge: Callable[[np.ndarray], np.ndarray | float]) -> np.ndarray:
    """Symmetric W from edge weights, a function of the degrees [n, 1]; the rest goes to oneself."""
    a = adjacency(graph)
    return _keep_the_rest(np.where(a, edge(a.sum(1, keepdims=True).astype(float)), 0.0))


@rule(source="Xiao-Boyd-Kim 2007, Metropolis-Hastings with self-loops", undirected=True)
def metropolis(graph: Graph) -> np.ndarray:
    """1 / (1 + max(dᵢ, dⱼ)) on each edge, the rest to oneself: symmetric, doubly stochastic."""
    return _undirected(graph, lambda d: 1 / (1 + np.maximum(d, d.T)))


@rule(source="Boyd-Diaconis-Xiao 2004", undirected=True)
def metropolis_tight(graph: Graph) -> np.ndarray:
    """1 / max(dᵢ, dⱼ) on each edge: faster, but a bipartite regular graph never agrees."""
    return _undirected(graph, lambda d: 1 / np.maximum(np.maximum(d, d.T), 1))


@rule(source="Xiao-Boyd 2004, maximum-degree weights", undirected=True)
def max_degree(graph: Graph) -> np.ndarray:
    """1 / d_max on each edge, the rest to oneself: symmetric, doubly stochastic."""
    return _undirected(graph, lambda d: 1 / max(d.max(), 1))


@rule(source="Xiao-Boyd 2004, best constant", undirected=True, signed=True)
def laplacian(graph: Graph) -> np.ndarray:
    """2 / (λ₁ + λ_{n-1}) on each edge, of the Laplacian's largest and second smallest eigenvalue: the best constant."""
    a = adjacency(graph).astype(float)
    values = np.linalg.eigvalsh(np.diag(a.sum(1)) - a)
    return _undirected(graph, lambda d: 2 / (values[-1] + values[1]) if a.any() else 0.0)


@rule(source="Xiao-Boyd 2004, constant edge weights", undirected=True, signed=True)
def constant(graph: Graph, *, edge: float) -> np.ndarray:
    """The same weight (`weights.edge`) on each edge, the rest to oneself, be it negative."""
    return _undirected(graph, lambda d: edge)


@rule(source="the edges' own attribute `weight`", signed=True)
def given(graph: Graph) -> np.ndarray:
    """The edge's attribute `weight`, as base_k graphs and files carry it; the rest to oneself."""
    missing = _unweighted(graph)
    if missing is not None:
        raise InputError(
            f"weights: given needs an attribute `weight` on every edge; {missing} has none; try metropolis"
        )
    try:
        return _keep_the_rest(attribute(graph, "weight"))
    except (TypeError, ValueError) as error:
        raise InputError(f"weights: given needs numbers as weights of the edges ({error})") from error


@rule(source="Boyd-Diaconis-Xiao 2004, fastest mixing Markov chain", undirected=True, solver=True)
def fastest(graph: Graph) -> np.ndarray:
    """Symmetric and nonnegative with the least ‖W - J‖₂, by a convex solver."""
    return _least_norm(graph, "fastest", nonnegative=True)


@rule(source="Xiao-Boyd 2004, fastest distributed linear averaging", undirected=True, signed=True, solver=True)
def fastest_linear(graph: Graph) -> np.ndarray:
    """Symmetric with the least ‖W - J‖₂ whatever the signs, by a convex solver."""
    return _least_norm(graph, "fastest_linear", nonnegative=False)


def _least_norm(graph: Graph, name: str, nonnegative: bool) -> np.ndarray:
    """W = I - Σₑ wₑ Lₑ over edges e that minimises s subject to -s I <= W - J <= s I: a semidefinite program in (w, s).

    A second for 32 workers, minutes for 128.
    """
    try:
        import cvxpy as cp
    except ImportError as error:
        raise InputError(f"weights: {name} needs cvxpy, which is not here; pip install 'dopt[weights]'") from error
    if not nx.is_connected(graph):
        raise InputError(f"weights: {name} needs a connected graph, this one falls apart; add edges")
    n = len(graph)
    memory.refuse_beyond(
        [memory.solver("weights", n, 2)._replace(hint="use fewer workers, or laplacian or metropolis")]
    )
    u, v = np.nonzero(np.triu(adjacency(graph)))
    if n == 1:
        return np.ones((1, 1))
    m = np.arange(len(u))
    place = np.concatenate([u * n + u, v * n + v, u * n + v, v * n + u]), np.tile(m, 4)
    laplacians = csr_array((np.repeat([1.0, 1.0, -1.0, -1.0], len(m)), place), (n * n, len(m)))
    weight: Any = cp.Variable(len(u))
    norm = cp.Variable()
    mixed = cp.reshape(laplacians @ weight, (n, n), order="C")
    away = np.eye(n) - 1 / n - mixed
    constraints = [away << norm * np.eye(n), away >> -norm * np.eye(n)]
    if nonnegative:
        constraints += [weight >= 0, cp.diag(mixed) <= 1]
    problem = cp.Problem(cp.Minimize(norm), constraints)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is inaccurate says `status`, too
            problem.solve(solver=cp.CLARABEL)
    except cp.error.SolverError:
        pass  # its status is None then
    if problem.status != cp.OPTIMAL:
        raise InputError(
            f"weights: the solver did not find the {name} ones ({problem.status or 'no answer'}); try laplacian or metropolis"
        )
    found = np.where(np.abs(weight.value) < UNUSED, 0, weight.value)
    if nonnegative:
        found = np.maximum(found, 0)
        found /= max(
            1.0, float(np.max(np.bincount(np.concatenate([u, v]), np.tile(found, 2))))
        )  # nobody gives away more than all
    w = np.zeros((n, n))
    w[u, v] = w[v, u] = found
    return _keep_the_rest(w)


@rule(source="Ying et al. 2021, 2110.13363")
def uniform(graph: Graph) -> np.ndarray:
    """1 / (1 + number of senders) for each sender and oneself; doubly stochastic on regular graphs."""
    a = adjacency(graph) + np.eye(len(graph))
    return a / a.sum(1, keepdims=True)


@rule(source="lazy random walk")
def lazy(graph: Graph, *, base: str | None = None) -> np.ndarray:
    """(I + W) / 2 of another rule (`weights.base`): no negative eigenvalue is left."""
    return (np.eye(len(graph)) + weights(graph, base)) / 2


@rule(source="Assran et al. 2019, 1811.10792", stochastic="column")
def push(graph: Graph) -> np.ndarray:
    """Column-stochastic: each splits what it has evenly over its receivers and itself."""
    a = adjacency(graph) + np.eye(len(graph))
    return a / a.sum(0, keepdims=True)


@rule(source="Pu et al. 2018, 1803.07588", stochastic="row")
def pull(graph: Graph) -> np.ndarray:
    """Row-stochastic: each averages what it receives with its own."""
    return uniform(graph)
