"""W of large sparse graphs: a scipy CSR array, which nothing here makes dense.

What holds of a dense W is asked of its links instead: whether its workers agree follows from the graph alone where no
weight is negative, and its second modulus comes from Lanczos' iteration, to `TOLERANCE`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.sparse import block_array, csgraph, csr_array, diags_array, issparse

from dopt import memory

FROM = 2048  # workers: up to here, W is dense
SPARSE = 8  # above, W is sparse where no worker has more than n / 8 senders, as its lists of neighbours are
COPIES = 6  # of W that are there at once while it is made, checked and laid out; of a period of them 3
ENTRY = 16  # bytes of a link: its weight and its place
SAME = 2**15  # workers: up to here, sums and digests are to the last bit those of a dense W, which many hosts can hold
BLOCK = 2**25  # numbers in rows that are dense for a moment: 256 MiB
TOLERANCE = 1e-9  # of a modulus
BANDED = 64  # how far from the diagonal links may lie for a factorization to stay small
VECTORS, RESTARTS = 40, 200  # of Lanczos' iteration


def need(workers: int, phases: float = 1, links: float | None = None) -> memory.Need:
    """What a mixing matrix takes: dense, [n, n] float64 for each of its phases; or sparse, of so many `links`."""
    if links is not None:
        what = f"the sparse mixing matrix of {workers} workers with {links:.3g} links"
        return memory.Need("workers", what, COPIES * ENTRY * (workers + links), "use fewer workers or links")
    copies = COPIES if phases == 1 else COPIES / 2 * phases
    what = f"the mixing matrix of {workers} workers, {copies:.3g} arrays of {workers} x {workers},"
    return memory.Need("workers", what, 8.0 * workers**2 * copies, "use fewer workers")


def stays_sparse(workers: float, degree: float) -> bool:
    """Whether W of so many workers with so many senders at most is kept sparse."""
    return workers > FROM and degree * SPARSE <= workers


def settled(w: csr_array) -> Any:
    """W sparse where it stays so, else dense."""
    return w if stays_sparse(w.shape[0], degree(w)) else dense(w)


def dense(w: object) -> Any:
    """W as an array [n, n], if that fits; what is not sparse is left as it is.

    Raises:
      InputError: it does not fit.
    """
    if not issparse(w):
        return w
    found = csr_array(w)
    memory.refuse_beyond([need(found.shape[0])])
    return found.toarray()


def degree(w: csr_array) -> int:
    """Most links of any row."""
    return int(np.diff(w.indptr).max(initial=0))


def blocks(w: csr_array) -> Iterator[np.ndarray]:
    """The rows of W, dense, some at a time."""
    rows = max(1, BLOCK // w.shape[1])
    return (w[first : first + rows].toarray() for first in range(0, w.shape[0], rows))


def row_sums(w: csr_array) -> np.ndarray:
    """[n]; up to `SAME` workers added in the order in which NumPy adds dense rows."""
    if w.shape[0] > SAME:
        return w.sum(1)
    return np.concatenate([rows.sum(1) for rows in blocks(w)])


def without_own(w: csr_array) -> csr_array:
    """W without its diagonal; rows in order, and no zeros kept."""
    found = w.tocoo()
    there = (found.row != found.col) & (found.data != 0)
    off = csr_array((found.data[there], (found.row[there], found.col[there])), w.shape)
    off.sort_indices()
    return off


# -- whether workers agree ---------------------------------------------------------------------------------------------


def contracts(w: csr_array, doubly: bool) -> bool:
    """Whether W, connected, not negative and stochastic, makes workers agree: its gap is positive, even if it is below rounding.

    ‖W - J‖₂ < 1 of a doubly stochastic W where WᵀW is irreducible: two workers that send to the same one are tied. Else |λ₂| < 1
    where the cycles' lengths have no common divisor (Perron-Frobenius).
    """
    if doubly:
        return csgraph.connected_components(block_array([[None, w], [w.T, None]]), directed=False)[0] == 1
    if w.diagonal().any():
        return True
    away = csgraph.dijkstra(w, indices=0, unweighted=True).astype(np.int64)
    links = w.tocoo()
    return math.gcd(*(away[links.row] + 1 - away[links.col]).tolist()) == 1


# -- the spectrum ------------------------------------------------------------------------------------------------------


def second_modulus(w: csr_array, doubly: bool, symmetric: bool) -> float:
    """ρ as `spectrum.second_modulus` has it, to `TOLERANCE`; NaN where the iteration does not find it."""
    places = (part.astype(np.int32).tobytes() for part in (w.indices, w.indptr))
    return _second_modulus(w.data.tobytes(), *places, doubly, symmetric)


@lru_cache(maxsize=8)
def _second_modulus(data: bytes, indices: bytes, indptr: bytes, doubly: bool, symmetric: bool) -> float:
    values, places = np.frombuffer(data), np.frombuffer(indices, np.int32)
    w = csr_array((values, places, np.frombuffer(indptr, np.int32)))
    if not doubly:
        return _second_eigenvalue(w)
    if not is_signed(w) and csgraph.connected_components(w, directed=False)[0] > 1:
        return 1.0
    if symmetric:
        return _away_from_mean(w)
    return float(np.sqrt(_away_from_mean(csr_array(w.T @ w))))


def _away_from_mean(w: csr_array) -> float:
    """‖W - J‖₂ of a symmetric W whose rows sum to one."""
    near = csgraph.reverse_cuthill_mckee(w, symmetric_mode=True)
    banded = csr_array(w[near][:, near])
    links = banded.tocoo()
    if np.abs(links.row - links.col).max(initial=0) > BANDED:
        return _extreme(lambda x: w @ x - x.mean(), w.shape[0], which="LM")
    least, most = _bounds(w)
    above = _nearest(banded, most + TOLERANCE)
    largest = np.delete(above, np.argmin(np.abs(above - 1))).max()
    return float(largest if -least <= largest else max(largest, np.abs(_nearest(banded, least - TOLERANCE)).max()))


def smallest_eigenvalue(w: csr_array) -> float:
    """λ_min of a symmetric W, to `TOLERANCE`; NaN where the iteration does not find it."""
    return _extreme(lambda x: w @ x, w.shape[0], which="SA")


def _bounds(w: csr_array) -> tuple[float, float]:
    """Between which all eigenvalues of a symmetric W lie (Gershgorin)."""
    own = w.diagonal()
    others = abs(w).sum(1) - np.abs(own)
    return float((own - others).min()), float((own + others).max())


def _start(n: int) -> np.ndarray:
    """Where iterations begin: always the same vector, so that they find the same."""
    return np.random.default_rng(0).standard_normal(n)


def _extreme(product: Callable[[np.ndarray], np.ndarray], n: int, which: str) -> float:
    """The modulus ("LM"), or the value ("SA"), of an extreme eigenvalue of a symmetric operator."""
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    operator = LinearOperator((n, n), matvec=lambda x: product(x.ravel()), dtype=np.float64)
    try:
        found = eigsh(
            operator,
            1,
            which=which,
            v0=_start(n),
            ncv=VECTORS,
            maxiter=RESTARTS,
            tol=TOLERANCE,
            return_eigenvectors=False,
        )[0]
    except ArpackNoConvergence:
        return float("nan")
    return float(abs(found) if which == "LM" else found)


def _nearest(w: csr_array, place: float) -> np.ndarray:
    """The two eigenvalues of a symmetric W that lie nearest to a place, by its factorization there."""
    from scipy.sparse.linalg import eigsh

    return eigsh(w.tocsc(), 2, sigma=place, v0=_start(w.shape[0]), ncv=VECTORS, return_eigenvectors=False)


def _second_eigenvalue(w: csr_array) -> float:
    """The largest modulus but for that of the eigenvalue 1."""
    from scipy.sparse.linalg import ArpackNoConvergence, eigs

    n = w.shape[0]
    try:
        found = eigs(w, 2, v0=_start(n), ncv=VECTORS, maxiter=RESTARTS, tol=TOLERANCE, return_eigenvectors=False)
    except ArpackNoConvergence:
        return float("nan")
    return float(np.abs(np.delete(found, np.argmin(np.abs(found - 1)))).max())


def is_signed(w: csr_array) -> bool:
    """Whether some weight is negative."""
    return bool((w.data < 0).any())


def where(w: csr_array, of: np.ndarray) -> np.ndarray:
    """[found, 2]: the places of those entries."""
    entries = w.tocoo()
    return np.stack([entries.row, entries.col], 1)[of]


def links(w: csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(reader, sender, weight) [links], int64 and float64, row by row, columns ascending."""
    w = w.sorted_indices()
    return np.repeat(np.arange(w.shape[0]), np.diff(w.indptr)), w.indices.astype(np.int64), w.data


def diagonal(values: np.ndarray) -> csr_array:
    """A matrix of nothing but its diagonal."""
    return csr_array(diags_array(values))
