"""What do connectivity and delay cost? Steps to a target loss over spectral gap and neighbour delay, on real data.

Ours: the question of the field that no paper draws. Softmax regression on handwritten digits, split by label over 16
workers; decentralized SGD whose neighbours' models arrive late; learning rate tuned in each cell.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from dopt import Results
from dopt.figures import Claim, over
from dopt.plot import strokes
from dopt.plot.sheet import Picture, blank
from dopt.sweeps.cells import tuned

SWEEPS = {"main": "benchmarks/connectivity_delay.yaml"}
EXTEND = ("main",)


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """One row per cell: topology, spectral gap, delay, best rate, steps to target, and whether the rate is at the edge."""
    gaps = results["main"].runs.groupby("topology")["spectral_gap"].first()
    cells = tuned(results["main"])
    cells["spectral_gap"] = cells["topology"].map(gaps)
    # torus and exponential graph have the same gap, up to last bits that differ between machines
    order = (
        cells.assign(gap=cells["spectral_gap"].round(9)).sort_values(["gap", "topology", "delay"], kind="stable").index
    )
    return cells.loc[order].reset_index(drop=True)


def draw(results: Mapping[str, Results]) -> Picture:
    """Heatmap: graphs by spectral gap against delay; each cell says its steps and best rate."""
    cells = table(results)
    graphs = cells.drop_duplicates("topology")[["topology", "spectral_gap"]]
    steps = cells.pivot(index="topology", columns="delay", values="to_target").loc[graphs["topology"]]
    rates = cells.pivot(index="topology", columns="delay", values="learning_rate").loc[graphs["topology"]]
    edges = cells.pivot(index="topology", columns="delay", values="edge").loc[graphs["topology"]]
    values, texts = steps.to_numpy(float), np.full(steps.shape, "", object)
    for (i, j), value in np.ndenumerate(values):
        said = f"{value:.0f}" if np.isfinite(value) else "not\nreached"
        texts[i, j] = f"{said}\nrate {rates.iloc[i, j]:g}{'*' if edges.iloc[i, j] else ''}"

    figure = blank("text", 3.0)
    axes = figure.subplots()
    image = strokes.grid(axes, values, texts, size=6.5)
    axes.set_xticks(range(len(steps.columns)), [str(delay) for delay in steps.columns])
    axes.set_yticks(range(len(graphs)), [f"{name}\ngap {gap:.2f}" for name, gap in graphs.itertuples(index=False)])
    axes.set_xlabel("age of the neighbours' models (steps, constant)")
    main = results["main"]
    name, target = main.metric.get("name", "loss"), main.metric.get("target")
    strokes.scale(figure, image, f"steps to {name} {target}")
    one = main.runs.iloc[0]
    seeds = main.runs["seed"].nunique()
    title = f"{one['workers']} workers, {one['problem']} on {one['data']}, {one['partition']}; median of {seeds} seeds"
    if edges.to_numpy().any():
        title += "\n* best learning rate at the edge of its grid"
    axes.set_title(title, loc="left")
    return figure


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """What the picture must show, whatever the machine."""
    cells = table(results)
    steps = cells.pivot(index="topology", columns="delay", values="to_target")
    none, most = steps.columns.min(), steps.columns.max()
    found = [
        Claim(
            "without delay: steps on the complete graph, over the fewest on any",
            1,
            over(steps.loc["complete", none], steps[none].min()),
        ),
        Claim(
            "without delay: steps on the ring, over those on the complete graph",
            2,
            over(steps.loc["ring", none], steps.loc["complete", none]),
            ">=",
            absolute=0.5,
            null=1,
        ),
    ]
    for name in steps.index:
        cost = over(steps.loc[name, most], steps.loc[name, none])
        found.append(
            Claim(f"{name}: steps with a delay of {most}, over steps without", 2, cost, ">=", never=True, null=1)
        )
    return found
