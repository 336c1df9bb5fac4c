"""A run as it was asked for (`run`), checked (`resolve`), known by a hash (`identity`), and many of them as columns (`runs`).

Optax by name: `optimizers`, `schedules`.
"""

from typing import TYPE_CHECKING

from dopt.lazy import on_demand

if TYPE_CHECKING:
    from dopt.config.identity import identity
    from dopt.config.optimizers import COUPLED, LINEAR, OPTIMIZERS, averages, make_optimizer
    from dopt.config.run import HORIZONS, OWN, Resolved, Run, options_of
    from dopt.config.runs import Runs
    from dopt.config.schedules import RATES, SCHEDULES, UNTRACED, make_rate

__all__ = [
    "COUPLED",
    "HORIZONS",
    "LINEAR",
    "OPTIMIZERS",
    "OWN",
    "RATES",
    "SCHEDULES",
    "UNTRACED",
    "Resolved",
    "Run",
    "Runs",
    "averages",
    "identity",
    "make_optimizer",
    "make_rate",
    "options_of",
]

on_demand(
    __name__,
    {
        "identity": "dopt.config.identity",
        **dict.fromkeys(("COUPLED", "LINEAR", "OPTIMIZERS", "averages", "make_optimizer"), "dopt.config.optimizers"),
        **dict.fromkeys(("HORIZONS", "OWN", "Resolved", "Run", "options_of"), "dopt.config.run"),
        **dict.fromkeys(("RATES", "SCHEDULES", "UNTRACED", "make_rate"), "dopt.config.schedules"),
        "Runs": "dopt.config.runs",
    },
)
