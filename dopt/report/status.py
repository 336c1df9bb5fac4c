"""How far a sweep is, for people: in one line, or as a screen."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from dopt.report.terminal import table
from dopt.sweeps import live
from dopt.sweeps.live import span
from dopt.sweeps.status import Status
from dopt.text import shown

if TYPE_CHECKING:
    from dopt.sweeps.claims import Claim

BAR = 60  # columns


def screen(status: Status, bar: bool = False) -> RenderableType:
    """All that is known. `bar`: with one of what is done."""
    parts: list[RenderableType] = [_line(_head(status)), _line(counts(status)), _line(_pace(status))]
    hidden = status.hidden
    if hidden.runs:
        whole = f" ({_many(hidden.slabs, 'whole slab')})" if hidden.slabs else ""
        parts.append(
            _line(f"{_many(hidden.runs, 'run')} hidden, since the latest sweep call did not ask for them{whole}")
        )
    if bar:
        parts.insert(1, live.bar(status.done.runs, status.asked.runs, BAR))
    if bar and status.groups:
        parts.append(live.rows(status.groups))
    work = [*_rows("running", status.running), *_rows("stale", status.stale)]
    if work:
        parts += ["", table("", ["slab", "state", "host", "process", "since"], work)]
    if status.failed:
        rows = [(one.slab, one.tries, one.error) for one in status.failed]
        parts += ["", table("", ["failed", "times", "error"], rows)]
    return Group(*parts)


def line(status: Status) -> str:
    """What changes while a sweep goes on."""
    return f"{counts(status)}; {_pace(status)}"


def counts(status: Status) -> str:
    """What is done, and what the rest is."""
    rest = {
        "running": len(status.running),
        "stale": len(status.stale),
        "failed": len(status.failed),
        "waiting": status.waiting,
    }
    done, asked = status.done, status.asked
    said = [f"{done.slabs} of {asked.slabs} slabs done ({done.runs} of {asked.runs} runs)"]
    return ", ".join([*said, *(f"{number} {state}" for state, number in rest.items() if number)])


def _head(status: Status) -> str:
    return f"{status.name} in {status.folder}: {_many(status.plans, 'plan')}"


def _many(number: int, what: str, ending: str = "s") -> str:
    return f"{number} {what}{ending * (number != 1)}"


def _pace(status: Status) -> str:
    """How fast it goes, and when it will be done."""
    if not status.left.slabs:
        return "all is done" if status.seconds is None else f"all is done, in {span(status.seconds)} a slab"
    if status.seconds is None:
        pace = "no slab is done yet"
    else:
        compiled = f" after {span(status.compile_seconds)} of compiling" if status.compile_seconds else ""
        pace = f"{span(status.seconds)} a slab{compiled}"
    if not status.workers:
        return f"{pace}, no process at work"
    at_work = f"{_many(status.workers, 'process', 'es')} at work"
    left = "time left unknown" if status.time_left is None else f"{span(status.time_left)} left"
    return f"{pace}, {at_work}, {left}"


def _rows(state: str, held: tuple[Claim, ...]) -> Iterator[tuple[str, str, str, str, str]]:
    for claim in held:
        yield claim.name, state, claim.node, str(claim.pid), _moment(claim.since)


def _moment(since: float) -> str:
    """By our calendar, and the clock of the host that says so."""
    try:
        return f"{datetime.fromtimestamp(since):%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # no clock says so
        return "-"


def _line(text: str) -> Text:
    return Text(shown(text))
