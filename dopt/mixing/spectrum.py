"""What a mixing matrix promises: stochastic, connected, its spectral gap, and whether a method may use it.

W is [n, n], dense or (of large sparse graphs) a CSR array; or a period [period, n, n], of which step k uses W[k % period];
or random `Matchings`, by their moments.
"""

from __future__ import annotations

import math
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from scipy.sparse import csgraph, csr_array, issparse

from dopt.mixing import sparse
from dopt.topology import Matchings
from dopt.types import InputError

# [n, n], a period of them [period, n, n], or a random sequence; and a csr_array [n, n], for which scipy has no type
Matrix = np.ndarray | Matchings

EXACT = 1e-9  # how far from one a row of float64 weights may sum: files carry that many digits
LARGE = 128  # workers: from here on a gap is kept, since it is asked for again and again
HINT = "; strict: false runs it, to show the failure"
NEVER = 1 - 1e-12  # a modulus from here on means that workers never agree


def is_stochastic(w: Matrix, axis: int) -> bool:
    """Whether the rows (axis 1) or columns (axis 0) sum to one, of each matrix; a random sequence's always do."""
    return isinstance(w, Matchings) or bool(np.abs(w.sum(axis - 2) - 1).max() <= EXACT)


def is_doubly_stochastic(w: Matrix) -> bool:
    """Whether rows and columns sum to one, of each matrix."""
    return is_stochastic(w, 1) and is_stochastic(w, 0)


def is_symmetric(w: Matrix) -> bool:
    """Whether each matrix is its own transpose; those of a random sequence are."""
    if isinstance(w, Matchings):
        return True
    turned: Any = w.T if issparse(w) else np.swapaxes(w, -1, -2)
    return bool(abs(w - turned).max() <= EXACT)


def worst(w: np.ndarray | csr_array, axis: int, word: str) -> str:
    error = np.abs(w.sum(axis - 2) - 1)
    *matrix, place = np.unravel_index(np.argmax(error), error.shape)
    return f"largest {word} error {error.max():.1e} ({word} {place}{''.join(f' of matrix {m}' for m in matrix)})"


def is_connected(w: Matrix) -> bool:
    """Whether every worker hears of every other, over however many hops and steps (strongly connected, in the union)."""
    if issparse(w):
        links = w
    else:
        links = w.moments()[0] != 0 if isinstance(w, Matchings) else (w != 0).reshape(-1, *w.shape[-2:]).any(0)
    return csgraph.connected_components(links, directed=True, connection="strong")[0] == 1


def spectral_gap(w: Matrix) -> float:
    """1 minus `second_modulus`; `gap_kind` says of what, and by which definition."""
    return 1 - second_modulus(w)


def gap_kind(w: Matrix) -> str:
    """Which of the definitions `spectral_gap` takes for W."""
    if isinstance(w, Matchings):
        return "random, in the mean square: 1 - ‖E[WᵀW] - J‖₂"
    both = is_doubly_stochastic(w)
    kind = "doubly stochastic: 1 - ‖W - J‖₂" if both else "not doubly stochastic: 1 - |λ₂|"
    return kind if w.ndim == 2 else f"{kind} of one period's product"


def second_modulus(w: Matrix) -> float:
    """ρ = ‖W - J‖₂ of a doubly stochastic W, else the second largest modulus of an eigenvalue.

    Of a period, that of the product W_T ... W_1; of a random sequence ‖E[WᵀW] - J‖₂, by which the consensus distance
    shrinks per step in expectation. Boyd et al. 2006, randomized gossip algorithms. Of a sparse W it is found by iteration,
    to 1e-9; NaN where that does not converge.
    """
    if issparse(w):
        return sparse.second_modulus(w, is_doubly_stochastic(w), is_symmetric(w))
    matrix = w.moments()[1] if isinstance(w, Matchings) else _product(w)
    return _modulus(matrix) if len(matrix) < LARGE else _kept(matrix.astype(np.float64).tobytes(), len(matrix))


def mean(w: Matrix) -> np.ndarray:
    """[n, n]: W, the product of a period, or E[W]."""
    if isinstance(w, Matchings):
        return w.moments()[0]
    return w if w.ndim == 2 else _product(w)


def union(w: Matrix) -> np.ndarray:
    """[n, n] bool: which links carry something at some step; [i, j]: j sends to i."""
    links = w.moments()[0] != 0 if isinstance(w, Matchings) else (w != 0).reshape(-1, *w.shape[-2:]).any(0)
    return links & ~np.eye(len(links), dtype=bool)


def _product(w: np.ndarray) -> np.ndarray:
    """W_T ... W_1, of a static W itself."""
    return w if w.ndim == 2 else reduce(lambda done, step: step @ done, w)


def _modulus(w: np.ndarray) -> float:
    if len(w) == 1:
        return 0.0
    if not is_doubly_stochastic(w):
        return _second_eigenvalue(w)
    away = w - 1 / len(w)
    return float(np.abs(np.linalg.eigvalsh(away)).max() if is_symmetric(w) else np.linalg.norm(away, 2))


def _second_eigenvalue(w: np.ndarray) -> float:
    """The largest modulus but for that of the eigenvalue 1, which others may exceed where weights are negative."""
    values = np.linalg.eigvals(w)
    return float(np.abs(np.delete(values, np.argmin(np.abs(values - 1)))).max())


@lru_cache(maxsize=8)
def _kept(w: bytes, workers: int) -> float:
    return _modulus(np.frombuffer(w).reshape(workers, workers))


def smallest_eigenvalue(w: np.ndarray | csr_array) -> float:
    """λ_min of a symmetric W [n, n]; of a sparse one as `second_modulus`."""
    if w.ndim != 2 or not is_symmetric(w):
        raise InputError("mixing: only a symmetric W has a smallest eigenvalue; try spectral_gap")
    if issparse(w):
        return sparse.smallest_eigenvalue(w)
    return float(np.linalg.eigvalsh(w)[0])


def effective_neighbours(w: np.ndarray, decay: float) -> float:
    """How many workers each averages with, looked at over a memory of 1/(1 - γ) steps: from 1 (alone) to n (complete).

    n_W(γ) = 1/(1 - γ) / ((1/n) Σ_{t>=0} γᵗ ‖W^{t+1}‖²_F): by this factor the variance of z <- W(√γ z + ξ) is smaller than that of
    y <- √γ y + ξ, ξ white. The sum is Σᵢ λᵢ²/(1 - γλᵢ²) for symmetric W; of a period, the mean over its phases. Vogels et al. 2022, 2206.03093.

    Args:
      w: doubly stochastic, [n, n] or [period, n, n].
      decay: γ in [0, 1).
    """
    if not 0 <= decay < 1:
        raise InputError(f"decay: must lie in [0, 1), got {decay}")
    if isinstance(w, Matchings):
        raise InputError(
            "mixing: effective neighbours need W itself, got a random sequence; try a static or periodic one"
        )
    w = sparse.dense(w)
    if w.ndim == 2 and is_symmetric(w):
        squares = np.linalg.eigvalsh(w) ** 2
        if decay * squares.max() >= 1:
            return 0.0  # z varies without bound
        return float(1 / (1 - decay) / np.mean(squares / (1 - decay * squares)))
    steps, eye = w.reshape(-1, *w.shape[-2:]), np.eye(w.shape[-1])

    def advance(covariance: np.ndarray, step: np.ndarray) -> np.ndarray:
        return step @ (decay * covariance + eye) @ step.T

    # C = P C Pᵀ + Q over one period, P decayed: summed by doubling, Q + PQPᵀ, then four terms, eight, ...
    covariance = reduce(advance, steps, np.zeros_like(eye))
    power, more = decay ** (len(steps) / 2) * _product(w), covariance
    while 1e-17 * np.trace(covariance) < np.trace(more) < 1e100:
        more = power @ covariance @ power.T
        covariance, power = covariance + more, power @ power
    if not np.trace(more) < 1e100:
        return 0.0
    variance = 0.0
    for step in steps:
        covariance = advance(covariance, step)
        variance += np.trace(covariance) / covariance.size**0.5 / len(steps)
    return float(1 / (1 - decay) / variance)


def consensus_time(w: Matrix, accuracy: float = 1e-6) -> float:
    """The number of steps k after which ‖W_k ... W_1 - W^∞‖₂ <= accuracy; math.inf where it never is.

    It is the smallest such k where the norm never rises, as for nonnegative doubly stochastic W; else one at which it falls
    to the accuracy. Of a random sequence, (1 - gap)^{k/2} <= accuracy: the root mean square.
    """
    if not accuracy >= 1e-12:
        raise InputError(f"accuracy: must be at least 1e-12, below which float64 does not see, got {accuracy}")
    if isinstance(w, Matchings) or (w.ndim == 2 and is_symmetric(w) and is_doubly_stochastic(w)):
        rho = second_modulus(w)
        workers = len(w) if isinstance(w, Matchings) else w.shape[0]
        return _geometric(math.sqrt(rho) if isinstance(w, Matchings) else rho, accuracy, workers)
    dense: np.ndarray = sparse.dense(w)
    product = _product(dense)
    n = len(product)
    if n > 1 and _second_eigenvalue(product) >= NEVER:
        return math.inf
    limit = _limit(product)
    # (P - P^∞)^q = P^q - P^∞, whose powers lose the eigenvalue 1 and its rounding; away is what q periods leave
    away, powers = np.eye(n) - limit, [product - limit]
    while np.linalg.norm(powers[-1], 2) > accuracy:
        powers.append(powers[-1] @ powers[-1])
    periods = 0
    for j in reversed(range(len(powers) - 1)):
        further = powers[j] @ away
        if np.linalg.norm(further, 2) > accuracy:
            away, periods = further, periods + 2**j
    steps = dense.reshape(-1, n, n)
    k = periods * len(steps)
    while np.linalg.norm(away, 2) > accuracy:
        away, k = steps[k % len(steps)] @ away, k + 1
    return k


def _geometric(rho: float, accuracy: float, workers: int) -> float:
    """The smallest k with ρᵏ <= accuracy."""
    if math.isnan(rho):
        return rho
    if workers == 1 or accuracy >= 1:
        return 0
    if rho <= accuracy:
        return 1
    return math.inf if rho >= NEVER else math.ceil(math.log(accuracy) / math.log(rho) * (1 - 1e-14))


def _limit(w: np.ndarray) -> np.ndarray:
    """W^∞ of rank one: 1 πᵀ with πᵀW = πᵀ for row-stochastic W, π 1ᵀ with W π = π for column-stochastic ones."""
    n, rows = len(w), is_stochastic(w, 1)
    if is_doubly_stochastic(w):
        return np.full((n, n), 1 / n)
    weight = np.linalg.solve(np.eye(n) - (w.T if rows else w) + 1, np.ones(n))
    return np.tile(weight, (n, 1)) if rows else np.tile(weight[:, None], n)


def check(w: Matrix | tuple[np.ndarray, np.ndarray], method: str, needs: str) -> None:
    """Refuse a W that the theory of `method` forbids, in one line that says what would work.

    Args:
      w: [n, n], dense or sparse, a period [period, n, n], `Matchings`, or a pair (R, C).
      needs: "doubly stochastic"; "symmetric", one fixed W; "symmetric, λ > -1/3"; "column stochastic"; "row and column
        stochastic", of a pair (R, C); "tree" or "pairs", of which only the links matter: undirected and connected.
    """
    if isinstance(w, tuple):
        for part, axis, name in zip(w, (1, 0), "RC", strict=True):
            _check_sums(part, method, axis, name)
            _check_agreement(part, method)
        return
    if needs in ("tree", "pairs"):
        if _is_directed(_static(w, method, "undirected graph")):
            raise InputError(f"topology: {method} needs an undirected graph; try ring, binary_tree or star{HINT}")
        return _check_connected(w, method)
    if needs.startswith("symmetric"):
        _check_symmetric(_static(w, method, "symmetric W"), method)
    if needs == "column stochastic":
        _check_sums(w, method, 0, "W")
    else:
        _check_both_sums(w, method)
    _check_agreement(w, method)
    if needs == "symmetric, λ > -1/3":
        _check_smallest(_static(w, method, "symmetric W"), method)


def _is_directed(w: np.ndarray | csr_array) -> bool:
    if issparse(w):
        return ((w != 0) != (w.T != 0)).nnz > 0
    return bool(((w != 0) != np.swapaxes(w != 0, -1, -2)).any())


def _static(w: Matrix, method: str, what: str) -> np.ndarray | csr_array:
    """W, of which there must be one."""
    if isinstance(w, Matchings) or w.ndim == 3:
        several = "a random sequence" if isinstance(w, Matchings) else f"a sequence of {len(w)}"
        raise InputError(
            f"topology: {method} needs one fixed {what}, got {several}; try ring, torus or hypercube{HINT}"
        )
    return w


def _check_smallest(w: np.ndarray | csr_array, method: str) -> None:
    smallest = smallest_eigenvalue(w)
    if math.isnan(smallest):
        raise InputError(f"mixing: λ_min of W was not found, which {method} needs > -1/3; try `weights: lazy`{HINT}")
    if smallest <= -1 / 3 + EXACT:
        raise InputError(
            f"mixing: W must have λ_min > -1/3 for {method}; λ_min is {smallest:.6g}; try `weights: lazy`{HINT}"
        )


def _check_symmetric(w: np.ndarray | csr_array, method: str) -> None:
    if not is_symmetric(w):
        i, j = np.unravel_index(abs(w - w.T).argmax(), w.shape)
        what = "an undirected graph, or push_diging or push_pull" if _is_directed(w) else "metropolis weights"
        raise InputError(
            f"mixing: W must be symmetric for {method}; W[{i}, {j}] is {w[i, j]:.6g}, W[{j}, {i}] is {w[j, i]:.6g}; try {what}{HINT}"
        )


def _check_both_sums(w: Matrix, method: str) -> None:
    for axis, word in ((1, "row"), (0, "column")):
        if not isinstance(w, Matchings) and not is_stochastic(w, axis):
            what = (
                "push_sum_sgd, push_diging or push_pull, or a regular graph"
                if _is_directed(w)
                else "metropolis weights"
            )
            raise InputError(
                f"mixing: W must be doubly stochastic for {method}; {worst(w, axis, word)}; try {what}{HINT}"
            )


def _check_sums(w: Matrix, method: str, axis: int, name: str) -> None:
    word, rule = ("row", "pull") if axis else ("column", "push")
    if not isinstance(w, Matchings) and not is_stochastic(w, axis):
        raise InputError(
            f"mixing: {name} must be {word} stochastic for {method}; {worst(w, axis, word)}; try `weights: {rule}`{HINT}"
        )


def _check_connected(w: Matrix, method: str) -> None:
    if not is_connected(w):
        raise InputError(
            f"topology: {method} needs a connected graph (directed: strongly), this one is not; add edges{HINT}"
        )


def _check_agreement(w: Matrix, method: str) -> None:
    """Connected, and the gap is positive."""
    _check_connected(w, method)
    gap = _gap(w)
    if math.isnan(gap):
        raise InputError(
            f"mixing: {method} needs a W that makes workers agree, and whether this one does was not found; use metropolis weights{HINT}"
        )
    if gap < -EXACT:
        modulus = gap_kind(w).split(": 1 - ")[1]
        raise InputError(f"mixing: {method} needs {modulus} < 1 to agree, got {1 - gap:.6g}; use smaller weights{HINT}")
    if gap < EXACT:
        what = "random_matching" if isinstance(w, Matchings) else "`weights: lazy`"
        raise InputError(
            f"mixing: the graph is connected but its spectral gap is 0 (models oscillate forever); try {what}{HINT}"
        )


def _gap(w: Matrix) -> float:
    """The spectral gap, as far as its sign goes: of a sparse W without negative weights its links say that, exactly."""
    if issparse(w) and not sparse.is_signed(w):
        return float(sparse.contracts(w, is_doubly_stochastic(w)))
    return spectral_gap(w)
