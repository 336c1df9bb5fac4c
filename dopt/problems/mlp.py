"""fᵢ(x) = mean cross-entropy of a fully connected network on worker i's samples + (l2/2)‖x‖²; not convex."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dopt.problems.base import Shards, problem
from dopt.problems.networks import classifier
from dopt.types import InputError, Key, Params, Problem


@problem(source="multilayer perceptron (flax)", data="digits")
def mlp(
    shards: Shards, workers: int, *, hidden: tuple[int, ...] = (32,), l2: float = 0.0, weighted: bool = False
) -> Problem:
    """A multilayer perceptron with ReLU; `hidden` are its widths."""
    from flax import linen as nn

    if not hidden or min(hidden) < 1:
        raise InputError(f"problem.hidden: must be widths of at least 1, as [32, 32], got {list(hidden)}")
    layers = [layer for width in hidden for layer in (nn.Dense(width), nn.relu)]
    network = nn.Sequential([*layers, nn.Dense(shards.classes)])
    one = jnp.zeros((1, shards.train["x"].shape[-1]))

    def init(key: Key) -> Params:
        return network.init(key, one)["params"]

    def logits(params: Params, x: jax.Array) -> jax.Array:
        return jnp.asarray(network.apply({"params": params}, x))

    return classifier(init, logits, shards, l2, weighted)
