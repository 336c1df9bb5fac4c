"""What a sweep tells whoever watches."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple


class Part(NamedTuple):
    """A group of a sweep, as it is shown."""

    label: str
    slabs: Mapping[str, int]  # name -> runs


class Best(NamedTuple):
    """The best run of a slab.

    Attributes:
      score: by which runs are compared: the smaller, the better.
      label: what tells it from others, and where it ends, in words.
      curve: a few of its records, from the first to the last one.
    """

    score: float
    label: str
    curve: Sequence[float]


class Row(NamedTuple):
    """A group, how far it is, and the best run of it that is known."""

    label: str
    done: int
    total: int
    best: Best | None = None


class Show:
    """What a sweep tells whoever watches; this one says nothing."""

    def plan(self, parts: Sequence[Part], there: Collection[str]) -> None: ...
    def compiling(self, label: str) -> None: ...
    def compiled(self, seconds: float) -> None: ...
    def start(self, total: int, finished: int) -> None: ...
    def slab(self, name: str, runs: int) -> None: ...
    def note(self, line: str) -> None: ...
    def first(self, record: Mapping[str, Any]) -> None: ...
    def chunk(self, share: float) -> None: ...
    def best(self, slab: str, found: Best) -> None: ...
    def done(self, name: str, runs: int, diverged: int) -> None: ...
    def say(self, line: str) -> None: ...
    def stop(self) -> None: ...
