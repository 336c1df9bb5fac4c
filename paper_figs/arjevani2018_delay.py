"""Arjevani 2018 (1806.10188), Stich-Karimireddy 2019 (1909.05350): what does a delay cost, without and with noise?

Gradient descent whose gradients are τ steps old, on a quadratic of 100 coordinates with curvatures from 0.01 to L = 1.
Left: the largest rate that is still stable lies within 1 % of 2 sin(π/(2(2τ+1)))/L for every delay tried. Middle:
without noise the steps to f - f* ≤ 0.001, at the rate of the fastest contraction, grow in proportion to the delay (40
at τ = 0, 6700 at τ = 100). With noise and the rate tuned for each delay, they do not grow up to τ = 5 and only double
up to τ = 100, since the noise needs a small rate anyway. Right: at a fixed rate what counts is ατL, and up to 0.3 a
delay costs less than 10 %.

Differs: both papers prove bounds and draw no such picture, so all sizes are ours. Curvatures are log-spaced, x⁰ is at
distance 1 from x*, noise is Gaussian with E‖ξ‖² = 0.1, independent per coordinate. The rate of the noiseless curve is
not tuned but the theory's, τ^τ/((τ+1)^(τ+1) L).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from dopt import Results, theory
from dopt.figures import Claim, over
from dopt.plot import seeds, strokes
from dopt.plot.sheet import Picture, blank
from dopt.plot.style import COLOURS, look, shade
from dopt.sweeps.cells import best, scores

DELAYS = [0, 1, 2, 5, 10, 20, 50, 100]
LONG = 5  # delays from which on the steps are said to be linear
FACTORS = [0.98, 0.99, 1.01, 1.02]  # of the stability limit
LIMITS = {delay: theory.stability_limit(1.0, delay) for delay in DELAYS}
BEST = {delay: theory.delayed_best_step(delay) for delay in DELAYS}
FLAT, SAME = 0.1, 1.1  # ατL up to which a delay is said to cost nothing, and how many times as many steps are nothing

COMMON = {
    "algorithm": {"value": "delayed_sgd"},
    "workers": {"value": 1},
    "problem": {"value": "quadratic"},
    "problem.dim": {"value": 100},
    "problem.mu": {"value": 0.01},
    "delay": {"values": DELAYS},
    "delay.max": {"value": max(DELAYS)},
    "metrics": {"value": ["suboptimality"]},
}
METRIC = {"name": "suboptimality", "goal": "minimize", "target": 1e-3}
SWEEPS = {
    "limit": {  # at 1.01 of the limit of τ = 100 the loss grows by e in 7000 steps
        "metric": {"name": "suboptimality", "goal": "minimize"},
        "parameters": {
            **COMMON,
            "learning_rate": {"values": [factor * limit for limit in LIMITS.values() for factor in FACTORS]},
            "steps": {"value": 40_000},
            "record_every": {"value": 400},
        },
    },
    "calm": {
        "metric": METRIC,
        "parameters": {
            **COMMON,
            "learning_rate": {"values": list(BEST.values())},
            "steps": {"value": 10_000},
            "record_every": {"value": 20},
        },
    },
    "noise": {
        "metric": METRIC,
        "parameters": {
            **COMMON,
            "problem.noise": {"value": 0.1},
            "learning_rate": {"values": [0.005, 0.007, 0.01, 0.014, 0.02, 0.028, 0.04, 0.056]},
            "seed": {"values": list(range(10))},
            "steps": {"value": 7000},
            "record_every": {"value": 10},
        },
    },
}
EXTEND = ("noise",)


def limits(results: Results) -> pd.DataFrame:
    """For each delay, the middle of the largest rate at which the loss falls and the smallest at which it grows."""
    start, end = (results.history.groupby("id")["suboptimality"].nth(k) for k in (0, -1))
    start, end = (results.history.loc[part.index].set_index("id")["suboptimality"] for part in (start, end))
    grows = ~(end < start)  # what is not finite has grown
    rows = []
    for delay, limit in LIMITS.items():
        near = np.multiply(FACTORS, limit)
        tried = results.runs[(results.runs["delay"] == delay) & results.runs["learning_rate"].isin(near)]
        bad = tried["id"].map(grows)
        below, above = tried[~bad].nlargest(1, "learning_rate"), tried[bad].nsmallest(1, "learning_rate")
        rate = np.nan
        if len(below) and len(above) and below["learning_rate"].iloc[0] < above["learning_rate"].iloc[0]:
            rate = np.sqrt(below["learning_rate"].iloc[0] * above["learning_rate"].iloc[0])
        ids = " ".join([*below["id"], *above["id"]])
        rows.append({"kind": "largest stable rate", "delay": delay, "learning_rate": rate, "n": len(tried), "ids": ids})
    return pd.DataFrame(rows)


def steps(runs: pd.DataFrame) -> pd.DataFrame:
    """Steps to the target over the seeds, for each delay and rate."""
    return seeds.quartiles(runs, ["delay", "learning_rate"], "to_target")


def fixed(results: Results) -> pd.DataFrame:
    """At each rate up to the one that is best without delay: steps over those without delay, against ατL."""
    runs = scores(results)
    undelayed = best(results, ["delay"]).query("delay == 0")["learning_rate"].iloc[0]
    rows = steps(runs[runs["learning_rate"] <= undelayed])
    alone = rows[rows["delay"] == 0].set_index("learning_rate")["median"]
    for name in ("median", "low", "high"):
        rows[name] /= rows["learning_rate"].map(alone)
    rows["product"] = rows["learning_rate"] * rows["delay"]
    return rows[rows["delay"] > 0]


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """Rows of all panels; `kind` says which curve, `median`, `low`, `high` are steps, or ratios of steps at a fixed rate."""
    calm = scores(results["calm"])
    own = np.isclose(calm["learning_rate"], calm["delay"].map(BEST), rtol=1e-9)
    tuned = best(results["noise"], ["delay"])
    edges = tuned.groupby("delay")["edge"].first()
    theories = [{"kind": "theory", "delay": d, "learning_rate": rate, "ids": ""} for d, rate in LIMITS.items()]
    return pd.concat(
        [
            pd.DataFrame(theories),
            limits(results["limit"]),
            steps(calm[own]).assign(kind="without noise"),
            steps(tuned).assign(kind="with noise, tuned").assign(edge=lambda rows: rows["delay"].map(edges)),
            fixed(results["noise"]).assign(kind="with noise, fixed rate, over no delay"),
        ],
        ignore_index=True,
    )


def draw(results: Mapping[str, Results]) -> Picture:
    """Stability limit; steps to the target against the delay; steps at a fixed rate against ατL."""
    rows = dict(tuple(table(results).groupby("kind", sort=False)))
    figure = blank("page", 2.5)
    left, middle, right = figure.subplots(1, 3)

    for name, style in (("theory", {"color": "0.5", "linestyle": "-"}), ("largest stable rate", {"color": "black"})):
        part = rows[name]
        mark = {} if name == "theory" else {"marker": "o", "linestyle": "none", "markersize": 3.5}
        label = "$2\\,\\sin(\\pi/(2(2\\tau+1)))$" if name == "theory" else "measured, ±1 %"
        strokes.path(left, part["delay"], part["learning_rate"], label=label, **style, **mark)
    left.set_yscale("log")
    left.set_ylabel("largest stable rate, $\\alpha L$")
    left.set_title("stability", loc="left")

    method, seeds = look("delayed_sgd"), results["noise"].runs["seed"].nunique()
    calm, noisy = rows["without noise"], rows["with noise, tuned"]
    strokes.line(middle, "delay", calm, method | {"marker": "o", "markersize": 3}, "no noise, $\\alpha$ of theory")
    strokes.line(
        middle,
        "delay",
        noisy,
        {"color": COLOURS[0], "linestyle": "-", "marker": "s", "markersize": 3},
        f"noise, $\\alpha$ tuned (n = {seeds})",
    )
    long = calm[calm["delay"] >= LONG]
    strokes.path(middle, long["delay"], 1.9 * long["median"].iloc[0] * long["delay"] / LONG, color="0.5", linewidth=0.8)
    strokes.note(middle, 20, 3400, "slope 1", color="0.4", ha="right")
    middle.set_yscale("log")
    middle.set_ylim(25, 40_000)
    middle.set_ylabel("steps to $f - f^* \\leq 10^{-3}$")
    starred = "" if not noisy["edge"].astype(bool).any() else " (* edge of grid)"
    middle.set_title("cost of a delay" + starred, loc="left")
    for axes in (left, middle):
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(-0.2, 150)
        axes.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        axes.set_xlabel("constant delay $\\tau$ (steps)")

    rates = sorted(rows["with noise, fixed rate, over no delay"]["learning_rate"].unique())
    for i, rate in enumerate(rates):
        part = rows["with noise, fixed rate, over no delay"].query("learning_rate == @rate")
        mark = {"marker": "osv^Dx"[i % 6], "markersize": 3}
        strokes.line(right, "product", part, shade(i / (len(rates) - 1)) | mark, f"$\\alpha$ = {rate:g}")
    strokes.mark(right, FLAT, color="0.5", linestyle=":", linewidth=1.5)
    strokes.mark(right, np.pi / 2, color="0.5", linestyle="--", linewidth=1.5)
    strokes.note(right, np.pi / 2 * 0.9, 2.75, "unstable", rotation=90, ha="right", va="top", color="0.4")
    right.set_xscale("log")
    right.set_ylim(0.85, 2.8)
    right.set_xlabel("$\\alpha\\tau L$")
    right.set_ylabel("steps, over those at $\\tau = 0$")
    right.set_title("noise, fixed rate", loc="left")
    for axes in (left, middle, right):
        strokes.key(axes, frameon=False, fontsize=6, loc="upper left" if axes is not left else "lower left")
    figure.suptitle(
        "Delayed SGD, quadratic, d = 100, κ = 100, noise E‖ξ‖² = 0.1 or none; median and quartiles of "
        f"{seeds} seeds; a cross ends what does not arrive",
        fontsize=7,
        x=0.01,
        ha="left",
    )
    return figure


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """What the papers prove."""
    measured = limits(results["limit"])
    off = measured["learning_rate"] / measured["delay"].map(LIMITS)
    farthest = off.loc[(off - 1).abs().idxmax()] if off.notna().all() else np.nan
    rows = table(results)
    long = rows[(rows["kind"] == "without noise") & (rows["delay"] >= LONG)]
    slope = np.polyfit(np.log(long["delay"]), np.log(long["median"]), 1)[0]
    noisy = fixed(results["noise"])
    flat = noisy[noisy["product"] <= FLAT * (1 + 1e-9)]["median"]
    dear = noisy[~(noisy["median"] <= SAME)]["product"]
    tuned = rows[rows["kind"] == "with noise, tuned"].set_index("delay")
    return [
        Claim("stability limit over 2 sin(π/(2(2τ+1)))/L, the farthest from 1 over τ", 1, farthest, tolerance=0.01),
        Claim(f"no noise: log-log slope of the steps over τ ≥ {LONG}", 1, slope, absolute=0.1),
        Claim(
            f"noise, fixed α: steps over those at τ = 0, the farthest from 1 where ατL ≤ {FLAT}",
            1,
            flat.iloc[(flat - 1).abs().argmax()],
            tolerance=SAME - 1,
        ),
        Claim(
            f"noise, fixed α: smallest ατL at which a delay costs over {SAME - 1:.0%} of the steps",
            FLAT,
            dear.min(),
            ">=",
        ),
        Claim(
            "noise, α tuned: steps at the largest τ with ατL ≤ 0.1, over those at τ = 0",
            1,
            over(tuned[tuned.index * tuned["learning_rate"] <= FLAT]["median"].iloc[-1], tuned["median"].loc[0]),
            tolerance=SAME - 1,
        ),
        Claim("noise, α tuned: cells whose best rate is at the edge of its grid", 0, int(tuned["edge"].sum())),
    ]
