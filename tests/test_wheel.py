"""Installed means whole: a wheel brings its sweeps and figures, and works in any folder without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from dopt import paths
from dopt.cli import main
from dopt.figures import files
from dopt.sweeps import named, plain, spec
from dopt.types import InputError
from dopt.version import VERSION

ROOT = Path(__file__).parents[1]
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
LARGEST = 1_500_000  # bytes of a wheel


def done(folder: Path, *words: str | Path, **environment: str) -> str:
    """What a Python process prints, in a folder."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(
        [sys.executable, *words],
        env=inherited | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def git(folder: Path, *words: str) -> str:
    asked = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@x", *words]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def commit_and_wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A wheel of a copy of this checkout, and the copy's commit. Nothing comes from a network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("dopt", "benchmarks", "paper_figs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for name in (*FILES, "dopt_command.py"):
        shutil.copy(ROOT / name, source / name)
    git(source, "init", "-q")
    (source / ".gitignore").write_text("build/\n*.egg-info/\n")
    git(source, "add", ".")
    git(source, "commit", "-qm", "all")
    build = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    done(source, "-m", "pip", "wheel", *build, "--wheel-dir", out, ".")
    (wheel,) = out.glob("*.whl")
    return git(source, "rev-parse", "HEAD"), wheel


def test_a_wheel_has_every_file_of_dopt_sweep_and_figure_and_no_package_but_dopt(
    commit_and_wheel: tuple[str, Path],
) -> None:
    _, wheel = commit_and_wheel
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "dopt").rglob("*.*") if path.suffix != ".pyc"}
    code |= {f"dopt/_shipped/benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.yaml")}
    code |= {f"dopt/_shipped/paper_figs/{path.name}" for path in (ROOT / "paper_figs").glob("*.py")}
    assert code | {"dopt_command.py"} <= names
    assert {"dopt/py.typed", "dopt/page/static/page.css"} <= code
    assert {name.split("/")[0] for name in names} == {"dopt", "dopt_command.py", f"dopt-{VERSION}.dist-info"}
    assert not [name for name in names if "speed" in name or name.endswith((".png", ".csv", ".md"))]
    assert wheel.stat().st_size < LARGEST


def test_an_installed_wheel_knows_its_commit_and_its_sweeps_and_figures_in_any_folder(
    commit_and_wheel: tuple[str, Path], tmp_path: Path
) -> None:
    commit, wheel = commit_and_wheel
    target, here = tmp_path / "target", tmp_path / "here"
    here.mkdir()
    install = ("--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", "--no-compile")
    done(here, "-m", "pip", "install", *install, "--target", target, wheel)

    def dopt(*words: str) -> str:
        return done(here, "-m", "dopt", *words, PYTHONPATH=str(target))

    version, number, found = dopt("--version").split()
    assert (version, number) == ("dopt", VERSION)
    assert commit.startswith(found.strip("()"))
    sweeps = dopt("list", "sweeps")
    for name, path in named.available().items():
        assert f"{name} " in sweeps
        assert named.question(path)[:20] in sweeps
        assert named.question(path).endswith("?")
    assert dopt("sweep", "connectivity_delay", "--dry-run").startswith("connectivity_delay: 1600 runs")
    figures = dopt("figures", "--list")
    for name in files.available(ROOT / "paper_figs"):
        assert name in figures
    assert list(here.iterdir()) == []


def test_what_comes_with_dopt_lies_beside_a_checkout_and_within_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert paths.shipped("benchmarks") == ROOT / "benchmarks"
    monkeypatch.setattr(paths, "INSTALLED", tmp_path / "dopt" / "_shipped")
    assert paths.shipped("benchmarks") == tmp_path / "benchmarks"
    paths.INSTALLED.mkdir(parents=True)
    assert paths.shipped("benchmarks") == paths.INSTALLED / "benchmarks"


def test_a_word_is_a_sweep_that_comes_with_dopt_and_anything_else_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named.located("scaling") == ROOT / "benchmarks" / "scaling.yaml"
    for path in ("scaling.yaml", "./scaling", "folder/scaling", "scaling.yml"):
        assert named.located(path) == Path(path)
    assert named.located(Path("scaling")) == Path("scaling")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("scalling", r"sweep: no sweep 'scalling' comes with dopt; did you mean 'scaling'\?"),
        ("my_ow", r"sweep: no sweep 'my_ow' comes with dopt; did you mean 'my_own.yaml'\?"),
        ("plain", r"sweep: 'plain' is not the name of a sweep that comes with dopt; write ./plain for the file here"),
        ("benchmarks/scaling.yaml", r"the one that comes with dopt is scaling, without .yaml"),
        ("my_ow.yaml", r"sweep: no file 'my_ow.yaml'; did you mean 'my_own.yaml'\?"),
    ],
)
def test_a_sweep_that_is_not_there_is_refused_with_what_may_be_meant(
    said: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("my_own.yaml", "plain"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=answer):
        plain.read(said)


FIGURE = '''"""What does it cost?"""
from matplotlib.figure import Figure
SWEEPS = {"main": "benchmarks/fig.yaml"}
def table(results): return results["main"].runs[["id"]]
def draw(results): return Figure()
def claims(results): return []
'''


def test_an_installed_gallery_goes_beside_the_pictures_and_leaves_the_installation_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed, here = tmp_path / "_shipped", tmp_path / "here"
    for folder in (here, installed / "benchmarks", installed / "paper_figs"):
        folder.mkdir(parents=True)
    fields = {"algorithm": "allreduce_sgd", "workers": 2, "learning_rate": 0.1, "problem": "consensus", "steps": 10}
    (installed / "benchmarks" / "fig.yaml").write_text(yaml.safe_dump({"parameters": spec.grid(fields)}))
    (installed / "paper_figs" / "fig.py").write_text(FIGURE)
    before = sorted(installed.rglob("*.*"))
    monkeypatch.setattr(paths, "INSTALLED", installed)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(here)
    assert main(["figures", "--gallery"]) == 0
    assert sorted(installed.rglob("*.*")) == before
    drawn = here / "results" / "figures"
    assert {"GALLERY.md", "fig.png", "fig.csv"} <= {path.name for path in drawn.iterdir()}
    assert "What does it cost?" in (drawn / "GALLERY.md").read_text()
