"""`dopt show schedule`: who computes, sends, waits, or computes in vain: the clock of a method, without any model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dopt.cli import words
from dopt.cli.command import Command, Dotted, Parser, Values, folder
from dopt.cli.screen import console, print_written
from dopt.types import InputError

if TYPE_CHECKING:
    from dopt.facts.timetable import Outage
    from dopt.schedule import Pipeline, Schedule

FIELDS = {  # of a run, which its clock reads
    "workers": "default: 8",
    "topology": "of gossip methods; default: ring",
    "weights": "default: what the graph and the method ask for",
    "delay": "cluster: delayed_gossip_sgd waits for no message (its default here)",
    "cluster": "a law of compute times; default: exponential",
    "steps": "the horizon is updates,",
    "gradients": "or computations,",
    "seconds": "or seconds; default: 20",
    "seed": "default: 0",
}
PREFIXES = ("algorithm", "problem", "topology", "weights", "cluster")


class Shown(NamedTuple):
    """A schedule, and what is said beside it."""

    name: str
    title: str
    schedule: Schedule
    failed: list[Outage]
    stages: Pipeline | None


def add_flags(parser: Parser) -> None:
    """What `dopt show schedule` takes."""
    parser.add_argument("name", nargs="?", metavar="ALGORITHM", help="a method; with --load it is not needed")
    for name, text in FIELDS.items():
        parser.add_argument(f"--{name}", metavar="VALUE", default=argparse.SUPPRESS, help=text)
    parser.add_argument("--message_bytes", metavar="B", help="bytes of a model when it is sent (default: 0)")
    parser.add_argument(
        "--results", type=folder, default=".", metavar="DIR", help="where the picture goes (default: here)"
    )
    parser.add_argument("--save", metavar="FILE.npz", help="write the schedule, too")
    parser.add_argument("--load", metavar="FILE.npz", help="show what was saved")


def run(args: argparse.Namespace, dotted: Values) -> int:
    """Print a schedule's numbers, and draw it."""
    name, title, line, failed, stages = _shown(args, dotted)
    from dopt import files, schedule
    from dopt.plot import gantt
    from dopt.report import schedule as report
    from dopt.report.terminal import table

    written = []
    if args.save:
        with files.writing("save", args.save, "--save"):
            schedule.save(line, args.save)
        written.append(Path(args.save))
    written += gantt.save(line, name, f"{name}, {title}", Path(args.results), failed, stages)
    out = console()
    out.print(table("", [name, title], report.rows(line, failed, stages)), highlight=False)
    bars = report.histogram(line)
    if bars:
        out.print(table("", ["staleness", "applied", ""], bars), highlight=False)
    drawn, _ = gantt.shown(line, stages)
    if line.workers > drawn:
        out.print(f"the picture has the first {drawn} of {line.workers} workers", highlight=False)
    print_written(out, written)
    return 0


def _shown(args: argparse.Namespace, dotted: Values) -> Shown:
    """The schedule of a method, or one that was saved."""
    given = _given(args, dotted)
    if args.load and given:
        raise InputError(f"{next(iter(given))}: a saved schedule does not read it; leave it out")
    if not args.load and args.name is None:
        raise InputError("show: schedule needs an ALGORITHM, or --load FILE; see `dopt list algorithms`")
    from dopt import schedule
    from dopt.facts import timetable

    if args.load:
        line = schedule.load(args.load)
        return Shown(
            args.name or Path(args.load).stem, timetable.counted(line.workers), line, timetable.outages(line), None
        )
    line, failed, title = timetable.of(args.name, given)
    return Shown(args.name, title, line, failed, timetable.stages_of(args.name, given))


def _given(args: argparse.Namespace, dotted: Values) -> dict[str, Any]:
    """Fields and options of a run, flat, as they were given."""
    given = {name: words.value(name, getattr(args, name)) for name in FIELDS if hasattr(args, name)} | dict(dotted)
    if args.message_bytes is not None:
        given["message_bytes"] = words.value("message_bytes", args.message_bytes)
    return given


def _dotted(_: argparse.Namespace) -> Dotted:
    flags = (*FIELDS, "message_bytes", "results", "save", "load", *(f"{prefix}." for prefix in PREFIXES))
    return Dotted(PREFIXES, [f"--{name}" for name in flags])


HELP = "show who computes, sends and waits when, and what is wasted: the clock of a method, without training a model"
EPILOG = "Options are dotted: --algorithm.k=4 --cluster.straggler=4 --cluster.crash=10 --problem.layout=layers"
EXAMPLES = (
    "dopt show schedule async_sgd --workers 4 --seconds 10",
    "dopt show schedule k_async_sgd --algorithm.k=2 --cluster.straggler=4",
)
COMMAND = Command(HELP, add_flags, run, _dotted, EPILOG, EXAMPLES)
