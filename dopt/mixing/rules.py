"""Graph -> mixing matrix W. W[i, j] is the weight that worker i gives worker j's model; rows act, X <- W X, X [n, d].

A new weight rule is one function here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from scipy.sparse import csr_array, eye_array, issparse

from dopt import extras, memory, reading
from dopt.mixing import sparse
from dopt.mixing.spectrum import Matrix, is_stochastic, worst
from dopt.registry import Registry, did_you_mean
from dopt.topology import Graph, Matchings, Network, Periodic, adjacency, entries
from dopt.types import InputError

WEIGHTS = Registry("weights")
rule = WEIGHTS.register
SHORT = 2**16  # characters of a line that is read whatever it is
DIGITS = 400  # of a number, and what stands between it and the next
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
      W [n, n] of a graph, as a CSR array where it is large and sparse (`sparse.stays_sparse`); [period, n, n] of a sequence, the rule applied to each of its graphs; `Matchings` as they are.

    Raises:
      InputError: an unknown rule or option, a directed graph where the rule needs an undirected one, or a rule for
        what brings its own weights.
    """
    if isinstance(network, Matchings):
        if name is not None:
            raise InputError(f"weights: a random sequence brings its own weights, got {name}; leave weights out")
        return network
    name = name or default_rule(network)
    assert name is not None
    if not (isinstance(network, Graph) and stays_sparse(name, len(network), _most_links(network))):
        memory.refuse_beyond([sparse.need(len(network), len(_graphs(network)))])
    return _within(network, read(name, len(network)), name) if is_file(name) else _by_rule(network, name, options)


def _by_rule(network: Graph | Periodic, name: str, options: Mapping[str, object]) -> Any:
    """The rule applied to each graph."""
    entry, graphs = WEIGHTS[name], _graphs(network)
    if entry.traits.get("undirected") and any(graph.is_directed() for graph in graphs):
        raise InputError(f"weights: {name} needs an undirected graph; for a directed one try uniform, push or pull")
    options = entry.options(options, "weights")
    if "base" in options:  # that of a sequence follows from all of its graphs
        options["base"] = options["base"] or default_rule(network)
    w = [entry.make(graph, **options) for graph in graphs]
    if isinstance(network, Periodic):
        return np.stack([sparse.dense(part) for part in w])
    return sparse.settled(w[0]) if issparse(w[0]) else w[0]


def stays_sparse(name: str | None, workers: float, degree: float) -> bool:
    """Whether the matrix that a rule makes is sparse, of a graph of so many workers with so many senders at most."""
    name = name or "metropolis"
    of_links = name in WEIGHTS and bool(WEIGHTS[name].traits.get("of_links"))
    return of_links and sparse.stays_sparse(workers, degree + 1)


def _most_links(graph: Graph) -> int:
    """At most so many links has any worker."""
    return max((degree for _, degree in graph.degree), default=0)


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
    if any(not isinstance(part, Network) and _only_rounded(_plain(part)) for part in parts):
        return ("weights: W sums to one only up to rounding in float32; it was scaled to do so in float64",)
    return ()


def _check_lines(content: bytes) -> None:
    """ValueError where a line is too long to be one of a square matrix: a few packed bytes may be one number of a hundred million digits."""
    lengths = [len(line) for line in content.splitlines()]
    if max(lengths) > max(SHORT, DIGITS * len(lengths)):
        raise ValueError(f"line {np.argmax(lengths) + 1} of {len(lengths)} has {max(lengths)} characters")


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
        _check_lines(content)
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
                f"weights: {name!r} has a link from {sender} to {reader}, which the topology lacks; leave topology out, or name the right one"
            )
    return w


def as_matrix(matrix: object, workers: int | None = None) -> Matrix:
    """`as_array`, but for `Matchings`, which stay as they are, and for what is large and sparse, which stays sparse."""
    if isinstance(matrix, Matchings):
        _check_size(len(matrix), workers)
        return matrix
    if not issparse(matrix):
        return as_array(matrix, workers)
    w = _plain(_square(matrix, workers))
    w.eliminate_zeros()
    return _stochastic(w) if sparse.stays_sparse(w.shape[0], sparse.degree(w)) else as_array(matrix, workers)


def as_array(matrix: object, workers: int | None = None) -> np.ndarray:
    """[n, n] or [period, n, n] float64, checked: square, finite, rows or columns that sum to one.

    What sums to one within float32's rounding only is scaled: `notes` says so.
    """
    w = _numbers(sparse.dense(_square(matrix, workers)) if issparse(matrix) else matrix)
    if w.ndim not in (2, 3) or w.shape[-1] != w.shape[-2] or not w.size:
        raise InputError(f"mixing: W must be square, got shape {w.shape}")
    _check_size(w.shape[-1], workers)
    return _stochastic(w)


def _stochastic(w: np.ndarray | csr_array) -> Any:
    """W, of which something sums to one; scaled, where that was lost to rounding alone."""
    if not np.isfinite(_entries(w)).all():
        places = sparse.where(w, ~np.isfinite(w.data)) if issparse(w) else np.argwhere(~np.isfinite(w))
        place = tuple(places[0])
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


def _square(matrix: Any, workers: int | None) -> Any:
    """A sparse matrix, if it is of that size."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or workers not in (None, matrix.shape[0]):
        raise InputError(f"mixing: W must be {workers or 'n'} x {workers or 'n'}, got {matrix.shape}")
    return matrix


def _entries(w: np.ndarray | csr_array) -> np.ndarray:
    """All numbers of W that may not be zero."""
    return w if isinstance(w, np.ndarray) else w.data


def _plain(matrix: Any) -> Any:
    """float64 of an array, or of a sparse matrix, which stays sparse."""
    if not issparse(matrix):
        return _numbers(matrix)
    w = csr_array(matrix)
    w.sum_duplicates()
    return csr_array((_numbers(w.data), w.indices, w.indptr), w.shape)


def _numbers(matrix: Any) -> np.ndarray:
    """float64 of an array or a list; InputError where that would lose something."""
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


def _close(w: np.ndarray | csr_array, axis: int) -> bool:
    """Whether sums of rows (axis 1) or columns miss one by no more than rounding each entry to float32 does."""
    error = np.abs(w.sum(axis - 2) - 1)
    return bool((error <= FLOAT32 * np.maximum(abs(w).sum(axis - 2), 1)).all())


def _only_rounded(w: np.ndarray | csr_array) -> bool:
    """Whether W was rounded to float32, and some of its sums miss one for that alone."""
    entries = _entries(w)
    if w.ndim not in (2, 3) or not entries.size or not np.abs(entries).max() <= np.finfo(np.float32).max:
        return False
    if (entries != entries.astype(np.float32)).any():
        return False
    return any(_close(w, axis) and not is_stochastic(w, axis) for axis in (1, 0))


def _scaled(w: np.ndarray | csr_array) -> Any:
    """W [n, n] whose sums are one, on the same links.

    Where both rows and columns are meant, W[i, j] (1 + aᵢ + bⱼ): Newton's step from nothing on the equations of Sinkhorn
    1964, exact but for squares of float32's rounding. A symmetric W stays so.
    """
    if not _close(w, 0):
        return _times(w, 1 / w.sum(1)[:, None]) if issparse(w) else w / w.sum(1, keepdims=True)
    if not _close(w, 1):
        return _times(w, 1 / w.sum(0)[None]) if issparse(w) else w / w.sum(0, keepdims=True)
    from scipy.sparse.linalg import LinearOperator, lsqr

    n, rows, columns = w.shape[0], w.sum(1), w.sum(0)
    system = LinearOperator(
        (2 * n, 2 * n),
        matvec=lambda x: np.concatenate([rows * x[:n] + w @ x[n:], w.T @ x[:n] + columns * x[n:]]),
        rmatvec=lambda x: np.concatenate([rows * x[:n] + w @ x[n:], w.T @ x[:n] + columns * x[n:]]),
        dtype=np.float64,
    )
    x = lsqr(system, 1 - np.concatenate([rows, columns]), atol=1e-9, btol=1e-9)[0]
    if issparse(w):
        return w + _times(w, x[:n, None]) + _times(w, x[None, n:])
    return w * (1 + x[:n, None] + x[n:])


def _times(w: csr_array, factor: np.ndarray) -> csr_array:
    """Each row [n, 1] or column [1, n] times a factor."""
    return csr_array(w.multiply(factor))


def _links(graph: Graph) -> csr_array:
    """1 for each link, [i, j]: j sends to i; self-loops are left out."""
    return _of(graph, None)


def _of(graph: Graph, name: str | None) -> csr_array:
    """What edges say, as `topology.attribute` has it, without self-loops."""
    reader, sender, value = entries(graph, name)
    return sparse.without_own(csr_array((value, (reader, sender)), (len(graph), len(graph))))


def _keep_the_rest(w: csr_array) -> csr_array:
    """W, which has no diagonal, with one that makes its rows sum to one; a rest that is rounding alone is none."""
    rest = 1 - sparse.row_sums(w)
    return csr_array(w + sparse.diagonal(np.where(np.abs(rest) < 1e-14, 0.0, rest)))


def _undirected(graph: Graph, edge: Callable[[np.ndarray, np.ndarray], np.ndarray | float]) -> csr_array:
    """Symmetric W from edge weights, a function of both ends' degrees [links]; the rest goes to oneself."""
    links = _links(graph)
    degree, reader = np.diff(links.indptr).astype(float), np.repeat(np.arange(len(graph)), np.diff(links.indptr))
    weight = np.broadcast_to(np.asarray(edge(degree[reader], degree[links.indices]), float), links.data.shape)
    return _keep_the_rest(csr_array((weight.copy(), links.indices, links.indptr), links.shape))


@rule(source="Xiao-Boyd-Kim 2007, Metropolis-Hastings with self-loops", undirected=True, of_links=True)
def metropolis(graph: Graph) -> csr_array:
    """1 / (1 + max(dᵢ, dⱼ)) on each edge, the rest to oneself: symmetric, doubly stochastic."""
    return _undirected(graph, lambda i, j: 1 / (1 + np.maximum(i, j)))


@rule(source="Boyd-Diaconis-Xiao 2004", undirected=True, of_links=True)
def metropolis_tight(graph: Graph) -> csr_array:
    """1 / max(dᵢ, dⱼ) on each edge: faster, but on a bipartite regular graph workers never agree."""
    return _undirected(graph, lambda i, j: 1 / np.maximum(i, j))


@rule(source="Xiao-Boyd 2004, maximum-degree weights", undirected=True, of_links=True)
def max_degree(graph: Graph) -> csr_array:
    """1 / d_max on each edge, the rest to oneself: symmetric, doubly stochastic."""
    return _undirected(graph, lambda i, j: 1 / i.max(initial=1))


@rule(source="Xiao-Boyd 2004, best constant", undirected=True, signed=True, solver="eigenvalues")
def laplacian(graph: Graph) -> csr_array:
    """2 / (λ₁ + λ_{n-1}) on each edge, of the Laplacian's largest and second smallest eigenvalue: the best constant."""
    a = adjacency(graph).astype(float)
    values = np.linalg.eigvalsh(np.diag(a.sum(1)) - a)
    return _undirected(graph, lambda i, j: 2 / (values[-1] + values[1]) if a.any() else 0.0)


@rule(source="Xiao-Boyd 2004, constant edge weights", undirected=True, signed=True, of_links=True)
def constant(graph: Graph, *, edge: float) -> csr_array:
    """The same weight (`weights.edge`) on each edge, the rest to oneself, even if it is negative."""
    return _undirected(graph, lambda i, j: edge)


@rule(source="the edges' own attribute `weight`", signed=True, of_links=True)
def given(graph: Graph) -> csr_array:
    """The edge's attribute `weight`, as base_k graphs and files carry it; the rest to oneself."""
    missing = _unweighted(graph)
    if missing is not None:
        raise InputError(
            f"weights: given needs an attribute `weight` on every edge; {missing} has none; try metropolis"
        )
    try:
        w = _keep_the_rest(_of(graph, "weight"))
        reader, sender, value = entries(graph, "weight")
    except InputError as error:
        raise InputError(f"weights: given needs numbers as weights of the edges ({error})") from error
    own = w.diagonal()
    wrong = np.flatnonzero((reader == sender) & (np.abs(value - own[reader]) > 1e-9))
    for k in wrong[np.argsort(reader[wrong])]:
        i = reader[k]
        raise InputError(
            f"weights: given leaves worker {i} a weight of {own[i]:.6g} for itself, but its self-loop says {value[k]:.6g}; leave the self-loop out"
        )
    return w


@rule(source="Boyd-Diaconis-Xiao 2004, fastest mixing Markov chain", undirected=True, solver="convex")
def fastest(graph: Graph) -> np.ndarray:
    """Symmetric and nonnegative with the least ‖W - J‖₂, by a convex solver."""
    return _least_norm(graph, "fastest", nonnegative=True)


@rule(source="Xiao-Boyd 2004, fastest distributed linear averaging", undirected=True, signed=True, solver="convex")
def fastest_linear(graph: Graph) -> np.ndarray:
    """Symmetric with the least ‖W - J‖₂, negative weights allowed, by a convex solver."""
    return _least_norm(graph, "fastest_linear", nonnegative=False)


def _least_norm(graph: Graph, name: str, nonnegative: bool) -> np.ndarray:
    """W = I - Σₑ wₑ Lₑ over edges e that minimises s subject to -s I <= W - J <= s I: a semidefinite program in (w, s).

    A second for 32 workers, minutes for 128.
    """
    extras.need("cvxpy", f"weights: {name}")
    import cvxpy as cp

    if not nx.is_connected(graph):
        raise InputError(f"weights: {name} needs a connected graph, this one is not; add edges")
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
            f"weights: the solver did not find {name} weights ({problem.status or 'no answer'}); try laplacian or metropolis"
        )
    found = np.where(np.abs(weight.value) < UNUSED, 0, weight.value)
    if nonnegative:
        found = np.maximum(found, 0)
        found /= max(
            1.0, float(np.max(np.bincount(np.concatenate([u, v]), np.tile(found, 2))))
        )  # nobody gives away more than all
    w = csr_array((np.tile(found, 2), (np.concatenate([u, v]), np.concatenate([v, u]))), (n, n))
    return _keep_the_rest(sparse.without_own(w)).toarray()


@rule(source="Ying et al. 2021, 2110.13363", of_links=True)
def uniform(graph: Graph) -> csr_array:
    """1 / (1 + number of senders) for each sender and oneself; doubly stochastic on regular graphs."""
    return _shared(graph, 1)


@rule(source="lazy random walk", of_links=True)
def lazy(graph: Graph, *, base: str | None = None) -> csr_array:
    """(I + W) / 2 of another rule (`weights.base`), which has no negative eigenvalue."""
    return csr_array((eye_array(len(graph)) + csr_array(weights(graph, base))) / 2)


@rule(source="Assran et al. 2019, 1811.10792", stochastic="column", of_links=True)
def push(graph: Graph) -> csr_array:
    """Column-stochastic: each splits what it has evenly over its receivers and itself."""
    return _shared(graph, 0)


def _shared(graph: Graph, axis: int) -> csr_array:
    """Rows (axis 1) or columns that are shared evenly by all links in them and oneself."""
    a = csr_array(_links(graph) + eye_array(len(graph)))
    count = a.sum(axis)[np.repeat(np.arange(len(graph)), np.diff(a.indptr)) if axis else a.indices]
    return csr_array((a.data / count, a.indices, a.indptr), a.shape)


@rule(source="Pu et al. 2018, 1803.07588", stochastic="row", of_links=True)
def pull(graph: Graph) -> csr_array:
    """Row-stochastic: each averages what it receives with its own."""
    return uniform(graph)
