"""x <- x + u(sign Σᵢ sign gᵢ): every worker has one vote on each coordinate. A tie, or a zero, moves nothing.

A vote has no weight: a weighted problem is refused.

Bernstein et al. 2018, signSGD with majority vote, 1802.04434, algorithm 3. A bit for each coordinate, as the paper counts.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from dopt.algorithms.method import Method, Rate, synchronous
from dopt.algorithms.traits import AllReduce
from dopt.types import AXIS, Reduction, Tree


def _bits(model: Tree) -> tuple[int, ...]:
    return (sum(x.size for x in jax.tree.leaves(model)),)


@synchronous(source="Bernstein et al. 2018, 1802.04434", sends=AllReduce(Reduction(bits=_bits)), weighs=None)
def sign_majority(
    optimizer: optax.GradientTransformation, mix: None = None, *, learning_rate: Rate | None = None
) -> Method:
    """Majority vote of signs (signSGD): one bit for each coordinate, up and down."""
    inner = optax.with_extra_args_support(optimizer)

    def update(grads: Tree, state: optax.OptState, params: Tree = None, **extra: object) -> tuple[Tree, Any]:
        votes = lax.psum(jax.tree.map(jnp.sign, grads), AXIS)
        return inner.update(jax.tree.map(jnp.sign, votes), state, params, **extra)

    return Method(inner.init, update)
