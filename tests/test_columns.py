"""A table is read back as it was written, whatever its columns mix; so is a sweep over such options."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import dopt
from dopt.engine import Compiled
from dopt.sweeps import columns, spec
from dopt.sweeps.columns import of_array

MIXES: dict[str, list[Any]] = {
    "numbers and lists": [0.1, (0.1, 0.2)],
    "lists of unequal depth": [(0.1, 0.2), ((0.0, 1.5), (2.5, 0.0)), None],
    "lists": [("loss", "grad_norm"), ("loss",)],
    "numbers and names": [3, "uniform", None],
    "truth values and numbers": [True, 0.5, 1],
    "whole numbers past the floats": [2**60 + 1, None, 2**80],
    "names that look like lists": ["[1, 2]", "3", 3],
    "a large whole number beside none": [2**60 + 1, None],
    "a large whole number beside another": [2**60 + 1, 0.5],
}


def table_of(values: list[Any]) -> pa.Table:
    return columns.table({"a": columns.column(values, range(len(values))), "b": of_array(np.full(len(values), 1.5))})


def same(one: list[Any], other: list[Any]) -> bool:
    """Types and values, and signs of zeros."""
    return [(type(x), repr(x)) for x in one] == [(type(x), repr(x)) for x in other]


@pytest.mark.parametrize("values", MIXES.values(), ids=MIXES)
def test_a_column_is_read_back_with_its_values_and_types(values: list[Any], tmp_path: Path) -> None:
    columns.write(table_of(values), tmp_path / "t.parquet")
    found = columns.frame(columns.read(tmp_path / "t.parquet"))
    assert same(found["a"].tolist(), values)
    assert found["b"].tolist() == [1.5] * len(values)


ALIKE = {
    "whole numbers": [1, 2],
    "numbers": [0.5, 1.5],
    "zeros of either sign": [0.0, -0.0],
    "names": ["a", "b"],
    "truth values": [True, False],
    "large whole numbers": [2**60 + 1, 3],
}


@pytest.mark.parametrize("values", ALIKE.values(), ids=ALIKE)
def test_a_column_of_one_type_needs_no_text_in_the_file(values: list[Any], tmp_path: Path) -> None:
    columns.write(table_of(values), tmp_path / "t.parquet")
    found = pd.read_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(found, pd.DataFrame({"a": values, "b": 1.5}))
    assert same(found["a"].tolist(), values)


@pytest.mark.parametrize("values", [[1, None], [1, 0.5], [True, None], ["a", None], [None, None]], ids=str)
def test_what_is_missing_beside_one_type_is_as_pandas_has_it(values: list[Any], tmp_path: Path) -> None:
    columns.write(table_of(values), tmp_path / "t.parquet")
    known = pd.DataFrame({"a": pd.Series(values, dtype=object).infer_objects()})
    pd.testing.assert_frame_equal(columns.frame(columns.read(tmp_path / "t.parquet"))[["a"]], known)


@pytest.mark.parametrize("pair", [(1, 1.0), (1, True), (0.0, -0.0), ("1", 1), (None, 0)], ids=str)
def test_a_column_of_equal_values_has_their_type_whatever_was_written_before(pair: tuple[Any, Any]) -> None:
    for value in pair:
        found = columns.frame(table_of([value] * 3))["a"].tolist()
        assert same(found, [value] * 3)


def test_tables_that_differ_are_joined_as_pandas_joins_them() -> None:
    each = [table_of(values) for values in ([1, 2], [3, 4], [0.5], ["a"], [(1, 2), "b"], [5])]
    known = pd.concat(map(columns.frame, each), ignore_index=True)
    found = columns.joined(each)
    assert sorted(map(repr, found["a"])) == sorted(map(repr, known["a"]))
    assert found.dtypes.equals(known.dtypes)


OLD = {
    "a": [0.1, None, 7.5],
    "b": pd.array([3, None, 5], "Int64"),
    "c": ["x", "y", "z"],
    "d": ["[0.1, 2]", "3", "null"],
}


def test_a_file_that_pandas_has_written_is_read_beside_those_of_today(tmp_path: Path) -> None:
    """So wrote dopt before its tables were Arrow's: with pandas, and its mark among the table's attributes."""
    old = pd.DataFrame(OLD)
    old.attrs = {"json": ["d"]}
    old.to_parquet(tmp_path / "old.parquet", index=False)
    rows = range(3)
    new = columns.table(
        {
            "a": columns.column([0.1, None, 7.5], rows),
            "b": columns.of_steps(np.array([3, -1, 5]), np.array([True, False, True])),
            "c": columns.column(["x", "y", "z"], rows),
            "d": columns.column([(0.1, 2), 3, None], rows),
        }
    )
    columns.write(new, tmp_path / "new.parquet")
    one, other = (columns.read(tmp_path / f"{name}.parquet") for name in ("old", "new"))
    pd.testing.assert_frame_equal(columns.frame(one), columns.frame(other))
    assert columns.frame(one)["d"].tolist() == [(0.1, 2), 3, None]
    pd.testing.assert_frame_equal(columns.joined([one, other])[:3], columns.frame(one))
    pd.testing.assert_frame_equal(columns.joined([one, other])[3:].reset_index(drop=True), columns.frame(one))


def test_the_sum_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    found = columns.write(table_of(["a", 1]), tmp_path / "t.parquet")
    assert found == hashlib.sha256((tmp_path / "t.parquet").read_bytes()).hexdigest()


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
