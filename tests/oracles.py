"""The methods once more: float64, NumPy, one worker after the other, each equation as its paper writes it.

Nothing of dopt is used here. What is random (batches, delays, compute times) comes in as arguments.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Setting(NamedTuple):
    """What a method is given."""

    gradient: Callable[[int, np.ndarray, int], np.ndarray]  # (i, x [d], m) -> ∇fᵢ(x) on worker i's m-th batch
    start: np.ndarray  # [n, d]
    steps: int
    rate: float  # α
    momentum: float  # u(g) = -α v, v <- momentum v + g; 0: plain SGD
    W: np.ndarray  # [n, n]
    ages: np.ndarray  # [steps, n, n] int: at step k worker i reads worker j's model of step k - ages[k, i, j]
    seconds: Callable[[int, int], float]  # (i, m) -> how long worker i's m-th computation takes


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
                new[i] += s.W[i, j] * X[j]
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
                new[i] += s.W[i, j] * half[j]
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
                new[i] += s.W[i, j] * models[max(0, k - age)][j]
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
