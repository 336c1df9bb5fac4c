"""How much memory this process can still get: what the host has free, and what its control group (a container's) and its own limit leave of it.

What would not fit is refused before it is built: who builds something large says how much that takes (`refuse_beyond`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dopt.types import InputError

SMALL = 2**26  # bytes that are not worth asking the host for
ROOT = Path("/sys/fs/cgroup")
OF_PROCESS = Path("/proc/self/cgroup")


def available() -> int:
    """Bytes."""
    import psutil

    return int(max(0, min([psutil.virtual_memory().available, *group_rooms(ROOT, OF_PROCESS), address_room()])))


def address_room() -> float:
    """Bytes that this process may still ask for by its own limit (`ulimit -v`); inf: it has none."""
    try:
        import resource
    except ImportError:  # a system that has no such limits
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return math.inf
    import psutil

    return max(0.0, limit - psutil.Process().memory_info().vms)


class Need(NamedTuple):
    """What something large takes while it is built and used."""

    field: str  # what of a run makes it so large
    what: str
    bytes: float
    hint: str  # what would do instead


def refuse_beyond(needs: Iterable[Need]) -> None:
    """InputError where all of it together does not fit; it names the largest part.

    Raises:
      InputError: it does not fit.
    """
    every = list(needs)
    total = sum(need.bytes for need in every)
    if total <= SMALL:
        return
    free = available()
    if total > free:
        field, what, most, hint = max(every, key=lambda need: need.bytes)
        raise InputError(f"{field}: {what} takes about {size(most)} of memory, {size(free)} are free here; {hint}")


def solver(field: str, workers: int, cones: int) -> Need:
    """What a convex solver takes for matrices [n, n] that must be semidefinite: squares of n (n + 1) / 2, as measured."""
    half = workers * (workers + 1) / 2
    return Need(field, f"the convex solver for {workers} workers", 54.0 * cones * half**2, "use fewer workers")


def size(count: float) -> str:
    """Bytes as a reader likes them."""
    unit, name = (2**30, "GiB") if count >= 2**30 else (2**20, "MiB")
    return f"{count / unit:,.1f} {name}" if count < 1e6 * unit else f"{count / unit:.1e} {name}"


def group_rooms(root: Path, of_process: Path) -> list[int]:
    """What each of the process's control groups has left, of version 1 and 2; groups without a limit are left out."""
    return [room for folder in groups("memory", root, of_process) if (room := _room(folder)) is not None]


def groups(controller: str, root: Path, of_process: Path) -> Iterator[Path]:
    """The process's group and those around it, of a controller (memory, cpu): each may have a limit. Lines are `number:controllers:/path`.

    In a container the path may be the host's, which is not there; its own group lies at the root then.
    """
    for line in text(of_process).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            base = root / controller
        elif number == "0" and not controllers:
            base = root
        else:
            continue
        inner = Path(path.lstrip("/"))
        yield from (base / part for part in (inner, *inner.parents))


def _room(folder: Path) -> int | None:
    """Its limit minus what is in use, without the file cache that can be given back; None: no limit."""
    for limit, use, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, used = text(folder / limit).strip(), text(folder / use).strip()
        if most.isdecimal() and used.isdecimal():
            counted = dict(line.split() for line in text(folder / "memory.stat").splitlines() if line.count(" ") == 1)
            given_back = counted.get(cache, "0")
            return int(most) - int(used) + (int(given_back) if given_back.isdecimal() else 0)
    return None


def text(path: Path) -> str:
    """What a file says, nothing where it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
