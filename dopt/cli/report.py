"""`dopt report DIR...`: sweeps as one page, which a browser shows without asking anybody for anything."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from dopt.cli import finished
from dopt.cli.command import Command, Parser, Values
from dopt.cli.screen import beside, complain_once, console, print_written

NAME = "report.html"


def add_flags(parser: Parser) -> None:
    """What `dopt report` takes."""
    finished.add_flags(parser)
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE.html",
        help=f"the page (default: {NAME} in the folder, or here where there are several)",
    )
    parser.add_argument("--open", action="store_true", help="show it in a browser")


def run(args: argparse.Namespace, _: Values) -> int:
    """Write the page."""
    from dopt import extras, page

    conditions = finished.conditions(args)
    extras.need("bokeh", "report: the page")
    sweeps = [one.checked() for one in finished.read(args.folders, conditions)]
    complain_once(line for one in sweeps for line in one.faults)
    place = beside(Path(args.folders[0])) / NAME if len(args.folders) == 1 else Path(NAME)
    written = page.write(Path(args.out) if args.out else place, *sweeps)
    print_written(console(), [written])
    if args.open and not webbrowser.open(written.resolve().as_uri()):
        console().print("no browser was found; open the file in one")
    return 0


HELP = "write sweeps as one interactive HTML page: curves, heatmap, tuned table, topologies, clocks"
EXAMPLES = ("dopt report results/connectivity_delay --open", "dopt report results/a results/b -o both.html")
COMMAND = Command(HELP, add_flags, run, examples=EXAMPLES)
