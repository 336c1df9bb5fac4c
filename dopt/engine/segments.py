"""How a run is cut into calls of its program, of which the compiler knows all but where they begin.

A device that must ask the host whether a loop goes on waits for the answer at each step. So a call, a *segment*, has so many
stretches of so many steps, with a record at the end of each: all calls of a run are alike where that can be, and what is left
over at the end is a second program. Between two calls the host may look, or keep a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

LONGEST = 4096  # steps of a segment: all its batches are drawn ahead


class Segment(NamedTuple):
    """What a call does."""

    records: int  # stretches, each with a record at its end
    steps: int  # of a stretch


class Call(NamedTuple):
    """A segment, and where it begins."""

    segment: Segment
    start: int  # its first step
    slot: int  # where its first record goes; a later call of the same stretch writes over it

    @property
    def end(self) -> int:
        return self.start + self.segment.records * self.segment.steps


def pieces(total: int, most: int) -> list[int]:
    """A number in pieces of about `most`, at most twice that: equal ones, where there are such of at least half of it."""
    least = max(1, -(-total // most))
    for number in (*range(least, 2 * least + 1), *range(least - 1, (least - 1) // 2, -1)):
        if number > 0 and total % number == 0:
            return [total // number] * number * (total > 0)
    size = -(-total // least)
    return [size] * (total // size) + [total % size] * (total % size > 0)


def calls(every: int, total: int, longest: int = LONGEST, most: int | None = None) -> tuple[Call, ...]:
    """The calls of a run of `total` steps with a record every so many, and at the end.

    Args:
      longest: steps of a stretch, about; a longer one is cut into several calls.
      most: records of a call, about; None: as many as have `longest` steps together.
    """
    full, rest = divmod(total, every)
    parts = pieces(every, longest)
    if len(parts) > 1:
        found = [Segment(1, steps) for steps in parts] * full + [Segment(1, parts[0])] * (rest // parts[0])
        rest %= parts[0]
    else:
        found = [Segment(records, every) for records in pieces(full, max(1, most or longest // every))]
    return laid([*found, *[Segment(1, rest)] * (rest > 0)], every)


def laid(segments: Sequence[Segment], every: int) -> tuple[Call, ...]:
    """Segments one after the other, with a record every so many steps."""
    starts = accumulate((segment.records * segment.steps for segment in segments), initial=0)
    return tuple(Call(segment, start, start // every + 1) for segment, start in zip(segments, starts, strict=False))


def fit(made: Sequence[Call], every: int, total: int) -> bool:
    """Whether calls make up a run of `total` steps, and their records lie every so many, and at the end."""
    ends = sum(segment.records * segment.steps for segment, _, _ in made) == total
    return ends and all(
        min(segment) > 0
        and (
            (segment.steps == every and start % every == 0)
            or (segment.records == 1 and start % every + segment.steps <= every)
        )
        for segment, start, _ in made
    )
