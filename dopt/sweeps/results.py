"""What a sweep gave, as tables: pandas for reading, xarray for slicing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from dopt import extras
from dopt.config import Resolved
from dopt.files import is_writable
from dopt.registry import did_you_mean
from dopt.sweeps import columns, compact, spec, where
from dopt.sweeps import plan as planning
from dopt.sweeps.records import Made, Records, RecordsError, Source, mixes
from dopt.sweeps.store import HISTORY, RUNS, Reading, SlabError, Store
from dopt.text import quoted
from dopt.types import InputError, MachineError

if TYPE_CHECKING:
    import pandas as pd
    import xarray
    from matplotlib.figure import Figure

PICTURES = "dopt.plot"
PAGE = "dopt.page"


@dataclass(frozen=True, repr=False)
class Results:
    """The tables of a sweep.

    Attributes:
      runs: one row per run: id, all fields, spectral_gap, diverged, diverged_step, and `final.<metric>`.
      records: where the records of these runs are: in slabs, which are read when somebody asks for `history`, or in a table like it.
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
    records: pd.DataFrame | Records
    varied: tuple[str, ...]
    metric: Mapping[str, Any]
    folder: Path
    name: str
    merged: int = 0
    missing: int = 0
    hidden: int = 0
    faults: tuple[str, ...] = ()

    def __repr__(self) -> str:
        counts = {name: getattr(self, name) for name in ("missing", "merged", "hidden")}
        rest = "".join(f", {count} {name}" for name, count in counts.items() if count)
        varied = ", ".join(
            f"{name} ({self.runs[name].astype(str).nunique()})" for name in self.varied if name in self.runs
        )
        goal = self.metric.get("name", "loss")
        target = f", target {self.metric['target']:g}" * ("target" in self.metric)
        head = f"{self.name}: {len(self.runs)} runs{rest} in {self.folder}"
        return f"{head}\n  varied: {varied or 'nothing'}\n  metric: {goal}{target}"

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per run and record: id, step, gradients, time (s), bytes_sent, metrics; of the runs in `runs`, in their order.

        It is read, and compared with the sums of its files, when it is asked for; `histories` reads a part of it.

        Raises:
          RecordsError: they are damaged; `checked` leaves out the runs that they are of.
        """
        if isinstance(self.records, Records):
            return self.histories()
        known = self.records["id"].isin(self.runs["id"])
        return self.records if known.all() else self.records[known].reset_index(drop=True)

    def histories(self, where: str = "", columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Like `history`, but only of the runs that meet all conditions, and only the id and these columns. Nothing else is read.

        Args:
          where: as of `where`.
          columns: names of metrics, or of what else a history has, where it has them; all by default.

        Raises:
          InputError: the conditions are none, or no column of `runs` is called so.
          RecordsError: records are damaged.
        """
        chosen = self.where(where) if where else self
        if where and "history" in vars(self):
            chosen = replace(chosen, records=self.history)  # which is here
        count, found = chosen.measured(columns)
        found.insert(0, "id", chosen.runs["id"].repeat(count.tolist()).to_numpy())
        return found

    def measured(self, names: Sequence[str] | None = None) -> tuple[np.ndarray, pd.DataFrame]:
        """As `histories` of all runs, without ids, which are most of it.

        Returns:
          [runs] how many records each run has; the records, run after run.
        """
        ids = self.runs["id"].tolist()
        if isinstance(self.records, Records) and "history" not in vars(self):
            try:
                return self.records.read(ids, names)
            except SlabError as error:
                raise RecordsError(
                    f"results: {error}; run the sweep again to restore it, or leave its runs out with Results.checked()"
                ) from error
        place = self.history["id"].map({identity: i for i, identity in enumerate(ids)}).to_numpy(int)
        found = self.history.drop(columns="id").iloc[np.argsort(place, kind="stable")].reset_index(drop=True)
        return np.bincount(place, minlength=len(ids)), found if names is None else found[
            [name for name in names if name in found]
        ]

    def where(self, conditions: str) -> Results:
        """The runs for which all conditions hold, as in `topology=ring, delay>2` (`dopt.sweeps.where`).

        Raises:
          InputError: they are none, there is no such column, or its values have another type.
        """
        return self.only(where.mask(self.runs, where.parse(conditions)))

    def only(self, rows: np.ndarray) -> Results:
        """Some of the runs. `rows`: [runs] bool."""
        return replace(self, runs=self.runs[rows].reset_index(drop=True))

    def checked(self) -> Results:
        """Without the runs whose records are damaged, foreign or unreadable, which `faults` names then: the records of all are read once."""
        if not isinstance(self.records, Records):
            return self
        good, bad = self.records.whole()
        left = self.runs["id"].isin([identity for source in good.sources for identity in source.ids]).to_numpy()
        return replace(
            self.only(left),
            records=good,
            missing=self.missing + int((~left).sum()),
            faults=(*self.faults, *map(left_out, bad)),
        )

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """A line for each thing that the rows of `runs` should share and do not: versions of libraries, engines, devices, precisions that nobody asked to vary."""
        return notes_of([self])

    def run(self, identity: str) -> Resolved:
        """The resolved run behind an id."""
        found = _of_id(identity, Store(self.folder))
        if found is None:
            raise InputError(f"id: no run {identity!r} in {str(self.folder)!r}; its tables have the ids")
        return found.run

    def tuned(self, over: str | Sequence[str] = "learning_rate", by: Sequence[str] | None = None) -> pd.DataFrame:
        """The best of each cell, seeds together: one row for each (see `dopt.sweeps.cells.tuned`).

        Args:
          over: what is tuned, one parameter or several.
          by: what makes a cell; all else that the sweep varies by default.

        Raises:
          InputError: no such parameter varies.
        """
        from dopt.sweeps import cells

        over = [over] if isinstance(over, str) else list(over)
        for name in [*over, *(by or ())]:
            if name not in (*self.varied, *cells.TUNED):
                raise InputError(
                    f"tuned: {quoted(name)} is not a parameter that varies{did_you_mean(name, self.varied) or '; none does'}"
                )
        return cells.tuned(self, by, over=over)

    def plot(
        self,
        kind: str | None = None,
        *,
        x: str | None = None,
        y: str | None = None,
        by: str | Sequence[str] = (),
        where: str = "",
        add: str | Path | pd.DataFrame | None = None,
        size: str | None = None,
    ) -> Figure:
        """A picture of it, which `save` writes: see `dopt.plot.picture` for what it can be asked."""
        # Pictures stand above results, which do not know them: they are found by name, as pandas finds what draws its plots.
        draw = import_module(PICTURES).picture
        found: Figure = draw(self, kind, x=x, y=y, by=by, where=where, add=add, size=size)
        return found

    def page(self, path: str | Path) -> Path:
        """Write it as a report page, one HTML file, and return its path: see `dopt.page.write`, which takes several."""
        written: Path = import_module(PAGE).write(path, self)
        return written

    def to_xarray(self) -> xarray.Dataset:
        """The history as a Dataset [varied parameters..., record]; [run, record] where they are not a full grid."""
        extras.need("xarray", "to_xarray:")
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
    asked = store.reading()
    try:
        return asked._replace(metric=spec.metric_of(asked.metric))
    except InputError as error:
        raise store.damaged_reading(error) from error


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
            f"results: {store.reading_path} asks for runs that are in no plan; delete it, and run the sweep again"
        )
    tables, sources, faults = _tables(store, [(name, ids) for name, ids in slabs if not rank.keys().isdisjoint(ids)])
    last = list(plans.values())[-1]
    if tables:
        runs = _in_order(columns.joined(tables), rank)
    else:
        import pandas as pd

        runs = pd.DataFrame(columns=last["columns"])
    varied = dict.fromkeys(name for plan in plans.values() for name in plan["varied"])
    return Results(
        runs,
        Records(sources),
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
    place = np.array([rank.get(identity, -1) for identity in table["id"].tolist()])
    if (place >= 0).all() and (np.diff(place) > 0).all():
        return table
    order = np.argsort(place, kind="stable")
    return table.iloc[order[np.count_nonzero(place < 0) :]].reset_index(drop=True)


def _tables(
    store: Store, slabs: Sequence[tuple[str, Sequence[str]]]
) -> tuple[list[pa.Table], tuple[Source, ...], tuple[str, ...]]:
    """(tables of the slabs that are there, where their records lie, a line for each slab that is there and cannot be used)."""
    kept = compact.read(store.folder) if len(slabs) > compact.MANY else {}
    tables: dict[str, pa.Table] = {}
    sources, faults = [], []
    for name, ids in slabs:
        try:
            if store.has(name):
                table, manifest = store.read_runs(name, ids, kept)
                sums = manifest["sha256"]
                tables[sums[RUNS]] = table
                sources.append(Source(store.folder, name, ids, sums.get(HISTORY), Made.of(manifest)))
        except SlabError as error:
            faults.append(left_out(error))
    if len(tables.keys() - kept.keys()) > compact.MANY and is_writable(store.folder):
        with suppress(MachineError):  # it only costs time
            compact.write(store.folder, tables)
    return list(tables.values()), tuple(sources), tuple(faults)


def left_out(error: SlabError) -> str:
    """The line that says so."""
    return f"results: {error}; left out"


def notes_of(tables: Sequence[Results]) -> tuple[str, ...]:
    """As `Results.notes`, of tables that somebody reads as one."""
    made, precisions = Counter[Made](), Counter[str]()
    for one in tables:
        if isinstance(one.records, Records):
            made.update(one.records.made(one.runs["id"]))
        precisions.update(one.runs.get("precision", ()))
    on_purpose = any("precision" in one.varied for one in tables)
    return mixes(made, {} if on_purpose else precisions)


class Found(NamedTuple):
    """A run of a results folder."""

    run: Resolved
    imports: Sequence[tuple[str, str]]  # (folder, file or module) of the plug-ins that its sweep used


def find(identity: str, folder: str | Path) -> Found | None:
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


def _of_id(identity: str, store: Store) -> Found | None:
    """The run of that id; None: no plan holds it."""
    for path in store.plan_paths():
        plan = store.plan(path)
        if any(identity in ids for _, ids in planning.index(plan, path)):
            runs = (found for p in planning.read(plan, path) if (found := p.runs.find(identity)))
            return next((Found(run, planning.imports_of(plan, path)) for run in runs), None)
    return None
