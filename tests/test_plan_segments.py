"""The plan says how a run is cut into calls, and a sweep that is gone on with is cut as it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

import dopt
from dopt import InputError, engine
from dopt.engine.segments import Segment, calls, fit, laid
from dopt.sweeps import plan, seal

STEPS = 6
SWEEP = {
    "name": "small",
    "parameters": {
        **{name: {"value": value} for name, value in {"algorithm": "gossip_sgd", "problem": "consensus"}.items()},
        **{name: {"value": value} for name, value in {"workers": 2, "steps": STEPS, "learning_rate": 0.1}.items()},
        "record_every": {"value": 2},
        "seed": {"values": [0, 1]},
    },
}


@given(st.integers(1, 500), st.integers(1, 3000), st.sampled_from([None, 1, 7]))
def test_what_a_run_is_cut_into_makes_it_up_and_nothing_shorter_or_off_the_beat_does(
    every: int, total: int, most: int | None
) -> None:
    made = calls(every, total, most=most)
    assert laid([call.segment for call in made], every) == made
    assert fit(made, every, total)
    assert not fit(made[:-1], every, total)
    assert not fit(laid([Segment(2, every + 1)], every), every, 2 * (every + 1))
    assert not fit(laid([Segment(1, every + 1)], every), every, every + 1)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda pair: Segment(*pair)), max_size=30))
def test_segments_are_read_as_they_were_written(segments: list[Segment]) -> None:
    assert plan.segments_of(json.loads(json.dumps(plan.counted(segments)))) == tuple(segments)


@pytest.mark.parametrize(
    "counted", [3, [3], [[1, 2]], [[1, 1, 0]], [[1, -1, 1]], [[True, 1, 1]], [["1", 1, 1]], [[2**40, 1, 1]]]
)
def test_what_nobody_wrote_is_refused(counted: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        plan.segments_of(counted)


def edited(folder: Path, **changes: Any) -> None:
    """The plan with other fields of its group under a checksum that fits; the second slab is gone."""
    content = json.loads((folder / "plans" / "0001.json").read_text())
    content["groups"][0] |= changes
    (folder / "plans" / "0001.json").write_bytes(seal.seal({k: v for k, v in content.items() if k != seal.SUM}))
    shutil.rmtree(folder / "slabs" / "0001-group0-slab001", ignore_errors=True)


def test_a_resume_is_cut_as_the_plan_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", 1)
    folder, made = tmp_path / "results", []
    real = engine.compile
    monkeypatch.setattr(engine, "compile", lambda *a: made.append(real(*a)) or made[-1])
    whole = dopt.sweep(SWEEP, results=folder)
    assert json.loads((folder / "plans" / "0001.json").read_text())["groups"][0]["segments"] == [[1, 3, 2]]
    edited(folder, segments=[[3, 1, 2]])
    found = dopt.sweep(SWEEP, results=folder)
    assert [call.segment for call in made[-1].calls] == [Segment(1, 2)] * 3
    assert_frame_equal(found.history, whole.history, check_exact=True)
    for segments in ([[1, 2, 2]], [[1, 1, 3], [1, 1, 3]]):
        edited(folder, segments=segments)
        with pytest.raises(
            InputError, match=r"0001\.json is damaged \(its segments do not add up to its runs\).*--results"
        ):
            dopt.sweep(SWEEP, results=folder)
