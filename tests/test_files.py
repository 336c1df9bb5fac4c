"""Files appear whole or not at all, and what the machine refuses is one line and exit code 1."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused

import dopt
from dopt import files
from dopt.cli.parser import COMMANDS
from dopt.plot import topology
from dopt.sweeps.store import Store
from dopt.types import InputError, MachineError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_a_write_that_fails_leaves_what_was_there(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    files.write(path, "old")

    def write_half() -> None:
        with files.whole(path) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(MachineError if isinstance(error, OSError) else type(error)):
        write_half()
    assert (names(tmp_path), path.read_text()) == (["table.csv"], "old")


def test_a_file_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    with files.whole(path) as temporary:
        temporary.write_text("all of it")
        assert not path.exists()
        assert temporary.suffix == ".png"  # from which writers read the format
    assert (names(tmp_path), path.read_text()) == (["picture.png"], "all of it")


def test_what_a_killed_writer_left_goes_away_with_the_next_write_of_the_file(tmp_path: Path) -> None:
    path, dead = tmp_path / "plan.json", 2**22 + 1  # more than the largest number of a process
    for process in (dead, os.getppid()):
        (tmp_path / f"{files._stem(path)}{process}.json").write_text("half")
    (tmp_path / f"{files._stem(tmp_path / 'other.json')}{dead}.json").write_text("of another file")
    files.write(path, "{}")
    left = [name for name in names(tmp_path) if name.startswith(files.TEMPORARY)]
    assert len(left) == 2  # a living writer's, and another file's
    assert not any(name.startswith(files._stem(path)) and str(dead) in name for name in left)


def test_a_name_that_is_too_long_is_refused_by_the_system_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"cannot write '.*x' \(File name too long\)"):
        files.write(tmp_path / ("x" * 300), "content")
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a\0b", "a\ud800"])
def test_a_name_that_no_file_can_have_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^out: a path must not contain NUL or surrogates, got .*; choose .* with --out"
    ):
        topology.save(np.eye(2), "", tmp_path / name)
    with pytest.raises(InputError, match=r"^results: a path must not contain NUL or surrogates"):
        Store(tmp_path / name).create()
    with pytest.raises(InputError, match=r"^results: a path must not contain NUL or surrogates"):
        dopt.load(tmp_path / name)
    with pytest.raises(InputError, match=r"^path: a path must not contain NUL or surrogates"):
        files.write(tmp_path / name, "content")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/there"), "'/there': No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/there"), "'/there': Permission denied"),
        (OSError(errno.ENOLCK, "No locks available"), "No locks available"),
        (OSError("many\nlines"), "many lines"),
        (MemoryError("Unable to allocate 74.5 GiB\nfor an array"), "memory: the machine has no more"),
        (MachineError("disk: is full"), "disk: is full"),
    ],
    ids=str,
)
def test_what_the_machine_refuses_is_one_line_and_ends_with_1(
    error: Exception, said: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise error

    monkeypatch.setitem(COMMANDS, "list", COMMANDS["list"]._replace(run=refuse))
    refused(capsys, ["list"], said, code=1)


def test_what_the_machine_refuses_is_no_error_of_the_user() -> None:
    assert not issubclass(MachineError, InputError)
    assert not issubclass(InputError, MachineError)
