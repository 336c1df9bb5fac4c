"""Sweep files by name: a word is the name of one that comes with dopt, anything else is a path."""

from __future__ import annotations

from pathlib import Path

from dopt.paths import shipped
from dopt.registry import did_you_mean
from dopt.text import quoted
from dopt.types import InputError

ENDINGS = (".yaml", ".yml")


def available() -> dict[str, Path]:
    """Name -> file of the sweeps that come with dopt."""
    return {path.stem: path for path in sorted(shipped("benchmarks").glob("*.yaml"))}


def question(path: Path) -> str:
    """What a sweep file asks: the first line of its comment."""
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()


def located(file: str | Path) -> Path:
    """The file that is meant: a word names one that comes with dopt, what ends in .yaml or holds a "/" is a path, as is a `Path`.

    Raises:
      InputError: no sweep of that name comes with dopt. Whether a path leads to a file is for its reader to say.
    """
    path = Path(file)
    if isinstance(file, Path) or path.name != file or path.suffix in ENDINGS:
        return path
    known = available()
    if file in known:
        return known[file]
    if path.is_file():
        raise InputError(
            f"sweep: {quoted(file)} is not the name of a sweep that comes with dopt; write ./{file} for the file here"
        )
    raise InputError(
        f"sweep: no sweep {quoted(file)} comes with dopt{did_you_mean(file, [*known, *map(str, Path().glob('[!.]*.yaml'))])}"
    )
