"""x <- x + u((1/n) Σᵢ gᵢ): every worker steps on the mean gradient (bulk-synchronous parallel, MapReduce).

Valiant 1990 (BSP); Dean-Ghemawat 2004 (MapReduce); Zinkevich et al. 2010. The mean is one psum over the workers.
"""

from __future__ import annotations

import optax

from dopt.algorithms.method import Method, Rate, synchronous
from dopt.algorithms.trees import mean
from dopt.types import Tree


@synchronous(source="bulk-synchronous parallel, Valiant 1990")
def allreduce_sgd(
    optimizer: optax.GradientTransformation, mix: None = None, *, learning_rate: Rate | None = None
) -> Method:
    """Synchronous gradient descent: all step on the mean gradient."""
    inner = optax.with_extra_args_support(optimizer)

    def update(grads: Tree, state: optax.OptState, params: Tree = None, **extra: object) -> tuple[Tree, optax.OptState]:
        return inner.update(mean(grads), state, params, **extra)

    return Method(inner.init, update)
