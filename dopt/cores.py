"""The cores that this process may use, those it runs on, and how many threads XLA takes there.

XLA cuts a large sum into as many parts as it has threads, so threads change the last bits of a model. What the command does
for a sweep on a CPU is therefore done on one thread, whatever the machine has, and more cores take more processes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from dopt import memory

THREADS = "NPROC"  # XLA's client of a CPU reads it once, as it starts; without it there is a thread for each core
TASKS = Path("/proc/self/task")
_own: ContextVar[bool] = ContextVar("own", default=False)


@contextmanager
def own() -> Iterator[None]:
    """This process is the command's own, and nobody's session: while it lasts, XLA starts with one thread on a CPU.

    Where there may be an accelerator, whose transfers the same threads make, it is left as it is.
    """
    before, token = os.environ.get(THREADS), _own.set(True)
    if not may_have_accelerator():
        os.environ[THREADS] = "1"
    try:
        yield
    finally:
        _own.reset(token)
        os.environ.pop(THREADS, None)
        os.environ.update({} if before is None else {THREADS: before})


def may_have_accelerator() -> bool:
    """Whether JAX may find another device than the CPU, as far as can be told before it looks for them."""
    asked = os.environ.get("JAX_PLATFORMS", "")
    if asked:
        return asked != "cpu"
    from importlib import metadata, util

    return bool(metadata.entry_points(group="jax_plugins")) or any(map(util.find_spec, ("jax_plugins", "libtpu")))


def is_own() -> bool:
    """Whether this process is the command's own."""
    return _own.get()


def usable() -> list[int]:
    """The cores that the system lets this process run on, those that are idle first; of as many as a container may keep busy."""
    import psutil

    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    busy = psutil.cpu_percent(0.05, percpu=True) if len(allowed) > 1 else []
    shift = os.getpid()  # so that two that start together do not take the same
    order = sorted(allowed, key=lambda core: (busy[core] if core < len(busy) else 0.0, (core + shift) % len(allowed)))
    return order[: max(1, min(len(order), quota(memory.ROOT, memory.OF_PROCESS)))]


def quota(root: Path, of_process: Path) -> int:
    """How many cores the process's control groups let it keep busy, rounded up."""
    found = [limit for folder in memory.groups("cpu", root, of_process) if (limit := _limit(folder)) is not None]
    return max(1, math.ceil(min(found, default=2**20)))


def _limit(folder: Path) -> float | None:
    """Cores, by a group of version 2 or 1; None: no limit."""
    both = memory.text(folder / "cpu.max").split()  # "max 100000", or "150000 100000"
    both = both or [memory.text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    most, period = both if len(both) == 2 else ("", "")
    return int(most) / int(period) if most.isdecimal() and period.isdecimal() and int(period) else None


def pin(cores: Sequence[int]) -> None:
    """Run all threads of this process, and those that they will start, on these cores; nothing where the system has no such thing."""
    if not hasattr(os, "sched_setaffinity"):
        return
    for task in [0, *(int(path.name) for path in TASKS.glob("[0-9]*"))]:
        try:
            os.sched_setaffinity(task, cores)
        except OSError:  # a thread that has ended, or a core that was taken away: it only costs time
            continue


def expected(devices: int) -> int:
    """XLA's threads in a process that has so many devices of a CPU, by what it reads as it starts."""
    said = os.environ.get(THREADS, "")
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(devices, int(said) if said.isdecimal() and int(said) else allowed)
