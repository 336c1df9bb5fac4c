"""`dopt status DIR` and `dopt watch DIR`: how far a sweep is, once or live. Both only read."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from dopt.cli.command import Command, Parser, Values, folder
from dopt.cli.screen import console
from dopt.types import InputError
from dopt.watch import check

if TYPE_CHECKING:
    from dopt.sweeps.live import PlainConsole
    from dopt.sweeps.status import Status, Watch

SLOWEST = 3600.0  # seconds between two looks
JUDGED = 16  # slabs that are read for their best run, at each look
WAIT = 0.1  # seconds after which a command that nobody waits for ends


def _add_folder(parser: Parser) -> None:
    parser.add_argument("folder", type=folder, metavar="DIR", help="results folder of the sweep")


def _add_watch(parser: Parser) -> None:
    _add_folder(parser)
    parser.add_argument(
        "--every", type=float, default=2.0, metavar="SECONDS", help="time between two updates (default: %(default)s)"
    )


def _status(args: argparse.Namespace, _: Values) -> int:
    from dopt.report.status import screen
    from dopt.sweeps.status import status

    console().print(screen(status(args.folder)), highlight=False, soft_wrap=True)
    return 0


def _watch(args: argparse.Namespace, _: Values) -> int:
    if not 0 < args.every <= SLOWEST:
        raise InputError(f"every: must be above 0 and at most {SLOWEST:.0f} seconds, got {args.every:g}")
    from dopt.sweeps.status import Watch

    watch, out = Watch(args.folder), console()
    if out.is_terminal and not out.is_dumb_terminal:
        _live(_looks(watch, args.every, judged=JUDGED), out)
    else:
        _lines(_looks(watch, args.every), out)
    return 0


def _looks(watch: Watch, every: float, judged: int = 0) -> Iterator[Status]:
    """How far the sweep is, every so many seconds until all is done. `judged`: slabs in which the best run is looked for, each time."""
    while True:
        watch.judge(judged)
        found = watch.look()
        yield found
        if not found.left.slabs:
            return
        _pause(every)


def _live(looks: Iterable[Status], out: PlainConsole) -> None:
    """One screen that follows them."""
    from rich.live import Live

    from dopt.report.status import screen

    with Live(console=out, auto_refresh=False) as live:
        for found in looks:
            live.update(screen(found, bar=True), refresh=True)


def _lines(looks: Iterable[Status], out: PlainConsole) -> None:
    """A line for each in which a count is another one."""
    from dopt.report.status import counts, line

    said = ""
    for found in looks:
        if counts(found) != said:
            out.print(line(found), highlight=False, soft_wrap=True)
            said = counts(found)


def _pause(seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        check()
        time.sleep(min(left, WAIT))


STATUS = Command(
    "show how far a sweep is, which processes work on it, and what is left",
    _add_folder,
    _status,
    examples=("dopt status results/scaling",),
)
WATCH = Command(
    "show how far a sweep is, live, until it is done",
    _add_watch,
    _watch,
    examples=("dopt watch results/scaling --every 10",),
)
