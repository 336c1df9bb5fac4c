"""The methods once more: float64, NumPy, one worker after the other, each equation as its paper writes it.

Nothing of dopt is used here. What is random (batches, delays, compute times) comes in as arguments.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np


class Setting(NamedTuple):
    """What a method is given."""

    gradient: Callable[[int, np.ndarray, int], np.ndarray]  # (i, x [d], m) -> ∇fᵢ(x) on worker i's m-th batch
    start: np.ndarray  # [n, d]
    steps: int
    rate: float  # α
    momentum: float  # u(g) = -α v, v <- momentum v + g; 0: plain SGD
    W: Callable[[int], np.ndarray]  # k -> [n, n] of the k-th mix, failed links worked in
    ages: np.ndarray  # [steps, n, n] int: at step k worker i reads worker j's model of step k - ages[k, i, j]
    seconds: Callable[[int, int], float]  # (i, m) -> how long worker i's m-th computation takes
    C: Callable[[int], np.ndarray] | None = None  # the second matrix of push_pull
    compress: Callable[[int, int, np.ndarray], np.ndarray] | None = None  # (i, k, vector) -> its message
    options: Mapping = MappingProxyType({})  # the method's own


class Local:
    """The local optimizer of one worker."""

    def __init__(self, s: Setting):
        self.s, self.velocity = s, np.zeros(s.start.shape[1])

    def update(self, g: np.ndarray) -> np.ndarray:
        self.velocity = self.s.momentum * self.velocity + g
        return -self.s.rate * self.velocity


def mean_gradient(s: Setting, X: np.ndarray, k: int) -> np.ndarray:
    n = len(X)
    return sum(s.gradient(i, X[i], k) for i in range(n)) / n


def allreduce_sgd(s: Setting) -> np.ndarray:
    """x <- x + u(mean gᵢ). All methods return [steps + 1, n, d], every model since the start."""
    n, models = len(s.start), [s.start]
    u = [Local(s) for _ in range(n)]
    for k in range(s.steps):
        X = models[k]
        g = mean_gradient(s, X, k)
        models.append(np.stack([X[i] + u[i].update(g) for i in range(n)]))
    return np.stack(models)


def delayed_sgd_iterate(s: Setting) -> np.ndarray:
    """x^{k+1} = x^k + u(∇f(x^{max(0, k-τ_k)}; batch_k))."""
    n, models = len(s.start), [s.start]
    u = [Local(s) for _ in range(n)]
    for k in range(s.steps):
        g = mean_gradient(s, models[max(0, k - s.ages[k, 0, 0])], k)
        models.append(np.stack([models[k][i] + u[i].update(g) for i in range(n)]))
    return np.stack(models)


def delayed_sgd_queue(s: Setting) -> np.ndarray:
    """Each gradient is applied once, τ steps after it was taken; nothing in the first τ steps."""
    n, models, waiting = len(s.start), [s.start], []
    u = [Local(s) for _ in range(n)]
    for k in range(s.steps):
        X = models[k]
        waiting.append(mean_gradient(s, X, k))
        if k >= s.ages[k, 0, 0]:
            g = waiting.pop(0)
            X = np.stack([X[i] + u[i].update(g) for i in range(n)])
        models.append(X)
    return np.stack(models)


def combine_then_adapt(s: Setting) -> np.ndarray:
    """X <- W X + u(G)."""
    n, models = len(s.start), [s.start]
    u = [Local(s) for _ in range(n)]
    for k in range(s.steps):
        X, new = models[k], np.zeros_like(s.start)
        for i in range(n):
            for j in range(n):
                new[i] += s.W(k)[i, j] * X[j]
            new[i] += u[i].update(s.gradient(i, X[i], k))
        models.append(new)
    return np.stack(models)


def adapt_then_combine(s: Setting) -> np.ndarray:
    """X <- W (X + u(G))."""
    n, models = len(s.start), [s.start]
    u = [Local(s) for _ in range(n)]
    for k in range(s.steps):
        X, new = models[k], np.zeros_like(s.start)
        half = [X[i] + u[i].update(s.gradient(i, X[i], k)) for i in range(n)]
        for i in range(n):
            for j in range(n):
                new[i] += s.W(k)[i, j] * half[j]
        models.append(new)
    return np.stack(models)


def delayed_gossip(s: Setting, delay_self: bool = False) -> np.ndarray:
    """xᵢ <- W_ii xᵢ + Σ_{j≠i} W_ij xⱼ^{k-τ_ij} + u(gᵢ), x⁰ before the start; with `delay_self` xᵢ is old as well."""
    n, models = len(s.start), [s.start]
    u = [Local(s) for _ in range(n)]
    for k in range(s.steps):
        new = np.zeros_like(s.start)
        for i in range(n):
            for j in range(n):
                age = 0 if i == j and not delay_self else s.ages[k, i, j]
                new[i] += s.W(k)[i, j] * models[max(0, k - age)][j]
            new[i] += u[i].update(s.gradient(i, models[k][i], k))
        models.append(new)
    return np.stack(models)


def delayed_gossip_self(s: Setting) -> np.ndarray:
    return delayed_gossip(s, delay_self=True)


def async_sgd(s: Setting) -> np.ndarray:
    """A server and its workers, one event after the other: push ∇fᵢ(x^v), x <- x + u(g), pull, compute again."""
    n, u = len(s.start), Local(s)
    x = s.start[0]
    pulled, begun, models = [x] * n, [0] * n, [x[None]]
    events = [(s.seconds(i, 0), i) for i in range(n)]
    heapq.heapify(events)
    for _ in range(s.steps):
        now, i = heapq.heappop(events)
        x = x + u.update(s.gradient(i, pulled[i], begun[i]))
        pulled[i], begun[i] = x, begun[i] + 1
        heapq.heappush(events, (now + s.seconds(i, begun[i]), i))
        models.append(x[None])
    return np.stack(models)


def gradients(s: Setting, X: np.ndarray, k: int) -> np.ndarray:
    return np.stack([s.gradient(i, X[i], k) for i in range(len(X))])


def steps_of(s: Setting) -> Callable[[np.ndarray], np.ndarray]:
    """G [n, d] -> u(G), each worker with a local optimizer of its own."""
    u = [Local(s) for _ in s.start]
    return lambda G: np.stack([one.update(g) for one, g in zip(u, G, strict=True)])


def gossip_often(s: Setting) -> np.ndarray:
    """X <- W ... W X + u(G), so many times; only in every H-th step."""
    u, models, mixes = steps_of(s), [s.start], 0
    rounds, H = s.options.get("rounds", 1), s.options.get("local_steps", 1)
    adapt_first = s.options.get("adapt_then_combine", False)
    for k in range(s.steps):
        X = models[k]
        U = u(gradients(s, X, k))
        Z = X + U if adapt_first else X
        if (k + 1) % H == 0:
            for _ in range(rounds):
                Z, mixes = s.W(mixes) @ Z, mixes + 1
        models.append(Z if adapt_first else Z + U)
    return np.stack(models)


def gossip_chebyshev(s: Setting) -> np.ndarray:
    """z₀ = x, z₁ = Wx/ρ, a₀ = 1, a₁ = 1/ρ, both by (2/ρ)·now - before; W^R is z_R/a_R; one plain mix if ρ < 1e-6."""
    u, models, W = steps_of(s), [s.start], s.W(0)
    rho = np.linalg.norm(W - 1 / len(W), 2)
    for k in range(s.steps):
        X = models[k]
        if rho < 1e-6:
            models.append(W @ X + u(gradients(s, X, k)))
            continue
        before, z, a_before, a = X, W @ X / rho, 1.0, 1 / rho
        for _ in range(s.options["rounds"] - 1):
            before, z = z, 2 / rho * W @ z - before
            a_before, a = a, 2 / rho * a - a_before
        models.append(z / a + u(gradients(s, X, k)))
    return np.stack(models)


def delivered(s: Setting, k: int, sent: list[np.ndarray], before: np.ndarray) -> np.ndarray:
    """W Z with neighbours' Z as old as they are at step k, one's own fresh; `before` stands before the start."""
    W, new = s.W(k), np.zeros_like(before)
    for i in range(len(W)):
        for j in range(len(W)):
            step = k - (s.ages[k, i, j] if i != j else 0)
            new[i] += W[i, j] * (sent[step] if step >= 0 else before)[j]
    return new


def gradient_tracking(s: Setting) -> np.ndarray:
    """Y⁰ = G⁰; X <- W X - αY; Y <- W Y + G⁺ - G."""
    u, models, trackers = steps_of(s), [s.start], []
    G = none = np.zeros_like(s.start)
    for k in range(s.steps):
        after = gradients(s, models[k], k)
        trackers.append(delivered(s, k - 1, trackers, none) + after - G if k else after)
        G = after
        models.append(delivered(s, k, models, s.start) + u(trackers[k]))
    return np.stack(models)


def tracking_adapt_then_combine(s: Setting) -> np.ndarray:
    """X <- W(X - αY), Y <- W(Y + G⁺ - G), both of a step over the same links."""
    u, models = steps_of(s), [s.start]
    G = Y = np.zeros_like(s.start)
    for k in range(s.steps):
        after = gradients(s, models[k], k)
        Y = s.W(k) @ (Y + after - G) if k else after
        G = after
        models.append(s.W(k) @ (models[k] + u(Y)))
    return np.stack(models)


def extra(s: Setting) -> np.ndarray:
    """X¹ = W X⁰ - αG⁰; X <- (I + W) X - (I + W)/2 X⁻ - α(G - G⁻)."""
    u, models, W, eye = steps_of(s), [s.start], s.W(0), np.eye(len(s.start))
    U = u(gradients(s, s.start, 0))
    models.append(W @ s.start + U)
    for k in range(1, s.steps):
        after = u(gradients(s, models[k], k))
        models.append((eye + W) @ models[k] - (eye + W) / 2 @ models[k - 1] + after - U)
        U = after
    return np.stack(models)


def diffusion(s: Setting, V: np.ndarray) -> np.ndarray:
    """ψ = X - αG; X⁺ = V(ψ + X - ψ⁻), ψ⁻ = X⁰ at first."""
    u, models, before = steps_of(s), [s.start], s.start
    for k in range(s.steps):
        psi = models[k] + u(gradients(s, models[k], k))
        models.append(V @ (psi + models[k] - before))
        before = psi
    return np.stack(models)


def exact_diffusion(s: Setting) -> np.ndarray:
    return diffusion(s, (np.eye(len(s.start)) + s.W(0)) / 2)


def d2(s: Setting) -> np.ndarray:
    return diffusion(s, s.W(0))


def nids(s: Setting) -> np.ndarray:
    """X¹ = X⁰ - αG⁰; X <- (I + W)/2 (2X - X⁻ - α(G - G⁻))."""
    u, models, V = steps_of(s), [s.start], (np.eye(len(s.start)) + s.W(0)) / 2
    U = u(gradients(s, s.start, 0))
    models.append(s.start + U)
    for k in range(1, s.steps):
        after = u(gradients(s, models[k], k))
        models.append(V @ (2 * models[k] - models[k - 1] + after - U))
        U = after
    return np.stack(models)


def push_sum(s: Setting) -> np.ndarray:
    """X <- P(X + u(G(Z))), w <- P w, Z = X/w."""
    u, models, X, w = steps_of(s), [s.start], s.start, np.ones(len(s.start))
    for k in range(s.steps):
        X, w = s.W(k) @ (X + u(gradients(s, models[k], k))), s.W(k) @ w
        models.append(X / w[:, None])
    return np.stack(models)


def push_diging(s: Setting) -> np.ndarray:
    """U <- P(U - αY), v <- P v, X = U/v, Y <- P Y + G⁺ - G."""
    u, models, U, v = steps_of(s), [s.start], s.start, np.ones(len(s.start))
    G = Y = np.zeros_like(s.start)
    for k in range(s.steps):
        after = gradients(s, models[k], k)
        Y = s.W(k - 1) @ Y + after - G if k else after
        G = after
        U, v = s.W(k) @ (U + u(Y)), s.W(k) @ v
        models.append(U / v[:, None])
    return np.stack(models)


def push_pull(s: Setting) -> np.ndarray:
    """X <- R(X - αY), Y <- C Y + G⁺ - G."""
    u, models = steps_of(s), [s.start]
    G = Y = np.zeros_like(s.start)
    for k in range(s.steps):
        after = gradients(s, models[k], k)
        Y = s.C(k - 1) @ Y + after - G if k else after
        G = after
        models.append(s.W(k) @ (models[k] + u(Y)))
    return np.stack(models)


def choco(s: Setting) -> np.ndarray:
    """X½ = X + u(G); X̂ <- X̂ + C(X½ - X̂); X <- X½ + γ(W - I)X̂."""
    u, models, public = steps_of(s), [s.start], np.zeros_like(s.start)
    for k in range(s.steps):
        half = models[k] + u(gradients(s, models[k], k))
        public = public + np.stack([s.compress(i, k, v) for i, v in enumerate(half - public)])
        models.append(half + s.options["consensus_rate"] * (s.W(k) @ public - public))
    return np.stack(models)


def quasi_global_momentum(s: Setting) -> np.ndarray:
    """X½ = X - α(βM + G); X⁺ = W X½; M <- βM + (1 - β)(X - X⁺)/α."""
    u, models, M, beta = steps_of(s), [s.start], np.zeros_like(s.start), s.options["momentum"]
    for k in range(s.steps):
        models.append(s.W(k) @ (models[k] + u(beta * M + gradients(s, models[k], k))))
        M = beta * M + (1 - beta) * (models[k] - models[k + 1]) / s.rate
    return np.stack(models)


def relay_messages(s: Setting) -> np.ndarray:
    """Messages on the tree of W's links, as the paper sends them: m_ij = x½ᵢ + Σ_{l≠j} m_li⁻, and xᵢ <- (x½ᵢ + Σⱼ m_ji)/n.

    Where nothing was relayed yet, the start of those whose word is still on its way stands in.
    """
    n, u, models = len(s.start), steps_of(s), [s.start]
    near = [[j for j in range(n) if j != i and s.W(0)[i, j] != 0] for i in range(n)]

    def beyond(i: int, j: int) -> list[int]:
        """Who is on i's side of the edge between i and j."""
        return [i, *(far for other in near[i] if other != j for far in beyond(other, i))]

    message = {(i, j): sum(s.start[far] for far in beyond(i, j)) for i in range(n) for j in near[i]}
    for k in range(s.steps):
        half = models[k] + u(gradients(s, models[k], k))
        message = {(i, j): half[i] + sum(message[other, i] for other in near[i] if other != j) for i, j in message}
        models.append(np.stack([(half[i] + sum(message[j, i] for j in near[i])) / n for i in range(n)]))
    return np.stack(models)


def without_barriers(s: Setting) -> np.ndarray:
    """Nobody waits: at the end of a computation xᵢ <- Σⱼ W_ij xⱼ + u(∇fᵢ(xᵢ)), xⱼ what was there before that instant.

    A step is n updates; the models of a step are those after the instant of its last update.
    """
    n, X, models, done = len(s.start), s.start, [s.start], 0
    u, begun = [Local(s) for _ in range(n)], [0] * n
    due = [s.seconds(i, 0) for i in range(n)]
    while len(models) <= s.steps:
        now = min(due)
        who = [i for i in range(n) if due[i] == now]
        new = X.copy()
        for i in who:
            new[i] = s.W(0)[i] @ X + u[i].update(s.gradient(i, X[i], begun[i]))
            begun[i] += 1
            due[i] = now + s.seconds(i, begun[i])
        X, done = new, done + len(who)
        while len(models) <= min(done // n, s.steps):
            models.append(X)
    return np.stack(models)
