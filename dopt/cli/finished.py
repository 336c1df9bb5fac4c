"""What is finished in results folders, for commands that show it: `DIR... --where CONDITIONS`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from dopt.cli.command import Parser, folder
from dopt.cli.screen import complain_once
from dopt.text import quoted
from dopt.types import InputError

if TYPE_CHECKING:
    from dopt.sweeps.results import Results
    from dopt.sweeps.where import Condition

Made = TypeVar("Made")


def add_flags(parser: Parser) -> None:
    """The folders, and which runs of them."""
    parser.add_argument("folders", nargs="+", type=folder, metavar="DIR", help="a results folder")
    parser.add_argument(
        "--where",
        metavar="CONDITIONS",
        help="only runs that meet all these conditions, as in 'topology=ring,delay>2' (signs: = != < <= > >=; none: no value)",
    )


def conditions(args: argparse.Namespace) -> tuple[Condition, ...]:
    """What `--where` says; it is refused before any folder is read."""
    from dopt.sweeps import where

    return () if args.where is None else where.parse(args.where)


def read(folders: Sequence[str], conditions: Sequence[Condition]) -> list[Results]:
    """The sweeps in the folders, each once; of what is not there a line each.

    Raises:
      InputError: nothing is finished.
    """
    from dopt.sweeps import several

    sweeps = several.together(_each(folders))
    return several.chosen(sweeps, conditions) if conditions else sweeps


def made_of(sweeps: Sequence[Results], make: Callable[[Sequence[Results]], Made]) -> Made:
    """What `make` makes of the sweeps; where it meets records that are damaged, of the runs whose records are whole."""
    from dopt.sweeps.records import RecordsError
    from dopt.sweeps.results import notes_of

    try:
        made = make(sweeps)
    except RecordsError:  # to look at all of them takes time
        sweeps = [one.checked() for one in sweeps]
        complain_once(line for one in sweeps for line in one.faults)
        made = make(sweeps)
    complain_once(notes_of(sweeps))
    return made


def _each(folders: Sequence[str]) -> list[Results]:
    from dopt.sweeps.results import load

    found = []
    for name in dict.fromkeys(folders):
        results = load(name)
        complain_once(results.faults)
        if results.missing:
            complain_once([f"results: {results.missing} runs of {name} are not finished yet"])
        if results.hidden:
            complain_once(
                [
                    f"results: {results.hidden} more runs of {name} are hidden, since the latest sweep call did not ask for them"
                ]
            )
        if len(results.runs):
            found.append(results)
    if not found:
        raise InputError(
            f"results: no run of {', '.join(map(quoted, folders))} is finished; run `dopt sweep FILE` first"
        )
    return found
