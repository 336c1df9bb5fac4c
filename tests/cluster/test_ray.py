"""`--engine ray` on real Ray clusters of this machine: whatever becomes of machines and drivers, the tables are one machine's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import yaml
from required import require
from small import small_sweep

import dopt

pytestmark = [
    pytest.mark.cluster,
    # Ray's own, in this process, which starts clusters
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROOT = Path(__file__).parents[2]
SLABS = 40
RATES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 3.0]
OWN = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
PLUGIN = """
import sys, time
import numpy as np
from dopt import engine
from dopt.mixing import WEIGHTS

BAD = {bad}  # a seed whose slabs fail on Ray
packed = engine.packed

def slow(compiled, runs):
    if "ray" in sys.modules:
        time.sleep(0.15)
        if BAD in runs.seed:
            raise RuntimeError("no such slab today")
    return packed(compiled, runs)

engine.packed = slow

@WEIGHTS.register()
def even(graph):
    return np.full((len(graph), len(graph)), 1 / len(graph))
"""
SCRIPT = """
import sys
import slow
from dopt.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


class Place(NamedTuple):
    """A folder with a sweep of 40 slabs, which names a file and a plug-in that lie only there."""

    folder: Path
    env: dict[str, str]

    def command(self, results: str, *words: str) -> list[str]:
        logged = () if any(word.startswith("--wandb") for word in words) else ("--wandb=off",)
        return [sys.executable, "job.py", "sweep", "small.yaml", f"--results={results}", *logged, *words]

    def start(self, results: str, *words: str) -> subprocess.Popen[str]:
        command, pipe = self.command(results, *words), subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=pipe, stderr=pipe, text=True)

    def run(self, results: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = self.command(results, *words)
        return subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=240)

    def slabs(self, results: str) -> dict[str, tuple[int, int]]:
        """Those that are there, with what would be another if one were made again."""
        folder = self.folder / results / "slabs"
        there = list(folder.glob("[!.]*")) if folder.is_dir() else []
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in there}

    def wait_for(self, count: int, results: str, driver: subprocess.Popen[str]) -> None:
        """Until so many slabs are there."""
        end = time.monotonic() + 120
        while len(self.slabs(results)) < count:
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)

    def tables(self, results: str) -> dict[str, bytes]:
        folder = self.folder / results
        return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def place_in(folder: Path, bad: int = -1) -> Place:
    sweep = small_sweep(seed=list(range(160)), learning_rate=RATES, topology="graph.edges", weights="even")
    (folder / "small.yaml").write_text(yaml.safe_dump(sweep))
    (folder / "graph.edges").write_text("0 1\n1 2\n2 3\n3 0\n")
    (folder / "slow.py").write_text(PLUGIN.format(bad=bad))
    (folder / "job.py").write_text(SCRIPT)
    return Place(folder, {**os.environ, **OWN, "NPROC": "1", "DOPT_CACHE_DIR": str(folder / "cache")})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one machine makes."""
    place = place_in(tmp_path_factory.mktemp("one"))
    done = place.run("results")
    assert done.returncode == 0, done.stderr
    assert len(place.slabs("results")) == SLABS
    return place.tables("results")


@pytest.fixture(autouse=True)
def needs_ray() -> None:
    if util.find_spec("ray") is None:
        require("ray", "Ray is not installed")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return place_in(tmp_path)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Three nodes of a core each. Their cache is their own."""
    for name, value in (OWN | {"DOPT_CACHE_DIR": str(tmp_path / "node")}).items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        made.add_node(num_cpus=1)
        made.add_node(num_cpus=1)
        yield made
    finally:
        made.shutdown()


def ended(driver: subprocess.Popen[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    out, err = driver.communicate(timeout=240)
    return driver.returncode, out, err


def test_a_node_that_dies_and_one_that_comes_change_no_bit(cluster: Any, place: Place, whole: dict[str, bytes]) -> None:
    driver = place.start("results", "--engine=ray", f"--address={cluster.address}")
    place.wait_for(8, "results", driver)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    before = place.slabs("results")
    cluster.add_node(num_cpus=1)
    code, _, err = ended(driver)
    assert code == 0, err
    assert place.tables("results") == whole
    assert place.slabs("results").items() >= before.items()
    assert not (place.folder / "results" / "failed").exists()


def test_a_driver_that_was_killed_goes_on(cluster: Any, place: Place, whole: dict[str, bytes]) -> None:
    words = ("--engine=ray", f"--address={cluster.address}")
    driver = place.start("results", *words)
    place.wait_for(5, "results", driver)
    driver.kill()
    ended(driver)
    before = place.slabs("results")
    assert len(before) < SLABS
    done = place.run("results", *words)
    assert done.returncode == 0, done.stderr
    assert place.slabs("results").items() >= before.items()
    assert place.tables("results") == whole


def test_slabs_that_always_fail_leave_the_others(cluster: Any, tmp_path: Path) -> None:
    place = place_in(tmp_path, bad=33)
    done = place.run("results", "--engine=ray", f"--address={cluster.address}")
    assert done.returncode == 1, done.stderr
    files = sorted((tmp_path / "results" / "failed").iterdir())
    failed = [json.loads(path.read_bytes()) for path in files]
    assert 0 < len(failed) < SLABS
    assert len(place.slabs("results")) == SLABS - len(failed)
    assert {one["slab"] for one in failed}.isdisjoint(place.slabs("results"))
    assert all(one["error"] == "RuntimeError: no such slab today" and one["tries"] == 3 for one in failed)
    assert done.stderr.splitlines()[-1].startswith(f"dopt: ray: {len(failed)} of {SLABS} slabs failed 3 times")
    again = place.run("results")  # by one machine, where they do not fail
    assert again.returncode == 0, again.stderr
    assert len(place.slabs("results")) == SLABS


def test_ray_of_our_own_leaves_nothing(place: Place, whole: dict[str, bytes]) -> None:
    driver = place.start("results", "--engine=ray")
    place.wait_for(4, "results", driver)
    helpers = psutil.Process(driver.pid).children(recursive=True)
    assert any("raylet" in helper.name() for helper in helpers)
    heard = {c.laddr.ip for helper in helpers for c in helper.net_connections("inet") if c.status == "LISTEN"}
    assert heard <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    driver.send_signal(signal.SIGTERM)
    code, _, err = ended(driver)
    assert code == 143
    assert err.splitlines()[-1] == "dopt: interrupted; finished work is kept, and the same command continues from there"
    _, alive = psutil.wait_procs(helpers, timeout=20)
    assert not [helper for helper in alive if helper.status() != psutil.STATUS_ZOMBIE]
    before = place.slabs("results")
    done = place.run("results", "--engine=ray")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert place.slabs("results").items() >= before.items()
    assert place.tables("results") == whole


def test_each_run_is_logged_once_by_the_driver(place: Place) -> None:
    (place.folder / "small.yaml").write_text(yaml.safe_dump(small_sweep(seed=[0, 1, 2, 3], learning_rate=[0.1, 0.2])))
    for _ in range(2):
        done = place.run("results", "--engine=ray", "--wandb=offline")
        assert done.returncode == 0, done.stderr
        logged = [path.name for path in (place.folder / "results").glob("wandb/offline-run-*/*.wandb")]
        assert sorted(name.split("-")[1] for name in logged) == sorted(dopt.load(place.folder / "results").runs["id"])


def test_an_address_at_which_another_answers_is_one_line(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    begin = time.monotonic()
    done = place.run("results", "--engine=ray", f"--address={address}")
    assert done.returncode == 1
    assert (
        done.stderr
        == f"dopt: ray: there is no Ray at {address} (Connection refused); start it there with `ray start --head`\n"
    )
    assert time.monotonic() - begin < 60
    assert not (place.folder / "results").exists()
