"""A schedule as a table: one row for each computation, and what can be read off it without any model."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dopt import reading
from dopt.files import whole
from dopt.types import InputError

FATES = ("applied", "dropped", "aborted", "pending")
APPLIED, DROPPED, ABORTED, PENDING = range(4)
COMPUTING, SENDING, WAITING, WASTED = KINDS = ("computing", "sending", "waiting", "wasted")


class Schedule(NamedTuple):
    """One row for each computation, in the order of the clock; what is still pending comes last.

    A worker's row runs: pulled, (the model travels), begin, computes, done, (waits), sends, (the gradient travels), time.
    """

    worker: np.ndarray  # [rows] int32
    batch: np.ndarray  # [rows] int32: which of the worker's computations it is, from 0; the first of a round
    read_version: np.ndarray  # [rows] int32: updates made when the worker pulled
    write_version: np.ndarray  # [rows] int32: updates made when it lands, its own not among them
    fate: np.ndarray  # [rows] int8: applied, dropped, aborted, or pending when the schedule ends
    weight: np.ndarray  # [rows] float64: what an applied one counts in its update
    pulled: np.ndarray  # [rows] float64: seconds at which the worker pulls
    begin: np.ndarray  # [rows] float64: seconds at which it begins to compute
    done: np.ndarray  # [rows] float64: seconds at which it has computed, or was stopped
    sends: np.ndarray  # [rows] float64: seconds at which it begins to send
    time: np.ndarray  # [rows] float64: seconds at which it lands
    bytes: np.ndarray  # [rows] float64: the model down before it, and the gradient up after it
    workers: int
    end: float  # seconds at which the schedule ends
    stalled: bool = False  # nothing more would ever happen

    @property
    def columns(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in _COLUMNS}

    @property
    def applied(self) -> np.ndarray:
        return self.fate == APPLIED

    @property
    def delivered(self) -> np.ndarray:
        """[rows] bool: the server got it, whatever it did with it."""
        return self.fate <= DROPPED

    @property
    def staleness(self) -> np.ndarray:
        """[rows] updates made between a worker's pull and its arrival (or, of what was not delivered, until its end)."""
        return self.write_version - self.read_version

    @property
    def steps(self) -> int:
        """Number of updates."""
        return int(self.write_version[self.applied].max(initial=-1)) + 1

    def rows(self, chosen: Any) -> Schedule:
        """The schedule of some rows only."""
        return self._replace(**{name: column[chosen] for name, column in self.columns.items()})


_COLUMNS = Schedule._fields[:12]
TYPES = dict(zip(_COLUMNS, ("i4", "i4", "i4", "i4", "i1", *["f8"] * 7), strict=True))
SCALARS = {"workers": "i8", "end": "f8", "stalled": "?"}
WORKERS = 10**6  # that a schedule in a file may have
DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def assembled(columns: Iterable[Any], workers: int, end: float, stalled: bool = False) -> Schedule:
    """A schedule of its columns, in order, each in its own type."""
    typed = {n: np.ascontiguousarray(x, kind) for (n, kind), x in zip(TYPES.items(), columns, strict=True)}
    return Schedule(**typed, workers=workers, end=end, stalled=stalled)


def in_flight_staleness(schedule: Schedule) -> np.ndarray:
    """[pending rows] updates since the pull of what each worker computes when the schedule ends.

    For workers that are always busy and rules whose every update is one gradient, without aborts, delivered plus in-flight
    staleness is exactly (n - 1) x steps if nothing was dropped: each update is missed by all but its own worker.
    """
    return schedule.staleness[schedule.fate == PENDING]


class Batches(NamedTuple):
    """The rows that make up each update, for the replay; rows that fill up the shorter ones have weight 0."""

    rows: np.ndarray  # [steps, batch] int64: rows of the schedule
    weight: np.ndarray  # [steps, batch] float64
    read: np.ndarray  # [steps, batch] int32: where, among the models kept, the one is that was pulled
    write: np.ndarray  # [steps] int32: where the new model is kept
    kept: int  # models to keep at once
    time: np.ndarray  # [steps] float64: seconds at which the update is made
    computed: np.ndarray  # [steps] int64: computations delivered by then, dropped ones among them
    pulls: np.ndarray  # [steps] int64: models that the server sends up to the one just made


def batches(schedule: Schedule) -> Batches:
    """What a replay needs: only what is applied, update by update, and the models that must be kept for it.

    A model is kept from the update that makes it until the last gradient that is applied of it. So the number of models
    is at most that of the workers, and at most the largest staleness + 1; where a rule drops what is stale, few.
    """
    rows = np.flatnonzero(schedule.applied)
    step = schedule.write_version[rows]
    rows = rows[np.argsort(step, kind="stable")]
    step, read = schedule.write_version[rows], schedule.read_version[rows]
    steps = schedule.steps
    of_each = np.bincount(step, minlength=steps)
    place = np.arange(len(rows)) - (np.cumsum(of_each) - of_each)[step]
    first = (np.cumsum(of_each) - of_each)[:, None]
    # what fills up repeats the first of its update, with no weight
    wide = int(np.max(of_each)) if steps else 1
    table = np.broadcast_to(rows[first] if len(rows) else first, (steps, wide)).copy()
    weight = np.zeros(table.shape)
    table[step, place], weight[step, place] = rows, schedule.weight[rows]
    slot, kept = _slots(read, step, steps)
    last = rows[np.cumsum(of_each) - 1] if steps else rows
    time, computed = schedule.time[last], np.cumsum(schedule.delivered)[last]
    asked = np.sort(schedule.read_version[_fetched(schedule)])
    return Batches(
        table,
        weight,
        slot[schedule.read_version[table]].astype(np.int32),
        slot[1:].astype(np.int32),
        kept,
        time,
        computed,
        np.searchsorted(asked, np.arange(1, steps + 1), side="right"),
    )


def _fetched(schedule: Schedule) -> np.ndarray:
    """[rows] bool: a model travelled to the worker first. It has x⁰ from the start, and what it has it keeps."""
    order = np.lexsort((schedule.pulled, schedule.worker))
    version, lost = schedule.read_version[order], schedule.fate[order] == ABORTED
    again = np.diff(schedule.worker[order], prepend=-1) == 0
    had = np.where(again, np.roll(version, 1), 0)
    found = np.zeros(len(order), bool)
    found[order] = (version != had) | (again & np.roll(lost, 1))
    return found


def _slots(read: np.ndarray, step: np.ndarray, steps: int) -> tuple[np.ndarray, int]:
    """([steps + 1] where each version is kept, how many places that takes).

    Version v is there from step v - 1, which makes it, until the last step that reads it, or the next version.
    """
    last = np.arange(steps + 1)
    np.maximum.at(last, read, step)
    order = np.argsort(last, kind="stable")
    bounds = np.searchsorted(last[order], np.arange(steps + 1)).tolist()
    free: list[int] = []
    ends, slot, kept = order.tolist(), [0] * (steps + 1), 1
    for k in range(steps):
        free.extend(slot[version] for version in ends[bounds[k] : bounds[k + 1]])
        if free:
            slot[k + 1] = free.pop()
        else:
            slot[k + 1], kept = kept, kept + 1
    return np.array(slot, np.int64), kept


class Intervals(NamedTuple):
    """Who does what from when to when; nothing overlaps, and nothing lasts no time."""

    worker: np.ndarray  # [intervals] int32
    kind: np.ndarray  # [intervals] str: computing, sending (or receiving), waiting, wasted
    begin: np.ndarray  # [intervals] float64 seconds
    end: np.ndarray  # [intervals] float64 seconds


def intervals(schedule: Schedule) -> Intervals:
    """What each worker does until the schedule ends. Computations that are dropped or aborted are wasted."""
    order = np.lexsort((schedule.pulled, schedule.worker))
    s = schedule.rows(order)
    first = np.diff(s.worker, prepend=-1) != 0
    before = np.where(first, 0.0, np.concatenate([[0.0], s.time[:-1]])[: len(s.time)])
    wasted = (s.fate == DROPPED) | (s.fate == ABORTED)
    last = np.zeros(schedule.workers)
    np.maximum.at(last, s.worker, s.time)
    parts = [
        (s.worker, WAITING, before, s.pulled),
        (s.worker, SENDING, s.pulled, s.begin),
        (s.worker[~wasted], COMPUTING, s.begin[~wasted], s.done[~wasted]),
        (s.worker[wasted], WASTED, s.begin[wasted], s.done[wasted]),
        (s.worker, WAITING, s.done, s.sends),
        (s.worker, SENDING, s.sends, s.time),
        (np.arange(schedule.workers), WAITING, last, np.full(schedule.workers, schedule.end)),
    ]
    worker, begin, end = (np.concatenate([part[i] for part in parts]) for i in (0, 2, 3))
    kind = np.concatenate([np.full(len(part[0]), part[1]) for part in parts])
    begin, end = np.minimum(begin, schedule.end), np.minimum(end, schedule.end)
    there = np.flatnonzero(end > begin)
    there = there[np.lexsort((begin[there], worker[there]))]
    return Intervals(worker[there].astype(np.int32), kind[there], begin[there], end[there])


def summary(schedule: Schedule) -> dict[str, Any]:
    """Staleness, throughput and waste, as plain numbers.

    Keys: steps, seconds, updates_per_second, computations (by fate), staleness_mean, staleness_quantiles (of what is
    applied: 0.5, 0.9, 0.99, 1), staleness_histogram ([max + 1] counts), shares (of the workers' time: computing, sending,
    waiting, wasted), bytes, stalled.
    """
    tau = schedule.staleness[schedule.applied]
    done = intervals(schedule)
    spent = {kind: float((done.end - done.begin)[done.kind == kind].sum()) for kind in KINDS}
    whole = schedule.workers * schedule.end
    return {
        "steps": schedule.steps,
        "seconds": schedule.end,
        "updates_per_second": schedule.steps / schedule.end if schedule.end else 0.0,
        "computations": {name: int((schedule.fate == fate).sum()) for fate, name in enumerate(FATES)},
        "staleness_mean": float(tau.mean()) if len(tau) else float("nan"),
        "staleness_quantiles": {q: float(np.quantile(tau, q)) for q in (0.5, 0.9, 0.99, 1.0)} if len(tau) else {},
        "staleness_histogram": np.bincount(tau),
        "shares": {kind: seconds / whole if whole else 0.0 for kind, seconds in spent.items()},
        "bytes": float(schedule.bytes.sum()),
        "stalled": schedule.stalled,
    }


def save(schedule: Schedule, path: str | Path) -> None:
    """Write a schedule in NumPy's .npz format, to exactly this path (NumPy alone would append the suffix)."""
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **schedule._asdict())


def load(path: str | Path) -> Schedule:
    """Read what `save` wrote; InputError where it is something else, or says what no schedule can say."""
    content = reading.read("schedule", path)
    said = f"schedule: {str(path)!r} is not a schedule written by dopt"
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            columns = {name: _array(archive, name, kind) for name, kind in TYPES.items()}
            workers, end, stalled = (_array(archive, name, kind).item() for name, kind in SCALARS.items())
    # what is empty, cut, foreign, damaged, incomplete, or encrypted
    except (ValueError, LookupError, EOFError, OSError, NotImplementedError, RuntimeError, *DAMAGED) as error:
        raise InputError(f"{said} ({' '.join(str(error).split())})") from error
    if {column.shape for column in columns.values()} != {columns["time"].shape} or columns["time"].ndim != 1:
        shapes = ", ".join(f"{name} {list(c.shape)}" for name, c in columns.items())
        raise InputError(f"schedule: {path} must have columns of one length, got {shapes}")
    schedule = Schedule(**columns, workers=int(workers), end=float(end), stalled=bool(stalled))
    for rule, good in _rules(schedule):
        if not good:
            raise InputError(f"{said} ({rule})")
    return schedule


def _array(archive: zipfile.ZipFile, name: str, kind: str) -> np.ndarray:
    """A member of an .npz archive, of exactly this type."""
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > reading.LARGEST:
        raise ValueError(f"{name} takes {info.file_size} bytes")
    found = reading.array(archive.read(info))
    if found.dtype != np.dtype(kind):
        raise ValueError(f"{name} must be {np.dtype(kind)}, got {found.dtype}")
    return found


def _rules(s: Schedule) -> Iterator[tuple[str, bool]]:
    """What every schedule obeys, whatever its clock: (rule, whether it does)."""

    def within(name: str, values: np.ndarray, most: float) -> tuple[str, bool]:
        return f"{name} must lie in 0..{most:.0f}", bool(((values >= 0) & (values <= most)).all())

    yield within("workers", np.array(s.workers - 1), WORKERS - 1)
    yield within("worker", s.worker, s.workers - 1)
    yield within("fate", s.fate, PENDING)
    yield within("batch", s.batch, np.inf)
    yield within("write_version", s.write_version, len(s.time))  # an update is made of one row at least
    yield (
        "no read_version is above its write_version or negative",
        bool(((s.read_version >= 0) & (s.staleness >= 0)).all()),
    )
    for name in ("weight", "bytes", "pulled"):
        yield (
            f"{name} must be finite and not negative",
            bool(np.isfinite(x := getattr(s, name)).all() and (x >= 0).all()),
        )
    yield "end must be finite and not negative", 0 <= s.end < np.inf
    order = np.stack([s.pulled, s.begin, s.done, s.sends, s.time])
    yield (
        "pulled, begin, done, sends and time must be finite and in this order",
        bool(np.isfinite(order).all() and (np.diff(order, axis=0) >= 0).all()),
    )
