"""x <- x + u(mean of the first K gradients of distinct workers since the last update), stale ones among them.

Dutta et al. 2018, 1803.01113, section 2 (K-async SGD). A worker that has pushed waits for the update; the
others go on with their old models.
"""

from __future__ import annotations

import optax

from dopt.algorithms.method import Method, Rate, arriving
from dopt.algorithms.server import collecting, default_k, first


@arriving(source="Dutta et al. 2018, 1803.01113", sends=first(waits=True))
def k_async_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    k: int | None = None,
    workers: int | None = None,
) -> Method:
    """K-async SGD: each update is the mean of the first K workers' gradients, however stale.

    Args:
      k: K; None: half of the workers, rounded up.
      workers: n.
    """
    return collecting(optimizer, default_k(k, workers))
