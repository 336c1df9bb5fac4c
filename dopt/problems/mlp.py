"""fᵢ(x) = mean cross-entropy of a fully connected network on worker i's samples + (l2/2)‖x‖²; not convex."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from dopt.problems import layouts
from dopt.problems.base import Shards, problem
from dopt.problems.networks import EVALUATED, classifier
from dopt.registry import Width
from dopt.types import PARTS, WHOLE, InputError, Key, Layout, Params, Problem

Logits = Callable[[Params, jax.Array], jax.Array]


@problem(source="multilayer perceptron (flax)", data="digits", eval_samples=EVALUATED)
def mlp(
    shards: Shards,
    workers: int,
    *,
    hidden: tuple[Width, ...] = (32,),
    l2: float = 0.0,
    weighted: bool = False,
    layout: str = "none",
    parts: int = 1,
    micro_batches: int = 1,
) -> Problem:
    """A multilayer perceptron with ReLU.

    Args:
      hidden: widths of the hidden layers.
      l2: of all parameters.
      weighted: weigh worker i by its number of samples in f.
      layout: how a worker's model is split over several devices: none, tensors or layers.
      parts: devices for each worker's model.
      micro_batches: pieces that a batch is cut into, with layout layers.
    """
    if not hidden or min(hidden) < 1:
        raise InputError(f"problem.hidden: must be widths of at least 1, as [32, 32], got {list(hidden)}")
    layouts.check(layout, parts, micro_batches)
    from flax import linen as nn

    layers = [layer for width in hidden for layer in (nn.Dense(width), nn.relu)]
    network = nn.Sequential([*layers, nn.Dense(shards.classes)])
    one = jnp.zeros((1, shards.train["x"].shape[-1]))

    def init(key: Key) -> Params:
        return network.init(key, one)["params"]

    def on_one_device(params: Params, x: jax.Array) -> jax.Array:
        return jnp.asarray(network.apply({"params": params}, x))

    laid: Layout | None = None
    logits: Logits = on_one_device
    if layout == "tensors":
        laid, logits = by_tensors(hidden, parts)
    elif layout == "layers":
        laid, logits = by_layers(hidden, parts, micro_batches)

    return classifier(init, logits, shards, l2, weighted, laid)


def dense(number: int) -> str:
    """Name of a layer's parameters; ReLUs have none, but are counted by flax."""
    return f"layers_{2 * number}"


def affine(layer: Params, x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"]


def by_tensors(hidden: tuple[int, ...], parts: int) -> tuple[Layout, Logits]:
    """Layers in pairs, by columns, then by rows with a psum; of an odd number the last is not split."""
    last = len(hidden)
    if any(width % parts for width in hidden[::2]):
        raise InputError(
            f"problem.hidden: the first, third, ... width must be a multiple of problem.parts={parts}, got {list(hidden)}"
        )
    columns, rows = ([dense(i) for i in range(first, last + first, 2)] for first in (0, 1))

    axes: dict[tuple[str, ...], int]
    axes = {(layer, leaf): axis for layer in columns for leaf, axis in (("kernel", 1), ("bias", 0))}
    axes |= {(layer, "kernel"): 0 for layer in rows}

    def apply(params: Params, x: jax.Array, reduce: Callable[[jax.Array], jax.Array]) -> jax.Array:
        for i in range(last + 1):
            layer = params[dense(i)]
            x = x @ layer["kernel"]
            x = (reduce(x) if dense(i) in rows else x) + layer["bias"]
            x = jax.nn.relu(x) if i < last else x
        return x

    return layouts.make(parts, axes.get), layouts.by_tensors(apply, parts)


def by_layers(hidden: tuple[int, ...], parts: int, micro_batches: int) -> tuple[Layout, Logits]:
    """Stages of layers of one width; the first, which reads the features, and the readout are not split."""
    last = len(hidden)
    if len(set(hidden)) > 1:
        raise InputError(f"problem.hidden: stages have one shape, so all widths must be equal, got {list(hidden)}")
    if last == 1 or (last - 1) % parts:
        raise InputError(
            f"problem.hidden: after the first there must be a multiple of problem.parts={parts} widths, got {last - 1}; use {1 + parts * max(1, round((last - 1) / parts))} widths"
        )
    stages = layouts.make(parts, lambda path: 0 if path[0] == "stages" else None, micro_batches)

    def split(params: Params) -> Params:
        inner = jax.tree.map(lambda *x: jnp.stack(x), *[params[dense(i)] for i in range(1, last)])
        return stages.split({"first": params[dense(0)], "stages": inner, "last": params[dense(last)]})

    def whole(params: Params) -> Params:
        found = stages.whole(params)
        inner = {dense(i): jax.tree.map(lambda x: x[i - 1], found["stages"]) for i in range(1, last)}
        return {dense(0): found["first"], **inner, dense(last): found["last"]}

    def stage(own: Params, h: jax.Array) -> jax.Array:
        return lax.scan(lambda h, layer: (jax.nn.relu(affine(layer, h)), None), h, own)[0]

    def logits(params: Params, x: jax.Array) -> jax.Array:
        h = jax.nn.relu(affine(params[WHOLE]["first"], x))
        h = layouts.by_layers(stage, params[PARTS]["stages"], h, parts, micro_batches)
        return affine(params[WHOLE]["last"], h)

    return stages._replace(split=split, whole=whole), logits
