"""What networks have in common: cross-entropy of classes, a start drawn at once, and features that are images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dopt import draws
from dopt.problems import layouts
from dopt.problems.base import Shards, cross_entropy, half_square, mean_of, regularizer
from dopt.types import Batch, InputError, Key, Layout, Params, Problem

EVALUATED = (
    2000  # samples that metrics look at by default: all 60 000 of MNIST cost a small network minutes for each record
)


def classifier(
    init: Callable[[Key], Params],
    logits: Callable[[Params, jax.Array], jax.Array],
    shards: Shards,
    l2: float,
    weighted: bool,
    layout: Layout | None = None,
) -> Problem:
    """fᵢ(x) = mean cross-entropy of `logits` [..., classes] against y on worker i's samples + (l2/2)‖x‖²; not convex.

    With a layout, `logits` takes params that it has split, `init` gives them whole.
    """
    l2, _ = regularizer(l2)

    def loss(params: Params, batch: Batch) -> jax.Array:
        each = optax.softmax_cross_entropy_with_integer_labels(logits(params, batch["x"]), batch["y"])
        return each.mean() + l2 * half_square(params)

    def weighted_loss(params: Params, batch: Batch, weights: jax.Array) -> jax.Array:
        places = math.prod(batch["y"].shape[1:])  # a sample may be a text
        each = jnp.expand_dims(weights / places, range(1, batch["y"].ndim))
        return cross_entropy(logits(params, batch["x"]), batch["y"], each, axis=-1) + l2 * half_square(params)

    def accuracy(params: Params, test: Batch) -> jax.Array:
        return mean_of(jnp.argmax(logits(params, test["x"]), -1) == test["y"], params)

    return Problem(
        layouts.start(init, layout),
        loss,
        shards.train,
        shards.counts,
        test=shards.test,
        metrics={"accuracy": accuracy} if shards.test else {},
        weighted=weighted,
        note="suboptimality is left out: f* of a network is not known",
        layout=layout,
        weighted_loss=weighted_loss,
    )


class Start(NamedTuple):
    """How a parameter starts: mean + deviation x normal."""

    shape: tuple[int, ...]
    deviation: float = 0.0
    mean: float = 0.0


def drawn(starts: Params, key: Key) -> Params:
    """Normal numbers, one draw for all leaves: a draw for each would take half a second to compile, each."""
    leaves, tree = jax.tree.flatten(starts, is_leaf=lambda s: isinstance(s, Start))
    ends = np.cumsum([np.prod(s.shape) for s in leaves])
    pieces = jnp.split(jax.random.normal(key, (int(ends[-1]),), jnp.float32), ends[:-1])

    def one(s: Start, z: jax.Array) -> jax.Array:
        # the compiler repeats the draw in each leaf that reads of it
        return s.mean + s.deviation * z.reshape(s.shape) if s.deviation else jnp.full(s.shape, s.mean, z.dtype)

    return jax.tree.unflatten(tree, [one(s, z) for s, z in zip(leaves, pieces, strict=True)])


def he(module: Any, one: jax.Array) -> Params:
    """Starts of a flax module of ReLUs: kernels [..., inputs, outputs] of variance 2/inputs, scales 1, biases 0.

    He et al. 2015, 1502.01852.
    """

    def start(path: tuple[jax.tree_util.DictKey, ...], x: jax.Array) -> Start:
        if path[-1].key == "kernel":
            return Start(x.shape, (2 / math.prod(x.shape[:-1])) ** 0.5)
        return Start(x.shape, mean=1.0 if path[-1].key == "scale" else 0.0)

    return jax.tree.map_with_path(start, jax.eval_shape(module.init, draws.start(0), one)["params"])


def image_network(module: Any, shards: Shards, l2: float, weighted: bool, least: int = 1) -> Problem:
    """The classifier that a flax module is on images [batch, side, side, channels], of `least` pixels a side."""
    side, channels = image(shards, least)
    starts = he(module, jnp.zeros((1, side, side, channels)))

    def logits(params: Params, x: jax.Array) -> jax.Array:
        planes = x.reshape(-1, channels, side, side)  # as MNIST and CIFAR-10 come: one plane after the other
        return jnp.asarray(module.apply({"params": params}, jnp.moveaxis(planes, 1, -1)))

    return classifier(lambda key: drawn(starts, key), logits, shards, l2, weighted)


def image(shards: Shards, least: int) -> tuple[int, int]:
    """(side, channels) of square images in grey or in colours, which their number of features tells."""
    features = shards.train["x"].shape[-1]
    for channels in (1, 3):
        side = math.isqrt(features // channels)
        if channels * side**2 == features and side >= least:
            return side, channels
    raise InputError(
        f"data: must be square images of 1 or 3 channels, at least {least} x {least}, got {features} features; use digits, mnist or cifar10"
    )


def check_groups(groups: int, channels: tuple[int, ...]) -> None:
    """Refuse groups of GroupNorm that do not divide the channels; 0 groups: no GroupNorm."""
    for count in channels:
        if groups < 0 or (groups and count % groups):
            raise InputError(
                f"problem.groups: must divide {count} channels, got {groups}; use {max(1, math.gcd(max(groups, 0), count))}"
            )
