"""x <- x + u(mean gᵢ), the mean made by hand on a ring: n - 1 rounds of reduce-scatter, n - 1 of all-gather, one `ppermute` each.

Patarasuk, Yuan 2009: the vector is cut into n chunks. In round r of the first half worker i sends chunk i - r to its neighbour, who adds
its own to it; then worker i holds chunk i + 1 summed up, and in the second half the sums go round. Each worker sends 2(n-1)/n of the
vector, and no all-reduce can send less. Equals psum to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree

from dopt.algorithms.method import Method, Rate, synchronous
from dopt.permute import onward
from dopt.types import AXIS, Tree

UNROLLED = 16  # workers up to which the rounds are written out, each with its own permute


def ring_sum(x: jax.Array) -> jax.Array:
    """[d] summed over the workers, by messages of ⌈d/n⌉ numbers to the next one on a ring."""
    n, i = lax.axis_size(AXIS), lax.axis_index(AXIS)
    size = -(-x.size // n)
    chunks = jnp.pad(x, (0, n * size - x.size)).reshape(n, size)

    def reduce(r: jax.Array, part: jax.Array) -> jax.Array:
        return onward(part, i, n) + chunks[(i - r - 1) % n]

    def gather(r: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        part = onward(carry[0], i, n)
        return part, carry[1].at[(i - r) % n].set(part)

    def rounds(turn: Callable, carry: Any) -> Any:
        return lax.fori_loop(0, n - 1, turn, carry, unroll=n <= UNROLLED or None)

    own = rounds(reduce, chunks[i])
    _, sums = rounds(gather, (own, jnp.zeros_like(chunks).at[(i + 1) % n].set(own)))
    return sums.reshape(-1)[: x.size]


@synchronous(source="Patarasuk, Yuan 2009, bandwidth optimal all-reduce algorithms")
def ring_allreduce_sgd(
    optimizer: optax.GradientTransformation, mix: None = None, *, learning_rate: Rate | None = None
) -> Method:
    """Synchronous gradient descent whose all-reduce is a ring of messages."""
    inner = optax.with_extra_args_support(optimizer)

    def update(grads: Tree, state: optax.OptState, params: Tree = None, **extra: object) -> tuple[Tree, Any]:
        flat, back = ravel_pytree(grads)
        return inner.update(back(ring_sum(flat) / lax.axis_size(AXIS)), state, params, **extra)

    return Method(inner.init, update)
