"""A sweep that grows and is killed at random moments, again and again, ends as the sweep that was made at once."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from pandas.testing import assert_frame_equal

import dopt
from dopt.sweeps import plan

from .processes import end, start

KILLS, STARTS = 50, 100  # how often it is killed; and started for that at most
MOST = 2  # slabs that it makes until it is killed: so that the work lasts
EARLY = 2.0  # seconds until it is killed, where it is to make none: in imports, planning or compilation
BASE: dict[str, Any] = {
    "algorithm": "gossip_sgd",
    "workers": 4,
    "topology": ["ring", "complete"],
    "problem": "quadratic",
    "problem.dim": 4,
    "steps": 20_000,
    "record_every": 2000,
}
STAGES: list[dict[str, Any]] = [
    {"learning_rate": [0.05, 0.1], "seed": list(range(20))},
    {"learning_rate": [0.05, 0.1], "seed": list(range(40))},
    {"learning_rate": [0.05, 0.1, 0.2], "seed": list(range(40))},
    {"learning_rate": [0.025, 0.05, 0.1, 0.2], "seed": list(range(40))},
    {"learning_rate": [0.025, 0.05, 0.1, 0.2, 0.4], "seed": list(range(40))},
]
NARROW = "from dopt.sweeps import plan\nplan.PREFERRED['cpu'] = 4\n"  # so that there are many slabs


def marks(results: Path) -> dict[str, tuple[int, int]]:
    """Slab -> (inode, time of the last change) of its manifest: the same only if it was not made again."""
    slabs = sorted((results / "slabs").glob("[!.]*/manifest.json"))
    return {path.parent.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in slabs}


def wait_a_while(process: subprocess.Popen[str], results: Path, slabs: int, draw: random.Random) -> None:
    """Until so many slabs are there and a moment more, or, where they are already, for a time in which none may come."""
    early = draw.uniform(0.0, EARLY)
    if len(marks(results)) >= slabs:
        time.sleep(early)
        return
    while len(marks(results)) < slabs and process.poll() is None:
        time.sleep(0.005)
    time.sleep(draw.uniform(0.0, 0.1))


@pytest.mark.slow
def test_a_growing_sweep_that_is_killed_at_random_moments_gives_the_same_bits_and_makes_no_slab_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, results, before = random.Random(0), tmp_path / "results", dict[str, tuple[int, int]]()
    killed = 0
    for number in range(STARTS):
        stage = STAGES[min(killed * len(STAGES) // KILLS, len(STAGES) - 1)]
        file = tmp_path / f"{number}.yaml"
        each = {k: {"values": v} if isinstance(v, list) else {"value": v} for k, v in {**BASE, **stage}.items()}
        file.write_text(yaml.safe_dump({"name": "growing", "parameters": each}))
        arguments = ["sweep", str(file), "--results", str(results), "--wandb", "off", "--jobs", "2"]
        process = start(tmp_path / "marks", arguments, code=NARROW)
        if killed < KILLS:
            wait_a_while(process, results, len(before) + draw.randint(0, MOST), draw)
            process.kill()
        code, _, err = end(process)
        killed += code < 0
        assert (code, err) in ((-9, ""), (0, "")), err
        now = marks(results)
        assert {name: now.get(name) for name in before} == before
        before = now
        if killed == KILLS and code == 0:
            break
    assert killed == KILLS
    found = dopt.load(results)
    assert (len(found.runs), found.missing, found.hidden, found.faults) == (400, 0, 0, ())
    assert not list(results.rglob(".tmp-*"))
    monkeypatch.setitem(plan.PREFERRED, "cpu", 4)
    whole = tmp_path / "whole"
    assert (
        end(start(tmp_path / "marks", ["sweep", str(file), "--results", str(whole), "--wandb", "off"], code=NARROW))[0]
        == 0
    )
    at_once = dopt.load(whole)
    assert_frame_equal(found.runs, at_once.runs, check_exact=True)
    assert_frame_equal(found.history, at_once.history, check_exact=True)
