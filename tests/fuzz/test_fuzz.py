"""A thousand damaged inputs of a fixed seed; `make fuzz` tries twenty thousand."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from . import doors, mutate, run

CASES, PARTS = 1000, 4


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return doors.finished(tmp_path_factory.mktemp("fuzz") / "sound")


@pytest.mark.parametrize("part", range(PARTS))
def test_each_damaged_input_is_taken_or_refused_in_one_line(part: int, sound: Path) -> None:
    found = run.tried(doors.kinds(sound), range(part, CASES, PARTS), seed=0)
    assert not found.failures, found.failures[0]
    assert found.taken.total() > 0
    assert found.refused.total() > 0


def test_each_sound_input_is_taken(tmp_path: Path, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("of_bytes", "of_text", "of_tree", "of_words", "of_arrays"):
        monkeypatch.setattr(mutate, name, lambda rng, content: content)
    for kind in doors.kinds(sound):
        for number in range(12):
            folder = tmp_path / f"{kind.name}-{number}"
            folder.mkdir()
            assert run.attempt(kind, number, 0, folder) == "taken", kind.name


def test_an_input_is_a_function_of_seed_kind_and_number(tmp_path: Path, sound: Path) -> None:
    kind = doors.kinds(sound)[0]
    first, again = (kind.damage(Random("0 sweeps 7"), tmp_path)[0] for _ in range(2))
    assert first == again


def test_what_breaks_the_rule_is_told(tmp_path: Path) -> None:
    def broken() -> None:
        raise KeyError("deep inside")

    kind = doors.Kind("broken", lambda rng, folder: (mutate.VALUES, broken))
    found = run.attempt(kind, 0, 0, tmp_path)
    assert isinstance(found, run.Failure)
    assert "KeyError" in found.what
