"""Nedić, Olshevsky, Rabbat 2018 (1709.08765), the table of topologies: how does averaging slow down as the network grows?

Seven families of graphs with Metropolis weights. Left, the spectral gap: path and ring lose it as n^-2 (fitted
exponents -2.00 and -1.99 over n = 8..256), the grid as 1/n (-1.01 over the squares 9..256), a star as 1/n exactly; the
hypercube has 2/(1 + log₂n), and Margulis' expander, with at most 8 links, never falls below .21. Right, what that
means: the steps in which runs bring the workers' rms distance to a hundredth, 36 400 on a path of 256, 11 300 on the
ring, 274 on the grid and 11 or 12 on expander and hypercube. Lines say when they should, computed from all eigenvalues
of W; runs are within a step or 5 % of them.

The exponents hardly depend on small n: n = 8 changes the ring's exponent by .01, and the path's by less.

Differs: the paper bounds the time of the worst start, for lazy Metropolis weights, 1/(2 max(dᵢ, dⱼ)); drawn are random
starts and plain Metropolis weights, for which the hypercube's gap is that simple. Runs with the lazy ones are included,
too: their exponents are claims of their own, and their gaps are about half to three quarters as large, so that the
expander's bound of 0.2 holds for the plain weights only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dopt import Results
from dopt.facts import wiring
from dopt.figures import Claim
from dopt.plot import strokes
from dopt.plot.sheet import Picture, blank
from dopt.plot.style import COLOURS
from dopt.sweeps.cells import first_at

POWERS = [2**k for k in range(3, 9)]
SQUARES = [side**2 for side in range(3, 17)]
STARTS = 64  # coordinates, each a random start of its own
TARGET = 1e-2  # of the rms distance at the start
LOOKS: dict[str, dict[str, Any]] = {
    "path": {"color": COLOURS[0], "linestyle": "-", "marker": "o"},
    "ring": {"color": COLOURS[1], "linestyle": "--", "marker": "s"},
    "star": {"color": COLOURS[2], "linestyle": "-.", "marker": "*"},
    "grid": {"color": COLOURS[3], "linestyle": ":", "marker": "^"},
    "torus": {"color": COLOURS[4], "linestyle": (0, (4, 1, 1, 1, 1, 1)), "marker": "v"},
    "hypercube": {"color": COLOURS[5], "linestyle": (0, (6, 1.5)), "marker": "D"},
    "expander": {"color": COLOURS[6], "linestyle": (0, (1, 1)), "marker": "P"},
}
NAMES = {"expander": "Margulis expander"}


def _part(topologies: list[str], workers: list[int], steps: int, every: int = 1) -> dict[str, Any]:
    return {
        "parameters": {
            "algorithm": {"value": "gossip_sgd"},
            "problem": {"value": "consensus"},
            "problem.dim": {"value": STARTS},
            "topology": {"values": topologies},
            "weights": {"values": ["metropolis", "lazy"]},
            "weights.base": {"value": "metropolis_tight"},
            "mix": {"value": "neighbours" if "path" in topologies else "dense"},
            "workers": {"values": workers},
            "learning_rate": {"value": 0.1},
            "steps": {"value": steps},
            "record_every": {"value": every},
            "metrics": {"value": ["consensus_distance"]},
        }
    }


# path and ring take about n² steps, so that each n has a part of its own
SWEEPS = {
    **{f"slow{n}": _part(["path", "ring"], [n], n**2 + 64, max(1, n**2 // 256)) for n in POWERS},
    "powers": _part(["star", "hypercube"], POWERS, 5 * max(POWERS)),
    "squares": _part(["grid", "torus", "expander"], SQUARES, 320),
    "smallest": _part(["expander"], [4], 32),
}


def _chosen(results: Mapping[str, Results], weights: str) -> pd.DataFrame:
    parts = [part.runs.assign(part=name) for name, part in results.items()]
    runs = pd.concat(parts, ignore_index=True)
    return runs[runs["weights"] == weights].sort_values("workers", kind="stable")


def expected_steps(results: Results, identity: str, record_every: int) -> float:
    """When the runs should be at TARGET, by the eigenvalues of W: random starts keep Σ λᵢ²ᵏ/(n - 1) of their variance.

    At the first record from then on, the sum over all eigenvalues but 1.
    """
    W = wiring.matrix(results.run(identity))
    squares = np.linalg.eigvalsh(W - 1 / len(W)) ** 2  # of the average, 0
    k, last = 0, 1
    while (squares**last).sum() > TARGET**2 * (len(W) - 1):
        k, last = last, 2 * last
    while last - k > 1:
        middle = (k + last) // 2
        k, last = (middle, last) if (squares**middle).sum() > TARGET**2 * (len(W) - 1) else (k, middle)
    return record_every * -(-last // record_every)


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """A row per topology and n: spectral gap, steps until TARGET of the distance is left, and those by the eigenvalues."""
    rows = []
    histories = {name: dict(iter(part.history.groupby("id", sort=False))) for name, part in results.items()}
    for run in _chosen(results, "metropolis").itertuples():
        record = histories[run.part][run.id]
        far = np.sqrt(record["consensus_distance"].to_numpy(float))
        rows.append(
            {
                "topology": run.topology,
                "workers": run.workers,
                "spectral_gap": run.spectral_gap,
                "steps": first_at(record["step"].to_numpy(), far, TARGET * far[0]),
                "expected_steps": expected_steps(results[run.part], run.id, run.record_every),
                "ids": run.id,
            }
        )
    order = {name: place for place, name in enumerate(LOOKS)}
    return pd.DataFrame(rows).sort_values(["topology", "workers"], key=lambda c: c.replace(order), kind="stable")


def draw(results: Mapping[str, Results]) -> Picture:
    """Gap, and steps to consensus, against the number of workers."""
    rows = table(results)
    figure = blank("page", 2.6)
    left, right = figure.subplots(1, 2)
    for name, look in LOOKS.items():
        of = rows[rows["topology"] == name]
        strokes.path(
            left,
            of["workers"],
            of["spectral_gap"],
            label=NAMES.get(name, name),
            markersize=3.5,
            linewidth=1,
            **look,
            log="xy",
        )
        strokes.path(
            right,
            of["workers"],
            of["expected_steps"],
            color=look["color"],
            linestyle=look["linestyle"],
            linewidth=1,
            log="xy",
        )
        strokes.path(
            right,
            of["workers"],
            of["steps"],
            color=look["color"],
            linestyle="none",
            marker=look["marker"],
            markersize=3.5,
            log="xy",
        )
    left.set(ylabel="spectral gap, 1 - ‖W - J‖₂")
    right.set(ylabel=f"steps to {TARGET:g} of the distance")
    right.set_title(f"runs, rms over {STARTS} starts (lines: by eigenvalues)", loc="left")
    left.set_title("Metropolis weights, 1/(1 + the larger degree)", loc="left")
    for axes in (left, right):
        axes.set_xlabel("workers n")
        axes.set_xticks([4, 8, 16, 32, 64, 128, 256], ["4", "8", "16", "32", "64", "128", "256"])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    strokes.key(
        figure,
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=7,
        frameon=False,
        handlelength=2.4,
        columnspacing=1.2,
    )
    return figure


def slope(rows: pd.DataFrame, name: str, value: str = "spectral_gap") -> float:
    """Of log value against log n, by least squares, over all n from 8 on that there are."""
    of = rows[(rows["topology"] == name) & (rows["workers"] >= min(POWERS))]
    return float(np.polyfit(np.log(of["workers"].astype(float)), np.log(of[value].astype(float)), 1)[0])


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """Slopes and constants of the gap, also for the paper's lazy weights; and that the runs take as many steps as they should."""
    rows = table(results)
    lazy = _chosen(results, "lazy")
    found = []
    for said, chosen in (("", rows), (", the paper's lazy weights", lazy)):
        for name, power, absolute in (("path", -2, 0.05), ("ring", -2, 0.05), ("grid", -1, 0.1)):
            sizes = chosen.loc[(chosen["topology"] == name) & (chosen["workers"] >= 8), "workers"]
            says = f"{name}: log-log slope of the gap, n = {sizes.min()}..{sizes.max()}{said}"
            found.append(Claim(says, power, slope(chosen, name), absolute=absolute))
    expander = rows[rows["topology"] == "expander"]
    found.append(
        Claim(f"Margulis expander: least gap of {len(expander)} n <= 256", 0.2, expander["spectral_gap"].min(), ">=")
    )
    cube = rows[rows["topology"] == "hypercube"]
    off = cube["spectral_gap"] * (1 + np.log2(cube["workers"].astype(float))) / 2 - 1
    found.append(
        Claim("hypercube: gap over 2/(1 + log₂n) - 1, the largest in size", 0, float(off.abs().max()), absolute=1e-12)
    )
    closed = {
        "path": lambda n: 2 / 3 * (1 - np.cos(np.pi / n)),
        "ring": lambda n: 2 / 3 * (1 - np.cos(2 * np.pi / n)),
        "star": lambda n: 1 / n,
    }
    for name, words in (("path", "⅔(1 - cos π/n)"), ("ring", "⅔(1 - cos 2π/n)"), ("star", "1/n")):
        of = rows[rows["topology"] == name]
        off = float((of["spectral_gap"] / closed[name](of["workers"].astype(float)) - 1).abs().max())
        found.append(Claim(f"{name}: gap over {words} - 1, the largest in size", 0, off, absolute=1e-9))
    for name in LOOKS:
        of = rows[rows["topology"] == name].iloc[-1]
        says = f"{name}, n = {of['workers']}: steps to {TARGET:g}, runs against eigenvalues"
        found.append(Claim(says, of["expected_steps"], of["steps"], tolerance=0.05, absolute=1.0))
    return found
