"""x <- x + u(g) if τ < R, and a worker whose τ reaches R stops and starts again: no work is done that would be thrown away.

Maranjyan, Tyurin, Richtárik 2025, 2501.16168, algorithm 5 (with stops) and 4 (without). Without stops it is `drop_stale_sgd` with
max_staleness R - 1.
"""

from __future__ import annotations

import optax

from dopt.algorithms.method import Method, Rate, arriving, at_least
from dopt.algorithms.server import stepping
from dopt.algorithms.traits import Options, Server
from dopt.types import Coordination


def _sends(options: Options, workers: int) -> Server:
    threshold = options["threshold"]
    return Server(Coordination(limit=(workers if threshold is None else threshold) - 1, stop=options["stop"]))


@arriving(
    source="Maranjyan, Tyurin, Richtárik 2025, 2501.16168",
    sends=_sends,
    scheduled=("threshold", "stop"),
)
def ringmaster_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    threshold: int | None = None,
    stop: bool = True,
    workers: int | None = None,
) -> Method:
    """Ringmaster ASGD: gradients below a staleness threshold only, and staler work is stopped.

    Args:
      threshold: R; None: the number of workers.
      stop: restart a worker as soon as its staleness reaches R.
      workers: n.
    """
    bound = workers if threshold is None else threshold
    at_least("threshold", 1 if bound is None else bound)
    return stepping(optimizer, accepts=lambda staleness: True if bound is None else staleness < bound)
