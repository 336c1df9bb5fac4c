"""Graph -> mixing matrix W and its spectrum; W -> Mix, the thing that runs on workers.

W[i, j] is the weight that worker i gives worker j's model; rows act, X <- W X with X [n, d]. A mix returns the
*displacement* W x - x computed from differences, Σ_{j≠i} W_ij (xⱼ - c) - (Σ_{j≠i} W_ij)(xᵢ - c): a float32 row of
thirds sums to 1 + 3e-8, and methods that integrate would integrate that. A new weight rule is one function here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from jax import lax
from scipy.sparse import csgraph

from dopt import delays
from dopt.registry import Registry, did_you_mean
from dopt.topology import adjacency
from dopt.types import AXIS, Clock, InputError, Tree

WEIGHTS = Registry("weights")
rule = WEIGHTS.register
EXACT = 1e-9  # how far from one a row of float64 weights may sum: files carry that many digits


# -- matrices, on the host ------------------------------------------------------------------------------------------


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
        raise InputError(f"mixing: rows (or columns) of W must sum to one; {_worst(w, 1, 'row')}")
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


def is_stochastic(w: np.ndarray, axis: int) -> bool:
    """Whether the rows (axis 1) or columns (axis 0) sum to one."""
    return bool(np.abs(w.sum(axis) - 1).max() <= EXACT)


def _worst(w: np.ndarray, axis: int, word: str) -> str:
    error = np.abs(w.sum(axis) - 1)
    return f"largest {word} error {error.max():.1e} ({word} {np.argmax(error)})"


def is_connected(w: np.ndarray) -> bool:
    """Whether every worker hears of every other, over however many hops (strongly connected)."""
    return csgraph.connected_components(w != 0, directed=True, connection="strong")[0] == 1


def spectral_gap(w: np.ndarray) -> float:
    """1 - ‖W - J‖₂ for doubly stochastic W, else 1 minus the second largest modulus; `gap_kind` says which."""
    if len(w) == 1:
        return 1.0
    if gap_kind(w).startswith("doubly"):
        return float(1 - np.linalg.norm(w - 1 / len(w), 2))
    return float(1 - np.sort(np.abs(np.linalg.eigvals(w)))[-2])


def gap_kind(w: np.ndarray) -> str:
    """Which of the two definitions `spectral_gap` takes for W."""
    both = is_stochastic(w, 0) and is_stochastic(w, 1)
    return "doubly stochastic: 1 - ‖W - J‖₂" if both else "not doubly stochastic: 1 - |λ₂|"


def check(w: np.ndarray, method: str, needs: str) -> None:
    """Refuse a W that the theory of `method` forbids, in one line that says what would work.

    Args:
      needs: "doubly stochastic" (so far the only kind a method asks for).
    """
    hint = "; strict: false runs it, to show the failure"
    if needs == "doubly stochastic":
        for axis, word in ((1, "row"), (0, "column")):
            if not is_stochastic(w, axis):
                raise InputError(
                    f"mixing: W must be doubly stochastic for {method}; {_worst(w, axis, word)}; try metropolis weights{hint}"
                )
    if not is_connected(w):
        raise InputError(
            f"topology: {method} needs a connected graph (directed: strongly), this one falls apart; add edges{hint}"
        )
    gap = spectral_gap(w)
    if gap < -EXACT:
        raise InputError(f"mixing: {method} needs ‖W - J‖₂ < 1 to agree, got {1 - gap:.6g}; use smaller weights{hint}")
    if gap < EXACT:
        raise InputError(
            f"mixing: the graph is connected but its spectral gap is 0 (it swings for ever); try `weights: lazy`{hint}"
        )


# -- what runs on workers -------------------------------------------------------------------------------------------


class Mix(NamedTuple):
    """A mixing matrix from the view of one worker.

    init(tree) -> state; apply(tree, state, **extra) -> (displacement W x - x, state), called once per step on one tuple
    of all that travels.
    """

    init: Callable[[Tree], Any]
    apply: Callable[..., tuple[Tree, Any]]


class Dense(NamedTuple):
    """W as one matrix product."""

    off: Any  # [n, n] off-diagonal weights
    out: Any  # [n] what leaves oneself: sum of the row (column, where only columns sum to one)
    relative: Any  # [] 1: rows sum to one and differences are taken to worker 0's model; 0: they are not


class Neighbours(NamedTuple):
    """W as lists of neighbours: for disconnected graphs, where one part's NaN must never reach another."""

    index: Any  # [n, k] int32, padded with oneself
    weight: Any  # [n, k], padded with 0


Form = Dense | Neighbours


def form(w: np.ndarray) -> Form:
    """The form in which W runs: neighbour lists where it is disconnected, else one matrix."""
    off = w - np.diag(np.diag(w))
    rows = is_stochastic(w, 1)
    if is_connected(w) or not rows:
        return Dense(off, off.sum(1 if rows else 0), np.float64(rows))
    width = max(1, int((off != 0).sum(1).max()))
    index = np.tile(np.arange(len(w), dtype=np.int32)[:, None], (1, width))
    weight = np.zeros((len(w), width))
    for i, row in enumerate(off):
        (senders,) = np.nonzero(row)
        index[i, : len(senders)], weight[i, : len(senders)] = senders, row[senders]
    return Neighbours(index, weight)


def _displacement(form: Form, own: Tree, others: Tree, reference: Tree) -> Tree:
    """Σ_{j≠i} W_ij (xⱼ - c) - out_i (xᵢ - c) for each leaf: `own` and `reference` c [...], `others` [n, ...]."""
    worker = lax.axis_index(AXIS)
    form = jax.tree.map(jnp.asarray, form)  # here, since whether this is x64 is known only where it runs

    def dense(x: jax.Array, everyone: jax.Array, c: jax.Array, f: Dense) -> jax.Array:
        c = c * f.relative.astype(x.dtype)
        row, out = f.off[worker].astype(x.dtype), f.out[worker].astype(x.dtype)
        return jnp.tensordot(row, everyone - c, axes=1, precision=lax.Precision.HIGHEST) - out * (x - c)

    def neighbours(x: jax.Array, everyone: jax.Array, f: Neighbours) -> jax.Array:
        return jnp.tensordot(
            f.weight[worker].astype(x.dtype), everyone[f.index[worker]] - x, axes=1, precision=lax.Precision.HIGHEST
        )

    def one(x: jax.Array, everyone: jax.Array, c: jax.Array) -> jax.Array:
        return dense(x, everyone, c, form) if isinstance(form, Dense) else neighbours(x, everyone, form)

    return jax.tree.map(one, own, others, reference)


def _of_worker_0(everyone: Tree) -> Tree:
    return jax.tree.map(lambda x: x[0], everyone)


class RingState(NamedTuple):
    ring: Tree  # leaves [slots, ...]: this worker's own last models
    clock: Clock


def mix(w: Any, *, slots: int | None = None, delay: int | None = None) -> Mix:
    """The Mix of a matrix W [n, n] (or of its `form`).

    Args:
      w: the matrix, or a form whose leaves may be traced.
      slots: length of each worker's ring of its own models, for delayed reads: largest delay + 1; None: no delay.
      delay: constant delay of neighbours' models in steps, where `apply` is not told a `staleness`.

    A delayed `apply` takes two extra arguments: `staleness`, [] for all senders alike or [n], one per sender; and
    `delay_self`, to take oneself from the ring too, xᵢ <- Σⱼ W_ij xⱼ^{k-τ} (keeps the average on irregular graphs).
    """
    w = form(as_matrix(w)) if not isinstance(w, Dense | Neighbours) else w
    if delay is not None and slots is None:
        slots = delay + 1
    if slots is None:

        def fresh(tree: Tree, state: Any, **extra: Any) -> tuple[Tree, Any]:
            everyone = lax.all_gather(tree, AXIS)
            return _displacement(w, tree, everyone, _of_worker_0(everyone)), state

        return Mix(lambda tree: (), fresh)

    def init(tree: Tree) -> RingState:
        return RingState(delays.ring(tree, slots), Clock(jnp.zeros((), jnp.int32)))

    def apply(
        tree: Tree, state: RingState, *, staleness: Any = delay, delay_self: bool = False, **extra: Any
    ) -> tuple[Tree, RingState]:
        if staleness is None:
            raise InputError(
                "mixing: a delayed mix needs `staleness`; build it with delay=, or pass staleness= to update"
            )
        ring, clock = delays.write(state.ring, state.clock, tree), state.clock
        if jnp.ndim(staleness) == 0:
            others = lax.all_gather(delays.read(ring, clock, staleness), AXIS)
        else:
            sent = lax.all_gather(ring, AXIS)  # [n, slots, ...]; of each sender the slot of its own age
            n = jnp.shape(staleness)[0]
            others = jax.tree.map(lambda s: s[jnp.arange(n), (clock.step - staleness) % s.shape[1]], sent)
        # any common reference will do; the models of now are at hand, and old ones would be gathered twice
        reference = _of_worker_0(lax.all_gather(tree, AXIS))
        if delay_self:
            own = jax.tree.map(lambda x: x[lax.axis_index(AXIS)], others)
            moved = jax.tree.map(lambda m, o, x: m + (o - x), _displacement(w, own, others, reference), own, tree)
        else:
            moved = _displacement(w, tree, others, reference)
        return moved, RingState(ring, clock.tick())

    return Mix(init, apply)
