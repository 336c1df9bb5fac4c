"""The sample package of examples/plugin, installed without a network into a folder, is found, used and checked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "examples" / "plugin"
USE = """
from dopt.cli import main

assert main(["list", "topologies"]) == 0
assert main(["sweep", "sweep.yaml", "--jobs", "1", "--set", "steps=4"]) == 0
import dopt

found = dopt.load("results/sample_steps-4").runs
print(sorted(set(found["algorithm"])), sorted(set(found["topology"])), len(found))
"""


def command(words: list[str], folder: Path, *path: Path) -> str:
    """What a process says that finds Python's modules in these folders, too."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT))), "JAX_PLATFORMS": "cpu"}
    env.pop("DOPT_IMPORT", None)
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which it is installed."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copytree(SAMPLE, folder / "source", ignore=shutil.ignore_patterns("*.egg-info", "build", "__pycache__"))
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", "site", "./source"]
    command(pip, folder)
    return folder / "site"


def test_an_installed_package_is_found_by_its_entry_point_and_swept(site: Path, tmp_path: Path) -> None:
    shutil.copy(SAMPLE / "sweep.yaml", tmp_path)
    said = command(["-c", USE], tmp_path, site)
    (line,) = (line for line in said.splitlines() if line.startswith("two_rings"))
    assert line.split()[-1] == "dopt_sample.topologies"
    assert said.splitlines()[-1] == "['careful_gossip', 'gossip_sgd'] ['ring', 'two_rings'] 8"


@pytest.mark.slow
def test_an_installed_package_goes_through_the_suite(site: Path, tmp_path: Path) -> None:
    said = command(["-m", "dopt", "test-plugin", "dopt_sample"], tmp_path, site)
    assert "FAILED" not in said
    assert said.splitlines()[-1] == "3 plug-ins: all checks passed"
    assert said.count("special case") == 2
