"""Xiao, Boyd 2004 (Systems & Control Letters 53), the example of fastest averaging: what are good weights worth?

Eight workers on a graph of 13 edges average what they start with, x <- W x. How fast the distance to the average shrinks is
‖W - J‖₂, and W is ours to choose: by a formula of the degrees, by one constant for all edges, or by a convex solver, with
nonnegative weights (the fastest mixing Markov chain) or any (the fastest linear averaging).

Left, the norms of five rules against the published ones; all agree to the digits that are published. Right, runs: the
rms distance over 10 000 starts shrinks per step by the same factors in the end, and it takes 16 steps to a thousandth
with the best weights and 24 with the worst. What the solver gains over the best constant, .643 against .712, comes from
negative weights: without them it stops at .681.

Differs: the graph and its five values are those that the same authors published later (Boyd 2006, on Laplacian
eigenvalues, and the examples that come with CVX), not a graph of the paper of 2004. The runs are ours: the examples
print only the norms.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from dopt import Results, mixing
from dopt.facts import wiring
from dopt.figures import Claim
from dopt.plot import strokes
from dopt.plot.sheet import Picture, blank
from dopt.plot.style import COLOURS

# rule -> (in words, ‖W - J‖₂ as published)
RULES = {
    "max_degree": ("max degree", 0.7793),
    "metropolis_tight": ("Metropolis-Hastings", 0.7743),
    "laplacian": ("best constant", 0.7119),
    "fastest": ("fastest, W ≥ 0", 0.6810),
    "fastest_linear": ("fastest, any sign", 0.6433),
}
STARTS, STEPS, LATE = 10_000, 50, 20  # from step LATE on, the slowest mode alone is left
TARGET = 1e-3  # of the distance at the start
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

SWEEPS = {
    "main": {
        "parameters": {
            "algorithm": {"value": "gossip_sgd"},
            "problem": {"value": "consensus"},
            "problem.dim": {"value": STARTS},
            "topology": {"value": "boyd"},
            "weights": {"values": list(RULES)},
            "workers": {"value": 8},
            "learning_rate": {"value": 0.1},
            "steps": {"value": STEPS},
            "record_every": {"value": 1},
            "precision": {"value": "float64"},
            "metrics": {"value": ["consensus_distance"]},
        }
    }
}


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """A row per rule of the norms (published, and of our W, with its least weight), and one per rule and step of the runs."""
    main, rows = results["main"], []
    for run in main.runs.itertuples():
        W = wiring.matrix(main.run(run.id))
        edge = W[~np.eye(len(W), dtype=bool)]
        norm = {"kind": "norm", "published": RULES[run.weights][1], "value": mixing.second_modulus(W)}
        rows.append({**norm, "weights": run.weights, "least_weight": edge.min(), "ids": run.id})
        record = main.history[main.history["id"] == run.id]
        far = np.sqrt(record["consensus_distance"].to_numpy())
        steps = {"kind": "distance", "step": record["step"].to_numpy(), "value": far / far[0]}
        rows += [{**row, "weights": run.weights, "ids": run.id} for row in pd.DataFrame(steps).to_dict("records")]
    return pd.DataFrame(rows)[["kind", "weights", "step", "value", "published", "least_weight", "ids"]]


def _of(rows: pd.DataFrame, kind: str, rule: str) -> pd.DataFrame:
    return rows[(rows["kind"] == kind) & (rows["weights"] == rule)]


def factor(rows: pd.DataFrame, rule: str) -> float:
    """By what the distance shrinks per step, in the mean from step LATE to the last."""
    far = _of(rows, "distance", rule)["value"].to_numpy()
    return float((far[-1] / far[LATE]) ** (1 / (len(far) - 1 - LATE)))


def steps_to(rows: pd.DataFrame, rule: str) -> float:
    """Steps until TARGET of the distance at the start is left."""
    reached = _of(rows, "distance", rule)
    return float(reached.loc[reached["value"] <= TARGET, "step"].min())


def expected_steps(results: Mapping[str, Results], rule: str) -> int:
    """The same from the eigenvalues: random starts keep Σ λᵢ²ᵏ/(n - 1) of their variance, i over all but the eigenvalue 1."""
    runs = results["main"].runs
    W = wiring.matrix(results["main"].run(str(runs.loc[runs["weights"] == rule, "id"].iloc[0])))
    kept = np.linalg.eigvalsh(W - 1 / len(W)) ** 2  # of the average, 0
    far = [np.sqrt((kept**k).sum() / (len(W) - 1)) for k in range(1, STEPS)]
    return 1 + int(np.argmax(np.array(far) <= TARGET))


def draw(results: Mapping[str, Results]) -> Picture:
    """Norms, ours on the published ones; and how the distance shrinks in runs."""
    rows = table(results)
    figure = blank("page", 2.3)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    for place, (rule, (name, published)) in enumerate(RULES.items()):
        look = {"color": COLOURS[place], "linestyle": DASHES[place]}
        ours = float(_of(rows, "norm", rule)["value"].iloc[0])
        ends = [place - 0.33, place + 0.33]
        strokes.path(left, [published] * 2, ends, color="black", linewidth=1, label=None if place else "published")
        strokes.path(left, ours, place, "o", color=COLOURS[place], markersize=4.5, zorder=3)
        strokes.note(left, ours + 0.008, place, f"{ours:.4f}", va="center", fontsize=7)
        far = _of(rows, "distance", rule)
        strokes.path(right, far["step"], far["value"], label=name, linewidth=1.3, **look, log="y")
    left.set_yticks(range(len(RULES)), [name for name, _ in RULES.values()])
    left.set(xlim=(0.62, 0.83), ylim=(-0.6, len(RULES) - 0.4), xlabel="‖W - J‖₂, the factor per step")
    left.set_title("lines: published, dots: computed here", loc="left")
    strokes.level(right, TARGET, linewidth=0.8, zorder=0)
    right.set(
        xlabel="steps", ylabel="rms distance to the average,\nover that at the start", ylim=(1e-6, 1.3), xlim=(0, 50)
    )
    right.set_title(f"runs, rms over {STARTS} random starts", loc="left")
    strokes.key(right, frameon=False, loc="upper right", handlelength=2.6)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """The five published values, from the matrices and from runs; and what negative weights are for."""
    rows = table(results)
    found = []
    for rule, (_, published) in RULES.items():
        norm = float(_of(rows, "norm", rule)["value"].iloc[0])
        found.append(Claim(f"{rule}: ‖W - J‖₂", published, norm, absolute=1e-3))
    for rule, (_, published) in RULES.items():
        found.append(Claim(f"{rule}: factor per step of the runs", published, factor(rows, rule), absolute=1e-3))
    least = {rule: float(_of(rows, "norm", rule)["least_weight"].iloc[0]) for rule in RULES}
    signed = [rule for rule in RULES if least[rule] < 0]
    found.append(Claim("the only rule that uses a negative weight", "fastest_linear", ", ".join(signed)))
    for rule in ("max_degree", "fastest_linear"):
        says = f"{rule}: steps to a thousandth, in the runs and by the eigenvalues of W"
        found.append(Claim(says, expected_steps(results, rule), steps_to(rows, rule), absolute=0.5))
    return found
