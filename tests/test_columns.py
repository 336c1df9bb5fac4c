"""A table is read back as it was written, whatever its columns mix; so is a sweep over such options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import dopt
from dopt.engine import Compiled
from dopt.sweeps import columns, spec

MIXES: dict[str, list[Any]] = {
    "numbers and lists": [0.1, (0.1, 0.2)],
    "lists of unequal depth": [(0.1, 0.2), ((0.0, 1.5), (2.5, 0.0)), None],
    "lists": [("loss", "grad_norm"), ("loss",)],
    "numbers and names": [3, "uniform", None],
    "truth values and numbers": [True, 0.5, 1],
    "whole numbers past the floats": [2**60 + 1, None, 2**80],
    "names that look like lists": ["[1, 2]", "3", 3],
}


@pytest.mark.parametrize("values", MIXES.values(), ids=MIXES)
def test_a_column_is_read_back_with_its_values_and_types(values: list[Any], tmp_path: Path) -> None:
    columns.write(pd.DataFrame({"a": values, "b": 1.5}, dtype=object).infer_objects(), tmp_path / "t.parquet")
    found = columns.read(tmp_path / "t.parquet")
    assert [(type(v), v) for v in found["a"]] == [(type(v), v) for v in values]
    assert found["b"].tolist() == [1.5] * len(values)


@pytest.mark.parametrize("values", [[1, 2], [0.5, 1.5], ["a", "b"], [True, False]], ids=str)
def test_a_column_of_one_type_needs_no_text_in_the_file(values: list[Any], tmp_path: Path) -> None:
    table = pd.DataFrame({"a": values})
    columns.write(table, tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), table)


FIXED = {"algorithm": "async_sgd", "cluster": "exponential", "learning_rate": 0.05, "workers": 4, "steps": 10}
SWEEP = spec.grid({**FIXED, "problem": "consensus"}, {"cluster.latency": [0.1, [0.1, 0.2, 0.3, 0.4]]})


def test_a_sweep_over_numbers_and_lists_is_stored_and_loaded_as_it_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = dopt.sweep({"parameters": SWEEP}, results=tmp_path / "a")
    assert results.runs["cluster.latency"].tolist() == [0.1, (0.1, 0.2, 0.3, 0.4)]
    assert dict(results.to_xarray().sizes) == {"cluster.latency": 2, "record": 11}
    for run in results.runs.itertuples():
        assert results.run(str(run.id)).id == run.id
    monkeypatch.setattr(Compiled, "start", lambda *a: pytest.fail("ran again"))
    again = dopt.sweep({"parameters": SWEEP}, results=tmp_path / "a")
    pd.testing.assert_frame_equal(again.runs, results.runs)
