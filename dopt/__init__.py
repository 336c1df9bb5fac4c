"""dopt: which way of parallel training wins, and what do connectivity and delay cost?"""

from typing import TYPE_CHECKING

from dopt.lazy import on_demand
from dopt.version import VERSION

if TYPE_CHECKING:
    from dopt import (
        algorithms,
        cluster,
        compression,
        data,
        delays,
        metrics,
        mixing,
        plot,
        problems,
        register,
        schedule,
        theory,
        topology,
    )
    from dopt.algorithms import Method, chain
    from dopt.config import Run
    from dopt.engine.checkpoints import Checkpoints
    from dopt.engine.single import Result, run
    from dopt.sweeps.merge import merge
    from dopt.sweeps.results import Results, load
    from dopt.sweeps.saved import save
    from dopt.sweeps.status import Status, status
    from dopt.sweeps.work import sweep
    from dopt.types import AXIS, Clock, Coordination, InputError, Layout, Problem

__version__ = VERSION

__all__ = [
    "AXIS",
    "Checkpoints",
    "Clock",
    "Coordination",
    "InputError",
    "Layout",
    "Method",
    "Problem",
    "Result",
    "Results",
    "Run",
    "Status",
    "algorithms",
    "chain",
    "cluster",
    "compression",
    "data",
    "delays",
    "load",
    "merge",
    "metrics",
    "mixing",
    "plot",
    "problems",
    "register",
    "run",
    "save",
    "schedule",
    "status",
    "sweep",
    "theory",
    "topology",
]

on_demand(
    __name__,
    {
        **dict.fromkeys(("AXIS", "Clock", "Coordination", "InputError", "Layout", "Problem"), "dopt.types"),
        **dict.fromkeys(("Method", "chain"), "dopt.algorithms"),
        **dict.fromkeys(("Result", "run"), "dopt.engine.single"),
        **dict.fromkeys(("Results", "load"), "dopt.sweeps.results"),
        **dict.fromkeys(("Status", "status"), "dopt.sweeps.status"),
        "Checkpoints": "dopt.engine.checkpoints",
        "Run": "dopt.config.run",
        "merge": "dopt.sweeps.merge",
        "save": "dopt.sweeps.saved",
        "sweep": "dopt.sweeps.work",
    },
)
