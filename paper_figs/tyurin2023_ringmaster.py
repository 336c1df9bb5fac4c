"""Tyurin-Richtárik 2023 (2305.12387), Ringmaster 2025 (2501.16168), quadratic: which rule copes with 6174 unequal workers?

Loss against simulated seconds; worker i = 0, 1, ... takes 1 + √i + |N(0, i+1)| seconds for a gradient, so that a few
are fast and most only bring stale ones. Ringmaster is within 1 of the minimum after 32 s, Rennala with B = 6 after 75
s, or 56 s if stale work is stopped. Delay-adaptive SGD at the authors' rate is not there after 400 s (3.1): gradients
of x⁰ keep arriving for 150 s, and the loss swings. Tuned on a finer grid, for the loss after 400 s, it keeps that same
rate, and swings more with a larger one. The smaller B, the faster Rennala is in these 90 s, in which the noise does not
matter yet; with B = 1 (22 s), less than the 2 to 12 that were to be tried, it beats Ringmaster at the papers' rates.
Both make as many updates as a simulation of their rules by itself, and Rennala needs as many as gradient descent, 13.

Differs: rates are the papers' (Ringmaster R = 6, γ = 0.25; Rennala γ = 1), only delay-adaptive SGD is tuned. The
authors' rate for it, 0.00032 = 5⁻⁵, is the edge of their grid 5⁻⁵, 5⁻⁴, ..., 5⁴, and they choose by the end of 2000 s;
here the horizon is 90 s, and 400 s for delay-adaptive SGD. Noise is independent per coordinate; the authors' code adds
one common number to all coordinates, and its picture labels ‖∇f‖² as f - f*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from dopt import Results
from dopt.figures import Claim, over
from dopt.plot import seeds, strokes
from dopt.plot.sheet import Picture, blank
from dopt.plot.style import look
from dopt.sweeps.cells import best, scores, tuned

DRAWS = list(range(10))  # of the cluster
SHORT, LONG = 90.0, 400.0  # seconds
R = 6  # of Ringmaster
FAST, SIMULATED = 400, range(40)  # workers, and draws, of the rules' own simulation
ORIGINAL, NEXT = 0.00032, 0.0016  # 5⁻⁵ and 5⁻⁴, the smallest rates of the authors' grid
COMMON = {
    "workers": {"value": 6174},
    "problem": {"value": "tridiagonal"},
    "problem.dim": {"value": 1729},
    "problem.noise": {"value": 1729 * 0.01**2},
    "cluster": {"value": "half_normal"},
    "cluster.profile": {"value": "jittered_sqrt"},
    "metrics": {"value": ["suboptimality"]},
}
METRIC = {"name": "suboptimality", "goal": "minimize", "target": 1.0}
QUICK = {**COMMON, "seed": {"values": DRAWS}, "seconds": {"value": SHORT}, "record_every": {"value": 1}}
ADAPTIVE = {
    **COMMON,
    "algorithm": {"value": "delay_adaptive_sgd"},
    "seconds": {"value": LONG},
    "record_every": {"value": 50},
}
SWEEPS = {
    "ringmaster": {
        "metric": METRIC,
        "parameters": {
            **QUICK,
            "algorithm": {"value": "ringmaster_sgd"},
            "algorithm.threshold": {"value": R},
            "learning_rate": {"value": 0.25},
        },
    },
    "rennala": {
        "metric": METRIC,
        "parameters": {
            **QUICK,
            "algorithm": {"value": "rennala_sgd"},
            "algorithm.batch": {"values": [1, 2, 4, 6, 12]},
            "algorithm.stop": {"values": [False, True]},
            "learning_rate": {"value": 1.0},
        },
    },
    "adaptive": {
        "metric": METRIC,
        "parameters": {**ADAPTIVE, "learning_rate": {"value": ORIGINAL}, "seed": {"values": DRAWS}},
    },
    "adaptive_tuned": {  # a rate decides by far more than a draw
        "metric": METRIC,
        "parameters": {
            **ADAPTIVE,
            "learning_rate": {"values": [0.00016, 0.00024, ORIGINAL, 0.0004, 0.00064, NEXT]},
            "seed": {"values": DRAWS[:3]},
        },
    },
}
EXTEND = ("adaptive_tuned",)


def sampled(results: Results, runs: pd.DataFrame, end: float) -> pd.DataFrame:
    """Of these runs f - f* at 50 moments until `end`: that of the last record before each."""
    times, parts = np.geomspace(1, end, 50), []
    for run, own in results.history[results.history["id"].isin(runs["id"])].groupby("id", sort=False):
        last = np.searchsorted(own["time"], times, side="right") - 1
        parts.append(pd.DataFrame({"id": run, "time": times, "value": own["suboptimality"].to_numpy()[last]}))
    return seeds.quartiles(pd.concat(parts), ["time"], "value")


def chosen(results: Mapping[str, Results]) -> dict[str, tuple[Results, pd.DataFrame, float]]:
    """Curve -> results, its runs, its horizon."""
    rennala = scores(results["rennala"])
    six = rennala[rennala["algorithm.batch"] == 6]
    found = {"Ringmaster, R = 6, γ = 0.25": (results["ringmaster"], scores(results["ringmaster"]), SHORT)}
    for stop, words in ((True, "stops stale work"), (False, "finishes it")):
        found[f"Rennala, B = 6, γ = 1, {words}"] = (results["rennala"], six[six["algorithm.stop"] == stop], SHORT)
    adaptive, top = scores(results["adaptive"]), best(results["adaptive_tuned"], ["algorithm"])
    rate, star = top["learning_rate"].iloc[0], "*" if top["edge"].any() else ""
    words = f" and tuned{star}" if rate == ORIGINAL else ""
    found[f"delay-adaptive, γ = {ORIGINAL:g} (authors'{words})"] = (results["adaptive"], adaptive, LONG)
    if not words:
        found[f"delay-adaptive, γ = {rate:g} (tuned{star})"] = (results["adaptive_tuned"], top, LONG)
    return found


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """Rows of all panels: curves; seconds to the target for each B; f - f* at the end for each rate of delay-adaptive SGD."""
    found = [
        sampled(part, runs, end).assign(kind="f - f*", case=name) for name, (part, runs, end) in chosen(results).items()
    ]
    rennala = seeds.quartiles(scores(results["rennala"]), ["algorithm.batch", "algorithm.stop"], "to_target")
    rates = seeds.quartiles(scores(results["adaptive_tuned"]), ["learning_rate"], "final")
    ringmaster = seeds.quartiles(scores(results["ringmaster"]), ["algorithm"], "to_target")
    return pd.concat(
        [
            *found,
            ringmaster.assign(kind="seconds to 1", case="Ringmaster"),
            rennala.assign(kind="seconds to 1", case="Rennala"),
            rates.assign(kind="f - f* at the end", case="delay-adaptive"),
        ],
        ignore_index=True,
    )


# -- the same rules, from their papers --


def updates(limit: int, stop: bool, batch: int, seconds: float, seed: int) -> int:
    """How many updates there are until then: one for each `batch` gradients whose staleness is at most `limit`.

    With `stop`, who has become staler begins anew. The slow ones are left out: what they bring is always too stale.
    """
    rng, i = np.random.default_rng(seed), np.arange(FAST)

    def take(who: np.ndarray) -> np.ndarray:
        return 1 + np.sqrt(who) + np.abs(rng.standard_normal(len(who))) * np.sqrt(who + 1)

    ends, version, made, held = take(i), np.zeros(FAST, int), 0, 0
    while ends.min() <= seconds:
        who = int(ends.argmin())
        now = ends[who]
        held += made - version[who] <= limit
        if held == batch:
            made, held = made + 1, 0
        again = np.flatnonzero((made - version > limit) & stop | (i == who))
        version[again], ends[again] = made, now + take(again)
    return made


def paces(results: Mapping[str, Results]) -> dict[str, tuple[float, float]]:
    """Rule -> updates in the horizon, mean over the clusters: of the runs, and of `updates`."""
    ringmaster, rennala = results["ringmaster"].runs, results["rennala"].runs
    rennala = rennala[rennala["algorithm.batch"] == 6]
    cases = {"Ringmaster": (ringmaster, (R - 1, True, 1))}
    for stop, words in ((False, "finishing"), (True, "stopping")):
        own = rennala[rennala["algorithm.stop"].astype(bool) == stop]
        cases[f"Rennala, B = 6, {words} stale work"] = own, (0, stop, 6)
    return {
        name: (float(runs["final.step"].mean()), float(np.mean([updates(*rule, SHORT, seed) for seed in SIMULATED])))
        for name, (runs, rule) in cases.items()
    }


def descent() -> int:
    """Steps of gradient descent at Rennala's rate, 1, until f - f* ≤ 1, without noise."""
    dim = COMMON["problem.dim"]["value"]
    away = 1 - np.arange(1, dim + 1) / (dim + 1)  # x⁰ - x*
    away[0] += np.sqrt(dim)
    for step in range(dim):
        ends = np.pad(away, 1)
        if np.sum(np.diff(ends) ** 2) / 8 <= METRIC["target"]:
            return step
        away -= (2 * away - ends[:-2] - ends[2:]) / 4
    return dim


def draw(results: Mapping[str, Results]) -> Picture:
    """Loss against seconds; what B costs; what the rate costs."""
    rows = table(results)
    figure = blank("page", 3.0)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.5, 1.1, 1])
    rennala, adaptive = look("rennala_sgd"), look("delay_adaptive_sgd")
    curve = rows[rows["kind"] == "f - f*"]
    names = list(curve["case"].unique())
    looks = [look("ringmaster_sgd"), {**rennala, "linestyle": "-"}, rennala, adaptive, {**adaptive, "linestyle": ":"}]
    for name, style in zip(names, looks, strict=False):
        strokes.line(left, "time", curve[curve["case"] == name], style, name)
    strokes.level(left, 1, color="0.7")
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("simulated seconds")
    left.set_ylabel("$f - f^*$")
    draws = results["ringmaster"].runs["seed"].nunique()
    left.set_title(f"median and quartiles of {draws} clusters", loc="left")

    seconds = rows[rows["kind"] == "seconds to 1"]
    for stop, style, words in ((True, looks[1], "stops stale work"), (False, looks[2], "finishes it")):
        own = seconds[seconds["algorithm.stop"] == stop]
        strokes.line(middle, "algorithm.batch", own, style | {"marker": "o", "markersize": 3}, words)
    strokes.level(middle, seconds["median"][seconds["case"] == "Ringmaster"].iloc[0], **looks[0], linewidth=1.5)
    middle.set_xlabel("batch B of Rennala")
    middle.set_ylabel("seconds to $f - f^* \\leq 1$")
    middle.set_ylim(0, SHORT)
    middle.set_title("Rennala, and Ringmaster", loc="left")
    strokes.note(
        middle,
        0.97,
        0.04,
        "×: larger B not in 90 s\nbest B at the grid's edge",
        fontsize=6,
        ha="right",
        transform=middle.transAxes,
    )

    rates = rows[rows["kind"] == "f - f* at the end"]
    few = results["adaptive_tuned"].runs["seed"].nunique()
    strokes.line(right, "learning_rate", rates, looks[4] | {"marker": "o", "markersize": 3})
    for rate in (ORIGINAL, NEXT):
        strokes.mark(right, rate)
    strokes.note(
        right,
        ORIGINAL * 1.06,
        0.97,
        "edge of the\nauthors' grid",
        fontsize=6,
        va="top",
        transform=right.get_xaxis_transform(),
    )
    strokes.level(right, 1, color="0.7")
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xticks([2e-4, 4e-4, 1e-3], ["2e-4", "4e-4", "1e-3"])
    right.set_xticks([], minor=True)
    right.set_xlabel("rate γ, delay-adaptive")
    right.set_ylabel(f"$f - f^*$ after {LONG:g} s")
    right.set_title(f"{few} clusters", loc="left")
    strokes.key(
        figure, *left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=6.5
    )
    figure.suptitle(
        "Tridiagonal quadratic, d = 1729, 6174 workers, a gradient takes worker i 1 + √i + |N(0, i+1)| s; noise 0.01 per coordinate",
        fontsize=7,
        x=0.01,
        ha="left",
    )
    return figure


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """What the papers show."""
    rennala = scores(results["rennala"])
    kept = rennala[~rennala["algorithm.stop"].astype(bool)]
    fast = scores(results["ringmaster"])["to_target"].fillna(np.inf).median()
    slow = kept[kept["algorithm.batch"] == 6]["to_target"].fillna(np.inf).median()
    # what has not arrived takes longer than the horizon
    late = scores(results["adaptive"])["to_target"].fillna(LONG).median()
    steps = scores(replace(results["rennala"], runs=rennala), "step")
    six = steps[steps["algorithm.batch"] == 6]["to_target"].fillna(np.inf)
    ends = results["ringmaster"].runs
    thrown = int((ends["final.gradients"] - ends["final.step"]).sum())
    top = tuned(results["adaptive_tuned"], ["algorithm"]).iloc[0]
    pace = [
        Claim(f"{name}: updates in {SHORT:g} s, the rule simulated by itself", theirs, ours, tolerance=0.03)
        for name, (ours, theirs) in paces(results).items()
    ]
    return [
        *pace,
        Claim("Ringmaster: gradients that arrive and are thrown away", 0, thrown),
        Claim(
            "Rennala, B = 6: most updates to f - f* ≤ 1 over all runs, those of gradient descent", descent(), six.max()
        ),
        Claim("Ringmaster: seconds to f - f* ≤ 1, median over clusters", 30, fast, tolerance=0.3),
        Claim(
            "Rennala, B = 6, finishing stale work: seconds to f - f* ≤ 1, median over clusters", 60, slow, tolerance=0.3
        ),
        Claim(
            f"delay-adaptive at γ = {ORIGINAL:g}: seconds to f - f* ≤ 1 (at most {LONG:g} counted) over Ringmaster's",
            10,
            over(late, fast),
            ">=",
        ),
        Claim("delay-adaptive, tuned here: whether the best rate is at the edge of its grid", 0, int(top["edge"])),
    ]
