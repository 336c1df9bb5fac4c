"""Closed forms to hold results against: spectral gaps, stability limits, fixed points, staleness, expected times.

NumPy only, and nothing else of dopt: a formula and its source, so that it cannot share a mistake with the code that it checks.
Gaps are those of Metropolis weights, 1 / (1 + max(dᵢ, dⱼ)) on each edge, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def delayed_descent(
    curvature: np.ndarray, start: np.ndarray, learning_rate: float, delay: int, length: int, *, queue: bool = False
) -> np.ndarray:
    """[length, d] x^k - x* of x <- x - αA(x^{k-τ} - x*), of which `delayed_factor` is the rate in the end; x^{k-τ} = x⁰ for k < τ.

    Args:
      curvature: A, [d, d].
      start: x⁰ - x* [d].
      learning_rate: α.
      delay: τ.
      length: how many k.
      queue: gradients wait, not models, so nothing arrives in the first τ steps.
    """
    away = np.tile(start, (length, 1)).astype(np.float64)
    for k in range(length - 1):
        arrives = k >= delay or not queue
        away[k + 1] = away[k] - arrives * learning_rate * (curvature @ away[max(k - delay, 0)])
    return away


def delayed_best_step(delay: int) -> float:
    """τ^τ/(τ+1)^{τ+1}, the step a = αL of the least `delayed_factor`, τ/(τ + 1) (`delayed_best_factor`); τ = 0: 1.

    There z^{τ+1} - z^τ + a has its only double root, z = τ/(τ + 1), from (τ + 1)z^τ = τz^{τ-1} and a = z^τ(1 - z). Below, the
    larger of two positive roots is larger still; above, the two are a complex pair whose modulus grows with a. For large
    τ: 1/(e(τ + 1)), the largest step without oscillation. Arjevani-Shamir-Srebro 2020, 1806.10188, on such polynomials.
    """
    return float((delay / (delay + 1)) ** delay / (delay + 1))


def delayed_best_factor(delay: int) -> float:
    """τ/(τ + 1), the `delayed_factor` at `delayed_best_step`, the best that a constant step can do under delay τ."""
    return delay / (delay + 1)


def delayed_variance(learning_rate: float, curvature: float, noise: float, delay: int) -> float:
    """Stationary E x² of xᵏ⁺¹ = xᵏ - α(λx^{k-τ} + ξᵏ): α²σ²(1 + sin θ)/(2 sin ω cos θ), ω = 2 arcsin(αλ/2), θ = (τ + ½)ω.

    The autocovariances rⱼ = E xᵏx^{k-j} obey r_{j+1} - rⱼ = -αλ r_{τ-j} for j = 0..τ. With αλ = 2 sin(ω/2),
    rⱼ = C cos(ωj + π/4 - θ/2) solves that, and r₀ = r₀ - 2αλ r_τ + (αλ)²r₀ + α²σ² gives
    C = α²σ²/(2 sin ω cos(π/4 + θ/2)). Small αλ: ασ²/(2λ); τ = 0: α²σ²/(αλ(2 - αλ)). Küchler-Mensch 1992, Langevin's
    stochastic differential equation extended by a time-delayed term, has the limit of continuous time.

    Args:
      learning_rate: α.
      curvature: λ.
      noise: σ² of ξ, white; d coordinates of this curvature: the sum over them for the sum over them.
      delay: τ.

    Returns:
      Infinity at and beyond the stability limit, θ = π/2.
    """
    step = learning_rate * curvature
    if step >= stability_limit(1.0, delay):
        return float("inf")
    omega = 2 * np.arcsin(step / 2)
    theta = (delay + 0.5) * omega
    return float(learning_rate**2 * noise * (1 + np.sin(theta)) / (2 * np.sin(omega) * np.cos(theta)))


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

    E‖xᵢ‖² goes as (1 - r)ᵏ, exactly where all workers are equivalent. It is the one r <= 1 - (1 - α)² of
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


# -- asynchronous SGD on quadratics -----------------------------------------------------------------------------------
#
# Memoryless: n workers with iid exponential times, all on λx²/2; a = αλ. An arrival is equally likely anyone's, so that
# with i drawn uniformly x <- x - a yᵢ, then yᵢ <- x, where yᵢ is the model that worker i pulled last. At first yᵢ = x = 1.


def memoryless_mean(workers: int, step: float, length: int) -> np.ndarray:
    """[length, 2] E xᵏ and E mᵏ over schedules from k = 0, m the mean of the yᵢ: x⁺ = x - a m, m⁺ = (1 - 1/n)m + x⁺/n.

    m is heavy ball from rest, and x is heavy ball but for its first step: m⁺ - m = (1 - 1/n)(m - m⁻) - (a/n) m, a momentum
    of 1 - 1/n (`memoryless_momentum`) and a learning rate of α/n. Mitliagkas et al. 2016, 1605.09774.

    Args:
      workers: n.
      step: a = αλ.
      length: how many k.
    """
    means = np.ones((length, 2))
    for k in range(1, length):
        x, m = means[k - 1]
        x -= step * m
        means[k] = x, m + (x - m) / workers
    return means


def memoryless_momentum(workers: int) -> float:
    """1 - 1/n, the momentum that asynchrony alone gives the mean. Mitliagkas et al. 2016, 1605.09774."""
    return 1 - 1 / workers


def memoryless_mean_limit(workers: int) -> float:
    """4n - 2, the αλ below which (and only there) the mean over schedules converges; single schedules may grow meanwhile.

    z² - (2 - 1/n - a/n)z + 1 - 1/n has both roots within the unit circle just if it is positive at 1 and at -1 (Jury).
    """
    return 4 * workers - 2


def memoryless_moments(workers: int, step: float) -> np.ndarray:
    """[4, 4]: what one arrival does to (X, Q, C, R) = (E x², E yᵢ², E x yᵢ, E yᵢyⱼ), averaged over i and over j ≠ i.

    Only who is drawn decides, so these four are closed. The newcomer's pulled model is x⁺, the others' stay:
      X⁺ = X - 2aC + a²Q                      x⁺ = x - a yᵢ
      Q⁺ = (1 - 1/n)Q + X⁺/n                  one of n is replaced
      C⁺ = (1 - 1/n)(C - aR) + X⁺/n           E x⁺yⱼ = C - aR for another's yⱼ
      R⁺ = (1 - 2/n)R + (2/n)(C - aR)         of n(n - 1) pairs, 2(n - 1) have the newcomer
    E m² = Q/n + (1 - 1/n)R. All start at 1. One worker has no pairs: R stays 0, and nothing reads it.
    """
    n, a = workers, step
    after = np.array([1, a**2, -2 * a, 0])  # X⁺
    other = np.array([0, 0, 1, -a])  # E x⁺yⱼ
    replaced = (1 - 1 / n) * np.array([0, 1, 0, 0]) + after / n
    pairs = (1 - 2 / n) * np.array([0, 0, 0, 1]) + 2 / n * other if n > 1 else np.zeros(4)
    return np.array([after, replaced, (1 - 1 / n) * other + after / n, pairs])


def memoryless_momentum_moments(workers: int, step: float, momentum: float) -> np.ndarray:
    """[7, 7]: `memoryless_moments` of a server with momentum β: v⁺ = βv + yᵢ, x⁺ = x - a v⁺, from v = 0.

    Of (X, Q, C, R, V, P, D) = (E x², E yᵢ², E x yᵢ, E yᵢyⱼ, E v², E x v, E v yᵢ), averaged over i and over j ≠ i. It decides
    what explicit momentum is best at a rate tuned for it; β = 0: the first four are `memoryless_moments`.
      V⁺ = β²V + 2βD + Q        P⁺ = βP + C - aV⁺        X⁺ = X - 2a(βP + C) + a²V⁺
      E v⁺yⱼ = βD + R           E x⁺yⱼ = C - a(βD + R)   of another's yⱼ; then Q, C, D, R as there
    """
    n, a, b = workers, step, momentum
    X, Q, C, R, V, P, D = np.eye(7)
    squared = b**2 * V + 2 * b * D + Q
    crossed = b * P + C
    after = X - 2 * a * crossed + a**2 * squared
    velocity = b * D + R  # E v⁺yⱼ
    other = C - a * velocity  # E x⁺yⱼ
    product = crossed - a * squared
    rest = 1 - 1 / n
    pairs = (1 - 2 / n) * R + 2 / n * other if n > 1 else 0 * R
    rows = after, rest * Q + after / n, rest * other + after / n, pairs, squared, product, rest * velocity + product / n
    return np.array(rows)


def memoryless_mean_square_limit(workers: int) -> float:
    """(1 + √(1 + 8n))/(2n), the αλ below which (and only there) E x² -> 0: the positive root of n a² = a + 2. About √(2/n).

    One arrival maps second moments by S <- E[A S Aᵀ], which keeps the cone of positive semidefinite matrices, so that its
    spectral radius is an eigenvalue (Krein-Rutman), and the limit is where 1 is one. There `memoryless_moments` has a fixed
    point: Q = X, then C = aX/2, and R(1 + a) = C, that is C - aR = R; put into C = (1 - 1/n)R + X/n this gives n a² = a + 2,
    which has one positive root, so that the radius crosses 1 nowhere else. n = 1: 2, as for gradient descent; n = 2, 8, 40:
    1.2808, 0.5664, 0.2365. A fixed delay of n - 1 has π/(2n - 1) or so (`stability_limit`).
    """
    return float((1 + np.sqrt(1 + 8 * workers)) / (2 * workers))


def paired_descent_floor(near: np.ndarray, minima: np.ndarray, step: float) -> float:
    """Stationary E ½(x̄ - b̄)² where AD-PSGD's n workers, with iid exponential times, minimize λ(x - bᵢ)²/2; a = αλ.

    i is a random worker, j a random neighbour of it: both average, then xᵢ <- (xᵢ + xⱼ)/2 - a(yᵢ - bᵢ) and yᵢ <- xᵢ, yᵢ being
    the model with which i began. So s = (x, y, 1) goes to M s, M drawn anew in each step, and S = E ssᵀ rests where S = E M S Mᵀ.
    Lian et al. 2018, 1710.06952.

    Args:
      near: [n, n] bool, who may meet whom.
      minima: the bᵢ [n].
      step: a = αλ.
    """
    n, size = len(minima), 2 * len(minima) + 1
    whole = np.zeros((size**2, size**2))
    for i, j in np.argwhere(near):
        M = np.eye(size)
        M[j] = (M[i] + M[j]) / 2
        M[i] = M[j]
        M[i, n + i] -= step
        M[i, -1] += step * minima[i]
        M[n + i] = M[i]
        whole += np.kron(M, M) / (n * near[i].sum())
    rests = whole - np.eye(size**2)
    rests[-1] = np.eye(size**2)[-1]  # E 1·1 = 1, which every M keeps
    S = np.linalg.solve(rests, np.eye(size**2)[-1]).reshape(size, size)
    away = np.concatenate([np.full(n, 1 / n), np.zeros(n), [-minima.mean()]])
    return float(0.5 * away @ S @ away)


def speed_weighted_optimum(curvature: np.ndarray, minima: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """[d]: (Σ pᵢAᵢ)⁻¹ Σ pᵢAᵢbᵢ, pᵢ = rateᵢ/Σ rateⱼ, where plain asynchronous SGD on ½(x - bᵢ)ᵀAᵢ(x - bᵢ) goes as α -> 0.

    A fast worker's gradient is applied more often, so that the loss that is minimized is Σ pᵢfᵢ. Equal rates: the true
    optimum. With a fixed α and deterministic compute times the model ends in a cycle O(α) away, because within a period
    each gradient is taken at another model. Mishchenko et al. 2022, 2206.07638, on heterogeneous data.

    Args:
      curvature: the Aᵢ, [n, d, d].
      minima: the bᵢ, [n, d].
      rates: computations per second [n], 1/cᵢ (any unit).
    """
    weighted = (rates / rates.sum())[:, None, None] * curvature
    return np.linalg.solve(weighted.sum(0), np.einsum("nij,nj->i", weighted, minima))


def local_sgd_fixed_point(
    curvature: np.ndarray, minima: np.ndarray, learning_rate: float, local_steps: int
) -> np.ndarray:
    """[d]: (Σ Pᵢ)⁻¹ Σ Pᵢbᵢ, Pᵢ = I - (I - αAᵢ)^H, where local gradient descent on ½(x - bᵢ)ᵀAᵢ(x - bᵢ) ends after each average.

    H steps from x lead worker i to x + Pᵢ(bᵢ - x). With H = 1, or equal Aᵢ, it is the true optimum; else it is O(α(H-1)) away:
    local steps count the flat directions of a worker more than its gradient does. Khaled, Mishchenko, Richtárik 2019, 1909.04746.

    Args:
      curvature: the Aᵢ, [n, d, d].
      minima: the bᵢ, [n, d].
    """
    pulls = local_pulls(curvature, learning_rate, local_steps)
    return np.linalg.solve(pulls.sum(0), np.einsum("nij,nj->i", pulls, minima))


def local_pulls(curvature: np.ndarray, learning_rate: float, local_steps: int) -> np.ndarray:
    """[n, d, d] the Pᵢ = I - (I - αAᵢ)^H: H local steps from x lead worker i to x + Pᵢ(bᵢ - x)."""
    eye = np.eye(curvature.shape[-1])
    return np.stack([eye - np.linalg.matrix_power(eye - learning_rate * A, local_steps) for A in curvature])


def elastic_fixed_point(
    curvature: np.ndarray,
    minima: np.ndarray,
    learning_rate: float,
    local_steps: int,
    *,
    elastic_rate: float,
    order: str = "joint",
) -> np.ndarray:
    """[d]: where the mean of EASGD's models ends, right after an exchange. Zhang, Choromanska, LeCun 2015, 1412.6651.

    With eᵢ = xᵢ - bᵢ and Mᵢ = I - αAᵢ, the force is taken at bᵢ + Fᵢeᵢ, Fᵢ = Mᵢ^{H-1} (joint) or Mᵢ^H (gradient first). At rest
    eᵢ = Mᵢ^H eᵢ - β(bᵢ + Fᵢeᵢ - z), so eᵢ = β(I - Mᵢ^H + βFᵢ)⁻¹(z - bᵢ), and z is the mean of the bᵢ + Fᵢeᵢ: one linear solve.

    Args:
      curvature: the Aᵢ, [n, d, d].
      minima: the bᵢ, [n, d].
      elastic_rate: β.
      order: joint or gradient_first.
    """
    eye = np.eye(minima.shape[1])
    steps = [eye - learning_rate * A for A in curvature]
    late = local_steps - (order == "joint")
    forces = np.stack([np.linalg.matrix_power(M, late) for M in steps])
    whole = np.stack([np.linalg.matrix_power(M, local_steps) for M in steps])
    towards = elastic_rate * np.linalg.inv(eye - whole + elastic_rate * forces)  # eᵢ of z - bᵢ
    held = forces @ towards
    center = np.linalg.solve(eye - held.mean(0), (minima - np.einsum("nij,nj->ni", held, minima)).mean(0))
    return (minima + np.einsum("nij,nj->ni", towards, center - minima)).mean(0)


def outer_nesterov(
    curvature: np.ndarray,
    minima: np.ndarray,
    learning_rate: float,
    local_steps: int,
    rounds: int,
    *,
    outer_learning_rate: float = 0.7,
    outer_momentum: float = 0.9,
) -> np.ndarray:
    """[rounds + 1, d] DiLoCo's model after each round, from 0: m <- μm + Δ, x <- x - η(Δ + μm), Δ = x - mean of the workers'.

    Local gradient descent makes Δ = P̄x - mean of Pᵢbᵢ (`local_pulls`). Douillard et al. 2023, 2311.08105.

    Args:
      curvature: the Aᵢ, [n, d, d].
      minima: the bᵢ, [n, d].
      outer_learning_rate, outer_momentum: η and μ.
    """
    pulls = local_pulls(curvature, learning_rate, local_steps)
    pull, aim = pulls.mean(0), np.einsum("nij,nj->i", pulls, minima) / len(minima)
    x = np.zeros((rounds + 1, len(aim)))
    momentum = np.zeros_like(aim)
    for k in range(rounds):
        delta = pull @ x[k] - aim
        momentum = outer_momentum * momentum + delta
        x[k + 1] = x[k] - outer_learning_rate * (delta + outer_momentum * momentum)
    return x


# -- staleness and time -----------------------------------------------------------------------------------------------
#
# Seconds per update of n workers whose computations take iid times of mean c:
#   k_sync_sgd              `order_statistic_mean` of K of n, any law
#   k_async_sgd             the same, exponential times only: c × `exponential_order_statistic`
#   k_batch_sync_sgd        cK/n, exponential times only
#   k_batch_async_sgd       cK/n, any law; workers of unequal means cᵢ: K/Σ(1/cᵢ). K = 1 is async_sgd
#   b backup workers        c(H_{N+b} - H_b), exponential: `exponential_order_statistic`(N + b, N)
#   ssp_sgd                 with slack 0 a barrier: each worker makes 1/H_n updates in c, exponential; without limit, 1
# Dutta et al. 2018, 1803.01113.


def geometric_staleness(workers: int, length: int) -> np.ndarray:
    """[length] P(τ = k) = (1/n)(1 - 1/n)^k: always-busy workers with iid exponential times (each arrival may be anyone's, equally likely)."""
    return (1 - 1 / workers) ** np.arange(length) / workers


def expected_staleness(times: np.ndarray) -> np.ndarray:
    """[n] E τᵢ = cᵢ Σⱼ 1/cⱼ - 1 of always-busy workers whose computations take cᵢ: the others' arrivals meanwhile."""
    return times * (1 / times).sum() - 1


def barrier_time(workers: int) -> float:
    """H_n = Σ 1/i, the expected maximum of n exponential times of mean 1. Rényi 1953, on the theory of order statistics."""
    return float((1 / np.arange(1, workers + 1)).sum())


def exponential_order_statistic(workers: int, k: int) -> float:
    """H_n - H_{n-k}, the expected k-th smallest of n exponential times of mean 1: waits of 1/n, 1/(n-1), ... Rényi 1953."""
    return float((1 / np.arange(workers - k + 1, workers + 1)).sum())


def order_statistic_mean(quantile: Callable[[np.ndarray], np.ndarray], workers: int, k: int) -> float:
    """E Q(U), U ~ Beta(k, n - k + 1): the expected k-th smallest of n iid times. David-Nagaraja 2003, order statistics.

    Gauss-Legendre in w, log(U/(1 - U)) = log(k/(n - k + 1)) + s sinh(w), s about one standard deviation: panels as fine as
    the density in the middle, and as wide as its exponential tails far out. Above 1 - 2⁻⁴⁰, where 1 - u has few
    digits, Q is continued as the power law c(1 - u)^-p that it is there, so that tails as heavy as Pareto(1.2) count in
    full. Relative error, n up to 10⁴: smooth laws 1e-8, Pareto(1.2) 1e-6; a Q with jumps (a trace) 1e-3.

    Args:
      quantile: Q, u in (0, 1) [m] -> seconds [m], not negative.
      workers: n.
      k: 1..n.

    Returns:
      Infinity where the tail is too heavy for a mean.
    """
    above, cut = workers - k + 1, 2.0**-40
    centre, width = np.log(k / above), np.sqrt(1 / k + 1 / above)
    first, end = np.arcsinh((np.log(cut) * np.array([1, -1]) - centre) / width)
    edges = np.linspace(first, end, 201)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    w = (edges[:-1, None] + half * (1 + nodes)).ravel()
    t = centre + width * np.sinh(w)
    low, high = -np.logaddexp(0, -t), -np.logaddexp(0, t)  # log u, log(1 - u)
    top = (k * low + above * high).max()
    mass = (half * weights).ravel() * width * np.cosh(w) * np.exp(k * low + above * high - top)
    last, later = quantile(1 - cut * np.array([1, 0.5]))
    power = np.log2(later / last)
    if power >= above:
        return float("inf")
    tail = np.exp(above * np.log(cut) - top)
    return float((mass @ quantile(np.exp(low)) + tail * last / (above - power)) / (mass.sum() + tail / above))


# -- model parallelism ------------------------------------------------------------------------------------------------


def pipeline_bubble(stages: int, micro_batches: int) -> float:
    """(S - 1)/(M + S - 1): share of its time in which a stage has nothing to do. Huang et al. 2018, 1811.06965, section 2.3.

    A stage works for M ticks; the last begins S - 1 ticks after the first, and backwards the first after the last.
    """
    return (stages - 1) / (micro_batches + stages - 1)


def pipeline_speedup(stages: int, micro_batches: int) -> float:
    """S M/(M + S - 1): how many times as fast S stages are as one device that does all the work."""
    return stages * micro_batches / (micro_batches + stages - 1)
