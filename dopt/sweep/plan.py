"""Runs -> groups -> slabs, written once: the plan freezes what runs together, and so every bit of the results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dopt import execute
from dopt import group as groups
from dopt.config import Run
from dopt.sweep.spec import Sweep
from dopt.types import InputError

PLAN = 1  # number of the plan's format
PREFERRED = {"cpu": 32}  # runs vmapped together: wider is slower on a CPU
PREFERRED_ELSEWHERE = 1024


@dataclass
class Planned:
    """A group with its slabs."""

    key: str
    runs: list[Run]
    width: int
    memory: int | None
    models: int
    slabs: list[tuple[str, list[Run]]]
    group: groups.Group | None = None  # built when it is needed
    compiled: dict[int, groups.Compiled] = field(default_factory=dict)
    compile_seconds: float = 0.0


def groups_of(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by the program that they share, in order."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(groups.key(run), []).append(run)
    return found


def width_of(runs: int, devices: Sequence[Any]) -> int:
    """How many runs to vmap: even slabs of about the preferred width, a multiple of the devices."""
    preferred = PREFERRED.get(devices[0].platform, PREFERRED_ELSEWHERE) * len(devices)
    slabs = math.ceil(runs / preferred)
    return math.ceil(math.ceil(runs / slabs) / len(devices)) * len(devices)


def choose_width(built: groups.Group, runs: int) -> tuple[int, groups.Compiled]:
    """The width, and the program at that width: halved until the compiler says that the device can hold it."""
    spread = built.spread
    width = width_of(runs, built.devices[:spread])
    limit = execute.device_memory(built.devices[0])
    while True:
        compiled = built.compile(width)
        memory = compiled.memory
        if limit is None or memory is None or memory <= limit:
            return width, compiled
        if width == spread:
            raise InputError(
                f"sweep: one run of {built.first.algorithm} needs {memory / 2**30:.1f} GiB, the device has {limit / 2**30:.1f} GiB; use a smaller model, fewer workers or a shorter delay.max"
            )
        width = max(spread, min(width // 2, int(width * limit / memory)) // spread * spread)


def cut(number: int, runs: list[Run], width: int) -> list[tuple[str, list[Run]]]:
    """The slabs of a group: name -> runs."""
    return [(f"group{number}-slab{i // width:03d}", runs[i : i + width]) for i in range(0, len(runs), width)]


def write(sweep: Sweep, planned: Sequence[Planned], devices: Sequence[Any]) -> dict[str, Any]:
    """The plan as plain data."""
    return {
        "format": PLAN,
        "name": sweep.name,
        "metric": sweep.metric,
        "varied": sweep.varied,
        "merged": sweep.merged,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "columns": ["id", *sweep.runs[0].to_dict()],
        "order": [run.id for run in sweep.runs],
        "groups": [
            {
                "key": json.loads(p.key),
                "width": p.width,
                "memory": p.memory,
                "models": p.models,
                "slabs": [
                    {"name": name, "runs": [{"id": run.id, **run.to_dict()} for run in runs]} for name, runs in p.slabs
                ],
            }
            for p in planned
        ],
    }


def run_of(row: Mapping[str, Any]) -> Run:
    """The run that a row of a plan stands for."""
    return Run.from_dict({k: tuple(v) if isinstance(v, list) else v for k, v in row.items() if k != "id"})


def read(plan: dict[str, Any]) -> list[Planned]:
    """Groups and slabs of a plan that was written before."""
    found = []
    for g in plan["groups"]:
        slabs = []
        for slab in g["slabs"]:
            slabs.append((slab["name"], [run_of(row) for row in slab["runs"]]))
        found.append(
            Planned(
                json.dumps(g["key"], sort_keys=True),
                [r for _, runs in slabs for r in runs],
                g["width"],
                g["memory"],
                g["models"],
                slabs,
            )
        )
    return found
