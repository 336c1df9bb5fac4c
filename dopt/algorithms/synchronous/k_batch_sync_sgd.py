"""x <- x + u(mean of the first K gradients from anyone, all at the present model); then all workers start again.

Dutta et al. 2018, 1803.01113, section 2 (K-batch-sync SGD). Fast workers may deliver several; K may exceed their number.
"""

from __future__ import annotations

import optax

from dopt.algorithms.method import Method, Rate, arriving
from dopt.algorithms.server import collecting, default_k, first


@arriving(family="synchronous", source="Dutta et al. 2018, 1803.01113", sends=first(limit=0, stop=True))
def k_batch_sync_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    k: int | None = None,
    workers: int | None = None,
) -> Method:
    """Synchronous SGD on the first K gradients, several of them from fast workers.

    Args:
      k: K; None: half of the workers, rounded up.
      workers: n.
    """
    return collecting(optimizer, default_k(k, workers), lambda staleness: staleness == 0)
