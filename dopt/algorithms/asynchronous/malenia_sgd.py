"""x <- x + u((1/n) Σᵢ (1/Bᵢ) Σ_b g_{i,b}) when ((1/n) Σᵢ 1/Bᵢ)⁻¹ >= S/n: each worker's own mean counts equally.

Tyurin-Richtárik 2023, 2305.12387, algorithm 6. Like Rennala SGD, but with heterogeneous data it goes to the minimum of f, not to
one that favours fast workers; so each update needs a gradient of every worker.
"""

from __future__ import annotations

import optax

from dopt.algorithms.method import Method, Rate, arriving, at_least
from dopt.algorithms.server import collecting
from dopt.algorithms.traits import Options, Server
from dopt.types import Coordination


def _sends(options: Options, workers: int) -> Server:
    batch = options["batch"]
    return Server(
        Coordination(gradients=workers if batch is None else batch, limit=0, stop=options["stop"], per_worker=True)
    )


@arriving(source="Tyurin-Richtárik 2023, 2305.12387", sends=_sends, scheduled=("batch", "stop"))
def malenia_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    batch: int | None = None,
    stop: bool = False,
) -> Method:
    """Malenia SGD: minibatches with a mean per worker, for workers whose data differ.

    Args:
      batch: S, the harmonic mean of the workers' numbers of gradients times n; None: the number of workers.
      stop: restart workers whose work has become stale.
    """
    at_least("batch", 1 if batch is None else batch)
    return collecting(optimizer, None)
