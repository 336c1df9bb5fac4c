"""How many processes a sweep can keep busy: the slab is the unit of work, and nobody works on a part of one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dopt.text import quoted, shown
from dopt.types import InputError

if TYPE_CHECKING:
    from dopt.sweeps.spec import Sweep


def check_count(argument: str, count: int) -> None:
    """InputError where a number of processes is none."""
    if count < 1:
        raise InputError(f"{argument}: must be at least 1, got {count}")


def check_line(argument: str, text: str) -> None:
    """InputError where a name or a value would steer a terminal, or end a line of a script."""
    if shown(text) != text:
        raise InputError(f"{argument}: names and values must be text of one line, got {quoted(text)}")


def slabs_on_cpu(asked: Sweep) -> int:
    """How many slabs a CPU's plan has, unless memory is short; an accelerator's has fewer, since its slabs are wider."""
    from dopt.sweeps.hired import RUNS
    from dopt.sweeps.plan import groups_of

    return sum(math.ceil(len(runs) / RUNS) for runs in groups_of(asked.runs).values())


def idle(asked: Sweep, processes: int, what: str) -> str | None:
    """What to say where some of so many processes (`what` they are called) will find nothing to do."""
    slabs = slabs_on_cpu(asked)
    if processes <= slabs:
        return None
    return f"{asked.name}: {processes} {what} for {slabs} slab{'s' * (slabs > 1)} ({len(asked.runs)} runs); {slabs} would be enough"
