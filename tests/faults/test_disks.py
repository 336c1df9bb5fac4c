"""Disks that are full, read-only, or on which nothing can be claimed; names that are no text: one line, exit code 1, and finished slabs stay."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import dopt
from dopt import files
from dopt.cli import main
from dopt.sweeps import claims, plan
from dopt.types import MachineError

from .processes import end, start
from .test_signals import SHORT

PARAMETERS = {name: {"value": value} for name, value in {**SHORT, "steps": 10}.items()}
CONTENT = {"name": "small", "parameters": {**PARAMETERS, "seed": {"values": [0, 1, 2, 3]}}}


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(CONTENT))
    return path


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts small file systems in memory, where the system lets us."""
    there: list[Path] = []

    def mount(name: str, kilobytes: int) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        options = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        try:
            done = subprocess.run(options, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no command mount")
        if done.returncode:
            pytest.skip(f"the system mounts nothing for us: {done.stderr.strip()}")
        there.append(folder)
        return folder

    yield mount
    for folder in there:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def one_line(capsys: pytest.CaptureFixture, arguments: list[str], *said: str) -> None:
    capsys.readouterr()
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert re.fullmatch(r"(step 0: .*\n)?", out)  # the first record is shown as soon as it is there
    assert err.startswith("dopt: ")
    assert err.count("\n") == 1, err
    for part in said:
        assert part in err


def unfinished(folder: Path) -> list[Path]:
    return list(folder.rglob(f"{files.TEMPORARY}*"))


def test_a_full_disk_keeps_finished_slabs_and_no_halves(
    sweep_file: Path, mounted: Callable[..., Path], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", 1)
    disk = mounted("disk", 100)  # a plan, and a slab or two
    results = disk / "results"
    arguments = ["sweep", str(sweep_file), "--results", str(results), "--wandb", "off"]
    one_line(capsys, arguments, str(results), "No space left on device")
    assert unfinished(disk) == []
    kept = dopt.load(results)
    assert 0 < len(kept.runs) < 4
    assert kept.missing == 4 - len(kept.runs)
    before = {path: path.read_bytes() for path in results.rglob("*.parquet")}
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    assert main(arguments) == 0
    assert dopt.load(results).missing == 0
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_of_a_single_run(
    mounted: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    disk = mounted("disk", 16)
    flags = [f"--{name}={value}" for name, value in {**SHORT, "steps": 10}.items()]
    capsys.readouterr()
    assert main(["run", *flags, "--results", str(disk / "results"), "--wandb", "off"]) == 1
    err = capsys.readouterr().err
    assert "No space left on device" in err
    assert err.count("\n") == 1
    assert unfinished(disk) == []


@pytest.mark.slow
def test_a_full_disk_keeps_the_checkpoints_before(mounted: Callable[..., Path], capsys: pytest.CaptureFixture) -> None:
    disk = mounted("disk", 100)  # one has room, and two have not
    flags = [f"--{name}={value}" for name, value in {**SHORT, "steps": 300, "problem.dim": 300}.items()]
    arguments = ["run", *flags, "--results", str(disk / "results"), "--wandb", "off", "--checkpoint-every", "50"]
    one_line(capsys, arguments, "checkpoint: cannot write", "(No space left on device)", "are kept")
    kept = [path for path in (disk / "results" / "checkpoints").iterdir() if path.is_dir()]
    assert any(path.name.isdecimal() for path in kept)
    assert all(path.name.isdecimal() or "tmp" in path.name for path in kept)  # nothing half-written under a final name
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    assert main(arguments) == 0  # from the last of them


@pytest.mark.slow
def test_a_finished_folder_that_cannot_be_written_loads_and_is_shown(
    sweep_file: Path, mounted: Callable[..., Path], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = mounted("disk", 1000)
    results = disk / "results"
    arguments = ["sweep", str(sweep_file), "--results", str(results), "--wandb", "off"]
    assert main(arguments) == 0
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    figures = sweep_file.parent / "here" / "paper_figs"
    figures.mkdir(parents=True)
    (figures / "small.py").write_text(FIGURE)
    monkeypatch.chdir(figures.parent)
    assert dopt.load(results).missing == 0
    assert main([*arguments, "--figures", str(figures)]) == 0
    capsys.readouterr()
    assert Path("small.png").is_file()
    # and where something is missing, nothing can be done about it
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    (slab,) = (results / "slabs").iterdir()
    slab.rename(disk / "away")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    one_line(capsys, arguments, "results: cannot write to", "Read-only file system")


FIGURE = '''"""A figure.

Differs: in all.
"""
import pandas as pd
from matplotlib.figure import Figure

SWEEPS = {"main": "small.yaml"}

def table(results):
    return pd.DataFrame({"ids": ["none"], "value": [1.0]})

def draw(results):
    return Figure()

def claims(results):
    return []
'''


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_as_good_as_one_with_them(
    number: int, sweep_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("flock", "lockf", "fcntl"):
        monkeypatch.setattr(fcntl, name, without)
    monkeypatch.setattr(os, "link", without)
    assert dopt.sweep(CONTENT, results=sweep_file.parent / "results").missing == 0


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_file_system_on_which_nothing_can_be_claimed_is_refused_before_anything_runs(
    number: int, sweep_file: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(path: object, mode: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(claims, "open", without, raising=False)
    results = sweep_file.parent / "results"
    one_line(
        capsys,
        ["sweep", str(sweep_file), "--results", str(results), "--wandb", "off"],
        "results: cannot lock",
        os.strerror(number),
        "--results",
    )
    assert not (results / "plans").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS], ids=errno.errorcode.get)
def test_a_finished_folder_loads_and_is_swept_again_without_a_single_write(
    number: int, sweep_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = sweep_file.parent / "results"
    whole = dopt.sweep(CONTENT, results=results)
    opened = os.open

    def refuse(path: object, flags: int, *others: object, **more: object) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(number, os.strerror(number), os.fspath(path))  # type: ignore[call-overload]
        return opened(path, flags, *others, **more)  # type: ignore[arg-type]

    def refuse_folder(path: object, *others: object, **more: object) -> None:
        raise OSError(number, os.strerror(number), os.fspath(path))  # type: ignore[call-overload]

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "mkdir", refuse_folder)
    again = dopt.sweep(CONTENT, results=results)
    assert again.runs.equals(whole.runs)
    assert again.history.equals(whole.history)
    with pytest.raises(MachineError, match="results: cannot write to"):
        dopt.sweep(CONTENT, results=sweep_file.parent / "others")


@pytest.mark.slow
def test_a_name_that_is_too_long_is_one_line(sweep_file: Path, capsys: pytest.CaptureFixture) -> None:
    long = sweep_file.parent / ("x" * 300)
    one_line(capsys, ["sweep", str(sweep_file), "--results", str(long), "--wandb", "off"], "File name too long")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["é", os.fsdecode(b"\xe9")], ids=["no ASCII", "no UTF-8"])
def test_in_the_c_locale_any_path_is_written_and_said(name: str, sweep_file: Path, tmp_path: Path) -> None:
    results = tmp_path / name / "results"
    arguments = ["sweep", str(sweep_file), "--results", str(results), "--wandb", "off"]
    strict = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code, out, err = end(start(tmp_path / "marks", arguments, **strict))
    assert (code, err) == (0, "")
    assert "wrote" in out
    assert dopt.load(results).missing == 0
