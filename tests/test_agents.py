"""`dopt run` makes what a W&B agent asks for: the very runs of the sweep, at every point of every file that we ship."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from refusals import refused

from dopt import Run
from dopt.cli import main, words
from dopt.cli.run import AGENT, run_of
from dopt.engine import Compiled
from dopt.sweeps import plain, spec

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "benchmarks").glob("*.yaml"))
COMMAND = [
    *("--algorithm=allreduce_sgd", "--workers=4", "--learning_rate=0.1", "--problem=consensus", "--steps=10"),
    *("--topology=ring", "--delay=3", "--problem.dim=2"),
]


def values(parameter: Mapping[str, Any]) -> list[Any]:
    return list(parameter["values"]) if "values" in parameter else [parameter["value"]]


def points(parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    choices = {name: values(p) for name, p in parameters.items()}
    return (dict(zip(choices, point, strict=True)) for point in itertools.product(*choices.values()))


def fields(run: Run) -> tuple[tuple[str, Any], ...]:
    return tuple(run.to_dict().items())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_value_of_a_shipped_file_is_read_from_a_flag_as_from_the_file(file: Path) -> None:
    for name, parameter in plain.read(file)["parameters"].items():
        for value in values(parameter):
            assert words.value(name, str(value)) == value


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_agent_gets_a_run_of_the_sweep_at_every_point_of_a_shipped_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points that differ in seed or rate resolve alike, so that one of each stands for all."""
    monkeypatch.setenv(AGENT, "abc")
    content = plain.read(file)
    parameters = {**content["parameters"], "seed": {"value": 7}, "learning_rate": {"value": 0.1}}
    asked = spec.parse({**content, "parameters": parameters})
    assert content["command"] == ["${env}", "dopt", "run", "${args}"]
    assert {fields(run_of(point)[0]) for point in points(parameters)} == set(map(fields, asked.runs))


def test_an_agents_run_says_what_it_leaves_out_and_another_is_refused(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(AGENT, raising=False)
    refused(capsys, ["run", *COMMAND], "does not read it; leave it out")
    monkeypatch.setenv(AGENT, "abc")
    assert main(["run", *COMMAND, "--wandb", "off"]) == 0
    said = capsys.readouterr()
    assert "left out, as in a sweep, since this run does not read it: topology, delay" in said.out
    assert said.err == ""
    refused(capsys, ["run", *COMMAND, "--problem.dims=3"], "problem.dims: consensus has no such option")


def test_a_dry_run_resolves_and_plans_and_computes_nothing(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(AGENT, "abc")
    monkeypatch.setattr(Compiled, "start", lambda *a: pytest.fail("ran"))
    assert main(["run", *COMMAND, "--dry-run"]) == 0
    said = capsys.readouterr().out
    identity = run_of(
        {"algorithm": "allreduce_sgd", "workers": 4, "learning_rate": 0.1, "steps": 10}
        | {"problem": "consensus", "problem.dim": 2}
    )[0].id
    assert f"run {identity}: 1 runs, 1 groups" in said
    assert "left out, as in a sweep" in said
    assert list(tmp_path.iterdir()) == []
    refused(capsys, ["run", *COMMAND[:4], "--dry-run"], "steps: give exactly one of steps")
