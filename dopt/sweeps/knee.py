"""How many runs an accelerator does best at once: twice as many as long as a run then takes a tenth less time.

It is measured once for each group and machine, and remembered in the user's cache, never in results. On a CPU the width is fixed:
last bits depend on it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dopt import engine
from dopt.config import Runs
from dopt.data.files import cache_folder
from dopt.devices import memory
from dopt.files import write
from dopt.sweeps import seal
from dopt.types import MachineError
from dopt.version import ENGINE, installed

FIRST = 32  # runs on a device where a search begins: of fewer no slab is made, if there are more
WORTH = 0.9  # a run's time at twice the width, as a part of what it was
TRIES, LONG = 3, 0.5  # calls of a program that are timed, and seconds after which no other one is


class Knee(NamedTuple):
    """What a search has found."""

    width: int  # runs on a device
    is_last: bool  # twice as many are hardly faster, or have no room; else there were not so many to try it with


Ask = Callable[[engine.Group, Runs, str], Knee | None]  # (group, its runs, its key) -> what is known; None: nothing


def search(seconds: Callable[[int], float | None], first: int, most: int) -> Knee:
    """Double the width until a run takes hardly less time, or there is no more to double.

    Args:
      seconds: of one run, at a width; None: there is no room for that.
      first, most: widths.
    """
    width, best = first, seconds(first)
    while best is not None and 2 * width <= most:
        twice = seconds(2 * width)
        if twice is None or twice > WORTH * best:
            return Knee(width, True)
        width, best = 2 * width, twice
    return Knee(width, best is None)


def measured(group: engine.Group, runs: Runs, key: str) -> Knee | None:
    """The knee of a group, from the cache or by running it; None where there are too few runs for a search, or no steps."""
    known, most = remembered(group, runs, key), math.ceil(len(runs) / group.spread)
    if known is not None and (known.is_last or 2 * known.width > most):
        return known
    if most < 2 * FIRST or not group.calls(FIRST):
        return known
    found = search(lambda width: _seconds(group, runs, width), FIRST if known is None else known.width, most)
    _remember(group, key, found)
    return found


def _seconds(group: engine.Group, runs: Runs, width: int) -> float | None:
    """Seconds of a step of one run, at so many on each device."""
    try:
        compiled = engine.compile(group, width * group.spread)
        room = memory.room_of_slab(group.devices[0])
        if room is not None and (compiled.memory or 0) > room:
            return None
        return engine.seconds_of_step(engine.packed(compiled, runs[: compiled.width]), TRIES, LONG) / width
    except MachineError:  # the compiler, or the device itself, says so
        return None


# -- the cache --------------------------------------------------------------------------------------------------------


def remembered(group: engine.Group, runs: Runs, key: str) -> Knee | None:
    """What was measured before; a file that cannot be read, or that nobody wrote, only costs a search."""
    try:
        found = seal.unseal(_place(group, key).read_bytes())
        knee = Knee(found["width"], found["is_last"])
    except (OSError, ValueError, KeyError):
        return None
    return knee if type(knee.width) is int and knee.width >= FIRST and type(knee.is_last) is bool else None


def _remember(group: engine.Group, key: str, knee: Knee) -> None:
    path = _place(group, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, seal.seal({**_of(group, key), **knee._asdict()}))
    except OSError:  # then it is measured again
        return


def _of(group: engine.Group, key: str) -> dict[str, Any]:
    """What a knee depends on."""
    return {
        "device": group.devices[0].device_kind,
        "devices": len(group.devices) // group.spread,
        "versions": {"engine": ENGINE, **{package: installed(package) for package in ("jax", "jaxlib")}},
        "models": group.models,
        "group": hashlib.sha256(key.encode()).hexdigest(),
    }


def _place(group: engine.Group, key: str) -> Path:
    name = hashlib.sha256(json.dumps(_of(group, key), sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "widths" / f"{name}.json"
