"""Graph -> mixing matrix W. W[i, j] is the weight that worker i gives worker j's model; rows act, X <- W X, X [n, d].

A new weight rule is one function here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from scipy.sparse import csr_array, issparse

from dopt import memory, reading
from dopt.mixing.spectrum import Matrix, is_stochastic, worst
from dopt.registry import Registry, did_you_mean
from dopt.topology import Graph, Matchings, Network, Periodic, adjacency, attribute
from dopt.types import InputError

WEIGHTS = Registry("weights")
rule = WEIGHTS.register
COPIES = 6  # of W that are there at once while it is made, checked and laid out; of a period of them 3
FLOAT32 = 2.0**-23  # how far a sum of weights may be off that were rounded to float32, per unit of their magnitude
ROUNDED = 1e-2  # who misses one by less has rounded, to however few digits
UNUSED = 1e-7  # what a convex solver leaves on an edge that the optimum does not use
SOLVER: tuple[dict[str, Any], ...] = (  # asked one after the other, as long as the answer is not accurate
    {},
    {"static_regularization_constant": 1e-9},
    {"equilibrate_enable": False},
)


def weights(network: Network, name: str | None = None, **options: object) -> Any:
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
    if is_file(name):
        return _within(network, read(name, len(network)), name)
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


def is_file(name: str) -> bool:
    """Whether `name` is meant as a path and not as a rule."""
    return bool(Path(name).suffix)


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
    """A matrix, or a period of them, from a .npy file or from text (.csv: with commas), packed or not.

    Raises:
      InputError: the file is missing, or its matrix is not square, not stochastic or of another size.
    """
    return as_array(_content(path), workers)


def notes(matrix: object) -> tuple[str, ...]:
    """What a reader should know of how a matrix, the file of one, or a pair of them was taken."""
    if isinstance(matrix, str | Path):
        matrix = _content(matrix)
    parts = matrix if isinstance(matrix, tuple) else (matrix,)
    if any(not isinstance(part, Network) and _only_rounded(_numbers(part)) for part in parts):
        return ("weights: W sums to one within the rounding of float32 only; it was scaled to do so in float64",)
    return ()


def _content(path: str | Path) -> np.ndarray:
    """What a file holds, whatever its shape."""
    path = Path(path)
    content = reading.read("weights", path, hint=did_you_mean(path.stem, WEIGHTS))
    suffixes = path.suffixes
    try:
        if path.suffix in reading.PACKED:
            content = reading.unpacked(content, path.suffix)
            suffixes = suffixes[:-1]
        if suffixes[-1:] == [".npy"]:
            return reading.array(content)
        if not content.strip():
            raise ValueError("it is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of comments alone, whose matrix is empty
            return np.loadtxt(
                content.decode("utf-8-sig").splitlines(),
                delimiter="," if suffixes[-1:] == [".csv"] else None,
                ndmin=2,
            )
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"weights: {str(path)!r} is not a matrix of numbers ({reason:.200})") from error


def _within(network: Graph | Periodic, w: np.ndarray, name: str) -> np.ndarray:
    """W, if it has no link that the network lacks: under its name one would look for other results."""
    graphs = _graphs(network)
    several = w if w.ndim == 3 else w[None]
    if isinstance(network, Periodic) and len(several) != len(graphs):
        raise InputError(
            f"weights: {name!r} has {len(several)} matrices, the topology a period of {len(graphs)}; leave topology out"
        )
    for step, part in enumerate(several):
        there = adjacency(graphs[step % len(graphs)]) | np.eye(len(part), dtype=bool)
        for reader, sender in np.argwhere((part != 0) & ~there)[:1]:
            raise InputError(
                f"weights: {name!r} has a link from {sender} to {reader}, which the topology lacks; leave topology out, or name the one that it is"
            )
    return w


def as_matrix(matrix: object, workers: int | None = None) -> Matrix:
    """`as_array`, but for `Matchings`, which stay as they are."""
    if not isinstance(matrix, Matchings):
        return as_array(matrix, workers)
    _check_size(len(matrix), workers)
    return matrix


def as_array(matrix: object, workers: int | None = None) -> np.ndarray:
    """[n, n] or [period, n, n] float64, checked: square, finite, rows or columns that sum to one.

    What sums to one within float32's rounding only is scaled: `notes` says so.
    """
    w = _numbers(matrix, workers)
    if w.ndim not in (2, 3) or w.shape[-1] != w.shape[-2] or not w.size:
        raise InputError(f"mixing: W must be square, got shape {w.shape}")
    _check_size(w.shape[-1], workers)
    if not np.isfinite(w).all():
        place = tuple(np.argwhere(~np.isfinite(w))[0])
        raise InputError(f"mixing: W must be finite; W[{', '.join(map(str, place))}] is {w[place]}")
    if _only_rounded(w):
        w = _scaled(w) if w.ndim == 2 else np.stack([_scaled(part) for part in w])
    if not is_stochastic(w, axis=1) and not is_stochastic(w, axis=0):
        near = np.abs(w.sum(-1) - 1).max() < ROUNDED
        advice = "; divide each row by its sum, in float64" if near else ""
        raise InputError(f"mixing: rows (or columns) of W must sum to one; {worst(w, 1, 'row')}{advice}")
    return w


def _check_size(n: int, workers: int | None) -> None:
    if workers is not None and n != workers:
        raise InputError(f"mixing: W is for {n} workers, got workers={workers}; set workers to {n}")


def _numbers(matrix: Any, workers: int | None = None) -> np.ndarray:
    """float64 of an array, a list or a sparse matrix; InputError where that would lose something."""
    if issparse(matrix):
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or workers not in (None, matrix.shape[0]):
            raise InputError(f"mixing: W must be {workers or 'n'} x {workers or 'n'}, got {matrix.shape}")
        matrix = matrix.toarray()
    if np.ma.isMaskedArray(matrix):
        raise InputError("mixing: W must have all its entries, got a masked array; fill it with zeros")
    try:
        w = np.asarray(matrix)
        if w.dtype.kind == "c" and not w.imag.any():
            w = w.real
        if w.dtype.kind == "c":
            place = tuple(np.argwhere(w.imag)[0])
            raise InputError(f"mixing: W must be real; W[{', '.join(map(str, place))}] is {w[place]}")
        return w.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"mixing: W must be an array of numbers ({' '.join(str(error).split()):.200})") from error


def _close(w: np.ndarray, axis: int) -> bool:
    """Whether sums of rows (axis 1) or columns miss one by no more than rounding each entry to float32 does."""
    error = np.abs(w.sum(axis - 2) - 1)
    return bool((error <= FLOAT32 * np.maximum(np.abs(w).sum(axis - 2), 1)).all())


def _only_rounded(w: np.ndarray) -> bool:
    """Whether W was rounded to float32, and some of its sums miss one for that alone."""
    if w.ndim not in (2, 3) or not w.size or not np.abs(w).max() <= np.finfo(np.float32).max:
        return False
    if (w != w.astype(np.float32)).any():
        return False
    return any(_close(w, axis) and not is_stochastic(w, axis) for axis in (1, 0))


def _scaled(w: np.ndarray) -> np.ndarray:
    """W [n, n] whose sums are one, on the same links.

    Where both rows and columns are meant, W[i, j] (1 + aᵢ + bⱼ): Newton's step from nothing on the equations of Sinkhorn
    1964, exact but for squares of float32's rounding. A symmetric W stays so.
    """
    if not _close(w, 0):
        return w / w.sum(1, keepdims=True)
    if not _close(w, 1):
        return w / w.sum(0, keepdims=True)
    from scipy.sparse.linalg import LinearOperator, lsqr

    n, rows, columns = len(w), w.sum(1), w.sum(0)
    system = LinearOperator(
        (2 * n, 2 * n),
        matvec=lambda x: np.concatenate([rows * x[:n] + w @ x[n:], w.T @ x[:n] + columns * x[n:]]),
        rmatvec=lambda x: np.concatenate([rows * x[:n] + w @ x[n:], w.T @ x[:n] + columns * x[n:]]),
        dtype=np.float64,
    )
    x = lsqr(system, 1 - np.concatenate([rows, columns]), atol=1e-9, btol=1e-9)[0]
    return w * (1 + x[:n, None] + x[n:])


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
        said = attribute(graph, "weight")
    except InputError as error:
        raise InputError(f"weights: given needs numbers as weights of the edges ({error})") from error
    w = _keep_the_rest(said.copy())
    looped = attribute(graph, None).diagonal() != 0
    for i in np.flatnonzero(looped & (np.abs(said.diagonal() - w.diagonal()) > 1e-9)):
        raise InputError(
            f"weights: given leaves worker {i} a weight of {w[i, i]:.6g} for itself, its self-loop says {said[i, i]:.6g}; leave the self-loop out"
        )
    return w


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
    for tried in SOLVER:
        with warnings.catch_warnings(), suppress(cp.error.SolverError):  # the status is None then
            warnings.simplefilter("ignore")  # that it is inaccurate says the status, too
            problem.solve(solver=cp.CLARABEL, **tried)
        if problem.status == cp.OPTIMAL:
            break
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
