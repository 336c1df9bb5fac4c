"""Mitliagkas 2016 (1605.09774): asynchrony begets momentum. How much do n workers beget, and what is left to add?

Left: asynchronous gradient descent on x²/2 with n workers of iid exponential times. The mean of xᵏ over schedules is
heavy ball of momentum 1 - 1/n and rate α/n after a first plain step (dashed), within 2.6 standard errors of the mean.
Right: steps to a target against explicit momentum, the rate tuned for each. Middle: the momentum of the heavy ball that
fits the mean best is 1 - 1/n within 0.002; the best explicit momentum falls from 0.6 for one worker to -0.24 for
sixteen. It falls in theory, too, where the rate and the momentum are tuned for the second moments over schedules. But a
negative momentum gains little: 1.5 % in theory for 16 workers.

Differs: the paper also trains networks on real clusters; this is its model only, on quadratics, without gradient noise.
The mean can only be seen in one coordinate with its sign: the engine records f - f* = s²/2 of each run, and s gets its
sign from a replay of that run's schedule on the host. One worker is left out of the fits, since a whole family of heavy
balls follows its geometric xᵏ. The tuned panels have 20 coordinates, κ = 100, and medians, not means; the valleys are
flat, so that the best momentum of n > 1 is the lowest point of a parabola through the logarithms of the steps from -0.6
to 0.6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import least_squares, minimize_scalar

from dopt import Results, cluster, schedule, theory
from dopt.figures import Claim
from dopt.plot import seeds, strokes
from dopt.plot.sheet import Picture, blank
from dopt.plot.style import COLOURS, shade
from dopt.sweeps.cells import best
from dopt.sweeps.spec import grid

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
INNER = 0.6  # momenta up to which a valley is a parabola
CONDITION = 100
STEPS = {1: 300, 2: 300, 4: 400, 8: 600, 16: 800}
LUCK = {1: 1, 2: 10, 4: 10, 8: 30, 16: 40}  # seeds of the tuned runs: one worker has no luck, many have flat valleys
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
    swept = {"seed": range(SEEDS[n])}
    return {"metric": METRIC, "parameters": COMMON | grid({**own, "record_every": 1}, swept)}


def _tuned(n: int) -> dict[str, Any]:
    rates = theory.memoryless_mean_square_limit(n) * np.geomspace(0.25, 1.9, 11)
    own = {"workers": n, "problem.mu": 1 / CONDITION, "steps": STEPS[n], "record_every": 1 if n < 4 else 4}
    swept = {
        "optimizer.momentum": MOMENTA,
        "learning_rate": [float(rate) for rate in rates],
        "seed": list(range(LUCK[n])),
    }
    return {"metric": METRIC | {"target": 1e-6}, "parameters": COMMON | grid(own, swept)}


SWEEPS = {f"mean{n}": _mean(n) for n in SEEDS} | {f"tuned{n}": _tuned(n) for n in STEPS}
EXTEND = tuple(f"tuned{n}" for n in STEPS)


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
    for n, own in rows[rows["workers"] > 1].groupby("workers"):
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
        parts.append(seeds.quartiles(runs, keys, "to_target").assign(workers=n))
    return pd.concat(parts, ignore_index=True).rename(columns={"optimizer.momentum": "momentum"})


def valleys(rows: pd.DataFrame) -> pd.DataFrame:
    """The best explicit momentum of each n: the lowest point of a parabola, or of the grid where that is no valley."""
    found = []
    for n, own in rows.groupby("workers"):
        lowest = own.loc[own["median"].idxmin()]
        top = lowest["momentum"]
        inner = own[(own["momentum"].abs() <= INNER) & np.isfinite(own["median"])]
        square, slope, _ = np.polyfit(inner["momentum"], np.log(inner["median"]), 2)
        if square > 0 and abs(slope / (2 * square)) < INNER:
            top = -slope / (2 * square)
        grid = [MOMENTA[0], MOMENTA[-1]]
        edge = bool(lowest["edge"]) or lowest["momentum"] in grid
        found.append({"workers": n, "momentum": top, "edge": edge, "n": own["n"].max(), "ids": lowest["ids"]})
    return pd.DataFrame(found)


@cache
def best_in_theory(workers: int) -> float:
    """The explicit momentum whose second moments shrink fastest at the slowest curvature, at the best rate for it."""
    curvatures = np.geomspace(1 / CONDITION, 1, 5)

    def radius(rate: float, momentum: float) -> float:
        each = [theory.memoryless_momentum_moments(workers, np.exp(rate) * c, momentum) for c in curvatures]
        return float(np.abs(np.linalg.eigvals(each)).max())

    middle = np.log(theory.memoryless_mean_square_limit(workers))
    momenta = np.linspace(-0.9, 0.9, 25)
    options = {"bounds": (middle - 2.5, middle + 0.7), "method": "bounded", "options": {"xatol": 1e-3}}
    return float(momenta[np.argmin([minimize_scalar(radius, args=(b,), **options).fun for b in momenta])])


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """Rows of all panels: thinned means (their runs are named in the fit's row), fits, steps at the best rates."""
    rows = means(results)
    shown = [own[own["step"] % max(1, TURNS * n // POINTS) == 0] for n, own in rows.groupby("workers")]
    thin = pd.concat(shown).assign(kind="mean over schedules")
    # a mean's runs are many: name the one of seed 0, the others differ in their seed only
    thin["ids"] = thin["ids"].str.split().str[0]
    steps = tuned(results)
    tops = valleys(steps).assign(kind="best explicit momentum")
    expected = {"kind": "theory: best explicit momentum", "workers": list(SEEDS), "ids": ""}
    expected["momentum"] = [best_in_theory(n) for n in SEEDS]
    fitted = fits(rows).assign(kind="fitted heavy ball")
    parts = [thin, fitted, steps.assign(kind="tuned steps"), tops, pd.DataFrame(expected)]
    return pd.concat(parts, ignore_index=True)


def draw(results: Mapping[str, Results]) -> Picture:
    """Means over schedules and theory; fitted momentum; steps against explicit momentum."""
    rows = table(results)
    parts = dict(tuple(rows.groupby("kind", sort=False)))
    figure = blank("page", 2.5)
    left, middle, right = figure.subplots(1, 3)
    shades = {n: shade(math.log2(n) / 5) for n in SEEDS}

    for n, own in parts["mean over schedules"].groupby("workers"):
        at = own["step"] / n
        strokes.path(left, at, own["mean"], label=f"{n}", linewidth=2.2, alpha=0.75, **shades[n])
        strokes.band(
            left, at, own["mean"] - own["error"], own["mean"] + own["error"], linewidth=0, alpha=0.3, **_fill(n)
        )
        strokes.path(left, at, own["theory"], color="black", linewidth=0.7, linestyle="--")
    strokes.level(left, 0, color="0.8", zorder=0)
    left.set_xlabel("updates / n (exponential times)")
    left.set_ylabel("mean of $(x^k - x^*)/(x^0 - x^*)$")
    strokes.key(left, title="workers n", ncols=2, frameon=False, fontsize=6, title_fontsize=6)
    counts = [results[f"mean{n}"].runs["seed"].nunique() for n in (32, 2)]
    left.set_title(f"mean of {counts[0]}-{counts[1]} schedules", loc="left")
    strokes.note(left, 4.5, 0.45, "dashed: heavy ball,\n$1-1/n$, $\\alpha/n$", fontsize=6)

    found = parts["fitted heavy ball"]
    n = np.geomspace(1, 32, 60)
    strokes.path(middle, n, 1 - 1 / n, color="black", linewidth=0.7, linestyle="--", label="$1 - 1/n$")
    strokes.path(
        middle,
        found["workers"],
        found["momentum"],
        color=COLOURS[0],
        marker="o",
        markersize=4,
        linestyle="none",
        label="fitted",
    )
    expected, measured = parts["theory: best explicit momentum"], parts["best explicit momentum"]
    strokes.path(
        middle,
        expected["workers"],
        expected["momentum"],
        color="black",
        linewidth=0.7,
        linestyle=":",
        label="theory, 2nd moments",
    )
    square = {"color": COLOURS[1], "marker": "s", "markersize": 4, "linestyle": "none"}
    strokes.path(middle, measured["workers"], measured["momentum"], label="tuned", **square)
    strokes.level(middle, 0, color="0.8", zorder=0)
    middle.set_xscale("log", base=2)
    middle.set_xticks(list(SEEDS), list(map(str, SEEDS)))
    middle.set_xlabel("workers n")
    middle.set_ylabel("momentum")
    middle.set_ylim(-1.5, 1.1)
    strokes.key(middle, frameon=False, fontsize=6, loc="lower left")
    strokes.note(middle, 5, 0.62, "implicit", color=COLOURS[0], fontsize=6)
    strokes.note(middle, 3, 0.14, "best explicit", color=COLOURS[1], fontsize=6)
    middle.set_title("begotten, and left to add", loc="left")

    steps = parts["tuned steps"]
    for i, (n, own) in enumerate(steps.groupby("workers")):
        mark = {"marker": "osv^D"[i % 5], "markersize": 3}
        strokes.line(right, "momentum", own, shades[n] | mark, f"{n}")
        top = own.loc[own["median"].idxmin()]
        if top["edge"]:
            strokes.note(right, top["momentum"], top["median"] * 0.8, "* rate at edge", fontsize=6)
    right.set_yscale("log")
    right.set_xlabel("explicit momentum")
    right.set_ylabel("updates to $f - f^* \\leq 10^{-6}$")
    strokes.note(
        right,
        0.95,
        0.95,
        "colours as left\n×: 0.9 does not\narrive",
        fontsize=6,
        transform=right.transAxes,
        ha="right",
        va="top",
    )
    right.set_ylim(top=1500)
    counts = [results[f"tuned{n}"].runs["seed"].nunique() for n in (2, 16)]
    right.set_title(f"rate tuned; {counts[0]}-{counts[1]} seeds", loc="left")
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
            Claim(
                f"momentum of the fit to the mean, n = {n}",
                theory.memoryless_momentum(n),
                own["momentum"],
                absolute=0.01,
            )
        )
    rate = fitted["rate"].loc[(fitted["rate"] - 1).abs().idxmax()]
    found.append(Claim("rate of the fit over α/n, the farthest from 1 over n", 1, rate, tolerance=0.05))
    first = np.concatenate([trajectories(results[f"mean{n}"])[0][:, 1] / (1 - PULL / n) for n in SEEDS])
    farthest = first[np.abs(first - 1).argmax()]
    found.append(Claim("x¹ over x⁰ - α∇f(x⁰), the farthest from 1 over n and schedules", 1, farthest, tolerance=1e-4))
    top = valleys(tuned(results))
    momenta = top.set_index("workers")["momentum"]
    few, many = min(STEPS), max(STEPS)
    apart = momenta - [best_in_theory(n) for n in momenta.index]
    off_theory = apart.iloc[apart.abs().argmax()]
    return [
        *found,
        Claim("best explicit momentum: largest rise from one n to the next", 0, np.diff(momenta).max(), "<="),
        Claim(f"best explicit momentum, n = {few}", "positive", _sign(momenta[few])),
        Claim(f"best explicit momentum, n = {many}", "negative", _sign(momenta[many])),
        Claim(
            "best explicit momentum minus the best for second moments, the farthest from 0 over n",
            0,
            off_theory,
            absolute=0.15,
        ),
        Claim("best explicit momenta at the edge of their grid, or whose rate is", 0, int(top["edge"].sum())),
    ]


def _sign(x: float) -> str:
    return "negative" if x < 0 else "positive" if x > 0 else "zero"
