"""What a sweep's table says: the best rate of a cell, what the target costs, and who diverged or stalled."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from dopt.report.cells import best, cost, tuned
from dopt.report.terminal import summary
from dopt.sweep.results import Results


def results(horizon: str = "steps", stalled: bool = False, **metric: Any) -> Results:
    """Two methods at two rates; the record in which each reaches 0.1: fast(0.1) 3rd, fast(0.2) 2nd, slow 4th, never."""
    reach = {("fast", 0.1): 2, ("fast", 0.2): 1, ("slow", 0.1): 3, ("slow", 0.2): 9}
    runs, history = [], []
    for (algorithm, rate), first in reach.items():
        name = f"{algorithm}{rate}"
        loss = np.where(np.arange(5) >= first, 0.05, 1.0)
        pace = 3.0 if algorithm == "fast" else 0.5  # seconds a step
        step = 10 * np.arange(5)
        columns = {"step": step, "gradients": 4 * step, "time": pace * step, "loss": loss}
        history.append(pd.DataFrame({"id": name, **columns}))
        fields = {"id": name, "algorithm": algorithm, "learning_rate": rate, "steps": None, "seconds": None}
        ends = {"final.loss": loss[-1], "diverged": first > 4, "stalled_step": 7 if stalled else None}
        runs.append({**fields, "gradients": None, **ends, horizon: 40})
    chosen = {"name": "loss", "goal": "minimize", "target": 0.1} | metric
    varied = ("algorithm", "learning_rate")
    return Results(pd.DataFrame(runs), pd.concat(history), varied, chosen, Path("."), "made up")


@pytest.mark.parametrize(
    ("horizon", "fast", "slow"), [("steps", 10, 30), ("gradients", 40, 120), ("seconds", 30.0, 15.0)]
)
def test_the_target_costs_what_the_horizon_counts(horizon: str, fast: float, slow: float) -> None:
    found = results(horizon)
    table = tuned(found).set_index("algorithm")
    assert cost(found) == horizon
    assert table["to_target"].to_dict() == {"fast": fast, "slow": slow}
    assert table["learning_rate"].to_dict() == {"fast": 0.2, "slow": 0.1}
    assert f"{horizon} to loss 0.1" in said(found)


def test_the_target_may_be_counted_in_another_unit() -> None:
    assert tuned(results(), axis="time").set_index("algorithm")["to_target"].to_dict() == {"fast": 30.0, "slow": 15.0}
    found = best(results(), axis="gradients").set_index("id")
    assert found["to_target"].to_dict() == {"fast0.2": 40, "slow0.1": 120}


def said(found: Results) -> str:
    out = io.StringIO()
    Console(file=out, width=140).print(summary(found))
    return out.getvalue()


def test_the_table_counts_who_diverged_and_who_stalled() -> None:
    assert "stalled" not in said(results())
    assert tuned(results())["diverged"].tolist() == [0, 1]
    table = tuned(results(stalled=True))
    assert table["stalled"].tolist() == [2, 2]
    assert "stalled" in said(results(stalled=True))


def test_without_a_target_the_best_rate_ends_lowest() -> None:
    table = tuned(results(target=None)).set_index("algorithm")
    assert table["learning_rate"].to_dict() == {"fast": 0.1, "slow": 0.1}
    assert np.isinf(table["to_target"]).all()
    assert "to loss" not in said(results(target=None))
