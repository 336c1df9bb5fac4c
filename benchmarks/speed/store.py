"""A results folder of 100 000 runs that nobody computed: planned as a sweep plans them, with made-up records in slabs of 32.

`python -m benchmarks.speed.store DIR [SEEDS]` makes one; the part `store` of `python -m benchmarks.speed` makes one and asks it what
people ask, each question in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.speed.host import MANY, content
from dopt.config import Runs
from dopt.config.identity import identify
from dopt.engine import Columns
from dopt.sweeps import plan as planning
from dopt.sweeps import spec
from dopt.sweeps.compact import FOLDER as COMPACT
from dopt.sweeps.hired import RUNS as WIDTH
from dopt.sweeps.pipeline import versions
from dopt.sweeps.store import Reading, Store
from dopt.sweeps.tables import tables
from dopt.version import ENGINE

RECORDS, EVERY = 51, 10  # of each run
SECONDS, BYTES = 2.0, 2**30  # what `dopt.load` may take
LOAD = """
import json, sys, time
from dopt import load  # imports what it is made of: start-up, which the commands below count
begin = time.perf_counter()
found = load(sys.argv[1])
print(json.dumps([len(found.runs), time.perf_counter() - begin]))
"""
COMMANDS = (  # the folder comes after the first word
    "status",
    "results --where topology=ring,delay=0,seed<125 --format csv",  # 1000 runs
    "results --best-over learning_rate",
    "results --format csv",
)


class Took(NamedTuple):
    """What a process took, and what it said."""

    seconds: float
    bytes: int
    said: str


def records(runs: Runs) -> Columns:
    """Losses that fall as fast as the learning rate is large, with noise, and never reach the target for good at the smallest rates."""
    step = np.tile(EVERY * np.arange(RECORDS), (len(runs), 1))
    noise = np.random.default_rng(int(runs.seed[0])).lognormal(0.0, 0.05, step.shape)
    loss = (2.3 * np.exp(-0.01 * runs.learning_rate[:, None] * step) + 0.3) * noise
    counted = {"step": step, "gradients": 16 * step, "time": step * 1.0, "bytes_sent": 5200.0 * step}
    measured = {"loss": loss, "grad_norm": noise, "consensus_distance": 0.1 * noise, "accuracy": 1 - 0.1 * noise}
    never = np.full(len(runs), -1)
    return Columns(counted | measured, np.ones(step.shape, bool), never, never, np.full(len(runs), 0.1))


def make(folder: Path, seeds: int = MANY) -> Path:
    """The main sweep with so many seeds, planned and filled; returns the folder."""
    said = content()
    said["parameters"]["seed"] = {"values": list(range(seeds))}
    asked = spec.parse(said)
    identify(asked.runs.templates)
    planned = [
        planning.Planned(key, runs, WIDTH, None, 1, planning.cut(1, group, runs, WIDTH))
        for group, (key, runs) in enumerate(planning.groups_of(asked.runs).items())
    ]
    store = Store(folder)
    store.create()
    store.write_plan(1, planning.write(asked, planned, jax.devices(), 1))
    store.write_reading(Reading(asked.metric, asked.runs.ids, asked.varied, asked.merged))
    for group in planned:
        about = {"group": group.key, "engine": ENGINE, "width": WIDTH, "device": "cpu", "devices": 1, "threads": 1}
        about |= {"seconds": {"compile": 1.0, "run": 1.0}, "versions": versions(), "notes": []}
        for name, runs in group.slabs:
            store.write_slab(name, *tables(runs, records(runs)), {"slab": name, "runs": runs.ids, **about})
    return folder


def took(command: Sequence[str]) -> Took:
    """A process from its start to its end; its most memory."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, *command], stdout=said)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)[:200]} ended with {process.returncode}: what it said stands above")
        said.seek(0)
        return Took(seconds, 1024 * used.ru_maxrss, said.read().decode())


def store(pairs: int) -> dict[str, Any]:
    """Seconds and memory of what people ask a folder of 100 000 runs; medians."""
    times = max(1, pairs // 3)
    with tempfile.TemporaryDirectory() as name:
        folder = make(Path(name) / "store")
        first, again = loads(folder, 1), loads(folder, times)
        size = sum(path.stat().st_size for path in (folder / COMPACT).iterdir())
        found: dict[str, Any] = {
            "runs": again.pop("runs"),
            "slabs": len(list((folder / "slabs").iterdir())),
            "records": RECORDS,
            "first_load_seconds": first["seconds"],
            "first_load_bytes": first["bytes"],
            "load_seconds": again["seconds"],
            "load_bytes": again["bytes"],
            "of_what_load_may_take": [again["seconds"] / SECONDS, again["bytes"] / BYTES],
            "compact_bytes": size,
            "commands": {command: asks(command.split(), folder, times) for command in COMMANDS},
        }
    print(
        f"load: {found['load_seconds']:.2f} s (first {found['first_load_seconds']:.2f} s), {again['bytes'] / 2**20:.0f} MiB"
    )
    for command, one in found["commands"].items():
        print(f"dopt {command}: {one['seconds']:.2f} s, {one['bytes'] / 2**20:.0f} MiB", flush=True)
    return found


def loads(folder: Path, times: int) -> dict[str, Any]:
    """`dopt.load` itself, in processes that have imported dopt before."""
    each = [took(["-c", LOAD, str(folder)]) for _ in range(times)]
    runs, seconds = zip(*(json.loads(one.said) for one in each), strict=True)
    return {"runs": runs[0], "seconds": float(np.median(seconds)), "bytes": max(one.bytes for one in each)}


def asks(words: Sequence[str], folder: Path, times: int) -> dict[str, Any]:
    """A command, start-up included."""
    each = [took(["-m", "dopt", words[0], str(folder), *words[1:]]) for _ in range(times)]
    return {"seconds": float(np.median([one.seconds for one in each])), "bytes": max(one.bytes for one in each)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.store", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the store is made")
    parser.add_argument("seeds", type=int, nargs="?", default=MANY, help=f"of 160 runs each (default: {MANY})")
    args = parser.parse_args()
    make(args.folder, args.seeds)


if __name__ == "__main__":
    main()
