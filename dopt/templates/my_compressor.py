"""An operator that shrinks messages: each number without its last bits."""

from typing import Any

import jax
import jax.numpy as jnp

import dopt
from dopt.compression import Compressor


# "contraction": ‖C(x) - x‖ < ‖x‖; "unbiased": E C(x) = x; "exact": C(x) = x
@dopt.register.compressor(kind="contraction", source="where the idea is from")
def my_compressor(*, digits: int = 2) -> Compressor:
    """The first line is what `dopt list` says.

    Args:
      digits: options are keyword-only parameters, given with the method's own: here algorithm.digits.
    """
    if not 1 <= digits <= 6:
        raise dopt.InputError(f"algorithm.digits: must lie in 1..6, got {digits}")

    def short(x: jax.Array) -> jax.Array:
        """Rounds to so many digits: a mantissa that is a multiple of 10^-digits."""
        mantissa, exponent = jnp.frexp(x)
        return jnp.ldexp(jnp.round(mantissa * 10**digits) / 10**digits, exponent)

    def apply(tree: Any, state: Any, key: Any) -> tuple[Any, Any]:
        """The message, of the tree's own shapes; `key` is there for those that draw."""
        return jax.tree.map(short, tree), state

    def bits(tree: Any) -> int:
        """The size of a message; `tree` may have shapes alone. Here sign, exponent, and log₂(10) ≈ 10/3 bits for each digit."""
        return sum(x.size * (9 + -(-10 * digits // 3)) for x in jax.tree.leaves(tree))

    return Compressor(lambda tree: (), apply, bits)
