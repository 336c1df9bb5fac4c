"""A folder grows: a larger file of the same name adds a plan of the runs that are missing, and nothing is run twice or lost."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from pandas.testing import assert_frame_equal
from small import small_sweep

import dopt
from dopt import InputError, Results
from dopt.cli import main
from dopt.config import matrices
from dopt.mixing import rules
from dopt.sweeps import plan, work
from dopt.sweeps.jobs import Team
from dopt.sweeps.store import Store

STORES = Path(__file__).parent / "data" / "stores"
RATES, SEEDS = [0.05, 0.1, 0.2], [0, 1, 2]


class Said(work.Show):
    """What a sweep says, and the slabs that it does."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []
        self.slabs: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def note(self, line: str) -> None:
        self.notes.append(line)

    def slab(self, name: str, runs: int) -> None:
        self.slabs.append(name)


def grown(folder: Path, jobs: int = 1, **changes: Any) -> tuple[Results, Said]:
    said = Said()
    return dopt.sweep(small_sweep(**changes), results=folder, show=said, jobs=jobs), said


@pytest.fixture(autouse=True)
def slabs_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", 2)


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """The whole of it, made at once, in slabs of two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plan.PREFERRED, "cpu", 2)
        yield grown(tmp_path_factory.mktemp("whole") / "results", learning_rate=RATES, seed=SEEDS)[0]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_sweep_that_grew_in_any_order_is_the_one_made_at_once(
    order: tuple[int, ...], at_once: Results, tmp_path: Path
) -> None:
    parts: list[dict[str, Any]] = [
        {"learning_rate": 0.05, "seed": [0, 1]},
        {"learning_rate": [0.1, 0.2], "seed": [1, 2]},
        {"learning_rate": RATES, "seed": 0},
    ]
    made: list[str] = []
    for number in order:
        made += grown(tmp_path, **parts[number])[1].slabs
    found, said = grown(tmp_path, learning_rate=RATES, seed=SEEDS)
    names = [path.name for path in (tmp_path / "slabs").iterdir()]
    assert sorted(made + said.slabs) == sorted(names)  # each once
    assert sum(len(Store(tmp_path).manifest(name)["runs"]) for name in names) == 9
    assert found.missing == found.hidden == 0
    assert_frame_equal(found.runs, at_once.runs, check_exact=True)
    assert_frame_equal(found.history, at_once.history, check_exact=True)
    assert_frame_equal(dopt.load(tmp_path).history, at_once.history, check_exact=True)


def test_only_what_is_missing_is_planned_and_old_slabs_keep_their_width(tmp_path: Path) -> None:
    grown(tmp_path, learning_rate=0.1, seed=[0, 1, 2])
    first = (tmp_path / "plans" / "0001.json").read_bytes()
    plan.PREFERRED["cpu"] = 3  # put back by the fixture
    shutil.rmtree(tmp_path / "slabs" / "0001-group0-slab001")
    _, said = grown(tmp_path, learning_rate=[0.1, 0.2], seed=[0, 1, 2])
    assert said.slabs == ["0001-group0-slab001", "0002-group0-slab000"]
    assert (tmp_path / "plans" / "0001.json").read_bytes() == first
    added = json.loads((tmp_path / "plans" / "0002.json").read_text())
    assert [template["algorithm"] for template in added["templates"]] == ["gossip_sgd"]
    assert [slab["learning_rate"] for group in added["groups"] for slab in group["slabs"]] == [[0.2] * 3]
    assert [Store(tmp_path).manifest(name)["width"] for name in said.slabs] == [2, 3]


def test_what_is_not_asked_for_is_hidden_and_counted_and_there_again_when_it_is(
    at_once: Results, tmp_path: Path
) -> None:
    shutil.copytree(at_once.folder, tmp_path / "results")
    part, said = grown(tmp_path / "results", learning_rate=[0.2, 0.05], seed=SEEDS)
    assert said.lines == [
        f"results: 3 runs of {tmp_path / 'results'} are hidden, since this sweep does not ask for them"
    ]
    assert said.slabs == []
    for found in (part, dopt.load(tmp_path / "results")):
        assert (found.hidden, found.missing) == (3, 0)
        assert found.runs["learning_rate"].tolist() == [0.2] * 3 + [0.05] * 3  # in the file's order
        assert set(found.history["id"]) == set(found.runs["id"])
    again, said = grown(tmp_path / "results", learning_rate=RATES, seed=SEEDS)
    assert (said.lines, said.slabs) == ([], [])
    assert_frame_equal(again.history, at_once.history, check_exact=True)


def test_slabs_of_which_nothing_is_asked_for_are_not_run_also_not_by_helpers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(tmp_path, learning_rate=[0.1, 0.2], seed=[0, 1, 2, 3])
    shutil.rmtree(tmp_path / "slabs")
    monkeypatch.setattr(Team, "may_take", lambda self, slab: False)  # so that a helper does all of it
    found, _ = grown(tmp_path, jobs=2, learning_rate=0.2, seed=[0, 1, 2, 3])
    assert found.missing == 0
    names = sorted(path.name for path in (tmp_path / "slabs").iterdir())
    assert names == ["0001-group0-slab002", "0001-group0-slab003"]


def test_the_metric_belongs_to_the_reading_also_where_a_sweep_grows(tmp_path: Path) -> None:
    one, other = ({"name": "loss", "target": target} for target in (0.5, 0.25))
    dopt.sweep(small_sweep(seed=0) | {"metric": one}, results=tmp_path)
    found = dopt.sweep(small_sweep(seed=[0, 1]) | {"metric": other}, results=tmp_path)
    assert found.metric == dopt.load(tmp_path).metric == other


def test_what_stands_for_something_else_now_is_not_grown(tmp_path: Path) -> None:
    file = tmp_path / "graph.edgelist"
    nx.write_edgelist(nx.cycle_graph(4), file, data=False)
    folder = tmp_path / "results"
    grown(folder, topology=str(file), seed=0)
    nx.write_edgelist(nx.complete_graph(4), file, data=False)
    with pytest.raises(
        InputError, match=r"graph, matrix of run \w{16} .*no longer what it was when the plans of .* were made"
    ):
        grown(folder, topology=str(file), seed=[0, 1])
    assert [path.name for path in (folder / "plans").iterdir()] == ["0001.json"]
    found, said = grown(folder, topology="ring", seed=[0, 1])  # of which no run stands for the file
    assert (found.hidden, found.missing) == (2, 0)
    assert said.slabs


def test_a_solver_is_not_asked_again_where_a_sweep_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cvxpy")
    grown(tmp_path, weights="fastest", seed=0)
    monkeypatch.setattr(rules, "_least_norm", lambda *a, **k: pytest.fail("solved again"))
    matrices._matrix.cache_clear()
    found, _ = grown(tmp_path, weights="fastest", seed=[0, 1])
    assert found.runs["spectral_gap"].nunique() == 1


def test_a_folder_of_which_a_plan_is_gone_is_one_line(tmp_path: Path) -> None:
    grown(tmp_path, seed=0)
    grown(tmp_path, seed=[0, 1])
    (tmp_path / "plans" / "0001.json").unlink()
    for call in (lambda: dopt.load(tmp_path), lambda: grown(tmp_path, seed=0)):
        with pytest.raises(
            InputError, match=r"0001\.json is missing; restore it, or choose another folder with --results"
        ):
            call()


def test_who_plans_at_the_same_time_finds_what_the_other_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(tmp_path, seed=0)
    prepare, met = work.prepare, list[Any]()

    def meanwhile(*args: Any) -> Any:
        if not met:
            met.append("")
            met.append(grown(tmp_path, seed=[0, 1]))
        return prepare(*args)

    monkeypatch.setattr(work, "prepare", meanwhile)
    found, _ = grown(tmp_path, seed=[0, 1, 2])
    assert (found.missing, found.runs["seed"].tolist()) == (0, [0, 1, 2, 0, 1, 2])
    planned = [json.loads(path.read_text())["order"] for path in sorted((tmp_path / "plans").iterdir())]
    assert [len(order) for order in planned] == [2, 2, 2]
    assert len(set(itertools.chain.from_iterable(planned))) == 6


def test_a_reading_that_is_lost_shows_all_that_the_plans_hold(at_once: Results, tmp_path: Path) -> None:
    shutil.copytree(at_once.folder, tmp_path / "results")
    grown(tmp_path / "results", learning_rate=0.2, seed=SEEDS)
    (tmp_path / "results" / "reading.json").unlink()
    found = dopt.load(tmp_path / "results")
    assert (found.hidden, found.varied, found.metric) == (0, ("learning_rate", "seed"), {})
    assert_frame_equal(found.history, at_once.history, check_exact=True)


@pytest.mark.parametrize(
    "reading",
    [
        {"metric": {}, "order": [3]},
        {"metric": {}, "order": ["x"]},
        {"metric": {}, "merged": "no"},
        {"metric": {}, "x": 1},
    ],
)
def test_a_reading_that_cannot_be_is_one_line(reading: dict[str, Any], at_once: Results, tmp_path: Path) -> None:
    shutil.copytree(at_once.folder, tmp_path / "results")
    (tmp_path / "results" / "reading.json").write_text(json.dumps(reading))
    with pytest.raises(InputError, match=r"reading\.json .*delete it, and run the sweep again") as error:
        dopt.load(tmp_path / "results")
    assert "\n" not in str(error.value)


def test_a_dry_run_says_what_the_plans_hold_already(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    grown(tmp_path / "results", learning_rate=[0.1, 0.2], seed=[0, 1])
    file = tmp_path / "small.yaml"
    file.write_text(json.dumps(small_sweep(learning_rate=[0.1], seed=[0, 1, 2])))
    assert main(["sweep", str(file), "--results", str(tmp_path / "results"), "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"2 of these 3 runs are already planned in {tmp_path / 'results'}, and keep the widths of that plan; 2 more runs of these plans would be hidden"
    )
    assert [path.name for path in (tmp_path / "results" / "plans").iterdir()] == ["0001.json"]


# -- stores of older versions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", sorted(path.name for path in STORES.iterdir() if path.is_dir()))
def test_a_released_store_stays_readable_and_is_not_gone_on_with(store: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(STORES / store, tmp_path / "results"))
    found = dopt.load(folder)
    assert (found.name, len(found.runs), found.missing, found.hidden, found.faults) == ("first", 44, 0, 0, ())
    assert found.varied == ("algorithm", "topology", "weights", "delay", "learning_rate", "seed")
    assert found.metric == {"name": "loss", "goal": "minimize", "target": 0.5}
    assert found.merged == 52
    assert found.history.groupby("id")["step"].max().eq(20).all()
    assert found.runs["id"].tolist() == list(dict.fromkeys(found.history["id"]))
    file = STORES / f"{store}.yaml"
    with pytest.raises(
        InputError,
        match=r"has format '\d', but this dopt continues only with format \d; finished runs can still be read",
    ):
        dopt.sweep(file, results=folder)
    assert not (folder / "plans").exists()
