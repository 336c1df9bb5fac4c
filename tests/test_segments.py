"""How a run is cut into calls: all alike where that can be, none too long, nothing left out and nothing twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dopt.engine.segments import LONGEST, Segment, calls, pieces


@given(st.integers(0, 10**5), st.integers(1, 2000))
def test_pieces_make_up_the_whole_and_are_at_most_twice_as_long_as_asked_for(total: int, most: int) -> None:
    found = pieces(total, most)
    assert sum(found) == total
    assert all(0 < piece <= 2 * most for piece in found)
    assert set(found[:-1]) <= {max(found, default=0)}  # only the last may be shorter


@given(st.integers(1, 5000), st.integers(0, 20_000), st.sampled_from([None, 1, 7]))
def test_calls_follow_each_other_and_their_records_lie_on_the_beat_and_at_the_end(
    every: int, total: int, most: int | None
) -> None:
    made = calls(every, total, most=most)
    assert [call.start for call in made] == [0, *(call.end for call in made)][: len(made)]
    assert max((call.end for call in made), default=0) == total
    assert len({call.segment for call in made}) <= 3
    last = {}  # of each slot, where its last record is made
    for call in made:
        assert call.segment.records * call.segment.steps <= 2 * max(LONGEST, (most or 0) * every)
        last |= {call.slot + r: call.start + (r + 1) * call.segment.steps for r in range(call.segment.records)}
    assert last == {slot: min(slot * every, total) for slot in range(1, -(-total // every) + 1)}


@pytest.mark.parametrize(
    ("every", "total", "expected"),
    [
        (10, 500, [Segment(50, 10)]),
        (40, 8000, [Segment(100, 40)] * 2),
        (1500, 3000, [Segment(2, 1500)]),
        (6000, 12_000, [Segment(1, 3000)] * 4),
        (1, 99, [Segment(99, 1)]),
        (7, 20, [Segment(2, 7), Segment(1, 6)]),
        (10, 1990, [Segment(199, 10)]),  # a prime number of records, in one call rather than in two unequal ones
    ],
)
def test_calls_are_equal_where_they_can_be(every: int, total: int, expected: list[Segment]) -> None:
    assert [call.segment for call in calls(every, total)] == expected
