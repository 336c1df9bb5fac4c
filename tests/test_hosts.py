"""Runs over several processes: the numbers of the simulation; and one line where a process dies or does not fit."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hurry
import numpy as np
import pytest
from ports import free_port
from refusals import refused

from dopt.cli import main
from dopt.devices import last_words

ROOT = Path(__file__).parents[1]
FLAGS = f"--xla_force_host_platform_device_count=4 {hurry.FLAGS}"
METHODS = {
    "gossip_sgd": {"algorithm": "gossip_sgd"},
    "local steps": {"algorithm": "gossip_sgd", "algorithm.local_steps": 3},
    "allreduce_sgd": {"algorithm": "allreduce_sgd"},
    "local_sgd": {"algorithm": "local_sgd"},
    "fsdp_sgd": {"algorithm": "fsdp_sgd"},
    "gradient_tracking": {"algorithm": "gradient_tracking"},
    "momentum on a mesh": {"algorithm": "gossip_sgd", "optimizer.momentum": 0.9, "executor": "mesh", "workers": 16},
}
QUICK = ("gossip_sgd", "momentum on a mesh")  # the last one is cut, and goes on; `make cluster` makes the others
# process 0 makes each run once more, simulated on a device of its own; both processes say what they found
EACH = """
import json
import sys
import numpy as np
import dopt
from dopt.devices import hosts

hosts.initialize(sys.argv[3], 2, int(sys.argv[1]))
found = {}
for name, fields in json.loads(sys.argv[5]).items():
    common = dict(workers=8, problem="quadratic", learning_rate=0.1, steps=30)
    common |= {"executor": "shard_map", "problem.dim": 5, "problem.noise": 0.1, **fields}
    for where in [common["executor"], "vmap"][: 2 if hosts.first() else 1]:
        result = dopt.run(dopt.Run.from_dict(common | {"executor": where}))
        found[f"{name}/{where != 'vmap'}"] = result.params
        found[f"{name}/{where != 'vmap'}/loss"] = result.history["loss"]

class CutError(Exception):
    pass

def cut(done, total):
    if done > 3:
        raise CutError
    return 1

run = dopt.Run.from_dict(common | {"record_every": 5})  # of the last ones, on a mesh
try:
    dopt.run(run, checkpoint=dopt.Checkpoints(sys.argv[4], every=10), look=cut)
except CutError:
    found["resumed"] = dopt.run(run, checkpoint=dopt.Checkpoints(sys.argv[4], every=10)).params
    found["whole"] = dopt.run(run).params
np.savez(sys.argv[2], **found)
"""
LONG = ["--algorithm", "gossip_sgd", "--workers", "8", "--learning_rate", "0.1", "--problem", "quadratic"]
LONG += ["--executor", "shard_map", "--wandb", "off", "--steps", "3000000", "--record_every", "100"]
# the command, which also leaves a mark once steps are being made
COMMAND = """
import sys
from pathlib import Path
from dopt.cli import main
from dopt.engine import single

paced = single.pace
single.pace = lambda *rest: (lambda look: lambda done, total: (done and Path(sys.argv[1]).touch(), look(done, total))[1])(paced(*rest))
sys.exit(main(sys.argv[2:]))
"""


def start(*arguments: str) -> subprocess.Popen:
    """A Python with four virtual devices."""
    own = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=os.environ | own, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(QUICK, id="quick"),
        pytest.param([name for name in METHODS if name not in QUICK], id="the others", marks=pytest.mark.cluster),
    ],
)
def test_two_processes_end_where_the_simulation_ends(names: Sequence[str], tmp_path: Path) -> None:
    rest = f"localhost:{free_port()}", str(tmp_path / "kept"), json.dumps({name: METHODS[name] for name in names})
    pair = [start(EACH, str(i), str(tmp_path / f"{i}.npz"), *rest) for i in range(2)]
    for process in pair:
        out, err = process.communicate(timeout=240)
        assert (process.returncode, out, err) == (0, "", "")
    mine, others = (np.load(tmp_path / f"{i}.npz") for i in range(2))
    for name in names:
        np.testing.assert_allclose(mine[f"{name}/True"], mine[f"{name}/False"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(mine[f"{name}/True/loss"], mine[f"{name}/False/loss"], rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(mine[f"{name}/True"], others[f"{name}/True"])
    for found in (mine, others):  # one that was cut, and went on from the checkpoint that all processes share
        np.testing.assert_array_equal(found["resumed"], found["whole"])


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_the_death_of_one_process_ends_the_other_with_one_line_and_leaves_the_store(
    victim: int, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    assert main(["run", *LONG[:8], "--steps", "10", "--wandb", "off", "--results", str(folder)]) == 0
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*")}
    beat, marks = 10, [tmp_path / "mark0", tmp_path / "mark1"]
    shared = [*LONG, "--results", str(folder), "--coordinator", f"localhost:{free_port()}", "--processes", "2"]
    shared += ["--heartbeat", str(beat)]
    pair = [start(COMMAND, str(marks[i]), "run", *shared, "--process", str(i)) for i in range(2)]
    for _ in range(1200):
        if all(mark.exists() for mark in marks) or any(process.poll() is not None for process in pair):
            break
        time.sleep(0.1)
    died = time.monotonic()
    pair[victim].send_signal(signal.SIGKILL)
    out, err = pair[1 - victim].communicate(timeout=120)
    assert time.monotonic() - died < 2 * beat + 5
    assert pair[1 - victim].returncode == 1
    assert out == ""
    assert re.fullmatch(r"dopt: another process of this run died .*; start all of them again( \(.*\))?\n", err), err
    pair[victim].communicate()
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*")} == before


def test_only_the_first_process_prints_and_writes(tmp_path: Path) -> None:
    shared = [*LONG[:-4], "--steps", "20", "--coordinator", f"localhost:{free_port()}", "--processes", "2"]
    pair = [
        start(COMMAND, str(tmp_path / "mark"), "run", *shared, "--process", str(i), "--results", str(tmp_path / str(i)))
        for i in range(2)
    ]
    (first, other) = (process.communicate(timeout=120) for process in pair)
    assert [process.returncode for process in pair] == [0, 0]
    assert other == ("", "")
    assert first[1] == ""
    assert "consensus_distance" in first[0]
    assert len(list((tmp_path / "0").glob("*.parquet"))) == 2
    assert not (tmp_path / "1").exists()


def test_where_jax_finds_no_cluster_all_must_be_said(tmp_path: Path) -> None:
    alone = start(COMMAND, str(tmp_path / "mark"), "run", *LONG, "--coordinator", "auto")
    out, err = alone.communicate(timeout=120)
    assert (alone.returncode, out) == (2, "")
    assert re.fullmatch(r"dopt: coordinator: .* Got auto; give HOST:PORT, --processes N and --process I\n", err), err


@pytest.mark.slow
def test_who_finds_nobody_ends_with_one_line(tmp_path: Path) -> None:
    code = "import sys\nfrom dopt.devices import hosts\nhosts.HEARTBEAT = 2\n" + COMMAND
    few = ["--processes", "2", "--process", "1", "--heartbeat", "2"]
    alone = start(code, str(tmp_path / "mark"), "run", *LONG, "--coordinator", f"localhost:{free_port()}", *few)
    out, err = alone.communicate(timeout=120)
    assert (alone.returncode, out) == (1, "")
    assert re.fullmatch(r"dopt: another process of this run died or cannot be reached, .*\n", err), err


def test_more_processes_than_workers_are_refused_by_all_of_them(tmp_path: Path) -> None:
    workers = LONG.index("8")
    shared = [
        *LONG[:workers],
        "3",
        *LONG[workers + 1 :],
        "--coordinator",
        f"localhost:{free_port()}",
        "--processes",
        "2",
    ]
    pair = [start(COMMAND, str(tmp_path / "mark"), "run", *shared, "--process", str(i)) for i in range(2)]
    line = "dopt: processes: workers=3 leave 1 of 2 processes without a worker; start 1, or use more workers\n"
    for process in pair:
        assert process.communicate(timeout=120) == ("", line)
        assert process.returncode == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    {
        "no address": (["--coordinator", "here"], ("coordinator", "HOST:PORT", "'here'")),
        "no port": (["--coordinator", "here:99999"], ("coordinator", "HOST:PORT", "'here:99999'")),
        "no host": (["--coordinator", ":99"], ("coordinator", "HOST:PORT", "':99'")),
        "no numbers": (["--coordinator", "here:1"], ("coordinator", "--processes", "--process")),
        "no coordinator": (["--processes", "2"], ("processes", "--coordinator")),
        "no processes": (
            ["--coordinator", "here:1", "--processes", "0", "--process", "0"],
            ("processes", "at least 1", "got 0"),
        ),
        "a process too many": (
            ["--coordinator", "here:1", "--processes", "2", "--process", "2"],
            ("process: must lie in 0..1", "got 2"),
        ),
        "no time": (
            ["--coordinator", "here:1", "--processes", "2", "--process", "0", "--heartbeat", "0"],
            ("heartbeat", "at least 1", "got 0"),
        ),
        "a simulation": (["--coordinator", "here:1", "--executor", "vmap"], ("executor: vmap", "shard_map or mesh")),
    }.values(),
    ids=str,
)
def test_processes_that_cannot_be_are_one_line(
    capsys: pytest.CaptureFixture, flags: list[str], said: tuple[str, ...]
) -> None:
    given = LONG if "--executor" not in flags else [word for word in LONG if word not in ("--executor", "shard_map")]
    refused(capsys, ["run", *given, *flags], *said)


THROWN = "terminate called after throwing an instance of 'gloo::EnforceNotMet'\n  what():  [enforce fail] 8 vs 4\n\n"
REFUSED = "[external/gloo/gloo/transport/tcp/debug_logger.cc:25] ERROR failed to connect, willRetry=1\n"


@pytest.mark.parametrize(
    ("written", "left"),
    [
        (THROWN, f"{last_words.DEAD}\n"),
        (f"{REFUSED}{REFUSED}a line\ndopt: it died\n", "a line\ndopt: it died\n"),
        (f"dopt: it died\n{THROWN}", "dopt: it died\n"),
        (f"{REFUSED}a line\n", "a line\n"),
    ],
)
def test_of_a_peer_that_died_one_line_is_left_whatever_the_library_of_messages_says(written: str, left: str) -> None:
    said = subprocess.run([sys.executable, "-I", last_words.__file__], input=written, capture_output=True, text=True)
    assert (said.stdout, said.stderr) == ("", left)
