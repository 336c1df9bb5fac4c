"""Medians and quartiles over seeds, and one look per method."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from dopt.algorithms import ALGORITHMS
from dopt.plot.seeds import quartiles
from dopt.plot.strokes import ticks
from dopt.plot.style import FAMILIES, look


def cell(values: list[float]) -> pd.Series:
    rows = pd.DataFrame({"id": [f"r{i}" for i in range(len(values))], "method": "a", "loss": values})
    return quartiles(rows, ["method"], "loss").iloc[0]


def test_quartiles_are_numpys() -> None:
    values = np.random.default_rng(0).normal(size=11)
    found = cell(list(values))
    np.testing.assert_allclose(
        found[["low", "median", "high"]].to_numpy(float), np.quantile(values, [0.25, 0.5, 0.75]), rtol=1e-14
    )
    assert found["n"] == 11
    assert found["ids"] == " ".join(f"r{i}" for i in range(11))


@pytest.mark.parametrize(("diverged", "median", "high"), [(1, 2.0, 3.0), (2, 2.0, np.inf), (3, np.inf, np.inf)])
def test_who_diverged_counts_as_infinitely_large(diverged: int, median: float, high: float) -> None:
    found = cell([0.0, 1.0, 2.0, 3.0, 4.0][: 5 - diverged] + [np.nan] * diverged)
    assert found["median"] == median
    assert found["high"] == high


def test_a_logarithmic_axis_has_the_ticks_that_it_is_given() -> None:
    axes = Figure().subplots()
    axes.plot([20, 300], [20, 300])
    axes.set_yscale("log")
    ticks(axes.yaxis, [30, 0.5])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["30", "0.5"]
    assert len(axes.yaxis.get_ticklocs(minor=True)) == 0


def test_cells_are_apart_and_each_names_its_runs() -> None:
    rows = pd.DataFrame({"id": ["a", "a", "b", "b"], "step": [0, 1, 0, 1], "loss": [1.0, 2.0, 3.0, 4.0]})
    found = quartiles(rows, ["step"], "loss")
    assert found["median"].tolist() == [2.0, 3.0]
    assert found["ids"].tolist() == ["a b", "a b"]


def test_every_method_has_a_look_of_its_own() -> None:
    names = [name for _, members in FAMILIES for name in members]
    assert set(names) == set(ALGORITHMS)
    looks = [str(look(name)) for name in names]
    assert len(set(looks)) == len(names)
