"""What a sweep's table says: the best rate of a cell, what the target costs, and who diverged or stalled."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from dopt.report.terminal import summary
from dopt.sweeps.cells import best, cost, first_at, place_at, scores, tuned
from dopt.sweeps.results import Results
from dopt.sweeps.spec import grid, parse
from dopt.types import InputError


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
    assert f"{horizon} to loss 0.1, to stay" in said(found)


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


# -- reached: from then on, or for the first time -------------------------------------------------------------------------


def noisy(seeds: int = 4, late: int = 8, **metric: Any) -> Results:
    """A run for each seed that dips to the target at record 2 + seed, and is there for good from record `late` + seed."""
    records = np.arange(late + 6)
    runs, history = [], []
    for seed in range(seeds):
        there = (records == 2 + seed) | (records >= late + seed)
        loss = np.where(there, 0.05, 0.2)
        runs.append({"id": f"s{seed}", "algorithm": "a", "learning_rate": 0.1, "seed": seed, "steps": 100})
        runs[-1] |= {"final.loss": loss[-1], "diverged": False, "stalled_step": None}
        columns = {"step": 10 * records, "gradients": records, "time": records * 1.0, "loss": loss}
        history.append(pd.DataFrame({"id": f"s{seed}", **columns}))
    chosen = {"name": "loss", "target": 0.1} | metric
    return Results(pd.DataFrame(runs), pd.concat(history), ("algorithm",), chosen, Path("."), "noisy")


def test_a_dip_is_not_reached_unless_the_first_time_is_asked_for() -> None:
    assert scores(noisy())["to_target"].tolist() == [80, 90, 100, 110]
    assert scores(noisy(stays=True))["to_target"].tolist() == [80, 90, 100, 110]
    assert scores(noisy(stays=False))["to_target"].tolist() == [20, 30, 40, 50]
    assert "steps to loss 0.1, to stay" in said(noisy())
    assert "steps to loss 0.1, first time" in said(noisy(stays=False))


@pytest.mark.parametrize(
    ("values", "first", "kept"),
    [
        ([3, 1, 3, 1, 1], 1, 3),
        ([1, 1], 0, 0),
        ([3, 1, 3], 1, None),
        ([3, 1, np.nan], 1, None),  # one that diverges stays nowhere
        ([np.nan, 1], 1, 1),
        ([3, 3], None, None),
        ([], None, None),
    ],
)
def test_reached_for_good_is_the_record_after_the_last_above(
    values: list[float], first: int | None, kept: int | None
) -> None:
    assert place_at(np.array(values, float), 1.0) == first
    assert place_at(np.array(values, float), 1.0, stays=True) == kept
    if kept is not None:
        assert first_at(10 * np.arange(len(values)), np.array(values), 1.0, stays=True) == 10 * kept


def test_what_is_to_be_large_stays_above() -> None:
    found = noisy(goal="maximize", target=0.15)
    assert np.isnan(scores(found)["to_target"]).all()  # the losses end at 0.05
    assert scores(noisy(goal="maximize", target=0.01))["to_target"].tolist() == [0, 0, 0, 0]


def test_quartiles_are_over_the_seeds_at_the_best_rate() -> None:
    (row,) = tuned(noisy()).to_dict("records")
    costs = [80, 90, 100, 110]
    assert [row["low"], row["to_target"], row["high"]] == np.quantile(costs, [0.25, 0.5, 0.75]).tolist()
    assert "87.5 to 102.5" in said(noisy())
    assert "quartiles" not in said(noisy(seeds=1))


def test_a_seed_that_never_stays_makes_the_upper_quartile_infinite() -> None:
    found = noisy(seeds=4)
    lost = found.history["id"].isin(["s2", "s3"]) & (found.history["step"] == 130)
    found.history.loc[lost, "loss"] = 1.0
    (row,) = tuned(found).to_dict("records")
    assert (row["low"], row["to_target"], row["high"]) == (87.5, np.inf, np.inf)


def test_records_that_lie_far_apart_are_told() -> None:
    assert tuned(noisy())["spacing"].tolist() == [10]
    assert "records apart" in said(noisy())  # 10 of 95
    assert "records apart" not in said(noisy(late=18))  # 10 of 195
    assert "records" not in said(noisy(target=0.5))  # reached at the start


def test_stays_is_a_key_of_a_sweeps_metric() -> None:
    content = {"parameters": grid({"algorithm": "gossip_sgd", "workers": 4, "learning_rate": 0.1, "steps": 10})}
    kept = parse({**content, "metric": {"name": "loss", "target": 1, "stays": False}}).metric
    assert kept["stays"] is False
    with pytest.raises(InputError, match=r"sweep\.metric\.stays: must be true or false, got 1"):
        parse({**content, "metric": {"stays": 1}})
