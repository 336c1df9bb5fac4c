"""Processes of one run agree on it, or end together; who dies ends the others."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from ports import free_port

from .processes import end, start, wait_for

RUN = ["run", "--algorithm=gossip_sgd", "--workers=8", "--learning_rate=0.1", "--problem=quadratic", "--wandb=off"]
RUN += ["--executor=shard_map"]
DIED = r"dopt: another process of this run died .*; start all of them again( \(.*\))?\n"


def pair(tmp_path: Path, *own: Sequence[str], address: str = "", devices: int = 4) -> list[subprocess.Popen[str]]:
    """Two processes with arguments of their own."""
    common = [*RUN, "--coordinator", address or f"localhost:{free_port()}", "--processes=2", "--heartbeat=10"]
    return [
        start(tmp_path / f"marks{i}", [*common, f"--process={i}", *arguments], devices=devices)
        for i, arguments in enumerate(own)
    ]


@pytest.mark.parametrize(
    ("first", "other", "line"),
    [
        (["--steps=10"], ["--steps=2000000"], r"they differ in steps: process 0 has 10, process 1 has 2000000"),
        pytest.param(
            ["--steps=10", "--seed=0"],
            ["--steps=10", "--seed=1"],
            r"they differ in seed: process 0 has 0, process 1 has 1",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--steps=10", "--devices=4"],
            ["--steps=10", "--devices=2"],
            r"they differ in devices: process 0 has .*, process 1 has .*",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_processes_that_differ_end_with_one_line(first: list[str], other: list[str], line: str, tmp_path: Path) -> None:
    for process in pair(tmp_path, first, other):
        code, out, err = end(process)
        assert (code, out) == (2, ""), err
        assert re.fullmatch(rf"dopt: processes: {line}; start all of them with the same\n", err), err


@pytest.mark.slow
def test_where_one_refuses_the_others_say_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    folder = ["--steps=10", f"--results={tmp_path / 'file' / 'below'}"]  # only the first process writes
    said = [end(process) for process in pair(tmp_path, folder, folder)]
    assert [code for code, _, _ in said] == [1, 2]
    assert said[0][1:] == said[1][1:]
    assert said[0][2].startswith("dopt: results: cannot write to")
    assert said[0][2].count("\n") == 1


@pytest.mark.slow
def test_devices_of_each_process_can_be_chosen(tmp_path: Path) -> None:
    first, other = (end(process) for process in pair(tmp_path, *2 * [["--steps=10", "--devices=4"]], devices=0))
    assert (first[0], first[2]) == (0, "")
    assert other == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("phase", ["compile", "device"])
def test_a_dead_process_ends_the_other_with_one_line_and_1(phase: str, victim: int, tmp_path: Path) -> None:
    long = ["--steps=3000000", "--record_every=100"]
    both = pair(tmp_path, long, long)
    for i, process in enumerate(both):
        wait_for(process, tmp_path / f"marks{i}" / phase)
    both[victim].send_signal(signal.SIGKILL)
    code, out, err = end(both[1 - victim])
    assert (code, out) == (1, "")
    assert re.fullmatch(DIED, err), err
    end(both[victim])


@pytest.mark.slow
def test_a_signal_to_one_ends_both(tmp_path: Path) -> None:
    long = ["--steps=3000000", "--record_every=100"]
    both = pair(tmp_path, long, long)
    for i, process in enumerate(both):
        wait_for(process, tmp_path / f"marks{i}" / "device")
    time.sleep(0.5)
    both[1].send_signal(signal.SIGTERM)
    assert end(both[1]) == (143, "", "dopt: interrupted; a single run keeps nothing without --checkpoint-every\n")
    code, out, err = end(both[0])
    assert (code, out) == (1, "")
    assert re.fullmatch(DIED, err), err


def listening(port: int) -> set[str]:
    """Local addresses, in hexadecimal, at which this machine listens on the port."""
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, number = row.split()[1].split(":")
            if int(number, 16) == port and row.split()[3] == "0A":
                found.add(address)
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the system does not show who listens")
@pytest.mark.slow
def test_the_coordinator_listens_at_the_address_that_it_was_given_and_no_other(tmp_path: Path) -> None:
    port = free_port()
    both = pair(tmp_path, *2 * [["--steps=3000000", "--record_every=100"]], address=f"127.0.0.1:{port}")
    wait_for(both[0], tmp_path / "marks0" / "compile")
    found = listening(port)
    for process in both:
        process.kill()
        end(process)
    assert found <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, as itself or in IPv6
    assert found
