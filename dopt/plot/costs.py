"""What each cell of a sweep costs: how long until the target, or, where no cell gets there, what it ends at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dopt.plot.asked import Asked, best
from dopt.plot.style import AXES, said
from dopt.sweeps.cells import quantile
from dopt.sweeps.results import Results
from dopt.sweeps.several import SWEEP

FINAL = "final"


def costs(asked: Asked, by: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """(rows, what they are in words).

    Returns:
      columns: sweep; the parameters; panel; value, low, high (median and quartiles over seeds; not finite: not reached);
      learning_rate and edge of the best rate; n (seeds); ids.
    """
    found = [best(one, by, asked.x).assign(**{SWEEP: one.name}) for one in asked.sweeps]
    rows = pd.concat(found, ignore_index=True).rename(columns={"seeds": "n", "to_target": "value"})
    reaches = asked.target is not None and bool(np.isfinite(rows["value"]).any())
    if not reaches:
        ends = [_ends(asked, one, cells) for one, cells in zip(asked.sweeps, found, strict=True)]
        rows[["low", "value", "high"]] = np.concatenate(ends)
    rows["panel"] = rows[SWEEP].map(said) if asked.side_by_side else ""
    columns = dict.fromkeys([SWEEP, *by, "panel", "value", "low", "high", "learning_rate", "edge", "n", "ids"])
    what = f"{AXES[asked.x]} to {asked.y} {asked.target:g}" if reaches else f"{FINAL} {asked.y}"
    return rows[[name for name in columns if name in rows]], what


def missing(what: str) -> str:
    """What a cell without a number did: `what` is the second of `costs`."""
    return "diverged" if what.startswith(FINAL) else "not reached"


def _ends(asked: Asked, one: Results, cells: pd.DataFrame) -> np.ndarray:
    """[cells, 3] quartiles of the metric's last value; what is not finite is worse than all else."""
    last = one.runs.set_index("id")[f"final.{asked.y}"]
    sign = -1 if asked.highest else 1
    found = []
    for ids in cells["ids"]:
        ends = sign * last.loc[str(ids).split()].to_numpy(float)
        ordered = np.sort(np.where(np.isfinite(ends), ends, np.inf))
        found.append(sorted(sign * quantile(ordered, q) for q in (0.25, 0.5, 0.75)))
    return np.array(found)
