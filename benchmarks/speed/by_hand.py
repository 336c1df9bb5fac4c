"""What a careful researcher would write for one paper: jit(vmap(lax.scan)), and the same in NumPy.

Softmax regression, a small transformer and quadratics, n workers. As fast as we know how to make it: batches are drawn for the whole run
ahead of the scan, whose length is static and which is unrolled where that helps, old models lie in a ring written by index, runs are vmapped in
slabs, the loss is written classes first, and a record looks at all samples in one product, without padding. The whole run is one program that makes its own carry, so
that the compiler writes it in place and there is nothing to donate.
Every function records the same metrics at the same steps as dopt does.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

L2 = 1e-3
put = lax.dynamic_update_index_in_dim  # `at[i].set` asks in each step whether i is within bounds


class Setting(NamedTuple):
    """One problem and horizon."""

    x: Any  # [workers, samples, features]
    y: Any  # [workers, samples]
    counts: Any  # [workers]
    test_x: Any
    test_y: Any
    classes: int
    batch: int
    steps: int
    every: int
    slots: int  # length of the ring of old models


def jax_program(method: str, s: Setting, unroll: int = 1) -> Callable:
    """run(seed, rate, delay, W, arrivals) -> history [records, metrics], one run; vmap it over runs."""
    n, _, features = s.x.shape
    x, y, counts = jnp.asarray(s.x, jnp.float32), jnp.asarray(s.y), jnp.asarray(s.counts)
    test_x, test_y = jnp.asarray(s.test_x, jnp.float32), jnp.asarray(s.test_y)
    rows = jnp.arange(n)
    there = np.arange(s.x.shape[1]) < np.asarray(s.counts)[:, None]
    every_x, every_y = jnp.asarray(s.x[there], jnp.float32), jnp.asarray(s.y[there])
    weight = jnp.asarray(np.broadcast_to(1 / (n * np.asarray(s.counts, np.float32)[:, None]), there.shape)[there])

    def logits(p: Any, x: Any) -> Any:
        return p["w"] @ x.T + p["b"][:, None]

    def penalty(p: Any) -> Any:
        return 0.5 * L2 * (jnp.sum(p["w"] ** 2) + jnp.sum(p["b"] ** 2))

    def loss(p: Any, x: Any, y: Any) -> Any:
        return optax.softmax_cross_entropy(logits(p, x), jax.nn.one_hot(y, s.classes, axis=0), axis=0).mean() + penalty(
            p
        )

    def weighed(p: Any) -> Any:  # f: the mean over workers of each one's own mean
        each = optax.softmax_cross_entropy_with_integer_labels(logits(p, every_x), every_y, axis=0)
        return jnp.sum(weight * each) + penalty(p)

    def record(p: Any) -> Any:
        mean = jax.tree.map(lambda a: a.mean(0), p)
        f, g = jax.value_and_grad(weighed)(mean)
        apart = sum(jnp.sum((a - m) ** 2) for a, m in zip(jax.tree.leaves(p), jax.tree.leaves(mean), strict=True)) / n
        return jnp.stack([f, optax.tree.norm(g), apart, jnp.mean(jnp.argmax(logits(mean, test_x), 0) == test_y)])

    def gradients(p: Any, index: Any) -> Any:
        return jax.vmap(jax.grad(loss))(p, x[rows[:, None], index], y[rows[:, None], index])

    def mixed(w: Any, p: Any) -> Any:
        return jax.tree.map(lambda a: jnp.einsum("ij,j...->i...", w, a), p)

    def minus(p: Any, rate: Any, g: Any) -> Any:
        return jax.tree.map(lambda a, b: a - rate * b, p, g)

    def everyone(g: Any) -> Any:
        return jax.tree.map(lambda a: jnp.broadcast_to(a.mean(0), a.shape), g)

    def write(ring: Any, k: Any, p: Any) -> Any:
        return jax.tree.map(lambda r, a: put(r, a, k % s.slots, 0), ring, p)

    def read(ring: Any, k: Any) -> Any:
        return jax.tree.map(lambda r: r[k % s.slots], ring)

    def step(carry: Any, k: Any, drawn: Any, rate: Any, delay: Any, w: Any) -> Any:
        p, ring = carry
        if method == "allreduce_sgd":
            return minus(p, rate, everyone(gradients(p, drawn))), ring
        if method == "gossip_sgd":
            return minus(mixed(w, p), rate, gradients(p, drawn)), ring
        if method == "delayed_sgd":
            ring = write(ring, k, p)
            return minus(p, rate, everyone(gradients(read(ring, k - delay), drawn))), ring
        if method == "delayed_gossip_sgd":
            ring = write(ring, k, p)
            own = jnp.diag(w)
            old = mixed(w - jnp.diag(own), read(ring, k - delay))
            fresh = jax.tree.map(lambda a: own.reshape(-1, *[1] * (a.ndim - 1)) * a, p)
            return minus(jax.tree.map(jnp.add, old, fresh), rate, gradients(p, drawn)), ring
        worker, index = drawn  # async_sgd: p is the server's model [1, ...], ring the table of pulled ones
        stale = jax.tree.map(lambda a: a[worker], ring)
        g = jax.grad(loss)(stale, x[worker, index], y[worker, index])
        p = jax.tree.map(lambda a, b: a - rate * b[None], p, g)
        return p, jax.tree.map(lambda t, a: put(t, a[0], worker, 0), ring, p)

    def run(seed: Any, rate: Any, delay: Any, w: Any, arrivals: Any) -> Any:
        key = jax.random.key(seed)
        if method == "async_sgd":
            most = counts[arrivals][:, None]
            drawn: Any = (arrivals, jax.random.randint(key, (s.steps, s.batch), 0, most))
        else:
            drawn = jax.random.randint(key, (s.steps, n, s.batch), 0, counts[:, None])
        models = 1 if method == "async_sgd" else n
        p = {"w": jnp.zeros((models, s.classes, features)), "b": jnp.zeros((models, s.classes))}
        slots = {"async_sgd": n, "allreduce_sgd": 0, "gossip_sgd": 0}.get(method)
        one = jax.tree.map(lambda a: a[0], p) if method == "async_sgd" else p
        ring = jax.tree.map(lambda a: jnp.zeros((s.slots if slots is None else slots, *a.shape)), one)

        def block(carry: Any, xs: Any) -> Any:
            carry, _ = lax.scan(lambda c, x: (step(c, x[0], x[1], rate, delay, w), None), carry, xs, unroll=unroll)
            return carry, record(carry[0])

        blocks = jax.tree.map(
            lambda a: a.reshape(s.steps // s.every, s.every, *a.shape[1:]), (jnp.arange(s.steps), drawn)
        )
        _, history = lax.scan(block, (p, ring), blocks)
        return jnp.concatenate([record(p)[None], history])

    return run


class QuadraticSetting(NamedTuple):
    """A quadratic for each worker, and horizon."""

    curvature: Any  # [workers, d]
    minimum: Any  # [workers, d]
    steps: int
    every: int
    slots: int  # length of the ring of old models


def quadratic_program(s: QuadraticSetting, unroll: int = 1, sparse: bool = False) -> Callable:
    """run(rate, delay, W) -> history [records, (loss, consensus distance)] of gossip with old models.

    Args:
      sparse: W is (neighbours, weights), [workers, degree] each, of models without delay.
    """
    a, b = jnp.asarray(s.curvature, jnp.float32), jnp.asarray(s.minimum, jnp.float32)

    def record(x: Any) -> Any:
        mean = x.mean(0)
        loss = 0.5 * jnp.mean(jnp.sum(a * (mean - b) ** 2, -1))
        return jnp.stack([loss, jnp.mean(jnp.sum((x - mean) ** 2, -1))])

    def run(rate: Any, delay: Any, w: Any) -> Any:
        def sparse_step(carry: Any, k: Any) -> Any:
            x, ring = carry
            neighbours, weights = w
            near = sum(weights[:, j, None] * x[neighbours[:, j]] for j in range(neighbours.shape[1]))
            return (near - rate * a * (x - b), ring), None

        def step(carry: Any, k: Any) -> Any:
            x, ring = carry
            ring = put(ring, x, k % s.slots, 0)
            own = jnp.diag(w)
            mixed = (w - jnp.diag(own)) @ ring[(k - delay) % s.slots] + own[:, None] * x
            return (mixed - rate * a * (x - b), ring), None

        def stretch(carry: Any, k: Any) -> Any:
            carry, _ = lax.scan(sparse_step if sparse else step, carry, k, unroll=unroll)
            return carry, record(carry[0])

        x = jnp.zeros_like(b)
        ring = jnp.zeros((0 if sparse else s.slots, *b.shape))
        _, history = lax.scan(stretch, (x, ring), jnp.arange(s.steps).reshape(-1, s.every))
        return jnp.concatenate([record(x)[None], history])

    return run


class TextSetting(NamedTuple):
    """One text, one transformer and horizon."""

    x: Any  # [workers, samples, context] int32
    y: Any  # the same shape: the next characters
    counts: Any  # [workers]
    seen_x: Any  # [samples, context]: what the loss is recorded on
    seen_y: Any
    test_x: Any
    test_y: Any
    kinds: int
    width: int
    heads: int
    layers: int
    batch: int
    steps: int
    every: int


def transformer_program(s: TextSetting) -> Callable:
    """run(seed, rate) -> history [records, (loss, accuracy)]: all-reduce SGD on a small GPT, all workers' models kept."""
    n, _, context = s.x.shape
    x, y, size = jnp.asarray(s.x), jnp.asarray(s.y), s.width // s.heads
    rows, before = jnp.arange(n), np.tril(np.ones((context, context), bool))

    def norm(p: Any, h: Any) -> Any:
        mean = h.mean(-1, keepdims=True)
        variance = ((h - mean) ** 2).mean(-1, keepdims=True)
        return (h - mean) * lax.rsqrt(variance + 1e-6) * p["scale"] + p["bias"]

    def block(h: Any, p: Any) -> Any:
        q, k, v = jnp.moveaxis((norm(p["norm_1"], h) @ p["qkv"]).reshape(*h.shape[:2], 3, s.heads, size), 2, 0)
        score = jnp.where(before, jnp.einsum("bihs,bjhs->bhij", q, k) / size**0.5, -jnp.inf)
        seen = jnp.einsum("bhij,bjhs->bihs", jax.nn.softmax(score), v).reshape(h.shape)
        h = h + seen @ p["out"]
        return h + jax.nn.gelu(norm(p["norm_2"], h) @ p["up"]) @ p["down"], None

    def logits(p: Any, x: Any) -> Any:
        h, _ = lax.scan(block, p["token"][x] + p["position"], p["blocks"])
        return norm(p["norm"], h) @ p["head"]

    def loss(p: Any, x: Any, y: Any) -> Any:
        return optax.softmax_cross_entropy_with_integer_labels(logits(p, x), y).mean()

    def start(key: Any) -> Any:
        w, wide = s.width, 4 * s.width
        shapes = {"qkv": (w, 3 * w), "out": (w, w), "up": (w, wide), "down": (wide, w)}
        norms = {"scale": jnp.ones(w), "bias": jnp.zeros(w)}
        stacked = {name: jnp.zeros((s.layers, *shape)) for name, shape in shapes.items()}
        flat = {"token": jnp.zeros((s.kinds, w)), "position": jnp.zeros((context, w)), "head": jnp.zeros((w, s.kinds))}
        leaves, tree = jax.tree.flatten((stacked, flat))
        ends = np.cumsum([a.size for a in leaves])
        pieces = jnp.split(jax.random.normal(key, (int(ends[-1]),)), ends[:-1])
        stacked, flat = jax.tree.unflatten(tree, [z.reshape(a.shape) for z, a in zip(pieces, leaves, strict=True)])
        blocks = {name: a / a.shape[1] ** 0.5 for name, a in stacked.items()}
        both = {name: jax.tree.map(lambda a: jnp.stack([a] * s.layers), norms) for name in ("norm_1", "norm_2")}
        return {name: 0.02 * a for name, a in flat.items()} | {"blocks": blocks | both, "norm": norms}

    def record(p: Any) -> Any:
        mean = jax.tree.map(lambda a: a.mean(0), p)
        right = jnp.argmax(logits(mean, jnp.asarray(s.test_x)), -1) == s.test_y
        return jnp.stack([loss(mean, jnp.asarray(s.seen_x), jnp.asarray(s.seen_y)), right.mean()])

    def run(seed: Any, rate: Any) -> Any:
        key, first = jax.random.split(jax.random.key(seed))
        drawn = jax.random.randint(key, (s.steps // s.every, s.every, n, s.batch), 0, s.counts[:, None])
        p = jax.tree.map(lambda a: jnp.broadcast_to(a, (n, *a.shape)), start(first))

        def step(p: Any, index: Any) -> Any:
            g = jax.vmap(jax.grad(loss))(p, x[rows[:, None], index], y[rows[:, None], index])
            return jax.tree.map(lambda a, b: a - rate * b.mean(0), p, g), None

        def stretch(p: Any, index: Any) -> Any:
            p, _ = lax.scan(step, p, index)
            return p, record(p)

        _, history = lax.scan(stretch, p, drawn)
        return jnp.concatenate([record(p)[None], history])

    return run


def gradient(w: Any, b: Any, x: Any, right: Any) -> Any:
    """Of the softmax loss, NumPy: w [..., classes, features], x [..., batch, features], right [..., batch, classes]."""
    z = x @ np.swapaxes(w, -1, -2) + b[..., None, :]
    z = np.exp(z - z.max(-1, keepdims=True))
    error = (z / z.sum(-1, keepdims=True) - right) / x.shape[-2]
    return np.swapaxes(error, -1, -2) @ x + L2 * w, error.sum(-2) + L2 * b


def event_loop(s: Setting, scale: Any, rate: float) -> tuple[Any, Any]:
    """(w, b) after `s.steps` arrivals at a server: the usual simulator, a heap of events and NumPy, nothing recorded."""
    rng, x, right = np.random.default_rng(0), s.x.astype(np.float32), np.eye(s.classes, dtype=np.float32)[s.y]
    n, _, features = x.shape
    w, b = np.zeros((s.classes, features), np.float32), np.zeros(s.classes, np.float32)
    pulled = [(w, b)] * n
    events = [(scale[i] * rng.exponential(), i) for i in range(n)]
    heapq.heapify(events)
    for _ in range(s.steps):
        now, i = heapq.heappop(events)
        index = (rng.random(s.batch) * s.counts[i]).astype(int)
        gw, gb = gradient(*pulled[i], x[i, index], right[i, index])
        w, b = w - rate * gw, b - rate * gb
        pulled[i] = w, b
        heapq.heappush(events, (now + scale[i] * rng.exponential(), i))
    return w, b


def numpy_program(method: str, s: Setting) -> Callable:
    """run(seed, rates, delays, W, arrivals) -> history [records, runs, metrics] of a slab of runs at once."""
    n, samples, features = s.x.shape
    x, counts = s.x.astype(np.float32), np.asarray(s.counts)
    right = np.eye(s.classes, dtype=np.float32)[s.y]  # [workers, samples, classes]
    inside = (np.arange(samples) < counts[:, None]) / counts[:, None] / n
    test_x, test_y = s.test_x.astype(np.float32), np.asarray(s.test_y)

    def record(w: Any, b: Any) -> Any:
        mw, mb = w.mean(1), b.mean(1)  # [runs, ...]
        z = np.einsum("nsf,rcf->rnsc", x, mw, optimize=True) + mb[:, None, None]
        top = z.max(-1, keepdims=True)
        e = np.exp(z - top)
        total = e.sum(-1, keepdims=True)
        f = np.einsum("ns,rns->r", inside, (np.log(total) + top)[..., 0] - (z * right).sum(-1)) + 0.5 * L2 * (
            (mw**2).sum((1, 2)) + (mb**2).sum(1)
        )
        error = (e / total - right) * inside[..., None]
        gw, gb = np.einsum("rnsc,nsf->rcf", error, x, optimize=True) + L2 * mw, error.sum((1, 2)) + L2 * mb
        norm = np.sqrt((gw**2).sum((1, 2)) + (gb**2).sum(1))
        apart = (((w - mw[:, None]) ** 2).sum((1, 2, 3)) + ((b - mb[:, None]) ** 2).sum((1, 2))) / n
        accuracy = np.mean(np.argmax(test_x @ np.swapaxes(mw, 1, 2) + mb[:, None], -1) == test_y, -1)
        return np.stack([f, norm, apart, accuracy], -1)

    def run(seed: int, rates: Any, delays: Any, w_mix: Any, arrivals: Any) -> Any:
        rng, runs = np.random.default_rng(seed), len(rates)
        rate = np.asarray(rates, np.float32)[:, None, None]
        mix = np.asarray(w_mix, np.float32)
        models = 1 if method == "async_sgd" else n
        w, b = (
            np.zeros((runs, models, s.classes, features), np.float32),
            np.zeros((runs, models, s.classes), np.float32),
        )
        slots = n if method == "async_sgd" else s.slots
        ring_w = np.zeros((runs, slots, *(w.shape[2:] if method == "async_sgd" else w.shape[1:])), np.float32)
        ring_b = np.zeros((runs, slots, *(b.shape[2:] if method == "async_sgd" else b.shape[1:])), np.float32)
        every, rows, history = np.arange(runs), np.arange(n)[:, None], [record(w, b)]
        for k in range(s.steps):
            if method == "async_sgd":
                i = arrivals[:, k]
                index = (rng.random((runs, s.batch)) * counts[i][:, None]).astype(int)
                gw, gb = gradient(ring_w[every, i], ring_b[every, i], x[i[:, None], index], right[i[:, None], index])
                w, b = w - (rate * gw)[:, None], b - (rate[..., 0] * gb)[:, None]
                ring_w[every, i], ring_b[every, i] = w[:, 0], b[:, 0]
            else:
                index = (rng.random((runs, n, s.batch)) * counts[:, None]).astype(int)
                at_w, at_b = w, b
                if method.startswith("delayed"):
                    ring_w[:, k % slots], ring_b[:, k % slots] = w, b
                    old = (k - delays) % slots
                    old_w, old_b = ring_w[every, old], ring_b[every, old]
                    if method == "delayed_sgd":
                        at_w, at_b = old_w, old_b
                gw, gb = gradient(at_w, at_b, x[rows, index], right[rows, index])
                if method in ("allreduce_sgd", "delayed_sgd"):
                    gw, gb = gw.mean(1, keepdims=True), gb.mean(1, keepdims=True)
                elif method == "gossip_sgd":
                    w, b = (mix @ w.reshape(runs, n, -1)).reshape(w.shape), mix @ b
                else:
                    own = np.diagonal(mix, axis1=1, axis2=2)[..., None]
                    off = mix - own * np.eye(n, dtype=np.float32)
                    w, b = (
                        (off @ old_w.reshape(runs, n, -1)).reshape(w.shape) + own[..., None] * w,
                        off @ old_b + own * b,
                    )
                w, b = w - rate[..., None] * gw, b - rate * gb
            if (k + 1) % s.every == 0:
                history.append(record(w, b))
        return np.stack(history)

    return run
