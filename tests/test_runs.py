"""Runs as columns are the very runs, one by one: the same fields, the same ids, the same order."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import sys
from typing import Any

import numpy as np
import pytest

from dopt import InputError
from dopt.config import Resolved, Run, Runs
from dopt.config.identity import hashed
from dopt.config.resolve import rate_of, seed_of
from dopt.config.runs import bits, numbered

identity = sys.modules["dopt.config.identity"]  # the module: the package has a function of that name

METHODS: tuple[dict[str, Any], ...] = (
    {"algorithm": "gossip_sgd", "topology": "torus", "workers": 16},
    {"algorithm": "delayed_gossip_sgd", "delay": 3, "workers": 4, "precision": "float64"},
    {"algorithm": "fedbuff", "workers": 5, "cluster": "exponential", "options": {"algorithm.buffer": 2}},
    {"algorithm": "slowmo", "workers": 4, "options": {"learning_rate.schedule": "exponential_decay"}},
)
RATES = (0.1, 1e-05, 1.0, 1 / 3, 3e30, 123456.75)


def make(learning_rate: float = 0.1, seed: int = 0, **fields: Any) -> Run:
    options = dict(fields.pop("options", {}))
    if "learning_rate.schedule" in options:
        options |= {"learning_rate.transition_steps": 5, "learning_rate.decay_rate": 0.5}
    given = {"problem": "consensus", "steps": 10} | fields
    return Run(learning_rate=learning_rate, seed=seed, options=options, **given)


def rows() -> list[Resolved]:
    """Runs of four methods, in turn."""
    each = [(rate, seed, fields) for rate in RATES for seed in (0, 7, 2**31 - 1) for fields in METHODS]
    return [make(rate, seed, **fields).resolve() for rate, seed, fields in each]


def test_columns_give_back_each_run_and_its_id() -> None:
    each = rows()
    runs = Runs.of(each)
    assert len(runs.templates) == len(METHODS)
    assert list(runs) == each
    assert runs.ids == [run.id for run in each] == [hashed(run.to_dict(), run.digests) for run in each]
    assert [run.id for run in runs] == runs.ids
    assert {type(run.learning_rate) for run in runs} == {float}
    assert {type(run.seed) for run in runs} == {int}


def test_a_slice_of_columns_is_that_of_the_list() -> None:
    each = rows()
    runs = Runs.of(each)
    for part in (slice(3, 9), slice(None, None, 5), slice(-3, None), slice(4, 4)):
        assert list(runs[part]) == each[part]
        assert runs[part].ids == runs.ids[part] == Runs.of(each[part]).ids
    assert runs[-1] == each[-1]
    assert runs[2:3].kinds == (runs.templates[2],)
    assert Runs.of(runs) is runs


def test_the_templates_of_a_part_come_in_the_order_of_its_runs() -> None:
    each = rows()
    runs = Runs.of(each[3::-1])
    assert [like.algorithm for like in runs.kinds] == [run.algorithm for run in each[3::-1]]
    for number, of_it in Runs.of(each).by_template():
        assert of_it.tolist() == list(range(number, len(each), len(METHODS)))


def test_a_run_is_found_by_its_id_beside_those_whose_things_are_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, of_one = Runs.of(rows()), identity.content_digests

    def missing(run: Resolved) -> dict[str, str]:
        if run.algorithm == "gossip_sgd":
            raise InputError("data: not here")
        return of_one(run)

    wanted = runs[6]
    name = wanted.id
    monkeypatch.setattr(identity, "content_digests", missing)
    assert runs.find(name) == wanted
    assert runs.find("0" * 16) is None
    with pytest.raises(InputError):
        _ = runs.ids
    assert runs[:0].ids == Runs.of([]).ids == []


def test_values_are_what_any_run_has() -> None:
    runs = Runs.of(rows())
    assert runs.values("algorithm") == [fields["algorithm"] for fields in METHODS]
    assert runs.values("algorithm.buffer") == [None, None, 2, None]
    assert runs[4:5].values("seed") == [7]
    assert runs.values("learning_rate") == sorted(RATES)


def test_digests_are_made_once_for_all_runs_of_a_template(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, asked = Runs.of(rows()), []
    monkeypatch.setattr(identity, "digests", lambda run: asked.append(run.algorithm) or {"graph": "0"})
    assert len(set(runs.ids)) == len(runs)
    assert sorted(asked) == sorted(fields["algorithm"] for fields in METHODS)
    assert runs[1].digests == {"graph": "0"}


def test_a_changed_run_is_no_longer_known_to_be_resolved() -> None:
    run = make(**METHODS[0]).resolve()
    changed = dataclasses.replace(run, learning_rate=0.2)
    assert (type(run), type(changed)) == (Resolved, Run)
    assert changed == run.at(0.2, run.seed)
    assert changed.id == run.at(0.2, run.seed).id != run.id
    with pytest.raises(InputError, match="learning_rate: must be a finite number"):
        _ = dataclasses.replace(run, learning_rate=-1.0).id
    for again in (copy.copy(run), copy.deepcopy(run), pickle.loads(pickle.dumps(run))):
        assert (type(again), again, again.id) == (Resolved, run, run.id)


@pytest.mark.parametrize("fields", METHODS)
@pytest.mark.parametrize("rate", [0, 0.0, -0.0, -1.0, 1e-50, 1e-310, 1e39, 1e308, float("inf"), float("nan"), 2, 10**400, True, "0.1", None, [0.1]])  # fmt: skip
def test_a_rate_is_refused_as_the_run_that_has_it(fields: dict[str, Any], rate: Any) -> None:
    like = make(**fields).resolve()
    try:
        whole = make(rate, **fields).resolve()
    except InputError:
        with pytest.raises(InputError):
            rate_of(rate, like)
    else:
        assert json.dumps(rate_of(rate, like)) == json.dumps(whole.learning_rate)


@pytest.mark.parametrize("seed", [0, 5, 2**31 - 1, 2**31, -1, 1.0, 1.5, True, "1", None, 2**70, float("nan")])
def test_a_seed_is_refused_as_the_run_that_has_it(seed: Any) -> None:
    try:
        whole = make(seed=seed, **METHODS[0]).resolve()
    except InputError:
        with pytest.raises(InputError):
            seed_of(seed)
    else:
        assert json.dumps(seed_of(seed)) == json.dumps(whole.seed)


def test_kinds_are_numbered_as_they_come() -> None:
    first, kind = numbered(np.array([5, 5, 2, 5, 2]), np.array([1, 2, 1, 1, 1]))
    assert (first.tolist(), kind.tolist()) == ([0, 1, 2], [0, 1, 2, 0, 2])
    zeros = np.array([0.0, -0.0, 0.0])
    assert numbered(bits(zeros))[1].tolist() == [0, 1, 0]
    assert [part.tolist() for part in numbered(np.array([]))] == [[], []]
