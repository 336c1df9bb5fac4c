"""Ying et al. 2021 (2110.13363), exponential graphs: how fast do they average, with log n neighbours or with one?

In the static exponential graph each worker hears those 1, 2, 4, ... places on; in the one-peer graph one of these at
each step, in turn. Left, the static graph's spectral gap: for even n it is 2/(1 + ⌈log₂n⌉) to rounding, from .67 at
n = 4 to .25 at 128, and for odd n larger. Right, what one period of the one-peer graph, ⌈log₂n⌉ steps, leaves of the
distance to the average: nothing but rounding, 1e-16, where n is a power of two, and at least .008 for any other n
tried. In between, runs: with 32 workers one peer a step has averaged exactly after 5 steps, with 5 models sent, where
the static graph needs 21 steps of 5 models for 4e-5; with 48 workers the static graph is the faster by steps (by models
sent it is not).

Differs: the statements on the gap and on exact averaging are checked, and the decay of the distance on random starts; the paper's
training of deep networks is not redone. Steps begin with the shortest hop; any order averages exactly.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from dopt import Results, theory
from dopt.figures import Claim
from dopt.plot import strokes
from dopt.plot.sheet import Picture, blank
from dopt.plot.style import COLOURS

WORKERS = [*range(3, 19), 24, 31, 32, 33, 48, 64, 65, 96, 127, 128]
SHOWN = (32, 48)  # whose distance is drawn step by step
STEPS, STARTS = 21, 64
ROUNDING = 1e-12  # of the distance at the start: below, it is exact to float64
LOOKS = {
    "exponential": {"color": COLOURS[0], "label": "static"},
    "one_peer_exponential": {"color": COLOURS[1], "label": "one-peer"},
}
DASHES = dict(zip(SHOWN, ("-", "--"), strict=True))

SWEEPS = {
    "main": {
        "parameters": {
            "algorithm": {"value": "gossip_sgd"},
            "problem": {"value": "consensus"},
            "problem.dim": {"value": STARTS},
            "topology": {"values": list(LOOKS)},
            "workers": {"values": WORKERS},
            "mix": {"value": "dense"},
            "learning_rate": {"value": 0.1},
            "steps": {"value": STEPS},
            "record_every": {"value": 1},
            "precision": {"value": "float64"},
            "metrics": {"value": ["consensus_distance"]},
        }
    }
}


def period(workers: int) -> int:
    """⌈log₂n⌉: neighbours of the static graph, and steps of the one-peer graph until it begins again."""
    return int(workers - 1).bit_length()


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """Three kinds of rows: the static graph's gap for each n, the one-peer distance after a period, and distances by step."""
    main, rows = results["main"], []
    histories = dict(iter(main.history.groupby("id", sort=False)))
    for run in main.runs.itertuples():
        said = {"topology": run.topology, "workers": run.workers, "ids": run.id}
        far = np.sqrt(histories[run.id]["consensus_distance"].to_numpy())
        far /= far[0]
        if run.topology == "exponential":
            rows.append(
                {"kind": "gap", **said, "value": run.spectral_gap, "theory": theory.exponential_gap(run.workers)}
            )
        else:
            rows.append({"kind": "period", **said, "step": period(run.workers), "value": far[period(run.workers)]})
        if run.workers in SHOWN:
            rows += [{"kind": "distance", **said, "step": k, "value": value} for k, value in enumerate(far)]
    return pd.DataFrame(rows)[["kind", "topology", "workers", "step", "value", "theory", "ids"]]


def _of(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    return rows[rows["kind"] == kind].sort_values("workers", kind="stable")


def draw(results: Mapping[str, Results]) -> Picture:
    """Gap against n; distance against steps for a power of two and another n; distance after a period against n."""
    rows = table(results)
    figure = blank("page", 2.4)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.15, 1))

    gap = _of(rows, "gap")
    strokes.path(
        left,
        gap["workers"],
        gap["theory"],
        color="0.6",
        linewidth=1,
        drawstyle="steps-pre",
        label="2/(1 + ⌈log₂n⌉)",
        log="x",
    )
    for odd, marker, name in ((0, "o", "even n"), (1, "x", "odd n")):
        of = gap[gap["workers"] % 2 == odd]
        strokes.path(
            left,
            of["workers"],
            of["value"],
            marker,
            color=LOOKS["exponential"]["color"],
            markersize=3.5,
            label=name,
            log="x",
        )
    left.set(ylabel="spectral gap", ylim=(0, 1.05))
    left.set_title("static exponential graph", loc="left")
    strokes.key(left, frameon=False, loc="upper right")

    for (topology, workers), of in _of(rows, "distance").groupby(["topology", "workers"]):
        look = LOOKS[topology]
        shown = np.maximum(of["value"], 1e-17)
        strokes.path(
            middle,
            of["step"],
            shown,
            DASHES[workers],
            color=look["color"],
            label=f"{look['label']}, n = {workers}",
            linewidth=1.2,
            log="y",
        )
    strokes.region(middle, 1e-18, 1e-14)
    strokes.note(middle, 20.5, 2e-15, "rounding", ha="right", va="center", fontsize=6.5, color="0.4")
    middle.set(xlabel="steps", ylabel="rms distance, over the start's", ylim=(1e-17, 3), xlim=(0, 21))
    middle.set_title(f"runs, rms over {STARTS} starts", loc="left")
    strokes.key(middle, frameon=False, loc="center right", fontsize=6.5)

    after = _of(rows, "period")
    power = after["workers"].map(lambda n: n & (n - 1) == 0)
    for chosen, marker, name in ((power, "o", "n = 2ᵏ"), (~power, "x", "other n")):
        strokes.path(
            right,
            after["workers"][chosen],
            np.maximum(after["value"][chosen], 1e-17),
            marker,
            color=LOOKS["one_peer_exponential"]["color"],
            markersize=3.5,
            label=name,
            log="xy",
        )
    strokes.region(right, 1e-18, 1e-14)
    right.set(ylim=(1e-17, 3), ylabel="rms distance after ⌈log₂n⌉ steps")
    right.set_title("one-peer exponential graph", loc="left")
    strokes.key(right, frameon=False, loc="center right")
    for axes in (left, right):
        axes.set_xlabel("workers n")
        axes.set_xticks([4, 8, 16, 32, 64, 128], ["4", "8", "16", "32", "64", "128"])
    for axes in (left, middle, right):
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """The gap's closed form, for which n one peer a step averages exactly, and what either sends."""
    rows, runs = table(results), results["main"].runs
    gap, after = _of(rows, "gap"), _of(rows, "period")
    even = gap[gap["workers"] % 2 == 0]
    odd = gap[gap["workers"] % 2 == 1]
    exact = after.loc[after["value"] <= ROUNDING, "workers"]
    powers = [n for n in WORKERS if n & (n - 1) == 0]
    sent = results["main"].history.groupby("id")["bytes_sent"].last() / (8 * STARTS * STEPS)  # models a step
    models = runs.assign(models=runs["id"].map(sent)).pivot(index="workers", columns="topology", values="models")
    off = models["exponential"] - [period(n) for n in models.index]
    return [
        Claim(
            f"static, {len(even)} even n: gap over 2/(1 + ⌈log₂n⌉), the one furthest from 1",
            1,
            max(even["value"] / even["theory"], key=lambda ratio: abs(ratio - 1)),
            absolute=1e-9,
        ),
        Claim(
            f"static, {len(odd)} odd n: gap over 2/(1 + ⌈log₂n⌉), the smallest",
            1,
            float((odd["value"] / odd["theory"]).min()),
            ">=",
        ),
        Claim(
            f"one-peer: all n of {len(after)} in {min(WORKERS)}..{max(WORKERS)} that average exactly in ⌈log₂n⌉ steps",
            " ".join(map(str, powers)),
            " ".join(map(str, exact)),
        ),
        Claim(
            "one-peer, n no power of two: distance left after ⌈log₂n⌉ steps, the smallest",
            1e-3,
            float(after.loc[~after["workers"].isin(powers), "value"].min()),
            ">=",
        ),
        Claim("static: models sent a step by each, less ⌈log₂n⌉, the largest miss", 0, float(off.abs().max())),
        Claim("one-peer: models sent a step by each, the most", 1, float(models["one_peer_exponential"].max())),
    ]
