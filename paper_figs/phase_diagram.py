"""Ours: with one slow worker and slow links, which way of parallel training reaches the target loss first?

Seven methods race on a map of straggler severity by bandwidth, the rate tuned in each cell; a cell belongs to the
method that is first. Where messages are free and workers equal, no method gains much: all-reduce is behind the first by
less than a half, most of which is its barrier (the slowest of eight lognormal times takes 1.3 s in the mean). A
straggler gives that row to the asynchronous server: 73 to 90 s whatever k, where all-reduce takes k s a step. Slow
links take it away again, since eight workers queue at one port. With slow links and equal workers small messages win:
top-k with error feedback, whose greedy steps also allow twice all-reduce's rate. With slow links and a straggler
asynchronous EASGD is first, whose workers neither wait nor send much; but where labels are skewed its rare exchanges
cost convergence, and AD-PSGD, which averages models in pairs after each step, is first instead. No method is safe: at
random the safest method still takes 3.3 times as long as the first in its worst cell, and with skewed labels each
method fails somewhere.

Differs: ours, no paper draws it. Small by intent: 64 weights of logistic regression on digits, split at random or by
Dirichlet(0.5) over 8 workers, batches of 4; bandwidth is given as the seconds that this model takes over a link,
latency is 0. A ring all-reduce sends 1.75 models a step, top 5 % gathers, async pushes and pulls through a port as fast
as a link, in AD-PSGD any two workers may meet. Options are usual ones (exchanges every 16 steps, β = 0.1, 7 of 8 for
backup workers), and were not tuned. First means the first record at or below the target; local SGD is recorded right
after its averages only, the others every 16 gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dopt import Results, cluster, theory
from dopt.figures import Claim, over
from dopt.plot import strokes
from dopt.plot.seeds import quartiles
from dopt.plot.sheet import Picture, blank
from dopt.plot.style import look
from dopt.sweeps.cells import scores, tuned
from dopt.sweeps.spec import grid


class Entrant(NamedTuple):
    """A method that takes part."""

    label: str
    family: str
    rates: list[float]
    record_every: int  # steps between records: 16 gradients, or until workers hold one model
    options: dict[str, Any] = {}  # noqa: RUF012


BARRIER, RARE, SERVER, PEERS = "synchronous", "few or small messages", "asynchronous", "asynchronous, no server"
SYNC_RATES = [0.4, 0.8, 1.6, 3.2]
ENTRANTS = {
    "allreduce_sgd": Entrant("all-reduce", BARRIER, SYNC_RATES, 2),
    "k_sync_sgd": Entrant("backup", BARRIER, SYNC_RATES, 2, {"algorithm.k": 7}),
    "compressed_sgd": Entrant(
        "top 5 %",
        RARE,
        [0.8, 1.6, 3.2, 6.4],
        2,
        {"algorithm.compressor": "top_k", "algorithm.fraction": 0.05},
    ),
    "local_sgd": Entrant("local SGD", RARE, [0.2, 0.4, 0.8, 1.6], 16, {"algorithm.local_steps": 16}),
    "async_sgd": Entrant("async", SERVER, [0.025, 0.05, 0.1, 0.2], 16),
    "async_easgd": Entrant("async EASGD", RARE, [0.2, 0.4, 0.8, 1.6], 1, {"algorithm.local_steps": 16}),
    "ad_psgd": Entrant("AD-PSGD", PEERS, [0.1, 0.2, 0.4, 0.8], 16, {"topology": "complete"}),
}
STRAGGLERS = [1, 2, 8, 32]
MODEL = 256  # bytes: 64 weights
SECONDS = [0, 0.2, 1, 5]  # that a model takes over a link
SPLITS: dict[str, dict[str, Any]] = {
    "random": {"partition": "iid"},
    "skewed": {"partition": "dirichlet", "partition.alpha": 0.5},
}
TITLES = {"random": "labels at random", "skewed": "labels skewed"}
HATCHES = {BARRIER: "", RARE: "///", SERVER: "...", PEERS: "xxx"}
HORIZON, WORKERS, SIGMA = 600, 8, 0.2
CELL = ["cluster.straggler", "cluster.bandwidth"]


def _sweep(method: str, split: str) -> dict[str, Any]:
    entrant = ENTRANTS[method]
    fixed = {
        **{"algorithm": method, "record_every": entrant.record_every, **entrant.options, **SPLITS[split]},
        **{"workers": WORKERS, "problem": "logistic", "problem.l2": 0.01, "batch_size": 4, "seconds": HORIZON},
        **{"cluster": "lognormal", "cluster.sigma": SIGMA},
    }
    swept = {
        "cluster.straggler": STRAGGLERS,
        "cluster.bandwidth": [MODEL / s if s else None for s in SECONDS],
        "learning_rate": entrant.rates,
        "seed": list(range(10)),
        "metrics": [["suboptimality"]],
    }
    return {
        "metric": {"name": "suboptimality", "goal": "minimize", "target": 0.01},
        "parameters": grid(fixed, swept),
    }


SWEEPS = {f"{split}-{method}": _sweep(method, split) for split in SPLITS for method in ENTRANTS}
EXTEND = tuple(SWEEPS)


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """A row for each split, cell and method: its best rate, the seconds until the target, and whether it is first."""
    found = []
    for split in SPLITS:
        for method in ENTRANTS:
            part = results[f"{split}-{method}"]
            cells = tuned(part, CELL)
            runs = scores(part)
            chosen = runs[runs["id"].isin(" ".join(cells["ids"]).split())]
            spread = quartiles(chosen.fillna({"cluster.bandwidth": math.inf}), CELL, "to_target").drop(columns="ids")
            cells = cells.fillna({"cluster.bandwidth": math.inf}).merge(spread, on=CELL)
            found.append(cells.assign(split=split, algorithm=method))
    rows = pd.concat(found, ignore_index=True)
    rows["seconds_of_a_model"] = MODEL / rows["cluster.bandwidth"]
    best = rows.groupby(["split", *CELL])["to_target"].transform("min")
    rows["over_best"] = np.where(np.isfinite(best), rows["to_target"] / best, np.nan)
    rows["first"] = rows["over_best"] == 1
    return rows.drop(columns=["median", "stalled"])


def draw(results: Mapping[str, Results]) -> Picture:
    """A map for each split: straggler by bandwidth; a cell has the colour of who is first, its seconds, and who is next."""
    rows = table(results)
    severities, costs = (sorted(rows[name].unique()) for name in ("cluster.straggler", "seconds_of_a_model"))
    figure = blank("page", 3.6)
    axes = figure.subplots(1, len(SPLITS), sharey=True)
    for ax, (split, said) in zip(axes, TITLES.items(), strict=True):
        for (k, bandwidth), cell in rows[rows["split"] == split].groupby(CELL):
            _cell(ax, severities.index(k), costs.index(MODEL / bandwidth), cell.sort_values("to_target"))
        ax.set(xlim=(-0.5, len(severities) - 0.5), ylim=(-0.5, len(costs) - 0.5), title=said)
        ax.set_xticks(range(len(severities)), [f"{k:g}" for k in severities])
        ax.set_yticks(range(len(costs)), [f"{s:g}" for s in costs])
        ax.set_xlabel("the last worker's slowness k")
        ax.tick_params(length=0)
    figure.supxlabel(
        "top 5 %: all-reduce of top-k gradients; backup: of the first 7; local SGD, EASGD: exchange every 16 steps; async: one "
        "server port, as fast as a link",
        fontsize=6.5,
    )
    axes[0].set_ylabel("seconds that a model takes over a link")
    seeds = int(rows["n"].max())
    star = "; *: best rate at the edge of its grid" if rows.loc[rows["first"], "edge"].any() else ""
    figure.suptitle(
        "Who is first at f - f* = 0.01, after how many seconds, and who is next. 8 workers, computations lognormal (σ = 0.2), "
        f"mean 1 s\n(the last one's k s); logistic regression on digits, batch 4, rate tuned in each cell; median of {seeds} seeds{star}",
        fontsize=7,
    )
    return figure


def _cell(axes: Any, x: int, y: int, cell: pd.DataFrame) -> None:
    first, second = cell.iloc[0], cell.iloc[1]
    reached = bool(first["first"])
    entrant = ENTRANTS[first["algorithm"]]
    colour = look(first["algorithm"])["color"] if reached else "0.5"
    hatch = HATCHES[entrant.family] if reached else ""
    strokes.tile(axes, x, y, colour, hatch)
    if not reached:
        strokes.note(axes, x, y, f"none in\n{HORIZON} s", ha="center", va="center", fontsize=6.5)
        return
    mark = "*" if first["edge"] else ""
    strokes.note(
        axes, x, y + 0.14, f"{entrant.label}\n{first['to_target']:.0f} s{mark}", ha="center", va="center", fontsize=6.5
    )
    after = f"{100 * (second['over_best'] - 1):.0f} %" if np.isfinite(second["to_target"]) else ""
    said = f"{ENTRANTS[second['algorithm']].label}\n+{after}" if after else "no other"
    strokes.note(axes, x, y - 0.28, said, ha="center", va="center", fontsize=5, color="0.25")


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """What a reader would expect."""
    rows = table(results)
    mild, severe, slow = STRAGGLERS[0], STRAGGLERS[-1], SECONDS[-1]

    def at(split: str, method: str, k: float, seconds: float, value: str) -> float:
        there = (rows["split"] == split) & (rows["algorithm"] == method) & (rows["cluster.straggler"] == k)
        return float(rows.loc[there & np.isclose(rows["seconds_of_a_model"], seconds), value].iloc[0])

    def first(split: str, k: float, seconds: float) -> str:
        return min(ENTRANTS, key=lambda method: at(split, method, k, seconds, "to_target"))

    found = []
    for split, said in TITLES.items():
        lead = f"{said}, free messages, k = {mild}: all-reduce's seconds over the first's"
        found.append(Claim(lead, 1.5, at(split, "allreduce_sgd", mild, 0, "over_best"), "<="))
    for split, said in TITLES.items():
        family = ENTRANTS[first(split, severe, 0)].family
        found.append(Claim(f"{said}, free messages, k = {severe}: who is first", SERVER, family))
    for split, said in TITLES.items():
        family = ENTRANTS[first(split, mild, slow)].family
        found.append(Claim(f"{said}, {slow} s a model, k = {mild}: who is first", RARE, family))
        lead = f"{said}, {slow} s a model, k = {mild}: all-reduce's seconds over the first's"
        found.append(Claim(lead, 3, at(split, "allreduce_sgd", mild, slow, "over_best"), ">=", never=True))
    both = ENTRANTS[first("random", severe, 1)].label
    found.append(Claim(f"{TITLES['random']}, 1 s a model, k = {severe}: who is first", "async EASGD", both))
    winners = rows[rows["first"]]
    found.append(Claim("methods that are first in some cell", 4, winners["algorithm"].nunique(), ">="))
    for split, said in TITLES.items():
        cells = rows[(rows["split"] == split) & rows["over_best"].notna()]
        safest = cells.groupby("algorithm")["over_best"].max().min()
        found.append(
            Claim(
                f"{said}: the safest method's seconds over the first's, in its worst cell", 2, safest, ">=", never=True
            )
        )
    skew = {m: over(at("skewed", m, 1, 1, "to_target"), at("random", m, 1, 1, "to_target")) for m in ENTRANTS}
    lead = "1 s a model, k = 1: what skewed labels cost local SGD, over what they cost all-reduce"
    found.append(Claim(lead, 1.1, over(skew["local_sgd"], skew["allreduce_sgd"]), ">=", null=1))
    part = results["random-allreduce_sgd"]
    slowest = theory.order_statistic_mean(lambda u: cluster.LAWS["lognormal"].make(u, sigma=SIGMA), WORKERS, WORKERS)
    ring = 2 * (WORKERS - 1) / WORKERS
    for k, seconds, expected in ((mild, slow, slowest + ring * slow), (8, 0, 8)):
        there = (part.runs["cluster.straggler"] == k) & np.isclose(
            MODEL / part.runs["cluster.bandwidth"].fillna(math.inf), seconds
        )
        ends = part.history[part.history["id"].isin(part.runs.loc[there, "id"])].groupby("id").last()
        pace = float((ends["time"] / ends["step"]).mean())
        lead = f"all-reduce, k = {k}, {seconds} s a model: seconds of a step"
        found.append(Claim(lead, float(expected), pace, tolerance=0.03))
    return found
