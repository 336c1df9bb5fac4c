"""Two hosts that share a folder, whose clocks are hours apart: whichever dies, the other one does its work, to the same bits."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import yaml

import dopt
from dopt.sweeps import claims

from .processes import LIMIT, end, start
from .test_signals import SHORT

SLABS = 6
NAMESPACES = ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
CODE = """
import time
from dopt.sweeps import claims, plan
plan.PREFERRED["cpu"] = 1
claims.BEAT, claims.STALE = 0.1, 2.0
now = time.time
time.time = lambda: now() + {ahead}
"""


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    try:
        done = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no command unshare")
    if done.returncode:
        pytest.skip(f"the system gives us no namespaces: {done.stderr.strip()}")


def begin(tmp_path: Path, name: str, ahead: float, results: str, under: Sequence[str]) -> subprocess.Popen[str]:
    """A sweep on a host of that name, whose clock is so many seconds ahead."""
    parameters = {name: {"value": value} for name, value in {**SHORT, "steps": 30_000, "record_every": 30_000}.items()}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump({"name": "small", "parameters": parameters | {"seed": {"values": [*range(SLABS)]}}}))
    arguments = ["sweep", str(file), "--results", str(tmp_path / results), "--wandb", "off", "--jobs", "1"]
    return start(tmp_path / f"marks-{name}", arguments, code=CODE.format(ahead=ahead), under=under)


def host(tmp_path: Path, name: str, ahead: float) -> subprocess.Popen[str]:
    return begin(tmp_path, name, ahead, "shared", [*NAMESPACES, "sh", "-c", 'hostname "$0" && exec "$@"', name])


def tables(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def at_work(tmp_path: Path, process: subprocess.Popen[str], node: str) -> claims.Claim:
    """What a host has just begun, in the middle of its sweep."""
    locks, done = tmp_path / "shared" / "locks", tmp_path / "shared" / "slabs"
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        for claim in claims.held(locks):
            if claim.node == node and claim.name != "plan" and claim.beats == 0 and any(done.glob("[!.]*")):
                return claim
        time.sleep(0.002)
    raise AssertionError(f"{node} never claimed a slab")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name)
def test_a_host_that_is_killed_or_stopped_is_followed_by_the_other_one(number: signal.Signals, tmp_path: Path) -> None:
    one, other = host(tmp_path, "one", 3600), host(tmp_path, "other", -3600)
    locks = tmp_path / "shared" / "locks"
    lost = at_work(tmp_path, one, "one")
    assert not lost.is_dead  # nobody outside can tell
    processes = [*psutil.Process(one.pid).children(recursive=True), psutil.Process(one.pid)]
    for process in processes:
        process.send_signal(number)
    assert lost.name in [claim.name for claim in claims.held(locks)], "it came too late"
    code, _, err = end(other)
    assert (code, err) == (0, "")
    if number == signal.SIGSTOP:  # it goes on, finds all done, and throws away what it did twice
        for process in processes:
            process.send_signal(signal.SIGCONT)
        assert end(one)[::2] == (0, "")
    assert dopt.load(tmp_path / "shared").missing == 0
    assert (tmp_path / "shared" / "slabs" / lost.name).is_dir()
    # who is killed after a slab has its name leaves a claim that nobody asks for any more
    assert all((tmp_path / "shared" / "slabs" / claim.name).is_dir() for claim in claims.held(locks))
    assert not list((tmp_path / "shared").rglob(".tmp-*"))
    code, _, err = end(begin(tmp_path, "alone", 0, "alone", ()))
    assert (code, err) == (0, "")
    assert tables(tmp_path / "shared") == tables(tmp_path / "alone")
