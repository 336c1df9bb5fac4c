"""Runs -> groups -> slabs, written once: the plan freezes what runs together, and so every bit of the results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dopt import group as groups
from dopt.config import Run
from dopt.config.identity import SCHEMA, hashed
from dopt.devices import memory as devices_memory
from dopt.paths import slug
from dopt.sweep.columns import frozen
from dopt.sweep.spec import Sweep
from dopt.sweep.store import FORMAT
from dopt.types import InputError

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
    limit = devices_memory.device_memory(built.devices[0])
    while True:
        compiled = built.compile(width)
        memory = compiled.memory
        if limit is None or memory is None or memory <= limit:
            return width, compiled
        if width == spread:
            devices_memory.check_fits(memory, built.devices[0], built.first.algorithm)
        width = max(spread, min(width // 2, int(width * limit / memory)) // spread * spread)


def cut(number: int, runs: list[Run], width: int) -> list[tuple[str, list[Run]]]:
    """The slabs of a group: name -> runs."""
    return [(f"group{number}-slab{i // width:03d}", runs[i : i + width]) for i in range(0, len(runs), width)]


def write(sweep: Sweep, planned: Sequence[Planned], devices: Sequence[Any]) -> dict[str, Any]:
    """The plan as plain data, each distinct digest once."""
    number: dict[str, int] = {}
    rows = {run.id: _row(run, number) for p in planned for run in p.runs}
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "name": sweep.name,
        "varied": sweep.varied,
        "merged": sweep.merged,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "columns": ["id", *sweep.runs[0].to_dict()],
        "order": [run.id for run in sweep.runs],
        "digests": list(number),
        "groups": [
            {
                "key": json.loads(p.key),
                "width": p.width,
                "memory": p.memory,
                "models": p.models,
                "slabs": [{"name": name, "runs": [rows[run.id] for run in runs]} for name, runs in p.slabs],
            }
            for p in planned
        ],
    }


def _row(run: Run, number: dict[str, int]) -> dict[str, Any]:
    """A run's id and fields; its digests by their numbers, which are given as they come."""
    numbers = {name: number.setdefault(digest, len(number)) for name, digest in run.digests.items()}
    return {"id": run.id, "digests": numbers, **run.to_dict()}


def run_of(row: Mapping[str, Any], digests: Sequence[str]) -> Run:
    """The run that a row of a plan stands for; ValueError where the row is not what its id says."""
    fields = {name: frozen(value) for name, value in row.items() if name not in ("id", "digests")}
    found = {name: digests[number] for name, number in row["digests"].items()}
    if hashed(fields, found) != row["id"]:
        raise ValueError(f"the row of run {str(row['id'])[:40]!r} is not what its id says")
    run = Run.from_dict(fields)
    vars(run).update(id=row["id"], digests=found, _resolved=run)
    return run


def read(plan: dict[str, Any], path: Path) -> list[Planned]:
    """Groups and slabs of a plan that was written before; ids are made again, from fields and digests alone.

    Raises:
      InputError: it is no plan, whatever its checksum says.
    """
    try:
        _check_head(plan)
        found = [_planned(group, plan["digests"]) for group in plan["groups"]]
        ids = [run.id for p in found for run in p.runs]
        if sorted(ids) != sorted(plan["order"]) or len(set(ids)) != len(ids):
            raise ValueError("its order does not name each of its runs once")
        names = [name for p in found for name, _ in p.slabs]
        if len(set(names)) != len(names) or any(slug(name) != name for name in names):
            raise ValueError("it has names of slabs that cannot be")
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = " ".join(str(error).split())[:200]
        raise InputError(
            f"results: {path} is damaged ({what}); move {path.parent} away, or choose another folder with --results"
        ) from error
    return found


def _check_head(plan: Mapping[str, Any]) -> None:
    """ValueError where a plan lacks what a reader needs of it."""
    kinds = {
        "name": str,
        "merged": int,
        "varied": list,
        "columns": list,
        "order": list,
        "digests": list,
        "groups": list,
    }
    for name, kind in kinds.items():
        if not isinstance(plan.get(name), kind):
            raise ValueError(f"its {name} is missing, or is none")
    if not all(isinstance(word, str) for name in ("varied", "columns", "order", "digests") for word in plan[name]):
        raise ValueError("its names are no words")


def _planned(group: Mapping[str, Any], digests: Sequence[str]) -> Planned:
    slabs = [(slab["name"], [run_of(row, digests) for row in slab["runs"]]) for slab in group["slabs"]]
    runs = [run for _, of_slab in slabs for run in of_slab]
    key = json.dumps(group["key"], sort_keys=True)
    if not runs or not isinstance(group["width"], int) or group["width"] < 1:
        raise ValueError("it has a group without runs, or without a width")
    return Planned(key, runs, group["width"], group["memory"], group["models"], slabs)
