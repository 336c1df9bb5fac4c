"""x <- x + u(g) if τ <= max_staleness; else g is thrown away: kicking out the hopeless worker.

The lecture's parameter server; in theory Koloskova et al. 2022, 2206.08307 (dropping what is older than a threshold).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optax

from dopt.algorithms.asynchronous.server import arriving, stepping
from dopt.algorithms.method import Method, at_least
from dopt.types import Coordination


def _coordination(options: Mapping[str, Any], workers: int) -> Coordination:
    limit = options["max_staleness"]
    return Coordination(limit=workers if limit is None else limit)


@arriving(
    source="Koloskova et al. 2022, 2206.08307, section 4", coordination=_coordination, scheduled=("max_staleness",)
)
def drop_stale_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Any = None,
    max_staleness: int | None = None,
    workers: int | None = None,
) -> Method:
    """Asynchronous SGD that throws away gradients that are too stale.

    Args:
      max_staleness: the largest staleness that is applied; None: the number of workers.
      workers: n.
    """
    limit = workers if max_staleness is None else max_staleness
    at_least("max_staleness", limit or 0, 0)
    return stepping(optimizer, accepts=lambda staleness: True if limit is None else staleness <= limit)
