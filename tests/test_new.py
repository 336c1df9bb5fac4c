"""`dopt new` writes what works as it is, never over anything, and takes no name that could not be one."""

from __future__ import annotations

import contextlib
import importlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from refusals import refused

from dopt.cli import listing, main, new, parser, words
from dopt.cli import run as run_command
from dopt.cli.new import KINDS

NAMES = {kind: f"own_{kind}_of_mine" for kind in KINDS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with one of each kind; what is registered in it is forgotten."""
    made = tmp_path_factory.mktemp("new")
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as forgotten:
        for where in listing.REGISTRIES:
            forgotten.enter_context(mock.patch.dict(listing.registry(where)))
        patch.chdir(made)
        for kind, name in NAMES.items():
            assert main(["new", kind, name]) == 0
        patch.syspath_prepend(made)
        yield made
    for name in NAMES.values():
        sys.modules.pop(name, None)


def test_each_kind_is_a_file_and_its_test(folder: Path) -> None:
    files = {f"{name}{KINDS[kind].ending}" for kind, name in NAMES.items()} | {f"test_{n}.py" for n in NAMES.values()}
    assert {path.name for path in folder.iterdir() if path.is_file()} == files
    assert not any("my_" in path.read_text() for path in folder.glob("*.*"))


def test_the_tests_that_are_written_pass(folder: Path) -> None:
    assert pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(folder), str(folder)]) == 0


def test_what_is_said_to_be_tried_is_understood(folder: Path) -> None:
    top, _ = parser.parser()
    for kind, template in KINDS.items():
        for line in template.then:
            _, *given = shlex.split(line.replace("NAME", NAMES[kind]))
            imported, others = words.imported(given)
            for module in imported:
                importlib.import_module(Path(module).stem)
            known, rest = top.parse_known_args(others)
            if known.command == "run":
                assert run_command.COMMAND.dotted is not None
                dotted = words.dotted("run", rest, run_command.COMMAND.dotted(known))
                run, _ = run_command._asked_for(known, dotted)
                assert NAMES[kind] in run.resolve().to_dict().values()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["method", "gossip_sgd"], "name: algorithms has 'gossip_sgd' already, from dopt; choose another name"),
        (["sweep", "my-idea"], "name: must be a Python name, such as my_idea, got 'my-idea'"),
        (["data", ""], "name: must be a Python name"),
        (["data", "../x"], "name: must be a Python name"),
        (["law", "class"], "name: must be a Python name, such as my_idea, got 'class'"),
        (["problem", "json"], "name: a Python module 'json' exists already, and the file would hide it"),
        (["methd", "x"], "unknown name 'methd'; did you mean 'method'?"),
    ],
)
def test_a_name_that_cannot_be_or_is_taken_is_one_line(
    given: list[str], line: str, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(capsys, ["new", *given], line)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", ["mine.py", "test_mine.py"])
def test_nothing_is_written_over(
    there: str, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(there).write_text("kept")
    refused(capsys, ["new", "law", "mine"], f"name: {there} exists already; choose another name")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]


def test_every_template_is_used() -> None:
    folder = Path(new.__file__).parents[1] / "templates"
    files = {f"my_{kind}{one.ending}" for kind, one in KINDS.items()} | {f"test_my_{kind}.py" for kind in KINDS}
    assert {path.name for path in folder.iterdir() if path.is_file()} == files
