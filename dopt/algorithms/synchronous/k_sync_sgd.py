"""x <- x + u(mean of the first K gradients that arrive); the other workers' work is thrown away, and all start again.

Chen et al. 2016, 1604.00981 (backup workers: K = n - b); Dutta et al. 2018, 1803.01113 (K-sync SGD).
"""

from __future__ import annotations

import optax

from dopt.algorithms.method import Method, Rate, arriving
from dopt.algorithms.server import collecting, default_k, first


@arriving(family="synchronous", source="Chen et al. 2016, 1604.00981", sends=first(limit=0, stop=True, waits=True))
def k_sync_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    k: int | None = None,
    workers: int | None = None,
) -> Method:
    """Synchronous SGD that does not wait for the last n - K workers (backup workers).

    Args:
      k: K; None: half of the workers, rounded up.
      workers: n.
    """
    return collecting(optimizer, default_k(k, workers), lambda staleness: staleness == 0)
