"""`dopt results DIR...`: a table of what is finished, of the runs and columns that are asked for, as text or as a file."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dopt.cli import finished, words
from dopt.cli.command import Command, Parser, Values
from dopt.cli.screen import console, print_written
from dopt.types import InputError

if TYPE_CHECKING:
    import pandas as pd

    from dopt.sweeps.live import PlainConsole

FORMATS = ("table", "csv", "parquet", "latex", "json")
ENDINGS = {".csv": "csv", ".parquet": "parquet", ".tex": "latex", ".json": "json"}
MOST = 1000  # rows that a terminal is shown
WIDEST = 10_000  # characters of a line in a file


def add_flags(parser: Parser) -> None:
    """What `dopt results` takes."""
    finished.add_flags(parser)
    parser.add_argument(
        "--best-over",
        metavar="NAMES",
        help="tune these, as in learning_rate: one row for each combination of all else that varies, at their best values, seeds together",
    )
    parser.add_argument("--columns", metavar="NAMES", help="the columns, in this order, as in topology,final.loss,id")
    parser.add_argument("--format", choices=FORMATS, help="default: by the ending of --out, else a table")
    parser.add_argument("--out", metavar="FILE", help="write to this file instead of stdout")


def run(args: argparse.Namespace, _: Values) -> int:
    """Print the table, or write it."""
    conditions = finished.conditions(args)
    over, names = words.names("best-over", args.best_over), words.names("columns", args.columns)
    kind = _format(args)
    from dopt.report import listing

    sweeps = finished.read(args.folders, conditions)
    table = finished.made_of(sweeps, lambda whole: listing.rows(whole, over, names or None))
    _write(table, kind, None if args.out is None else Path(args.out))
    return 0


def _format(args: argparse.Namespace) -> str:
    kind: str = args.format or ENDINGS.get(Path(args.out or "").suffix, "table")
    if kind == "parquet" and args.out is None and sys.stdout.isatty():
        raise InputError("format: parquet is binary, and cannot be shown in a terminal; give --out FILE")
    return kind


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
        out.print(f"and {len(table) - MOST} more rows; --format csv has all of them", highlight=False, soft_wrap=True)


def _text(table: pd.DataFrame) -> str:
    """What a terminal would show, if it were wide enough."""
    from dopt.sweeps.live import PlainConsole

    found = io.StringIO()
    _print(table, PlainConsole(file=found, width=WIDEST))
    return "".join(line.rstrip() + "\n" for line in found.getvalue().splitlines())


EXAMPLES = (
    "dopt results results/scaling --where 'topology=ring, workers>8'",
    "dopt results results/scaling --best-over learning_rate --out tuned.csv",
)
COMMAND = Command("print or save a table of finished runs, or of tuned cells", add_flags, run, examples=EXAMPLES)
