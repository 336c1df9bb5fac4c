"""The figures that come with dopt: each asks one question, and its committed data are of the runs it asks for today."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from dopt.config import matrices
from dopt.extras import MissingError
from dopt.figures import files as figures
from dopt.sweeps import spec

FOLDER = Path(__file__).parents[1] / "paper_figs"
NAMES = sorted(figures.available(FOLDER))
PUBLISHED = [name for name in NAMES if any(letter.isdigit() for letter in name)]
SMALLEST = 0.01  # of a megabyte: an empty picture is smaller


def contents(name: str, size: str = "") -> list[dict[str, Any]]:
    """The sweeps of a figure."""
    found = figures.parts(name, figures.find(name, FOLDER), FOLDER, Path("results"), size)
    return [part.content for part in found.values()]


def points(content: dict[str, Any]) -> int:
    """How many runs a grid has."""
    return math.prod(len(parameter.get("values", [None])) for parameter in content["parameters"].values())


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_data_are_of_the_runs_that_the_figure_asks_for(name: str) -> None:
    rows = pd.read_csv(FOLDER / f"{name}.csv", keep_default_na=False, dtype=str)
    column = "ids" if "ids" in rows else "id"
    drawn = {identity for cell in rows[column] for identity in cell.split()}
    assert drawn
    asked = [run for content in contents(name) for run in spec.parse(content).runs]
    others = drawn - {run.id for run in asked}
    # an id knows its matrix, and a solver's last bits are other ones with other libraries, or on another processor
    assert len(others) <= sum(map(matrices.is_solved, asked))
    unnamed = rows[rows[column] == ""]
    assert unnamed.empty or all(kind.startswith("theory") for kind in unnamed["kind"])


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_asks_one_question_and_fast_asks_it_of_fewer_runs(name: str) -> None:
    line = figures.question(figures.find(name, FOLDER))
    assert 20 < len(line) <= 140
    fast, usual, full = (sum(map(points, contents(name, size))) for size in ("fast", "", "full"))
    assert fast <= usual <= full


@pytest.mark.parametrize("name", NAMES)
def test_a_figures_full_size_can_be_run(name: str) -> None:
    for content in contents(name, "full"):
        one_seed = content["parameters"] | {"seed": {"value": 0}}
        assert spec.parse(content | {"parameters": one_seed}).runs


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_figure_names_its_paper_and_says_what_differs(name: str) -> None:
    text = figures.find(name, FOLDER).__doc__ or ""
    assert "\nDiffers:" in text
    year = "".join(filter(str.isdigit, name))
    assert year in text.split("\n")[0]


def test_the_gallery_shows_every_figure_once() -> None:
    text = (FOLDER / "GALLERY.md").read_text()
    assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")] == NAMES
    for name in NAMES:
        assert text.count(f"]({name}.png)") == text.count(f"]({name}.csv)") == 1
        assert 1e6 * SMALLEST < (FOLDER / f"{name}.png").stat().st_size < 1e6


def test_a_sweep_that_needs_a_missing_package_hides_no_run_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"algorithm": "gossip_sgd", "workers": 5, "learning_rate": 0.1, "problem": "consensus", "steps": 10}
    for folder in ("benchmarks", "paper_figs"):
        (tmp_path / folder).mkdir()
    for name, own in (("a", {"topology": "matcha", "topology.budget": 0.321}), ("b", {"topology": "ring"})):
        content = {"parameters": spec.grid(fields | own)}
        (tmp_path / "benchmarks" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    (run,) = spec.parse(content).runs
    assert figures.find_run(run.id, tmp_path / "paper_figs") == run
    with pytest.raises(MissingError, match=r"^id: no run '0{16}' among .* needs cvxpy, .* 'dopt\[weights\]'$"):
        figures.find_run("0" * 16, tmp_path / "paper_figs")
