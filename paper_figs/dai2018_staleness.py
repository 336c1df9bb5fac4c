"""Dai et al. 2018 (1810.03264): which models and which optimizers does staleness slow down most?

Updates until a training loss is reached, over those without staleness; each gradient is 0..s updates old, uniformly.
All of them slow down, and more so for larger s. With the rate tuned at each s, momentum slows down most (3.3 to 9.2
times at s = 8), then Adam (3.0 to 6.2), then SGD (2.0 to 3.6); RMSProp slows down least (2.0 to 3.1), unlike in the
paper. With one rate for all s, at which each optimizer is equally fast without staleness, the deeper models slow down
more than logistic regression with each optimizer; with momentum they do not get there at s = 32. How much staleness an
optimizer tolerates depends strongly on its rate: with the usual rates RMSProp slows down 11.5 times at s = 32 on the
MLP, and SGD, whose rate is then far below its limit, 1.7 times.

Differs: The paper trains on MNIST and CIFAR-10, deep networks and others; here it is digits (no dependency brings
MNIST; `--full` takes it for the MLP), an MLP of 3 x 32 units, and instead of convolutional networks a transformer of
width 16 on 16 characters of the small text, so that its target and data differ from the others'. In the paper each
worker's updates arrive late at each other worker; here one worker's gradient is taken at a model of the past. As far as
we can tell the paper keeps one rate for each optimizer through all s; here it is tuned, on the seeds that are shown.
The target is a training loss, the paper's an accuracy.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dopt import Results
from dopt.figures import Claim, over
from dopt.plot import strokes
from dopt.plot.seeds import quartiles
from dopt.plot.sheet import Picture, blank
from dopt.plot.style import COLOURS
from dopt.sweeps.cells import scores
from dopt.sweeps.spec import grid


class Model(NamedTuple):
    """What is trained, and how far."""

    label: str
    target: float  # of the training loss
    staleness: list[int]
    seeds: int
    fixed: dict[str, Any]
    rates: dict[str, list[float]]  # optimizer -> grid


def _doubling(least: float, count: int) -> list[float]:
    return [least * 2**i for i in range(count)]


MODELS = {
    "softmax": Model(
        "logistic regression, no hidden layer",
        *(0.3, [0, 2, 8, 32], 10),
        {"problem": "softmax", "problem.l2": 0.0, "batch_size": 32, "steps": 1024, "record_every": 8},
        {
            "sgd": _doubling(0.1, 7),
            "momentum": _doubling(0.01, 8),
            "rmsprop": _doubling(0.002, 8),
            "adam": _doubling(0.002, 8),
        },
    ),
    "mlp": Model(
        "MLP, 3 hidden layers",
        *(0.5, [0, 2, 8, 32], 10),
        {
            **{"problem": "mlp", "problem.hidden": [32, 32, 32], "batch_size": 32, "steps": 1024},
            **{"record_every": 8, "eval_samples": 512},
        },
        {
            "sgd": _doubling(0.0125, 7),
            "momentum": _doubling(0.00125, 8),
            "rmsprop": _doubling(0.0005, 6),
            "adam": _doubling(0.0005, 6),
        },
    ),
    "transformer": Model(
        "transformer, 2 blocks",
        *(3.2, [0, 8, 32], 3),
        {
            **{"problem": "transformer", "problem.width": 16, "problem.layers": 2, "data.context": 16},
            **{"batch_size": 8, "steps": 768, "record_every": 16, "eval_samples": 64},
        },
        {
            "sgd": _doubling(0.05, 5),
            "momentum": _doubling(0.0025, 6),
            "rmsprop": _doubling(0.001, 5),
            "adam": _doubling(0.0005, 6),
        },
    ),
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd"},
    "momentum": {"optimizer": "sgd", "optimizer.momentum": 0.9},
    "rmsprop": {"optimizer": "rmsprop"},
    "adam": {"optimizer": "adam"},
}
NAMES = {"sgd": "SGD", "momentum": "momentum 0.9", "rmsprop": "RMSProp", "adam": "Adam"}
CELL = ["model", "optimizer_", "delay.high"]


def _sweep(model: Model, optimizer: str) -> dict[str, Any]:
    fixed = {"algorithm": "delayed_sgd", "workers": 1, "delay": "uniform", "delay.max": max(model.staleness)}
    fixed |= {**model.fixed, **OPTIMIZERS[optimizer], "metrics": ["loss"]}
    swept = {
        "delay.high": model.staleness,
        "learning_rate": model.rates[optimizer],
        "seed": list(range(model.seeds)),
    }
    return {
        "metric": {"name": "loss", "goal": "minimize", "target": model.target},
        "parameters": grid(fixed, swept),
    }


SWEEPS = {f"{name}-{optimizer}": _sweep(model, optimizer) for name, model in MODELS.items() for optimizer in OPTIMIZERS}
EXTEND = tuple(SWEEPS)
FULL = {f"mlp-{optimizer}": {"data": "mnist", "problem.hidden": [(256, 256, 256)]} for optimizer in OPTIMIZERS}
ALIKE = 150  # updates that training without staleness takes, nearly, at the rate that is kept
SAID = {"tuned": "rate tuned at each s", "kept": "one rate for all s"}
USUAL = {
    "sgd": 0.025,
    "rmsprop": 0.008,
}  # those of the grids that are nearest to what is usual, 0.01, and reach the target
RMSPROP = (
    "RMSProp suffers least from staleness of the four here, with its rate tuned anew or kept. The paper keeps one rate for each optimizer "
    "through all s, so that what it compares are also rates: a small one for SGD leaves it far from its limit. With rates as "
    "they are usual the paper's order comes out here, too (next claim)."
)
DEPTH = (
    "Where the rate is tuned anew, logistic regression starts from 24 to 32 updates at s = 0, since, being convex, it allows very large "
    "rates as long as nothing is stale; then a delay of 4 updates in the mean is much of all that it needs. The paper does not tune "
    "for each s. At one rate for all s, and the same speed without staleness, depth costs what the paper says."
)


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """Updates until the target; `kind`: rate `tuned` anew for each s, or `kept`, the same for all s, or as is `usual`.

    The one that is kept needs about `ALIKE` updates without staleness, so that optimizers are compared at one speed.
    `slowdown` is over s = 0.
    """
    found = []
    for name in MODELS:
        for optimizer in OPTIMIZERS:
            runs = scores(results[f"{name}-{optimizer}"])
            runs = runs.assign(model=name, optimizer_=optimizer, updates=runs["to_target"].fillna(np.inf))
            cells = quartiles(runs, [*CELL, "learning_rate"], "updates")
            tuned = cells.sort_values(["median", "learning_rate"], kind="stable").groupby("delay.high").head(1)
            tried = cells.groupby("delay.high")["learning_rate"].agg(["min", "max"]).loc[tuned["delay.high"]].to_numpy()
            ends = (tuned[["learning_rate"]].to_numpy() == tried).any(1) & np.isfinite(tuned["median"])
            # a grid may have grown at one s alone
            everywhere = (
                cells.groupby("learning_rate")["delay.high"].transform("nunique") == cells["delay.high"].nunique()
            )
            fresh = cells[everywhere & (cells["delay.high"] == 0) & np.isfinite(cells["median"])]
            rate = fresh.loc[np.abs(np.log(fresh["median"] / ALIKE)).idxmin(), "learning_rate"]
            kept = cells[cells["learning_rate"] == rate]
            parts = {"tuned": tuned.assign(edge=ends), "kept": kept}
            if name == "mlp" and optimizer in USUAL:
                parts["usual"] = cells[np.isclose(cells["learning_rate"], USUAL[optimizer])]
            for kind, part in parts.items():
                alone = part.loc[part["delay.high"] == 0, "median"].iloc[0]
                found.append(part.sort_values("delay.high").assign(kind=kind, slowdown=part["median"] / alone))
    return pd.concat(found, ignore_index=True).rename(columns={"optimizer_": "optimizer"})


def draw(results: Mapping[str, Results]) -> Picture:
    """Slowdown over staleness: a column for each model, rate tuned anew above and kept below."""
    rows = table(results)
    figure = blank("page", 3.9)
    axes = figure.subplots(2, len(MODELS), sharex=True, sharey=True)
    dashes = dict(zip(OPTIMIZERS, ["-", "--", "-.", ":"], strict=True))
    for (i, kind), (j, (name, model)) in itertools.product(enumerate(SAID), enumerate(MODELS.items())):
        ax, here = axes[i, j], rows[(rows["kind"] == kind) & (rows["model"] == name)]
        for colour, (optimizer, dash) in zip(COLOURS, dashes.items(), strict=False):
            cell = here[here["optimizer"] == optimizer].copy()
            alone = cell.loc[cell["delay.high"] == 0, "median"].iloc[0]
            cell[["median", "low", "high"]] /= alone
            mark = "*" if cell["edge"].fillna(False).any() else ""
            look = {"color": colour, "linestyle": dash, "marker": "o", "ms": 2.5}
            strokes.line(ax, "delay.high", cell, look, f"{NAMES[optimizer]}: {alone:.0f}{mark}")
        strokes.key(ax, frameon=False, fontsize=6, title="updates at s = 0", title_fontsize=6, loc="upper left")
        ax.set(yscale="log", ylim=(0.7, 60))
        ax.set_xscale("symlog", linthresh=2)
        ax.set_xticks([0, 2, 8, 32], ["0", "2", "8", "32"])
        ax.minorticks_off()
        if not i:
            ax.set_title(f"{model.label}\n(loss {model.target}, n = {here['n'].max():.0f} seeds)", fontsize=7.5)
        ax.set_yticks([1, 3, 10, 30], ["1", "3", "10", "30"])
    for said, ax in zip(SAID.values(), axes[:, 0], strict=True):
        ax.set_ylabel(f"updates over those at s = 0\n{said}", fontsize=7)
    for ax in axes[1]:
        ax.set_xlabel("staleness (updates), uniform on 0..s", fontsize=7)
    star = "; *: best rate at the edge of its grid" if rows["edge"].fillna(False).any() else ""
    figure.suptitle(
        "What staleness costs until a training loss is reached, on digits and a text (scaled down from MNIST and CIFAR-10);\n"
        f"median and quartiles over seeds; x: not reached beyond, in 1024 updates (transformer: 768){star}",
        fontsize=7.5,
    )
    return figure


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """What the paper says, where the rate is tuned anew for each s, and where it is kept as the paper keeps it."""
    rows = table(results)
    slow = rows.set_index(["kind", "model", "optimizer", "delay.high"])["slowdown"]
    pairs = [
        (slow["tuned", name, optimizer, s], slow["tuned", name, optimizer, t])
        for name, model in MODELS.items()
        for optimizer in OPTIMIZERS
        for s, t in itertools.pairwise(model.staleness)
    ]
    found = [
        Claim(
            "rate tuned: slowdown at an s over that at the next smaller, least of all",
            1.1,
            np.min([after / before for before, after in pairs if before != np.inf]),
            ">=",
            null=1,
        )
    ]
    for optimizer, differs in (("momentum", ""), ("adam", ""), ("rmsprop", RMSPROP)):
        least = np.min([over(slow["tuned", name, optimizer, 8], slow["tuned", name, "sgd", 8]) for name in MODELS])
        lead = f"rate tuned, s = 8: {NAMES[optimizer]}'s slowdown over SGD's, least over models"
        found.append(Claim(lead, 1.05, float(least), ">=", differs=differs, null=1))
    order = over(slow["usual", "mlp", "rmsprop", 32], slow["usual", "mlp", "sgd", 32])
    lead = f"MLP, one rate each, as is usual ({USUAL['rmsprop']} and {USUAL['sgd']}), s = 32: RMSProp's slowdown over SGD's"
    found.append(Claim(lead, 2, float(order), ">=", null=1))
    for kind, name, differs in (("kept", "mlp", ""), ("kept", "transformer", ""), ("tuned", "mlp", DEPTH)):
        least = np.min(
            [over(slow[kind, name, optimizer, 8], slow[kind, "softmax", optimizer, 8]) for optimizer in OPTIMIZERS]
        )
        lead = f"rate {kind}, s = 8: slowdown of {name} over logistic regression, least over optimizers"
        found.append(Claim(lead, 1.05, float(least), ">=", differs=differs, null=1))
    return found
