"""fᵢ(x) = mean cross-entropy, over all characters of worker i's samples, of predicting the next one + (l2/2)‖x‖²; not convex.

A small decoder-only transformer with pre-LayerNorm (GPT-2: Radford et al. 2019), causal attention (Vaswani et al. 2017,
1706.03762), learned positions and, as PaLM (2204.02311), no biases in its products:

    h ← token[x] + position;    h ← h + out(attention(qkv(norm(h)))),  h ← h + down(gelu(up(norm(h))))  in each layer

The parts are flax layers, their parameters a plain dict. Those of the blocks are stacked, leaves [layers, ...], and one
`lax.scan` goes through them; a block adds what its heads give, then what its hidden units give, so that both may be
split, and what the parts give be summed by `reduce`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax

from dopt.problems.base import Shards, half_square, problem, regularizer
from dopt.types import Batch, InputError, Key, Params, Problem

Layers = dict[str, Any]  # name -> flax layer; parameters are a dict of the same names

_small = nn.initializers.normal(0.02)


def block_layers(heads: int, size: int, hidden: int, width: int) -> Layers:
    """The layers of a block with so many heads, of `size` each, and hidden units: all of them, or one device's part."""
    return {
        "norm_heads": nn.LayerNorm(),
        "qkv": nn.DenseGeneral((3, heads, size), use_bias=False),  # [width, 3, heads, size]
        "out": nn.DenseGeneral(width, axis=(-2, -1), use_bias=False),  # [heads, size, width]
        "norm_hidden": nn.LayerNorm(),
        "up": nn.Dense(hidden, use_bias=False),  # [width, hidden]
        "down": nn.Dense(width, use_bias=False),  # [hidden, width]
    }


def apply(layers: Layers, params: Params, name: str, x: jax.Array) -> jax.Array:
    """The layer `name` at x."""
    return jnp.asarray(layers[name].apply({"params": params[name]}, x))


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """softmax(q kᵀ / √size) v of each head, where a character sees itself and those before it. All [batch, context, heads, size]."""
    score = jnp.einsum("bihs,bjhs->bhij", q, k) * q.shape[-1] ** -0.5
    before = jnp.tril(jnp.ones(score.shape[-2:], bool))
    weight = jax.nn.softmax(jnp.where(before, score, -jnp.inf), axis=-1)
    return jnp.einsum("bhij,bjhs->bihs", weight, v)


def block(
    layers: Layers, params: Params, h: jax.Array, reduce: Callable[[jax.Array], jax.Array] = lambda x: x
) -> jax.Array:
    """One block at h [batch, context, width]; `reduce` sums over the devices among which its heads and hidden units are split."""
    qkv = apply(layers, params, "qkv", apply(layers, params, "norm_heads", h))
    h = h + reduce(apply(layers, params, "out", attention(*(qkv[..., i, :, :] for i in range(3)))))
    hidden = nn.gelu(apply(layers, params, "up", apply(layers, params, "norm_hidden", h)))
    return h + reduce(apply(layers, params, "down", hidden))


def block_init(layers: Layers, key: Key, h: jax.Array) -> Params:
    """Parameters of one block: each layer started by flax from a key of its own, on an input of the shape it will see."""
    inputs = {"qkv": h, "norm_heads": h, "norm_hidden": h, "up": h}
    inputs["out"] = jnp.zeros((*h.shape[:-1], *layers["qkv"].features[1:]))
    inputs["down"] = jnp.zeros((*h.shape[:-1], layers["up"].features))
    keys = dict(zip(layers, jax.random.split(key, len(layers)), strict=True))
    return {name: layer.init(keys[name], inputs[name])["params"] for name, layer in layers.items()}


@problem(source="a small GPT, Radford et al. 2019; Vaswani et al. 2017, 1706.03762 (flax)", data="text")
def transformer(
    shards: Shards,
    workers: int,
    *,
    width: int = 32,
    heads: int = 2,
    layers: int = 2,
    l2: float = 0.0,
    weighted: bool = False,
) -> Problem:
    """A small GPT that predicts the next character of a text.

    Args:
      width: numbers that stand for a character between layers; hidden units are four times as many.
      heads: heads of attention, each of width / heads numbers.
      layers: blocks.
      l2: of all parameters.
      weighted: weigh worker i by its number of samples in f.
    """
    for name, value in (("width", width), ("heads", heads), ("layers", layers)):
        if value < 1:
            raise InputError(f"problem.{name}: must be at least 1, got {value}")
    if width % heads:
        raise InputError(f"problem.heads: must divide problem.width={width}, got {heads}; use {_divisor(width, heads)}")
    l2, _ = regularizer(l2)
    context, kinds = _fitting(shards)
    inner = block_layers(heads, width // heads, 4 * width, width)
    outer: Layers = {"norm": nn.LayerNorm(), "head": nn.Dense(kinds, use_bias=False, kernel_init=_small)}

    def init(key: Key) -> Params:
        h = jnp.zeros((1, context, width))
        token, position, norm, head, rest = jax.random.split(key, 5)
        return {
            "token": _small(token, (kinds, width), jnp.float32),  # named, so that float64 runs start there, too
            "position": _small(position, (context, width), jnp.float32),
            "blocks": jax.vmap(lambda key: block_init(inner, key, h))(jax.random.split(rest, layers)),
            "norm": outer["norm"].init(norm, h)["params"],
            "head": outer["head"].init(head, h)["params"],
        }

    def logits(params: Params, x: jax.Array) -> jax.Array:
        h = params["token"][x] + params["position"]
        h, _ = lax.scan(lambda h, own: (block(inner, own, h), None), h, params["blocks"])
        return apply(outer, params, "head", apply(outer, params, "norm", h))

    def loss(params: Params, batch: Batch) -> jax.Array:
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits(params, batch["x"]), batch["y"]).mean()
        return cross_entropy + l2 * half_square(params)

    def accuracy(params: Params, test: Batch) -> jax.Array:
        return jnp.mean(jnp.argmax(logits(params, test["x"]), -1) == test["y"])

    return Problem(
        init,
        loss,
        shards.train,
        shards.counts,
        test=shards.test,
        metrics={"accuracy": accuracy} if shards.test else {},
        weighted=weighted,
        note="suboptimality is left out: f* of a network is not known",
    )


def _fitting(shards: Shards) -> tuple[int, int]:
    """(context, characters of the vocabulary), of samples that are text."""
    x, y, kinds = shards.train["x"], shards.train["y"], shards.classes
    if x.ndim != 3 or x.dtype.kind not in "iu" or x.shape != y.shape:
        raise InputError(
            f"data: transformer learns from text, x and y [workers, samples, context] of whole numbers, got x {x.shape} {x.dtype}, y {y.shape}; use data=text"
        )
    parts = [shards.train] if shards.test is None else [shards.train, shards.test]
    largest, least = (int(f([f(leaf) for part in parts for leaf in part.values()])) for f in (np.max, np.min))
    if least < 0 or largest >= kinds:
        raise InputError(
            f"data: characters must be numbers from 0 to {kinds - 1}, got {least if least < 0 else largest}; make the vocabulary from all of the text"
        )
    if shards.test is not None and shards.test["x"].shape[-1] != x.shape[-1]:
        raise InputError(
            f"data: held-out samples must have the same context, {x.shape[-1]} characters, got {shards.test['x'].shape[-1]}"
        )
    return int(x.shape[-1]), kinds


def _divisor(width: int, heads: int) -> int:
    """The divisor of `width` that is nearest to `heads`."""
    return min((d for d in range(1, width + 1) if width % d == 0), key=lambda d: abs(d - heads))
