"""What is read in a compiled program's text: its loops, their trip counts, and what an iteration launches."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from benchmarks.speed.ahead import COLLECTIVES, Seen, fallen, loops, seen
from dopt.engine.segments import Segment

TEXT = """\
HloModule jit_f, entry_computation_layout={(f32[4]{0})->f32[4]{0}}

%add (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  ROOT %sum = f32[4]{0} add(%a, %a)
}

%command_buffer (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  %one = f32[4]{0} fusion(%p), kind=kLoop, calls=%add
  ROOT %two = f32[4]{0} fusion(%one), kind=kLoop, calls=%add
}

%steps (t: (s32[], f32[4])) -> (s32[], f32[4]) {
  %t = (s32[], f32[4]{0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %x = f32[4]{0} get-tuple-element(%t), index=1
  %called = f32[4]{0} call(%x), to_apply=%command_buffer
  %sent = f32[4]{0} all-reduce(%called), to_apply=%add
  %copied = f32[4]{0:T(128)} copy(%sent)
  ROOT %r = (s32[], f32[4]{0}) tuple(%i, %copied)
}

%records (t.1: (s32[], f32[4])) -> (s32[], f32[4]) {
  %t.1 = (s32[], f32[4]{0}) parameter(0)
  %loop.1 = (s32[], f32[4]{0}) while(%t.1), condition=%c, body=%steps, backend_config={"known_trip_count":{"n":"7"}}
  %y = f32[4]{0} get-tuple-element(%loop.1), index=1
  %note = f32[4]{0} fusion(%y), kind=kLoop, calls=%add
  ROOT %r.1 = (s32[], f32[4]{0}) tuple(%i, %note)
}

ENTRY %main (arg: f32[4]) -> f32[4] {
  %arg = f32[4]{0} parameter(0)
  %loop.2 = (s32[], f32[4]{0}) while(%start), condition=%c.1, body=%records%
  ROOT %out = f32[4]{0} get-tuple-element(%loop.2), index=1
}
"""
COUNTED = TEXT.replace("body=%records%", 'body=%records, backend_config={"known_trip_count":{"n":"3"}}')


def test_launches_are_counted_without_what_costs_none_and_within_calls() -> None:
    steps, records = loops(COUNTED)
    assert (steps.body, steps.within, steps.trip_count) == ("steps", "records", 7)
    assert steps.kinds == {"fusion": 2, "all-reduce": 1, "copy": 1}
    assert (records.trip_count, records.launches) == (3, 2)


def test_the_loops_of_a_segment_are_told_by_their_trip_counts() -> None:
    steps, records = loops(COUNTED)
    assert seen(COUNTED, Segment(3, 7)) == Seen(steps, records)
    assert seen(COUNTED, Segment(3, 5)) == Seen(None, records)
    uncounted = TEXT.replace("body=%records%", "body=%records")
    assert loops(uncounted)[1].trip_count is None
    assert seen(uncounted, Segment(3, 7)).record is None


@pytest.mark.parametrize("known", [True, False])
def test_a_compiled_loop_has_a_trip_count_where_its_bound_is_static(known: bool) -> None:
    def f(x: jax.Array, bound: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 9 if known else bound, lambda k, x: jnp.sin(x @ x), x)

    text = jax.jit(f).lower(jnp.ones((3, 3)), 9).compile().as_text()
    (loop,) = loops(text)
    assert loop.trip_count == (9 if known else None)
    assert loop.launches > 0


def row(method: str, executor: str = "vmap", **dopt: Any) -> dict[str, Any]:
    sent = dict.fromkeys(COLLECTIVES, 0) | dopt.pop("collectives", {})
    side = {"known_trip_counts": True, "launches_per_step": 13, "launches_per_record": None, "collectives": sent}
    return {"method": method, "executor": executor, "dopt": side | dopt}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (row("gossip_sgd"), []),
        (row("gossip_sgd") | {"by_hand": {"launches_per_step": 10, "launches_per_record": 20}}, []),
        (row("gossip_sgd") | {"by_hand": {"launches_per_step": 9}}, ["13 launches a step, by hand 9"]),
        (
            row("gossip_sgd", launches_per_record=24) | {"by_hand": {"launches_per_record": 20}},
            ["24 launches a record, by hand 20"],
        ),
        (row("gossip_sgd", known_trip_counts=False), ["without a known trip count"]),
        ({"method": "d2", "executor": "vmap", "error": "InputError: no"}, ["does not compile"]),
        (row("gossip_sgd", "pmap", collectives={"collective-permute": 2}), []),
        (row("gossip_sgd", "pmap"), ["no collective-permute"]),
        (
            row("ring_allreduce_sgd", "shard_map", collectives={"collective-permute": 1, "all-gather": 1}),
            ["1 all-gathers"],
        ),
        (row("relay_sgd", "pmap", collectives={"all-gather": 3}), []),
        (row("allreduce_sgd", "pmap", collectives={"all-reduce": 3}), []),
    ],
)
def test_a_bar_that_is_not_cleared_is_named(found: dict[str, Any], said: list[str]) -> None:
    lines = fallen(found)
    assert len(lines) == len(said)
    for line, part in zip(lines, said, strict=True):
        assert line.startswith(f"{found['method']} under {found['executor']}")
        assert part in line
