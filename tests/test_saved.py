"""`dopt run --save`: a run as files that NumPy, pandas and json read alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pandas as pd
import pytest

import dopt
from dopt.cli import main
from dopt.types import InputError

FLAGS = {"algorithm": "easgd", "workers": 4, "problem": "consensus", "learning_rate": 0.1, "steps": 8, "wandb": "off"}


@pytest.fixture(scope="module")
def result() -> dopt.Result:
    fields = {name: value for name, value in FLAGS.items() if name != "wandb"}
    return dopt.run(dopt.Run.from_dict(fields))


def test_the_command_saves_what_python_gives_and_numpy_reads_it_without_pickle(
    result: dopt.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "saved"
    assert main(["run", *(f"--{name}={value}" for name, value in FLAGS.items()), f"--save={folder}"]) == 0
    assert [path.name for path in sorted(folder.iterdir())] == ["history.parquet", "models.npz", "run.json"]
    assert "models.npz" in capsys.readouterr().out
    with np.load(folder / "models.npz", allow_pickle=False) as models:
        np.testing.assert_array_equal(models["params"], result.params)
        np.testing.assert_array_equal(models["center"], result.extra["center"])
    history = pd.read_parquet(folder / "history.parquet").drop(columns="id")
    pd.testing.assert_frame_equal(history, pd.DataFrame(result.history), check_dtype=False)
    about = json.loads((folder / "run.json").read_text())
    assert dopt.Run.from_dict(about["run"]).resolve().id == about["id"] == result.id
    assert about["models"]["params"][0] == FLAGS["workers"]


def test_a_leaf_is_saved_under_its_path_whatever_its_type(result: dopt.Result, tmp_path: Path) -> None:
    leaves = {"dense": {"kernel": np.ones((4, 2, 3), ml_dtypes.bfloat16)}, "layers": [np.zeros((4, 1), np.int32)]}
    dopt.save(dataclasses.replace(result, params=leaves, extra={}), tmp_path)
    models = dict(np.load(tmp_path / "models.npz", allow_pickle=False))
    assert {name: x.dtype.name for name, x in models.items()} == {
        "params/dense/kernel": "float32",
        "params/layers/0": "int32",
    }
    jax.tree.map(np.testing.assert_array_equal, list(models.values()), [np.ones((4, 2, 3)), np.zeros((4, 1))])


@pytest.mark.parametrize("content", ['{"id": "0123456789abcdef"}', "{}", "not json"])
def test_a_folder_that_holds_something_else_is_left_alone(content: str, result: dopt.Result, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"^save: .* holds the run .*; choose another folder$"):
        dopt.save(result, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_the_same_run_may_be_saved_again(result: dopt.Result, tmp_path: Path) -> None:
    first, second = ([path.read_bytes() for path in dopt.save(result, tmp_path)] for _ in range(2))
    assert first == second
