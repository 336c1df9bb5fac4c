"""What metrics look at by default, and the first record, which is shown as soon as it exists."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import dopt
from dopt.cli import main
from dopt.config import Run
from dopt.data import SETS, Dataset, load
from dopt.engine import group_of
from dopt.problems import PROBLEMS
from dopt.problems.networks import EVALUATED
from dopt.sweeps.live import Lines, PlainConsole, Screen, first_record

BASE: dict[str, Any] = {"algorithm": "allreduce_sgd", "workers": 2, "learning_rate": 0.1, "steps": 4, "batch_size": 4}
NETWORKS = {"cnn", "mlp", "resnet", "transformer"}


@pytest.mark.parametrize("problem", [name for name in PROBLEMS if PROBLEMS[name].traits["data"]])
def test_networks_are_evaluated_on_a_bounded_number_of_samples_all_others_on_all(problem: str) -> None:
    resolved = Run.from_dict(BASE | {"problem": problem}).resolve()
    assert resolved.eval_samples == (EVALUATED if problem in NETWORKS else None)
    assert resolved.resolve().eval_samples == resolved.eval_samples
    assert Run.from_dict(BASE | {"problem": problem, "eval_samples": 10**9}).resolve().eval_samples == 10**9


@pytest.fixture
def many() -> Iterator[None]:
    """The digits, twice over, as the set `many`: more than what networks look at."""
    digits = load("digits")
    train = {name: np.concatenate([leaf, leaf]) for name, leaf in digits.train.items()}
    SETS.register(name="many", kind="classes")(lambda: Dataset(train, digits.test, 10))
    yield
    del SETS["many"]


def test_what_is_left_out_is_said_once_and_only_where_it_is_so(many: None) -> None:
    def notes(**more: Any) -> list[str]:
        run = Run.from_dict(BASE | {"problem": "mlp", "data": "many", "metrics": ("loss",), **more})
        return [note for note in group_of([run.resolve()]).facts.notes if "eval_samples" in note]

    assert notes() == ["metrics look at 2000 of 2876 samples, evenly spaced; eval_samples says how many"]
    assert notes(data="digits") == []  # which are 1438
    assert notes(eval_samples=100) == []
    assert notes(eval_samples=10**6) == []


def test_the_first_record_comes_before_the_first_step_and_is_that_of_the_history() -> None:
    seen: list[Any] = []

    def look(done: int, total: int) -> int:
        seen.append(done)
        return 1

    run = Run.from_dict(BASE | {"problem": "logistic", "data": "sparse", "steps": 3, "record_every": 1})
    result = dopt.run(run, look=look, first=seen.append)
    (record,) = (each for each in seen if isinstance(each, Mapping))
    assert seen.index(record) == 0  # before the first look, at 0
    for name, values in record.items():
        np.testing.assert_array_equal(values, result.history[name][:1])
    assert {"loss", "grad_norm", "accuracy"} <= set(record)


def test_the_command_shows_it_above_the_history(capsys: pytest.CaptureFixture) -> None:
    flags = ["--algorithm", "allreduce_sgd", "--workers", "2", "--learning_rate", "0.1", "--steps", "3"]
    assert main(["run", *flags, "--problem", "quadratic", "--metrics", "suboptimality", "--wandb", "off"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 0: loss ")  # f* is not waited for
    assert "suboptimality" in "".join(lines[1:4])


def test_a_sweep_shows_the_first_record_and_each_note_once() -> None:
    out = io.StringIO()
    show = Screen(PlainConsole(file=out, width=100, force_terminal=True, color_system=None))
    for _ in range(2):
        show.note("a [note]")
        show.first({"loss": np.array([1.0, 2.0, 4.0])})
    assert out.getvalue().splitlines() == ["a [note]", "step 0 (median of 3 runs): loss 2"]
    quiet = io.StringIO()
    Lines(PlainConsole(file=quiet)).first({"loss": np.array([1.0])})
    assert quiet.getvalue() == ""
    assert first_record({"loss": np.array([0.5]), "accuracy": np.array([0.1])}) == "step 0: loss 0.5, accuracy 0.1"
