"""x <- x + u(g) if τ <= max_staleness; else g is thrown away: kicking out the hopeless worker.

The lecture's parameter server; in theory Koloskova et al. 2022, 2206.08307 (dropping what is older than a threshold). `count` says
what τ counts since the pull:

applied: updates. This is the staleness that is reported, and that theory speaks of. Some gradient is always fresh enough.
arrivals: gradients, also those that were thrown away, as in the code of 2206.08307. Then n workers of equal speed are n - 1
  arrivals behind, and a smaller `max_staleness` would drop every gradient: that is refused.
"""

from __future__ import annotations

import optax

from dopt.algorithms.method import Method, Rate, arriving, at_least
from dopt.algorithms.server import stepping
from dopt.algorithms.traits import Options, Server
from dopt.types import Coordination, InputError


def _sends(options: Options, workers: int) -> Server:
    limit = options["max_staleness"]
    return Server(
        Coordination(limit=workers if limit is None else limit, counts_dropped=options["count"] == "arrivals")
    )


@arriving(
    source="Koloskova et al. 2022, 2206.08307, section 4",
    sends=_sends,
    scheduled=("max_staleness", "count"),
)
def drop_stale_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    max_staleness: int | None = None,
    count: str = "applied",
    workers: int | None = None,
) -> Method:
    """Asynchronous SGD that throws away gradients that are too stale.

    Args:
      max_staleness: the largest staleness that is applied; None: the number of workers.
      count: applied or arrivals, as above. In one's own loop, `staleness` is what you count.
      workers: n.
    """
    if count not in ("applied", "arrivals"):
        raise InputError(f"algorithm.count: must be applied or arrivals, got {count!r}")
    limit = workers if max_staleness is None else max_staleness
    at_least("max_staleness", limit or 0, 0)
    return stepping(optimizer, accepts=lambda staleness: True if limit is None else staleness <= limit)
