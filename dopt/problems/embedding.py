"""fᵢ(x) = mean over worker i's ratings of ½ (u · v + b + c - r)² + (l2/2) (‖u, b‖² + ‖v, c‖²); not convex.

(u, b) is the row of the user and (v, c) that of the item: matrix factorization with biases (Koren, Bell, Volinsky 2009), the
factorization machine (Rendle 2010) of two features. A gradient touches the rows of its batch and no others, the regularizer's
too; so only those travel to a parameter server and back.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dopt.problems.base import Shards, problem, regularizer
from dopt.problems.networks import Start, drawn
from dopt.types import Batch, InputError, Key, Params, Problem


@problem(source="matrix factorization, Koren, Bell and Volinsky 2009; Rendle 2010", data="ratings")
def embedding(
    shards: Shards, workers: int, *, rank: int = 8, l2: float = 1e-3, start: float = 0.1, weighted: bool = False
) -> Problem:
    """Matrix factorization of ratings by users and items; only touched rows travel to a server.

    Args:
      rank: numbers for each user and each item, besides its bias.
      l2: of the rows that a rating touches.
      start: standard deviation of the first rows; at 0 they would never move.
      weighted: weigh worker i by its number of ratings in f.
    """
    if rank < 1:
        raise InputError(f"problem.rank: must be at least 1, got {rank}")
    if not 0 < start < float("inf"):
        raise InputError(f"problem.start: must be positive and finite, got {start}")
    l2, _ = regularizer(l2)
    users, items = _sizes(shards)
    starts = {"users": Start((users, rank + 1), start), "items": Start((items, rank + 1), start)}

    def init(key: Key) -> Params:
        return drawn(starts, key)

    def rows(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return params["users"][x[..., 0]], params["items"][x[..., 1]]

    def predicted(user: jax.Array, item: jax.Array) -> jax.Array:
        return jnp.sum(user[..., :-1] * item[..., :-1], -1) + user[..., -1] + item[..., -1]

    def losses(params: Params, batch: Batch) -> jax.Array:
        user, item = rows(params, batch["x"])
        square = (predicted(user, item) - batch["y"]) ** 2
        return square + l2 * (jnp.sum(user**2, -1) + jnp.sum(item**2, -1))

    def loss(params: Params, batch: Batch) -> jax.Array:
        return 0.5 * jnp.mean(losses(params, batch))

    def weighted_loss(params: Params, batch: Batch, weights: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum(weights * losses(params, batch))

    def rmse(params: Params, test: Batch) -> jax.Array:
        return jnp.sqrt(jnp.mean((predicted(*rows(params, test["x"])) - test["y"]) ** 2))

    def touched(batch: int) -> tuple[int, int]:
        both = min(batch, users) + min(batch, items)
        return both * (rank + 1), both

    return Problem(
        init,
        loss,
        shards.train,
        shards.counts,
        test=shards.test,
        metrics={"rmse": rmse} if shards.test else {},
        weighted=weighted,
        touched=touched,
        weighted_loss=weighted_loss,
        note="suboptimality is left out: f* of a factorization is not known",
    )


def _sizes(shards: Shards) -> tuple[int, int]:
    """(users, items), of samples that are ratings."""
    x, y = shards.train["x"], shards.train["y"]
    if x.ndim != 3 or x.shape[-1] != 2 or x.dtype.kind not in "iu" or y.shape != x.shape[:2]:
        raise InputError(
            f"data: embedding learns from ratings, x [workers, samples, 2] of users and items and y [workers, samples], got x {x.shape} {x.dtype}, y {y.shape}; use data=ratings"
        )
    each = [part["x"].reshape(-1, 2) for part in (shards.train, shards.test) if part is not None]
    if min(pairs.min() for pairs in each) < 0:
        raise InputError("data: users and items must be numbers from 0, got a negative one")
    users, items = (int(max(pairs[:, column].max() for pairs in each)) + 1 for column in (0, 1))
    return users, items
