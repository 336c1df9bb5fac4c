"""Random numbers by their coordinates: a function of (seed, worker, number) alone.

Not of the method, the chunk, the width of a slab, the executor or the other runs. One Threefry block per two numbers,
with (seed, worker) as key and (number, stream and lane) as counter: a chain of `fold_in` would hash, and compile, five
times as much. Salmon et al. 2011, parallel random numbers: as easy as 1, 2, 3.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32
from jax.typing import ArrayLike

from dopt.flags import PRNG
from dopt.types import Key

# 2^28 lanes each
BATCHES, DELAYS, NOISE, LINKS, MESSAGES, UPDATES = (np.uint32(stream << 28) for stream in range(6))
EVERYONE = np.uint32(0xFFFFFFFF)  # in place of a worker, for what all share


def words(seed: ArrayLike, worker: ArrayLike, number: ArrayLike, stream: ArrayLike, lanes: int) -> jax.Array:
    """[lanes] uint32, uniform, for one (seed, worker, number)."""
    half = -(-lanes // 2)
    k0, k1, counter = (jnp.asarray(x).astype(jnp.uint32) for x in (seed, worker, number))
    # the hash cannot be lowered where vmap has batched its arguments along different axes: give all of them all axes
    nothing = (k0 ^ k1 ^ counter) * jnp.uint32(0)
    lane = stream + jnp.arange(half, dtype=jnp.uint32)
    count = jnp.concatenate([jnp.broadcast_to(counter, (half,)), lane]) + nothing
    return threefry_2x32((k0 + nothing, k1 + nothing), count)[:lanes]


def samples(seed: ArrayLike, worker: ArrayLike, number: ArrayLike, batch_size: int, count: ArrayLike) -> jax.Array:
    """[batch_size] int32 sample numbers, uniform with replacement from `count` (to 2^-32 x count)."""
    bits = words(seed, worker, number, BATCHES, batch_size)
    return (bits % jnp.asarray(count).astype(jnp.uint32)).astype(jnp.int32)


def uniforms(seed: ArrayLike, worker: ArrayLike, number: ArrayLike, stream: ArrayLike, lanes: int) -> jax.Array:
    """[lanes] float32 in [0, 1), multiples of 2^-24."""
    return (words(seed, worker, number, stream, lanes) >> 8).astype(jnp.float32) * jnp.float32(2**-24)


def uniform_at(seed: ArrayLike, worker: ArrayLike, number: ArrayLike, stream: ArrayLike, lane: jax.Array) -> jax.Array:
    """float32 in [0, 1) of the lanes named, [...]: a block each, so that a lane's number depends on no other lane."""
    k0, k1, counter = (jnp.asarray(x).astype(jnp.uint32) for x in (seed, worker, number))
    flat = lane.reshape(-1).astype(jnp.uint32)
    nothing = (k0 ^ k1 ^ counter ^ flat[:1].sum(dtype=jnp.uint32)) * jnp.uint32(0)
    count = jnp.concatenate([jnp.broadcast_to(counter, flat.shape), stream + flat]) + nothing
    bits = threefry_2x32((k0 + nothing, k1 + nothing), count)[: flat.size]
    return ((bits >> 8).astype(jnp.float32) * jnp.float32(2**-24)).reshape(lane.shape)


def subset(seed: ArrayLike, number: ArrayLike, size: int, count: int) -> jax.Array:
    """[size] bool: `count` of `size`, each set of them equally likely, the same for all who ask."""
    u = words(seed, EVERYONE, number, BATCHES, size)
    return jnp.zeros(size, bool).at[jnp.argsort(u)[:count]].set(True)


def key(seed: ArrayLike, worker: ArrayLike, number: ArrayLike, stream: ArrayLike = NOISE) -> Key:
    """A JAX key for whatever a loss draws (noise, dropout), an operator that rounds a message, or a noisy optimizer.

    The latter two have streams of their own, `MESSAGES` and `UPDATES`.
    """
    return jax.random.wrap_key_data(words(seed, worker, number, stream, 2), impl=PRNG)


def start(seed: ArrayLike) -> Key:
    """The key of x⁰: `jax.random.key(seed)`, whatever JAX's flags say."""
    word = jnp.asarray(seed).astype(jnp.uint32)
    return jax.random.wrap_key_data(jnp.stack([jnp.zeros_like(word), word]), impl=PRNG)
