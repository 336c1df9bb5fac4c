"""Grids without an edge: a grid grows where its best learning rate stands at its edge, by its own ratio, and nowhere else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from test_growth import Said

import dopt
from dopt import InputError, Results
from dopt.cli import main
from dopt.sweeps import extend, plan
from dopt.sweeps.cells import tuned
from dopt.sweeps.pipeline import Pipeline
from dopt.types import MachineError

BASE: dict[str, Any] = {
    "algorithm": "allreduce_sgd",
    "workers": 2,
    "problem": "quadratic",
    "problem.dim": 4,
    "steps": 20,
    "record_every": 20,
    "seed": [0, 1],
}


def asked(metric: dict[str, Any] | None = None, method: str = "grid", **changes: Any) -> dict[str, Any]:
    each = {k: {"values": v} if isinstance(v, list) else {"value": v} for k, v in (BASE | changes).items()}
    return {"name": "grid", "method": method, "metric": metric or {"name": "loss"}, "parameters": each}


def extended(folder: Path, jobs: int = 1, **changes: Any) -> tuple[Results, Said]:
    said = Said()
    return dopt.sweep(asked(**changes), results=folder, show=said, jobs=jobs, extend="learning_rate"), said


def plans(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((folder / "plans").iterdir())]


@pytest.mark.parametrize("rates", [[0.001, 0.01], [0.5, 1.5]])
def test_a_grid_grows_by_its_ratio_until_its_best_rate_is_inside(rates: list[float], tmp_path: Path) -> None:
    found, said = extended(tmp_path, learning_rate=rates)
    (cell,) = tuned(found).to_dict("records")
    tried = np.sort(found.runs["learning_rate"].unique())
    assert not cell["edge"]
    assert tried[0] < cell["learning_rate"] < tried[-1]
    assert said.lines == []
    np.testing.assert_allclose(tried[1:] / tried[:-1], rates[1] / rates[0], rtol=1e-11)
    assert set(rates) < set(tried.tolist())
    # each time one more rate, of every seed, and not one more than is needed
    marked = [(p["extended"], len(p["order"])) for p in plans(tmp_path)]
    assert marked == [(False, 4), *[(True, 2)] * (len(tried) - 2)]
    assert cell["learning_rate"] in (tried[1], tried[-2])


def test_what_a_grid_grew_by_belongs_to_the_files_tables_and_is_not_run_again(tmp_path: Path) -> None:
    found, _ = extended(tmp_path, learning_rate=[0.001, 0.01])
    for again, said in (extended(tmp_path, learning_rate=[0.001, 0.01]), (dopt.load(tmp_path), Said())):
        assert (said.lines, said.slabs) == ([], [])
        assert_frame_equal(again.runs, found.runs, check_exact=True)
        assert_frame_equal(again.history, found.history, check_exact=True)
    said = Said()
    plain = dopt.sweep(asked(learning_rate=[0.001, 0.01]), results=tmp_path, show=said)
    assert said.slabs == []
    assert_frame_equal(plain.runs, found.runs, check_exact=True)
    # a file that asks for them itself has them in its own order
    rates = sorted(found.runs["learning_rate"].unique(), reverse=True)
    own = dopt.sweep(asked(learning_rate=list(map(float, rates))), results=tmp_path, show=said)
    assert said.slabs == []
    assert own.runs["learning_rate"].unique().tolist() == rates
    # and one that asks for other seeds does not get those of these
    other = dopt.sweep(asked(learning_rate=[0.001, 0.01], seed=[7]), results=tmp_path, show=said)
    assert other.runs["learning_rate"].unique().tolist() == [0.001, 0.01]


def test_only_the_cell_whose_best_rate_is_at_the_edge_grows(tmp_path: Path) -> None:
    found, _ = extended(tmp_path, learning_rate=[0.01, 0.1, 0.5], steps=[2, 200])
    counts = found.runs.groupby("steps")["learning_rate"].nunique()
    assert counts[200] <= counts[2] > 3
    assert not tuned(found, ["steps"])["edge"].any()


def test_a_cell_that_never_reached_the_target_grows_only_where_there_is_none(tmp_path: Path) -> None:
    rates = [0.001, 0.01]
    found, said = extended(tmp_path / "a", learning_rate=rates, metric={"name": "loss", "target": 1e-12})
    assert (found.runs["learning_rate"].unique().tolist(), said.lines) == (rates, [])
    found, _ = extended(tmp_path / "b", learning_rate=rates, metric={"name": "loss"})
    assert found.runs["learning_rate"].nunique() > 2
    diverged, _ = extended(tmp_path / "c", learning_rate=[1e6, 1e7], metric={"name": "loss"}, steps=100)
    assert diverged.runs["diverged"].all()
    assert diverged.runs["learning_rate"].nunique() == 2


def test_a_grid_grows_at_most_five_times_and_then_says_so_also_when_asked_again(tmp_path: Path) -> None:
    rates = [1e-6, 2e-6]
    for _ in range(2):
        found, said = extended(tmp_path, learning_rate=rates)
        assert found.runs["learning_rate"].nunique() == 2 + extend.MOST == 7
        assert said.lines == [
            "extend: the best rate of 1 cells is still at the edge after the grid grew 5 times, for example at 6.4e-05 for all runs"
        ]


def test_a_sweep_that_died_while_a_grid_grew_goes_on_and_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", 1)
    whole, said = extended(tmp_path / "whole", learning_rate=[0.001, 0.01])
    keep, left = Pipeline._keep, [7]

    def dies(self: Pipeline, *args: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise MachineError("died")
        keep(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "_keep", dies)
        with pytest.raises(MachineError, match="died"):
            extended(tmp_path / "results", learning_rate=[0.001, 0.01])
    there = {path.name for path in (tmp_path / "results" / "slabs").iterdir()}
    assert len(there) == 7
    assert any(name.startswith("0003") for name in there)
    found, again = extended(tmp_path / "results", learning_rate=[0.001, 0.01])
    assert not there & set(again.slabs)
    assert len(there) + len(again.slabs) == len(said.slabs)
    assert_frame_equal(found.runs, whole.runs, check_exact=True)
    assert_frame_equal(found.history, whole.history, check_exact=True)


def test_seeds_that_are_added_later_get_the_rates_by_which_the_grid_grew(tmp_path: Path) -> None:
    extended(tmp_path / "grown", learning_rate=[0.001, 0.01], seed=[0, 1])
    found, _ = extended(tmp_path / "grown", learning_rate=[0.001, 0.01], seed=[0, 1, 2])
    whole, _ = extended(tmp_path / "whole", learning_rate=[0.001, 0.01], seed=[0, 1, 2])
    assert sorted(found.runs["id"]) == sorted(whole.runs["id"])
    assert found.runs.groupby("learning_rate")["seed"].nunique().eq(3).all()


def test_helpers_share_what_a_grid_grows_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", 1)
    one, _ = extended(tmp_path / "one", learning_rate=[0.01, 0.1])
    two, _ = extended(tmp_path / "two", learning_rate=[0.01, 0.1], jobs=2)
    assert_frame_equal(one.runs, two.runs, check_exact=True)


@pytest.mark.parametrize(
    ("rates", "best", "following"),
    [
        ([0.03, 0.1, 0.3], 0.3, 0.9),
        ([0.03, 0.1, 0.3], 0.03, 0.009),
        ([0.1, 0.2], 0.2, 0.4),
        ([1.0, 10.0], 1.0, 0.1),
    ],
)
def test_the_next_rate_goes_on_by_the_ratio_of_the_two_outermost(
    rates: list[float], best: float, following: float
) -> None:
    assert extend.beyond(np.array(rates), best) == following


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        (
            "learning_rat",
            {},
            "extend: only learning_rate can be extended, got 'learning_rat'; did you mean 'learning_rate'?",
        ),
        ("seed", {}, "extend: only learning_rate can be extended, got 'seed'; known: learning_rate"),
        (
            "learning_rate",
            {"learning_rate": 0.1},
            "extend: learning_rate has one value in this sweep, so it has no grid; give at least two",
        ),
    ],
)
def test_what_is_no_grid_is_one_line_before_anything_runs(
    name: str, changes: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(json.dumps(asked(**{"learning_rate": [0.1, 0.2], **changes})))
    results = tmp_path / "results"
    assert main(["sweep", str(file), "--results", str(results), "--wandb", "off", "--extend", name]) == 2
    assert capsys.readouterr().err == f"dopt: {said}\n"
    assert not results.exists()


def test_a_random_sweep_has_no_grid(tmp_path: Path) -> None:
    content = asked(learning_rate=[0.1, 0.2], method="random") | {"run_cap": 4}
    with pytest.raises(InputError, match="extend: a random sweep has no grid; use method: grid"):
        dopt.sweep(content, results=tmp_path / "results", extend="learning_rate")
    shutil.rmtree(tmp_path / "results", ignore_errors=True)
    assert dopt.sweep(content, results=tmp_path / "results").missing == 0
