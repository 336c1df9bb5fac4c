"""What the README says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_of_the_readme_runs_and_is_fifteen_lines(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 15
    exec(compile(block, "README.md", "exec"), {})
    loss_and_distance, gap, mean = capsys.readouterr().out.splitlines()
    loss, distance = map(float, loss_and_distance.split())
    assert 0 < loss < 0.4
    assert 0 < distance < 0.1
    assert float(gap) == pytest.approx(0.5)  # 1 - (1 + 1) / 4: the adjacency's second eigenvalue is 1, degree 3
    assert float(mean) == pytest.approx(4.5, abs=1e-3)


def test_what_the_readme_points_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_targets_of_the_readme_are_targets_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_method_of_the_map_is_registered() -> None:
    from dopt.algorithms import ALGORITHMS

    table = README.split("## The map")[1].split("## Adding")[0]
    named = set(re.findall(r"`(\w+)`", table))
    assert named >= set(ALGORITHMS)
    assert {name for name in named if name.endswith("_sgd")} <= set(ALGORITHMS)


def test_the_project_refers_to_nothing_outside_itself() -> None:
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("dopt/**/*.py"),
        *ROOT.glob("benchmarks/**/*.py"),
        ROOT / "constraints.txt",
    ]:
        text = path.read_text()
        assert "../shared" not in text, path
        assert "/work" not in text.replace("/workers", "").replace("/works", ""), path
