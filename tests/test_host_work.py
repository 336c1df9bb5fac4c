"""What the host does for runs is done once for each distinct value: its calls grow neither with the rates nor with the seeds of a slab."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
import pytest

import dopt
from dopt import code, engine, flags, mixing
from dopt.config import Runs
from dopt.config.identity import identify
from dopt.engine import Group, group_of
from dopt.engine.carry import Ages, Carry, Reported
from dopt.engine.outcome import read
from dopt.facts import wiring
from dopt.sweeps import plan, spec

FIXED = {"algorithm": "delayed_gossip_sgd", "workers": 4, "problem": "quadratic", "problem.dim": 3, "steps": 8}
CLOCK = {"cluster": "exponential", "seconds": 6.0}  # each seed its own horizon


def runs_of(rates: int = 2, seeds: int = 2, changes: dict[str, Any] | None = None, **swept: Any) -> Runs:
    """A small sweep's runs."""
    asked: dict[str, Any] = {"topology": ["ring", "star"], "delay": [0, 2], **swept}
    asked |= {"learning_rate": [0.01 * i for i in range(1, rates + 1)], "seed": list(range(seeds))}
    fixed = {name: value for name, value in {**FIXED, **(changes or {})}.items() if value is not None}
    return spec.parse({"parameters": spec.grid(fixed, asked)}).runs


def clocked() -> Runs:
    return runs_of(seeds=3, changes={**CLOCK, "steps": None})


@contextmanager
def counted() -> Iterator[list[int]]:
    """How many functions of dopt are called meanwhile."""
    folder, number = str(Path(dopt.__file__).parent), [0]

    def look(frame: FrameType, event: str, argument: object) -> None:
        number[0] += event == "call" and frame.f_code.co_filename.startswith(folder)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield number
    finally:
        sys.setprofile(before)


def calls(of: Callable[[], object]) -> int:
    of()  # what is kept is kept by now
    with counted() as number:
        of()
    return number[0]


def went_down(runs: Callable[[], Runs]) -> int:
    """Calls on the way from a file to a group."""

    def go() -> None:
        with code.once():
            found = runs()
            identify(found.templates)
            _ = found.ids
            for group in plan.groups_of(found).values():
                group_of(group)

    return calls(go)


def same(found: Any, wanted: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def given(group: Group, runs: Runs) -> tuple[Group, Runs, Carry, dict[str, np.ndarray]]:
    """What is read of a slab: as a program would leave it."""
    number = group.program.records
    recorded = {name: np.ones((len(runs), number)) for name in group.program.columns}
    carry = Carry(np.zeros((len(runs), 4, 3)), Reported(None, None), Ages(0, 0, 0), None)
    return group, runs, carry, recorded


@pytest.mark.parametrize("make", [runs_of, clocked])
def test_a_slab_is_packed_as_its_runs_are_one_by_one(make: Callable[[], Runs]) -> None:
    group = group_of(make())
    runs = group.facts.runs
    whole = engine.pack(group, runs, len(runs) + 2)
    for row in range(len(runs) + 2):
        alone = engine.pack(group, runs[min(row, len(runs) - 1) :], 1)
        same(jax.tree.map(lambda x, row=row: x[row], whole), jax.tree.map(lambda x: x[0], alone))


@pytest.mark.parametrize("make", [runs_of, clocked])
def test_a_slab_is_read_as_its_runs_are_one_by_one(make: Callable[[], Runs]) -> None:
    group = group_of(make())
    runs, dies = group.facts.runs, {1: 3, 4: 0}
    whole = read(*given(group, runs), diverged=dies)
    for row, found in enumerate(whole):
        one = runs[row : row + 1]
        alone = read(*given(group, one), diverged={0: dies[row]} if row in dies else {})[0]
        assert list(found.history) == list(alone.history)
        same(found.history, alone.history)
        assert found[2:4] == alone[2:4]


def test_rates_and_seeds_add_up_on_the_way_to_a_group_and_do_not_multiply() -> None:
    few, more = went_down(lambda: runs_of(4, 4)), went_down(lambda: runs_of(16, 16))
    assert more <= few + 12 * 40  # of 12 more rates and 12 more seeds, not of 240 more points


def test_a_wider_slab_is_packed_and_read_by_as_many_calls() -> None:
    runs = runs_of(8, 16, topology=["ring"], delay=[1])
    group = group_of(runs)
    for work in (lambda part: engine.pack(group, part, len(part)), lambda part: read(*given(group, part), diverged={})):
        few, all_of_them = (calls(lambda part=part, work=work: work(part)) for part in (runs[:4], runs[:]))
        assert few == all_of_them


def test_templates_that_share_a_matrix_share_its_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    usual = mixing.form

    def form(*args: Any, **options: Any) -> mixing.Form:
        made.append(args)
        return usual(*args, **options)

    monkeypatch.setattr(wiring.mixing, "form", form)
    group = group_of(runs_of(delay=[0, 1, 2, 3, 4]))
    forms = [group.facts.forms(number, 0, 8)[0] for number in range(10)]
    assert len({id(one) for one in forms}) == len(made) == 2  # of ring and star


def test_flags_are_set_where_they_differ_and_given_back() -> None:
    with jax.transfer_guard("disallow"), jax.default_matmul_precision("bfloat16"):
        with flags.fixed(True):
            assert jax.config.jax_transfer_guard_device_to_host == "allow"
            assert jax.config.jax_default_matmul_precision is None  # type: ignore[attr-defined]
            assert jax.numpy.zeros(1).dtype == np.float64
        assert jax.config.jax_transfer_guard_device_to_host == "disallow"
        assert jax.config.jax_default_matmul_precision == "bfloat16"  # type: ignore[attr-defined]


def test_models_stay_on_the_devices_until_somebody_looks() -> None:
    group = group_of(runs_of(topology=["ring"], delay=[0]))
    slab = engine.packed(engine.compile(group, 4), group.facts.runs)
    found = engine.collected(slab, engine.advanced(slab))
    assert found.columns.history["loss"].shape[0] == 4
    assert isinstance(found.carry.params, jax.Array)
    assert "left" not in vars(found)
    np.testing.assert_array_equal(found[3].params, np.asarray(found.carry.params)[3])
