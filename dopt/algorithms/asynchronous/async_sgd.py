"""x <- x + u(g), g = ∇fᵢ(x^v): each gradient is applied as it arrives at the server, however old it is.

Dean et al. 2012 (Downpour SGD); Li et al. 2014 (OSDI, the parameter server).
"""

from __future__ import annotations

import optax

from dopt.algorithms.method import Method, Rate, arriving
from dopt.algorithms.server import stepping


@arriving(source="Li et al. 2014, parameter server (OSDI)")
def async_sgd(
    optimizer: optax.GradientTransformation, mix: None = None, *, learning_rate: Rate | None = None
) -> Method:
    """Asynchronous SGD: the server applies each stale gradient as it arrives."""
    return stepping(optimizer)
