"""What the page is made of: the runs of all sweeps in one table, with what they reached, and which of them are tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from dopt.config import Resolved
from dopt.page import thin
from dopt.sweeps.cells import scores, tuned
from dopt.sweeps.results import Results
from dopt.sweeps.several import SWEEP, together
from dopt.types import InputError, MachineError

MOST = 20_000  # runs of a page
BEST = "best"  # the column that says whether a run is at the best rate of its cell
POINTS = 300_000  # records that a page keeps


@dataclass(frozen=True)
class Material:
    """The sweeps of a page.

    Attributes:
      sweeps: one for each name.
      cells: their tuned cells.
      runs: a row for each run of any, with `sweep`, `to_target`, `spacing`, `final` and `best`.
      varied: what any of them varies; `sweep` first where there are several.
    """

    sweeps: Sequence[Results]
    cells: Sequence[pd.DataFrame]
    runs: pd.DataFrame
    varied: tuple[str, ...]

    @cached_property
    def has_curve(self) -> np.ndarray:
        """[runs] bool: whose records are on the page. Where there are too many, tuned runs come first."""
        ids = [identity for one in self.sweeps for identity in one.runs["id"]]
        counts = np.concatenate([one.measured(["step"])[0] for one in self.sweeps])
        kept = self.runs["id"].map(dict(zip(ids, np.minimum(counts, thin.POINTS).tolist(), strict=True))).to_numpy(int)
        first = np.argsort(~self.runs[BEST].to_numpy(bool), kind="stable")
        found = np.zeros(len(first), bool)
        found[first] = np.cumsum(kept[first]) <= POINTS
        return found

    def resolved(self, identity: str) -> Resolved | None:
        """The run behind an id; None: its folder was made by another version, or can no longer tell."""
        for one in self.sweeps:
            if (one.runs["id"] == identity).any():
                try:
                    return one.run(identity)
                except (InputError, MachineError):
                    return None
        return None

    def firsts(self, names: Sequence[str]) -> pd.DataFrame:
        """The first run of each kind, by columns of these names or beginnings (`topology.`)."""
        columns = [name for name in self.runs if name in names or any(str(name).startswith(f"{n}.") for n in names)]
        return self.runs.loc[~self.runs[columns].astype(str).duplicated()]


def gathered(parts: Sequence[Results]) -> Material:
    """The material of results, of which at least one run must be there.

    Raises:
      InputError: none is, or there are more than `MOST`.
      MachineError: records are damaged.
    """
    sweeps = [one for one in together(parts) if len(one.runs)]
    count = sum(len(one.runs) for one in sweeps)
    if not count:
        raise InputError("report: no run to show; run `dopt sweep FILE` first, or use fewer conditions in --where")
    if count > MOST:
        raise InputError(f"report: a page takes at most {MOST} runs, got {count}; choose some with --where")
    cells = [tuned(one) for one in sweeps]
    tables = []
    for one, each in zip(sweeps, cells, strict=True):
        best = {identity for ids in each["ids"] for identity in str(ids).split()}
        runs = scores(one)
        runs[SWEEP], runs[BEST] = one.name, runs["id"].isin(best)
        tables.append(runs)
    runs = pd.concat(tables, ignore_index=True).drop_duplicates("id", ignore_index=True)
    varied = dict.fromkeys(name for one in sweeps for name in one.varied if name in runs)
    return Material(sweeps, cells, runs, ((SWEEP,) if len(sweeps) > 1 else ()) + tuple(varied))
