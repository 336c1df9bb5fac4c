"""A sweep file means what it says, at once: plain data, each key once, and a bounded amount of work until it is refused."""

from __future__ import annotations

import math
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refusals import refused

from dopt import InputError
from dopt.sweeps import plain, spec

BASE = {"algorithm": "allreduce_sgd", "workers": 4, "learning_rate": 0.1, "problem": "consensus", "steps": 10}
PARAMETERS = spec.grid(BASE)


def load(text: str) -> Any:
    return plain.load(text, "x")


def in_one_line(do: Callable[[], Any], *said: str) -> None:
    """Refused in one line that has all that is `said`, within 2 s and 500 MiB."""
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        with pytest.raises(InputError) as caught:
            do()
        assert tracemalloc.get_traced_memory()[1] < 500 * 2**20
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - begin < 6  # 2 s, and what tracing costs
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 1000
    for part in said:
        assert part in line


# -- plain data -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["010", "1:30", "190:20:30.15", "2024-01-01", "2024-13-45", "0o10", "08", "<<", "="])
def test_no_number_is_hidden_in_what_does_not_look_like_one(text: str) -> None:
    assert load(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-7", -7),
        ("0x10", 16),
        ("1_000", 1000),
        (".5", 0.5),
        ("3.", 3.0),
        ("1e22", 1e22),
        ("-.inf", -math.inf),
        ("~", None),
        ("", None),
        ("yes", True),
        ("False", False),
        ("'3'", "3"),
        ("{a: [1, {b: c}]}", {"a": [1, {"b": "c"}]}),
    ],
)
def test_plain_values_are_what_they_look_like(text: str, value: Any) -> None:
    found = load(text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{a: 1, a: 1}", "'a' is given twice"),
        ("a: {b: {c: 1, d: 2, c: 3}}", "'c' is given twice"),
        ("{1: a, 1.0: b}", "given twice"),
        ("a: &x [1]\nb: *x", "anchors and aliases"),
        ("*x", "anchors and aliases"),
        ("!!int '010'", "tag"),
        ("!!python/object:os.system {}", "tag"),
        ("!!set {a, b}", "tag"),
        ("? [1]\n: 2", "a key must be text"),
        ("1e400", "too large or too small"),
        ("1e-400", "too large or too small"),
        ("9" * 5000, "5000 characters"),
        ('"\\0"', "is not text"),
        ('"\\ud800"', "is not text"),
        ('"\\UFFFFFFFF"', "is not YAML"),
        ("a: 1\n---\nb: 2", "another document"),
        ("[" * 5000, "deep"),
        ("{a: " * 5000, "deep"),
        ("- " * 5000, "deep"),
        ("[" * plain.LARGEST, "deep"),
        ("a\n" * plain.LARGEST, "characters; at most"),
        ("\x00", "is not YAML"),
        ("\x1b[31m", "is not YAML"),
    ],
)
def test_what_is_not_plain_is_refused_in_one_line(text: str, said: str) -> None:
    in_one_line(lambda: load(text), said)


def test_a_bomb_of_aliases_is_refused_before_it_grows(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    in_one_line(lambda: spec.read(tmp_path / "bomb.yaml"), "bomb.yaml is not YAML of plain data", "line 1")


def test_a_file_that_never_ends_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(2**33)
    for path in ("/dev/zero", tmp_path / "fifo.yaml", tmp_path / "large.yaml"):
        in_one_line(lambda path=path: spec.read(path), "sweep: ")


# -- what a sweep asks for, before any run is resolved ----------------------------------------------------------------


def sweep(method: str = "grid", **changes: Any) -> dict[str, Any]:
    """The sweep of BASE; keys in `changes` that name no parameter are the sweep's own."""
    own = {key: changes.pop(key) for key in spec.KEYS if key in changes}
    return {"method": method, "parameters": {**PARAMETERS, **changes}, **own}


TEN = {"values": list(range(10))}


def test_a_grid_is_counted_before_it_is_made() -> None:
    names = ["seed", "record_every", "workers", "problem.seed", "problem.dim", "eval_samples", "batch_size"]
    content = sweep(**dict.fromkeys([*names, "algorithm.x", "optimizer.x"], TEN))
    in_one_line(lambda: spec.parse(content), "sweep: a grid of 1000000000 runs (10 x 10", "at most 1000000")


def test_run_cap_takes_the_first_points_of_a_grid() -> None:
    whole, capped = (spec.parse(sweep(seed=TEN, **more)) for more in ({}, {"run_cap": 3}))
    assert [run.id for run in capped.runs] == [run.id for run in whole.runs[:3]]
    assert capped.words() == "sweep: 3 runs (run_cap: the first 3 points of 10)"
    assert len(spec.parse(sweep(seed=TEN, run_cap=50)).runs) == 10


@pytest.mark.parametrize("cap", [True, 0, -1, 1.5, math.nan, math.inf, 10**9, 1e9, 10**400, "3", [3], {}])
@pytest.mark.parametrize("method", ["grid", "random"])
def test_a_cap_that_is_no_number_of_runs_is_refused(cap: Any, method: str) -> None:
    in_one_line(lambda: spec.parse(sweep(method, run_cap=cap)), "sweep.run_cap: ")


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ({"name": "acuracy"}, "no run has a metric 'acuracy'; did you mean 'accuracy'?"),
        ({"name": "accuracy"}, "no run of this sweep has accuracy"),
        ({"name": "rmse"}, "no run of this sweep has rmse"),
        ({"name": "final.loss"}, "no run has a metric"),
        ({"name": ["loss"]}, "must be the name of a metric"),
        ({"name": None}, "must be the name of a metric"),
        ({"name": "loss", "target": math.nan}, "target: must be finite"),
        ({"name": "loss", "target": math.inf}, "target: must be finite"),
        ({"name": "loss", "target": True}, "target: must be a number, got True"),
        ({"name": "loss", "target": 10**400}, "target: must be"),
        ({"name": "loss", "target": None}, "target: must be a number"),
        ({"goal": ["minimize"]}, "goal: must be minimize or maximize"),
        (0, "sweep.metric: must be a mapping"),
        ([], "sweep.metric: must be a mapping"),
        ("loss", "sweep.metric: must be a mapping"),
    ],
)
def test_a_metric_that_no_run_has_or_no_number_reaches_is_refused(metric: Any, said: str) -> None:
    in_one_line(lambda: spec.parse(sweep(metric=metric)), "sweep.metric", said)


def test_a_metric_must_be_among_those_that_are_recorded() -> None:
    content = sweep(metric={"name": "loss"}, metrics={"value": ["grad_norm"]})
    in_one_line(lambda: spec.parse(content), "sweep.metric.name: no run of this sweep has loss")
    assert spec.parse(sweep(metric={"name": "accuracy"}, problem={"value": "softmax"})).metric == {"name": "accuracy"}


@pytest.mark.parametrize("key", ["name", "project"])
@pytest.mark.parametrize("value", [[1], True, "", " ", {}])
def test_a_name_is_text(key: str, value: Any) -> None:
    in_one_line(lambda: spec.parse(sweep(**{key: value})), f"sweep.{key}: must be a name")


@pytest.mark.parametrize(
    ("method", "parameter", "said"),
    [
        ("grid", {"value": 1, "values": [1, 2]}, "has value and values"),
        ("random", {"value": 1, "values": [1, 2]}, "has value and values"),
        ("grid", {"values": [1, 2], "probabilities": [0.5, 0.5]}, ".probabilities: a grid does not read it"),
        ("grid", {"value": 1, "min": 0}, ".min: a grid does not read it"),
        ("grid", {"values": [1, 2], "distribution": "uniform"}, ".distribution: a grid takes all values"),
        ("random", {"value": 1, "min": 0, "max": 2}, ".min: constant does not read it"),
        ("random", {"values": [1, 2], "max": 2}, ".max: categorical does not read it"),
        ("random", {"distribution": "uniform", "min": 0, "max": 1, "q": 2}, ".q: uniform does not read it"),
        ("random", {"min": 0, "max": 1, "mu": 2}, ".mu: int_uniform does not read it"),
        ("random", {"distribution": "uniform", "min": 0, "max": math.inf}, ".max: must be finite"),
        ("random", {"distribution": "uniform", "min": math.nan, "max": 1}, ".min: must be finite"),
        ("random", {"distribution": "uniform", "min": -1e308, "max": 1e308}, "max - min must be finite"),
        ("random", {"min": True, "max": 3}, ".min: int_uniform needs a number, got True"),
        ("random", {"min": 10**400, "max": 10**401}, ".min: must be a finite float"),
        ("random", {"distribution": "int_uniform", "min": 1.5, "max": 3.5}, ".min: int_uniform needs a whole number"),
        ("random", {"distribution": "int_uniform", "min": 0, "max": 2**64}, ".max: int_uniform needs a whole number"),
        ("random", {"distribution": "log_uniform", "min": 0, "max": 1e6}, "too large"),
        ("random", {"distribution": "normal", "mu": 0, "sigma": -1}, ".sigma: must not be negative"),
        ("random", {"distribution": "normal", "mu": math.inf}, ".mu: must be finite"),
        ("random", {"distribution": "log_normal", "mu": 1e5}, "too large"),
        ("random", {"distribution": "q_normal", "mu": 1e300, "q": 1e-300}, "too large"),
        ("random", {"distribution": "q_uniform", "min": 0, "max": 1, "q": math.nan}, ".q: must be finite"),
        ("random", {"distribution": "q_uniform", "min": 0, "max": 1, "q": -1}, ".q: must be positive"),
        ("random", {"values": [1, 2], "probabilities": [True, False]}, ".probabilities"),
        ("random", {"values": [1, 2], "probabilities": [math.nan, 1]}, ".probabilities"),
        ("random", {}, ".min: uniform needs a number"),
    ],
)
def test_a_distribution_that_cannot_be_is_refused(method: str, parameter: Any, said: str) -> None:
    in_one_line(lambda: spec.parse(sweep(method, learning_rate=parameter, run_cap=50)), said)


def test_a_distribution_may_name_what_its_keys_say() -> None:
    for parameter in ({"value": 1, "distribution": "constant"}, {"values": [1], "distribution": "categorical"}):
        for method in ("grid", "random"):
            assert len(spec.parse(sweep(method, seed=parameter, run_cap=1)).runs) == 1


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep", "x.yaml", "--set", "seed=1", "--set", "seed=2"], "set: 'seed' is given twice"),
        (["run", "--seed=1", "--algorithm=nids", "--seed=2"], "seed: is given twice"),
        (["run", "--topology.degree", "3", "--topology.degree=4"], "topology.degree: is given twice"),
        (["run", "--workers=010"], "workers: must be int, got '010' (str)"),
        (["run", "--workers=1:30"], "workers: must be int, got '1:30' (str)"),
        (["run", f"--seed={'9' * 5000}"], "a number of 5000 characters"),
        (["run", "--seed=2024-13-45"], "seed: must be int, got '2024-13-45' (str)"),
        (["run", "--algorithm=\x1b[31mred"], "is not YAML"),
        (["run", "--algorithm=a\0b"], "is not YAML"),
        (["run", "--algorithm=\udcff"], "is not YAML"),
    ],
)
def test_the_command_reads_values_as_files_do(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = ["--algorithm=allreduce_sgd", "--workers=4", "--learning_rate=0.1", "--steps=5"]
    given = {word.partition("=")[0] for word in arguments}
    more = [word for word in base if word.partition("=")[0] not in given] if arguments[0] == "run" else []
    refused(capsys, [*arguments, *more], said)
