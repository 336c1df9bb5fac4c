"""What a command is: the flags that it takes, and what it does with them."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from dopt.registry import did_you_mean
from dopt.text import quoted
from dopt.types import InputError


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line, and whose last words stay as they are."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `{self.prog} --help`")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a word that is none of the choices, with the one that was meant."""
        if action.choices is not None and value not in action.choices:
            near = getattr(action, "advice", did_you_mean)(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"unknown name {quoted(value)}{near}")

    def flags(self) -> list[str]:
        """All its flags, as they are given."""
        return [flag for flag in self._option_string_actions if flag.startswith("--")]


WIDTH = 100  # of what stands below the flags
Flags = argparse._ActionsContainer  # a parser, or a group of its flags


class Dotted(NamedTuple):
    """Which dotted options a command takes, as `--topology.degree=4`."""

    prefixes: Sequence[str] | None  # None: any
    flags: Sequence[str]  # what else there is, for who mistypes one


Values = Mapping[str, Any]  # dotted option -> value


class Command(NamedTuple):
    """One of `dopt COMMAND`."""

    help: str
    add_flags: Callable[[Parser], None]
    run: Callable[[argparse.Namespace, Values], int]  # -> exit code
    dotted: Callable[[argparse.Namespace], Dotted] | None = None  # None: it takes no dotted options
    epilog: str | None = None
    examples: Sequence[str] = ()
    fails: str = ""  # when it ends with 1, beside what the machine refuses


def add_command(commands: argparse._SubParsersAction[Parser], name: str, command: Command) -> Parser:
    """The parser of a command, with its flags, its examples, and what its exit codes mean."""
    made = commands.add_parser(name, allow_abbrev=False, help=command.help, epilog=_last_words(command))
    made.description = f"{command.help[0].upper()}{command.help[1:]}."
    command.add_flags(made)
    return made


def _last_words(command: Command) -> str:
    """What stands below the flags of a command."""
    parts = [] if command.epilog is None else [textwrap.fill(command.epilog, WIDTH, break_on_hyphens=False)]
    if command.examples:
        parts.append("\n".join(["examples:", *(f"  {line}" for line in command.examples)]))
    fails = f"{command.fails}, or the machine refuses" if command.fails else "the machine refuses (disk, memory)"
    codes = f"exit codes: 0 done; 1 {fails}; 2 the input is wrong; 130 or 143 interrupted"
    return "\n\n".join([*parts, textwrap.fill(codes, WIDTH, subsequent_indent="  ")])


def folder(text: str) -> str:
    """A folder's name; an empty one would be the folder in which the command happens to run.

    Raises:
      ArgumentTypeError: it is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("must be a folder, got ''; use . for this one, or leave the flag out")
    return text


def add_results_and_wandb(parser: Flags) -> None:
    """Flags of what makes runs."""
    parser.add_argument("--results", type=folder, metavar="DIR", help="results folder (default: results/NAME)")
    add_wandb(parser)
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="how many devices to use (a sweep: all by default); on a CPU, N virtual ones",
    )


def add_wandb(parser: Flags) -> None:
    """Whether runs are logged to Weights & Biases."""
    parser.add_argument(
        "--wandb",
        choices=("auto", "online", "offline", "off"),
        default="auto",
        help="log to Weights & Biases (default: auto, if logged in)",
    )


def add_sweep_file(parser: Parser) -> None:
    """What sweep to read."""
    parser.add_argument(
        "file", metavar="FILE", help="YAML in the W&B sweep schema, or the name of a sweep that comes with dopt"
    )


def add_import(parser: Flags) -> None:
    """Flag of every command. Its words are taken before all others are read (`words.imported`); here stands what it is."""
    parser.add_argument(
        "--import",
        dest="imports",
        metavar="FILE",
        help="import plug-ins: a .py file or a module, several with commas (also DOPT_IMPORT)",
    )


def add_set(parser: Flags) -> None:
    """Flag of what reads a sweep file."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a parameter to another value, or to several: [a, b]",
    )


def add_figures_folder(parser: Flags) -> None:
    """Flag of what looks for something in figure files."""
    parser.add_argument(
        "--figures",
        type=folder,
        metavar="DIR",
        help="a folder of figure files; their code is executed (default: dopt's own)",
    )
