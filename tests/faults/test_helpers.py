"""Processes that share a sweep: whoever dies, no slab is lost, the others end or go on, and it is said why."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

import dopt

from .processes import LIMIT, end, start, wait_for
from .test_signals import CODES, KEPT, SHORT, SOON

SLABS, WIDTH = 4, 32


def shared(tmp_path: Path, steps: int) -> tuple[subprocess.Popen[str], psutil.Process]:
    """A sweep that two processes share, and the helper, at work."""
    parameters = {name: {"value": value} for name, value in {**SHORT, "steps": steps, "record_every": steps}.items()}
    parameters["seed"] = {"values": list(range(SLABS * WIDTH))}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump({"name": "small", "parameters": parameters}))
    arguments = ["sweep", str(file), "--results", str(tmp_path / "results"), "--wandb", "off", "--jobs", "2"]
    process = start(tmp_path / "marks", arguments, DOPT_CACHE_DIR=str(tmp_path / "cache"))
    wait_for(process, tmp_path / "marks" / "device")
    (helper,) = psutil.Process(process.pid).children(recursive=True)
    claim = tmp_path / "results" / "locks" / f"0001-group0-slab{SLABS // 2:03d}.claim"  # it begins in the middle
    wait_for(process, claim)
    time.sleep(0.5)
    return process, helper


@pytest.mark.slow
@pytest.mark.parametrize("number", [*CODES, signal.SIGKILL], ids=lambda number: number.name)
def test_a_signal_to_a_sweep_ends_its_helpers(number: signal.Signals, tmp_path: Path) -> None:
    process, helper = shared(tmp_path, 1_000_000)
    begin = time.monotonic()
    process.send_signal(number)
    code, out, err = end(process)
    expected = (-signal.SIGKILL, "") if number == signal.SIGKILL else (CODES[number], KEPT)
    assert ((code, err), out) == (expected, "")
    assert psutil.wait_procs([helper], timeout=SOON)[1] == []
    assert time.monotonic() - begin < 2 * SOON


@pytest.mark.slow
def test_a_killed_helpers_slabs_are_done_and_its_death_is_told(tmp_path: Path) -> None:
    process, helper = shared(tmp_path, 30_000)
    helper.kill()
    code, _, err = end(process)
    assert code == 0, err
    assert re.fullmatch(
        r"jobs: a helper process was killed \(SIGKILL: maybe the system ran out of memory\)(; 0001-group0-slab00\d is run again)?\n",
        err,
    ), err
    assert dopt.load(tmp_path / "results").missing == 0


@pytest.mark.slow
def test_a_sweep_that_python_began_is_gone_on_with_by_a_process_of_as_many_threads(tmp_path: Path) -> None:
    process, _ = shared(tmp_path, 30_000)
    process.kill()
    end(process)
    left = time.monotonic() + LIMIT
    results = dopt.sweep(tmp_path / "small.yaml", results=tmp_path / "results")
    assert time.monotonic() < left
    assert results.missing == 0
    said = [path.read_text() for path in (tmp_path / "results" / "slabs").glob("*/manifest.json")]
    assert len(said) == SLABS
    assert all('"threads": 1,' in text for text in said)
