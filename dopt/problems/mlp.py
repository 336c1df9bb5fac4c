"""fᵢ(x) = mean cross-entropy of a fully connected network on worker i's samples + (l2/2)‖x‖²; not convex."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from dopt.problems.base import Shards, half_square, problem, regularizer
from dopt.types import Batch, InputError, Key, Params, Problem


@problem(source="multilayer perceptron (flax)", data="digits")
def mlp(
    shards: Shards, workers: int, *, hidden: tuple[int, ...] = (32,), l2: float = 0.0, weighted: bool = False
) -> Problem:
    """A multilayer perceptron with ReLU; `hidden` are its widths."""
    from flax import linen as nn

    if not hidden or min(hidden) < 1:
        raise InputError(f"problem.hidden: must be widths of at least 1, as [32, 32], got {list(hidden)}")
    l2, _ = regularizer(l2)
    layers = [layer for width in hidden for layer in (nn.Dense(width), nn.relu)]
    network = nn.Sequential([*layers, nn.Dense(shards.classes)])
    one = jnp.zeros((1, shards.train["x"].shape[-1]))

    def init(key: Key) -> Params:
        return network.init(key, one)["params"]

    def logits(params: Params, x: jax.Array) -> jax.Array:
        return jnp.asarray(network.apply({"params": params}, x))

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
