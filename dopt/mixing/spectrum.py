"""What a mixing matrix promises: stochastic, connected, its spectral gap, and whether a method may use it."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csgraph

from dopt.types import InputError

EXACT = 1e-9  # how far from one a row of float64 weights may sum: files carry that many digits


def is_stochastic(w: np.ndarray, axis: int) -> bool:
    """Whether the rows (axis 1) or columns (axis 0) sum to one."""
    return bool(np.abs(w.sum(axis) - 1).max() <= EXACT)


def worst(w: np.ndarray, axis: int, word: str) -> str:
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
                    f"mixing: W must be doubly stochastic for {method}; {worst(w, axis, word)}; try metropolis weights{hint}"
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
