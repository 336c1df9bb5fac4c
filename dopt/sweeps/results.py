"""What a sweep gave, as tables: pandas for reading, xarray for slicing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dopt.config import Resolved
from dopt.sweeps import columns, spec
from dopt.sweeps import plan as planning
from dopt.sweeps.store import SlabError, Store
from dopt.types import InputError, MachineError

if TYPE_CHECKING:
    import pandas as pd
    import xarray


@dataclass(frozen=True)
class Results:
    """The tables of a sweep.

    Attributes:
      runs: one row per run: id, all fields, spectral_gap, diverged, diverged_step, and `final.<metric>`.
      history: one row per run and record: id, step, gradients, time (s), bytes_sent, metrics.
      varied: the parameters that the sweep varies.
      metric: name, goal and target of the sweep's metric, and whether the target must be kept to (`stays`).
      folder: where it all lies.
      name: the sweep's.
      merged: runs left out of the sweep, since they differ only in what their method does not read.
      missing: runs that are not finished yet.
      faults: a line for each slab that is there and was left out: damaged, foreign, or unreadable.
    """

    runs: pd.DataFrame
    history: pd.DataFrame
    varied: tuple[str, ...]
    metric: Mapping[str, Any]
    folder: Path
    name: str
    merged: int = 0
    missing: int = 0
    faults: tuple[str, ...] = ()

    def run(self, identity: str) -> Resolved:
        """The resolved run behind an id."""
        found = _of_id(identity, self._planned)
        if found is None:
            raise InputError(f"id: no run {identity!r} in {str(self.folder)!r}; its tables have the ids")
        return found

    @cached_property
    def _planned(self) -> Sequence[planning.Planned]:
        store = Store(self.folder)
        return _planned(store, store.plan())

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
    slabs = [slab for group in planning.read(plan, store.plan_path) for slab in group.slabs]
    tables, faults = _tables(store, slabs)
    order = {run: i for i, run in enumerate(plan["order"])}
    if tables:
        runs, history = map(columns.joined, zip(*tables, strict=True))
        runs = runs.iloc[runs["id"].map(order).argsort(kind="stable")].reset_index(drop=True)
        history = history.iloc[history["id"].map(order).argsort(kind="stable")].reset_index(drop=True)
    else:
        import pandas as pd

        runs, history = pd.DataFrame(columns=plan["columns"]), pd.DataFrame(columns=["id", "step"])
    missing = len(plan["order"]) - len(runs)
    said = (tuple(plan["varied"]), _metric(store), Path(folder), plan["name"], plan["merged"])
    return Results(runs, history, *said, missing, faults)


def _metric(store: Store) -> dict[str, Any]:
    try:
        return spec.metric_of(store.metric())
    except InputError as error:
        raise InputError(
            f"results: {store.reading_path} is damaged ({error}); remove it, and ask for the sweep once more"
        ) from error


def _tables(store: Store, slabs: planning.Slabs) -> tuple[list[tuple[pa.Table, pa.Table]], tuple[str, ...]]:
    """(tables of the slabs that are there, a line for each that is there and cannot be used)."""
    tables, faults = [], []
    for name, runs in slabs:
        try:
            if store.has(name):
                tables.append(store.read_slab(name, runs.ids))
        except SlabError as error:
            faults.append(f"results: {error}; left out")
    return tables, tuple(faults)


def find(identity: str, folder: str | Path) -> Resolved | None:
    """The resolved run of that id that a results folder, or one below it, was asked for; None: there is none.

    Plans of other versions, and damaged ones, are passed over: they hold no run of this version.
    """
    for path in sorted(Path(folder).rglob("plan.json")):
        store = Store(path.parent)
        try:
            found = _of_id(identity, _planned(store, store.plan()))
        except (InputError, MachineError):
            continue
        if found is not None:
            return found
    return None


def _planned(store: Store, plan: dict[str, Any] | None) -> Sequence[planning.Planned]:
    return planning.read(plan, store.plan_path) if plan else ()


def _of_id(identity: str, planned: Sequence[planning.Planned]) -> Resolved | None:
    """The run of that id; None: a plan does not hold it."""
    return next((found for p in planned if (found := p.runs.find(identity)) is not None), None)
