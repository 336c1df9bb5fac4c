"""What a sweep gives: tables of several methods, and an array where its runs are no grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from pandas.testing import assert_frame_equal
from small import small_sweep

import dopt


def test_a_random_sweep_becomes_an_array_of_runs(tmp_path: Path) -> None:
    random = small_sweep(seed=0, steps=10)
    random["parameters"]["learning_rate"] = {"min": 0.01, "max": 0.1}
    random["parameters"]["seed"] = {"min": 0, "max": 1000}
    results = dopt.sweep({**random, "method": "random", "run_cap": 3}, results=tmp_path / "results")
    array = results.to_xarray()
    assert dict(array.sizes) == {"id": 3, "record": 11}
    for run in results.runs["id"]:
        np.testing.assert_array_equal(array["loss"].sel(id=run), results.history.query("id == @run")["loss"])


def test_runs_of_several_methods_lie_in_one_table(tmp_path: Path) -> None:
    several = small_sweep(
        algorithm=["allreduce_sgd", "delayed_gossip_sgd", "async_sgd"],
        delay=[1, "uniform"],
        learning_rate=0.1,
        seed=0,
        **{"delay.max": 3},
    )
    results = dopt.sweep(several, results=tmp_path / "results")
    assert results.merged == 2  # two of the methods read no delay
    assert results.runs["algorithm"].tolist() == [
        "allreduce_sgd",
        "delayed_gossip_sgd",
        "delayed_gossip_sgd",
        "async_sgd",
    ]
    assert results.runs["delay"].tolist() == [0, 1, "uniform", 0]
    assert results.runs["topology"].isna().tolist() == [True, False, False, True]
    assert results.history["server_bytes_sent"].notna().groupby(results.history["id"]).all().sum() == 1
    assert_frame_equal(pd.DataFrame(results.runs), dopt.load(tmp_path / "results").runs)
