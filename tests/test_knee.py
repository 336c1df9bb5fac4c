"""On an accelerator a slab is as wide as pays: found by doubling, measured once, remembered beside no results; never on a CPU."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dopt
from dopt import engine
from dopt.cli import main
from dopt.config import Runs
from dopt.devices import memory
from dopt.engine import Compiled, group_of
from dopt.sweeps import knee, plan
from dopt.sweeps.knee import WORTH, Knee, search
from dopt.types import MachineError

PARAMETERS = {"algorithm": "gossip_sgd", "problem": "consensus", "workers": 2, "steps": 4, "learning_rate": 0.1}
RUNS = 8
SWEEP = {
    "name": "small",
    "parameters": {**{name: {"value": v} for name, v in PARAMETERS.items()}, "seed": {"values": list(range(RUNS))}},
}


@given(st.floats(0, 1e3), st.floats(1e-3, 1e3), st.integers(0, 6), st.integers(0, 14))
def test_doubling_ends_where_it_saves_less_than_a_tenth(launch: float, work: float, first: int, most: int) -> None:
    def seconds(width: int) -> float:
        return launch / width + work

    found = search(seconds, 2**first, 2**most)
    pays = [seconds(2 * w) <= WORTH * seconds(w) for w in (2**i for i in range(first, 40))]
    at = min(pays.index(False), max(0, most - first))
    assert found == Knee(2 ** (first + at), is_last=2 ** (first + at + 1) <= 2**most)


@pytest.mark.parametrize(("room", "expected"), [(64, Knee(64, True)), (16, Knee(32, True)), (2**20, Knee(512, False))])
def test_doubling_ends_where_there_is_no_room(room: int, expected: Knee) -> None:
    assert search(lambda width: 1 / width if width <= room else None, 32, 800) == expected


class Timed:
    """Stands in for a device on which a run takes 1/width + 1/6 seconds."""

    def __init__(self) -> None:
        self.tried: list[int] = []

    def __call__(self, group: Any, runs: Any, width: int) -> float:
        self.tried.append(width)
        return 1 / width + 1 / 6


@pytest.fixture
def timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Timed:
    """An accelerator whose knee is at 32, where a search begins at 1, and a cache of one's own."""
    made = Timed()
    monkeypatch.setenv("DOPT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delitem(plan.PREFERRED, "cpu")
    monkeypatch.setattr(knee, "_seconds", made)
    monkeypatch.setattr(knee, "FIRST", 1)
    return made


def group_and_runs(number: int) -> tuple[engine.Group, Runs, str]:
    runs = Runs.of([dopt.Run(**PARAMETERS, seed=seed).resolve() for seed in range(number)])
    return group_of(runs), runs, engine.key(runs[0])


def test_a_knee_is_measured_once_and_only_as_far_as_it_is_not_known(timed: Timed, tmp_path: Path) -> None:
    few, many = group_and_runs(8), group_and_runs(80)
    assert knee.measured(*few) == Knee(8, False)
    assert timed.tried == [1, 2, 4, 8]
    assert knee.measured(*few) == knee.remembered(*many) == Knee(8, False)
    assert timed.tried == [1, 2, 4, 8]
    assert knee.measured(*many) == Knee(32, True)
    assert timed.tried == [1, 2, 4, 8, 8, 16, 32, 64]
    assert knee.measured(*few) == knee.measured(*many) == Knee(32, True)
    assert len(timed.tried) == 8
    assert len(list((tmp_path / "cache" / "widths").iterdir())) == 1


def test_what_is_remembered_is_of_one_machine_and_nothing_that_is_damaged(
    timed: Timed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = group_and_runs(4)
    assert knee.remembered(*of) is None
    knee.measured(*of)
    (path,) = (tmp_path / "cache" / "widths").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(knee, "installed", lambda package: "another one")
        assert knee.remembered(*of) is None
    whole = path.read_bytes()
    for text in (b"", b"{", whole.replace(b'"width": 4', b'"width": 64'), b"[]"):
        path.write_bytes(text)
        assert knee.remembered(*of) is None
    path.write_bytes(whole)
    assert knee.remembered(*of) == Knee(4, False)


def test_a_cache_that_cannot_be_written_only_costs_time(timed: Timed, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    of = group_and_runs(4)
    assert knee.measured(*of) == knee.measured(*of) == Knee(4, False)
    assert len(timed.tried) == 6


def test_a_sweep_is_as_wide_as_its_knee_and_a_dry_run_says_what_is_known_and_runs_nothing(
    timed: Timed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(json.dumps(SWEEP))
    begin = Compiled.start
    monkeypatch.setattr(Compiled, "start", lambda *a: pytest.fail("ran"))
    assert main(["sweep", str(file), "--dry-run"]) == 0
    assert "group 0 is as wide as memory allows: the best width was not measured" in " ".join(
        capsys.readouterr().out.split()
    )
    monkeypatch.setattr(Compiled, "start", begin)

    monkeypatch.setattr(knee, "_seconds", lambda group, runs, width: max(1 / width, 1 / 2))  # no faster from 2 on
    results = dopt.sweep(SWEEP, results=tmp_path / "results")
    assert json.loads((results.folder / "plans" / "0001.json").read_text())["groups"][0]["width"] == 2
    assert main(["sweep", str(file), "--dry-run"]) == 0
    assert "group 0 is as wide as was measured to be best on this device" in " ".join(capsys.readouterr().out.split())


def test_a_program_is_timed_at_every_width_for_which_both_slabs_have_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOPT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(knee, "FIRST", 2)
    group, runs, key = group_and_runs(4)
    found = knee.measured(group, runs, key)
    assert found in (Knee(2, True), Knee(4, False))
    taken = engine.compile(group, 2).memory
    monkeypatch.setattr(memory, "room_of_slab", lambda device: taken)
    assert knee.measured(group, runs, f"{key} ") == Knee(2, True)


def test_a_width_that_the_compiler_refuses_is_halved_but_not_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def compiled(group: Any, width: int, calls: Any) -> Any:
        tried.append(width)
        if width > 3:
            raise MachineError("memory: the device has no room left (RESOURCE_EXHAUSTED)")
        return SimpleNamespace(memory=None)

    monkeypatch.setattr(engine, "compile", compiled)
    group, *_ = group_and_runs(1)
    with pytest.raises(MachineError):
        plan.choose_width(group, 8)
    monkeypatch.delitem(plan.PREFERRED, "cpu")
    assert plan.choose_width(group, 8)[0] == 2
    assert tried == [8, 8, 4, 2]
