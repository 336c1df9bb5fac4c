"""Ho et al. 2013 (NIPS 26), stale synchronous parallel: what is gained by letting fast workers run s steps ahead?

8 workers push gradients to a server; a worker that is more than s pushes ahead of the slowest waits. s = 0 is a barrier
in each step, s = ∞ asynchronous. Where all workers are equal and only chance makes them late (exponential times), slack
raises the throughput: from 1/H_8 = 0.37 pushes per second and worker at s = 0 to 0.72 at s = 3 and 1 at s = ∞. It costs
almost nothing in gradients (385 to 455 to the target for any s), so that the target takes 153 s behind barriers, 66 s
at s = 3 and 55 s at s = 30.

Where one worker is 4 times slower for good, no finite slack helps in the end: the long-run throughput is 0.21 at s = 0
and 0.25, the straggler's own, from s = 1 to 30; at s = ∞ it is 0.91. The target takes 277 s at s = 0, 189 s at s = 10,
and 64 s at s = ∞; 115 s at s = 30, where the seven others may be 210 pushes ahead together, half of the 445 gradients
of this race.

Differs: softmax regression on handwritten digits, split at random, and a simulated clock without messages; each worker
pulls the whole model after each push. On such data staleness costs hardly any gradients, so that only the gain of slack
is seen here and not its price. The learning rate is tuned for each s and cluster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dopt import Results, theory
from dopt.figures import Claim, over
from dopt.plot import seeds, strokes, style
from dopt.plot.sheet import Picture, blank
from dopt.sweeps import cells

N, SLOW, TARGET = 8, 4, 0.02
COMMON: dict[str, Any] = {
    "algorithm": {"values": ["ssp_sgd", "async_sgd"]},
    "workers": {"value": N},
    "cluster": {"value": "exponential"},
    "cluster.straggler": {"values": [1, SLOW]},
    "seed": {"values": list(range(10))},
}
CLOCK: dict[str, Any] = {
    "algorithm.slack": {"values": [0, 1, 2, 3, 5, 10, 20, 30]},
    "learning_rate": {"value": 0.01},
    "problem": {"value": "quadratic"},
    "problem.dim": {"value": 1},
    "gradients": {"value": 16000},
    "record_every": {"value": 8000},
    "metrics": {"value": ["loss"]},
}
RACE: dict[str, Any] = {
    "algorithm.slack": {"values": [0, 1, 3, 10, 30]},
    "learning_rate": {"values": [0.1, 0.2, 0.4, 0.8, 1.6]},
    "problem": {"value": "softmax"},
    "problem.l2": {"value": 0.01},
    "batch_size": {"value": 8},
    "gradients": {"value": 2000},
    "record_every": {"value": 10},
    "metrics": {"value": ["suboptimality"]},
}
SWEEPS = {
    "clock": {"metric": {"name": "loss"}, "parameters": {**COMMON, **CLOCK}},
    "race": {
        "metric": {"name": "suboptimality", "goal": "minimize", "target": TARGET},
        "parameters": {**COMMON, **RACE},
    },
}
EXTEND = ("race",)
LOOKS: dict[int, dict[str, Any]] = {
    1: {"color": style.COLOURS[0], "linestyle": "-"},
    SLOW: {"color": style.COLOURS[1], "linestyle": "--"},
}
NAMES = {1: "all alike", SLOW: f"one {SLOW} times slower"}


def _slack(runs: pd.DataFrame) -> pd.Series:
    return runs["algorithm.slack"].where(runs["algorithm"] == "ssp_sgd", np.inf).rename("slack")


def _pace(results: Results) -> pd.Series:
    """Pushes a second of each run, of one worker in the mean, in the second half: at first the fast are not ahead yet."""
    ends = results.history.groupby("id").tail(2).groupby("id")[["step", "time"]].agg(np.ptp)
    return results.runs["id"].map(ends["step"] / ends["time"] / N)


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """Of each cluster and slack: pushes a second; gradients and seconds to the target, at the rate tuned for seconds."""
    clock, race = results["clock"], results["race"]
    runs = clock.runs.assign(slack=_slack(clock.runs), value=_pace(clock), panel="pace")
    tried = race.runs.assign(cell=_slack(race.runs))
    chosen = []
    for axis in ("gradients", "time"):
        best = cells.best(race, ["algorithm", "algorithm.slack", "cluster.straggler"], "time")
        reached = cells.scores(race, axis).set_index("id")["to_target"].fillna(np.inf)
        chosen.append(
            best.assign(slack=best["id"].map(tried.set_index("id")["cell"]), value=best["id"].map(reached), panel=axis)
        )
    by = ["panel", "cluster.straggler", "slack", "learning_rate", "edge"]
    rows = seeds.quartiles(pd.concat([runs.assign(edge=False), *chosen]), by, "value")
    means = runs.groupby(["cluster.straggler", "slack"])["value"].mean()
    cell = pd.MultiIndex.from_frame(rows[["cluster.straggler", "slack"]])
    rows["mean"] = means.reindex(cell).to_numpy()
    rows.loc[rows["panel"] != "pace", "mean"] = np.nan
    return rows.sort_values(by[:3], kind="stable").reset_index(drop=True)


def draw(results: Mapping[str, Results]) -> Picture:
    """Three panels over s: throughput, gradients to the target, seconds to the target."""
    rows = table(results)
    figure = blank("page", 2.5)
    panels = dict(zip(("pace", "gradients", "time"), figure.subplots(1, 3), strict=True))
    slacks = sorted(rows["slack"].unique())
    places = {s: i for i, s in enumerate(slacks)}
    for (panel, straggler), own in rows.groupby(["panel", "cluster.straggler"], sort=False):
        at = own.assign(place=own["slack"].map(places))
        look = {**LOOKS[straggler], "marker": "o", "markersize": 3.5}
        strokes.line(panels[panel], "place", at, look, NAMES[straggler])
        for cell in at[at["edge"]].itertuples():
            strokes.note(panels[panel], cell.place, cell.median, "*")
    for value, words in (
        (1 / theory.barrier_time(N), "1/H₈"),
        (1, "1"),
        (1 / SLOW, f"1/{SLOW}"),
        (_asynchronous(), ""),
    ):
        strokes.level(panels["pace"], value, zorder=0)
        strokes.note(panels["pace"], 2.5, value, words, up=2, fontsize=6, ha="center")
    panels["pace"].set(ylabel="pushes a second and worker", ylim=(0, 1.1))
    panels["gradients"].set(ylabel=f"gradients to f - f* = {TARGET:g}", ylim=(0, None))
    panels["time"].set(ylabel=f"seconds to f - f* = {TARGET:g}", ylim=(0, None))
    for axes in panels.values():
        axes.set_xticks(range(len(slacks)), ["∞" if math.isinf(s) else f"{s:g}" for s in slacks])
        axes.set_xlabel("slack s")
        axes.spines[["top", "right"]].set_visible(False)
    strokes.key(panels["gradients"], frameon=False, loc="lower right")
    edges = "; *: rate at the edge of its grid" if rows["edge"].any() else ""
    said = f"{N} workers, exponential times; softmax regression on digits, rate tuned for each s"
    figure.suptitle(f"{said}; median and quartiles of {rows['n'].max()} seeds{edges}", fontsize=8)
    return figure


def _asynchronous() -> float:
    """Pushes a second of a worker in the mean where nobody waits and one is slow."""
    return (N - 1 + 1 / SLOW) / N


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """Throughput at both ends, the cap, and that slack pays where only luck is unequal."""
    rows = table(results)
    pace = rows[rows["panel"] == "pace"].set_index(["cluster.straggler", "slack"])["mean"]
    alike, slow = pace[1], pace[SLOW]
    finite = slow[np.isfinite(slow.index)]
    seconds = rows[rows["panel"] == "time"].set_index(["cluster.straggler", "slack"])["median"]
    gradients = rows[rows["panel"] == "gradients"].set_index(["cluster.straggler", "slack"])["median"]
    s, most = f"one {SLOW} times slower", int(finite.index.max())
    return [
        Claim(
            "all alike: pushes a second and worker at s = 0, 1/H_8",
            1 / theory.barrier_time(N),
            alike[0],
            tolerance=0.02,
        ),
        Claim("all alike: at s = ∞, 1", 1, alike[np.inf], tolerance=0.02),
        Claim("all alike: least gain of throughput from one s to the next", 0, alike.diff().min(), ">="),
        Claim(
            f"{s}: largest throughput of any finite s, the straggler's own",
            1 / SLOW,
            finite.max(),
            "<=",
            tolerance=0.02,
        ),
        Claim(f"{s}: throughput at s = {most}, which is near that", 1 / SLOW, finite[most], tolerance=0.03),
        Claim(f"{s}: at s = ∞, (7 + 1/{SLOW})/8", _asynchronous(), slow[np.inf], tolerance=0.02),
        Claim(
            "all alike: seconds to the target at s = 0, over those at the best finite s",
            1.5,
            over(seconds[1][0], seconds[1].iloc[:-1].min()),
            ">=",
        ),
        Claim(
            f"{s}: seconds to the target at s = {most}, over those at s = ∞",
            1.5,
            over(seconds[SLOW][most], seconds[SLOW][np.inf]),
            ">=",
        ),
        Claim(
            "all alike: gradients to the target at s = ∞, over those at s = 0",
            1.5,
            over(gradients[1][np.inf], gradients[1][0]),
            "<=",
        ),
    ]
