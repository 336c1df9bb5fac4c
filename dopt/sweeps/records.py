"""The records of runs, which lie in their slabs until somebody asks for them; and what made these slabs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from dopt.sweeps import columns
from dopt.sweeps.store import SlabError, Store
from dopt.types import MachineError

if TYPE_CHECKING:
    import pandas as pd

RUN = "run"  # a column of one's own: the number of the run whose record it is


class RecordsError(MachineError):
    """Records that are damaged, foreign, or unreadable, found as they were read."""


class Made(NamedTuple):
    """What made a slab, as far as tables should not mix it."""

    versions: tuple[tuple[str, str], ...]  # of packages
    engine: str
    device: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Made:
        """As the manifest says; nothing is believed of it but that it is JSON."""
        versions = manifest.get("versions")
        said = sorted(versions.items()) if isinstance(versions, dict) else ()
        return cls(
            tuple((name, str(version)) for name, version in said),
            *(str(manifest.get(name)) for name in ("engine", "device")),
        )


class Source(NamedTuple):
    """A slab whose table of runs was read: where its records lie, and what made them."""

    folder: Path  # of the sweep
    slab: str
    ids: Sequence[str]
    sha256: str | None  # of the file of its records, as the manifest says
    made: Made

    def read(self, names: Sequence[str] | None) -> pa.Table:
        """Its records, of which the ids and these columns, or all; SlabError where they cannot be used."""
        fields = None if names is None else ["id", *names]
        return Store(self.folder).read_records(self.slab, self.ids, self.sha256, fields)


@dataclass(frozen=True)
class Records:
    """The records of the runs of some slabs."""

    sources: tuple[Source, ...] = field(repr=False)

    def read(self, ids: Sequence[str], names: Sequence[str] | None = None) -> tuple[np.ndarray, pd.DataFrame]:
        """The records of runs, in this order; only their slabs are read.

        Args:
          names: the columns to read, where they are there; all but the id by default.

        Returns:
          [runs] how many records each has; the records, run after run.

        Raises:
          SlabError: a slab is damaged, foreign, or unreadable.
        """
        import pandas as pd

        place = {identity: i for i, identity in enumerate(ids)}
        found = [part for part in (_part(source, place, names) for source in self.sources) if part is not None]
        if not found:
            return np.zeros(len(ids), int), pd.DataFrame(columns=list(names or ["step"]))
        table = columns.joined(found)
        run = table.pop(RUN).to_numpy()
        if (np.diff(run) < 0).any():
            table = table.iloc[np.argsort(run, kind="stable")].reset_index(drop=True)
        return np.bincount(run, minlength=len(ids)), table

    def whole(self) -> tuple[Records, tuple[SlabError, ...]]:
        """(those whose records are there and whole, why the others are not)."""
        good, bad = [], []
        for source in self.sources:
            try:
                source.read(())
                good.append(source)
            except SlabError as error:
                bad.append(error)
        return Records(tuple(good)), tuple(bad)

    def made(self, ids: Iterable[str]) -> dict[Made, int]:
        """How many of the runs were made by what."""
        if len({source.made for source in self.sources}) < 2:
            return {source.made: len(list(ids)) for source in self.sources[:1]}
        of = {identity: source.made for source in reversed(self.sources) for identity in source.ids}
        found: dict[Made, int] = {}
        for made in filter(None, map(of.get, ids)):
            found[made] = found.get(made, 0) + 1
        return found


def united(parts: Iterable[Records]) -> Records:
    """All of them; of a run that lies in several slabs the first counts."""
    seen: set[str] = set()
    sources = []
    for source in (source for part in parts for source in part.sources):
        if not seen.issuperset(source.ids):
            sources.append(source)
        seen.update(source.ids)
    return Records(tuple(sources))


def mixes(made: Mapping[Made, int], precisions: Mapping[str, int]) -> tuple[str, ...]:
    """A line for each kind of thing in which runs of one table differ: (made by what, precision) -> how many runs."""
    packages = dict.fromkeys(name for one in made for name, _ in one.versions)
    counted = {name: _counted(made, partial(_version, name)) for name in packages}
    kinds = {
        "versions": [f"{name} {_listed(each)}" for name, each in counted.items() if len(each) > 1],
        "engines": _several(_counted(made, lambda one: one.engine)),
        "devices": _several(_counted(made, lambda one: one.device)),
        "precisions": _several(precisions),
    }
    return tuple(f"results: the table mixes {kind}: {'; '.join(said)}" for kind, said in kinds.items() if said)


def _version(package: str, one: Made) -> str:
    return dict(one.versions).get(package, "unknown")


def _counted(made: Mapping[Made, int], look: Callable[[Made], str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one, runs in made.items():
        found[look(one)] = found.get(look(one), 0) + runs
    return found


def _several(counted: Mapping[str, int]) -> list[str]:
    return [_listed(counted)] if len(counted) > 1 else []


def _listed(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{value} ({runs} runs)" for value, runs in counted.items())


def _part(source: Source, place: dict[str, int], names: Sequence[str] | None) -> pa.Table | None:
    """A slab's records of the runs that have a place, with its number; None: it has none of them. A run is taken out of `place`."""
    mine = [identity for identity in source.ids if identity in place]
    if not mine:
        return None
    table = source.read(names)
    codes = table["id"].combine_chunks()
    number = np.array([place.pop(identity, -1) for identity in codes.dictionary.to_pylist()], np.int32)
    run = number[codes.indices.to_numpy()]
    table = table.drop_columns(["id"]).append_column(RUN, pa.array(run))
    return table if len(mine) == len(source.ids) else table.filter(pa.array(run >= 0))
