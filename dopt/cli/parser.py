"""The command line of `dopt`: all commands with their flags, and what to do for the words that were given."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import NoReturn

from dopt import plugins
from dopt.cli import (
    completion,
    doctor,
    figures,
    launch,
    listing,
    merge,
    new,
    plot,
    report,
    results,
    run,
    show,
    status,
    sweep,
    try_plugins,
    words,
)
from dopt.cli.command import Command, Parser, add_command, add_import
from dopt.registry import did_you_mean
from dopt.types import InputError
from dopt.version import described

COMMANDS: dict[str, Command] = {
    "sweep": sweep.COMMAND,
    "run": run.COMMAND,
    "list": listing.COMMAND,
    "merge": merge.COMMAND,
    "results": results.COMMAND,
    "plot": plot.COMMAND,
    "report": report.COMMAND,
    "show": show.COMMAND,
    "new": new.COMMAND,
    "launch": launch.COMMAND,
    "status": status.STATUS,
    "watch": status.WATCH,
    "figures": figures.COMMAND,
    "test-plugin": try_plugins.COMMAND,
    "doctor": doctor.COMMAND,
    "completion": completion.COMMAND,
}

HELP = "work"  # a command that no user gives: a sweep starts its helpers with it


class _Version(argparse.Action):
    """Prints the version; git is asked for the commit only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print(f"dopt {described()}")
        parser.exit()


def parser() -> tuple[Parser, Mapping[str, Parser]]:
    """The parser of all words, and those of what follows each command."""
    top = Parser(
        prog="dopt",
        description=f"The command `dopt`: {', '.join(COMMANDS)}.",
        epilog="`dopt COMMAND --help` says more, with examples; `dopt completion bash` lets a shell complete commands and names.",
        allow_abbrev=False,
    )
    top.add_argument(
        "--version", action=_Version, nargs=0, help="print dopt's version, and the commit where it is known"
    )
    all_of_them = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    each: dict[str, Parser] = {}
    for name, command in COMMANDS.items():
        each[name] = add_command(all_of_them, name, command)
        add_import(each[name])
    return top, each


def obey(arguments: Sequence[str]) -> int:
    """Do what the words say; the exit code."""
    if list(arguments) == [HELP]:
        from dopt.sweeps import helper

        return helper.main()
    named, others = words.imported(arguments)
    words.check_once(others)
    top, each = parser()
    known, rest = top.parse_known_args(words.joined(others) if others[:1] == ["show"] else others)
    command = COMMANDS[known.command]
    known.imports = named
    plugins.environment()
    plugins.load(named, what="import")
    if command.dotted is not None:
        return command.run(known, words.dotted(known.command, rest, command.dotted(known)))
    if rest:
        raise InputError(f"{known.command}: unknown argument {rest[0]!r}{_near(rest[0], known.command, each)}")
    return command.run(known, {})


def _near(word: str, command: str, each: Mapping[str, Parser]) -> str:
    """What may have been meant."""
    if not word.startswith("-"):
        return f"; see `dopt {command} --help`"
    return did_you_mean(word.split("=")[0], each[command].flags())
