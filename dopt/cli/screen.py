"""What a command prints: tables, paths, progress on stdout's side of the terminal, and one line on stderr of what went wrong."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dopt.files import is_writable
from dopt.text import shown

if TYPE_CHECKING:
    from dopt.sweeps.live import PlainConsole, Tally


def console(stderr: bool = False) -> PlainConsole:
    """Where a command prints: as wide as the terminal, or wide where there is none."""
    from dopt.sweeps import live

    return live.console(stderr)


def progress(what: str = "", quiet: bool = False) -> Tally:
    """A progress display on stderr; `quiet`: one that counts, and says nothing."""
    from dopt.sweeps import live

    return live.Tally() if quiet else live.display(live.console(stderr=True), what)


def complain(line: str) -> None:
    """One line on stderr, whatever it quotes."""
    print(shown(line), file=sys.stderr)


def complain_once(lines: Iterable[str]) -> None:
    """A line on stderr for each that differs."""
    for line in dict.fromkeys(lines):
        complain(line)


def print_written(out: PlainConsole, paths: Iterable[Path]) -> None:
    """A line for each file that was written."""
    for path in paths:
        out.print(f"wrote {short(path)}", highlight=False, soft_wrap=True)


def beside(folder: Path) -> Path:
    """Where pictures of results go: to them, or here, where theirs is a folder that cannot be written."""
    return folder if is_writable(folder) else Path()


def short(path: Path) -> str:
    """A path as seen from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def finite(number: float, otherwise: str) -> str:
    """A whole number, or a word for what is not finite."""
    return f"{number:.0f}" if math.isfinite(number) else otherwise
