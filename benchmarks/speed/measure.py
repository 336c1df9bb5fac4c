"""How it is measured: turn by turn, on which machine, and where it is kept."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dopt.version import installed

RESULTS = Path(__file__).parent / "results"
Calls = Mapping[str, Callable[[int], object]]  # each takes the number of the turn


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def turns(calls: Calls, pairs: int) -> dict[str, np.ndarray]:
    """Seconds of each, [pairs], turn by turn and in alternating order; the first turn warms up."""
    times: dict[str, list[float]] = {who: [] for who in calls}
    for turn in range(-1, pairs):
        for who in list(calls)[:: 1 if turn % 2 else -1]:
            took = seconds(lambda who=who, turn=turn: calls[who](max(0, turn)))
            if turn >= 0:
                times[who].append(took)
    return {who: np.array(t) for who, t in times.items()}


def medians(times: Mapping[str, np.ndarray], scale: float = 1.0) -> dict[str, float]:
    return {who: scale * float(np.median(t)) for who, t in times.items()}


def ratio(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, list[float]]:
    """The median of the ratios of pairs, and its quartiles."""
    each = ours / theirs
    return float(np.median(each)), [float(q) for q in np.quantile(each, [0.25, 0.75])]


def slope(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Of the line of least squares through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


# -- cores ------------------------------------------------------------------------------------------------------------


def cores() -> list[int]:
    """Those that this thread may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def pin(chosen: Iterable[int]) -> None:
    """Keep this thread, and those that it starts, to some cores. Before JAX's backend starts, it decides how many threads that has."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, chosen)


@contextlib.contextmanager
def pinned(chosen: Iterable[int]) -> Iterator[None]:
    """Processes that are started meanwhile have these cores."""
    before = cores()
    pin(chosen)
    try:
        yield
    finally:
        pin(before)


# -- what is kept -----------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """On what and when it was measured."""
    device = jax.devices()[0]
    return {**versions(), "device": device.device_kind, "platform": device.platform, "cores": os.cpu_count()}


def versions() -> dict[str, Any]:
    """When it was measured, and with what."""
    return {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "versions": {p: installed(p) for p in ("dopt", "jax", "jaxlib", "optax", "numpy")},
    }


def place(found: Mapping[str, Any], kind: str = "") -> Path:
    """Where the JSON of a `machine()` lies."""
    return RESULTS / f"{kind}{found['platform']}-jax{found['versions']['jax']}-{found['date']}.json"


def write(found: Mapping[str, Any], out: Path | None, kind: str = "") -> None:
    """The JSON of what was found on a `machine()`."""
    out = out or place(found, kind)
    keep(found, out)
    print(f"wrote {out}")


def keep(found: Mapping[str, Any], out: Path) -> None:
    """A file that is there whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}")
    beside.write_text(json.dumps(found, indent=1) + "\n")
    beside.replace(out)


def kept(out: Path) -> dict[str, Any]:
    """What the file holds, or nothing."""
    return dict(json.loads(out.read_text())) if out.exists() else {}
