"""Lian et al. 2017 (1705.09056), epoch time against latency and against 1/bandwidth: when does decentralized training win?

Sixteen workers compute for 0.1 s a step, then exchange a model of 1.08 MB (ResNet-20, which the paper trains on
CIFAR-10): through a server with one port, by ring all-reduce, or by gossip with the two neighbours on a ring. Left,
latency: all-reduce takes 30 latencies a step and goes from 12 to 70 s an epoch at 20 ms, gossip takes 2 and goes to 15.
Right, bandwidth: at 10 Mb/s an epoch takes 2720 s with the server, whose port carries 32 models a step, and 179 s with
gossip: fifteen times less, the paper's order of magnitude.

Against ring all-reduce gossip does not win on bandwidth by itself. All-reduce moves 1.875 models per worker and step;
gossip whose links share a port moves 2 and loses (179 against 169 s at 10 Mb/s); with a port for each link it needs the
time of one and wins (94 s). Against a server it saves no latencies: 2 against 2, or 1 with two ports. What gossip
avoids is congestion at the server, and the many rounds of an all-reduce.

Epochs are worth the same: trained with single samples at rates in proportion to n, gossip among 16 workers needs a fourth of the steps
of 4 (272 and 1172 to f - f* = 0.01), and no more than all-reduce (294).

Differs: the epochs above are timed and not trained (an epoch is 98 steps of 16 batches of 32): the workers' problem is averaging
models of that size. What is trained is logistic regression on handwritten digits; the paper trains ResNet-20. The computing time is
constant, and its 0.1 s and the networks are chosen here. The paper measures real clusters of up to 112 GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dopt import Results
from dopt.figures import Claim, over
from dopt.plot import strokes
from dopt.plot.sheet import Picture, blank
from dopt.plot.style import look
from dopt.sweeps.cells import scores
from dopt.sweeps.spec import grid

WORKERS = 16
MODEL = 269_722  # numbers of ResNet-20 (problem resnet, 3 blocks of width 16), the paper's network on CIFAR-10
SIZE = 4 * MODEL  # bytes of a message
COMPUTE = 0.1  # seconds of a gradient
EPOCH = 98  # steps: 50 000 images over 16 batches of 32
FAST_LATENCY, SLOW_LATENCY = 1e-4, 2e-2  # seconds
FAST, SLOW = 1e9 / 8, 1e7 / 8  # bytes a second: 1 Gb/s and 10 Mb/s
POINTS = 6
LATENCIES = np.linspace(FAST_LATENCY, SLOW_LATENCY, POINTS)
BANDWIDTHS = 1 / np.linspace(1 / FAST, 1 / SLOW, POINTS)

SERVER, RING, GOSSIP, PORTS = "server", "ring all-reduce", "gossip, one link at a time", "gossip, a port per link"
# setting -> (what a step adds, in latencies ℓ, and in B/w), as its formula says with n workers
COSTS = {
    SERVER: (2, 2 * WORKERS),
    RING: (2 * (WORKERS - 1), 2 * (WORKERS - 1) / WORKERS),
    GOSSIP: (2, 2),
    PORTS: (1, 1),
}
FIELDS: dict[str, dict[str, Any]] = {
    SERVER: {"algorithm": "allreduce_sgd", "cluster.reduce": "server"},
    RING: {"algorithm": "ring_allreduce_sgd", "cluster.reduce": "ring"},
    GOSSIP: {"algorithm": "gossip_sgd", "topology": "ring", "cluster.parallel_links": False},
    PORTS: {"algorithm": "gossip_sgd", "topology": "ring", "cluster.parallel_links": True},
}
LOOKS = {name: look(fields["algorithm"]) for name, fields in FIELDS.items()}
LOOKS[PORTS] = LOOKS[PORTS] | {"linestyle": (0, (1, 1))}


def _part(name: str, latencies: list[float], bandwidths: list[float]) -> dict[str, Any]:
    common = {
        "problem": "consensus",
        "problem.dim": MODEL,
        "workers": WORKERS,
        "cluster": "constant",
        "cluster.scale": [COMPUTE] * WORKERS,
        "learning_rate": 0.1,
        "steps": 2,
        "record_every": 2,
        "metrics": ["consensus_distance"],
    }
    swept = {"cluster.latency": latencies, "cluster.bandwidth": bandwidths}
    return {"parameters": grid(common | FIELDS[name], swept)}


SWEEPS = {
    f"{axis}{place}": _part(name, *values)
    for place, name in enumerate(FIELDS)
    for axis, values in (
        ("latency", (LATENCIES.tolist(), [FAST])),
        ("bandwidth", ([FAST_LATENCY], BANDWIDTHS.tolist())),
    )
}

TRAINED, TARGET = (4, WORKERS), 0.01  # how many workers train, and how far
RATE = 0.01  # of one worker: n of them take n times as much, since their mean gradient has an nth of the variance


def _training(workers: int, algorithm: str) -> dict[str, Any]:
    fixed = {
        "algorithm": algorithm,
        **({"topology": "ring"} if algorithm == "gossip_sgd" else {}),
        "workers": workers,
        "learning_rate": RATE * workers,
        "problem": "logistic",
        "problem.l2": 0.01,
        "batch_size": 1,
        "steps": 8192 // workers,
        "record_every": 32 // workers,
        "metrics": ["suboptimality"],
    }
    metric = {"name": "suboptimality", "goal": "minimize", "target": TARGET}
    return {"metric": metric, "parameters": grid(fixed, {"seed": list(range(10))})}


TRAINING = {f"gossip{n}": _training(n, "gossip_sgd") for n in TRAINED}
TRAINING["allreduce"] = _training(WORKERS, "allreduce_sgd")
SWEEPS |= TRAINING


def table(results: Mapping[str, Results]) -> pd.DataFrame:
    """A row per point: latency, 1/bandwidth, seconds of a step by the run's clock, and of an epoch."""
    rows = []
    for part, found in results.items():
        if part in TRAINING:
            continue
        axis, name = part[:-1], list(FIELDS)[int(part[-1])]
        last = found.history.groupby("id", sort=False).last()
        for run in found.runs.itertuples():
            latency, bandwidth = (
                found.run(run.id).options["cluster.latency"],
                found.run(run.id).options["cluster.bandwidth"],
            )
            step = last.loc[run.id, "time"] / last.loc[run.id, "step"]
            said = {"axis": axis, "setting": name, "latency": latency, "bandwidth": bandwidth}
            rows.append({**said, "step_seconds": step, "epoch_seconds": EPOCH * step, "ids": run.id})
    return pd.DataFrame(rows)


def reached(results: Mapping[str, Results], part: str) -> float:
    """Median steps of a training part to the target."""
    return float(scores(results[part])["to_target"].fillna(np.inf).median())


def draw(results: Mapping[str, Results]) -> Picture:
    """Epoch time against latency, and against the seconds that a megabit takes."""
    rows = table(results)
    figure = blank("page", 2.5)
    left, right = figure.subplots(1, 2)
    for axes, axis in ((left, "latency"), (right, "bandwidth")):
        for name, style in LOOKS.items():
            of = rows[(rows["axis"] == axis) & (rows["setting"] == name)]
            x = 1e3 * of["latency"] if axis == "latency" else 1e9 / (8 * of["bandwidth"])
            strokes.path(axes, x, of["epoch_seconds"], label=name, marker=".", markersize=4, linewidth=1.2, **style)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set(ylabel="seconds an epoch", xlim=(0, None))
    left.set(xlabel="latency (ms)", ylim=(0, None))
    left.set_title(
        f"{WORKERS} workers, {1e-6 * SIZE:.2f} MB, {COMPUTE:g} s a gradient; {8e-9 * FAST:g} Gb/s", loc="left"
    )
    top = 1.12 * rows.loc[(rows["axis"] == "bandwidth") & (rows["setting"] != SERVER), "epoch_seconds"].max()
    right.set(xlabel="1/bandwidth (ms per Mb; 100: 10 Mb/s)", ylim=(0, top))
    server = rows[(rows["axis"] == "bandwidth") & (rows["setting"] == SERVER)]["epoch_seconds"].max()
    strokes.note(right, 8.5, 0.9 * top, f"to {server:.0f} s", fontsize=7, color=LOOKS[SERVER]["color"])
    right.set_title(f"the same; latency {1e3 * FAST_LATENCY:g} ms", loc="left")
    strokes.key(
        figure, *left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, handlelength=2.6
    )
    return figure


def slope(rows: pd.DataFrame, name: str, axis: str) -> float:
    """By how much a step grows per ℓ, or per B/w."""
    of = rows[(rows["axis"] == axis) & (rows["setting"] == name)]
    unit = of["latency"] if axis == "latency" else SIZE / of["bandwidth"]
    return float(np.polyfit(unit, of["step_seconds"], 1)[0])


def claims(results: Mapping[str, Results]) -> list[Claim]:
    """The cost formulas, from the runs' clocks; who wins at high latency and at low bandwidth; and the load of the busiest."""
    rows = table(results)
    found = []
    for axis, place, unit in (("latency", 0, "ℓ"), ("bandwidth", 1, "B/w")):
        for name, factors in COSTS.items():
            says = f"{name}: what a step takes longer per {unit}"
            found.append(Claim(says, factors[place], slope(rows, name, axis), tolerance=1e-6))
    formula = [
        COMPUTE + COSTS[row.setting][0] * row.latency + COSTS[row.setting][1] * SIZE / row.bandwidth
        for row in rows.itertuples()
    ]
    miss = float((rows["step_seconds"] / formula - 1).abs().max())
    found.append(
        Claim(
            f"all {len(rows)} points: seconds of a step over the formula, less 1, the largest", 0, miss, absolute=1e-6
        )
    )

    def epoch(name: str, axis: str) -> float:
        """Seconds in the worst network of an axis."""
        return float(rows.loc[(rows["axis"] == axis) & (rows["setting"] == name), "epoch_seconds"].max())

    slow = f"{1e3 * SLOW_LATENCY:g} ms", f"{8e-6 * SLOW:g} Mb/s"
    ratios = [
        (f"latency of {slow[0]}: epoch of ring all-reduce over that of serial gossip", RING, GOSSIP, "latency", 3.0),
        (f"latency of {slow[0]}: epoch of a server over that of serial gossip", SERVER, GOSSIP, "latency", 1.0),
        (
            f"{slow[1]}: epoch of a server over that of serial gossip (paper: up to ten times)",
            SERVER,
            GOSSIP,
            "bandwidth",
            10.0,
        ),
        (f"{slow[1]}, serial links: gossip loses to ring all-reduce, epoch over epoch", GOSSIP, RING, "bandwidth", 1.0),
        (f"{slow[1]}, a port per link: ring all-reduce over gossip", RING, PORTS, "bandwidth", 1.0),
    ]
    for says, one, other, axis, least in ratios:
        found.append(Claim(says, least, epoch(one, axis) / epoch(other, axis), ">="))
    sent = {
        name: results[f"latency{place}"].history.groupby("id")["bytes_sent"].last() for place, name in enumerate(COSTS)
    }
    port = results["latency0"].history.groupby("id")["server_bytes_sent"].last()
    for says, expected, count in (
        ("models that a server's port sends in a step", WORKERS, port),
        ("models that a gossiping worker sends in a step", 2, sent[GOSSIP]),
    ):
        found.append(Claim(says, expected, float(count.max()) / (2 * SIZE), tolerance=1e-6))
    few, many = TRAINED
    speedup = over(reached(results, f"gossip{few}"), reached(results, f"gossip{many}"))
    says = f"trained, rate n × {RATE:g}: gossip's steps to f - f* = {TARGET:g}, {few} workers over {many} (linear speed-up)"
    found.append(Claim(says, many / few, speedup, tolerance=0.1))
    epochs = over(reached(results, f"gossip{many}"), reached(results, "allreduce"))
    says = f"trained, {many} workers, the same rate: epochs until there, gossip on a ring over all-reduce"
    found.append(Claim(says, 1, epochs, tolerance=0.1))
    return found
