"""Tuning, read off a sweep: for each cell of the swept parameters, the best learning rate and what it reaches."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from dopt.metrics import steps_to
from dopt.sweep.results import Results

TUNED = ("learning_rate", "seed")


def scores(results: Results) -> pd.DataFrame:
    """The runs with `steps_to_target` and `final` of the sweep's metric.

    NaN steps: the target is not reached. Where the sweep has no target, or its metric was not recorded, steps are NaN.
    """
    name = results.metric.get("name", "loss")
    target, sign = results.metric.get("target"), -1.0 if results.metric.get("goal") == "maximize" else 1.0
    runs = results.runs.copy()
    runs["final"] = runs.get(f"final.{name}", pd.Series(np.nan, runs.index))
    if target is None or name not in results.history:
        runs["steps_to_target"] = np.nan
        return runs
    reached = {
        run: steps_to(rows["step"].to_numpy(), sign * rows[name].to_numpy(), sign * target)
        for run, rows in results.history.groupby("id", sort=False)
    }
    runs["steps_to_target"] = runs["id"].map(reached)
    return runs


def tuned(results: Results) -> pd.DataFrame:
    """One row per cell: its parameters, the best learning rate and how it does.

    The best rate needs the fewest steps to the target, median over the seeds, where a seed that never gets there
    counts as infinitely many; ties, and sweeps without a target, go by the median final value.

    Returns:
      columns: the cell's parameters; learning_rate; steps_to_target (median over seeds; inf: not reached); final;
      seeds; diverged (runs of the whole cell); edge (the best rate is the smallest or largest of several).
    """
    runs = scores(results)
    cell = [name for name in results.varied if name not in TUNED and name in runs]
    if not cell:
        runs, cell = runs.assign(algorithm=runs["algorithm"]), ["algorithm"]
    worst = -math.inf if results.metric.get("goal") == "maximize" else math.inf
    rows = []
    for values, group in runs.groupby(cell, sort=False, dropna=False):
        rates = (
            group.assign(steps=group["steps_to_target"].fillna(math.inf), final=group["final"].fillna(worst))
            .groupby("learning_rate")
            .agg(steps=("steps", "median"), final=("final", "median"), seeds=("id", "size"))
        )
        order = rates.assign(final=rates["final"] * (-1 if worst < 0 else 1)).sort_values(
            ["steps", "final"], kind="stable"
        )
        best = order.index[0]
        edge = len(rates) > 1 and best in (rates.index.min(), rates.index.max())
        rows.append(
            dict(zip(cell, values, strict=True))
            | {
                "learning_rate": best,
                "steps_to_target": rates.loc[best, "steps"],
                "final": rates.loc[best, "final"],
                "seeds": int(rates.loc[best, "seeds"]),
                "diverged": int(group["diverged"].sum()),
                "edge": edge,
            }
        )
    return pd.DataFrame(rows)
