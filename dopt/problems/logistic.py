"""fᵢ(x) = mean over worker i's samples of log(1 + exp(-y a·x)) + (l2/2)‖x‖², y = ±1, without intercept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dopt.problems.base import Shards, convex_optimum, half_square, mean_of, problem, regularizer
from dopt.types import Batch, Key, Params, Problem


@problem(source="binary logistic regression", data="digits")
def logistic(shards: Shards, workers: int, *, l2: float = 1e-3, weighted: bool = False) -> Problem:
    """Binary logistic regression, strongly convex by l2; with more than two classes, the odd ones against the even ones."""
    l2, note = regularizer(l2)
    features = shards.train["x"].shape[-1]
    signs = shards._replace(train=_signed(shards.train), test=_signed(shards.test) if shards.test else None)

    def init(key: Key) -> Params:
        return jnp.zeros(features)

    def loss(x: Params, batch: Batch) -> jax.Array:
        return jnp.mean(jax.nn.softplus(-batch["y"] * (batch["x"] @ x))) + l2 * half_square(x)

    def weighted_loss(x: Params, batch: Batch, weights: jax.Array) -> jax.Array:
        return jnp.sum(weights * jax.nn.softplus(-batch["y"] * (batch["x"] @ x))) + l2 * half_square(x)

    def accuracy(x: Params, test: Batch) -> jax.Array:
        return mean_of(jnp.sign(test["x"] @ x) == test["y"], x)

    return Problem(
        init,
        loss,
        signs.train,
        signs.counts,
        test=signs.test,
        metrics={"accuracy": accuracy} if signs.test else {},
        optimum=convex_optimum(loss, init, signs, l2, weighted, "logistic"),
        weighted=weighted,
        note=note,
        weighted_loss=weighted_loss,
    )


def _signed(samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Class 0 (even classes) becomes -1, class 1 (odd classes) +1."""
    return {**samples, "y": np.where(samples["y"] % 2 == 1, 1.0, -1.0)}
