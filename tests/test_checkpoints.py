"""Checkpoints: a run that was cut goes on to the same bits; those of another run are refused; the last two are kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from refusals import refused

import dopt
from dopt import Checkpoints, InputError, Run, engine
from dopt.cli import main
from dopt.engine import Outcome, group_of, run_slab
from dopt.engine.checkpoints import MADE_BY, Keeper, due

ROOT = Path(__file__).parents[1]
BASE: dict[str, Any] = {"workers": 8, "problem": "quadratic", "problem.noise": 0.1, "learning_rate": 0.05, "steps": 60}
BASE |= {"record_every": 6}
KINDS: dict[str, dict[str, Any]] = {
    "vmap": {"algorithm": "gossip_sgd", "optimizer.momentum": 0.9},
    "pmap": {"algorithm": "gradient_tracking", "executor": "pmap"},
    "shard_map": {"algorithm": "gradient_tracking", "executor": "shard_map"},
    "mesh": {"algorithm": "choco_sgd", "executor": "mesh"},
    "delays": {"algorithm": "delayed_gossip_sgd", "delay": "uniform", "delay.max": 3},
    "a server": {"algorithm": "async_sgd", "cluster": "exponential", "optimizer": "adam"},
    "float64": {"algorithm": "extra", "precision": "float64"},
}


class CutError(Exception):
    """Stands for whatever ends a run early."""


def make(**changes: Any) -> Run:
    return Run.from_dict({**BASE, "algorithm": "gossip_sgd", **changes})


def same(one: Outcome, other: Outcome) -> None:
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in one.history:
        np.testing.assert_array_equal(one.history[name], other.history[name])


def cut_after(share: float) -> Any:
    def look(done: int, total: int) -> int:
        if done > share * total:
            raise CutError
        return 1

    return look


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_cut_ends_in_the_bits_of_one_that_was_not(kind: str, tmp_path: Path) -> None:
    run, where = make(**KINDS[kind]).resolve(), Checkpoints(tmp_path / "kept", every=20)
    group = group_of([run])
    compiled = engine.compile(group, 1, group.calls(1, most=1))
    for share in (0.4, 0.8):
        with pytest.raises(CutError):
            run_slab(compiled, [run], cut_after(share), Keeper(where, "this one", group.devices))
    begins: list[int] = []
    look, keeper = (lambda done, total: begins.append(done) or total), Keeper(where, "this one", group.devices)
    (again,), (whole,) = run_slab(compiled, [run], look, keeper), run_slab(compiled, [run])
    assert begins[0] > 1  # it did not begin anew
    same(again, whole)


def test_a_run_that_diverged_before_its_checkpoint_says_at_the_same_step(tmp_path: Path) -> None:
    run = make(learning_rate=30.0)
    with pytest.raises(CutError):
        dopt.run(run, checkpoint=Checkpoints(tmp_path / "kept", every=10), look=cut_after(0.8))
    again, whole = dopt.run(run, checkpoint=Checkpoints(tmp_path / "kept", every=10)), dopt.run(run)
    assert whole.diverged
    assert again.diverged_step == whole.diverged_step


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    with pytest.raises(CutError):
        dopt.run(make(), checkpoint=Checkpoints(tmp_path, every=6), look=cut_after(0.8))
    assert len(steps_in(tmp_path)) == 2
    # of ten calls of six steps
    assert steps_in(tmp_path) == [8, 9]


def test_a_checkpoint_is_due_at_the_first_end_of_a_call_past_each_multiple() -> None:
    ends = [4, 8, 12, 13]
    assert [due(ends, every) for every in (4, 5, 13, 14)] == [[1, 2, 3], [2, 3], [4], []]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Checkpoints("a\0b", 2), "checkpoint: a path must not contain NUL or surrogates"),
        (Checkpoints("kept", 0), "checkpoint_every: must be at least 1 step, got 0"),
        (Checkpoints("kept", True), "checkpoint_every: must be int, got True"),
        (Checkpoints("kept", 2.5), "checkpoint_every: must be int, got 2.5"),  # type: ignore[arg-type]
    ],
)
def test_checkpoints_that_cannot_be_kept_so_are_refused(asked: Checkpoints, said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        Keeper(asked, "0" * 16, jax.devices())


def test_other_runs_devices_and_versions_are_refused(tmp_path: Path) -> None:
    where = Checkpoints(tmp_path / "kept", every=10)
    run = make(executor="mesh", steps=20)
    dopt.run(run, checkpoint=where)
    with pytest.raises(InputError, match=r"^checkpoint: '.*kept' has run=\w{16}, this run has run=\w{16}; choose"):
        dopt.run(make(executor="mesh", steps=20, seed=1), checkpoint=where)
    with pytest.raises(InputError, match=r"has devices=8, this run has devices=4"):
        dopt.run(run, checkpoint=where, devices=jax.devices()[:4])
    path = where.folder / MADE_BY
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dopt": "0.0.9"}))
    with pytest.raises(InputError, match=r"has dopt=0\.0\.9, this run has dopt="):
        dopt.run(run, checkpoint=where)
    path.write_text("{")
    with pytest.raises(InputError, match=r"^checkpoint: cannot use"):
        dopt.run(run, checkpoint=where)


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CutError):
        dopt.run(make(), checkpoint=Checkpoints(tmp_path, every=10), look=cut_after(0.8))
    last = tmp_path / str(steps_in(tmp_path)[-1])
    for path in [path for path in last.rglob("*") if path.is_file()]:
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"^checkpoint: .* is damaged .*; remove it to go on from the one before") as e:
        dopt.run(make(), checkpoint=Checkpoints(tmp_path, every=10))
    assert "\n" not in str(e.value)


def test_a_killed_command_goes_on_and_ends_in_the_same_tables(tmp_path: Path) -> None:
    fields = ["--algorithm", "gossip_sgd", "--workers", "8", "--learning_rate", "0.001", "--problem", "quadratic"]
    fields += ["--problem.noise", "0.1", "--steps", "100000", "--record_every", "1000", "--wandb", "off"]
    command = ["run", *fields, "--results", str(tmp_path / "cut"), "--checkpoint-every", "5000"]
    code = "import sys; from dopt.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *command], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    kept = tmp_path / "cut" / "checkpoints"
    while process.poll() is None and not (kept.is_dir() and len(steps_in(kept)) == 2):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert steps_in(kept)
    assert not list((tmp_path / "cut").glob("*.parquet"))
    assert main(command) == 0
    assert main(["run", *fields, "--results", str(tmp_path / "whole")]) == 0
    for table in ("runs", "history"):
        one, whole = (next((tmp_path / name).glob(f"*.{table}.parquet")) for name in ("cut", "whole"))
        pd.testing.assert_frame_equal(pd.read_parquet(one), pd.read_parquet(whole), check_exact=True)
    assert not kept.exists()  # the results are there


def test_what_cannot_be_is_one_line(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    run = ["run", "--algorithm", "gossip_sgd", "--workers", "4", "--learning_rate", "0.1", "--problem", "quadratic"]
    run += ["--steps", "5"]
    refused(capsys, [*run, "--checkpoint-every", "5"], "checkpoint_every", "--results DIR")
    zero = ["--checkpoint-every", "0", "--results", str(tmp_path)]
    refused(capsys, [*run, *zero], "checkpoint_every: must be at least 1 step, got 0")
