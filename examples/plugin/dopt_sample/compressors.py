"""Messages in half precision."""

from typing import Any

import jax
import jax.numpy as jnp

import dopt
from dopt.compression import Compressor


@dopt.register.compressor(kind="contraction")
def half_precision() -> Compressor:
    """Each number rounded to float16: 16 d bits."""

    def apply(tree: Any, state: Any, key: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda x: x.astype(jnp.float16).astype(x.dtype), tree), state

    return Compressor(lambda tree: (), apply, lambda tree: sum(16 * x.size for x in jax.tree.leaves(tree)))
