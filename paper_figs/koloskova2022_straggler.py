"""Koloskova et al. 2022 (2206.08307), one straggler: which methods does the largest staleness hurt, which only the mean?

20 workers share a quadratic (curvatures 0.1 to 1, the same data for all, little noise); one of them is k times slower.
The mean staleness is 19 whatever k is (gradients still on their way included); the largest grows with k. Drawn is the
largest f - f* from then on, so that what a late gradient does to a model that had converged is not missed. The rates
are tuned for each method and k, for the number of gradients after which f - f* stays below 1e-6.

The constant step takes 320 gradients with equal workers, 388, 1201 and 10 750 with one that is 10, 100 and 1000 times
slower: what a gradient of an old model undoes must be regained. Delay-adaptive steps take 262 to 266 and dropping 280
to 283, whatever k is; over 400 seeds a 1000 times slower worker changes the adaptive curve by 4 % at 1e-3 and by 1 % at
1e-6. (Of the delay-adaptive ones at k = 100, where the straggler comes early, a quarter takes 630.)

That the constant step suffers depends on the question, which was chosen to show it: to stay below a small level. To
stay below 1e-3 it takes 124 gradients whatever k is, below 1e-4 1.2 times as many at k = 1000 as at 1, below 1e-5 18
times and below 1e-6 34 times. To reach 1e-6 for the first time takes no longer with a straggler than without.

Differs: setup, levels and grid are ours, to ask of runs what the paper's theory says. Steps are cut at a staleness of n
= 20 (delay-adaptive), gradients dropped above 2n = 40. Noise is small on purpose, so that a level as small as 1e-6 can
be held; where noise dominates, a constant and a delay-adaptive step differ by less than their seeds do
(`benchmarks/stragglers.yaml`). The number of workers, and so the mean concurrency, is not varied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dopt import Results
from dopt.figures import Claim, over
from dopt.plot import seeds, strokes, style
from dopt.plot.sheet import Picture, blank

N, TARGET = 20, 1e-6
LABELS = {
    "async_sgd": "constant step",
    "delay_adaptive_sgd": "delay-adaptive step",
    "drop_stale_sgd": "stale ones dropped",
}
FIELDS = ("algorithm", "cluster.straggler", "learning_rate", "seed")


def _part(gradients: int, every: int, **changes: dict[str, Any]) -> dict[str, Any]:
    parameters = {
        "algorithm": {"values": list(LABELS)},
        "algorithm.max_staleness": {"value": 2 * N},
        "workers": {"value": N},
        "cluster": {"value": "exponential"},
        "cluster.straggler": {"values": [1, 10, 100, 1000]},
        "learning_rate": {"values": [0.0125, 0.025, 0.05, 0.1, 0.2]},
        "seed": {"values": list(range(10))},
        "problem": {"value": "quadratic"},
        "problem.dim": {"value": 10},
        "problem.heterogeneity": {"value": 0},
        "problem.noise": {"value": 1e-6},
        "gradients": {"value": gradients},
        "record_every": {"value": every},
        "metrics": {"value": ["suboptimality"]},
    }
    metric = {"name": "suboptimality", "goal": "minimize", "target": TARGET}
    return {
        "metric": metric,
        "parameters": parameters | {name.replace("__", "."): own for name, own in changes.items()},
    }


SWEEPS = {
    # the same runs twice: their beginning in detail, and until the slowest straggler has come three times in the mean
    "near": _part(1500, 2),
    "far": _part(60000, 100),
    # many seeds, to tell curves apart by a few percent; at the rate that is best for both
    "adaptive": _part(
        600,
        2,
        algorithm={"value": "delay_adaptive_sgd"},
        cluster__straggler={"values": [1, 1000]},
        learning_rate={"value": 0.1},
        seed={"values": list(range(400))},
    ),
}
EXTEND = ("near", "far")


def _histories(results: Mapping[str, Results], *parts: str) -> pd.DataFrame:
    """Records of some parts, with `worst`, the largest f - f* from then on, and what tells runs apart, `run`."""
    rows = pd.concat([seeds.history(results[part], *FIELDS) for part in parts], ignore_index=True)
    rows = rows.sort_values([*FIELDS, "gradients"], kind="stable", ignore_index=True)
    values = rows["suboptimality"].where(np.isfinite(rows["suboptimality"]), np.inf)
    which = rows.groupby([*FIELDS], sort=False).ngroup()
    # backwards, so that the largest so far is the largest from then on
    return rows.assign(run=which, worst=values[::-1].groupby(which[::-1]).cummax()[::-1])


def _settled(rows: pd.DataFrame, level: float = TARGET) -> pd.DataFrame:
    """For each run the gradients after which f - f* stays below `level`: inf where it does not."""
    below = rows[rows["worst"] <= level].groupby("run")["gradients"].min()
    runs = rows.groupby("run")[list(FIELDS)].first()
    ids = rows.groupby("run")["id"].unique().map(" ".join)
    return runs.assign(settled=below.reindex(runs.index).fillna(np.inf), id=ids).reset_index()


def _tuned(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs at the rate of the least median, of each method and straggler."""
    chosen = []
    for _, cell in runs.groupby(["algorithm", "cluster.straggler"], sort=False):
        medians = cell.groupby("learning_rate")["settled"].median()
        rate = medians.idxmin()
        edge = rate in (medians.index.min(), medians.index.max())
        chosen.append(cell[cell["learning_rate"] == rate].assign(edge=edge))
    return pd.concat(chosen, ignore_index=True)


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """Gradients until settled over k, and the curves of the slowest and of no straggler, at the tuned rates."""
    rows = _histories(results, "near", "far")
    tuned = _tuned(_settled(rows))
    by = ["algorithm", "cluster.straggler", "learning_rate", "edge"]
    settled = seeds.quartiles(tuned, by, "settled").assign(panel="settled")
    ends = tuned[tuned["cluster.straggler"].isin([1, 1000])].set_index("run")
    at = np.unique(np.round(np.geomspace(20, 40000, 50)))
    drawn = []
    for run, own in rows[rows["run"].isin(ends.index)].groupby("run", sort=False):
        # of the first record at or after: what is largest from then on
        place = np.searchsorted(own["gradients"].to_numpy(), at)
        values = own["worst"].to_numpy()[place]
        drawn.append(ends.loc[[run], [*by, "id"]].merge(pd.DataFrame({"gradients": at, "worst": values}), how="cross"))
    shown = seeds.quartiles(pd.concat(drawn), [*by, "gradients"], "worst").assign(panel="curve")
    order = ["panel", *by, "gradients"]
    return pd.concat([settled, shown])[[*order, "median", "low", "high", "n", "ids"]].reset_index(drop=True)


def draw(results: Mapping[str, Results]) -> Picture:
    """Left the curves without a straggler and with the slowest; right the gradients until settled, over k."""
    rows = table(results)
    figure = blank("text", 2.7)
    left, right = figure.subplots(1, 2)
    for (method, k), own in rows[rows["panel"] == "curve"].groupby(["algorithm", "cluster.straggler"], sort=False):
        look = {**style.look(method), "linewidth": 0.8 if k == 1 else 1.8}
        strokes.line(left, "gradients", own, look, LABELS[method] if k != 1 else None)
    for method, own in rows[rows["panel"] == "settled"].groupby("algorithm", sort=False):
        strokes.line(
            right, "cluster.straggler", own, {**style.look(method), "marker": "o", "markersize": 3.5}, LABELS[method]
        )
    strokes.level(left, TARGET)
    left.set(xscale="log", yscale="log", xlabel="gradients", ylabel="largest f - f* from then on")
    left.set_title("thin: all alike; thick: one 1000 times slower", loc="left", fontsize=7)
    right.set(xscale="log", yscale="log", xlabel="the straggler is k times slower")
    right.set_ylabel("gradients until settled below $10^{-6}$")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    strokes.key(right, frameon=False, loc="upper left")
    edges = "; *: at the edge of its grid" if rows["edge"].any() else ""
    for at in rows[(rows["panel"] == "settled") & rows["edge"]].itertuples():
        strokes.note(right, at._3, at.median, "*")
    said = f"{N} workers, exponential times, quadratic; rates tuned for each method and k"
    figure.suptitle(f"{said}; median and quartiles of {rows['n'].max()} seeds{edges}", fontsize=7)
    return figure


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """The constant step suffers with the largest staleness; the two others do not, the adaptive one at any level."""
    rows = table(results)
    settled = rows[rows["panel"] == "settled"].set_index(["algorithm", "cluster.straggler"])
    medians = settled["median"]
    constant, says = medians["async_sgd"], "constant step: gradients until settled, one worker"
    found = [
        Claim(f"{says} 100 times slower over equal ones", 2, over(constant[100], constant[1]), ">="),
        Claim(f"{says} 1000 times slower over equal ones", 20, over(constant[1000], constant[1]), ">="),
        Claim(f"{says} 1000 times slower over 100 times slower", 5, over(constant[1000], constant[100]), ">="),
    ]
    says = "equal workers: gradients until settled, delay-adaptive over constant step"
    found.append(Claim(says, 1, over(medians["delay_adaptive_sgd"][1], constant[1]), "<=", tolerance=0.05))
    edges = int(settled["edge"].sum())
    found.append(Claim("methods and stragglers whose best rate is at the edge of its grid", 0, edges))
    for method in ("delay_adaptive_sgd", "drop_stale_sgd"):
        own = medians[method]
        for k in own.index[1:]:
            says = f"{LABELS[method]}: gradients until settled, one worker {k:g} times slower over equal ones"
            found.append(Claim(says, 1, over(own[k], own[1]), absolute=0.05))
    rows = _histories(results, "near", "far")
    for level, words in ((TARGET, "is first at 1e-6"), (1e-3, "stays below 1e-3")):
        own = _least(rows, level, first=level == TARGET)
        says = f"constant step: gradients until f - f* {words}, one worker 1000 times slower over equal ones"
        found.append(Claim(says, 1, over(own[1000], own[1]), absolute=0.1))
    says = (
        f"{LABELS['delay_adaptive_sgd']}: largest change by a 1000 times slower worker of the gradients until settled"
    )
    change = _change(_histories(results, "adaptive"))
    return [*found, Claim(f"{says} below 1e-3, 1e-4, 1e-5, 1e-6", 0, change, absolute=0.05)]


def _least(rows: pd.DataFrame, level: float, first: bool) -> pd.Series:
    """For each k the least median gradients of the constant step until it is first at the level, or stays below it."""
    runs = _settled(rows, level)
    if first:
        reached = rows[rows["suboptimality"] <= level].groupby("run")["gradients"].min()
        runs = runs.assign(settled=runs["run"].map(reached).fillna(np.inf))
    runs = runs[runs["algorithm"] == "async_sgd"]
    return runs.groupby(["cluster.straggler", "learning_rate"])["settled"].median().groupby(level=0).min()


def _change(rows: pd.DataFrame) -> float:
    """The largest relative change of the median over the seeds."""
    changes = []
    for level in (1e-3, 1e-4, 1e-5, TARGET):
        medians = _settled(rows, level).groupby("cluster.straggler")["settled"].median()
        changes.append(abs(over(medians[1000], medians[1]) - 1))
    return float(np.max(changes))
