"""The methods once more: float64, NumPy, one worker after the other, each equation as its paper writes it.

Nothing of dopt is used here. What is random (batches, delays, compute times) comes in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

import numpy as np


class Setting(NamedTuple):
    """What a method is given."""

    gradient: Callable[[int, np.ndarray, int], np.ndarray]  # (i, x [d], m) -> ∇fᵢ(x) on worker i's m-th batch
    start: np.ndarray  # [n, d]
    steps: int
    rate: float | Callable[[int], float]  # α, or what it is after so many updates of an optimizer
    momentum: float  # u(g) = -α v, v <- momentum v + g; 0: plain SGD
    W: Callable[[int], np.ndarray]  # k -> [n, n] of the k-th mix, failed links worked in
    ages: np.ndarray  # [steps, n, n] int: at step k worker i reads worker j's model of step k - ages[k, i, j]
    seconds: Callable[[int, int], float]  # (i, m) -> how long worker i's m-th computation takes
    C: Callable[[int], np.ndarray] | None = None  # the second matrix of push_pull
    compress: Callable[[int, int, np.ndarray], np.ndarray] | None = None  # (i, k, vector) -> its message
    options: Mapping = MappingProxyType({})  # the method's own
    hessian: Callable[[int, np.ndarray, int], np.ndarray] | None = None  # (i, x, m) -> [d, d] on worker i's m-th batch
    partner: Callable[[int, int], int] | None = None  # (i, m) -> with whom worker i averages after its m-th computation
    coordinate_ages: np.ndarray | None = None  # [steps, d] int: update k reads coordinate c of step k - it; None: 0
    lost: np.ndarray | None = None  # [steps, d] bool: update k's write to coordinate c is lost; None: none is
    takes_part: Callable[[int], np.ndarray] | None = None  # round -> [n] bool: whose models are averaged; None: all
    samples: np.ndarray | None = None  # [n] n_k, by which models are weighed when they are averaged; None: all alike


def rate_at(s: Setting, count: int) -> float:
    return s.rate(count) if callable(s.rate) else s.rate


class Local:
    """The local optimizer of one worker."""

    def __init__(self, s: Setting):
        self.s, self.velocity, self.count = s, np.zeros(s.start.shape[1]), 0

    def update(self, g: np.ndarray, count: int | None = None) -> np.ndarray:
        """u(g); the rate is that of its own count of updates, unless it is told another."""
        self.velocity = self.s.momentum * self.velocity + g
        rate = rate_at(self.s, self.count if count is None else count)
        self.count += 1
        return -rate * self.velocity


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


def sharded(s: Setting) -> np.ndarray:
    """All-reduce of one model of which worker i holds the i-th piece, ⌈d/n⌉ coordinates. [steps + 1, 1, d]."""
    n, d = s.start.shape
    x, u = np.array([s.start[c // -(-d // n), c] for c in range(d)]), Local(s)
    models = [x]
    for k in range(s.steps):
        models.append(models[k] + u.update(mean_gradient(s, np.stack([models[k]] * n), k)))
    return np.stack(models)[:, None]


def average(s: Setting, X: np.ndarray, part: np.ndarray | None = None) -> np.ndarray:
    """Σ n_k x_k / Σ n_k, over those who take part."""
    who = range(len(X)) if part is None else np.flatnonzero(part)
    number = np.ones(len(X)) if s.samples is None else s.samples
    return sum(number[k] * X[k] for k in who) / sum(number[k] for k in who)


def rounds_of(s: Setting, boundary: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> np.ndarray:
    """xᵢ <- xᵢ + u(gᵢ) of those who take part, and after every H-th step `boundary` of (x_start, x, round), [n, d] each."""
    n, H, models, start = len(s.start), s.options["local_steps"], [s.start], s.start
    u = [Local(s) for _ in range(n)]
    for k in range(s.steps):
        part = np.ones(n, bool) if s.takes_part is None else s.takes_part(k // H)
        X = models[k].copy()
        for i in np.flatnonzero(part):
            X[i] = X[i] + u[i].update(s.gradient(i, X[i], k), k)
        if (k + 1) % H == 0:
            X = start = boundary(start, X, k // H)
        models.append(X)
    return np.stack(models)


def local_sgd(s: Setting) -> np.ndarray:
    """After every H-th step xᵢ <- mean of x, over those who take part."""

    def boundary(start: np.ndarray, X: np.ndarray, number: int) -> np.ndarray:
        part = np.ones(len(X), bool) if s.takes_part is None else s.takes_part(number)
        return np.broadcast_to(average(s, X, part), X.shape)

    return rounds_of(s, boundary)


def post_local_sgd(s: Setting) -> np.ndarray:
    n, models, switch = len(s.start), [s.start], s.options["switch_step"]
    u = [Local(s) for _ in range(n)]
    for k in range(s.steps):
        X = models[k]
        G = gradients(s, X, k)
        if k < switch:
            G = np.broadcast_to(average(s, G), G.shape)
        X = np.stack([X[i] + u[i].update(G[i]) for i in range(n)])
        if k >= switch and (k - switch + 1) % s.options["local_steps"] == 0:
            X = np.broadcast_to(average(s, X), X.shape)
        models.append(X)
    return np.stack(models)


def slowmo(s: Setting) -> np.ndarray:
    """v <- β v + (x_start - mean x)/α; x <- x_start - γ α v."""
    v = np.zeros_like(s.start)

    def boundary(start: np.ndarray, X: np.ndarray, number: int) -> np.ndarray:
        nonlocal v
        rate = rate_at(s, (number + 1) * s.options["local_steps"] - 1)
        v = s.options["momentum"] * v + (start - average(s, X)) / rate
        return start - s.options["slow_rate"] * rate * v

    return rounds_of(s, boundary)


def diloco(s: Setting) -> np.ndarray:
    """Δ = x_start - mean x; v <- μ v + Δ; x <- x_start - rate (Δ + μ v)."""
    v, mu = np.zeros_like(s.start), s.options["outer_momentum"]

    def boundary(start: np.ndarray, X: np.ndarray, number: int) -> np.ndarray:
        nonlocal v
        delta = start - average(s, X)
        v = mu * v + delta
        return start - s.options["outer_learning_rate"] * (delta + mu * v)

    return rounds_of(s, boundary)


def easgd(s: Setting) -> np.ndarray:
    """Every H-th step xᵢ <- xᵢ + u(gᵢ) - β(yᵢ - z), z <- z + β Σᵢ (yᵢ - z): yᵢ is the old xᵢ (joint), or xᵢ + u(gᵢ)."""
    z, n, X, models = s.start.mean(0), len(s.start), s.start, [s.start]
    beta = 0.9 / n if s.options["elastic_rate"] is None else s.options["elastic_rate"]
    u = [Local(s) for _ in range(n)]
    for k in range(s.steps):
        new = np.stack([X[i] + u[i].update(s.gradient(i, X[i], k)) for i in range(n)])
        if (k + 1) % s.options["local_steps"] == 0:
            Y = X if s.options.get("order", "joint") == "joint" else new
            new = np.stack([new[i] - beta * (Y[i] - z) for i in range(n)])
            z = z + beta * sum(y - z for y in Y)
        X = new
        models.append(X)
    return np.stack(models)


def compressed_sgd(s: Setting) -> np.ndarray:
    """q = C(e + g), e <- e + g - q, x <- x + u(mean q)."""
    n, models, e = len(s.start), [s.start], np.zeros_like(s.start)
    u = [Local(s) for _ in range(n)]
    for k in range(s.steps):
        wanted = gradients(s, models[k], k) + (e if s.options["error_feedback"] else 0)
        q = np.stack([s.compress(i, k, wanted[i]) for i in range(n)])
        e = wanted - q
        models.append(np.stack([models[k][i] + u[i].update(q.mean(0)) for i in range(n)]))
    return np.stack(models)


def sign_majority(s: Setting) -> np.ndarray:
    """x <- x + u(sign Σ sign gᵢ)."""
    n, models = len(s.start), [s.start]
    u = [Local(s) for _ in range(n)]
    for k in range(s.steps):
        vote = np.sign(np.sign(gradients(s, models[k], k)).sum(0))
        models.append(np.stack([models[k][i] + u[i].update(vote) for i in range(n)]))
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
    """X½ = X + u(G); X̂ <- X̂ + C(X½ - X̂); X <- X½ + γ(W - I)X̂. Without memory X̂ <- C(X½)."""
    u, models, public = steps_of(s), [s.start], np.zeros_like(s.start)
    for k in range(s.steps):
        half = models[k] + u(gradients(s, models[k], k))
        public = public * s.options.get("memory", True)
        public = public + np.stack([s.compress(i, k, v) for i, v in enumerate(half - public)])
        models.append(half + s.options["consensus_rate"] * (s.W(k) @ public - public))
    return np.stack(models)


def quasi_global_momentum(s: Setting) -> np.ndarray:
    """X½ = X - α(βM + G); X⁺ = W X½; M <- βM + (1 - β)(X - X⁺)/α."""
    u, models, M, beta = steps_of(s), [s.start], np.zeros_like(s.start), s.options["momentum"]
    for k in range(s.steps):
        models.append(s.W(k) @ (models[k] + u(beta * M + gradients(s, models[k], k))))
        M = beta * M + (1 - beta) * (models[k] - models[k + 1]) / rate_at(s, k)
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


# -- the asynchronous server: first who delivers what and when, then each rule's equation --


class Push(NamedTuple):
    """What a worker delivers. With local steps a computation is a round of them."""

    worker: int
    round: int  # which of its computations, counted from 0 as begun, aborted ones too
    read: int  # the version it pulled
    staleness: int  # updates since, before its own


def updates(
    s: Setting,
    full: Callable[[list[Push]], bool] | None = None,
    limit: float = np.inf,
    stop: bool = False,
    waits: Callable[[int, list[int], list[Push]], bool] = lambda i, clock, pushes: False,
    counts_dropped: bool = False,
) -> Iterator[list[Push]]:
    """The pushes that each update consumes, in the order of (time, worker).

    Without `full` every accepted push is an update, and whoever pushed pulls before the next push of that instant is
    handled. With it, accepted pushes collect until they are `full`, and all of an instant are handled before any pull.
    A push older than `limit` is dropped (older in updates; or, if it `counts_dropped`, in pushes); with `stop`, work that an update makes older is begun anew at once. Whoever
    `waits` (worker, pushes of each worker until now, pushes collected) stays idle, and pulls when it need not any more.
    A computation of infinite length never ends; when nothing ends any more, there are no further updates.
    """
    n, H = len(s.start), option(s, "local_steps", 1)
    now, version, pushes = 0.0, 0, []
    read, clock, begun, due, idle = [0] * n, [0] * n, [0] * n, {}, set(range(n))
    handled, seen = 0, [0] * n
    while True:
        for i in sorted(idle):
            if not waits(i, clock, pushes):
                read[i], seen[i] = version, handled
                due[i] = now + sum(s.seconds(i, m) for m in range(begun[i] * H, begun[i] * H + H))
                begun[i] += 1
                idle.remove(i)
        now = min(due.values(), default=np.inf)
        if now == np.inf:
            return
        arrived = [i for i in sorted(due) if due[i] == now]
        if full is None:
            arrived = arrived[:1]
        for i in arrived:
            del due[i]
            idle.add(i)
        for i in arrived:
            clock[i] += 1
            age = handled - seen[i] if counts_dropped else version - read[i]
            handled += 1
            if age > limit:
                continue
            pushes.append(Push(i, begun[i] - 1, read[i], version - read[i]))
            if full is None or full(pushes):
                yield pushes
                version, pushes = version + 1, []
                for j in [j for j in due if stop and version - read[j] > limit]:
                    del due[j]
                    idle.add(j)


def option(s: Setting, name: str, default: float) -> float:
    value = s.options.get(name)
    return default if value is None else value


def serve(s: Setting, step: Callable[[list[np.ndarray], list[Push]], np.ndarray], **rule: object) -> np.ndarray:
    """[steps + 1, 1, d]: x <- x + step at every update; `step` gets all models until then and the pushes."""
    models = [s.start[0]]
    for pushes in islice(updates(s, **rule), s.steps):
        models.append(models[-1] + step(models, pushes))
    return np.stack(models)[:, None]


def pushed(s: Setting, models: list[np.ndarray], push: Push) -> np.ndarray:
    """∇fᵢ(x^v)."""
    return s.gradient(push.worker, models[push.read], push.round)


def scaled_by_staleness(s: Setting, scale: Callable[[int], float] = lambda tau: 1.0, **rule: object) -> np.ndarray:
    """x <- x + scale(τ) u(∇fᵢ(x^v))."""
    u = Local(s)

    def step(models: list[np.ndarray], pushes: list[Push]) -> np.ndarray:
        (push,) = pushes
        return scale(push.staleness) * u.update(pushed(s, models, push))

    return serve(s, step, **rule)


def async_sgd(s: Setting) -> np.ndarray:
    return scaled_by_staleness(s)


def staleness_aware_sgd(s: Setting) -> np.ndarray:
    power = s.options.get("power")
    if power is None:
        return scaled_by_staleness(s, lambda tau: 1 / max(1, tau))
    return scaled_by_staleness(s, lambda tau: (1 + tau) ** -power)


def delay_adaptive_sgd(s: Setting) -> np.ndarray:
    threshold = option(s, "threshold", len(s.start))
    return scaled_by_staleness(s, lambda tau: min(1, threshold / max(tau, 1)))


def drop_stale_sgd(s: Setting) -> np.ndarray:
    limit, count = option(s, "max_staleness", len(s.start)), s.options.get("count", "applied")
    return scaled_by_staleness(s, limit=limit, counts_dropped=count == "arrivals")


def ringmaster_sgd(s: Setting) -> np.ndarray:
    """Applied iff τ < R."""
    limit = option(s, "threshold", len(s.start)) - 1
    return scaled_by_staleness(s, limit=limit, stop=option(s, "stop", True))


def ssp_sgd(s: Setting) -> np.ndarray:
    """Whoever has pushed more than `slack` times more often than the slowest waits for it."""
    return scaled_by_staleness(s, waits=lambda i, clock, pushes: clock[i] > min(clock) + s.options["slack"])


def dc_asgd(s: Setting) -> np.ndarray:
    """x <- x + u(g + λ D(x - x^v)), D = g⊙g, or g⊙g/√(m+ε) with m <- 0.95 m + 0.05 g⊙g first, or ∇²fᵢ(x^v)."""
    u, m, strength = Local(s), np.zeros(s.start.shape[1]), option(s, "strength", 1.0)
    variant = s.options.get("variant", "plain")

    def step(models: list[np.ndarray], pushes: list[Push]) -> np.ndarray:
        nonlocal m
        (push,) = pushes
        g, moved = pushed(s, models, push), models[-1] - models[push.read]
        m = 0.95 * m + 0.05 * g * g
        if variant == "plain":
            correction = g * g * moved
        elif variant == "adaptive":
            correction = g * g / np.sqrt(m + 1e-7) * moved
        elif variant == "hessian":
            correction = s.hessian(push.worker, models[push.read], push.round) @ moved
        else:
            raise ValueError(variant)
        return u.update(g + strength * correction)

    return serve(s, step)


def mean_of(s: Setting, count: int, **rule: object) -> np.ndarray:
    """x <- x + u((1/K) Σ ∇fᵢ(x^v)) over K accepted pushes."""
    u = Local(s)

    def step(models: list[np.ndarray], pushes: list[Push]) -> np.ndarray:
        return u.update(sum(pushed(s, models, push) for push in pushes) / count)

    return serve(s, step, full=lambda pushes: len(pushes) == count, **rule)


def half_of_the_workers(s: Setting) -> int:
    return option(s, "k", (len(s.start) + 1) // 2)


def until_used(i: int, clock: list[int], pushes: list[Push]) -> bool:
    """Whether worker i's gradient still waits for the update that consumes it."""
    return i in [push.worker for push in pushes]


def k_sync_sgd(s: Setting) -> np.ndarray:
    return mean_of(s, half_of_the_workers(s), limit=0, stop=True, waits=until_used)


def k_batch_sync_sgd(s: Setting) -> np.ndarray:
    return mean_of(s, half_of_the_workers(s), limit=0, stop=True)


def k_async_sgd(s: Setting) -> np.ndarray:
    return mean_of(s, half_of_the_workers(s), waits=until_used)


def k_batch_async_sgd(s: Setting) -> np.ndarray:
    return mean_of(s, half_of_the_workers(s))


def rennala_sgd(s: Setting) -> np.ndarray:
    return mean_of(s, option(s, "batch", len(s.start)), limit=0, stop=option(s, "stop", False))


def malenia_sgd(s: Setting) -> np.ndarray:
    """x <- x + u((1/n) Σᵢ (1/Bᵢ) Σ_b g_ib) as soon as every Bᵢ ≥ 1 and ((1/n) Σᵢ 1/Bᵢ)⁻¹ ≥ S/n."""
    n, u = len(s.start), Local(s)
    batch = option(s, "batch", n)

    def counts(pushes: list[Push]) -> list[int]:
        return [sum(push.worker == i for push in pushes) for i in range(n)]

    def full(pushes: list[Push]) -> bool:
        B = counts(pushes)
        return min(B) >= 1 and n * n >= batch * sum(Fraction(1, b) for b in B)  # exact: equality is common

    def step(models: list[np.ndarray], pushes: list[Push]) -> np.ndarray:
        B = counts(pushes)
        return u.update(sum(pushed(s, models, push) / B[push.worker] for push in pushes) / n)

    return serve(s, step, full=full, limit=0, stop=option(s, "stop", False))


def local_round(
    s: Setting, u: Local, x: np.ndarray, push: Push, first: np.ndarray | None = None, count: int | None = None
) -> np.ndarray:
    """x after H steps of u on the batches of that round, all at the rate of `count`; the first gradient is taken at `first`.

    Where they are not given: at the rate of u's own count; at x.
    """
    H = option(s, "local_steps", 1)
    for m in range(push.round * H, push.round * H + H):
        x, first = x + u.update(s.gradient(push.worker, x if first is None else first, m), count), None
    return x


def fedbuff(s: Setting) -> np.ndarray:
    """x <- x + (rate/K) Σ (1+τ)^-p Δ, Δ = x_H - x^v, all H steps at the rate of v."""
    K, power = s.options["buffer"], option(s, "power", 0.5)

    def step(models: list[np.ndarray], pushes: list[Push]) -> np.ndarray:
        moved = [
            local_round(s, Local(s), models[push.read], push, count=push.read) - models[push.read] for push in pushes
        ]
        share = np.ones(len(s.start)) if s.samples is None else s.samples / s.samples.mean()
        weights = [share[push.worker] * (1 + push.staleness) ** -power for push in pushes]
        return option(s, "server_learning_rate", 1.0) * sum(w * d for w, d in zip(weights, moved, strict=True)) / K

    return serve(s, step, full=lambda pushes: len(pushes) == K)


def async_diloco(s: Setting) -> np.ndarray:
    """Δ = x^v - x_H; v <- μ v + Δ; x <- x - rate (Δ + μ v)."""
    assert s.options.get("outer", "sgd") == "sgd"
    v, mu = np.zeros(s.start.shape[1]), option(s, "outer_momentum", 0.9)

    def step(models: list[np.ndarray], pushes: list[Push]) -> np.ndarray:
        nonlocal v
        (push,) = pushes
        delta = models[push.read] - local_round(s, Local(s), models[push.read], push, count=push.read)
        v = mu * v + delta
        return -option(s, "outer_learning_rate", 0.7) * (delta + mu * v)

    return serve(s, step)


def async_easgd(s: Setting) -> np.ndarray:
    """Worker i after H steps from its own xᵢ: δ = β(xᵢ - z); xᵢ <- xᵢ - δ; z <- z + δ. The model is z.

    Algorithm 1 (joint) takes the gradient after an exchange where xᵢ was before it.
    """
    n, u, beta = len(s.start), [Local(s) for _ in s.start], s.options["elastic_rate"]
    X, before = [s.start[0]] * n, [s.start[0]] * n

    def step(models: list[np.ndarray], pushes: list[Push]) -> np.ndarray:
        (push,) = pushes
        i = push.worker
        x = local_round(s, u[i], X[i], push, before[i] if s.options.get("order", "joint") == "joint" else None)
        delta = beta * (x - models[-1])
        X[i], before[i] = x - delta, x
        return delta

    return serve(s, step)


def hogwild_sgd(s: Setting) -> np.ndarray:
    """x[c] <- x[c] + u(g)[c] where g[c] ≠ 0 and the write is not lost; g taken where coordinate c is τ_kc updates old."""
    u, d = Local(s), s.start.shape[1]
    ages = np.zeros((s.steps, d), int) if s.coordinate_ages is None else s.coordinate_ages
    lost = np.zeros((s.steps, d), bool) if s.lost is None else s.lost

    def step(models: list[np.ndarray], pushes: list[Push]) -> np.ndarray:
        (push,) = pushes
        k = len(models) - 1
        mixed = np.array([models[max(0, k - ages[k, c])][c] for c in range(d)])
        g = s.gradient(push.worker, mixed, push.round)
        return np.where((g != 0) & ~lost[k], u.update(g), 0.0)

    return serve(s, step)


def ad_psgd(s: Setting) -> np.ndarray:
    """Worker i finishes g at the xᵢ it began with: xᵢ, xⱼ <- (xᵢ + xⱼ)/2; xᵢ <- xᵢ + uᵢ(g). [steps + 1, n, d]."""
    u, X, models = [Local(s) for _ in s.start], s.start, [s.start]
    begun_with = list(s.start)
    for (push,) in islice(updates(s), s.steps):
        i, j = push.worker, s.partner(push.worker, push.round)
        g = s.gradient(i, begun_with[i], push.round)
        X = X.copy()
        X[i] = X[j] = (X[i] + X[j]) / 2
        X[i] = X[i] + u[i].update(g)
        begun_with[i] = X[i]
        models.append(X)
    return np.stack(models)
