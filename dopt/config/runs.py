"""Many resolved runs as columns: what they share is there once, and each row has only a rate and a seed of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np

from dopt.config.identity import around, ids_of
from dopt.config.run import Resolved, Run
from dopt.types import InputError


@dataclass(frozen=True, eq=False)
class Runs(Sequence[Resolved]):
    """Runs in order. A row becomes a `Run` only where somebody looks at it; a slice is `Runs` again, with the same templates.

    Attributes:
      templates: runs that differ in more than rate and seed; their own rates and seeds count for nothing.
      template: [runs] which of them each run is like.
      learning_rate: [runs].
      seed: [runs].
      part_of: the runs of which these are a part, and their numbers there; an id is made once.
    """

    templates: tuple[Resolved, ...]
    template: np.ndarray  # int32
    learning_rate: np.ndarray  # float64
    seed: np.ndarray  # int64
    part_of: tuple[Runs, np.ndarray] | None = None

    @classmethod
    def of(cls, runs: Iterable[Run]) -> Runs:
        """The same runs as columns; of equal templates the first stands for all."""
        if isinstance(runs, Runs):
            return runs
        rows = [run if isinstance(run, Resolved) else Resolved.of(run) for run in runs]
        number: dict[Any, int] = {}
        kinds = [_kind(row) for row in rows]
        template = np.array([number.setdefault(kind, len(number)) for kind in kinds], np.int32)
        first = dict(zip(reversed(kinds), reversed(rows), strict=True))
        return cls(
            tuple(first[kind] for kind in number),
            template,
            np.array([row.learning_rate for row in rows], np.float64),
            np.array([row.seed for row in rows], np.int64),
        )

    def __len__(self) -> int:
        return len(self.template)

    @overload
    def __getitem__(self, index: int) -> Resolved: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> Resolved | Runs:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        row: Resolved = self.templates[self.template[index]].at(float(self.learning_rate[index]), int(self.seed[index]))
        if "ids" in vars(self):
            vars(row)["id"] = self.ids[index]
        return row

    def take(self, rows: np.ndarray) -> Runs:
        """The runs of these numbers, in this order."""
        return Runs(self.templates, self.template[rows], self.learning_rate[rows], self.seed[rows], (self, rows))

    def alone(self) -> Runs:
        """The same runs, without the templates of others."""
        rank = np.zeros(len(self.templates), np.int32)
        rank[self.used] = np.arange(len(self.used))
        found = Runs(tuple(self.kinds), rank[self.template], self.learning_rate, self.seed)
        if "ids" in vars(self):
            vars(found)["ids"] = self.ids
        return found

    def where(self, holds: Callable[[Resolved], bool]) -> Runs:
        """The runs whose template is such a one."""
        chosen = [number for number in self.used.tolist() if holds(self.templates[number])]
        return self.take(np.flatnonzero(np.isin(self.template, chosen)))

    @cached_property
    def used(self) -> np.ndarray:
        """Numbers of the templates that have a run here, in the order in which they come."""
        found: np.ndarray = self.template[numbered(self.template)[0]]
        return found

    @property
    def kinds(self) -> tuple[Resolved, ...]:
        """The templates that have a run here, in the order in which they come."""
        return tuple(self.templates[number] for number in self.used)

    @cached_property
    def ids(self) -> list[str]:
        """The identity of each run."""
        if self.part_of is not None:
            whole, places = self.part_of
            return [whole.ids[place] for place in places.tolist()]
        found = np.empty(len(self), object)
        for number, rows in self.by_template():
            found[rows] = self._ids_of(number, rows)
        return found.tolist()

    def _ids_of(self, number: int, rows: np.ndarray) -> list[str]:
        return ids_of(self.templates[number], self.learning_rate[rows].tolist(), self.seed[rows].tolist())

    def values(self, name: str) -> list[Any]:
        """What a field or an option is in any of the runs; None where a template lacks it."""
        column = {"learning_rate": self.learning_rate, "seed": self.seed}.get(name)
        return [like.to_dict().get(name) for like in self.kinds] if column is None else np.unique(column).tolist()

    def find(self, identity: str) -> Resolved | None:
        """The run of that id; None: there is none. Of runs whose data or files are not here nobody can tell."""
        for number, rows in self.by_template():
            with suppress(InputError):
                found = self._ids_of(number, rows)
                if identity in found:
                    return self[int(rows[found.index(identity)])]
        return None

    def by_template(self) -> Iterator[tuple[int, np.ndarray]]:
        """Each template that has a run here, and the numbers of its runs, in order."""
        order = np.argsort(self.template, kind="stable")
        used, begin = np.unique(self.template[order], return_index=True)
        return zip(used.tolist(), np.split(order, begin)[1:], strict=True)


def joined(parts: Sequence[Runs]) -> Runs:
    """All the runs of parts, one part after the other."""
    templates: list[Resolved] = []
    begin: dict[int, int] = {}  # parts may share their templates
    for part in parts:
        if id(part.templates) not in begin:
            begin[id(part.templates)] = len(templates)
            templates += part.templates
    columns = ((part.template + begin[id(part.templates)], part.learning_rate, part.seed) for part in parts)
    template, rate, seed = map(np.concatenate, zip(*columns, strict=True))
    found = Runs(tuple(templates), template.astype(np.int32), rate, seed)
    vars(found)["ids"] = [identity for part in parts for identity in part.ids]
    return found


def places(there: Runs, asked: Runs) -> np.ndarray:
    """[asked] where each run that is asked for stands among those that are there, by its fields, whatever they stand for; -1: nowhere."""
    rows = zip((there, asked), kinds(there, asked), strict=True)
    columns = [(kind[runs.template], bits(runs.learning_rate), runs.seed) for runs, kind in rows]
    first, kind = numbered(*(np.concatenate(pair) for pair in zip(*columns, strict=True)))
    found = first[kind[len(there) :]]
    return np.where(found < len(there), found, -1)


def alike(there: Runs, asked: Runs) -> np.ndarray:
    """[there] whether a run differs in nothing but its rate from one that is asked for."""
    rows = zip((there, asked), kinds(there, asked), strict=True)
    columns = [(kind[runs.template], runs.seed) for runs, kind in rows]
    _, kind = numbered(*(np.concatenate(pair) for pair in zip(*columns, strict=True)))
    found: np.ndarray = np.isin(kind[: len(there)], kind[len(there) :])
    return found


def kinds(*parts: Runs) -> list[np.ndarray]:
    """Of each part [templates]: equal numbers where templates have equal fields, whatever they stand for."""
    number: dict[Any, int] = {}
    return [np.array([number.setdefault(around(like), len(number)) for like in runs.templates]) for runs in parts]


def _kind(run: Resolved) -> tuple[Any, ...]:
    """What a template stands for: all fields but rate and seed, and digests, where they are known."""
    digests: Mapping[str, str] = vars(run).get("digests", {})
    return around(run), tuple(digests.items())


def numbered(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are equal in all columns are of a kind: (the first row of each kind, in order; of each row, its kind).

    Zeros of either sign are equal here; `bits` tells them apart.
    """
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        values, place = np.unique(column, return_inverse=True)
        _, code = np.unique(code * len(values) + place, return_inverse=True)
    _, first, code = np.unique(code, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[code]


def of_runs(values: Sequence[np.ndarray], kind: np.ndarray) -> np.ndarray:
    """[runs, ...]: of each run what its kind has, by `numbered`."""
    found: np.ndarray = np.repeat(values[0][None], len(kind), 0) if len(values) == 1 else np.stack(values)[kind]
    return found


def bits(rates: np.ndarray) -> np.ndarray:
    """Floats as whole numbers that are equal where the floats are written alike."""
    return np.ascontiguousarray(rates, np.float64).view(np.int64)


__all__ = ["Runs", "alike", "bits", "joined", "kinds", "numbered", "places"]
