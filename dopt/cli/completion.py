"""`dopt completion SHELL`: a script by which a shell completes commands, flags, and the names of what there is."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from dopt.cli import listing, show_plugin
from dopt.cli.command import Command, Parser, Values

SHELLS = ("bash", "zsh", "tcsh")
REGISTERED = {  # a field of a run -> the kind of plug-in that it names
    "algorithm": "algorithms",
    "optimizer": "optimizers",
    "problem": "problems",
    "data": "data",
    "partition": "partitions",
    "topology": "topologies",
    "weights": "weights",
    "delay": "delays",
    "cluster": "clusters",
}


def add_flags(parser: Parser) -> None:
    """What `dopt completion` takes."""
    parser.add_argument("shell", choices=SHELLS, help="the shell to print a script for")


def run(args: argparse.Namespace, _: Values) -> int:
    """Print the script. The names in it are those of today: of own plug-ins, too, where --import or DOPT_IMPORT says which."""
    import shtab

    from dopt.cli.parser import parser

    top, _each = parser()
    _complete(top)
    print(shtab.complete(top, args.shell))
    return 0


def _complete(parser: argparse.ArgumentParser, said: tuple[str, ...] = ()) -> None:
    """Say of each word and flag what it may be. `said`: the words before, as ("show", "method")."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                _complete(inner, (*said, name))
        elif action.choices is None and action.nargs != 0:
            action.choices = _names(action.dest, said)
            place = {"DIR": shtab.DIRECTORY, "FILE": shtab.FILE}.get(str(action.metavar).split(".")[0])
            if place is not None:
                action.complete = place  # type: ignore[attr-defined]


def _names(word: str, said: tuple[str, ...]) -> list[str] | None:
    """The names that a word of a command may be; None: it is no name."""
    match said, word:
        case ("list",), "what":
            return list(listing.KINDS)
        case ("list",), "family":
            return list(listing.FAMILIES)
        case ("show", "schedule"), "name":
            return _of(["algorithms"])
        case ("show", "topology"), "name":
            return _of(["topologies"])
        case ("show", kind), "name":
            return _of(show_plugin.KINDS[kind][1])
        case ("run" | "show", *_), field if field in REGISTERED:
            return _of([REGISTERED[field]])
        case _, "strict":
            return ["true", "false"]
    return None


def _of(kinds: Iterable[str]) -> list[str]:
    """The names of all plug-ins of some kinds."""
    return sorted({name for kind in kinds for name in listing.registry(kind)})


EXAMPLES = (
    "dopt completion bash > ~/.local/share/bash-completion/completions/dopt",
    'dopt completion zsh > "${fpath[1]}/_dopt"',
    "dopt completion tcsh > ~/.dopt.tcsh",
)
COMMAND = Command(
    "print a script that lets a shell complete commands, flags and names", add_flags, run, examples=EXAMPLES
)
