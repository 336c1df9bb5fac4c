"""`dopt plot DIR...`: a picture of what is finished, of the kind that the sweep's parameters ask for, or of another one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dopt.cli import finished, words
from dopt.cli.command import Command, Parser, Values
from dopt.cli.screen import beside, console, print_written
from dopt.files import writing
from dopt.plot import kind, style

if TYPE_CHECKING:
    from dopt.sweeps.results import Results


def add_flags(parser: Parser) -> None:
    """What `dopt plot` takes."""
    finished.add_flags(parser)
    parser.add_argument(
        "--kind",
        choices=kind.names(),
        help="default: heatmap if two parameters differ, and neither is the method; cells if three or more differ, and there is a target; else curves",
    )
    parser.add_argument("--x", choices=[*style.AXES], help="the x axis (default: the unit of the sweep's horizon)")
    parser.add_argument("--y", metavar="METRIC", help="the y axis (default: the sweep's metric)")
    parser.add_argument(
        "--by",
        metavar="NAME[,NAME]",
        help="parameters by which curves (and panels), bars or cells differ; all others take their best value",
    )
    parser.add_argument(
        "--add",
        metavar="FILE.csv",
        help="a measured curve to draw on top: columns named as --x and --y, and optionally label",
    )
    parser.add_argument(
        "--size", choices=[*style.SIZES], help="size of the picture: a paper's column, text or page, or a slide"
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        help="pdf, png or svg; or csv for the numbers that are drawn (default: plot.png in DIR)",
    )


def run(args: argparse.Namespace, _: Values) -> int:
    """Draw and write the picture."""
    conditions = finished.conditions(args)
    by = words.names("by", args.by)
    if args.out is not None:
        style.check_ending(args.out)
    sweeps = finished.read(args.folders, conditions)
    from dopt.plot.picture import picture

    asked = {"x": args.x, "y": args.y, "by": by, "add": args.add, "size": args.size}
    drawn = finished.made_of(sweeps, lambda whole: picture(whole, args.kind, **asked))
    path = Path(args.out) if args.out is not None else _default(sweeps, args.kind)
    with writing("out", path, "--out"):
        drawn.save(path)
    print_written(console(), [path])
    return 0


def _default(sweeps: Sequence[Results], kind: str | None) -> Path:
    """Beside the results, if they are of one sweep; else here."""
    folder = beside(sweeps[0].folder) if len(sweeps) == 1 else Path()
    return folder / ("plot.png" if kind is None else f"plot_{kind}.png")


HELP = "draw finished runs: curves, heatmap, cells, pareto, profile, timeline, staleness"
EXAMPLES = ("dopt plot results/stragglers", "dopt plot results/stragglers --kind profile -o profile.pdf")
COMMAND = Command(HELP, add_flags, run, examples=EXAMPLES)
