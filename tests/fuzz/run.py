"""Try damaged inputs, one after the other, and keep what neither goes in nor is refused in one line."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from dopt.types import InputError

from .doors import Kind, finished, kinds

LIMIT = 5.0  # seconds in which each must be taken or refused


class Failure(NamedTuple):
    """An input that broke the rule."""

    kind: str
    number: int
    what: str  # happened
    content: object


class Tally(NamedTuple):
    """What became of many inputs: kind -> how many were taken and refused; and what broke the rule."""

    taken: Counter[str]
    refused: Counter[str]
    failures: list[Failure]


class TooLong(BaseException):
    """An input took more than `LIMIT` seconds; not an Exception, so that nobody on the way takes it for one."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in this thread after so many seconds."""

    def ring(number: int, frame: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)  # again, where a callback swallowed it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(kind: Kind, number: int, seed: int, folder: Path) -> str | Failure:
    """ "taken", "refused", or how the input of that number broke the rule."""
    content, read = kind.damage(Random(f"{seed} {kind.name} {number}"), folder)
    begin = time.perf_counter()
    try:
        with limited(LIMIT):
            read()
        return "taken"
    except InputError as error:
        if "\n" in str(error) or not str(error):
            return Failure(kind.name, number, f"an InputError of several lines: {error}", content)
        return "refused"
    except TooLong:
        return Failure(kind.name, number, f"took more than {time.perf_counter() - begin:.1f} s", content)
    except BaseException as error:  # whatever it is, it must not be
        return Failure(kind.name, number, f"{type(error).__name__}: {error}", content)


def tried(these: Sequence[Kind], numbers: Sequence[int], seed: int) -> Tally:
    """The inputs of those numbers, of all kinds in turn."""
    tally = Tally(Counter(), Counter(), [])
    with tempfile.TemporaryDirectory() as root:
        for number in numbers:
            kind, folder = these[number % len(these)], Path(root) / str(number)
            folder.mkdir()
            found = attempt(kind, number, seed, folder)
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(found, Failure):
                tally.failures.append(found)
            else:
                getattr(tally, found)[kind.name] += 1
    return tally


def finish(folder: str) -> None:
    """Make the sound results folder, in a process of its own."""
    finished(Path(folder))


def share(
    of: tuple[str, Sequence[int], int, str | None],
) -> tuple[Counter[str], Counter[str], list[tuple[str, int, str, str]]]:
    """A process's share of the inputs (sound folder, numbers, seed, the only kind) as plain values."""
    folder, numbers, seed, only = of
    found = tried([kind for kind in kinds(Path(folder)) if only in (None, kind.name)], numbers, seed)
    return found.taken, found.refused, [(f.kind, f.number, f.what, repr(f.content)) for f in found.failures]
