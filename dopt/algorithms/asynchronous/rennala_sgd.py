"""x <- x + u(mean of B gradients of the present model, from any worker); gradients of older models are thrown away.

Tyurin-Richtárik 2023, 2305.12387, algorithm 3. By default workers finish work that has become stale; with `stop` they do not, which
is `k_batch_sync_sgd`.
"""

from __future__ import annotations

import optax

from dopt.algorithms.method import Method, Rate, arriving, at_least
from dopt.algorithms.server import collecting
from dopt.algorithms.traits import Options, Server
from dopt.types import Coordination


def _sends(options: Options, workers: int) -> Server:
    batch = options["batch"]
    return Server(Coordination(gradients=workers if batch is None else batch, limit=0, stop=options["stop"]))


@arriving(source="Tyurin-Richtárik 2023, 2305.12387", sends=_sends, scheduled=("stop",))
def rennala_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    batch: int | None = None,
    stop: bool = False,
    workers: int | None = None,
) -> Method:
    """Rennala SGD: minibatches that are collected from the fastest workers.

    Args:
      batch: B; None: the number of workers.
      stop: restart workers whose work has become stale.
      workers: n.
    """
    size = workers if batch is None else batch
    at_least("batch", 1 if size is None else size)
    return collecting(optimizer, size, lambda staleness: staleness == 0)
