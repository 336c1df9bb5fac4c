"""Mishchenko 2022 (2206.07638), least squares: does asynchronous SGD beat minibatch SGD, whatever the delays?

Forty workers, loss against computed gradients, every rate tuned. With memoryless times, of equal or unequal workers,
the asynchronous server ends a thousand times lower than minibatch SGD, or more. It does not with deterministic times:
round-robin delays are 39 always, the steep direction allows at most α = 0.15, and with that the asynchronous server is
behind. Nearly equal times (lognormal, σ = 0.2) are as bad. Mean staleness is the same in all cases (n - 1 = 39); its
law decides, and the best rate of memoryless workers diverges in round-robin order.

Differs: the paper's N, d and batch are 10 000, 400 and 256, its gradients 32 000; here all are a quarter (`--full`:
theirs), which makes 1/κ four times as large and keeps the number of e-folds. Delays there are those of 40 processes on
one computer. Batches are drawn with replacement. In the authors' code minibatch SGD steps on the sum of the workers'
gradients; rates are given per gradient here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd

from dopt import Results, theory
from dopt.facts.timetable import timetable
from dopt.figures import Claim
from dopt.plot import seeds, strokes
from dopt.plot.sheet import Picture, blank
from dopt.plot.style import COLOURS, look
from dopt.sweeps.cells import best, scores

WORKERS = 40
PAPER = {"minibatch": 0.19, "async": 0.43}  # the rates per gradient that the authors found best
BINS = 6  # staleness values to a bar of the histogram
COMMON = {
    "workers": {"value": WORKERS},
    "problem": {"value": "least_squares"},
    "problem.samples": {"value": 2520},
    "problem.dim": {"value": 100},
    "eval_samples": {"value": 2520},
    "batch_size": {"value": 64},
    "gradients": {"value": 8000},
    "seed": {"values": list(range(10))},
    "metrics": {"value": ["loss"]},
}
METRIC = {"name": "loss", "goal": "minimize"}  # f* is 5e-11, noise of 1e-5 in the targets
ASYNC = {**COMMON, "algorithm": {"value": "async_sgd"}, "record_every": {"value": 160}}
SWEEPS = {
    "minibatch": {
        "metric": METRIC,
        "parameters": {
            **COMMON,
            "algorithm": {"value": "allreduce_sgd"},
            "learning_rate": {"values": [WORKERS * rate for rate in (0.07, 0.1, 0.14, 0.19, 0.22)]},
            "record_every": {"value": 4},
        },
    },
    "memoryless": {
        "metric": METRIC,
        "parameters": {
            **ASYNC,
            "cluster": {"value": "exponential"},
            "cluster.profile": {"values": ["equal", "sqrt"]},
            "learning_rate": {"values": [0.15, 0.3, 0.43, 0.6, 0.8, 1.1, 1.5, 2.1]},
        },
    },
    "regular": {
        "metric": METRIC,
        "parameters": {
            **ASYNC,
            "cluster": {"values": ["constant", "lognormal"]},
            "cluster.sigma": {"value": 0.2},
            "learning_rate": {"values": [0.07, 0.1, 0.15, 0.2, 0.43, 0.6, 0.8, 1.1]},
        },
    },
}
EXTEND = tuple(SWEEPS)
PAPERS = {
    "problem.samples": [10_000],
    "problem.dim": [400],
    "eval_samples": [10_000],
    "batch_size": [256],
    "gradients": [32_000],
    "seed": list(range(10)),
}
FULL = {
    part: PAPERS | {"record_every": [16 if part == "minibatch" else 640]}
    for part in ("minibatch", "memoryless", "regular")
}
LAWS = {  # part, cluster and profile -> what they are called
    ("memoryless", "exponential", "equal"): "exponential",
    ("memoryless", "exponential", "sqrt"): "exponential, means 2 to 7.3 s",
    ("regular", "constant", "equal"): "constant (round-robin)",
    ("regular", "lognormal", "equal"): "lognormal, σ = 0.2",
}
LOOKS = {
    "minibatch": look("allreduce_sgd"),
    "exponential": look("async_sgd"),
    "exponential, means 2 to 7.3 s": {"color": COLOURS[2], "linestyle": "-."},
    "constant (round-robin)": {"color": COLOURS[3], "linestyle": (0, (5, 1))},
    "lognormal, σ = 0.2": {"color": COLOURS[4], "linestyle": ":"},
}


def named(results: Mapping[str, Results]) -> pd.DataFrame:
    """All runs with `case` (the delay law, or minibatch), the rate per gradient and the final loss; infinite: diverged."""
    parts = []
    for (part, law, profile), name in LAWS.items():
        runs = scores(results[part])
        chosen = runs[(runs["cluster"] == law) & (runs["cluster.profile"] == profile)]
        parts.append(chosen.assign(case=name, part=part, rate=chosen["learning_rate"]))
    runs = scores(results["minibatch"])
    parts.insert(0, runs.assign(case="minibatch", part="minibatch", rate=runs["learning_rate"] / WORKERS))
    return pd.concat(parts, ignore_index=True)


def tops(results: Mapping[str, Results]) -> dict[str, pd.DataFrame]:
    """Case -> its runs at the best rate, with `edge`."""
    found = {"minibatch": best(results["minibatch"], ["algorithm"])}
    for (part, law, profile), name in LAWS.items():
        runs = best(results[part], ["cluster", "cluster.profile"])
        found[name] = runs[(runs["cluster"] == law) & (runs["cluster.profile"] == profile)]
    return found


def over(results: Mapping[str, Results], runs: pd.DataFrame) -> pd.DataFrame:
    """Loss of these runs against gradients, over the seeds."""
    history = pd.concat([part.history for part in results.values()])
    return seeds.quartiles(history[history["id"].isin(runs["id"])], ["gradients"], "loss")


def staleness(results: Mapping[str, Results], part: str, runs: pd.DataFrame) -> np.ndarray:
    """Of each applied gradient of these runs, from the clock."""
    first = results[part].run(runs["id"].iloc[0])
    lines = [timetable(dataclasses.replace(first, seed=int(seed))) for seed in runs["seed"]]
    return np.concatenate([line.staleness[line.applied] for line in lines])


def diverging(results: Mapping[str, Results], case: str, rate: float) -> pd.DataFrame:
    """The runs of a case at a rate, with `grew`: whether the loss ended above its start, or was lost."""
    runs = named(results)
    chosen = runs[(runs["case"] == case) & np.isclose(runs["rate"], rate)]
    start = pd.concat([part.history for part in results.values()]).groupby("id")["loss"].first()
    return chosen.assign(grew=~(chosen["final"] < chosen["id"].map(start)))


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """Rows of all panels: curves at the best rates, one at another's, the histograms, and the final loss at each rate."""
    found, top = [], tops(results)
    for name, runs in top.items():
        rate = runs["learning_rate"].iloc[0] / (WORKERS if name == "minibatch" else 1)
        rows = over(results, runs).assign(kind="loss at the best rate", case=name, rate=rate, edge=runs["edge"].iloc[0])
        found.append(rows)
    rate = top["exponential"]["learning_rate"].iloc[0]
    lost = diverging(results, "constant (round-robin)", rate)
    found.append(
        over(results, lost).assign(kind="loss at the best rate of exponential", case=lost["case"].iloc[0], rate=rate)
    )
    for (part, _, _), name in LAWS.items():
        tau = staleness(results, part, top[name])
        counts = np.bincount(tau // BINS)
        shares = pd.DataFrame({"staleness": BINS * np.arange(len(counts)), "share": counts / (BINS * len(tau))})
        shares = shares[shares["share"] > 0]  # rare ones are bars of their own
        mean, ids = tau.mean(), " ".join(top[name]["id"])
        found.append(shares.assign(kind="staleness", case=name, mean=mean, n=len(top[name]), ids=ids))
    runs = named(results)
    found.append(seeds.quartiles(runs, ["case", "rate"], "final").assign(kind="final loss"))
    return pd.concat(found, ignore_index=True)


def draw(results: Mapping[str, Results]) -> Picture:
    """Loss against gradients; staleness; final loss against the rate."""
    rows = table(results)
    parts = dict(tuple(rows.groupby("kind", sort=False)))
    figure = blank("page", 2.9)
    left, middle, right = figure.subplots(1, 3)
    start = rows["median"][rows["gradients"] == 0].iloc[0]

    starred = parts["loss at the best rate"]["edge"].astype(bool).any()
    for name, own in parts["loss at the best rate"].groupby("case", sort=False):
        star = "*" if own["edge"].iloc[0] else ""
        strokes.line(left, "gradients", own, LOOKS[name], f"{name}, α = {own['rate'].iloc[0]:.2g}{star}")
    lost = parts["loss at the best rate of exponential"]
    thin = LOOKS[lost["case"].iloc[0]] | {"linewidth": 0.8}
    strokes.line(left, "gradients", lost, thin, f"round-robin, α = {lost['rate'].iloc[0]:.2g}: diverges")
    left.set_ylim(parts["loss at the best rate"]["median"].min() / 2, 5)
    left.set_yscale("log")
    left.set_xlabel("gradients of 40 workers")
    left.set_ylabel("loss (f* = 5e-11)")
    left.set_title("rates tuned" + (" (* edge of grid)" if starred else ""), loc="left")

    for name, own in parts["staleness"].groupby("case", sort=False):
        at, style = own["staleness"] + (BINS - 1) / 2, LOOKS[name]
        mark = {"marker": "o", "markersize": 3} if len(own) < 12 else {}
        strokes.path(middle, at, own["share"], **style, **mark)
    tau = np.arange(300)
    strokes.path(middle, tau, theory.geometric_staleness(WORKERS, 300), color="black", linewidth=0.6)
    strokes.note(middle, 120, 2.4e-3, "geometric", fontsize=6)
    strokes.mark(middle, WORKERS - 1)
    strokes.note(middle, WORKERS + 3, 0.4, "mean of all: n - 1", fontsize=6, color="0.4", va="top")
    middle.set_yscale("log")
    middle.set_ylim(1e-6, 0.6)
    middle.set_xlim(0, 300)
    middle.set_xlabel("staleness τ (updates)")
    middle.set_ylabel("share of gradients, per update")
    middle.set_title("staleness", loc="left")

    for name, own in parts["final loss"].groupby("case", sort=False):
        own = own.assign(median=own["median"].where(own["median"] < 10 * start, np.inf))
        strokes.line(right, "rate", own, LOOKS[name] | {"marker": "o", "markersize": 2.5})
    limits = {"0.4": theory.stability_limit(1.0, WORKERS - 1), "0.7": theory.memoryless_mean_square_limit(WORKERS)}
    for shade, limit in limits.items():
        strokes.mark(right, 4 * limit, color=shade, linewidth=0.8)
    strokes.level(right, start, color="0.8", zorder=0)
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xticks([0.1, 0.3, 1, 2], ["0.1", "0.3", "1", "2"])
    right.set_xlabel("rate α per gradient (L = 1/4)")
    right.set_ylabel("loss at the end")
    right.set_title("×: beyond, it diverges", loc="left")
    one, seeds = results["regular"].runs.iloc[0], results["regular"].runs["seed"].nunique()
    strokes.key(
        figure, *left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=6.5
    )
    figure.suptitle(
        f"Least squares, N = {one['problem.samples']}, d = {one['problem.dim']}, batch {one['batch_size']}"
        + (" (a quarter of the paper's)" if one["problem.dim"] < 400 else "")
        + f"; median and quartiles of {seeds} seeds; four laws of compute times.\n"
        "Right: the vertical lines are theory's limits, for round-robin and for the mean square with exponential times.",
        fontsize=7,
        x=0.01,
        ha="left",
    )
    return figure


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """What the paper shows, and where it stops."""
    top, found = tops(results), []
    end = {name: runs["final"].fillna(np.inf).median() for name, runs in top.items()}
    for name in ("exponential", "exponential, means 2 to 7.3 s"):
        found.append(
            Claim(
                f"{name}: final loss of tuned async over that of tuned minibatch", 1, end[name] / end["minibatch"], "<="
            )
        )
    tried = {
        "best for exponential times": top["exponential"]["learning_rate"].iloc[0],
        "best in the paper": PAPER["async"],
    }
    for words, rate in tried.items():
        share = diverging(results, "constant (round-robin)", rate)["grew"].mean()
        found.append(Claim(f"round-robin at the rate {words}, {rate:g}: share of the runs that diverge", 1, share))
    for (part, _, _), name in LAWS.items():
        mean = staleness(results, part, top[name]).mean()
        found.append(Claim(f"{name}: mean staleness", WORKERS - 1, mean, tolerance=0.02))
    rate = top["minibatch"]["learning_rate"].iloc[0] / WORKERS
    edges = sum(bool(runs["edge"].iloc[0]) for runs in top.values())
    return [
        *found,
        Claim(
            "best rate of minibatch SGD, per gradient, and in the authors' code",
            PAPER["minibatch"],
            rate,
            tolerance=0.1,
        ),
        Claim("curves whose best rate is at the edge of its grid", 0, edges),
    ]
