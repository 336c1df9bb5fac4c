"""`dopt show`: a topology or a schedule, with a picture; and all that is known of a method, problem, law, ..."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from dopt.cli import listing, show_plugin, show_schedule, show_topology
from dopt.cli.command import Command, Dotted, Parser, Values, add_command
from dopt.registry import did_you_mean

SHOWS: dict[str, Command] = {
    **show_plugin.COMMANDS,
    "topology": show_topology.COMMAND,
    "schedule": show_schedule.COMMAND,
}


def add_flags(parser: Parser) -> None:
    """What `dopt show` takes: what to show, and what that takes."""
    shows = parser.add_subparsers(dest="what", required=True, metavar="WHAT", parser_class=Parser)
    shows.advice = _advice  # type: ignore[attr-defined]
    for name, command in SHOWS.items():
        add_command(shows, name, command)


def _advice(word: str, known: Iterable[str]) -> str:
    """What to write where somebody says a name, and not what it is; else what was meant."""
    places = {kind: places for kind, (_, places) in show_plugin.KINDS.items()} | {"topology": ("topologies",)}
    for kind, each in places.items():
        if any(word in listing.registry(place) for place in each):
            return f"; write dopt show {kind} {word}"
    return did_you_mean(word, known)


def run(args: argparse.Namespace, dotted: Values) -> int:
    """Show it."""
    return SHOWS[args.what].run(args, dotted)


def _dotted(args: argparse.Namespace) -> Dotted:
    allowed = SHOWS[args.what].dotted
    return Dotted((), ()) if allowed is None else allowed(args)


EXAMPLES = ("dopt show method choco_sgd", "dopt show topology torus --workers 36", "dopt show law exponential")
HELP = "show what is known of a method, a problem, a law, a topology, a schedule, ..."
COMMAND = Command(HELP, add_flags, run, _dotted, examples=EXAMPLES)
