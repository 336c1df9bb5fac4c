"""Closed forms to hold results against: spectral gaps, stability limits, fixed points, staleness, expected times.

NumPy only, and nothing else of dopt: a formula, its source, and no way to share a mistake with the code it checks.
Gaps are those of Metropolis weights, 1 / (1 + max(dᵢ, dⱼ)) on each edge, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# -- spectral gaps: 1 - ‖W - J‖₂ --------------------------------------------------------------------------------------


def complete_gap(workers: int) -> float:
    """W = J: 1."""
    return 1.0


def ring_gap(workers: int) -> float:
    """(2/3)(1 - cos(2π/n)): W is circulant with eigenvalues (1 + 2 cos(2πk/n))/3. Davis 1979, Circulant Matrices."""
    return 2 / 3 * (1 - np.cos(2 * np.pi / workers)) if workers > 2 else 1.0


def path_gap(workers: int) -> float:
    """(2/3)(1 - cos(π/n)): W = I - L/3, and L has eigenvalues 2 - 2 cos(πk/n). Brouwer-Haemers 2012, section 1.4.4."""
    return 2 / 3 * (1 - np.cos(np.pi / workers)) if workers > 2 else 1.0


def star_gap(workers: int) -> float:
    """1/n: W = I - L/n, and L has eigenvalues 0, 1 (n - 2 times) and n. Brouwer-Haemers 2012, section 1.4.2."""
    return 1 / workers if workers > 2 else 1.0


def hypercube_gap(workers: int) -> float:
    """2/(1 + log₂n): eigenvalues 1 - 2k/(1 + log₂n), k = 0..log₂n. Brouwer-Haemers 2012, section 1.4.6."""
    return min(1.0, 2 / workers.bit_length())


def torus_gap(shape: Sequence[int]) -> float:
    """2(1 - cos(2π/s))/(1 + 2k), s the longest of k sides (all >= 3): 1 minus the second largest modulus.

    Eigenvalues are (1 + 2 Σ cos(2πjᵢ/sᵢ))/(1 + 2k). The least one never has the second largest modulus: it is at least
    (1 - 2k)/(1 + 2k), or (1 - k)/(1 + 2k) where all sides are 3. Brouwer-Haemers 2012, section 1.4.6.
    """
    return 2 * (1 - np.cos(2 * np.pi / max(shape))) / (1 + 2 * len(shape))


def exponential_gap(workers: int) -> float:
    """2/(1 + ⌈log₂n⌉) of the static exponential graph with uniform weights, n even. Ying et al. 2021, 2110.13363, prop. 1."""
    return 2 / (1 + (workers - 1).bit_length())


# -- delays -----------------------------------------------------------------------------------------------------------


def stability_limit(smoothness: float, delay: int) -> float:
    """2 sin(π/(2(2τ+1)))/L, below which (and only there) x <- x - α ∇f(x^{k-τ}) converges on every L-smooth quadratic.

    Levin-May 1976, a note on difference-delay equations. τ = 0 gives 2/L; for large τ it tends to π/(2τ+1)/L.
    """
    return float(2 * np.sin(np.pi / (2 * (2 * delay + 1))) / smoothness)


def delayed_factor(step: float, delay: int) -> float:
    """The factor per step of xᵏ⁺¹ = xᵏ - a x^{k-τ}, a = αL: the largest modulus of the roots of z^{τ+1} - z^τ + a."""
    polynomial = np.zeros(delay + 2)
    polynomial[:2] = 1, -1
    polynomial[-1] += step
    return float(np.abs(np.roots(polynomial)).max())


def delayed_consensus(W: np.ndarray, start: np.ndarray, delay: int) -> np.ndarray:
    """[d] limit Σ wᵢbᵢ / Σ wᵢ, wᵢ = 1 + (1 - W_ii)τ, of xᵢ <- W_ii xᵢ + Σ_{j≠i} W_ij xⱼ^{k-τ} from b [n, d].

    W is doubly stochastic; what is on its way counts, too: Σᵢ xᵢᵏ + Σⱼ (1 - W_jj) Σ_{s=k-τ}^{k-1} xⱼˢ never changes.
    The plain mean on regular graphs. Tsianos-Rabbat 2011, distributed consensus under fixed delays.
    """
    weight = 1 + (1 - np.diag(W)) * delay
    return weight @ start / weight.sum()


# -- gossip on quadratics ---------------------------------------------------------------------------------------------


def gossip_fixed_point(
    W: np.ndarray, curvature: np.ndarray, minima: np.ndarray, learning_rate: float, *, adapt_then_combine: bool = False
) -> np.ndarray:
    """[n, d]: where gossip SGD with full gradients Aᵢ(x - bᵢ) comes to rest, by one linear solve.

    Combine then adapt, X = W X - αG(X): (I - W + αA) X = αAb. Adapt then combine, X = W(X - αG(X)):
    (I - W + αWA) X = αWAb. Yuan-Ling-Yin 2016, 1310.7063; Sayed 2014, adaptation, learning, and optimization over networks.

    Args:
      W: [n, n].
      curvature: the Aᵢ, [n, d, d].
      minima: the bᵢ, [n, d].
      learning_rate: α.
    """
    n, d = minima.shape
    mix = np.kron(W, np.eye(d))
    a = np.zeros((n, d, n, d))
    a[np.arange(n), :, np.arange(n)] = learning_rate * curvature
    pull = a.reshape(n * d, n * d)
    if adapt_then_combine:
        pull = mix @ pull
    return np.linalg.solve(np.eye(n * d) - mix + pull, pull @ minima.reshape(-1)).reshape(n, d)


# -- staleness and time -----------------------------------------------------------------------------------------------


def geometric_staleness(workers: int, length: int) -> np.ndarray:
    """[length] P(τ = k) = (1/n)(1 - 1/n)^k: always-busy workers with iid exponential times (each arrival is anyone's)."""
    return (1 - 1 / workers) ** np.arange(length) / workers


def expected_staleness(times: np.ndarray) -> np.ndarray:
    """[n] E τᵢ = cᵢ Σⱼ 1/cⱼ - 1 of always-busy workers whose computations take cᵢ: the others' arrivals meanwhile."""
    return times * (1 / times).sum() - 1


def barrier_time(workers: int) -> float:
    """H_n = Σ 1/i, the expected maximum of n exponential times of mean 1. Rényi 1953, on the theory of order statistics."""
    return float((1 / np.arange(1, workers + 1)).sum())
