"""What the README says is so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import dopt
from dopt.algorithms import ALGORITHMS
from dopt.cli.parser import parser
from dopt.sweeps import plain, spec

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path.relative_to(ROOT): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}


def test_the_python_of_the_readme_runs_and_is_twelve_lines(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 12
    exec(compile(block, "README.md", "exec"), {})
    loss_and_distance, gap, mean = capsys.readouterr().out.splitlines()
    loss, distance = map(float, loss_and_distance.split())
    assert 0 < loss < 0.4
    assert 0 < distance < 0.1
    assert float(gap) == pytest.approx(0.5)  # 1 - (1 + 1) / 4: the adjacency's second eigenvalue is 1, degree 3
    assert float(mean) == pytest.approx(4.5, abs=1e-3)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_what_a_page_points_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGES[page]):
        assert target.startswith("http") or (ROOT / page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_targets_of_a_page_are_targets_of_make(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make (\w+)", PAGES[page], re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_commands_of_a_page_and_their_flags_exist(page: Path) -> None:
    _, each = parser()
    for said in re.findall(r"\bdopt ([a-z-]+ [^`|#\n]*|[a-z-]+(?=`))", PAGES[page]):
        command, *words = said.split()
        flags = {word.strip("[]").partition("=")[0] for word in words if word.strip("[]").startswith("--")}
        if command in each and command not in ("show", "launch"):  # what these take depends on the next word
            unknown = {flag for flag in flags if "." not in flag} - set(each[command].flags())
            assert not unknown, said


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_sweeps_of_a_page_are_sweeps(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", PAGES[page], re.DOTALL):
        asked = spec.parse({"name": "graphs", **plain.load(block, str(page))})
        assert len(asked.runs) == 30


def test_the_readme_counts_the_methods() -> None:
    assert f"It has {len(ALGORITHMS)} methods" in README


def test_the_finding_of_the_readme_is_what_its_sweep_finds(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    results = dopt.sweep(
        {"name": "graphs", **plain.load(block, "README")}, results=tmp_path, extend="learning_rate", jobs=1
    )
    found = results.tuned().set_index(["algorithm", "topology"])["to_target"]
    assert np.isinf(found["gossip_sgd", "ring"])
    said = re.search(r"takes (\d+) steps.*?\((\d+) and (\d+) steps, against (\d+) and (\d+)\)", README, re.DOTALL)
    assert said is not None
    cells = [("gradient_tracking", "ring"), ("gossip_sgd", "torus"), ("gossip_sgd", "complete")]
    cells += [("gradient_tracking", "torus"), ("gradient_tracking", "complete")]
    for number, cell in zip(said.groups(), cells, strict=True):
        assert found[cell] == int(number)


def test_every_method_of_the_map_is_registered() -> None:
    table = README.split("## The map")[1].split("## Read on")[0]
    named = set(re.findall(r"`(\w+)`", table))
    assert named >= set(ALGORITHMS)
    assert {name for name in named if name.endswith("_sgd")} <= set(ALGORITHMS)


def test_the_project_refers_to_nothing_outside_itself() -> None:
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("dopt/**/*.py"),
        *ROOT.glob("benchmarks/**/*.py"),
        ROOT / "constraints.txt",
    ]:
        text = path.read_text()
        assert "../shared" not in text, path
        assert "/work" not in text.replace("/workers", "").replace("/works", ""), path
