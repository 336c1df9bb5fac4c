"""`dopt test-plugin FILE`: the conformance suite on what a file registers."""

from __future__ import annotations

import argparse
from typing import Any

from dopt import plugins
from dopt.cli import devices, words
from dopt.cli.command import Command, Flags, Values
from dopt.cli.screen import console
from dopt.types import InputError

DEVICES = 4  # virtual ones, a worker on each


def add_flags(parser: Flags) -> None:
    """What `dopt test-plugin` takes."""
    parser.add_argument("file", metavar="FILE", help="a .py file that registers plug-ins, or a module")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option that a plug-in needs, such as algorithm.k=3 or topology.degree=4",
    )


def run(args: argparse.Namespace, _: Values) -> int:
    """Make all checks of all that the file registers; 1 where one does not hold."""
    given = words.changes(args.set)
    import jax

    jax.config.update("jax_platforms", "cpu")  # a program is checked, and no device
    devices.make_virtual(DEVICES)
    plugins.load([args.file], what="test-plugin")
    from dopt import testing

    found = testing.registered(args.file)
    if not found:
        raise InputError(
            f"test-plugin: {args.file!r} registers nothing; use @dopt.register.method(...) or another decorator of dopt.register"
        )
    wrong = sum(_check(kind, name, given) for kind, name in found)
    said = f"{wrong} check{'s' * (wrong > 1)} failed" if wrong else "all checks passed"
    console().print(f"{len(found)} plug-in{'s' * (len(found) > 1)}: {said}", highlight=False)
    return 1 if wrong else 0


def _check(kind: str, name: str, given: dict[str, Any]) -> int:
    """Print what each check of a plug-in found; how many do not hold."""
    from rich.text import Text

    from dopt import testing

    out, wrong = console(), 0
    out.print(Text(f"{kind} {name}", style="bold"))
    for what, line in testing.held(kind, name, given):
        wrong += line is not None
        mark = Text("  ok      ", style="green") if line is None else Text("  FAILED  ", style="bold red")
        out.print(mark + Text(what if line is None else f"{what}: {line}"), soft_wrap=True)
    return wrong


COMMAND = Command(
    "test your own plug-ins: the checks that every method, topology, law, ... must pass",
    add_flags,
    run,
    examples=("dopt test-plugin my_method.py", "dopt test-plugin my_package --set algorithm.k=3"),
    fails="a check fails",
)
