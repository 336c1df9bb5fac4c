"""X <- X + p (W X - X) + u(G): gossip that moves only a part p of the way to its neighbours.

p = 1 is gossip_sgd, and p = 1/2 mixes with (I + W) / 2, whose eigenvalues are not negative.
"""

from typing import Any

import jax
import optax

import dopt
from dopt.algorithms import Neighbours


@dopt.register.method(
    sends=Neighbours("doubly stochastic"),
    special=[
        ({"algorithm.part": 1.0}, {"algorithm": "gossip_sgd"}),
        ({"algorithm.part": 0.5}, {"algorithm": "gossip_sgd", "weights": "lazy"}),
    ],
)
def careful_gossip(
    optimizer: optax.GradientTransformation, mix: Any, *, learning_rate: Any = None, part: float = 0.5
) -> dopt.Method:
    """Gossip that moves only a part of the way to its neighbours.

    Args:
      part: of the way, in (0, 1].
    """
    if not 0 < part <= 1:
        raise dopt.InputError(f"algorithm.part: must lie in (0, 1], got {part}")

    def init(params: Any) -> Any:
        return optimizer.init(params), mix.init(params)

    def update(grads: Any, state: Any, params: Any, **extra: Any) -> Any:
        inner, mixing = state
        updates, inner = optimizer.update(grads, inner, params)
        moved, mixing = mix.apply(params, mixing, **extra)
        return jax.tree.map(lambda u, m: u + part * m, updates, moved), (inner, mixing)

    return dopt.Method(init, update)
