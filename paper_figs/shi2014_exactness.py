"""Shi et al. 2014 (1404.6264), Nedić et al. 2017 (1607.03218), Tang et al. 2018 (1803.07068): who reaches the optimum?

Least squares whose curvature and minimum differ between 10 workers on a random graph, full gradients, a constant rate,
float64. Left: a bound on the workers' root mean square distance to the optimum. Gossip (DGD) stops at its fixed point;
EXTRA, DIGing, D², exact diffusion and NIDS, each at its own best rate, are within 1e-11 after 200 to 500 steps and go
on to 2e-15. Middle: where gossip stops is proportional to its rate while that is small (slope 0.99 up to 0.02), to
eleven digits at the closed form (I - W + αA)X = αAb. Right: D² on a ring of 8, λ_min = 1 - 4·(edge weight), the factor
by which the workers' disagreement grows in a step, against the roots of z² - λ(2 - αμ)z + λ(1 - αμ). It crosses one
where λ_min = -1/(3 - 2αμ), not at -1/3: with αμ = 0.05 at an edge weight of 0.336, between 0.33, which converges, and
0.34, which does not.

In their first 100 steps all five follow their papers' equations. Not drawn: at a rate of 1.9/L NIDS is within 1e-11 on
ring, hypercube and complete graph, and EXTRA, whose limit is (1 + λ_min)/L, on none. (Exact diffusion allows that rate,
too: NIDS is one local step, and then exact diffusion.)

Differs: one synthetic problem (10 dimensions, condition number 10, rotated differently for each worker) in place of the
papers' three different ones; Metropolis weights. The distance is the consensus distance and ‖∇f(x̄)‖/μ, which bounds
that of the mean model. Nothing is random, so there are no seeds. D² runs with its refusal switched off on the right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dopt import Results, theory
from dopt.config import Run
from dopt.facts import make_problem, wiring
from dopt.figures import Claim
from dopt.plot import strokes
from dopt.plot.seeds import history
from dopt.plot.sheet import Picture, blank
from dopt.plot.style import look, shade
from dopt.sweeps.cells import first_at

EXACT = ("extra", "gradient_tracking", "d2", "exact_diffusion", "nids")
NAMES = {
    "extra": "EXTRA",
    "gradient_tracking": "DIGing",
    "d2": "D²",
    "exact_diffusion": "exact diffusion",
    "nids": "NIDS",
    "gossip_sgd": "gossip",
}
CLOSE = 1e-11
SMALL = 0.02  # rates up to which the distance of gossip is taken to be linear
DRAWN = (0.02, 0.16)  # rates of gossip in the left panel
CURVATURES = {0.05: 0.0, 0.2: 0.4, 0.5: 0.8}  # αμ of the right panel -> its shade
NETWORKS = ("ring", "hypercube", "complete")
NEAR = (
    1.9  # a rate near 2/L, which NIDS allows on any network, and EXTRA, whose limit is (1 + λ_min)/L, on none of these
)
EARLY = 100  # steps over which methods are compared with their equations
EDGES = [round(0.31 + 0.005 * k, 3) for k in range(17)]


def _sweep(**parameters: Any) -> dict[str, Any]:
    given = {
        "mix": "dense",
        "problem": "turned_quadratic",
        "precision": "float64",
        "metrics": {"value": ["consensus_distance", "grad_norm"]},
        **{name.replace("__", "."): value for name, value in parameters.items()},
    }
    plain = {
        name: v if isinstance(v, dict) else {"values": v} if isinstance(v, list) else {"value": v}
        for name, v in given.items()
    }
    return {"metric": {"name": "grad_norm", "goal": "minimize"}, "parameters": plain}


RANDOM: dict[str, Any] = {"workers": 10, "topology": "erdos_renyi", "topology__probability": 0.5}
D2: dict[str, Any] = {"algorithm": "d2", "workers": 8, "topology": "ring", "weights": "constant", "strict": False}
SWEEPS = {
    "exact": _sweep(
        **RANDOM, algorithm=list(EXACT), learning_rate=[0.05, 0.1, 0.2, 0.4, 0.8, 1.6], steps=2000, record_every=10
    ),
    "gossip": _sweep(
        **RANDOM,
        algorithm="gossip_sgd",
        learning_rate=[0.0025 * 2**k for k in range(9)],
        steps=40_000,
        record_every=20,
    ),
    # αμ <= 0.05 for every curvature
    "edge": _sweep(**D2, weights__edge=[0.33, 0.34], problem__L=0.5, problem__mu=0.05, learning_rate=0.1, steps=4000),
    "networks": _sweep(
        algorithm=["extra", "nids"],
        workers=8,
        topology=list(NETWORKS),
        learning_rate=NEAR,  # L = 1
        steps=4000,
        record_every=10,
    ),
    "limit": _sweep(
        **D2,
        weights__edge=EDGES,
        problem="quadratic",
        problem__L=1.0,
        problem__mu=1.0,
        learning_rate=list(CURVATURES),
        steps=400,
        record_every=10,
    ),
}


# -- distances --


def curvature(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """The workers' Aᵢ [n, d, d] and bᵢ [n, d]."""
    data = make_problem(run).data
    return data["curvature"][:, 0], data["minimum"][:, 0]


def distances(results: Results) -> pd.DataFrame:
    """The records with `distance`, a bound of √((1/n) Σ ‖xᵢ - x*‖²).

    Its square is the consensus distance and ‖x̄ - x*‖², which is at most (‖∇f(x̄)‖/μ)², μ the least curvature of f.
    """
    least = np.linalg.eigvalsh(curvature(results.run(results.runs["id"].iloc[0]))[0].mean(0))[0]
    rows = history(results, "algorithm", "learning_rate")
    return rows.assign(distance=np.sqrt(rows["consensus_distance"] + (rows["grad_norm"] / least) ** 2).fillna(np.inf))


def rests(run: Run) -> float:
    """The same bound where gossip comes to rest in theory."""
    A, b = curvature(run)
    return bound(theory.gossip_fixed_point(wiring.matrix(run), A, b, run.learning_rate), A, b)


def bound(x: np.ndarray, A: np.ndarray, b: np.ndarray) -> float:
    """The same bound of models [n, d]."""
    mean, H = x.mean(0), A.mean(0)
    gradient = H @ mean - np.einsum("nij,nj->i", A, b) / len(b)
    apart = np.mean(np.sum((x - mean) ** 2, 1))
    return float(np.sqrt(apart + (np.linalg.norm(gradient) / np.linalg.eigvalsh(H)[0]) ** 2))


def equations(run: Run, steps: int) -> np.ndarray:
    """[steps + 1] the same bound along the equations of the method's paper, from 0."""
    (A, b), W, rate = curvature(run), wiring.matrix(run), run.learning_rate
    V = (np.eye(len(W)) + W) / 2

    def gradient(x: np.ndarray) -> np.ndarray:
        return np.einsum("nij,nj->ni", A, x - b)

    def moved(x: np.ndarray) -> np.ndarray:
        return x - rate * gradient(x)

    start = np.zeros_like(b)
    tracked = gradient(start)
    first = {"extra": W @ start - rate * tracked, "nids": moved(start), "d2": W @ moved(start)}
    first |= {"exact_diffusion": V @ moved(start), "gradient_tracking": W @ start - rate * tracked}
    models = [start, first[run.algorithm]]
    while len(models) <= steps:
        before, x = models[-2:]
        if run.algorithm == "gradient_tracking":
            tracked = W @ tracked + gradient(x) - gradient(before)
            models.append(W @ x - rate * tracked)
        elif run.algorithm == "extra":
            models.append(2 * V @ x - V @ before - rate * (gradient(x) - gradient(before)))
        else:
            models.append((W if run.algorithm == "d2" else V) @ (x + moved(x) - moved(before)))
    return np.array([bound(x, A, b) for x in models])


def early_miss(results: Results, identity: str) -> float:
    """The largest relative miss of a run's distance against those equations, over its first steps."""
    own = distances(results)
    own = own[(own["id"] == identity) & (own["step"] <= EARLY)]
    theirs = equations(results.run(identity), EARLY)[own["step"]]
    return float((own["distance"] / theirs - 1).abs().max())


def near_limit(results: Results) -> dict[str, pd.Series]:
    """Method -> topology -> its last distance at a rate near 2/L."""
    last = distances(results).groupby("id", sort=False).tail(1)
    last = last.merge(results.runs[["id", "topology"]], on="id")
    return {str(name): own.set_index("topology")["distance"] for name, own in last.groupby("algorithm")}


def fastest(results: Results) -> pd.DataFrame:
    """One row per exact method: the rate that is first within `CLOSE`, its steps, last distance, and whether it is an edge."""
    rows, found = distances(results), []
    for name in EXACT:
        steps = {
            rate: first_at(own["step"].to_numpy(), own["distance"].to_numpy(), CLOSE)
            for rate, own in rows[rows["algorithm"] == name].groupby("learning_rate")
        }
        rate = min(steps, key=lambda r: np.inf if np.isnan(steps[r]) else steps[r])
        own = rows[(rows["algorithm"] == name) & (rows["learning_rate"] == rate)]
        edge = rate in (min(steps), max(steps))
        cell = {"algorithm": name, "learning_rate": rate, "step": steps[rate], "median": own["distance"].iloc[-1]}
        found.append({**cell, "edge": edge, "ids": own["id"].iloc[0]})
    return pd.DataFrame(found)


def stops(results: Results) -> pd.DataFrame:
    """One row per rate of gossip: where it ends, and where its fixed point is."""
    last = distances(results).groupby("id", sort=False).tail(1)
    theirs = [rests(results.run(one)) for one in last["id"]]
    return pd.DataFrame(
        {
            "algorithm": "gossip_sgd",
            "learning_rate": last["learning_rate"].to_numpy(),
            "median": last["distance"].to_numpy(),
            "theory": theirs,
            "ids": last["id"].to_numpy(),
        }
    ).sort_values("learning_rate")


# -- D² --


def factor(values: np.ndarray, step: float) -> float:
    """The largest modulus of the roots of z² - λ(2 - αμ)z + λ(1 - αμ), over the eigenvalues λ of W but 1."""
    others = np.sort(values)[:-1]
    return max(float(np.abs(np.roots([1, -v * (2 - step), v * (1 - step)])).max()) for v in others)


def factors(results: Results) -> pd.DataFrame:
    """One row per αμ and edge weight: by what the workers' disagreement grows in a step, measured from step 60 on."""
    rows, found = results.history, []
    for run in results.runs.to_dict("records"):
        own = rows[rows["id"] == run["id"]]
        own = own[(own["step"] >= 60) & (own["consensus_distance"] > 1e-24)]  # above the floor of rounding
        apart, steps = own["consensus_distance"].to_numpy(), own["step"].to_numpy()
        grows = (apart[-1] / apart[0]) ** (0.5 / (steps[-1] - steps[0])) if len(own) > 1 else np.nan
        found.append(
            {
                "step_curvature": run["learning_rate"],
                "edge_weight": run["weights.edge"],
                "median": grows,
                "ids": run["id"],
            }
        )
    return pd.DataFrame(found)


def crossing(cells: pd.DataFrame) -> float:
    """The edge weight at which the factor is 1, between two of the grid, linear in its logarithm; NaN where none is."""
    cells = cells.dropna().sort_values("edge_weight")
    x, y = cells["edge_weight"].to_numpy(), np.log(cells["median"].to_numpy())
    if not (y > 0).any() or y[0] > 0:
        return np.nan
    first = int(np.flatnonzero(y > 0)[0])
    return float(np.interp(0, y[first - 1 : first + 1], x[first - 1 : first + 1]))


def limit(step: float) -> float:
    """The edge weight at which λ_min = 1 - 4·edge of an even ring reaches D²'s limit."""
    return (1 - theory.d2_limit(1.0, step)) / 4


# -- what is drawn --


def trajectories(results: Mapping[str, Results]) -> pd.DataFrame:
    """The distance over the steps, of exact methods at their best rates and of gossip at two; few points, evenly in log."""
    best = set(fastest(results["exact"])["ids"])
    exact, gossip = distances(results["exact"]), distances(results["gossip"])
    rows = pd.concat([exact[exact["id"].isin(best)], gossip[gossip["learning_rate"].isin(DRAWN)]])
    steps = np.unique(20 * np.rint(np.geomspace(1, 2000, 60)).astype(int))
    rows = rows[rows["step"].isin([*range(10, 600, 10), *steps])]
    rows = rows[(rows["step"] % 20 == 0) | (rows["algorithm"] != "gossip_sgd")]
    return rows.rename(columns={"distance": "median", "id": "ids"})[
        ["algorithm", "learning_rate", "step", "median", "ids"]
    ]


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """Rows of kind `steps` (left), `best`, `stop` (middle), `edge` and `factor` (right), and `theory` (without runs)."""
    edge = distances(results["edge"]).groupby("id", sort=False).tail(1)
    edge = edge.merge(results["edge"].runs[["id", "weights.edge"]], on="id")
    edge = edge.rename(columns={"weights.edge": "edge_weight", "distance": "median", "id": "ids"})
    parts = {
        "steps": trajectories(results),
        "best": fastest(results["exact"]),
        "stop": stops(results["gossip"]),
        "edge": edge[["algorithm", "learning_rate", "edge_weight", "step", "median", "ids"]],
        "factor": factors(results["limit"]),
        "theory": pd.DataFrame(roots(results["limit"])).assign(ids=""),
    }
    found = pd.concat([rows.assign(kind=kind) for kind, rows in parts.items()], ignore_index=True)
    return found.assign(low=found["median"], high=found["median"], n=1)


def roots(results: Results) -> list[dict[str, float]]:
    """The factor in theory, of each αμ along the edge weights."""
    found = []
    for run in results.runs.to_dict("records"):
        values = np.linalg.eigvalsh(wiring.matrix(results.run(run["id"])))
        step = run["learning_rate"]
        found.append({"step_curvature": step, "edge_weight": run["weights.edge"], "median": factor(values, step)})
    return found


def draw(results: Mapping[str, Results]) -> Picture:
    """Three panels: distance over steps, where gossip stops over its rate, D²'s growth over the edge weight."""
    rows = table(results)
    kind = dict(iter(rows.groupby("kind")))
    figure = blank("page", 2.7)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    edges = set(kind["best"].loc[kind["best"]["edge"].astype(bool), "algorithm"])
    for (name, rate), own in kind["steps"].groupby(["algorithm", "learning_rate"], sort=False):
        gossips = name == "gossip_sgd"
        strokes.line(
            left, "step", own, look(name), None if gossips else f"{NAMES[name]}, {rate:g}" + "*" * (name in edges)
        )
        if gossips:
            up = rate == max(DRAWN)
            at, side = own["median"].iloc[-1] * (1.6 if up else 0.5), "bottom" if up else "top"
            strokes.note(left, 35_000, at, f"gossip, {rate:g}", ha="right", va=side, fontsize=6)
    strokes.level(left, CLOSE)
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlim(10, 40_000)
    left.set_ylim(1e-16, 1e2)
    left.set_xlabel("steps")
    left.set_ylabel("distance to the optimum (bound)")
    strokes.key(
        left, loc="center right", fontsize=6, handlelength=2.4, borderaxespad=0.2, title="best rate", title_fontsize=6
    )
    left.set_title("10 workers, random graph", loc="left")

    stop, gossip = kind["stop"], look("gossip_sgd")
    strokes.path(middle, stop["learning_rate"], stop["theory"], label="fixed point", color="black", linewidth=0.9)
    strokes.path(
        middle, stop["learning_rate"], stop["median"], "o", ms=4, color=gossip["color"], label="gossip, measured"
    )
    first = stop.iloc[0]
    guide = first["median"] * stop["learning_rate"] / first["learning_rate"]
    strokes.path(middle, stop["learning_rate"], guide, color="0.6", linestyle=":", label="slope 1")
    middle.set_xscale("log")
    middle.set_yscale("log")
    middle.set_xlabel("learning rate of gossip")
    middle.set_ylabel("distance where it stops")
    strokes.key(middle, loc="upper left", fontsize=6)
    middle.set_title("the same", loc="left")

    for step, share in CURVATURES.items():
        colour = shade(share)["color"]
        lines = kind["theory"][kind["theory"]["step_curvature"] == step].sort_values("edge_weight")
        points = kind["factor"][kind["factor"]["step_curvature"] == step]
        strokes.path(right, lines["edge_weight"], lines["median"], color=colour, linewidth=0.9)
        strokes.path(right, points["edge_weight"], points["median"], "o", ms=3, color=colour, label=f"αμ = {step:g}")
        strokes.path(right, limit(step), 1, marker="|", color=colour, ms=12)
    strokes.level(right, 1)
    right.set_ylim(0.8, 1.3)
    right.set_xlabel("edge weight, ring of 8")
    right.set_ylabel("growth a step")
    strokes.key(right, loc="upper left", fontsize=6)
    right.set_title("D²; lines: theory", loc="left")
    starred = "; * best rate at the edge of its grid" * bool(edges)
    figure.suptitle(f"full gradients, no delay, nothing drawn by chance (n = 1){starred}", fontsize=8)
    return figure


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """Where gossip stops, how close the exact methods come, and where D² diverges."""
    stop, best = stops(results["gossip"]), fastest(results["exact"]).set_index("algorithm")
    small = stop[stop["learning_rate"] <= SMALL]
    slope = float(np.polyfit(np.log(small["learning_rate"]), np.log(small["median"]), 1)[0])
    last = distances(results["edge"]).groupby("id", sort=False).tail(1).set_index("id")["distance"]
    ends = dict(zip(results["edge"].runs["weights.edge"], last[results["edge"].runs["id"]], strict=True))
    grows, near = factors(results["limit"]), near_limit(results["networks"])
    return [
        Claim(f"gossip: slope of its distance over the rate, rates up to {SMALL:g}", 1, slope, absolute=0.1),
        Claim(
            "gossip: where it stops over its fixed point, largest miss",
            0,
            float((stop["median"] / stop["theory"] - 1).abs().max()),
            absolute=1e-6,
        ),
        *(
            Claim(f"{NAMES[name]}: last distance to the optimum", CLOSE, best.loc[name, "median"], "<=")
            for name in EXACT
        ),
        *(
            Claim(
                f"{NAMES[name]}: distance in the first {EARLY} steps against its paper's equations, largest relative miss",
                1e-6,
                early_miss(results["exact"], best.loc[name, "ids"]),
                "<=",
            )
            for name in EXACT
        ),
        *(
            Claim(
                f"{NAMES[name]} at {NEAR}/L: networks ({', '.join(NETWORKS)}) on which it is within {CLOSE:g}",
                count,
                int((near[name] <= CLOSE).sum()),
            )
            for name, count in (("nids", len(NETWORKS)), ("extra", 0))
        ),
        Claim("D², αμᵢ <= 0.05, edge weight 0.33: last distance", CLOSE, ends[0.33], "<="),
        Claim("D², αμᵢ <= 0.05, edge weight 0.34: last distance", 1e6, ends[0.34], ">="),
        *(
            Claim(
                f"D², αμ = {step:g}: edge weight at which λ_min = -1/(3 - 2αμ)",
                limit(step),
                crossing(grows[grows["step_curvature"] == step]),
                tolerance=0.002,
            )
            for step in CURVATURES
        ),
    ]
