"""Runs -> groups -> slabs, written once: the plan freezes what runs together, and so every bit of the results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from dopt import engine, plugins
from dopt.config import UNTRACED, Resolved, Run, Runs
from dopt.config.identity import modules_of
from dopt.config.runs import bits, numbered
from dopt.devices import memory as devices_memory
from dopt.devices.executors import spread
from dopt.paths import slug
from dopt.sweeps import contents, hired
from dopt.sweeps.columns import frozen
from dopt.sweeps.contents import check_head, check_order, damage
from dopt.sweeps.knee import Knee
from dopt.sweeps.spec import Sweep
from dopt.sweeps.store import FORMAT
from dopt.types import MachineError
from dopt.version import SCHEMA

PREFERRED = {"cpu": hired.RUNS}  # runs vmapped together: wider is slower on a CPU
MOST_CALLS, MOST_STEPS = 2**24, 2**31  # of a run
OF_A_ROW = ("template", "learning_rate", "seed")  # columns of a slab; templates have all other fields


Slabs = list[tuple[str, Runs]]  # name -> runs


@dataclass
class Planned:
    """A group with its slabs."""

    key: str
    runs: Runs
    width: int
    memory: int | None
    models: int
    slabs: Slabs
    segments: tuple[engine.Segment, ...] = ()  # how each run is cut into calls
    begins: int = 0  # steps after which its runs may start, since shorter ones ended there
    path: Path | None = None  # of the plan, where it was read
    extended: bool = False  # whether the plan is of runs by which a grid grew, which no file asks for
    knee: Knee | None = None  # what is known of the best width on an accelerator
    group: engine.Group | None = None  # built when it is needed
    compiled: dict[int, engine.Compiled] = field(default_factory=dict)
    compile_seconds: float = 0.0

    def calls(self, group: engine.Group) -> tuple[engine.Call, ...]:
        """The calls of each slab; ValueError where the plan's do not make up a run of the group."""
        calls = engine.laid(self.segments, group.loop[0])
        if not engine.fit(calls, group.loop[0], group.span):
            raise ValueError("its segments do not add up to its runs")
        return calls


def groups_of(runs: Runs) -> dict[str, Runs]:
    """Runs by the program that they share, in order. A key is made once for all runs of a template.

    A rate belongs to the key only where its schedule must know it.
    """
    untraced = np.array([like.options.get("learning_rate.schedule") in UNTRACED for like in runs.templates])
    rate = np.where(untraced[runs.template], bits(runs.learning_rate), 0)
    first, kind = numbered(runs.template, rate)
    number: dict[str, int] = {}
    group = np.array([number.setdefault(engine.key(runs[row]), len(number)) for row in first.tolist()])
    return {key: runs.take(np.flatnonzero(group[kind] == i)) for key, i in number.items()}


def group_on(runs: Sequence[Resolved], devices: Sequence[Any] | None) -> engine.Group:
    """The group of runs with equal keys, on these devices, or on those that its executor takes."""
    return engine.group_of(runs, devices=devices or spread(runs[0].executor))


def is_fixed(devices: Sequence[Any]) -> bool:
    """Whether the best width on such devices is known without measuring it."""
    return devices[0].platform in PREFERRED


def width_of(runs: int, devices: Sequence[Any], knee: Knee | None = None) -> int:
    """How many runs to vmap: even slabs of about the preferred width, a multiple of the devices.

    Args:
      knee: of an accelerator; where it is not known, all runs are one slab.
    """
    measured = knee.width if knee is not None and knee.is_last else runs
    each = PREFERRED.get(devices[0].platform, measured)
    slabs = math.ceil(runs / (each * len(devices)))
    return math.ceil(math.ceil(runs / slabs) / len(devices)) * len(devices)


def choose_width(
    built: engine.Group, runs: int, jobs: int = 1, knee: Knee | None = None, begins: int = 0
) -> tuple[int, engine.Compiled]:
    """The width, and the program at that width: halved until the compiler says that the device can hold it.

    Args:
      jobs: processes that share what is free; where one run alone takes more than a share, fewer of them will work.
      knee: as of `width_of`.
      begins: as of `Planned`.
    """
    spread = built.spread
    width = width_of(runs, built.devices[:spread], knee)
    room = devices_memory.room_of_slab(built.devices[0])
    limit = room and room // jobs
    while True:
        try:
            compiled = engine.compile(built, width, built.calls(width, after=begins))
        except MachineError:  # a TPU's compiler finds out itself that there is no room
            if width == spread or is_fixed(built.devices):
                raise
            width = width // 2 // spread * spread or spread
            continue
        memory = compiled.memory
        if limit is None or memory is None or memory <= limit:
            return width, compiled
        if width == spread:
            devices_memory.check_fits(memory, built.devices[0], built.first.algorithm)
            return width, compiled  # one run has room, if not in all processes, or beside another slab
        width = max(spread, min(width // 2, int(width * limit / memory)) // spread * spread)


def cut(plan: int, group: int, runs: Runs, width: int) -> Slabs:
    """The slabs of a group, of the plan of that number: name -> runs."""
    return [(f"{plan:04d}-group{group}-slab{i // width:03d}", runs[i : i + width]) for i in range(0, len(runs), width)]


def write(
    sweep: Sweep, planned: Sequence[Planned], devices: Sequence[Any], threads: int | None = None
) -> dict[str, Any]:
    """The plan as plain data: each distinct digest once, each template once, and the rest of a run as columns.

    Args:
      threads: among which a computation is divided, which decides about last bits; None: not by a CPU.
    """
    number: dict[str, int] = {}
    templates = [_template(like, number) for like in sweep.runs.templates]
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "name": sweep.name,
        "varied": sweep.varied,
        "merged": sweep.merged,
        "extended": any(p.extended for p in planned),
        "device": devices[0].device_kind,
        "devices": len(devices),
        "threads": threads,
        "columns": ["id", *sweep.runs.templates[0].to_dict()],
        "order": sweep.runs.ids,
        "digests": list(number),
        "templates": templates,
        "imports": [found for name in modules_of(sweep.runs.templates) if (found := plugins.source(name)) is not None],
        "groups": [
            {
                "key": json.loads(p.key),
                "width": p.width,
                "memory": p.memory,
                "models": p.models,
                "segments": counted(p.segments),
                "begins": p.begins,
                "slabs": [{"name": name, **_columns(runs)} for name, runs in p.slabs],
            }
            for p in planned
        ],
    }


def imports_of(plan: Mapping[str, Any], path: Path) -> list[tuple[str, str]]:
    """(folder, file or module) of what its runs need from outside dopt."""
    with damage(path):
        found = [(folder, name) for folder, name in plan.get("imports", [])]
        if not all(isinstance(word, str) for pair in found for word in pair):
            raise ValueError("its imports are not text")
        return found


def counted(segments: Sequence[engine.Segment]) -> list[list[int]]:
    """[how many, records, steps] of segments that are alike and follow each other."""
    return [[len(list(alike)), *segment] for segment, alike in groupby(segments)]


def segments_of(rows: Any) -> tuple[engine.Segment, ...]:
    """What `counted` wrote; ValueError where nobody did."""
    if any(type(x) is not int or not 0 < x <= MOST_STEPS for row in rows for x in row):
        raise ValueError("its segments are not numbers of steps")
    if sum(number for number, _, _ in rows) > MOST_CALLS:
        raise ValueError("it has too many segments")
    return tuple(engine.Segment(records, steps) for number, records, steps in rows for _ in range(number))


def _template(like: Resolved, number: dict[str, int]) -> dict[str, Any]:
    """Fields, and digests by their numbers, which are given as they come."""
    numbers = {name: number.setdefault(digest, len(number)) for name, digest in like.digests.items()}
    return {"digests": numbers, **{name: value for name, value in like.to_dict().items() if name not in OF_A_ROW}}


def _columns(runs: Runs) -> dict[str, list[Any]]:
    columns = runs.template, runs.learning_rate, runs.seed
    return {"id": runs.ids, **{name: column.tolist() for name, column in zip(OF_A_ROW, columns, strict=True)}}


def template_of(found: Mapping[str, Any], digests: Sequence[str]) -> Resolved:
    """What a plan's runs have in common."""
    fields = {name: frozen(value) for name, value in found.items() if name != "digests"}
    like = Resolved.of(Run.from_dict({**fields, "learning_rate": 0.0, "seed": 0}))
    if fields.keys() != like.to_dict().keys() - {*OF_A_ROW}:
        raise ValueError("a template lacks a field, or has one that belongs to a row")
    vars(like)["digests"] = {name: digests[number] for name, number in found["digests"].items()}
    return like


def _numbers(slabs: Sequence[Mapping[str, Any]], name: str, kind: type) -> list[Any]:
    """A column of all slabs together."""
    found = [value for slab in slabs for value in slab[name]]
    if any(type(value) is not kind for value in found) or not all(isinstance(slab[name], list) for slab in slabs):
        raise ValueError(f"a slab's {name} is not a list of valid values")
    return found


def runs_of(slabs: Sequence[Mapping[str, Any]], templates: tuple[Resolved, ...]) -> Runs:
    """The runs of slabs, one after the other; ValueError where a row is not what its id says."""
    template, rate, seed, said = (
        _numbers(slabs, name, kind) for name, kind in zip((*OF_A_ROW, "id"), (int, float, int, str), strict=True)
    )
    lengths = {tuple(len(slab[name]) for slab in slabs) for name in (*OF_A_ROW, "id")}
    if len(lengths) != 1 or not all(0 <= number < len(templates) for number in template):
        raise ValueError("the columns of its slabs do not fit each other, or its templates")
    runs = Runs(templates, np.array(template, np.int32), np.array(rate, np.float64), np.array(seed, np.int64))
    for known, found in zip(said, runs.ids, strict=True):
        if known != found:
            raise ValueError(f"the row of run {known[:40]!r} is not what its id says")
    return runs


def index(plan: Mapping[str, Any], path: Path) -> list[tuple[str, list[str]]]:
    """The slabs of a plan, and the ids of their runs. Of an older dopt's plan they are what it says, since a run had other fields.

    Raises:
      InputError: it is no plan, whatever its checksum says.
    """
    if (plan["format"], plan.get("schema")) == (FORMAT, SCHEMA):
        return [(name, runs.ids) for p in read(plan, path) for name, runs in p.slabs]
    return contents.slabs(plan, path)


def read(plan: Mapping[str, Any], path: Path) -> list[Planned]:
    """Groups and slabs of a plan that was written before; ids are made again, from fields and digests alone.

    Raises:
      InputError: it is no plan, whatever its checksum says.
    """
    with damage(path):
        check_head(plan)
        templates = tuple(template_of(found, plan["digests"]) for found in plan["templates"])
        extended = plan.get("extended", False)
        found = [replace(_planned(group, templates), path=path, extended=extended) for group in plan["groups"]]
        if not found:
            raise ValueError("it has no groups")
        check_order([identity for p in found for identity in p.runs.ids], plan["order"])
        names = [name for p in found for name, _ in p.slabs]
        if len(set(names)) != len(names) or any(slug(name) != name for name in names):
            raise ValueError("it has invalid names of slabs")
    return found


def _planned(group: Mapping[str, Any], templates: tuple[Resolved, ...]) -> Planned:
    slabs, key = group["slabs"], json.dumps(group["key"], sort_keys=True)
    runs = runs_of(slabs, templates)
    if not len(runs) or not isinstance(group["width"], int) or group["width"] < 1:
        raise ValueError("it has a group without runs, or without a width")
    ends = np.cumsum([len(slab["id"]) for slab in slabs]).tolist()
    parts = zip(slabs, [0, *ends], ends, strict=False)
    named = [(slab["name"], runs[begin:end]) for slab, begin, end in parts]
    segments = segments_of(group["segments"])
    begins = group.get("begins", 0)
    if type(begins) is not int or begins < 0:
        raise ValueError("a group begins at an invalid step")
    return Planned(key, runs, group["width"], group["memory"], group["models"], named, segments, begins)
