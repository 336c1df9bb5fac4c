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


def directed_ring_gap(workers: int) -> float:
    """1 - cos(π/n) of a directed ring with uniform weights: W is circulant, eigenvalues (1 + e^{2πik/n})/2. Davis 1979."""
    return float(1 - np.cos(np.pi / workers)) if workers > 1 else 1.0


def laplacian_gap(largest: float, smallest: float) -> float:
    """2λ_{n-1}/(λ₁ + λ_{n-1}) with the best constant edge weight 2/(λ₁ + λ_{n-1}): W = I - aL is as far from 0 on both sides.

    Xiao-Boyd 2004, fast linear iterations for distributed averaging.

    Args:
      largest: λ₁ of the Laplacian.
      smallest: λ_{n-1}, its second smallest.
    """
    return 2 * smallest / (largest + smallest)


def matching_gap(workers: int) -> float:
    """1 - ‖E[WᵀW] - J‖₂ of a uniformly random matching whose pairs average: n/(2(n-1)) for even n, 1/2 for odd n.

    WᵀW = W, and two workers meet with probability 1/(n-1) (odd n, where one is left over: 1/n), so that
    E W = I/2 + (11ᵀ - I)/(2(n-1)) for even n. Boyd et al. 2006, randomized gossip algorithms.
    """
    return workers / (2 * (workers - 1)) if workers % 2 == 0 else 0.5 if workers > 1 else 1.0


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


def chebyshev_contraction(modulus: float, rounds: int) -> float:
    """1/T_R(1/ρ), the largest |p(λ)| on [-ρ, ρ] of the best polynomial of degree R with p(1) = 1; T_R(x) = cosh(R arcosh x).

    Scaman et al. 2017, 1702.08704. R = 1 gives ρ, plain gossip ρ^R.
    """
    if modulus == 0:
        return float(rounds == 0)
    decay = np.exp(-rounds * np.arccosh(1 / modulus))
    return float(2 * decay / (1 + decay**2))


def d2_limit(learning_rate: float, curvature: float) -> float:
    """-1/(3 - 2αμ), above which (and only there) λ_min(W) must lie for D² to be stable on quadratics of curvature μ, αμ < 3/2.

    D² is X⁺ = W(2X - X⁻ - α(G - G⁻)), so z² - λ(2 - αμ)z + λ(1 - αμ) along an eigenvector. Both roots lie within the unit
    circle just if |λ(1 - αμ)| < 1, 1 - λ > 0 and 1 + λ(3 - 2αμ) > 0 (Jury); the last one binds. αμ -> 0: -1/3, which is
    what Tang et al. 2018, 1803.07068, assume.
    """
    return -1 / (3 - 2 * learning_rate * curvature)


# -- gossip on random quadratics --------------------------------------------------------------------------------------


def effective_neighbours(eigenvalues: np.ndarray, decay: float) -> float:
    """n_W(γ) = 1/(1 - γ) / ((1/n) Σᵢ |λᵢ|²/(1 - γ|λᵢ|²)) of a normal W with these eigenvalues. Vogels et al. 2022, 2206.03093."""
    squares = np.abs(eigenvalues) ** 2
    return float(1 / (1 - decay) / np.mean(squares / (1 - decay * squares)))


def random_quadratic_rate(eigenvalues: np.ndarray, learning_rate: float, noise: float) -> float:
    """The r by which D-SGD X <- W(X - αG) on f(x) = E ½⟨d, x⟩² shrinks.

    E‖xᵢ‖² goes as (1 - r)ᵏ, exactly so where all workers look alike. It is the one r <= 1 - (1 - α)² of
    r = 1 - (1 - α)² - (ζ - 1)α²/n_W(γ), γ = (1 - α)²/(1 - r). Vogels et al. 2022, 2206.03093, theorem I. The second moments
    S_ij = E⟨xᵢ, xⱼ⟩ obey S⁺ = W[(1 - α)² S + α²(ζ - 1) diag(S)]Wᵀ; with diag(S) constant, u = 1 - r solves
    1 = Σᵢ zᵢ²/(u - (1 - α)²|λᵢ|²), zᵢ² = α²(ζ - 1)|λᵢ|²/n. So it is the largest eigenvalue of a
    diagonal matrix plus zzᵀ.

    Args:
      eigenvalues: of a normal W [n].
      learning_rate: α.
      noise: ζ of E‖d‖²ddᵀ = ζ E ddᵀ, E ddᵀ = I: dim + 2 for standard normal d, one a step.
    """
    moduli = np.abs(eigenvalues)
    z = learning_rate * np.sqrt((noise - 1) / len(moduli)) * moduli
    return float(1 - np.linalg.eigvalsh(np.diag(((1 - learning_rate) * moduli) ** 2) + np.outer(z, z))[-1])


def best_random_quadratic_rate(eigenvalues: np.ndarray, noise: float) -> tuple[float, float]:
    """(α, r): the learning rate of the largest `random_quadratic_rate`, which is concave in α, and that rate."""
    low, high, golden = 0.0, 1.0, (np.sqrt(5) - 1) / 2
    while high - low > 1e-8:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if random_quadratic_rate(eigenvalues, left, noise) < random_quadratic_rate(eigenvalues, right, noise):
            low = left
        else:
            high = right
    return (low + high) / 2, random_quadratic_rate(eigenvalues, (low + high) / 2, noise)


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
