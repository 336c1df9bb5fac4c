"""Stich 2018 (1805.09767), with EASGD (1412.6651) and DiLoCo (2311.08105): how rarely may workers communicate?

Logistic regression on handwritten digits, odd against even, by 8 workers that average at every H-th step only. Split at
random, H costs nothing: 88 steps to the target for H = 1, 4, 16 and 64, and so a sixteenth of the messages at H = 16;
EASGD (x̄, with H = 16) takes 96, DiLoCo, whose momentum has to build up, 164. Split by label local steps pull the
workers apart: 88 and 492 steps for H = 1 and 4, never for H = 16 and 64, nor for EASGD. DiLoCo allows small rates
inside, since its outer momentum makes up for them, and gets there with 28 messages at H = 16, where H = 1 needs 88.

Right: why. Split at random only variance is left, which falls as 1/n, with local steps as well as without. Workers with
different curvatures have a bias, O(α(H - 1)) in distance and so O(α²(H - 1)²) in f, as the closed form of the theory
says. On the same quadratics (not drawn) EASGD ends where its own closed form says, and DiLoCo follows Nesterov's
momentum round by round.

Differs: Stich trains on w8a (300 features, λ = 1/N) with rates that fall as 1/t and averages of the iterates; here it
is digits (64 features, λ = 0.01) and constant rates, tuned for each curve to the fewest steps to the target. His
theorem holds for iid data alone. Zhang et al. and Douillard et al. train networks (their workers' optimizer is SGD
here, not AdamW); their options are the papers' (β = 0.9/n; outer Nesterov, rate 0.7, momentum 0.9). The bias is Khaled
et al. 2019 (1909.04746), on synthetic quadratics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dopt import Results, theory
from dopt.config import Run
from dopt.facts import make_problem
from dopt.figures import Claim, over
from dopt.plot import strokes
from dopt.plot.seeds import history, quartiles
from dopt.plot.sheet import Picture, blank
from dopt.plot.style import look, shade
from dopt.sweeps.cells import best

H = "algorithm.local_steps"
METRIC = {"name": "suboptimality", "goal": "minimize", "target": 0.005}
SEEDS = {"values": list(range(10))}
CURVES: dict[str, Any] = {
    "partition": {"values": ["iid", "by_label"]},
    "learning_rate": {"values": [0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2]},
    "seed": SEEDS,
    "workers": {"value": 8},
    "problem": {"value": "logistic"},
    "problem.l2": {"value": 0.01},
    "batch_size": {"value": 16},
    "steps": {"value": 2048},
    "record_every": {"value": 8},
    "metrics": {"value": ["suboptimality"]},
}
NOISE: dict[str, Any] = {
    "algorithm": {"value": "local_sgd"},
    "learning_rate": {"value": 0.05},
    "seed": SEEDS,
    "problem": {"value": "logistic"},
    "problem.l2": {"value": 0.05},
    "batch_size": {"value": 4},
    "steps": {"value": 8192},
    "record_every": {"value": 64},
    "metrics": {"value": ["suboptimality"]},
}
SWEEPS = {
    "local": {
        "metric": METRIC,
        "parameters": {"algorithm": {"value": "local_sgd"}, H: {"values": [1, 4, 16, 64]}, **CURVES},
    },
    "others": {
        "metric": METRIC,
        "parameters": {"algorithm": {"values": ["easgd", "diloco"]}, H: {"value": 16}, **CURVES},
    },
    "noise": {"metric": METRIC, "parameters": {H: {"values": [1, 16]}, "workers": {"values": [4, 16]}, **NOISE}},
    "alone": {"metric": METRIC, "parameters": {H: {"value": 1}, "workers": {"value": 1}, **NOISE}},
    "bias": {
        "metric": METRIC,
        "parameters": {
            "algorithm": {"value": "local_sgd"},
            H: {"values": [2, 4, 16, 64]},
            "learning_rate": {"values": [0.01, 0.03, 0.1]},
            "workers": {"value": 8},
            "problem": {"value": "turned_quadratic"},
            "steps": {"value": 8192},
            "record_every": {"value": 8192},
            "metrics": {"value": ["suboptimality"]},
            "precision": {"value": "float64"},
        },
    },
}
UNLIKE: dict[str, Any] = {  # the problem of "bias"
    name: SWEEPS["bias"]["parameters"][name] for name in ("workers", "problem", "metrics", "precision")
}
SWEEPS |= {
    "elastic": {
        "metric": METRIC,
        "parameters": {
            "algorithm": {"value": "easgd"},
            "algorithm.order": {"values": ["joint", "gradient_first"]},
            H: {"values": [4, 16]},
            "learning_rate": {"values": [0.03, 0.1]},
            "steps": {"value": 8192},
            "record_every": {"value": 8192},
            **UNLIKE,
        },
    },
    "outer": {
        "metric": METRIC,
        "parameters": {
            "algorithm": {"value": "diloco"},
            H: {"value": 16},
            "learning_rate": {"value": 0.03},
            "steps": {"value": 320},
            "record_every": {"value": 16},
            **UNLIKE,
        },
    },
}
EXTEND = ("local", "others")
FULL = {"local": {H: [1, 2, 4, 8, 16, 32, 64]}, "noise": {"workers": [2, 4, 8, 16]}, "bias": {H: [2, 4, 8, 16, 32, 64]}}
BURN_IN = 2048  # steps of "noise" until nothing is left of the start: 5 time constants 1/(α l2)
POINTS = 40  # of a curve
ELASTIC = 0.9  # n β of EASGD, as in its paper
CELL = ["partition", "algorithm", H]
SPLITS = {"iid": "split at random", "by_label": "split by label"}


def learning(results: Mapping[str, Results]) -> pd.DataFrame:
    """The runs at their curve's best rate, of all methods."""
    return pd.concat([best(results[part], CELL) for part in ("local", "others")], ignore_index=True)


def curves(results: Mapping[str, Results]) -> pd.DataFrame:
    """f(x̄) - f* along steps of each partition, method and H, at the best rate: about `POINTS` records, evenly in log steps."""
    runs = learning(results)
    rows = pd.concat([history(results[part], *CELL, "learning_rate") for part in ("local", "others")])
    rows = rows[rows["id"].isin(runs["id"])].merge(runs[["id", "edge"]], on="id")
    steps = np.unique(rows["step"])[1:]
    kept = steps[np.unique(np.searchsorted(steps, np.geomspace(steps[0], steps[-1], POINTS)).clip(max=len(steps) - 1))]
    rows = rows[rows["step"].isin(kept)]
    cell = [*CELL, "learning_rate", "edge", "step", "bytes_sent"]
    found = quartiles(rows, cell, "suboptimality")
    return found.assign(kind="curve", rounds=found["step"] // found[H])


def floors(results: Mapping[str, Results]) -> pd.DataFrame:
    """Lasting f - f* of each number of workers and H: the mean over records after the burn-in, then quartiles over seeds."""
    fields = ("workers", H, "learning_rate")
    rows = pd.concat([history(results[part], *fields) for part in ("alone", "noise")])
    late = rows[rows["step"] > BURN_IN].groupby(["id", *fields], sort=False)["suboptimality"].mean().reset_index()
    alone = late[late["workers"] == 1].assign(**{H: 16})  # who is alone averages with nobody: the same for all H
    found = quartiles(pd.concat([late, alone]), list(fields), "suboptimality")
    return found.assign(kind="variance", algorithm="local_sgd")


class Quadratic(NamedTuple):
    """The workers' Aᵢ [n, d, d] and bᵢ [n, d]."""

    curvature: np.ndarray
    minima: np.ndarray

    def above(self, x: np.ndarray) -> np.ndarray:
        """f(x) - f* of points [..., d]."""
        A = self.curvature.mean(0)
        away = x - np.linalg.solve(A, np.einsum("nij,nj->i", self.curvature, self.minima) / len(self.minima))
        return 0.5 * np.einsum("...i,ij,...j->...", away, A, away)


def quadratic(run: Run) -> Quadratic:
    """What a run on unlike quadratics minimizes."""
    data = make_problem(run).data
    return Quadratic(data["curvature"][:, 0], data["minimum"][:, 0])


def biases(results: Mapping[str, Results], part: str = "bias") -> pd.DataFrame:
    """What is left of f - f* after the last exchange, for each rate and H, and what the fixed point says (`theory`)."""
    rows = []
    for row in results[part].runs.to_dict("records"):
        run = results[part].run(row["id"])
        unlike, how = quadratic(run), (run.learning_rate, row[H])
        if part == "elastic":
            order = run.options.get("algorithm.order", "joint")
            rests = theory.elastic_fixed_point(*unlike, *how, elastic_rate=ELASTIC / run.workers, order=order)
        else:
            rests = theory.local_sgd_fixed_point(*unlike, *how)
        rows.append(
            {
                **{name: row[name] for name in ("algorithm", H, "learning_rate")},
                "kind": "bias",
                "median": row["final.suboptimality"],
                "theory": float(unlike.above(rests)),
                "n": 1,
                "ids": row["id"],
            }
        )
    return pd.DataFrame(rows)


def outer_miss(results: Results) -> float:
    """The largest relative miss of DiLoCo's f - f* after each round, against the recursion of its outer momentum."""
    run = results.run(str(results.runs["id"].iloc[0]))
    unlike, record = quadratic(run), results.history.sort_values("step")
    rounds = theory.outer_nesterov(*unlike, run.learning_rate, run.options[H], len(record) - 1)
    return float(np.abs(record["suboptimality"].to_numpy() / unlike.above(rounds) - 1).max())


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """Three kinds of rows: curve (along steps, rounds, bytes), variance (along workers), bias (along H, with theory)."""
    return pd.concat([curves(results), floors(results), biases(results)], ignore_index=True)


def draw(results: Mapping[str, Results]) -> Picture:
    """Curves along steps and messages for both splits; variance over the number of workers, bias over H."""
    rows, figure = table(results), blank("page", 3.9)
    axes = figure.subplots(2, 3)
    edges = bool(rows["edge"].fillna(False).any())
    for row, (partition, said) in enumerate(SPLITS.items()):
        steps, rounds = axes[row, :2]
        for (method, h), cell in rows[rows["partition"] == partition].groupby(["algorithm", H], sort=False):
            local = method == "local_sgd"
            how = shade(np.log2(h) / 6) if local else look(str(method))
            label = f"local SGD, H = {h:.0f}" if local else f"{'EASGD' if method == 'easgd' else 'DiLoCo'}, H = {h:.0f}"
            label += "*" if cell["edge"].any() else ""
            strokes.line(steps, "step", cell, how, label)
            exchanged = cell[(cell["step"] % h == 0) & (cell["rounds"] > 0)]
            strokes.line(rounds, "rounds", exchanged, {**how, "marker": ".", "markersize": 2.5})
        for ax in (steps, rounds):
            ax.set(xscale="log", yscale="log", ylim=(6e-4, 0.8))
            strokes.level(ax, METRIC["target"], linestyle=":", zorder=0)
        steps.set(xlabel="steps", ylabel="f(x̄) - f*", title=f"{said}: steps")
        rounds.set(
            xlabel="rounds of messages",
        )
        one = rows[(rows["partition"] == partition) & (rows[H] == 1)].iloc[-1]
        each = one["bytes_sent"] / one["step"]
        top = rounds.secondary_xaxis("top", functions=(lambda x, e=each: x * e, lambda x, e=each: x / e))
        top.set_xlabel("bytes sent by each worker", fontsize=7, labelpad=1)
        top.tick_params(labelsize=6, pad=0)
        strokes.note(rounds, 0.97, 0.95, said, transform=rounds.transAxes, ha="right", va="top", fontsize=7)
    _variance(axes[0, 2], rows[rows["kind"] == "variance"])
    _bias(axes[1, 2], rows[rows["kind"] == "bias"])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    strokes.key(
        figure, handles, labels, loc="outside lower center", ncols=6, fontsize=6.5, handlelength=1.8, columnspacing=1
    )
    seeds, star = int(rows["n"].max()), "; * best rate at the edge of its grid" if edges else ""
    figure.suptitle(
        "8 workers, logistic regression on digits (scaled down from w8a), batch 16; rate tuned for each curve to reach the\n"
        f"target (dotted) in the fewest steps; steps counted, no clock; median and quartiles, n = {seeds} seeds{star}",
        fontsize=7.5,
    )
    return figure


def _variance(axes: Any, rows: pd.DataFrame) -> None:
    for (h, dash), mark in zip(((1, "-"), (16, "--")), "os", strict=True):
        cell = rows[rows[H] == h]
        strokes.line(
            axes, "workers", cell, {**shade(np.log2(h) / 6), "linestyle": dash, "marker": mark, "ms": 3}, f"H = {h}"
        )
    n = np.array([1, 16])
    alone = rows.loc[rows["workers"] == 1, "median"].iloc[0]
    strokes.path(axes, n, alone / n, color="0.5", linewidth=0.8, linestyle=":", label="1/n")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="workers n",
        ylabel="lasting f(x̄) - f*",
        title="at random: variance (α = 0.05)",
    )
    axes.set_xticks([1, 4, 16], ["1", "4", "16"])
    axes.minorticks_off()
    strokes.key(axes, frameon=False, handlelength=2)


def _bias(axes: Any, rows: pd.DataFrame) -> None:
    for (rate, cell), mark, share in zip(rows.groupby("learning_rate"), "os^", (0.0, 0.5, 1.0), strict=False):
        strokes.path(axes, cell[H] - 1, cell["theory"], linewidth=1, **shade(share))
        strokes.path(
            axes, cell[H] - 1, cell["median"], mark, ms=3.5, color=shade(share)["color"], label=f"α = {rate:g}"
        )
    axes.set(xscale="log", yscale="log", xlabel="H - 1", ylabel="lasting f(x̄) - f*", title="unlike quadratics: bias")
    axes.set_ylim(1e-11, 0.1)
    strokes.key(
        axes,
        frameon=False,
        handletextpad=0.2,
        title="lines: closed form",
        fontsize=6,
        title_fontsize=6,
        loc="lower right",
    )


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """What the three papers and the closed form say."""
    runs = learning(results)
    cells = runs.assign(cost=runs["to_target"].fillna(np.inf)).groupby(CELL)
    cost, final = cells["cost"].median(), cells["final"].median()
    sent = {  # bytes of a worker until the target
        key: np.floor(cost[key] / key[2]) * _bytes_a_round(results) for key in cost.index
    }
    at_random = [over(cost["iid", "local_sgd", h], cost["iid", "local_sgd", 1]) for h in (4, 16, 64)]
    target = METRIC["target"]
    found = [
        Claim(
            "at random: local SGD's steps to the target, worst of H = 4, 16, 64, over H = 1",
            1.5,
            np.max(at_random),
            "<=",
        ),
        Claim(
            "at random: local SGD's bytes to the target, H = 16 over H = 1",
            1 / 10,
            over(sent["iid", "local_sgd", 16], sent["iid", "local_sgd", 1]),
            "<=",
        ),
        Claim(
            "at random: EASGD's steps to the target with H = 16, over all-reduce's",
            1.5,
            over(cost["iid", "easgd", 16], cost["iid", "local_sgd", 1]),
            "<=",
        ),
        Claim(
            "by label: local SGD's steps to the target, H = 4 over H = 1",
            2,
            over(cost["by_label", "local_sgd", 4], cost["by_label", "local_sgd", 1]),
            ">=",
        ),
        Claim(
            "by label: local SGD's last f - f* with H = 64 at its best rate, over the target",
            2,
            float(final["by_label", "local_sgd", 64] / target),
            ">=",
        ),
        Claim(
            "by label: DiLoCo's bytes to the target with H = 16, over all-reduce's",
            1 / 2,
            over(sent["by_label", "diloco", 16], sent["by_label", "local_sgd", 1]),
            "<=",
        ),
    ]
    variance = floors(results)
    for h in (1, 16):
        rows = variance[variance[H] == h]
        slope = np.polyfit(np.log(rows["workers"]), np.log(rows["median"]), 1)[0]
        found.append(Claim(f"at random: lasting f - f* falls as 1/n, log-log slope, H = {h}", -1, slope, absolute=0.1))
    bias = biases(results)
    off = (bias["median"] / bias["theory"] - 1).abs().max()
    grows = bias.sort_values(H).groupby("learning_rate")["median"].apply(lambda b: (b / b.shift()).min()).min()
    elastic = biases(results, "elastic")
    elastic_off = (elastic["median"] / elastic["theory"] - 1).abs().max()
    small = bias[(bias["learning_rate"] == bias["learning_rate"].min()) & (bias[H] <= 16)]
    slope = np.polyfit(np.log(small[H] - 1), np.log(small["median"]), 1)[0]
    return [
        *found,
        Claim("bias against its closed form, largest relative miss over α and H", 0.001, off, "<="),
        Claim(
            "EASGD's bias against its closed form, largest relative miss over orders, α and H", 0.001, elastic_off, "<="
        ),
        Claim(
            "DiLoCo's f - f* after each of 20 rounds against the recursion of Nesterov momentum, largest relative miss",
            0.001,
            outer_miss(results["outer"]),
            "<=",
        ),
        Claim("bias of an H over that of the next smaller, least over α and H", 1, grows, ">="),
        Claim("bias of f in H - 1 at the smallest α, H up to 16: log-log slope", 2, slope, tolerance=0.05),
    ]


def _bytes_a_round(results: Mapping[str, Results]) -> float:
    """Bytes that a worker sends at one average."""
    runs = results["local"].runs
    one = runs[runs[H] == 1].iloc[0]
    last = results["local"].history[results["local"].history["id"] == one["id"]].iloc[-1]
    return float(last["bytes_sent"] / last["step"])
