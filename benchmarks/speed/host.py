"""What the host does for a run, from the file to the tables, without start-up and compilation: each stage by itself, in a fresh process.

`python -m benchmarks.speed.host` prints one such process's figures as JSON; the part `host` of `python -m benchmarks.speed` asks
several and takes medians.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.speed.measure import seconds
from benchmarks.speed.rows import METRICS, SWEEP, planned
from dopt import code, engine
from dopt.config import Runs
from dopt.config.identity import identify
from dopt.engine import Compiled, group_of
from dopt.sweeps import plain, plan, spec
from dopt.sweeps.store import Store
from dopt.sweeps.tables import tables

SLABS = 8  # that are packed, read and written
MANY = 625  # seeds of connectivity_delay with which it has 100 000 runs
RUN, SLAB = 100.0, 6.0  # what it may cost: microseconds a run, milliseconds a slab


class Stages:
    """Microseconds a run of named stages, added up."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, runs: int) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.found[name] = self.found.get(name, 0.0) + 1e6 * (time.perf_counter() - begin) / runs


def content() -> dict[str, Any]:
    """The main sweep's file, with the metrics that all of these programs record."""
    found = plain.read(SWEEP)
    return {**found, "parameters": {**found["parameters"], "metrics": {"value": list(METRICS)}}}


def stages_of(changes: Mapping[str, Any] = MappingProxyType({})) -> dict[str, float]:
    """Microseconds a run by stage, of the main sweep with some parameters fixed to other values."""
    timed, said = Stages(), content()
    number = len(spec.parse(said, changes=changes).runs)
    with code.once():
        with timed.stage("parse", number):
            plain.read(SWEEP)
        with timed.stage("resolve", number):
            runs = spec.parse(said, changes=changes).runs
        with timed.stage("identify", number):
            identify(runs.templates)
            _ = runs.ids
        with timed.stage("key", number):
            plan.groups_of(runs)
        with timed.stage("facts", number):
            group = group_of(runs)
    slabs = planned(runs)[2][: SLABS + 1]
    compiled = engine.compile(group, len(slabs[0]))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.create()
        for place, slab in enumerate(slabs):
            # what JAX compiles when the first slab is read is not the host's work for a run
            one = timed if place or len(slabs) == 1 else Stages()
            _one_slab(compiled, slab, store, f"slab{place}", one, max(1, len(slabs) - 1) * len(slab))
    return timed.found | {"width": len(slabs[0])}


def _one_slab(compiled: Compiled, slab: Runs, store: Store, name: str, timed: Stages, runs: int) -> None:
    with timed.stage("pack", runs):
        ready = engine.packed(compiled, slab)
    carry = engine.advanced(ready)
    with timed.stage("read", runs):
        found = engine.collected(ready, carry).columns
    with timed.stage("tables", runs):
        frames = tables(slab, found)
    with timed.stage("write", runs):
        store.write_slab(name, *frames, {"slab": name, "runs": slab.ids})
        store.check_slab(name, slab.ids)


def once() -> dict[str, float]:
    """The stages, in this process; and the seconds in which it starts: all imports, and one run that differs in what can be kept."""
    other = {"topology": "star", "workers": 9, "delay": 3, "learning_rate": 0.3, "seed": 99, "steps": 10}
    start_up = seconds(lambda: stages_of(other))
    return stages_of() | {"start_up_seconds": start_up}


def host(pairs: int) -> dict[str, Any]:
    """Medians over fresh processes, and how they compare with what a run and a slab may cost."""
    asked = [sys.executable, "-m", "benchmarks.speed.host"]
    each = [json.loads(subprocess.run(asked, check=True, stdout=subprocess.PIPE).stdout) for _ in range(min(pairs, 9))]
    stages = {name: float(np.median([found[name] for found in each])) for name in each[0]}
    width, start_up = stages.pop("width"), stages.pop("start_up_seconds")
    run = sum(s for name, s in stages.items() if name != "write")
    slab = 1e-3 * stages["write"] * width
    print("host, us a run: " + ", ".join(f"{name} {s:.1f}" for name, s in stages.items()), flush=True)
    found = {
        "processes": len(each),
        "microseconds_per_run": stages,
        "all_but_writing": run,
        "milliseconds_per_slab_written": slab,
        "start_up_seconds": start_up,
        "of_what_it_may_cost": (run * width + 1e3 * slab) / (RUN * width + 1e3 * SLAB),
    }
    print(f"host: {run:.0f} us a run and {slab:.1f} ms a slab, {found['of_what_it_may_cost']:.2f} of what it may cost")
    return found


def planning(pairs: int) -> dict[str, Any]:
    """`dopt sweep --dry-run` of 100 000 runs: seconds, and the most memory."""
    said = content()
    said["parameters"]["seed"] = {"values": list(range(MANY))}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "many.yaml"
        file.write_text(json.dumps(said))
        asked = [sys.executable, "-m", "dopt", "sweep", str(file), "--dry-run"]
        times = [
            seconds(lambda: subprocess.run(asked, check=True, stdout=subprocess.DEVNULL))
            for _ in range(max(1, pairs // 5))
        ]
    most = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    found = {"runs": 160 * MANY, "seconds": float(np.median(times)), "memory_bytes": most}
    print(f"planning {found['runs']} runs: {found['seconds']:.1f} s, {most / 2**20:.0f} MiB", flush=True)
    return found


if __name__ == "__main__":
    print(json.dumps(once()))
