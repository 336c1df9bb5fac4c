"""Sweeps that nobody ran: results of any size and any names, for what shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dopt.sweeps.results import Results

AXES = ("step", "gradients", "time", "bytes_sent")


def results(
    folder: Path,
    *,
    runs: int = 12,
    records: int = 30,
    metrics: Sequence[str] = ("loss",),
    metric: Mapping[str, object] | None = None,
    name: str = "made-up",
    varied: Sequence[str] = ("algorithm", "learning_rate", "seed"),
    text: str = "",
    **columns: Sequence[object],
) -> Results:
    """A sweep of so many runs: three methods, noisy curves that fall, and `columns` in the place of what it would have."""
    rng = np.random.default_rng(0)
    rows = np.arange(runs)
    methods = np.array(["gossip_sgd", "allreduce_sgd", "async_sgd"])
    steps = np.tile(np.arange(records) * 10, runs)
    noise = np.exp(0.3 * rng.standard_normal((len(metrics), runs * records)))
    falling = np.exp(-steps / (3.0 * records)) * noise
    history = pd.DataFrame({"id": [f"{run:016x}" for run in np.repeat(rows, records)]})
    for axis, factor in zip(AXES, (1, 8, 0.5, 4000.0), strict=True):
        history[axis] = steps * factor
    for metric_name, values in zip(metrics, falling, strict=True):
        history[metric_name] = values.astype(np.float32)
    table: dict[str, object] = {
        "id": [f"{run:016x}" for run in rows],
        "algorithm": methods[rows % 3],
        "workers": 8,
        "learning_rate": np.array([0.1, 0.2])[rows // 3 % 2],
        "problem": "softmax",
        "topology": None,
        "weights": None,
        "delay": 0,
        "cluster": None,
        "seed": rows // 6,
        "diverged": False,
        "diverged_step": pd.array([None] * runs, "Int64"),
        "stalled_step": pd.array([None] * runs, "Int64"),
    }
    ends = {f"final.{one}": history[one].to_numpy()[records - 1 :: records] for one in metrics}
    if text:
        folder.mkdir(exist_ok=True)
        (folder / "sweep.yaml").write_text(text)
    asked = {"name": metrics[0], "target": 0.5} if metric is None else metric
    return Results(pd.DataFrame(table | ends | columns), history, tuple(varied), asked, folder, name)
