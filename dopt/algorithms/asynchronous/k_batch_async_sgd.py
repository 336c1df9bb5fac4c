"""x <- x + u(mean of the next K gradients from anyone), stale ones among them; nobody waits.

Dutta et al. 2018, 1803.01113, section 2 (K-batch-async SGD). K may exceed the number of workers.
"""

from __future__ import annotations

import optax

from dopt.algorithms.method import Method, Rate, arriving
from dopt.algorithms.server import collecting, default_k, first


@arriving(source="Dutta et al. 2018, 1803.01113", sends=first())
def k_batch_async_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    k: int | None = None,
    workers: int | None = None,
) -> Method:
    """K-batch-async SGD: each update is the mean of K arrivals, however stale.

    Args:
      k: K; None: half of the workers, rounded up.
      workers: n.
    """
    return collecting(optimizer, default_k(k, workers))
