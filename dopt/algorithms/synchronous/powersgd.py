"""M = e + g; P = orth(mean of M Q); Q <- mean of Mᵀ P; x <- x + u(P Qᵀ), e <- M - P Qᵀ: a low-rank all-reduce, warm-started.

Vogels, Karimireddy, Jaggi 2019, 1905.13727, algorithms 1 and 2. P and Q of all workers are averaged, so that what is sent adds up on
its way. A leaf is taken as a matrix, its first axis by all others; where the factors would be
no smaller (as for vectors), it is averaged whole.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import optax

from dopt.algorithms.method import Method, Rate, synchronous
from dopt.algorithms.traits import AllReduce
from dopt.algorithms.trees import add, mean, subtract, zeros
from dopt.compression import checked_rank
from dopt.types import Reduction, Tree


class PowerState(NamedTuple):
    inner: optax.OptState
    error: Tree  # e, like params
    right: tuple[jax.Array | None, ...]  # Q [b, rank] of each leaf, the same on all workers; None: averaged whole


@synchronous(
    source="Vogels, Karimireddy, Jaggi 2019, 1905.13727",
    sends=lambda options, workers: AllReduce(Reduction(bits=checked_rank(options["rank"]).bits)),
)
def powersgd(
    optimizer: optax.GradientTransformation, mix: None = None, *, learning_rate: Rate | None = None, rank: int = 2
) -> Method:
    """PowerSGD: all-reduce of the two factors of a low-rank gradient, with error feedback.

    Args:
      rank: r of the factors.
    """
    inner, low = optax.with_extra_args_support(optimizer), checked_rank(rank)

    def init(params: Tree) -> PowerState:
        return PowerState(inner.init(params), zeros(params), low.start(params))

    def update(grads: Tree, state: PowerState, params: Tree = None, **extra: object) -> tuple[Tree, PowerState]:
        wanted = add(grads, state.error)
        leaves, form = jax.tree.flatten(wanted)
        sent, right = zip(*(low.project(*leaf, mean) for leaf in zip(leaves, state.right, strict=True)), strict=True)
        together = jax.tree.unflatten(form, sent)
        # what is averaged whole leaves no error: all of it was sent
        own = jax.tree.unflatten(form, [x if Q is None else m for x, m, Q in zip(leaves, sent, right, strict=True)])
        updates, new = inner.update(together, state.inner, params, **extra)
        return updates, PowerState(new, subtract(wanted, own), right)

    return Method(init, update)
