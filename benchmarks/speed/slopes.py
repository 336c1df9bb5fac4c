"""How time grows: log-log slopes in runs, steps, coordinates and workers of a sparse graph, beside by hand's; and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.speed.by_hand import quadratic_program
from benchmarks.speed.measure import medians, slope, turns
from benchmarks.speed.rows import hand_arguments, hand_compiled, planned, quadratic_runs, quadratic_setting
from dopt import Run, engine
from dopt.config import Runs
from dopt.engine import Group, group_of, run_slab

STEPS = 200
ELSEWHERE = 32  # times as many runs on an accelerator
SIZES: dict[str, Sequence[int]] = {
    "runs": (32, 64, 128, 256, 512),
    "steps": (250, 500, 1000, 2000, 4000, 8000),
    "d": (64, 256, 1024, 4096),
    "workers": (128, 256, 512, 1024, 2048, 4096),
}


def some_runs(number: int, steps: int = STEPS, dim: int = 64) -> Runs:
    """Quadratic runs of one graph."""
    return quadratic_runs(steps, dim, topology=["ring"], delay=[1], learning_rate=[0.05], seed=range(number))


def on_a_ring(workers: int) -> Runs:
    """One run of gossip on a large ring, whose W is lists of neighbours."""
    fields = {"algorithm": "gossip_sgd", "topology": "ring", "workers": workers, "learning_rate": 0.05, "steps": STEPS}
    fields |= {"problem": "quadratic", "problem.dim": 64, "record_every": STEPS // 10}
    return Runs.of([Run.from_dict({**fields, "metrics": ("loss", "consensus_distance")}).resolve()])


def lists(workers: int) -> tuple[np.ndarray, np.ndarray]:
    """(neighbours, weights) of a ring by Metropolis: each worker itself, the one before and the one after."""
    i = np.arange(workers)
    near = np.stack([i, (i - 1) % workers, (i + 1) % workers], 1)
    return near.astype(np.int32), np.full(near.shape, 1 / 3, np.float32)


def described(axis: str, size: int) -> Runs:
    times = 1 if jax.devices()[0].platform == "cpu" else ELSEWHERE
    if axis == "runs":
        return some_runs(size * times)
    if axis == "steps":
        return some_runs(32 * times, steps=size)
    return some_runs(8, dim=size) if axis == "d" else on_a_ring(size)


def hand_given(group: Group, slabs: Sequence[Runs], sparse: bool) -> list[Any]:
    if sparse:
        w = tuple(x[None] for x in lists(group.first.workers))
        return [(np.full(1, 0.05, np.float32), np.zeros(1, np.int32), w)]
    return [hand_arguments(group, slab)[1:4] for slab in slabs]


def point(axis: str, size: int, pairs: int) -> dict[str, float]:
    """Seconds of all runs of a size, slab after slab: dopt whole, its device's part, by hand."""
    runs, width, slabs, _ = planned(described(axis, size))
    group, sparse = group_of(runs), axis == "workers"
    given, by_hand = hand_given(group, slabs, sparse), quadratic_setting(group)
    hand = hand_compiled(lambda unroll: jax.vmap(quadratic_program(by_hand, unroll, sparse)), given[0])
    ours = engine.compile(group, width)
    ready = [engine.packed(ours, slab) for slab in slabs]
    calls = {
        "dopt": lambda _: [run_slab(ours, slab) for slab in slabs],
        "dopt_device": lambda _: [engine.advanced(slab) for slab in ready],
        "by_hand": lambda _: [np.asarray(hand(*one)) for one in given],
    }
    return medians(turns(calls, pairs))


def slopes(pairs: int, sizes: Mapping[str, Sequence[int]] = SIZES) -> dict[str, Any]:
    """Seconds by size, and slopes."""
    found: dict[str, Any] = {}
    for axis, chosen in sizes.items():
        points = [point(axis, size, min(pairs, 9)) for size in chosen]
        by_who = {who: [p[who] for p in points] for who in points[0]}
        found[axis] = {
            "sizes": list(chosen),
            "seconds": by_who,
            "slopes": {who: slope(chosen, t) for who, t in by_who.items()},
        }
        shown = ", ".join(f"{who} {s:.2f}" for who, s in found[axis]["slopes"].items())
        print(f"slope of time in {axis}, {chosen[0]} to {chosen[-1]}: {shown}", flush=True)
    return found


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Seconds over size, a panel for each axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(found), 3), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for panel, (axis, one) in zip(panels, found.items(), strict=True):
        for who, label, style in (
            ("dopt", "dopt", "o-"),
            ("dopt_device", "dopt, device", ".:"),
            ("by_hand", "by hand", "s--"),
        ):
            panel.loglog(one["sizes"], one["seconds"][who], style, label=f"{label} ({one['slopes'][who]:.2f})")
        panel.set_xticks(one["sizes"], [str(size) for size in one["sizes"]])
        panel.minorticks_off()
        panel.set_xlabel(axis)
        panel.legend(fontsize="x-small", title="slope", title_fontsize="x-small")
    panels[0].set_ylabel("seconds")
    figure.savefig(path, dpi=120)
