"""X <- X + part (W X - X) + u(G): gossip that moves only a part of the way to its neighbours.

Write the equation here: `dopt show method my_method` shows these lines.
"""

from typing import Any

import jax
import optax

import dopt
from dopt.algorithms.traits import Neighbours


# what a worker exchanges in a step: AllReduce(), Neighbours(kind of W), Server() or Pairs(); without neighbours it is `mix=None`
@dopt.register.method(sends=Neighbours("doubly stochastic"), source="where the idea is from")
def my_method(
    optimizer: optax.GradientTransformation, mix: Any, *, learning_rate: Any = None, part: float = 0.5
) -> dopt.Method:
    """The first line is what `dopt list` says.

    Args:
      part: options are keyword-only parameters, here algorithm.part; their type annotations are checked.
    """
    if not 0 < part <= 1:
        raise dopt.InputError(f"algorithm.part: must lie in (0, 1], got {part}")

    # one worker's view: `params` is its model, `grads` its gradient, and what `init` returns is carried from step to step
    def init(params: Any) -> Any:
        return optimizer.init(params), mix.init(params)

    def update(grads: Any, state: Any, params: Any, **extra: Any) -> Any:
        inner, mixing = state
        updates, inner = optimizer.update(grads, inner, params)  # u(g): the step of the local optimizer
        moved, mixing = mix.apply(params, mixing, **extra)  # W x - x; all that travels goes into one call
        return jax.tree.map(lambda u, m: u + part * m, updates, moved), (inner, mixing)

    return dopt.Method(init, update)
