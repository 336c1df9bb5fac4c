"""A results folder is checked against its plan: what is not the plan's is never handed out, and nothing is lost by that."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from refusals import refused as refused_by_command

import dopt
from dopt import InputError, Results, data, mixing, topology
from dopt.config import matrices
from dopt.config.identity import _source_digest, digests
from dopt.data import files
from dopt.devices import executors
from dopt.mixing import rules
from dopt.registry import Entry
from dopt.sweeps import plan, seal, work
from dopt.sweeps.results import find
from dopt.sweeps.store import SlabError, Store
from dopt.types import MachineError
from dopt.version import ENGINE


def asked(name: str = "small", metric: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A sweep of six runs, so three slabs of two."""
    parameters = {
        "algorithm": "gossip_sgd",
        "workers": 4,
        "problem": "consensus",
        "learning_rate": [0.1, 0.2],
        "seed": [0, 1, 2],
        "steps": 4,
    } | changes
    each = {k: {"values": v} if isinstance(v, list) else {"value": v} for k, v in parameters.items()}
    return {"name": name, "parameters": each, **({"metric": metric} if metric else {})}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Results:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plan.PREFERRED, "cpu", 2)
        return dopt.sweep(asked(), results=tmp_path_factory.mktemp("swept") / "results")


@pytest.fixture
def folder(swept: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished folder to play with."""
    monkeypatch.setitem(plan.PREFERRED, "cpu", 2)
    return Path(shutil.copytree(swept.folder, tmp_path / "results"))


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "place", lambda *a, **k: pytest.fail("compiled"))


class Said(work.Show):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def again(folder: Path, **changes: Any) -> tuple[Results, list[str]]:
    said = Said()
    return dopt.sweep(asked(**changes), results=folder, show=said), said.lines


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Another content under a checksum that fits."""
    content = json.loads(path.read_text())
    change(content)
    path.write_bytes(seal.seal({name: value for name, value in content.items() if name != seal.SUM}))


def slabs(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [slab for group in content["groups"] for slab in group["slabs"]]


def put(rows: list[Any], value: Any) -> None:
    rows[0] = value


def refused(folder: Path, said: str, **changes: Any) -> None:
    for call in (lambda: dopt.load(folder), lambda: again(folder, **changes)):
        with pytest.raises(InputError, match=said) as error:
            call()
        assert "\n" not in str(error.value)


# -- the plan ---------------------------------------------------------------------------------------------------------


def test_no_bit_of_a_plan_can_be_flipped(folder: Path) -> None:
    store, draw = Store(folder), random.Random(0)
    path = store.plan_path(1)
    text = path.read_bytes()
    for _ in range(400):
        hurt, place = bytearray(text), draw.randrange(len(text))
        hurt[place] ^= 1 << draw.randrange(8)
        path.write_bytes(hurt)
        with pytest.raises(InputError, match=r"0001\.json (is damaged|has format)") as error:
            store.plan(path)
        assert "\n" not in str(error.value)
    path.write_bytes(text)
    assert store.plan(path)


@pytest.mark.parametrize("number", [1, 2, 99, None, "3", [3]])
def test_another_format_is_refused_and_named(folder: Path, number: Any, nothing_runs: None) -> None:
    edit(folder / "plans" / "0001.json", lambda content: content.update(format=number))
    refused(folder, r"0001\.json has format .* this dopt reads format 3 and 4 and 5; .*--results")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: put(slabs(content)[0]["learning_rate"], 0.3),
        lambda content: put(slabs(content)[0]["seed"], 3),
        lambda content: content["templates"][0].update(steps=5),
        lambda content: content["templates"][0].update({"topology.degree": 3}),
        lambda content: put(content["digests"], "0" * 64),
    ],
)
def test_an_edited_row_is_refused_whatever_the_checksum(folder: Path, change: Callable, nothing_runs: None) -> None:
    edit(folder / "plans" / "0001.json", change)
    refused(folder, r"0001\.json is damaged \(the row of run '\w{16}' is not what its id says\)")


def test_a_run_that_nobody_asked_for_is_hidden_whatever_its_id(folder: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        slab = slabs(content)[0]
        other = plan.template_of(content["templates"][0], content["digests"]).at(0.3, slab["seed"][0])
        content["order"][content["order"].index(slab["id"][0])] = other.id
        put(slab["learning_rate"], 0.3)
        put(slab["id"], other.id)

    edit(folder / "plans" / "0001.json", change)
    found, said = again(folder)
    assert found.runs["learning_rate"].unique().tolist() == [0.1, 0.2]
    assert said[0] == f"results: 1 runs of {folder} are hidden, since this sweep does not ask for them"


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(groups=[[]]),
        lambda content: content.update(groups=[], order=[]),
        lambda content: content.pop("order"),
        lambda content: content.pop("columns"),
        lambda content: content.update(varied=[3]),
        lambda content: content.update(merged="no"),
        lambda content: content["groups"][0].update(width=0),
        lambda content: content["order"].pop(),
        lambda content: content["templates"][0].pop("digests"),
        lambda content: content["templates"][0].update(digests={"graph": 99}),
        lambda content: content["templates"][0].update(digests={"graph": "x"}),
        lambda content: content["templates"][0].pop("mix"),
        lambda content: content["templates"][0].update(seed=0),
        lambda content: content["templates"].clear(),
        lambda content: content.pop("templates"),
        lambda content: put(slabs(content)[0]["id"], 3),
        lambda content: put(slabs(content)[0]["template"], 1),
        lambda content: put(slabs(content)[0]["template"], -1),
        lambda content: put(slabs(content)[0]["template"], False),
        lambda content: put(slabs(content)[0]["learning_rate"], 1),
        lambda content: put(slabs(content)[0]["learning_rate"], "0.1"),
        lambda content: put(slabs(content)[0]["seed"], 2**70),
        lambda content: slabs(content)[0]["seed"].pop(),
        lambda content: slabs(content)[0].pop("learning_rate"),
        lambda content: slabs(content)[0].update(id=6),
        lambda content: slabs(content)[0].update(name="../../evil"),
        lambda content: slabs(content)[0].update(name="0001-group0-slab001"),
        lambda content: slabs(content)[0].update(slabs(content)[1] | {"name": "0001-group0-slab000"}),
    ],
)
def test_what_is_no_plan_is_one_line(folder: Path, change: Callable, nothing_runs: None) -> None:
    edit(folder / "plans" / "0001.json", change)
    refused(folder, r"0001\.json is damaged")


def test_a_plan_holds_each_digest_and_each_template_once(folder: Path) -> None:
    content = json.loads((folder / "plans" / "0001.json").read_text())
    assert len(set(content["digests"])) == len(content["digests"]) == 2  # of one graph and one matrix
    (template,) = content["templates"]
    assert template["digests"] == {"graph": 0, "matrix": 1}
    assert [slab["learning_rate"] for slab in slabs(content)] == [[0.1, 0.1], [0.1, 0.2], [0.2, 0.2]]
    assert [slab["seed"] for slab in slabs(content)] == [[0, 1], [2, 0], [1, 2]]
    assert [slab["template"] for slab in slabs(content)] == [[0, 0]] * 3


def test_a_folder_loads_without_the_things_that_its_runs_stand_for(
    folder: Path, swept: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((topology, "make"), (data, "load"), (rules, "weights"), (mixing, "weights")):
        monkeypatch.setattr(module, name, lambda *a, **k: pytest.fail("made"))
    found = dopt.load(folder)
    assert_frame_equal(found.history, swept.history, check_exact=True)
    run = found.run(found.runs["id"][0])
    assert (run.id, run.topology) == (found.runs["id"][0], "ring")
    kept = find(run.id, folder)
    assert kept is not None
    assert kept == (run, [])


def test_a_folder_without_its_plan_is_nobodys(folder: Path, nothing_runs: None) -> None:
    (folder / "plans" / "0001.json").unlink()
    before = sorted((folder / "slabs").iterdir())
    for changes in ({}, {"learning_rate": [0.3, 0.4]}):
        with pytest.raises(InputError, match=r"has slabs but no plan.*--results"):
            again(folder, **changes)
    with pytest.raises(InputError, match="no sweep in"):
        dopt.load(folder)
    assert sorted((folder / "slabs").iterdir()) == before


def test_an_edited_metric_is_honoured_and_nothing_is_run(folder: Path, swept: Results, nothing_runs: None) -> None:
    assert swept.metric == {}
    for target in (0.1, 0.2):
        metric = {"name": "loss", "goal": "minimize", "target": target}
        found, _ = again(folder, metric=metric)
        assert found.metric == dopt.load(folder).metric == metric
        assert_frame_equal(found.history, swept.history, check_exact=True)
    for text in ("{", "[]", '{"metric": [3]}', '{"metric": {"target": "low"}}', '{"metric": {"what": 1}}', "\\xff"):
        (folder / "reading.json").write_text(text)
        with pytest.raises(InputError, match=r"reading\.json is damaged") as error:
            dopt.load(folder)
        assert "\n" not in str(error.value)
    assert again(folder, metric=metric)[0].metric == metric


def test_a_run_is_found_by_its_id_beside_what_cannot_be_read_and_only_as_it_was(
    folder: Path, swept: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "an_old_one").mkdir()
    (tmp_path / "results" / "an_old_one" / "plan.json").write_text('{"format": 1}')
    identity = swept.runs["id"][0]
    found = find(identity, "results")
    assert found is not None
    assert (found.run.id, digests(found.run)) == (identity, found.run.digests)
    ring = topology.TOPOLOGIES["ring"]
    monkeypatch.setitem(
        topology.TOPOLOGIES, "ring", dataclasses.replace(ring, make=topology.TOPOLOGIES["complete"].make)
    )
    said = ("id: graph, matrix of run", "no longer what it was then")
    refused_by_command(capsys, ["run", "--id", identity], *said)


# -- slabs ------------------------------------------------------------------------------------------------------------


def test_a_slab_copied_over_another_is_foreign_and_runs_again(folder: Path, swept: Results) -> None:
    one, other = (folder / "slabs" / f"0001-group0-slab00{i}" for i in range(2))
    shutil.rmtree(other)
    shutil.copytree(one, other)
    part = dopt.load(folder)
    assert part.missing == 2
    assert "foreign slab" in part.faults[0]
    found, (line,) = again(folder)
    assert line.startswith("results: foreign slab")
    assert (folder / "set-aside" / "0001-group0-slab001.0").is_dir()
    assert_frame_equal(found.history, swept.history, check_exact=True)


def test_a_slab_of_another_sweep_is_foreign(folder: Path, swept: Results, tmp_path: Path) -> None:
    dopt.sweep(asked(learning_rate=[0.3, 0.4]), results=tmp_path / "other")
    name = "0001-group0-slab002"
    shutil.rmtree(folder / "slabs" / name)
    shutil.copytree(tmp_path / "other" / "slabs" / name, folder / "slabs" / name)
    assert "foreign slab" in dopt.load(folder).faults[0]
    found, (line,) = again(folder)
    assert "foreign" in line
    assert_frame_equal(found.runs, swept.runs, check_exact=True)


@pytest.mark.parametrize("file", ["runs.parquet", "history.parquet"])
def test_a_table_of_other_runs_is_foreign_whatever_the_manifest_says(folder: Path, file: str) -> None:
    one, other = (folder / "slabs" / f"0001-group0-slab00{i}" for i in range(2))
    shutil.copyfile(one / file, other / file)
    source = json.loads((one / "manifest.json").read_text())["sha256"][file]
    edit(other / "manifest.json", lambda content: content["sha256"].update({file: source}))
    (line,) = dopt.load(folder).checked().faults
    assert "foreign slab" in line
    assert file in line


def test_what_cannot_be_read_is_neither_damaged_nor_set_aside(
    folder: Path, monkeypatch: pytest.MonkeyPatch, nothing_runs: None
) -> None:
    hurt, read = folder / "slabs" / "0001-group0-slab001" / "history.parquet", Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == hurt:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    found = dopt.load(folder).checked()
    assert found.missing == 2
    assert found.faults == (f"results: unreadable slab: {hurt} cannot be read (Permission denied); left out",)
    with pytest.raises(MachineError, match=r"unreadable slab: .*history\.parquet cannot be read"):
        again(folder)
    assert hurt.exists()
    assert not (folder / "set-aside").exists()


def test_a_plan_that_cannot_be_read_is_not_called_damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "0001.json":
            raise OSError(5, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(MachineError, match=r"^results: cannot read .*0001\.json \(Input/output error\)$"):
        dopt.load(folder)


def test_damage_foreign_and_unreadable_are_told_apart(folder: Path) -> None:
    store = Store(folder)
    ids = [run.id for run in plan.read(store.plan(store.plan_path(1)), store.plan_path(1))[0].slabs[0][1]]
    (store.slab("0001-group0-slab000") / "history.parquet").write_bytes(b"PAR1")
    kinds = []
    for name, these in (("0001-group0-slab000", ids), ("0001-group0-slab001", ids), ("nowhere", ids)):
        with pytest.raises(SlabError) as error:
            store.read_slab(name, these)
        kinds.append(error.value.kind)
    assert kinds == ["damaged", "foreign", "damaged"]


def test_slabs_of_another_engine_are_named_where_more_are_made(folder: Path, swept: Results) -> None:
    assert again(folder)[1] == []
    for number in range(3):
        path = folder / "slabs" / f"0001-group0-slab00{number}" / "manifest.json"
        assert json.loads(path.read_text())["engine"] == ENGINE
        edit(path, lambda content: content.update(engine=0))
    assert again(folder)[1] == []
    shutil.rmtree(folder / "slabs" / "0001-group0-slab001")
    found, (line,) = again(folder)
    assert f"made by engine 0, and missing slabs are made by engine {ENGINE}: last bits may differ" in line
    assert_frame_equal(found.history, swept.history, check_exact=True)


# -- what runs stand for ----------------------------------------------------------------------------------------------


def test_a_graph_that_changed_is_found_before_a_slab_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", 2)
    file = tmp_path / "graph.edgelist"
    nx.write_edgelist(nx.cycle_graph(4), file, data=False)
    first, _ = again(tmp_path / "results", topology=str(file))
    shutil.rmtree(tmp_path / "results" / "slabs" / "0001-group0-slab001")
    nx.write_edgelist(nx.complete_graph(4), file, data=False)
    with pytest.raises(
        InputError, match=r"graph, matrix of run \w{16} .*no longer what it was when the plans of .* were made"
    ) as error:
        again(tmp_path / "results", topology=str(file))
    assert "\n" not in str(error.value)
    assert dopt.load(tmp_path / "results").missing == 2
    nx.write_edgelist(nx.cycle_graph(4), file, data=False)
    found, _ = again(tmp_path / "results", topology=str(file))
    assert_frame_equal(found.history, first.history, check_exact=True)


def test_a_file_that_changes_while_a_sweep_is_planned_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, group = tmp_path / "graph.edgelist", plan.group_on
    nx.write_edgelist(nx.cycle_graph(4), file, data=False)

    def late(*args: Any) -> Any:
        nx.write_edgelist(nx.complete_graph(4), file, data=False)
        return group(*args)

    monkeypatch.setattr(plan, "group_on", late)
    with pytest.raises(InputError, match=r"graph, matrix of run \w{16} .*no longer"):
        again(tmp_path / "results", topology=str(file))


def test_data_that_are_elsewhere_do_not_keep_a_finished_sweep_from_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(files, "fetch", offline)
    monkeypatch.setenv("DOPT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DOPT_CACHE_DIR", str(tmp_path / "cache"))
    file = tmp_path / "heart_scale"
    file.write_bytes(b"+1 1:1\n-1 2:1\n" * 4)
    changes: dict[str, Any] = {"problem": "logistic", "data": "heart_scale", "metrics": [["loss"]], "seed": 0}
    first, _ = again(tmp_path / "results", **changes)
    file.rename(tmp_path / "away")
    found, _ = again(tmp_path / "results", **changes)
    assert_frame_equal(found.history, first.history, check_exact=True)
    shutil.rmtree(next((tmp_path / "results" / "slabs").iterdir()))
    with pytest.raises(InputError, match=r"heart_scale not found"):
        again(tmp_path / "results", **changes)
    file.write_bytes(b"+1 1:1\n-1 2:2\n" * 4)
    with pytest.raises(InputError, match=r"data of run \w{16} .*no longer"):
        again(tmp_path / "results", **changes)


def even(graph: Any) -> np.ndarray:
    return np.full((len(graph), len(graph)), 1 / len(graph))


def lazy_even(graph: Any) -> np.ndarray:
    return (np.eye(len(graph)) + even(graph)) / 2


def test_another_body_of_a_plugin_is_never_handed_the_first_ones_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mixing.WEIGHTS, "even", Entry("even", even, "", {}))  # taken away again in the end
    first, _ = again(tmp_path / "results", weights="even")
    mixing.WEIGHTS.register(name="even")(lazy_even)
    with pytest.raises(InputError, match=r"code of weights, matrix of run \w{16} .*no longer what"):
        again(tmp_path / "results", weights="even")
    other, _ = again(tmp_path / "other", weights="even")
    assert not set(first.runs["id"]) & set(other.runs["id"])


def test_code_that_cannot_be_hashed_is_said_and_never_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = eval("lambda graph: even(graph)", {"even": even})
    monkeypatch.setitem(mixing.WEIGHTS, "nowhere", Entry("nowhere", made, "", {}))
    found, (line,) = again(tmp_path / "results", weights="nowhere")
    assert found.missing == 0
    assert line.startswith("results: code of weights cannot be hashed")
    with pytest.raises(InputError, match="code of weights of run"):
        again(tmp_path / "results", weights="nowhere")


def test_a_solvers_matrix_is_kept_with_the_plan_and_never_solved_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cvxpy")
    monkeypatch.setitem(plan.PREFERRED, "cpu", 2)
    first, _ = again(tmp_path / "results", weights="fastest")
    (kept,) = (tmp_path / "results" / "matrices").iterdir()
    assert kept.stem in json.loads((tmp_path / "results" / "plans" / "0001.json").read_text())["digests"]
    shutil.rmtree(tmp_path / "results" / "slabs" / "0001-group0-slab001")

    def other(graph: nx.Graph, name: str, nonnegative: bool) -> np.ndarray:
        return even(graph)  # as another version of the solver might say

    monkeypatch.setattr(rules, "_least_norm", other)
    forget()
    found, said = again(tmp_path / "results", weights="fastest")
    assert not said
    assert_frame_equal(found.history, first.history, check_exact=True)
    kept.unlink()
    forget()
    with pytest.raises(InputError, match=r"matrix of run \w{16} .*no longer"):
        again(tmp_path / "results", weights="fastest")
    forget()


def test_a_run_with_checkpoints_keeps_its_solvers_matrix_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cvxpy")
    forget()
    run = dopt.Run(
        algorithm="gossip_sgd", workers=4, learning_rate=0.1, steps=4, problem="consensus", weights="fastest"
    )
    where = dopt.Checkpoints(tmp_path / "kept", 2)
    first = dopt.run(run, checkpoint=where)
    monkeypatch.setattr(rules, "_least_norm", lambda graph, name, nonnegative: even(graph))
    forget()
    assert dopt.run(run, checkpoint=where).id == first.id
    assert dopt.run(run).id != first.id
    forget()


def forget() -> None:
    """As in a new process."""
    matrices._matrix.cache_clear()
    _source_digest.cache_clear()
