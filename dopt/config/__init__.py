"""A run as it was asked for (`run`), checked (`resolve`), and known by a hash (`identity`); optax by name (`optimizers`)."""

from dopt.config.identity import SCHEMA, identity
from dopt.config.matrices import UNWEIGHTED
from dopt.config.optimizers import (
    COUPLED,
    LINEAR,
    OPTIMIZERS,
    RATES,
    SCHEDULES,
    UNTRACED,
    averages,
    make_optimizer,
    make_rate,
)
from dopt.config.run import HORIZONS, OWN, Run, options_of

__all__ = [
    "COUPLED",
    "HORIZONS",
    "LINEAR",
    "OPTIMIZERS",
    "OWN",
    "RATES",
    "SCHEDULES",
    "SCHEMA",
    "UNTRACED",
    "UNWEIGHTED",
    "Run",
    "averages",
    "identity",
    "make_optimizer",
    "make_rate",
    "options_of",
]
