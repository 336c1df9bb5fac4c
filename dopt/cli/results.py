"""`dopt results DIR...`: a table of what is finished, of the runs and columns that are asked for, as text or as a file."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dopt.cli.command import Command, Parser, Values, folder
from dopt.cli.screen import complain, console, print_written
from dopt.text import quoted
from dopt.types import InputError

if TYPE_CHECKING:
    import pandas as pd

    from dopt.report.terminal import PlainConsole
    from dopt.sweeps.results import Results

FORMATS = ("table", "csv", "parquet", "latex", "json")
ENDINGS = {".csv": "csv", ".parquet": "parquet", ".tex": "latex", ".json": "json"}
MOST = 1000  # rows that a terminal is shown
WIDEST = 10_000  # characters of a line in a file


def add_flags(parser: Parser) -> None:
    """What `dopt results` takes."""
    parser.add_argument("folders", nargs="+", type=folder, metavar="DIR", help="a results folder")
    parser.add_argument(
        "--where",
        metavar="CONDITIONS",
        help="only runs for which all of these hold, as in 'topology=ring,delay>2' (= != < <= > >=; none: missing)",
    )
    parser.add_argument(
        "--best-over",
        metavar="NAMES",
        help="a row for each cell of what else is varied, seeds together, at the best of these, as in learning_rate",
    )
    parser.add_argument(
        "--columns", metavar="NAMES", help="which columns, in which order, as in topology,final.loss,id"
    )
    parser.add_argument("--format", choices=FORMATS, help="default: by the ending of --out, or else a table")
    parser.add_argument("--out", metavar="FILE", help="a file in the place of stdout")


def run(args: argparse.Namespace, _: Values) -> int:
    """Print the table, or write it."""
    from dopt.sweeps import where

    conditions = () if args.where is None else where.parse(args.where)
    over, names = _names("best-over", args.best_over), _names("columns", args.columns)
    kind = _format(args)
    from dopt.report import listing
    from dopt.sweeps.records import RecordsError
    from dopt.sweeps.results import notes_of

    sweeps = listing.together(_finished(args.folders))
    if conditions:
        sweeps = listing.chosen(sweeps, conditions)
    try:
        table = listing.rows(sweeps, over, names or None)
    except RecordsError:  # to look at all of them takes time
        sweeps = [one.checked() for one in sweeps]
        _say(line for one in sweeps for line in one.faults)
        table = listing.rows(sweeps, over, names or None)
    _say(notes_of(sweeps))
    _write(table, kind, None if args.out is None else Path(args.out))
    return 0


def _names(flag: str, text: str | None) -> list[str]:
    """Names between commas."""
    names = [] if text is None else [name.strip() for name in text.split(",")]
    for place, name in enumerate(names):
        if not name or name in names[:place]:
            raise InputError(f"{flag}: {quoted(name)} {'is given twice' if name else 'is no name'}, got {quoted(text)}")
    return names


def _format(args: argparse.Namespace) -> str:
    kind: str = args.format or ENDINGS.get(Path(args.out or "").suffix, "table")
    if kind == "parquet" and args.out is None and sys.stdout.isatty():
        raise InputError("format: parquet is no text for a terminal; give --out FILE")
    return kind


def _finished(folders: Iterable[str]) -> list[Results]:
    """What is finished in the folders; of each a line that says what is not there."""
    from dopt.sweeps.results import load

    found = []
    for name in dict.fromkeys(folders):
        results = load(name)
        _say(results.faults)
        if results.missing:
            _say([f"results: {results.missing} runs of {name} are not there yet"])
        if results.hidden:
            _say([f"results: {results.hidden} more runs of {name} are hidden, since nobody asks for them now"])
        if len(results.runs):
            found.append(results)
    if not found:
        raise InputError(
            f"results: no run of {', '.join(map(quoted, folders))} is finished; run `dopt sweep FILE` first"
        )
    return found


def _say(lines: Iterable[str]) -> None:
    for line in dict.fromkeys(lines):
        complain(line)


def _write(table: pd.DataFrame, kind: str, out: Path | None) -> None:
    """The table in a file, or on stdout."""
    from dopt import files
    from dopt.report import formats

    if out is None and kind == "table":
        _print(table, console())
    elif out is None:
        content = formats.WRITERS[kind](table)
        if isinstance(content, str):
            sys.stdout.write(content)
        else:
            sys.stdout.buffer.write(content)
        sys.stdout.flush()
    else:
        content = _text(table) if kind == "table" else formats.WRITERS[kind](table)
        with files.writing("out", out, "--out"):
            files.write(out, content)
        print_written(console(), [out])


def _print(table: pd.DataFrame, out: PlainConsole) -> None:
    from dopt.report import formats
    from dopt.report.terminal import table as shown

    out.print(shown("", table.columns, formats.rows(table.head(MOST), formats.cell)))
    if len(table) > MOST:
        out.print(f"and {len(table) - MOST} rows more; --format csv has all of them", highlight=False, soft_wrap=True)


def _text(table: pd.DataFrame) -> str:
    """What a terminal would show, if it were wide enough."""
    from dopt.report.terminal import PlainConsole

    found = io.StringIO()
    _print(table, PlainConsole(file=found, width=WIDEST))
    return "".join(line.rstrip() + "\n" for line in found.getvalue().splitlines())


COMMAND = Command("a table of what is finished: chosen runs, tuned cells, as text or as a file", add_flags, run)
