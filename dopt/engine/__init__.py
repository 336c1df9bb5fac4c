"""Runs on devices: which share a program (`key`, `group`), their values (`pack`), the program (`compiled`), one slab (`slab`), what it gave (`outcome`)."""

from dopt.engine.carry import Carry
from dopt.engine.compiled import Compiled, compile, per_run, rehearse
from dopt.engine.group import Group, group_of, grouped
from dopt.engine.key import TRACED, key
from dopt.engine.outcome import Columns, Outcome, Outcomes, gap_notes
from dopt.engine.pack import pack
from dopt.engine.segments import Call, Segment, fit, laid
from dopt.engine.slab import First, Slab, advanced, collected, packed, run_slab, seconds_of_step

__all__ = [
    "TRACED",
    "Call",
    "Carry",
    "Columns",
    "Compiled",
    "First",
    "Group",
    "Outcome",
    "Outcomes",
    "Segment",
    "Slab",
    "advanced",
    "collected",
    "compile",
    "fit",
    "gap_notes",
    "group_of",
    "grouped",
    "key",
    "laid",
    "pack",
    "packed",
    "per_run",
    "rehearse",
    "run_slab",
    "seconds_of_step",
]
