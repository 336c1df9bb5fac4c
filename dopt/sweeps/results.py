"""What a sweep gave, as tables: pandas for reading, xarray for slicing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dopt.config import Resolved
from dopt.sweeps import columns, spec
from dopt.sweeps import plan as planning
from dopt.sweeps.store import Reading, SlabError, Store
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
      hidden: runs of the folder that were not asked for.
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
    hidden: int = 0
    faults: tuple[str, ...] = ()

    def run(self, identity: str) -> Resolved:
        """The resolved run behind an id."""
        found = _of_id(identity, Store(self.folder))
        if found is None:
            raise InputError(f"id: no run {identity!r} in {str(self.folder)!r}; its tables have the ids")
        return found

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
    """The results in a folder, of what its latest call asked for; runs that are not finished yet are left out and counted in `missing`.

    Raises:
      InputError: the folder holds no sweep.
    """
    store = Store(folder)
    return read(store, _asked(store))


def _asked(store: Store) -> Reading:
    """What the latest call asked for."""
    try:
        asked = store.reading()
        return asked._replace(metric=spec.metric_of(asked.metric))
    except InputError as error:
        raise InputError(
            f"results: {store.reading_path} is damaged ({error}); remove it, and ask for the sweep once more"
        ) from error


def read(store: Store, asked: Reading) -> Results:
    """The results of what was asked for.

    Raises:
      InputError: the folder holds no sweep, or none of which that can be asked for.
    """
    plans = {path: store.plan(path) for path in store.plan_paths()}
    if not plans:
        raise InputError(f"results: no sweep in {str(store.folder)!r} (no plan); run `dopt sweep FILE` first")
    slabs = [slab for path, plan in plans.items() for slab in planning.index(plan, path)]
    held = dict.fromkeys(identity for plan in plans.values() for identity in plan["order"])
    rank = {identity: i for i, identity in enumerate(held if asked.order is None else asked.order)}
    if not rank.keys() <= held.keys():
        raise InputError(
            f"results: {store.reading_path} asks for runs that no plan holds; remove it, and ask for the sweep once more"
        )
    tables, faults = _tables(store, [(name, ids) for name, ids in slabs if not rank.keys().isdisjoint(ids)])
    last = list(plans.values())[-1]
    if tables:
        runs, history = (_in_order(columns.joined(each), rank) for each in zip(*tables, strict=True))
    else:
        import pandas as pd

        runs, history = pd.DataFrame(columns=last["columns"]), pd.DataFrame(columns=["id", "step"])
    varied = dict.fromkeys(name for plan in plans.values() for name in plan["varied"])
    return Results(
        runs,
        history,
        tuple(varied if asked.varied is None else asked.varied),
        asked.metric,
        store.folder,
        last["name"],
        last["merged"] if asked.merged is None else asked.merged,
        len(rank) - len(runs),
        len(held) - len(rank),
        faults,
    )


def _in_order(table: pd.DataFrame, rank: Mapping[str, int]) -> pd.DataFrame:
    """The rows of runs that have a rank, by it."""
    place = table["id"].map(rank)
    return table.iloc[place.argsort(kind="stable")[: place.notna().sum()]].reset_index(drop=True)


def _tables(
    store: Store, slabs: Sequence[tuple[str, Sequence[str]]]
) -> tuple[list[tuple[pa.Table, pa.Table]], tuple[str, ...]]:
    """(tables of the slabs that are there, a line for each that is there and cannot be used)."""
    tables, faults = [], []
    for name, ids in slabs:
        try:
            if store.has(name):
                tables.append(store.read_slab(name, ids))
        except SlabError as error:
            faults.append(f"results: {error}; left out")
    return tables, tuple(faults)


def find(identity: str, folder: str | Path) -> Resolved | None:
    """The resolved run of that id that a results folder, or one below it, was asked for; None: there is none.

    Plans of other versions, and damaged ones, are passed over: they hold no run of this version.
    """
    plans = {path.parent for path in Path(folder).rglob("plan.json")}
    plans |= {path.parent.parent for path in Path(folder).rglob("plans/*.json")}
    for path in sorted(plans):
        with suppress(InputError, MachineError):
            found = _of_id(identity, Store(path))
            if found is not None:
                return found
    return None


def _of_id(identity: str, store: Store) -> Resolved | None:
    """The run of that id; None: no plan holds it."""
    for path in store.plan_paths():
        plan = store.plan(path)
        if any(identity in ids for _, ids in planning.index(plan, path)):
            return next((found for p in planning.read(plan, path) if (found := p.runs.find(identity))), None)
    return None
