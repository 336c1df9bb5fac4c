"""Mitliagkas 2016 (1605.09774): asynchrony begets momentum. How much of it do n workers beget, and how much is left to add?

Left: asynchronous gradient descent on x²/2 with n workers of iid exponential times. The mean of xᵏ over schedules is heavy
ball of momentum 1 - 1/n and rate α/n after a first plain step (black), within the standard error of the mean. Middle: the
momentum of the heavy ball that fits the measured mean best misses 1 - 1/n by at most 0.006. Right: what explicit momentum
reaches a target soonest, the rate tuned for each? 0.6 with one worker, 0 with four, -0.3 with sixteen, where the valley is flat.

Differs: the paper also trains networks on real clusters; this is its model only, on quadratics, without gradient noise. The mean
can only be seen in one coordinate with its sign: the engine records f - f* = s²/2 of each run, and s gets its sign from a replay
of that run's schedule on the host. The tuned panel has 20 coordinates, κ = 100, and shows medians, not means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.optimize import least_squares

from dopt import Results, cluster, schedule, theory
from dopt.report import curves
from dopt.report.cells import best
from dopt.report.figures import Claim
from dopt.report.style import WIDTHS, shade

SEEDS = {
    1: 10,
    2: 400,
    4: 400,
    8: 200,
    16: 200,
    32: 200,
}  # of each n; few workers leave most to the luck of the schedule
PULL = 0.8  # αn: the mean swings once and settles
TURNS = 12  # updates of each worker, in the mean
MOMENTA = [-0.6, -0.3, 0.0, 0.3, 0.6, 0.9]
STEPS = {1: 300, 2: 300, 4: 400, 8: 600, 16: 1000}
POINTS = 40  # drawn of each curve
COMMON = {
    "algorithm": {"value": "async_sgd"},
    "cluster": {"value": "exponential"},
    "problem": {"value": "quadratic"},
    "problem.heterogeneity": {"value": 0.0},
    "metrics": {"value": ["suboptimality"]},
}
METRIC = {"name": "suboptimality", "goal": "minimize"}


def _mean(n: int) -> dict[str, Any]:
    own = {"workers": n, "problem.dim": 1, "problem.mu": 1.0, "learning_rate": PULL / n, "steps": TURNS * n}
    fixed = {name: {"value": value} for name, value in {**own, "record_every": 1}.items()}
    return {"metric": METRIC, "parameters": {**COMMON, **fixed, "seed": {"values": list(range(SEEDS[n]))}}}


def _tuned(n: int) -> dict[str, Any]:
    rates = theory.memoryless_mean_square_limit(n) * np.geomspace(0.25, 1.9, 14)
    own = {"workers": n, "problem.mu": 0.01, "steps": STEPS[n], "record_every": 1 if n < 4 else 4}
    fixed = {name: {"value": value} for name, value in own.items()}
    varied = {"optimizer.momentum": MOMENTA, "learning_rate": [float(rate) for rate in rates], "seed": list(range(20))}
    values = {name: {"values": list(x)} for name, x in varied.items()}
    return {"metric": METRIC | {"target": 1e-6}, "parameters": {**COMMON, **fixed, **values}}


SWEEPS = {f"mean{n}": _mean(n) for n in SEEDS} | {f"tuned{n}": _tuned(n) for n in STEPS}


@lru_cache(maxsize=16)
def _signs(workers: int, rate: float, steps: int, seeds: tuple[int, ...]) -> np.ndarray:
    """[seeds, steps + 1]: the sign of x of each run after each step, from its schedule."""
    lines = [schedule.always_busy(cluster.make("exponential", workers, seed), steps=steps) for seed in seeds]
    read = np.stack([line.read_version[line.applied] for line in lines])
    x, each = np.ones((len(seeds), steps + 1)), np.arange(len(seeds))
    for k in range(steps):
        x[:, k + 1] = x[:, k] - rate * x[each, read[:, k]]
    return np.sign(x)


def trajectories(results: Results) -> tuple[np.ndarray, list[str]]:
    """([runs, steps + 1] (xᵏ - x*)/(x⁰ - x*), the runs' ids)."""
    runs = results.runs
    one = runs.iloc[0]
    values = results.history.pivot(index="id", columns="step", values="suboptimality").loc[runs["id"]].to_numpy()
    signs = _signs(int(one["workers"]), float(one["learning_rate"]), values.shape[1] - 1, tuple(runs["seed"]))
    return signs * np.sqrt(np.maximum(2 * values, 0)), list(runs["id"])


def heavy_ball(momentum: float, rate: float, first: float, length: int) -> np.ndarray:
    """[length] of x⁺ = x + momentum (x - x⁻) - rate x from 1, after a first step to 1 - first."""
    x = np.ones(length)
    x[1] = 1 - first
    for k in range(1, length - 1):
        x[k + 1] = x[k] + momentum * (x[k] - x[k - 1]) - rate * x[k]
    return x


def means(results: Mapping[str, Results]) -> pd.DataFrame:
    """Per n and step: the mean over schedules, its standard error, and the theory's."""
    parts = []
    for n in SEEDS:
        x, ids = trajectories(results[f"mean{n}"])
        parts.append(
            pd.DataFrame(
                {
                    "workers": n,
                    "step": np.arange(x.shape[1]),
                    "mean": x.mean(0),
                    "error": x.std(0, ddof=1) / np.sqrt(len(x)) if len(x) > 1 else 0.0,
                    "theory": theory.memoryless_mean(n, PULL / n, x.shape[1])[:, 0],
                    "n": len(x),
                    "ids": " ".join(ids),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def fits(rows: pd.DataFrame) -> pd.DataFrame:
    """Per n: momentum and rate (over α/n) of the heavy ball nearest to the measured mean."""
    found = []
    for n, own in rows.groupby("workers"):
        x, alpha = own["mean"].to_numpy(), PULL / n

        def miss(p: np.ndarray, x: np.ndarray = x, alpha: float = alpha, n: int = n) -> np.ndarray:
            return heavy_ball(p[0], p[1] * alpha / n, alpha, len(x)) - x

        momentum, rate = least_squares(miss, [0.5, 1.0]).x
        found.append(
            {"workers": n, "momentum": momentum, "rate": rate, "n": own["n"].iloc[0], "ids": own["ids"].iloc[0]}
        )
    return pd.DataFrame(found)


def tuned(results: Mapping[str, Results]) -> pd.DataFrame:
    """Per n and explicit momentum: steps to the target at the best rate, over the seeds."""
    parts = []
    for n in STEPS:
        runs = best(results[f"tuned{n}"], ["optimizer.momentum"])
        keys = ["optimizer.momentum", "learning_rate", "edge"]
        parts.append(curves.quartiles(runs, keys, "to_target").assign(workers=n))
    return pd.concat(parts, ignore_index=True).rename(columns={"optimizer.momentum": "momentum"})


def valleys(rows: pd.DataFrame) -> pd.DataFrame:
    """The best explicit momentum of each n."""
    return rows.loc[rows.groupby("workers")["median"].idxmin()].set_index("workers")


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """Rows of all panels: thinned means (their runs are named in the fit's row), fits, steps at the best rates."""
    rows = means(results)
    shown = [own[own["step"] % max(1, TURNS * n // POINTS) == 0] for n, own in rows.groupby("workers")]
    thin = pd.concat(shown).assign(kind="mean over schedules")
    # a mean's runs are many: name the first of them, all of them stand in the row of its fit
    thin["ids"] = thin["ids"].str.split().str[0] + " ..."
    return pd.concat(
        [thin, fits(rows).assign(kind="fitted heavy ball"), tuned(results).assign(kind="tuned steps")],
        ignore_index=True,
    )


def draw(results: Mapping[str, Results]) -> Figure:
    """Means over schedules and theory; fitted momentum; steps against explicit momentum."""
    rows = table(results)
    parts = dict(tuple(rows.groupby("kind", sort=False)))
    figure = Figure(figsize=(WIDTHS["page"], 2.5))
    left, middle, right = figure.subplots(1, 3)
    shades = {n: shade(math.log2(n) / 5) for n in SEEDS}

    for n, own in parts["mean over schedules"].groupby("workers"):
        at = own["step"] / n
        left.plot(at, own["mean"], label=f"{n}", linewidth=2.2, alpha=0.75, **shades[n])
        left.fill_between(
            at, own["mean"] - own["error"], own["mean"] + own["error"], linewidth=0, alpha=0.3, **_fill(n)
        )
        left.plot(at, own["theory"], color="black", linewidth=0.7, linestyle="--")
    left.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    left.set_xlabel("updates / n (exponential times)")
    left.set_ylabel("mean of $(x^k - x^*)/(x^0 - x^*)$")
    left.legend(title="workers n", ncols=2, frameon=False, fontsize=6, title_fontsize=6)
    left.set_title("mean over 200-400 schedules", loc="left")
    left.text(4.5, 0.45, "dashed: heavy ball,\n$1-1/n$, $\\alpha/n$", fontsize=6)

    found = parts["fitted heavy ball"]
    n = np.geomspace(1, 32, 60)
    middle.plot(n, 1 - 1 / n, color="black", linewidth=0.7, linestyle="--", label="$1 - 1/n$")
    for own in found.itertuples():
        middle.plot(own.workers, own.momentum, marker="o", markersize=4, **shades[own.workers])
    middle.set_xscale("log", base=2)
    middle.set_xticks(list(SEEDS), list(map(str, SEEDS)))
    middle.set_xlabel("workers n")
    middle.set_ylabel("momentum of the best fit")
    middle.legend(frameon=False)
    middle.set_title("implicit momentum", loc="left")

    steps = parts["tuned steps"]
    for i, (n, own) in enumerate(steps.groupby("workers")):
        mark = {"marker": "osv^D"[i % 5], "markersize": 3}
        curves.line(right, "momentum", own, shades[n] | mark, f"{n}")
        top = own.loc[own["median"].idxmin()]
        ring = {"marker": "o", "markersize": 8, "markerfacecolor": "none", "color": "black", "linestyle": "none"}
        right.plot(top["momentum"], top["median"], **ring)
        if top["edge"]:
            right.text(top["momentum"], top["median"] * 0.8, "* rate at edge", fontsize=6)
    right.set_yscale("log")
    right.set_xlabel("explicit momentum (circle: best)")
    right.set_ylabel("updates to $f - f^* \\leq 10^{-6}$")
    count = results["tuned4"].runs["seed"].nunique()
    right.set_title(f"rate tuned, median of {count} seeds", loc="left")
    return figure


def _fill(n: int) -> dict[str, Any]:
    return {"color": shade(math.log2(n) / 5)["color"]}


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """What the paper derives, and what it finds for explicit momentum."""
    rows = means(results)
    # errors of the metric itself, a difference of float32 numbers near 1/2, stay below 0.001
    off = (rows["mean"] - rows["theory"]).abs() / (rows["error"] + 1e-3)
    found = [
        Claim(
            "mean over schedules against heavy ball: largest distance over n and k, in standard errors",
            4,
            off.max(),
            "<=",
        )
    ]
    fitted = fits(rows).set_index("workers")
    for n, own in fitted.iterrows():
        found.append(
            Claim(f"momentum of the fit, n = {n}", theory.memoryless_momentum(n), own["momentum"], absolute=0.01)
        )
    rate = fitted["rate"].loc[(fitted["rate"] - 1).abs().idxmax()]
    found.append(Claim("rate of the fit over α/n, the farthest from 1 over n", 1, rate, tolerance=0.05))
    first = np.concatenate([trajectories(results[f"mean{n}"])[0][:, 1] / (1 - PULL / n) for n in SEEDS])
    farthest = first[np.abs(first - 1).argmax()]
    found.append(Claim("x¹ over x⁰ - α∇f(x⁰), the farthest from 1 over n and schedules", 1, farthest, tolerance=1e-4))
    top = valleys(tuned(results))
    rise = np.diff(top["momentum"]).max()
    few, many = min(STEPS), max(STEPS)
    return [
        *found,
        Claim("best explicit momentum: largest rise from one n to the next", 0, rise, "<="),
        Claim(f"best explicit momentum, n = {few}", "positive", _sign(top["momentum"][few])),
        Claim(f"best explicit momentum, n = {many}", "negative", _sign(top["momentum"][many])),
        Claim("best explicit momenta whose rate, or they themselves, are at the edge of the grid", 0, _edges(top)),
    ]


def _sign(x: float) -> str:
    return "negative" if x < 0 else "positive" if x > 0 else "zero"


def _edges(top: pd.DataFrame) -> int:
    return int((top["edge"].astype(bool) | top["momentum"].isin([MOMENTA[0], MOMENTA[-1]])).sum())
