"""`dopt show topology` and `dopt show schedule`: numbers and a picture."""

from __future__ import annotations

import argparse

from dopt.cli import show_schedule, show_topology
from dopt.cli.command import Command, Dotted, Parser, Values

SHOWS: dict[str, Command] = {"topology": show_topology.COMMAND, "schedule": show_schedule.COMMAND}


def add_flags(parser: Parser) -> None:
    """What `dopt show` takes: what to show, and what that takes."""
    shows = parser.add_subparsers(dest="what", required=True, metavar="WHAT", parser_class=Parser)
    for name, command in SHOWS.items():
        command.add_flags(shows.add_parser(name, allow_abbrev=False, help=command.help, epilog=command.epilog))


def run(args: argparse.Namespace, dotted: Values) -> int:
    """Show it."""
    return SHOWS[args.what].run(args, dotted)


def _dotted(args: argparse.Namespace) -> Dotted:
    allowed = SHOWS[args.what].dotted
    assert allowed is not None
    return allowed(args)


COMMAND = Command("numbers and a picture of a topology or a schedule", add_flags, run, _dotted)
