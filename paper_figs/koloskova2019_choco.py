"""Koloskova et al. 2019 (1902.00340), section 5: does gossip need whole models? Suboptimality over epochs and over bits.

Logistic regression with 2000 dense features, sorted by label over a ring of 9 workers: four have only one class, four
only the other. Exact gossip (D-PSGD), CHOCO-SGD that sends the largest 1 % of the difference between its model and what
its neighbours know of it, and the same without memory, which sends the largest 1 % of the model itself. CHOCO needs
1.05 times the epochs of exact gossip to a suboptimality of 9e-4, and a 71st of the bits (each of its 20 numbers counts
32 bits and 11 for its place: 860 in place of 64000). Without memory no rate gets there: the mean model stays 2e-3 above
the minimum, and the workers' models fifty times as far apart as CHOCO's. Right: 25 workers that only average; without
memory they stop at a tenth of their first disagreement.

Differs: 4500 synthetic samples (dense, correlated, of norm one) in place of epsilon's 400000, which are too large to
come with dopt; batches of 5, not 1, and 50 epochs of 100 steps, not 10 of 44444; constant learning rates, tuned for
each method, not a/(t + b). The consensus rate 0.04 of top 1 % is the one that the authors' code has for epsilon (in
trials 0.02 did as well here; 0.08 diverged in the end). The workers that only average start from normal samples, not
from samples of epsilon. DCD and ECD, the paper's other baselines, are left out. A worker without memory takes the whole
step towards its neighbours (γ = 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dopt import Results
from dopt.figures import Claim
from dopt.figures import over as ratio
from dopt.plot import strokes
from dopt.plot.seeds import history, quartiles
from dopt.plot.sheet import Picture, blank
from dopt.plot.style import COLOURS, look
from dopt.sweeps.cells import tuned
from dopt.sweeps.spec import grid

WORKERS, SAMPLES, BATCH = 9, 4500, 5
EPOCH = SAMPLES // (WORKERS * BATCH)  # steps
TARGET = 0.0009
TOP = {"algorithm.compressor": "top_k", "algorithm.fraction": 0.01}
METHODS: dict[str, dict[str, Any]] = {
    "exact": {"algorithm": "gossip_sgd", "algorithm.adapt_then_combine": True},
    "choco": {"algorithm": "choco_sgd", "algorithm.consensus_rate": 0.04, **TOP},
    "plain": {"algorithm": "choco_sgd", "algorithm.consensus_rate": 1.0, "algorithm.memory": False, **TOP},
}
LOOKS: dict[str, dict[str, Any]] = {
    "exact": look("gossip_sgd"),
    "choco": look("choco_sgd"),
    "plain": {"color": COLOURS[6], "linestyle": ":"},
}
NAMES = {"exact": "exact gossip", "choco": "CHOCO, top 1 %", "plain": "top 1 %, without memory"}


def _training(method: dict[str, Any]) -> dict[str, Any]:
    return {
        "metric": {"name": "suboptimality", "goal": "minimize", "target": TARGET},
        "parameters": {
            **grid(method),
            "learning_rate": {"values": [0.71, 1.0, 1.41, 2.0]},
            "seed": {"values": list(range(10))},
            "workers": {"value": WORKERS},
            "topology": {"value": "ring"},
            "problem": {"value": "logistic"},
            "problem.l2": {"value": 1 / SAMPLES},
            "data": {"value": "factors"},
            "data.samples": {"value": SAMPLES * 10 // 9},  # a tenth is held out
            "partition": {"value": "by_label"},
            "batch_size": {"value": BATCH},
            "steps": {"value": 50 * EPOCH},
            "record_every": {"value": 2 * EPOCH},
            "metrics": {"value": ["consensus_distance", "loss", "suboptimality"]},
        },
    }


def _averaging(method: dict[str, Any]) -> dict[str, Any]:
    return {
        "metric": {"name": "consensus_distance", "goal": "minimize"},
        "parameters": {
            **grid(method),
            "learning_rate": {"value": 0.1},  # of gradients that are zero
            "workers": {"value": 25},
            "topology": {"value": "ring"},
            "problem": {"value": "consensus"},
            "problem.dim": {"value": 2000},
            "steps": {"value": 6000},
            "record_every": {"value": 120},
            "metrics": {"value": ["consensus_distance"]},
        },
    }


SWEEPS = {name: _training(method) for name, method in METHODS.items()}
SWEEPS |= {f"averaging-{name}": _averaging(method) for name, method in METHODS.items()}
EXTEND = tuple(METHODS)


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """Rows of kind `training` (at the best rate), `target` (what the best rate needs) and `averaging`."""
    rows = [targets(results)]
    for name in METHODS:
        chosen = rows[0].set_index("method")["ids"][name].split()
        records = history(results[name], "learning_rate")
        records = records[records["id"].isin(chosen)]
        by = ["learning_rate", "step", "bytes_sent"]
        rows.append(quartiles(records, by, "suboptimality").assign(kind="training", method=name))
        records = results[f"averaging-{name}"].history
        records = quartiles(records, ["step", "bytes_sent"], "consensus_distance")
        rows.append(records.assign(kind="averaging", method=name))
    found = pd.concat(rows, ignore_index=True)
    return found.assign(epoch=found["step"] / EPOCH, megabits=8e-6 * found["bytes_sent"])


def targets(results: Mapping[str, Results]) -> pd.DataFrame:
    """One row per method: its best rate, the median steps to the target, bytes sent by then, and how it ends."""
    rows = []
    for name in METHODS:
        cell = tuned(results[name], ["algorithm"]).iloc[0]
        chosen = cell["ids"].split()
        records = results[name].history
        sent = records.groupby("id")["bytes_sent"].max()[chosen[0]] / records["step"].max()
        last = records[(records["step"] == records["step"].max()) & records["id"].isin(chosen)]
        rows.append(
            {
                "kind": "target",
                "method": name,
                "learning_rate": cell["learning_rate"],
                "edge": cell["edge"],
                "step": cell["to_target"],
                "bytes_sent": sent * cell["to_target"],
                "bytes_a_step": sent,
                # the least that the median ever is
                "lowest": records[records["id"].isin(chosen)].groupby("step")["suboptimality"].median().min(),
                "apart": last["consensus_distance"].median(),
                "n": cell["seeds"],
                "ids": cell["ids"],
            }
        )
    return pd.DataFrame(rows)


def draw(results: Mapping[str, Results]) -> Picture:
    """Three panels: training over epochs and over bits, and averaging alone."""
    rows = table(results)
    figure = blank("page", 2.5)
    panels = figure.subplots(1, 3)
    best = rows[rows["kind"] == "target"].set_index("method")
    for name in METHODS:
        own = rows[rows["method"] == name]
        training, averaging = own[own["kind"] == "training"], own[own["kind"] == "averaging"]
        label = f"{NAMES[name]}, rate {best.loc[name, 'learning_rate']:g}" + "*" * bool(best.loc[name, "edge"])
        strokes.line(panels[0], "epoch", training, LOOKS[name], label)
        strokes.line(panels[1], "megabits", training[training["step"] > 0], LOOKS[name])
        strokes.line(panels[2], "step", averaging, LOOKS[name], NAMES[name])
    for axes in panels[:2]:
        strokes.level(axes, TARGET)
        axes.set_ylim(4e-4, 2)
    for axes in panels:
        axes.set_yscale("log")
    panels[0].set_ylabel("suboptimality of the mean model")
    panels[0].set_xlabel("epochs")
    panels[1].set_xscale("log")
    panels[1].set_xlabel("megabits sent by a worker")
    panels[2].set_xlabel("steps")
    panels[2].set_ylabel("mean ‖xᵢ - x̄‖²")
    panels[2].set_ylim(1e-4, 1e8)
    panels[0].set_title(f"{WORKERS} workers, d = 2000, split by label", loc="left")
    panels[1].set_title(f"the same; {int(best['n'].iloc[0])} seeds, quartiles", loc="left")
    panels[2].set_title("25 workers average, d = 2000", loc="left")
    for axes in (panels[0], panels[2]):
        strokes.key(axes, loc="upper right", fontsize=6, handlelength=2.4, borderaxespad=0.2)
    edge = "; * edge of the grid" * bool(best["edge"].any())
    figure.suptitle(f"ring, no delay, {SAMPLES} made samples (epsilon has 400000){edge}", fontsize=8)
    return figure


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """CHOCO against exact gossip in epochs and bits, and what becomes of it without memory."""
    rows = targets(results).set_index("method")

    def over(what: str, a: str, b: str) -> float:
        return ratio(rows.loc[a, what], rows.loc[b, what])

    def left(name: str) -> float:
        apart = results[f"averaging-{name}"].history["consensus_distance"]
        return float(apart.iloc[-1] / apart.iloc[0])

    return [
        Claim(
            "bits of an exact message, over those of CHOCO's",
            74,
            over("bytes_a_step", "exact", "choco"),
            tolerance=0.01,
        ),
        Claim(f"epochs to suboptimality {TARGET:g}, CHOCO over exact", 1.3, over("step", "choco", "exact"), "<="),
        Claim("bits until there, exact over CHOCO", 74 / 1.3, over("bytes_sent", "exact", "choco"), ">="),
        Claim("lowest suboptimality without memory, over that of CHOCO", 2, over("lowest", "plain", "choco"), ">="),
        Claim(
            "suboptimality without memory reaches the target",
            "never",
            "never" if np.isinf(rows.loc["plain", "step"]) else "yes",
        ),
        Claim(
            "squared distances between models at the end, without memory over CHOCO",
            10,
            over("apart", "plain", "choco"),
            ">=",
        ),
        Claim("averaging: CHOCO's last disagreement, over the first", 1e-5, left("choco"), "<="),
        Claim("averaging: last disagreement without memory, over the first", 0.05, left("plain"), ">="),
    ]
