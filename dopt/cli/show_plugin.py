"""`dopt show method|problem|data|law|... NAME`: what it is, its options, what it needs, accepts and sends, and an example."""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from typing import TYPE_CHECKING

from dopt import plugins
from dopt.cli import listing
from dopt.cli.command import Command, Parser, Values
from dopt.cli.screen import console
from dopt.registry import did_you_mean
from dopt.text import quoted
from dopt.types import InputError

if TYPE_CHECKING:
    from dopt.report.plugins import Described
    from dopt.sweeps.live import PlainConsole

KINDS = {  # what is shown -> what that is, and where names are looked up
    "method": ("a method", ("algorithms",)),
    "problem": ("a problem", ("problems",)),
    "data": ("a set of data", ("data",)),
    "law": ("a law of compute times or of delays", ("clusters", "delays")),
    "compressor": ("an operator that shrinks messages", ("compressors",)),
    "optimizer": ("a local optimizer", ("optimizers",)),
    "weights": ("a rule of weights", ("weights",)),
    "cluster": ("a law of compute times", ("clusters",)),
    "delay": ("a law of delays", ("delays",)),
    "partition": ("a way to split data over workers", ("partitions",)),
}


EXAMPLES = {
    "method": "gossip_sgd",
    "problem": "logistic",
    "data": "digits",
    "law": "uniform",
    "compressor": "top_k",
    "optimizer": "adam",
    "weights": "metropolis",
    "cluster": "pareto",
    "delay": "geometric",
    "partition": "dirichlet",
}


def _add_flags(kind: str, parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help=f"one of {_lists(kind)}")


def _lists(kind: str) -> str:
    _, places = KINDS[kind]
    return " or ".join(f"`dopt list {place}`" for place in places)


def _run(kind: str, args: argparse.Namespace, _: Values) -> int:
    """Print all that is known of a plug-in; of each, where laws of both kinds have that name."""
    registries = {where: listing.registry(where) for where in KINDS[kind][1]}
    found = [(where, entries[args.name]) for where, entries in registries.items() if args.name in entries]
    if not found:
        known = [name for entries in registries.values() for name in entries]
        raise InputError(f"{kind}: unknown name {quoted(args.name)}{did_you_mean(args.name, known)}")
    from dopt.report.plugins import described

    out = console()
    for where, entry in found:
        _print(out, described(where, entry), entry.origin)
    return 0


def _print(out: PlainConsole, one: Described, origin: str) -> None:
    """Print all of it."""
    from dopt.report.terminal import table

    print_head(out, one)
    facts = [*one.facts, ("source", one.source), *([("from", origin)] if origin != plugins.OWN else [])]
    out.print(table("", ["", ""], facts), highlight=False)
    out.print(f"try: {shlex.join(one.example)}\n", highlight=False, soft_wrap=True)


def print_head(out: PlainConsole, one: Described) -> None:
    """Print what a plug-in is, and its options."""
    from rich.padding import Padding
    from rich.text import Text

    from dopt.report.terminal import table

    out.print(Text(one.title, style="bold"))
    out.print(f"{one.summary}.", highlight=False, soft_wrap=True)
    if one.equation:
        out.print(Padding(Text(one.equation), (1, 0, 1, 2)))
    out.print(
        table("", ["option", "type", "default", ""], one.options) if one.options else "it has no options",
        highlight=False,
    )


COMMANDS = {
    kind: Command(
        f"{what}: equation, options, what it needs, an example",
        partial(_add_flags, kind),
        partial(_run, kind),
        examples=(f"dopt show {kind} {EXAMPLES[kind]}",),
    )
    for kind, (what, _) in KINDS.items()
}
