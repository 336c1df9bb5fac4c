"""`dopt launch slurm` on a real Slurm: whatever becomes of its tasks, what is there in the end is what one machine makes."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import yaml
from small import small_sweep

from dopt.sweeps.store import Store

from .slurm import said, slurm, wait

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
SLABS = 40
TASKS = 4
OWN = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
TERM_PENDS = 1 << (signal.SIGTERM - 1)


class Task(NamedTuple):
    """What Slurm says of a task."""

    state: str
    restarts: int


class Place(NamedTuple):
    """A folder, and the Slurm that is used there."""

    folder: Path
    env: dict[str, str]

    def dopt(self, *words: str) -> str:
        """What the command prints."""
        done = subprocess.run(
            [sys.executable, "-m", "dopt", *words], cwd=self.folder, env=self.env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def launch(self, results: str, *words: str) -> str:
        """The number of the job."""
        printed = self.dopt("launch", "slurm", "small.yaml", f"--results={results}", "--wandb=off", *words)
        found = re.fullmatch(rf"submitted job (\d+); its tasks write their output to {results}/logs\n", printed)
        assert found, printed
        return found[1]

    def tasks(self, job: str) -> dict[int, Task]:
        """Those that Slurm has begun to treat one by one."""
        blocks = said(self.env, "scontrol", "show", "job", job).split("\n\n")
        pattern = r"ArrayTaskId=(\d+) .*JobState=(\w+) .*Restarts=(\d+)"
        found = [match for block in blocks if (match := re.search(pattern, block, re.DOTALL))]
        return {int(number): Task(state, int(restarts)) for number, state, restarts in (m.groups() for m in found)}

    def limit(self, job: str, minutes: int) -> None:
        """Give a job another limit."""
        said(self.env, "scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")

    def slabs(self, results: str) -> dict[str, tuple[int, int]]:
        """Those that are there, with what would be another if one were made again."""
        folder = self.folder / results / "slabs"
        there = list(folder.glob("[!.]*")) if folder.is_dir() else []
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in there}

    def wait_for_end(self, job: str, results: str) -> None:
        def ended() -> bool:
            return not said(self.env, "squeue", "--noheader", f"--jobs={job}").strip()

        wait(ended, "the end of the job", self.folder / results / "logs")

    def check_whole(self, results: str) -> None:
        """Each slab has the tables of one machine's, to the byte, and nobody holds anything."""
        slabs = [Path(folder) / "slabs" for folder in (self.folder / results, self.folder / "alone")]
        mine, theirs = (
            {str(path.relative_to(top)): path.read_bytes() for path in top.glob("*/*.parquet")} for top in slabs
        )
        assert len(mine) == 2 * SLABS
        assert mine == theirs
        store = Store(self.folder / results)
        for name in (*self.slabs(results), "plan"):
            with store.locked(name, wait=False) as free:
                assert free, name
        assert "nothing to run" in self.dopt("sweep", "small.yaml", f"--results={results}", "--wandb=off")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A folder whose name must be quoted, with a sweep of many slabs, and what one machine makes of it."""
    folder = tmp_path_factory.mktemp('o d\'d "$(touch came)" # %A')
    sweep = small_sweep(learning_rate=0.1, steps=8000, record_every=4000, seed=list(range(32 * SLABS)))
    (folder / "small.yaml").write_text(yaml.safe_dump(sweep))
    with slurm(cpus=TASKS) as env:
        found = Place(folder, env | OWN)
        found.dopt("sweep", "small.yaml", "--results=alone", "--wandb=off")
        yield found


def test_tasks_share_a_sweep_though_one_is_requeued_and_one_cancelled(place: Place) -> None:
    job = place.launch("shared", f"--array={TASKS}", "--partition=main")

    def all_run() -> bool:
        states = [task.state for task in place.tasks(job).values()]
        return states.count("RUNNING") == TASKS and len(place.slabs("shared")) >= 4

    logs = place.folder / "shared/logs"
    wait(all_run, "all tasks running, and some slabs", logs)
    said(place.env, "scontrol", "requeue", f"{job}_1")
    said(place.env, "scancel", f"{job}_2")
    before = place.slabs("shared")
    assert len(before) < SLABS
    place.wait_for_end(job, "shared")
    ended = place.tasks(job)
    assert ended == {0: Task("COMPLETED", 0), 1: Task("COMPLETED", 1), 2: Task("CANCELLED", 0), 3: Task("COMPLETED", 0)}
    assert before.items() <= place.slabs("shared").items()
    for number in (1, 2):
        assert "finished work is kept" in (logs / f"slurm-{job}_{number}.log").read_text()
    place.check_whole("shared")


def test_a_task_near_its_time_limit_ends_in_good_order_and_goes_on_later(place: Place) -> None:
    """Slurm looks at limits twice a minute; so the limit comes near when the task has done something, and not before."""
    asked = ("--array=1", "--time=30", "--cpus=1")
    shown = place.dopt("launch", "slurm", "small.yaml", "--results=limited", "--wandb=off", *asked, "--print")
    begin = time.monotonic()
    job = place.launch("limited", *asked)
    assert said(place.env, "scontrol", "write", "batch_script", job, "-").rstrip("\n") == shown.rstrip("\n")
    logs = place.folder / "limited/logs"
    wait(lambda: len(place.slabs("limited")) >= 2, "some slabs", logs)
    (sweep,) = sweeps(place.folder / "limited")
    sweep.suspend()  # so that it is not done before the signal comes
    before = place.slabs("limited")
    assert len(before) < SLABS
    place.limit(job, math.ceil((time.monotonic() - begin + 35) / 60))  # minutes: less than 60 s ahead, and another look
    wait(lambda: pending(sweep.pid) & TERM_PENDS != 0, "the signal", logs)
    place.limit(job, 30)
    sweep.resume()
    place.wait_for_end(job, "limited")
    assert place.tasks(job) == {0: Task("COMPLETED", 1)}
    assert before.items() <= place.slabs("limited").items()
    assert "finished work is kept" in (logs / f"slurm-{job}_0.log").read_text()
    place.check_whole("limited")


def sweeps(results: Path) -> list[psutil.Process]:
    """Processes of `dopt sweep` into this folder."""
    return [p for p in psutil.process_iter(["cmdline"]) if f"--results={results}" in (p.info["cmdline"] or [])]


def pending(process: int) -> int:
    """Signals that wait for a process, a bit each."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"^ShdPnd:\s*(\w+)", status, re.MULTILINE)[1], 16)  # type: ignore[index]
