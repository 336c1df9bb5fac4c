"""What a sweep gave, as tables: pandas for reading, xarray for slicing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dopt.config import Run
from dopt.sweep.plan import run_of
from dopt.sweep.store import Store
from dopt.types import InputError

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Results:
    """The tables of a sweep.

    Attributes:
      runs: one row per run: id, all fields, spectral_gap, diverged, diverged_step, and `final.<metric>`.
      history: one row per run and record: id, step, gradients, time (s), bytes_sent, metrics.
      varied: the parameters that the sweep varies.
      metric: name, goal and target of the sweep's metric.
      folder: where it all lies.
      name: the sweep's.
      merged: runs left out of the sweep, since they differ only in what their method does not read.
      missing: runs that are not finished yet.
    """

    runs: pd.DataFrame
    history: pd.DataFrame
    varied: tuple[str, ...]
    metric: Mapping[str, Any]
    folder: Path
    name: str
    merged: int = 0
    missing: int = 0

    def run(self, identity: str) -> Run:
        """The resolved run behind an id."""
        if identity not in self._rows:
            raise InputError(f"id: no run {identity!r} in {str(self.folder)!r}; its tables have the ids")
        return run_of(self._rows[identity])

    @cached_property
    def _rows(self) -> dict[str, dict[str, Any]]:
        return _rows(Store(self.folder).plan())

    def to_xarray(self) -> xarray.Dataset:
        """The history as a Dataset [varied parameters..., record]; [run, record] where they are not a full grid."""
        record = self.history.groupby("id", sort=False).cumcount().rename("record")
        table = self.history.assign(record=record)
        names = [name for name in self.varied if name in self.runs and self.runs[name].notna().all()]
        whole = bool(names) and not self.runs.duplicated(names).any()
        whole = whole and len(self.runs) == self.runs[names].nunique().prod()
        if whole:
            table = table.merge(self.runs[["id", *names]], on="id").drop(columns="id")
        return table.set_index([*names, "record"] if whole else ["id", "record"]).to_xarray()


def load(folder: str | Path) -> Results:
    """The results in a folder; runs that are not finished yet are left out and counted in `missing`.

    Raises:
      InputError: the folder holds no sweep.
    """
    store = Store(folder)
    plan = store.plan()
    if plan is None:
        raise InputError(f"results: no sweep in {str(folder)!r} (no plan.json); run `dopt sweep FILE` first")
    names = [slab["name"] for group in plan["groups"] for slab in group["slabs"]]
    there = [name for name in names if store.slab(name).exists() and Store._damage(store.slab(name)) is None]
    tables = [store.read_slab(name) for name in there]
    columns = plan["columns"]
    order = {run: i for i, run in enumerate(plan["order"])}
    if tables:
        runs = pd.concat([runs for runs, _ in tables if len(runs)], ignore_index=True)
        history = pd.concat([history for _, history in tables if len(history)], ignore_index=True)
        runs = runs.iloc[runs["id"].map(order).argsort(kind="stable")].reset_index(drop=True)
        history = history.iloc[history["id"].map(order).argsort(kind="stable")].reset_index(drop=True)
    else:
        runs, history = pd.DataFrame(columns=columns), pd.DataFrame(columns=["id", "step"])
    missing = len(plan["order"]) - len(runs)
    return Results(
        runs, history, tuple(plan["varied"]), plan["metric"], Path(folder), plan["name"], plan["merged"], missing
    )


def find(identity: str, folder: str | Path) -> Run | None:
    """The resolved run of that id that a results folder, or one below it, was asked for; None: there is none."""
    for path in sorted(Path(folder).rglob("plan.json")):
        rows = _rows(Store(path.parent).plan())
        if identity in rows:
            return run_of(rows[identity])
    return None


def _rows(plan: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Id -> all fields of a run that a plan holds."""
    groups = plan["groups"] if plan else ()
    return {row["id"]: row for group in groups for slab in group["slabs"] for row in slab["runs"]}
