"""How a sweep that goes on looks: a screen in a terminal or a notebook, else a line now and then; and the pieces of which both are made.

A screen is drawn twice a second by a thread of its own, of what was told; it asks the devices nothing.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dopt.memory import available, size
from dopt.sweeps.show import Best, Part, Row, Show
from dopt.text import lines, quoted
from dopt.types import InputError

LEVELS = "▁▂▃▄▅▆▇█"
UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
MOST = 8  # groups that a screen shows
BAR = 20  # columns
FRAMES = 2.0  # a second
PERIOD = 30.0  # seconds between two lines, at least
WIDE = 140  # columns where there is no terminal


class PlainConsole(Console):
    """A console to which text is text: no markup, no emoji by name, nothing in it that steers the terminal."""

    def __init__(self, **options: Any):
        super().__init__(**options, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(lines(text), **options)


def console(stderr: bool = False) -> PlainConsole:
    """Where to print: as wide as the terminal, or wide where there is none."""
    made = PlainConsole(stderr=stderr)
    return made if made.is_terminal else PlainConsole(stderr=stderr, width=WIDE)


# -- pieces -----------------------------------------------------------------------------------------------------------


def span(seconds: float) -> str:
    """A time in its two largest units, as `3 h 20 min`; below ten seconds with two digits."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    rest, said = round(seconds), list[str]()
    for unit, length in UNITS:
        if rest >= length or said:
            said.append(f"{rest // length} {unit}")
            rest %= length
    return " ".join(part for part in said[:2] if not part.startswith("0 "))


def sparkline(curve: Sequence[float]) -> str:
    """A curve as a character for each value: by its logarithm where all are positive; a blank where one is not finite."""
    finite = [x for x in curve if math.isfinite(x)]
    scale = math.log if finite and min(finite) > 0 else float
    levels = [scale(x) if math.isfinite(x) else math.nan for x in curve]
    low = min(map(scale, finite), default=0.0)
    height = max(map(scale, finite), default=0.0) - low
    return "".join(" " if math.isnan(x) else LEVELS[_level((x - low) / height if height else 0.0)] for x in levels)


def _level(share: float) -> int:
    return min(int(share * len(LEVELS)), len(LEVELS) - 1)


def bar(done: float, total: float, width: int = BAR) -> RenderableType:
    """How much is done, with a line of its own."""
    table = Table.grid()
    table.add_row(ProgressBar(max(total, 1), done, width=width))
    return table


def rows(groups: Iterable[Row], most: int = MOST) -> RenderableType:
    """A line for each group: those that are under way first, then what is not begun, then what is done."""
    every = sorted(groups, key=lambda row: 0 if 0 < row.done < row.total else 1 if not row.done else 2)
    table = Table.grid(padding=(0, 2, 0, 0))
    for column in ({"no_wrap": True}, {"justify": "right"}, {}, {"no_wrap": True}, {"no_wrap": True}):
        table.add_column(**column, overflow="ellipsis")
    for row in every[:most]:
        best = Best(0.0, "", ()) if row.best is None else row.best
        words = (Text(lines(row.label)), Text(f"{row.done}/{row.total}"), ProgressBar(row.total, row.done, width=BAR))
        table.add_row(*words, Text(sparkline(best.curve)), Text(lines(best.label)))
    if len(every) <= most:
        return table
    return Group(table, Text(f"and {len(every) - most} more groups"))


def memory() -> str:
    """What this host has free, and what its accelerators hold, in words."""
    said = f"{size(available())} of memory free"
    if "jax" not in sys.modules:  # who only looks at a folder does not wait for it
        return said
    from dopt.devices.memory import held

    found = held()
    return said if found is None else f"{said}, {size(found.used)} of {size(found.limit)} of devices in use"


# -- what was told ----------------------------------------------------------------------------------------------------


class Tally(Show):
    """Counts what it is told, from whichever thread, and shows nothing but lines that somebody says."""

    def __init__(self, out: PlainConsole | None = None, what: str = "") -> None:
        self.out, self.what = out, what
        self.lock = threading.RLock()  # slabs are done by the thread that writes, and by other processes
        self.total = self.whole = self.new = self.diverged = self.size = 0
        self.share = 0.0  # of the slab that runs here
        self.doing, self.since = "", time.monotonic()
        self.begun: tuple[float, int] | None = None  # when the first slab could run, and how many runs were done then
        self.programs: list[float] = []  # seconds that each took to compile
        self.rows: dict[str, Row] = {}  # label -> how far that group is
        self.groups_of: dict[str, str] = {}  # slab -> label
        self.noted: set[str] = set()

    def plan(self, parts: Sequence[Part], there: Collection[str]) -> None:
        with self.lock:
            for part in parts:
                before = self.rows.get(part.label, Row(part.label, 0, 0))
                done = sum(runs for name, runs in part.slabs.items() if name in there)
                self.rows[part.label] = before._replace(done=done, total=sum(part.slabs.values()))
                self.groups_of.update(dict.fromkeys(part.slabs, part.label))

    def compiling(self, label: str) -> None:
        self._do(f"compiling {label}")

    def compiled(self, seconds: float) -> None:
        with self.lock:
            self.programs.append(seconds)
            if self.begun is not None and not self.new:  # of a sweep that is gone on with: the rate is that of runs
                self.begun = time.monotonic(), self.whole
            self._do("")

    def start(self, total: int, finished: int) -> None:
        with self.lock:
            self.total, self.whole = total, finished
            self.begun = self.begun or (time.monotonic(), finished)
            self._do("")

    def slab(self, name: str, runs: int) -> None:
        with self.lock:
            self.size, self.share = runs, 0.0
            self._do(f"running {name}")

    def chunk(self, share: float) -> None:
        self.share = share

    def best(self, slab: str, found: Best) -> None:
        with self.lock:
            row = self.rows.get(self.groups_of.get(slab, ""))
            if row is not None and (row.best is None or found.score < row.best.score):
                self.rows[row.label] = row._replace(best=found)

    def done(self, name: str, runs: int, diverged: int) -> None:
        with self.lock:
            self.whole += runs
            self.new += runs
            self.diverged += diverged
            self.share = 0.0
            row = self.rows.get(self.groups_of.get(name, ""))
            if row is not None:
                self.rows[row.label] = row._replace(done=row.done + runs)

    def note(self, line: str) -> None:
        if line not in self.noted:
            self.say(line)
        self.noted.add(line)

    def say(self, line: str) -> None:
        if self.out is not None:
            self.out.print(line, highlight=False, soft_wrap=True)

    def _do(self, what: str) -> None:
        with self.lock:
            self.doing, self.since = what, time.monotonic()

    @property
    def completed(self) -> float:
        """Runs, with the part of the slab that runs here."""
        return min(self.whole + self.share * self.size, self.total)

    def words(self) -> str:
        """How far it is, in a line."""
        with self.lock:
            if not self.total:
                return self._now()
            said = [f"{self.whole} of {self.total} runs", *self._pace()]
            said += [f"{self.diverged} diverged"] * bool(self.diverged)
            return ", ".join([*said, *filter(None, [self._now() if self.doing.startswith("compiling") else ""])])

    def _now(self) -> str:
        return f"{self.doing}, for {span(time.monotonic() - self.since)}" if self.doing else ""

    def _pace(self) -> list[str]:
        """How fast it goes, and how long the rest will take, as soon as that is known."""
        if self.begun is None:
            return []
        begin, before = self.begun
        made, seconds = self.completed - before, time.monotonic() - begin
        if made <= 0 or seconds <= 0:
            return []
        rate = made / seconds
        return [f"{rate:.3g} runs/s", f"{span((self.total - self.completed) / rate)} left"]

    def groups(self) -> list[Row]:
        """How far each group is, and its best run."""
        with self.lock:
            return list(self.rows.values())


class Lines(Tally):
    """A line now and then: where a slab was done since the last one, or something is compiled."""

    def __init__(self, out: PlainConsole, what: str = "", period: float = PERIOD) -> None:
        super().__init__(out, what)
        self.period = period
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def _do(self, what: str) -> None:
        super()._do(what)
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        said: tuple[str, int] = ("", 0)
        while not self._ended.wait(self.period):
            state = (self.doing if self.doing.startswith("compiling") else "", self.new)
            if state != said:
                self.say(f"{self.what}: {self.words()}" if self.what else self.words())
            said = state


class Screen(Tally):
    """A few lines that follow the sweep: how far it is, and each group with the best run of it."""

    def __init__(self, out: PlainConsole, what: str = "") -> None:
        super().__init__(out, what)
        self._live = Live(get_renderable=self.render, console=out, refresh_per_second=FRAMES)
        self._is_shown = self._is_first_known = False

    def first(self, record: Mapping[str, Any]) -> None:
        if not self._is_first_known:  # of the first slab alone: it says that something happens
            self.say(first_record(record))
        self._is_first_known = True

    def start(self, total: int, finished: int) -> None:
        super().start(total, finished)
        count, seconds = len(self.programs), sum(self.programs)
        if seconds >= 1:
            self.say(f"compiled {count} program{'s' * (count != 1)} in {span(seconds)}")
        self.programs.clear()

    def _do(self, what: str) -> None:
        super()._do(what)
        if not self._is_shown and what:
            self._is_shown = True
            self._live.start()

    def stop(self) -> None:
        self._do("")
        if self._is_shown:
            self._live.stop()
        self._is_shown = False

    def render(self) -> RenderableType:
        """What is on the screen now."""
        known = (
            memory() if self.total else f"{size(available())} of memory free"
        )  # devices may be asked when they are there
        head = ", ".join([self.words() or "planning", known])
        parts: list[RenderableType] = [Text(lines(f"{self.what}: {head}" if self.what else head))]
        if self.total:
            parts.append(bar(self.completed, self.total, 3 * BAR))
        groups = self.groups()
        if any(row.best is not None for row in groups) or len(groups) > 1:
            parts.append(rows(groups))
        return Group(*parts)


def first_record(record: Mapping[str, Any]) -> str:
    """One line of the metrics at step 0; of several runs the medians."""
    import numpy as np

    runs = max((len(values) for values in record.values()), default=0)
    medians = {name: float(np.median(values)) for name, values in record.items()}
    said = ", ".join(f"{name} {value:.4g}" for name, value in sorted(medians.items(), key=lambda one: one[0] != "loss"))
    return f"step 0{f' (median of {runs} runs)' * (runs > 1)}: {said or 'no metrics'}"


# -- which of them ----------------------------------------------------------------------------------------------------


def display(out: PlainConsole, what: str = "") -> Tally:
    """A screen where the console is one that can be drawn on anew, else lines."""
    can = (out.is_terminal and not out.is_dumb_terminal) or (out.is_jupyter and find_spec("ipywidgets") is not None)
    return Screen(out, what) if can else Lines(out, what)


def chosen(progress: str | bool) -> Show:
    """What `dopt.sweep(progress=...)` asks for: "auto" is a bar in a notebook, and lines elsewhere; True the command's display.

    Raises:
      InputError: it is none of them.
    """
    if progress is False:
        return Show()
    if progress not in (True, "auto"):
        raise InputError(f'progress: must be "auto", True or False, got {quoted(progress)}')
    out = console(stderr="ipykernel" not in sys.modules)
    return display(out) if progress is True or out.is_jupyter else Lines(out)


__all__ = [
    "Lines",
    "PlainConsole",
    "Screen",
    "Tally",
    "bar",
    "chosen",
    "console",
    "display",
    "first_record",
    "memory",
    "rows",
    "span",
    "sparkline",
]
