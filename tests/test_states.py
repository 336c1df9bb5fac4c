"""What loops of slabs carried, kept: what was interrupted goes on from there, and so do runs that are asked for with more steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from test_growth import Said

import dopt
from dopt import Results
from dopt.cli import main
from dopt.engine import Group
from dopt.sweeps import plan
from dopt.sweeps.jobs import Team
from dopt.sweeps.states import Kept
from dopt.sweeps.store import Store
from dopt.types import MachineError

BASE: dict[str, Any] = {
    "algorithm": "gossip_sgd",
    "workers": 4,
    "learning_rate": [0.1, 0.2],
    "problem": "quadratic",
    "problem.dim": 3,
    "problem.noise": 0.1,
    "record_every": 5,
    "seed": [0, 1],
}


def swept(folder: Path, every: int | None = 10, jobs: int = 1, **changes: Any) -> tuple[Results, Said]:
    each = {**BASE, **changes}
    parameters = {k: {"values": v} if isinstance(v, list) else {"value": v} for k, v in each.items() if v is not None}
    said = Said()
    content = {"name": "small", "parameters": parameters}
    return dopt.sweep(content, results=folder, show=said, checkpoint_every=every, jobs=jobs), said


def began(folder: Path, number: int) -> list[int]:
    """The steps at which slabs of a plan were gone on with."""
    return [
        Store(folder).manifest(path.name)["began"]
        for path in sorted((folder / "slabs").iterdir())
        if path.name.startswith(f"{number:04d}")
    ]


METHODS: dict[str, dict[str, Any]] = {
    "gossip_sgd on a sequence, with momentum": {"topology": "one_peer_exponential", "optimizer.momentum": 0.9},
    "gossip_sgd on a random sequence, with lossy links": {"topology": "random_matching", "link_loss": 0.2},
    "gradient_tracking": {"algorithm": "gradient_tracking"},
    "choco_sgd": {"algorithm": "choco_sgd", "algorithm.compressor": "random_k", "algorithm.fraction": 0.5},
    "allreduce_sgd": {"algorithm": "allreduce_sgd", "optimizer": "adam", "topology": None},
    "delayed_sgd": {"algorithm": "delayed_sgd", "delay": "uniform", "delay.max": 3, "topology": None},
    "delayed_gossip_sgd": {"algorithm": "delayed_gossip_sgd", "delay": "geometric", "delay.max": 4},
    "local_sgd": {"algorithm": "local_sgd", "algorithm.local_steps": 5, "topology": None},
    "allreduce_sgd on a clock": {"algorithm": "allreduce_sgd", "cluster": "exponential", "topology": None},
}


@pytest.mark.parametrize("name", METHODS)
def test_a_longer_run_starts_where_the_shorter_one_ended_and_is_the_one_made_at_once(name: str, tmp_path: Path) -> None:
    changes = {"topology": "ring", **METHODS[name]}
    swept(tmp_path / "results", steps=20, **changes)
    found, said = swept(tmp_path / "results", steps=35, **changes)
    whole, _ = swept(tmp_path / "whole", every=None, steps=35, **changes)
    assert said.lines == [
        f"results: 4 runs of {tmp_path / 'results'} are hidden, since this sweep does not ask for them"
    ]
    assert began(tmp_path / "results", 2) == [20]
    assert found.runs["id"].tolist() == whole.runs["id"].tolist()
    assert_frame_equal(found.history, whole.history, rtol=1e-6)
    assert_frame_equal(found.runs, whole.runs, rtol=1e-6)


def test_where_the_clock_gives_old_models_other_places_longer_runs_start_at_step_0_and_it_is_said(
    tmp_path: Path,
) -> None:
    changes = {"algorithm": "async_sgd", "cluster": "exponential"}
    swept(tmp_path / "results", steps=20, **changes)
    found, said = swept(tmp_path / "results", steps=35, **changes)
    whole, _ = swept(tmp_path / "whole", every=None, steps=35, **changes)
    assert said.notes == [
        "checkpoint: runs of async_sgd start at step 0, since their inputs (as batches, delays) do not begin like those of 20 steps"
    ]
    assert began(tmp_path / "results", 2) == [0]
    assert_frame_equal(found.history, whole.history, rtol=1e-6)


def test_runs_that_are_new_start_at_their_beginning_in_slabs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", 2)
    swept(tmp_path / "results", steps=20)
    found, _ = swept(tmp_path / "results", steps=30, seed=[0, 1, 2])
    whole, _ = swept(tmp_path / "whole", every=None, steps=30, seed=[0, 1, 2])
    assert began(tmp_path / "results", 2) == [20, 20, 0]
    assert found.runs["id"].tolist() == whole.runs["id"].tolist()
    assert_frame_equal(found.history, whole.history, rtol=1e-6)


def test_a_slab_that_was_interrupted_goes_on_from_its_last_state_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Group.calls
    monkeypatch.setattr(Group, "calls", lambda self, width, most=None, after=0: calls(self, width, 1, after))
    whole, _ = swept(tmp_path / "whole", every=None, steps=40)
    save = Kept.save

    def dies(self: Kept, done: int, carry: Any) -> None:
        save(self, done, carry)
        if done == 4:
            raise MachineError("died")

    with monkeypatch.context() as patch:
        patch.setattr(Kept, "save", dies)
        with pytest.raises(MachineError, match="died"):
            swept(tmp_path / "results", steps=40)
    assert not list((tmp_path / "results" / "slabs").glob("[!.]*"))
    found, _ = swept(tmp_path / "results", steps=40)
    assert began(tmp_path / "results", 1) == [20]
    assert_frame_equal(found.history, whole.history, check_exact=True)


def hurt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def of_another_engine(path: Path) -> None:
    with np.load(path) as found:
        arrays: dict[str, Any] = dict(found)
    about = json.loads(str(arrays["about"]))
    about["made_by"]["engine"] = 0
    np.savez(path, **arrays | {"about": np.array(json.dumps(about))})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (hurt, "is damaged"),
        (of_another_engine, "was made by another dopt, engine, JAX or device; it is not used"),
        (Path.unlink, "start at step 0, since there is no checkpoint after 20 steps"),
    ],
)
def test_a_state_that_cannot_be_used_is_named_and_runs_start_at_step_0(change: Any, line: str, tmp_path: Path) -> None:
    swept(tmp_path / "results", steps=20)
    change(tmp_path / "results" / "checkpoints" / "0001-group0-slab000.npz")
    found, said = swept(tmp_path / "results", steps=30)
    assert any(line in note for note in said.notes)
    assert began(tmp_path / "results", 2) == [0]
    whole, _ = swept(tmp_path / "whole", every=None, steps=30)
    assert_frame_equal(found.history, whole.history, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "longer", "line"),
    [
        (
            {"record_every": None},
            {"record_every": None},
            "its records are at other steps than those of the shorter runs; give record_every",
        ),
        (
            {"record_every": 5},
            {"record_every": 10},
            "its records are at other steps than those of the shorter runs; give record_every",
        ),
        ({"executor": "mesh"}, {"executor": "mesh"}, "a run of executor mesh cannot be taken out of its slab"),
    ],
)
def test_where_a_longer_run_cannot_start_from_a_shorter_one_a_line_says_why(
    changes: dict[str, Any], longer: dict[str, Any], line: str, tmp_path: Path
) -> None:
    swept(tmp_path, steps=100, **changes)
    _, said = swept(tmp_path, steps=200, **longer)
    assert f"checkpoint: gossip_sgd of 200 steps starts at step 0, since {line}" in said.lines
    assert began(tmp_path, 2) == [0] * len(began(tmp_path, 2))


def test_helpers_keep_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", 1)
    monkeypatch.setattr(Team, "may_take", lambda self, slab: False)  # so that a helper does all of it
    swept(tmp_path, jobs=2, steps=20, learning_rate=0.1)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_nothing_is_kept_unless_it_is_asked_for(tmp_path: Path) -> None:
    swept(tmp_path, every=None, steps=20)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("number", ["0", "-5"])
def test_a_number_of_steps_that_is_none_is_one_line(number: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(json.dumps({"parameters": {"steps": {"value": 5}}}))
    assert main(["sweep", str(file), "--checkpoint-every", number, "--results", str(tmp_path / "results")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line
    assert not (tmp_path / "results").exists()
