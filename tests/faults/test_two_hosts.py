"""Two hosts that share a folder, whose clocks are hours apart: whichever dies, the other one does its work, to the same bits."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
import yaml

import dopt
from dopt.sweeps import claims

from .processes import LIMIT, end, start, wait_for
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
# so that it stands in the middle of its second slab for as long as the test wants
HOLD = """
from dopt import engine
advanced, slabs = engine.advanced, []

def held_up(*args):
    slabs.append(args)
    while len(slabs) == 2 and not (MARKS / "go").exists():
        (MARKS / "holds").touch()
        time.sleep(0.01)
    return advanced(*args)

engine.advanced = held_up
"""


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    try:
        done = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no command unshare")
    if done.returncode:
        pytest.skip(f"the system gives us no namespaces: {done.stderr.strip()}")


def begin(
    tmp_path: Path, name: str, results: str, ahead: float = 0, code: str = "", under: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """A sweep on a host of that name, whose clock is so many seconds ahead; `code` runs before it."""
    parameters = {name: {"value": value} for name, value in {**SHORT, "steps": 1000, "record_every": 1000}.items()}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump({"name": "small", "parameters": parameters | {"seed": {"values": [*range(SLABS)]}}}))
    arguments = ["sweep", str(file), "--results", str(tmp_path / results), "--wandb", "off", "--jobs", "1"]
    return start(tmp_path / f"marks-{name}", arguments, code=CODE.format(ahead=ahead) + code, under=under)


def host(tmp_path: Path, name: str, ahead: float, code: str = "") -> subprocess.Popen[str]:
    under = [*NAMESPACES, "sh", "-c", 'hostname "$0" && exec "$@"', name]
    return begin(tmp_path, name, "shared", ahead, code, under)


def tables(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def until(process: subprocess.Popen[str], there: Callable[[], bool]) -> None:
    last = time.monotonic() + LIMIT
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < last
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name)
def test_a_host_that_is_killed_or_stopped_is_followed_by_the_other_one(number: signal.Signals, tmp_path: Path) -> None:
    locks, slabs = tmp_path / "shared" / "locks", tmp_path / "shared" / "slabs"
    one = host(tmp_path, "one", 3600, HOLD)
    wait_for(one, tmp_path / "marks-one" / "holds")
    other = host(tmp_path, "other", -3600)
    until(other, lambda: len([*slabs.glob("[!.]*")]) == SLABS - 1)
    until(other, lambda: len(claims.held(locks)) == 1)
    (lost,) = claims.held(locks)
    assert lost.node == "one"
    # while it lives nobody takes its slab, though its clock is two hours off and nobody outside can tell
    until(other, lambda: claims.held(locks)[0].beats > lost.beats + 3 * claims.STALE / claims.BEAT)
    assert not lost.is_dead
    processes = [*psutil.Process(one.pid).children(recursive=True), psutil.Process(one.pid)]
    for process in processes:
        process.send_signal(number)
    code, _, err = end(other)
    assert (code, err) == (0, "")
    if number == signal.SIGSTOP:  # it goes on, finds all done, and throws away what it did twice
        (tmp_path / "marks-one" / "go").touch()
        for process in processes:
            process.send_signal(signal.SIGCONT)
        assert end(one)[::2] == (0, "")
    assert dopt.load(tmp_path / "shared").missing == 0
    assert (slabs / lost.name).is_dir()
    assert not claims.held(locks)
    assert not list((tmp_path / "shared").rglob(".tmp-*"))
    code, _, err = end(begin(tmp_path, "alone", "alone"))
    assert (code, err) == (0, "")
    assert tables(tmp_path / "shared") == tables(tmp_path / "alone")
