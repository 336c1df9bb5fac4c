"""Cluster + coordination -> who delivers which version when. First when, then what: host, NumPy, before any model.

In asynchronous rules, who delivers what and when does not depend on the iterates, so the clock runs first; the engine
replays the arrays. A rule is a value, `dopt.types.Coordination`; `arrivals` knows what each of its fields means.
"""

from dopt.schedule.arrivals import always_busy, arrivals, check, partners
from dopt.schedule.barriers import Barrier, Lockstep, Wait, Waves, barrier, lockstep, unsynchronised
from dopt.schedule.pipeline import Pipeline, by_stage, pipeline
from dopt.schedule.table import (
    ABORTED,
    APPLIED,
    DROPPED,
    FATES,
    PENDING,
    Batches,
    Intervals,
    Schedule,
    batches,
    in_flight_staleness,
    intervals,
    load,
    save,
    summary,
)

__all__ = [
    "ABORTED",
    "APPLIED",
    "DROPPED",
    "FATES",
    "PENDING",
    "Barrier",
    "Batches",
    "Intervals",
    "Lockstep",
    "Pipeline",
    "Schedule",
    "Wait",
    "Waves",
    "always_busy",
    "arrivals",
    "barrier",
    "batches",
    "by_stage",
    "check",
    "in_flight_staleness",
    "intervals",
    "load",
    "lockstep",
    "partners",
    "pipeline",
    "save",
    "summary",
    "unsynchronised",
]
