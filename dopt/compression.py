"""Operators that shrink a message, each with its size in bits: what a worker sends in place of a tree of d numbers.

A contraction has E‖C(x) - x‖² <= (1 - δ)‖x‖² for some δ > 0, which is what error feedback and CHOCO ask for; an unbiased
operator has E C(x) = x. All but `low_rank` take the tree as one vector x of d numbers; its leaves share a floating dtype,
whose width w (32 bits for a float32) is what a number sent whole costs. Uniforms are float32 in every precision, so that
float32 and float64 runs round alike and send the same coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from dopt.registry import Registry
from dopt.types import InputError, Key, Tree

COMPRESSORS = Registry("compressor")
operator = COMPRESSORS.register


class Compressor(NamedTuple):
    """An operator on one worker's tree; works under jit and vmap.

    Attributes:
      init: tree -> state.
      apply: (tree, state, key) -> (message, state); the message has the tree's shapes.
      bits: one worker's tree, of arrays or of shapes and dtypes -> exact size of a message.
      shared: the key must be the same on all workers.
    """

    init: Callable[[Tree], Any]
    apply: Callable[[Tree, Any, Key], tuple[Tree, Any]]
    bits: Callable[[Tree], int]
    shared: bool = False


def make(name: str, **options: object) -> Compressor:
    """The operator `name`; its options are given like the method's, as in `algorithm.fraction`.

    Raises:
      InputError: unknown name or option, or a value out of range.
    """
    entry = COMPRESSORS[name]
    return entry.make(**entry.options(options, "algorithm"))


def _nothing(tree: Tree) -> tuple[()]:
    return ()


def _whole(tree: Tree) -> int:
    """Bits of a tree that is sent as it is."""
    return sum(math.prod(x.shape) * 8 * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))


def _on_vector(
    message: Callable[[jax.Array, Key], jax.Array], bits: Callable[[int, Any], int], shared: bool = False
) -> Compressor:
    """The operator that takes a tree as one vector: `message(x, key)` of x [d], `bits(d, finfo of the dtype)`."""

    def apply(tree: Tree, state: Tree, key: Key) -> tuple[Tree, Any]:
        x, unravel = ravel_pytree(tree)
        return unravel(message(x, key)), state

    def size(tree: Tree) -> int:
        number = jnp.finfo(jnp.result_type(*jax.tree.leaves(tree)))
        return bits(_whole(tree) // number.bits, number)

    return Compressor(_nothing, apply, size, shared)


def _uniforms(key: Key, x: jax.Array) -> jax.Array:
    return jax.random.uniform(key, x.shape, dtype=jnp.float32)


def _kept(fraction: float) -> Callable[[int], int]:
    """How many of d coordinates are sent, as a function of d."""
    if not 0 < fraction <= 1:
        raise InputError(f"algorithm.fraction: must lie in (0, 1], got {fraction}")
    return lambda d: max(1, round(fraction * d))


def _only(x: jax.Array, where: jax.Array) -> jax.Array:
    """The vector x at the coordinates `where` [k], zero elsewhere."""
    return jnp.zeros_like(x).at[where].set(x[where], unique_indices=True)


@operator(source="exact messages, the baseline", kind="exact")
def identity() -> Compressor:
    """The tree itself: w d bits."""
    return Compressor(_nothing, lambda tree, state, key: (tree, state), _whole)


@operator(source="Stich et al. 2018, 1809.07599", kind="contraction")
def top_k(*, fraction: float = 0.1) -> Compressor:
    """The k = max(1, round(fraction d)) largest magnitudes, each with its place: k (w + ⌈log₂d⌉) bits, δ = k/d.

    Exactly k: of equal magnitudes the first ones. A NaN counts as the largest.
    """
    kept = _kept(fraction)
    return _on_vector(
        lambda x, key: _only(x, lax.top_k(jnp.abs(x), kept(x.size))[1]),
        lambda d, number: kept(d) * (number.bits + (d - 1).bit_length()),
    )


@operator(source="Stich et al. 2018, 1809.07599", kind="contraction")
def random_k(*, fraction: float = 0.1, unbiased: bool = False) -> Compressor:
    """The values at k = max(1, round(fraction d)) places, drawn from a key that all workers share: w k bits, δ = k/d.

    Args:
      fraction: the share of the d coordinates that is sent.
      unbiased: multiply by d/k, so that E‖C(x) - x‖² = (d/k - 1)‖x‖²; then it is no contraction.
    """
    kept = _kept(fraction)

    def message(x: jax.Array, key: Key) -> jax.Array:
        k = kept(x.size)
        part = _only(x, lax.top_k(_uniforms(key, x), k)[1])
        return part * (x.size / k) if unbiased else part

    return _on_vector(message, lambda d, number: kept(d) * number.bits, shared=True)


@operator(source="Karimireddy et al. 2019, 1901.09847", kind="contraction")
def sign() -> Compressor:
    """‖x‖₁/d · sign x, where a zero stays zero: d + w bits, δ = ‖x‖₁²/(d ‖x‖²)."""
    return _on_vector(lambda x, key: jnp.mean(jnp.abs(x)) * jnp.sign(x), lambda d, number: d + number.bits)


@operator(source="Alistarh et al. 2017, 1610.02132; scaled as in Koloskova et al. 2019, 1902.00340", kind="contraction")
def qsgd(*, levels: int = 15, scaled: bool = True) -> Compressor:
    """‖x‖ sign(x) ξ/s, ξ = s∣x∣/‖x‖ rounded at random to a whole number: w + d (1 + ⌈log₂(s+1)⌉) bits.

    Args:
      levels: s; the default fills four bits, five with the sign.
      scaled: divide by 1 + ω, ω = min(d/s², √d/s), which makes the unbiased operator a contraction, δ = 1/(1 + ω).
    """
    if levels < 1:
        raise InputError(f"algorithm.levels: must be at least 1, got {levels}")

    def message(x: jax.Array, key: Key) -> jax.Array:
        largest = jnp.max(jnp.abs(x))
        unit = jnp.abs(x) / jnp.where(largest == 0, 1, largest)  # squares of small numbers would vanish
        norm = jnp.maximum(jnp.linalg.norm(unit), 1)  # in units of the largest; below one only where x = 0
        level = levels * (unit / norm)
        low = jnp.floor(level)
        rounded = low + (_uniforms(key, x) < level - low)
        omega = min(x.size / levels**2, math.sqrt(x.size) / levels) if scaled else 0
        return jnp.sign(x) * rounded * (largest * norm / (levels * (1 + omega)))

    return _on_vector(message, lambda d, number: number.bits + d * (1 + levels.bit_length()))


@operator(source="Horváth et al. 2019, 1905.10988", kind="unbiased")
def natural() -> Compressor:
    """Magnitudes rounded at random to a power of two on either side: sign and exponent, 9 d bits (12 d for float64).

    E‖C(x) - x‖² <= ‖x‖²/8. On the bits of a float: the mantissa is dropped, or rounds up with a probability equal to its value.
    A subnormal, which no exponent can write, goes to zero or to the smallest normal number, unbiased as well.
    """

    def message(x: jax.Array, key: Key) -> jax.Array:
        places = jnp.finfo(x.dtype).nmant
        word = jnp.dtype(f"uint{8 * x.dtype.itemsize}")
        whole = lax.bitcast_convert_type(x, word)
        mantissa = whole & word.type(2**places - 1)
        carries = _uniforms(key, x) < mantissa.astype(x.dtype) * 2.0**-places
        rounded = whole - mantissa + carries.astype(word) * word.type(2**places)
        return jnp.where(jnp.isfinite(x), lax.bitcast_convert_type(rounded, x.dtype), x)

    return _on_vector(message, lambda d, number: d * (1 + number.nexp))


class LowRank(NamedTuple):
    """Leaves as matrices M [a, b], b all axes but the first, and their factors P [a, r] and Q [b, r], M ≈ P Qᵀ.

    A leaf for which the factors are no smaller, so every vector, is taken whole.
    """

    rank: int

    def sides(self, x: jax.Array) -> tuple[int, int]:
        return math.prod(x.shape[:1]), math.prod(x.shape[1:])

    def factored(self, x: jax.Array) -> bool:
        a, b = self.sides(x)
        return self.rank * (a + b) < a * b

    def start(self, tree: Tree) -> tuple[jax.Array | None, ...]:
        """Q [b, r] of each leaf, the same on all workers; None where the leaf is taken whole."""

        def one(leaf: int, x: jax.Array) -> jax.Array | None:
            draw = np.random.default_rng(leaf).standard_normal
            return jnp.asarray(draw((self.sides(x)[1], self.rank)), x.dtype) if self.factored(x) else None

        return tuple(one(*leaf) for leaf in enumerate(jax.tree.leaves(tree)))

    def project(
        self, x: jax.Array, Q: jax.Array | None, mean: Callable[[jax.Array], jax.Array] = lambda sent: sent
    ) -> tuple[jax.Array, jax.Array | None]:
        """(P(PᵀM), new Q) of one leaf, P = orth(MQ); whole, and None, where it is not factored.

        Args:
          mean: of all workers' factors, where they are averaged on their way.
        """
        if Q is None:
            return mean(x), Q
        times = partial(jnp.matmul, precision=lax.Precision.HIGHEST)  # P(PᵀM) is no projection in TF32
        M = x.reshape(self.sides(x))
        P = jnp.linalg.qr(mean(times(M, Q)))[0]  # [a, r], orthonormal even where M has a lower rank
        new = mean(times(M.T, P))
        # a direction lost to a zero M, or to zero rows of it, would never come back
        return times(P, new.T).reshape(x.shape), jnp.where(jnp.any(new != 0, axis=0), new, Q)

    def bits(self, tree: Tree) -> tuple[int, int]:
        """Of (P of all leaves, and those taken whole; Q of all leaves)."""
        leaves = jax.tree.leaves(tree)
        width = [8 * jnp.dtype(x.dtype).itemsize * self.rank * self.factored(x) for x in leaves]
        left, right = (sum(w * self.sides(x)[side] for w, x in zip(width, leaves, strict=True)) for side in (0, 1))
        return left + _whole([x for x in leaves if not self.factored(x)]), right


@operator(source="Vogels et al. 2019, PowerSGD, 1905.13727, algorithm 1", kind="contraction")
def low_rank(*, rank: int = 2) -> Compressor:
    """P(PᵀM) with P = orth(MQ), one power iteration per leaf M [a, b], then Q <- MᵀP: w r (a + b) bits.

    b is all axes but the first. A leaf for which the factors are no smaller, so every vector, is sent whole.
    """
    low = checked_rank(rank)

    def apply(tree: Tree, state: tuple, key: Key) -> tuple[Tree, tuple]:
        leaves, form = jax.tree.flatten(tree)
        messages, state = zip(*map(low.project, leaves, state), strict=True)
        return jax.tree.unflatten(form, messages), state

    return Compressor(low.start, apply, lambda tree: sum(low.bits(tree)))


def checked_rank(rank: int) -> LowRank:
    if rank < 1:
        raise InputError(f"algorithm.rank: must be at least 1, got {rank}")
    return LowRank(rank)
