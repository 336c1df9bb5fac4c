"""How far a sweep is: what of it is done, who works on what, and how long the rest will take. Nothing is written."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dopt.files import reason
from dopt.sweeps import claims, contents, seal
from dopt.sweeps.best import Judge
from dopt.sweeps.claims import Claim
from dopt.sweeps.show import Best, Part, Row
from dopt.sweeps.store import SlabError, Store
from dopt.types import InputError, MachineError

SAMPLE = 64  # manifests that are read to say how long a slab takes
PATIENCE = 2  # beats for which a claim that is in doubt is watched


class Count(NamedTuple):
    """Slabs, and those of their runs that are asked for."""

    slabs: int
    runs: int


class Failed(NamedTuple):
    """A slab that was tried in vain, and the error of the last time."""

    slab: str
    error: str
    tries: int


@dataclass(frozen=True)
class Status:
    """How far a sweep is. Slabs that are not done are running, stale, failed or waiting; together they are `left`.

    Attributes:
      folder: where it all lies.
      name: the sweep's.
      plans: how many there are.
      asked: what the latest call asked for.
      done: what of it has results. They are counted; `dopt.load` and the next `dopt sweep` compare them with their sums.
      running: claims of slabs, by processes that live as far as can be told.
      stale: claims of slabs, by processes that do not: the next one that works in the folder takes them over.
      failed: slabs with an error that nobody tries again now; the next `dopt sweep` does.
      waiting: how many slabs nobody has begun.
      groups: how far each group of runs that share a program is, in runs.
      hidden: what lies in plans, and is not asked for now.
      workers: how many processes hold the claims of `running`.
      seconds: that a slab takes: the median of at most `SAMPLE` that are done, spread evenly over the plans. None: none is done.
      compile_seconds: that its program took, likewise; a process compiles it once for many slabs.
    """

    folder: Path
    name: str
    plans: int
    asked: Count
    done: Count
    running: tuple[Claim, ...]
    stale: tuple[Claim, ...]
    failed: tuple[Failed, ...]
    waiting: int
    hidden: Count
    workers: int
    seconds: float | None
    compile_seconds: float | None
    groups: tuple[Row, ...] = ()

    @property
    def left(self) -> Count:
        """What is not done."""
        return Count(self.asked.slabs - self.done.slabs, self.asked.runs - self.done.runs)

    @property
    def time_left(self) -> float | None:
        """Seconds until all is done, if as many processes go on as fast; None: nobody is at work, or no slab is done yet."""
        if not self.left.slabs:
            return 0.0
        return self.left.slabs * self.seconds / self.workers if self.workers and self.seconds is not None else None


class _Seen(NamedTuple):
    """What we saw of a claim: its counter, since when it stands there by our clock, and whether it moved before our eyes."""

    beats: int
    since: float
    moved: bool


class _Planned(NamedTuple):
    """What the plans say, and what of it is asked for."""

    name: str
    plans: int
    asked: Mapping[str, int]  # slab -> how many of its runs are asked for, where that is any
    hidden: Count
    groups: tuple[Part, ...]  # with the slabs that are asked for
    ids: Mapping[str, Sequence[str]]  # of each slab's runs


class Watch:
    """Looks at a sweep again and again: it reads plans only where they changed, and knows which claims stood still meanwhile."""

    def __init__(self, folder: str | Path):
        self.store = Store(folder)
        self._planned: tuple[object, _Planned] | None = None  # and the state of the files that say so
        self._seen: dict[Claim, _Seen] = {}  # claims without their counters
        self._judge, self._bests = Judge(self.store), dict[str, Best | None]()

    def look(self) -> Status:
        """How far the sweep is now.

        Raises:
          InputError: the folder holds no sweep, or what it was asked for, or a plan of it, is damaged.
          MachineError: it cannot be read.
        """
        folder, planned = self.store.folder, self._plans()
        held = claims.held(folder / "locks")
        there = set(_names(folder / "slabs"))  # after the claims: who has given one back has put its slab there
        done = [name for name in planned.asked if name in there]
        left = {name: runs for name, runs in planned.asked.items() if name not in there}
        self._seen = {_bare(claim): self._watched(claim) for claim in held if claim.name in left}
        held = [claim for claim in held if claim.name in left]
        running = [claim for claim in held if not self._is_stale(claim)]
        failed = {one.slab: one for one in (*_set_aside(folder), *_failed(folder)) if one.slab in left}
        for claim in running:
            failed.pop(claim.name, None)  # it is tried again
        stale = [claim for claim in held if claim not in running and claim.name not in failed]
        begun = {*failed, *(claim.name for claim in (*running, *stale))}
        seconds, compile_seconds = self._seconds(done)
        return Status(
            folder=folder,
            name=planned.name,
            plans=planned.plans,
            asked=Count(len(planned.asked), sum(planned.asked.values())),
            done=Count(len(done), sum(planned.asked[name] for name in done)),
            running=tuple(running),
            stale=tuple(stale),
            failed=tuple(failed.values()),
            waiting=len(left) - len(begun),
            hidden=planned.hidden,
            workers=len({(claim.node, claim.system, claim.pid) for claim in running}),
            seconds=seconds,
            compile_seconds=compile_seconds,
            groups=tuple(self._row(part, there) for part in planned.groups),
        )

    def judge(self, slabs: int) -> None:
        """Look for the best runs in so many more slabs that are done, the newest first; what is found stands in `groups` from then on."""
        names = [name for name in self._plans().asked if name not in self._bests and self.store.has(name)]
        for name in names[::-1][:slabs]:
            with suppress(SlabError):  # damaged, or set aside just now
                self._bests[name] = self._judge(*self.store.read_slab(name, self._plans().ids[name]))

    def _row(self, part: Part, there: Collection[str]) -> Row:
        done = sum(runs for name, runs in part.slabs.items() if name in there)
        known = [found for name in part.slabs if (found := self._bests.get(name)) is not None]
        return Row(part.label, done, sum(part.slabs.values()), min(known, key=lambda best: best.score, default=None))

    def is_in_doubt(self, claim: Claim) -> bool:
        """Whether a claim looks as if its process were dead, and nobody can tell before we have watched it for a while.

        It does where its file is old, or from times to come: then its process does not move it, or that host has another clock than ours.
        """
        return not self._seen[_bare(claim)].moved and not -claims.BEAT <= self._age(claim) <= claims.STALE

    def _is_stale(self, claim: Claim) -> bool:
        still = time.monotonic() - self._seen[_bare(claim)].since
        return claim.is_dead or still >= (PATIENCE * claims.BEAT if self.is_in_doubt(claim) else claims.STALE)

    def _watched(self, claim: Claim) -> _Seen:
        before = self._seen.get(_bare(claim))
        if before is not None and before.beats == claim.beats:
            return before
        return _Seen(claim.beats, time.monotonic(), moved=before is not None)

    def _age(self, claim: Claim) -> float:
        """Seconds since the claim's file was written, if its host and ours have the same clock."""
        try:
            return time.time() - (self.store.folder / "locks" / f"{claim.name}{claims.SUFFIX}").stat().st_mtime
        except OSError:  # it was given back just now
            return 0.0

    def _plans(self) -> _Planned:
        """What is planned; it is read again where a file was replaced, or is new."""
        state = [(path, _state(path)) for path in (self.store.reading_path, *self.store.plan_paths())]
        if self._planned is None or self._planned[0] != state:
            self._planned = state, _planned(self.store)
        return self._planned[1]

    def _seconds(self, done: Sequence[str]) -> tuple[float | None, float | None]:
        """(of a slab, of compiling its program), medians of a sample."""
        found = []
        for name in done[:: max(1, math.ceil(len(done) / SAMPLE))]:
            with suppress(SlabError):  # damaged, or set aside just now
                found.append(self.store.manifest(name).get("seconds"))
        return _median(found, "run"), _median(found, "compile")


def status(folder: str | Path) -> Status:
    """How far the sweep in a folder is, which may go on meanwhile. Nothing is written.

    Where a claim looks as if its process on another host were dead, it is watched until that is known, for at most two beats of its
    counter (10 seconds). All else takes as long as to list the folders and to read the plans, and the manifests of a few slabs.

    Raises:
      InputError: the folder holds no sweep, or what it was asked for, or a plan of it, is damaged.
      MachineError: it cannot be read.
    """
    watch = Watch(folder)
    found, begin = watch.look(), time.monotonic()
    while any(map(watch.is_in_doubt, found.running)) and time.monotonic() - begin <= PATIENCE * claims.BEAT:
        time.sleep(claims.BEAT / 5)
        found = watch.look()
    return found


def _planned(store: Store) -> _Planned:
    order = store.reading().order  # before the plans: what is asked for then is in one of them
    plans = {path: store.plan(path) for path in store.plan_paths()}
    if not plans:
        raise InputError(f"results: no sweep in {str(store.folder)!r} (no plan); run `dopt sweep FILE` first")
    slabs = {name: ids for path, plan in plans.items() for name, ids in contents.slabs(plan, path)}
    wanted = None if order is None else set(order)
    asked = {name: len(ids) if wanted is None else len(wanted.intersection(ids)) for name, ids in slabs.items()}
    hidden = Count(sum(not runs for runs in asked.values()), sum(map(len, slabs.values())) - sum(asked.values()))
    kept = {name: runs for name, runs in asked.items() if runs}
    return _Planned(list(plans.values())[-1]["name"], len(plans), kept, hidden, _parts(plans, kept), slabs)


def _parts(plans: Mapping[Path, Mapping[str, Any]], asked: Mapping[str, int]) -> tuple[Part, ...]:
    """The groups of all plans that have a slab that is asked for; those of one label are one."""
    every = [group for path, plan in plans.items() for group in contents.groups(plan, path)]
    found: dict[str, dict[str, int]] = {}
    for label, (_, names) in zip(contents.labels([key for key, _ in every]), every, strict=True):
        found.setdefault(label, {}).update({name: asked[name] for name in names if name in asked})
    return tuple(Part(label, slabs) for label, slabs in found.items() if slabs)


def _state(path: Path) -> tuple[int, ...] | None:
    """By which a file can be told from one that took its place; None: it is not there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _names(folder: Path) -> list[str]:
    """What lies in a folder, in order; nothing where there is no folder."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise MachineError(f"results: cannot read {str(folder)!r} ({reason(error)})") from error


def _set_aside(folder: Path) -> list[Failed]:
    """Slabs that were found damaged or foreign, each as SLAB.NUMBER."""
    names = Counter(name.rpartition(".")[0] for name in _names(folder / "set-aside"))
    return [
        Failed(name, "damaged, or of another plan: it was moved to set-aside", tries) for name, tries in names.items()
    ]


def _failed(folder: Path) -> list[Failed]:
    """Slabs that whoever gave them to others has marked failed, each as SLAB.json."""
    paths = [folder / "failed" / name for name in _names(folder / "failed") if not name.startswith(".")]
    return [found for path in paths if (found := _failure(path)) is not None]


def _failure(path: Path) -> Failed | None:
    """What the file says; None: it was removed just now."""
    try:
        match seal.parse(path.read_bytes()):
            case {"slab": str(slab), "error": str(error), "tries": int(tries)}:
                return Failed(slab, error, tries)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MachineError(f"results: cannot read {str(path)!r} ({reason(error)})") from error
    except ValueError:
        pass
    return Failed(path.stem, f"{path} gives no reason", 1)


def _bare(claim: Claim) -> Claim:
    """The claim without its counter."""
    return claim._replace(beats=0)


def _median(found: Sequence[object], part: str) -> float | None:
    """Of a part of the seconds that manifests say; None: none says it."""
    said = [seconds.get(part) for seconds in found if isinstance(seconds, dict)]
    numbers = [float(x) for x in said if isinstance(x, int | float) and 0 <= x < math.inf]
    return statistics.median(numbers) if numbers else None
