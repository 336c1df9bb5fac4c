"""A fixed share of a sweep's slabs, for machines that share no folder; `merge` puts together what they made."""

from __future__ import annotations

import re
from typing import NamedTuple

from dopt.text import quoted
from dopt.types import InputError

WRITTEN = re.compile(r"([0-9]{1,9})/([0-9]{1,9})", re.ASCII)


class Shard(NamedTuple):
    """One of several shares.

    Attributes:
      number: which one, from 1.
      of: how many there are.
    """

    number: int
    of: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """The shard that is written so; InputError where none is."""
        found = WRITTEN.fullmatch(text)
        shard = cls(*map(int, found.groups())) if found else None
        if shard is None or not 1 <= shard.number <= shard.of:
            raise InputError(
                f"shard: must be i/N with i from 1 to N, got {quoted(text)}; the first of three machines takes 1/3"
            )
        return shard

    def has(self, place: int) -> bool:
        """Whether the slab at that place of its plan, from 0, belongs to this share: every N-th does, whatever is done by now."""
        return place % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"
