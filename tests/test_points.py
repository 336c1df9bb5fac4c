"""What a sweep asks for, taken as columns, means the very runs, and is refused with the very line, as point by point."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dopt import InputError
from dopt.config import Resolved, Run, Runs
from dopt.config.identity import fields_of, identify
from dopt.config.runs import places
from dopt.engine.key import key
from dopt.sweeps import plan, seal, spec
from dopt.sweeps.points import Points, listed, product, runs_of

BASE: dict[str, list[Any]] = {"workers": [4], "problem": ["consensus"], "steps": [6]}
SCHEDULED = {
    "learning_rate.schedule": ["linear_schedule"],
    "learning_rate.end_value": [0.1, 0.0],
    "learning_rate.transition_steps": [3],
}
GOOD_RATES = (0.1, 1, 1.0, 1e-05, 0.5)
BAD_RATES = (0, 0.0, -0.0, -1.0, None, "0.1", True, 1e-300, float("nan"), [0.1])
GOOD_SEEDS = (0, 1, 1.0, 7, 2**31 - 1)
BAD_SEEDS = (-1, 2**31, None, True, 0.5, "0")


def some(good: tuple[Any, ...], bad: tuple[Any, ...] = ()) -> st.SearchStrategy[list[Any]]:
    """A few values; now and then one that is refused."""
    usual = st.lists(st.sampled_from(good), min_size=1, max_size=3)
    return st.one_of(usual, usual, st.lists(st.sampled_from((*good, *bad)), min_size=1, max_size=3))


@st.composite
def asked(draw: st.DrawFn) -> Points:
    """A small grid over methods that read rate, seed, graph and schedule in ways of their own."""
    choices = BASE | {
        "algorithm": draw(some(("gossip_sgd", "allreduce_sgd", "slowmo", "delayed_gossip_sgd"), ("gossip", None))),
        "learning_rate": draw(some(GOOD_RATES, BAD_RATES)),
    }
    if draw(st.booleans()):
        choices["seed"] = draw(some(GOOD_SEEDS, BAD_SEEDS))
    if draw(st.booleans()):
        choices["topology"] = draw(some(("ring", "complete"), ("rings", 3)))
    if draw(st.booleans()):
        choices["precision"] = draw(some(("float32", "float64"), ("float16",)))
    if draw(st.booleans()):
        choices |= SCHEDULED
    names = draw(st.permutations(list(choices)))
    return product({name: choices[name] for name in names}, draw(st.sampled_from((5, 1000))))


def one_by_one(points: Points) -> list[Resolved]:
    distinct: dict[str, Resolved] = {}
    for row in range(points.size):
        run = points.run(row)
        distinct.setdefault(fields_of(run), run)
    return list(distinct.values())


def outcome(make: Callable[[Points], Sequence[Resolved]], points: Points) -> list[str] | str:
    """The runs' fields, or what the refusal says."""
    try:
        return list(map(fields_of, make(points)))
    except InputError as error:
        return str(error)


@settings(max_examples=60, deadline=None)
@given(points=asked())
def test_columns_mean_what_each_point_means(points: Points) -> None:
    assert outcome(runs_of, points) == outcome(one_by_one, points)


def test_runs_that_differ_in_rate_and_seed_alone_share_a_template() -> None:
    runs = runs_of(product(BASE | {"algorithm": ["gossip_sgd", "allreduce_sgd"], "topology": ["ring", "star"], "learning_rate": [0.1, 0.2, 0.1], "seed": [0, 1]}, 100))  # fmt: skip
    assert len(runs) == 3 * 2 * 2
    assert [(like.algorithm, like.topology) for like in runs.templates] == [
        ("gossip_sgd", "ring"),
        ("gossip_sgd", "star"),
        ("allreduce_sgd", None),
    ]


def test_a_product_turns_its_last_parameter_fastest() -> None:
    choices = {"a": [1, 2], "b": ["x"], "c": [3, 4, 5]}
    for most in (100, 5, 1):
        points = product(choices, most)
        rows = [tuple(points.at(row).values()) for row in range(points.size)]
        assert rows == list(itertools.islice(itertools.product(*choices.values()), most))
        assert (points.varied, points.left_out) == (("a", "c"), 6 - points.size)


def test_of_a_product_that_no_machine_counts_the_first_points_are_there() -> None:
    points = product({f"x{i}": list(range(1000)) for i in range(10)}, 3)
    assert [points.at(row)["x9"] for row in range(3)] == [0, 1, 2]
    assert {points.at(row)["x0"] for row in range(3)} == {0}
    assert points.left_out == 10**30 - 3


def test_listed_values_are_one_where_they_are_written_alike() -> None:
    values = [1, 1.0, True, 0.0, -0.0, "1", 1, None, [1], None]
    column = listed(values)
    assert [column.values[i] for i in column.place] == values
    assert [repr(column.values[i]) for i in column.place] == list(map(repr, values))
    assert len(column.values) == 8


def test_what_a_hundred_seeds_and_rates_share_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve, calls = Run.resolve, Counter[str]()

    def counted(run: Run, **how: Any) -> Resolved:
        calls[str(run.topology)] += 1
        return resolve(run, **how)

    monkeypatch.setattr(Run, "resolve", counted)
    swept = {"topology": ["ring", "complete"], "learning_rate": list(np.geomspace(0.01, 1, 100)), "seed": range(100)}
    found = spec.parse(
        {"parameters": spec.grid({"algorithm": "gossip_sgd"} | {k: v for k, (v,) in BASE.items()}, swept)}
    )
    assert len(found.runs) == 20_000
    assert calls == {"ring": 1, "complete": 1}


@pytest.mark.parametrize("schedule", ["warmup_cosine_decay_schedule", "cosine_decay_schedule"])
def test_groups_of_columns_are_those_of_each_run(schedule: str) -> None:
    more = {"init_value": 0.1, "warmup_steps": 2} if schedule.startswith("warmup") else {}
    options = {f"learning_rate.{name}": [x] for name, x in {"schedule": schedule, "decay_steps": 5, **more}.items()}
    swept = {"algorithm": ["gossip_sgd", "allreduce_sgd"], "topology": ["ring", "complete"], "learning_rate": [0.1, 0.2], "seed": [0, 1]}  # fmt: skip
    runs = runs_of(product(BASE | swept | options, 100))
    expected: dict[str, list[Resolved]] = {}
    for run in runs:
        expected.setdefault(key(run), []).append(run)
    found = plan.groups_of(runs)
    assert list(found) == list(expected)
    assert [list(part) for part in found.values()] == list(expected.values())
    assert all(isinstance(part, Runs) for part in found.values())
    assert len(found) == (4 if more else 2)


def test_a_plan_of_many_runs_is_made_written_and_read_without_making_each(monkeypatch: pytest.MonkeyPatch) -> None:
    at, looked = Resolved.at, list[int]()

    def counted(like: Resolved, learning_rate: float, seed: int) -> Resolved:
        looked.append(seed)
        return at(like, learning_rate, seed)

    swept = {"topology": ["ring", "complete"], "learning_rate": list(np.geomspace(0.01, 1, 50)), "seed": range(100)}
    asked = spec.parse(
        {"parameters": spec.grid({"algorithm": "gossip_sgd"} | {k: v for k, (v,) in BASE.items()}, swept)}
    )
    identify(asked.runs.templates)
    monkeypatch.setattr(Resolved, "at", counted)
    groups = plan.groups_of(asked.runs).items()
    planned = [plan.Planned(key, runs, 64, None, 1, plan.cut(1, i, runs, 64)) for i, (key, runs) in enumerate(groups)]
    text = seal.seal(plan.write(asked, planned, jax.devices()))
    (found,) = plan.read(seal.unseal(text), Path("plan.json"))
    assert found.runs.ids == asked.runs.ids
    assert [(name, runs.ids) for name, runs in found.slabs] == [(name, runs.ids) for name, runs in planned[0].slabs]
    assert places(found.runs, asked.runs).tolist() == list(range(len(asked.runs)))
    assert len(looked) == 2  # a key for each template
    assert text.count(b"\n") < 10 * len(found.slabs)


def test_what_one_sweep_asks_for_and_another_does_not_is_told_by_fields() -> None:
    grid = BASE | {"algorithm": ["gossip_sgd"], "topology": ["ring", "star"], "learning_rate": [0.1, 0.2]}
    one, other = (runs_of(product(grid | {"seed": seeds}, 100)) for seeds in ([0, 1], [1, 2]))
    assert [
        (run.topology, run.learning_rate, run.seed) for run in other.take(np.flatnonzero(places(one, other) < 0))
    ] == [(topology, rate, 2) for topology in ("ring", "star") for rate in (0.1, 0.2)]
    assert places(one, one[::-1]).tolist() == list(range(len(one)))[::-1]
