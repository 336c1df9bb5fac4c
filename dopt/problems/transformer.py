"""fᵢ(x) = mean cross-entropy, over all characters of worker i's samples, of predicting the next one + (l2/2)‖x‖²; not convex.

A small decoder-only transformer with pre-LayerNorm (GPT-2: Radford et al. 2019), causal attention (Vaswani et al. 2017,
1706.03762), learned positions and, as PaLM (2204.02311), no biases in its products:

    h ← token[x] + position;    h ← h + out(attention(qkv(norm(h)))),  h ← h + down(gelu(up(norm(h))))  in each layer

The parts are flax layers, their parameters a plain dict. Those of the blocks are stacked, leaves [layers, ...], and one
`lax.scan` goes through them; a block adds what its heads give, then what its hidden units give, so that both can
be split, and `reduce` sums what the parts give.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dopt.problems import layouts
from dopt.problems.base import Shards, problem
from dopt.problems.networks import EVALUATED, Start, classifier, drawn
from dopt.registry import Depth, Width
from dopt.types import PARTS, WHOLE, InputError, Key, Layout, Params, Problem

Layers = dict[str, Any]  # name -> flax layer; parameters are a dict of the same names

# where heads and hidden units stand in the stacked parameters of the blocks
TENSORS = {"qkv": 3, "out": 1, "up": 2, "down": 1}
SMALL = 0.02  # deviation of what characters and positions start from, and the head


def block_layers(heads: int, size: int, hidden: int, width: int) -> Layers:
    """The layers of a block with so many heads, of `size` each, and hidden units: all of them, or one device's part."""
    from flax import linen as nn

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
    hidden = jax.nn.gelu(apply(layers, params, "up", apply(layers, params, "norm_hidden", h)))
    return h + reduce(apply(layers, params, "down", hidden))


def through(
    layers: Layers, params: Params, h: jax.Array, reduce: Callable[[jax.Array], jax.Array] = lambda x: x
) -> jax.Array:
    """All blocks, one after the other; `params`: leaves [blocks, ...]."""
    return lax.scan(lambda h, own: (block(layers, own, h, reduce), None), h, params)[0]


def block_starts(heads: int, size: int, hidden: int, width: int) -> Params:
    """Where the parameters of a block's layers start."""
    norm = {"scale": Start((width,), mean=1.0), "bias": Start((width,))}
    return {
        "norm_heads": norm,
        "qkv": {"kernel": Start((width, 3, heads, size), width**-0.5)},
        "out": {"kernel": Start((heads, size, width), (heads * size) ** -0.5)},
        "norm_hidden": norm,
        "up": {"kernel": Start((width, hidden), width**-0.5)},
        "down": {"kernel": Start((hidden, width), hidden**-0.5)},
    }


@problem(
    source="a small GPT, Radford et al. 2019; Vaswani et al. 2017, 1706.03762 (flax)",
    data="text",
    eval_samples=EVALUATED,
)
def transformer(
    shards: Shards,
    workers: int,
    *,
    width: Width = 32,
    heads: int = 2,
    layers: Depth = 2,
    l2: float = 0.0,
    weighted: bool = False,
    layout: str = "none",
    parts: int = 1,
    micro_batches: int = 1,
) -> Problem:
    """A small GPT that predicts the next character of a text.

    Args:
      width: numbers that stand for a character between layers; hidden units are four times as many.
      heads: heads of attention, each of width / heads numbers.
      layers: blocks.
      l2: of all parameters.
      weighted: weigh worker i by its number of samples in f.
      layout: how a worker's model is split over several devices: none, tensors (heads and hidden units) or layers.
      parts: devices for each worker's model.
      micro_batches: pieces that a batch is cut into, with layout layers.
    """
    for name, value in (("width", width), ("heads", heads), ("layers", layers)):
        if value < 1:
            raise InputError(f"problem.{name}: must be at least 1, got {value}")
    if width % heads:
        raise InputError(f"problem.heads: must divide problem.width={width}, got {heads}; use {_divisor(width, heads)}")
    layouts.check(layout, parts, micro_batches)
    from flax import linen as nn

    context, kinds = _fitting(shards)
    inner = block_layers(heads, width // heads, 4 * width, width)
    outer: Layers = {"norm": nn.LayerNorm(), "head": nn.Dense(kinds, use_bias=False)}
    one = block_starts(heads, width // heads, 4 * width, width)
    starts = {
        "token": Start((kinds, width), SMALL),
        "position": Start((context, width), SMALL),
        "blocks": jax.tree.map(lambda s: s._replace(shape=(layers, *s.shape)), one, is_leaf=lambda s: type(s) is Start),
        "norm": one["norm_heads"],
        "head": {"kernel": Start((width, kinds), SMALL)},
    }

    def init(key: Key) -> Params:
        return drawn(starts, key)

    def enter(params: Params, x: jax.Array) -> jax.Array:
        return params["token"][x] + params["position"]

    def leave(params: Params, h: jax.Array) -> jax.Array:
        return apply(outer, params, "head", apply(outer, params, "norm", h))

    def on_one_device(params: Params, x: jax.Array) -> jax.Array:
        return leave(params, through(inner, params["blocks"], enter(params, x)))

    def of_part(params: Params, x: jax.Array, reduce: Callable[[jax.Array], jax.Array]) -> jax.Array:
        own = block_layers(heads // parts, width // heads, 4 * width // parts, width)
        return leave(params, through(own, params["blocks"], enter(params, x), reduce))

    def of_stages(params: Params, x: jax.Array) -> jax.Array:
        h, own = enter(params[WHOLE], x), params[PARTS]["blocks"]
        return leave(params[WHOLE], layouts.by_layers(partial(through, inner), own, h, parts, micro_batches))

    laid: Layout | None = None
    logits: Callable[[Params, jax.Array], jax.Array] = on_one_device
    if layout == "tensors":
        layouts.check_multiple("heads", heads, parts)
        laid = layouts.make(parts, lambda path: TENSORS.get(path[1]) if path[0] == "blocks" else None)
        logits = layouts.by_tensors(of_part, parts)
    elif layout == "layers":
        layouts.check_multiple("layers", layers, parts)
        laid = layouts.make(parts, lambda path: 0 if path[0] == "blocks" else None, micro_batches)
        logits = of_stages

    return classifier(init, logits, shards, l2, weighted, laid)


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
