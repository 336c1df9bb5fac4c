"""Niu, Recht, Ré, Wright 2011 (1106.5730), Hogwild!: is lock-free SGD harmless where data are sparse? Error over delay.

One model in shared memory; each coordinate is read as it was up to τ updates ago, each at an age of its own, and an
update writes only the coordinates that its sample has. Where a sample has 3 % of 128 features, delays of up to 256
updates cost 3 % of the loss, with the rate tuned again or kept. Where it has all of them, the same delay costs 57 %
with the rate tuned again (it falls from 2 to 0.06, and then there is little time to learn), and at the rate that is
best without delay 64 is far too much: the loss is 7 times as large.

What counts is τ × density, how many of the updates on their way touch a coordinate: where it is 16 to 26 (densities
0.1, 0.3 and 1) the loss is 4 to 9 % larger, where it is 64 to 77 it is 21 and 30 %. That each coordinate has an age of
its own shows in how runs vary by chance (not drawn): on a quadratic of 64 equal coordinates f varies over the seeds as
a mean of independent ones does.

Differs: Niu et al. time ten threads on RCV1, Netflix and other sets with hinge and factorization losses; here reads are
simulated, the delay of each coordinate uniform on 0..τ at each update, no write is lost, and the samples are synthetic:
nonnegative, of norm 1, with features that are all equally frequent (those of texts are not). Logistic loss without l2,
since that would touch all coordinates. The error is the mean loss of the last quarter of 3072 updates, over that
without delay, not over the optimum's.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from dopt import Results
from dopt.facts import make_problem
from dopt.figures import Claim
from dopt.plot import strokes
from dopt.plot.seeds import history, quartiles
from dopt.plot.sheet import Picture, blank
from dopt.plot.style import shade

DENSITIES = [0.03, 0.1, 0.3, 1.0]
DELAYS = [0, 16, 64, 256]
COORDINATES = 64  # of a model whose coordinates are read at ages of their own
SWEEPS = {
    "main": {
        "metric": {"name": "loss", "goal": "minimize"},
        "parameters": {
            "algorithm": {"value": "hogwild_sgd"},
            "data.density": {"values": DENSITIES},
            "delay": {"value": "uniform"},
            "delay.high": {"values": DELAYS},
            "delay.max": {"value": max(DELAYS)},
            "learning_rate": {"values": [0.03, 0.06, 0.125, 0.25, 0.5, 1, 2, 4]},
            "seed": {"values": list(range(10))},
            "workers": {"value": 1},
            "problem": {"value": "logistic"},
            "problem.l2": {"value": 0},
            "data": {"value": "sparse"},
            "batch_size": {"value": 1},
            "steps": {"value": 3072},
            "record_every": {"value": 64},
            "metrics": {"value": ["loss"]},
        },
    },
    # alike coordinates that know nothing of each other but the age at which they are read
    "ages": {
        "metric": {"name": "suboptimality", "goal": "minimize"},
        "parameters": {
            "algorithm": {"value": "hogwild_sgd"},
            "delay": {"value": "uniform"},
            "delay.high": {"value": 16},
            "delay.max": {"value": 16},
            "learning_rate": {"value": 0.1},
            "seed": {"values": list(range(200))},
            "workers": {"value": 1},
            "problem": {"value": "quadratic"},
            "problem.dim": {"values": [1, COORDINATES]},
            "problem.mu": {"value": 1.0},
            "steps": {"value": 20},
            "record_every": {"value": 1},
            "metrics": {"value": ["suboptimality"]},
        },
    },
}
FULL = {"main": {"data.features": 1024, "data.samples": 10240, "steps": 24576, "record_every": 512}}
LATE = 0.75  # records after this share of the updates count
CELL = ["data.density", "delay.high"]


def errors(results: Results) -> pd.DataFrame:
    """Error of each run: its mean loss in the last quarter of its updates."""
    rows = history(results, "learning_rate", "steps", *CELL)
    late = rows[rows["step"] > LATE * rows["steps"]]
    return late.groupby(["id", "learning_rate", *CELL], sort=False)["loss"].mean().reset_index()


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """Rows `tuned` (rate chosen in each cell) and `kept` (that of no delay) of errors, and `curve`s of loss.

    `ratio` is the error over that of the same density without delay; low and high are quartiles of the error.
    """
    main = results["main"]
    cells = quartiles(errors(main), [*CELL, "learning_rate"], "loss")
    grid = cells["learning_rate"]
    order = cells.sort_values(["median", "learning_rate"], kind="stable")
    tuned = order.groupby(CELL, sort=False).head(1).assign(kind="tuned").sort_values(CELL)
    tuned["edge"] = tuned["learning_rate"].isin([grid.min(), grid.max()])
    fresh = tuned[tuned["delay.high"] == 0].set_index("data.density")
    kept = cells[cells["learning_rate"] == cells["data.density"].map(fresh["learning_rate"])].assign(kind="kept")
    both = pd.concat([tuned, kept])
    both["ratio"] = both["median"] / both["data.density"].map(fresh["median"])
    rows = history(main, *CELL, "learning_rate")
    shown = rows["data.density"].isin([min(DENSITIES), max(DENSITIES)])
    shown &= rows["learning_rate"] == rows["data.density"].map(fresh["learning_rate"])
    curves = quartiles(rows[shown], [*CELL, "learning_rate", "step"], "loss").assign(kind="curve")
    return pd.concat([both, curves], ignore_index=True)


def spread(results: Results) -> tuple[float, float]:
    """(variance of f - f* over seeds, summed over steps, of many coordinates over that of one; Σ wᵢ², which it is in theory).

    f is Σ wᵢ times that of one coordinate, wᵢ = (xᵢ*)²: where each has an age of its own they are independent; where all are
    read at one age they are one, and the ratio is 1.
    """
    rows = history(results, "problem.dim")
    summed = rows.groupby(["problem.dim", "step"])["suboptimality"].var().groupby(level=0).sum()
    run = results.run(str(results.runs.loc[results.runs["problem.dim"] == COORDINATES, "id"].iloc[0]))
    weights = make_problem(run).data["minimum"].ravel() ** 2
    return float(summed[COORDINATES] / summed[1]), float((weights**2).sum())


def draw(results: Mapping[str, Results]) -> Picture:
    """Error over delay, and over delay x density; loss over updates of the sparsest and the densest set."""
    rows = table(results)
    figure = blank("page", 2.7)
    left, middle, right = figure.subplots(1, 3)
    densities = sorted(rows["data.density"].unique())
    dashes = ["-", "--", "-.", ":"]
    for place, density in enumerate(densities):
        how = {**shade(place / (len(densities) - 1)), "linestyle": dashes[place]}
        of_density = rows[rows["data.density"] == density]
        tuned = of_density[of_density["kind"] == "tuned"].copy()
        tuned[["median", "low", "high"]] /= tuned.loc[tuned["delay.high"] == 0, "median"].iloc[0]
        tuned["pending"] = tuned["delay.high"] * density
        strokes.line(left, "delay.high", tuned, {**how, "marker": "o", "ms": 3}, f"{100 * density:g} %")
        strokes.line(middle, "pending", tuned[tuned["delay.high"] > 0], {**how, "marker": "o", "ms": 3})
        for at in tuned[tuned["edge"]].itertuples():
            strokes.note(left, at[tuned.columns.get_loc("delay.high") + 1], at.median, "*", fontsize=9)
        for delay, curve in of_density[of_density["kind"] == "curve"].groupby("delay.high"):
            dash = dashes[DELAYS.index(int(delay))]
            strokes.line(
                right, "step", curve, {**shade(place / (len(densities) - 1)), "linestyle": dash, "linewidth": 1}
            )
    left.set_xscale("symlog", linthresh=16)
    left.set_xticks(DELAYS, [str(delay) for delay in DELAYS])
    left.minorticks_off()
    left.set(xlabel="delay τ (updates; uniform on 0..τ)", ylabel="error, over that at τ = 0")
    strokes.key(left, title="features of a sample", title_fontsize=7, frameon=False)
    middle.set(xscale="log", xlabel="τ x density")
    for axes in (left, middle):
        axes.set(ylim=(0.93, 1.8), title="rate tuned in each point")
    right.set(yscale="log", ylim=(0.25, 6), xlabel="updates", ylabel="loss", title="rate as tuned at τ = 0")
    right.set_yticks([0.3, 1, 3], ["0.3", "1", "3"])
    right.minorticks_off()
    for delay, dash in zip(DELAYS, dashes, strict=True):
        strokes.path(right, [], [], color="0.3", linestyle=dash, label=f"τ = {delay}")
    strokes.key(right, frameon=False, loc="upper right", ncols=2, handlelength=2, columnspacing=1)
    edge = "; *: best rate at the edge of its grid" if rows["edge"].fillna(False).any() else ""
    figure.suptitle(
        "Hogwild: logistic regression on made sparse samples (scaled down from RCV1), batch 1. Error: mean loss of the last\n"
        f"quarter of {int(rows['step'].max())} updates; median and quartiles, n = {int(rows['n'].max())} seeds{edge}",
        fontsize=7.5,
    )
    return figure


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """The paper's claim, and what is behind it."""
    rows = table(results)
    ratio = {kind: rows[rows["kind"] == kind].set_index(CELL)["ratio"] for kind in ("tuned", "kept")}
    sparse, dense, some, most = min(DENSITIES), max(DENSITIES), 64, max(DELAYS)
    last = ratio["tuned"].xs(most, level="delay.high").sort_index()
    few = [ratio["tuned"][key] for key in ((1.0, 16), (0.3, 64), (0.1, 256))]
    many = [ratio["tuned"][key] for key in ((1.0, 64), (0.3, 256))]
    ratio_of_spreads, squares = spread(results["ages"])
    return [
        Claim(
            f"variance over seeds of f - f*, {COORDINATES} coordinates over one: Σ (xᵢ*)⁴, since each has an age of its own",
            squares,
            ratio_of_spreads,
            tolerance=1,
            null=1,
        ),
        Claim(f"density {sparse}: error at τ = {most} over that at 0, rate tuned", 1.1, float(last[sparse]), "<="),
        Claim(f"density {dense}: error at τ = {most} over that at 0, rate tuned", 1.5, float(last[dense]), ">="),
        Claim(
            f"density {sparse}: error at τ = {some} over that at 0, rate kept", 1.1, ratio["kept"][sparse, some], "<="
        ),
        Claim(f"density {dense}: error at τ = {some} over that at 0, rate kept", 1.5, ratio["kept"][dense, some], ">="),
        Claim(
            f"what τ = {most} costs a set, over what it costs the next denser: largest",
            1,
            float((last.to_numpy()[:-1] / last.to_numpy()[1:]).max()),
            "<=",
            absolute=0.02,
        ),
        Claim("error over that at 0 where τ x density is 16 to 26: largest", 1.15, max(few), "<="),
        Claim("error over that at 0 where τ x density is 64 to 77: smallest", 1.15, min(many), ">="),
    ]
