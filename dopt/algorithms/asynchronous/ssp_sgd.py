"""x <- x + u(g), but a worker more than s pushes ahead of the slowest waits: stale synchronous parallel.

Ho et al. 2013 (NIPS). s = 0 is a barrier in each step, s = ∞ is `async_sgd`.
"""

from __future__ import annotations

import optax

from dopt.algorithms.method import Method, Rate, arriving, at_least
from dopt.algorithms.server import stepping
from dopt.algorithms.traits import Server
from dopt.types import Coordination


@arriving(
    source="Ho et al. 2013 (NIPS), stale synchronous parallel",
    sends=lambda options, workers: Server(Coordination(slack=options["slack"])),
    scheduled=("slack",),
)
def ssp_sgd(
    optimizer: optax.GradientTransformation, mix: None = None, *, learning_rate: Rate | None = None, slack: int = 3
) -> Method:
    """Bounded staleness: fast workers wait for the slowest, once they are `slack` steps ahead.

    Args:
      slack: s, pushes that a worker may be ahead of the slowest when it begins to compute.
    """
    at_least("slack", slack, 0)
    return stepping(optimizer)
