"""What was measured elsewhere, read from files: a trace of updates, or the latency and bandwidth of a link."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dopt import reading
from dopt.registry import check_size
from dopt.types import InputError

COLUMNS = ("worker", "read_version", "write_version", "seconds")
TRACE, LINKS = 2**27, 2**20  # bytes that a file of them may have
WHOLE = re.compile(r"\s*-?[0-9]{1,18}\s*")  # int() alone takes 1_0, and digits of other scripts


class Trace(NamedTuple):
    """Measured updates, in the order of their writes."""

    worker: np.ndarray  # [rows] int64
    read_version: np.ndarray  # [rows] int64: updates applied when the worker pulled
    write_version: np.ndarray  # [rows] int64: updates applied before this one, 0..rows-1
    seconds: np.ndarray  # [rows] float64: when it landed, ascending


def read(path: str | Path, workers: int) -> Trace:
    """Measured updates from a CSV with the columns worker, read_version, write_version, seconds; others are passed over.

    A version is the number of updates before it: write versions are 0..rows-1 once each, in any order of the lines.

    Raises:
      InputError: the file is missing or no such table, or a line of it cannot be.
    """
    name, advice = f"cluster.file: {str(path)!r}", f"; give a CSV of {','.join(COLUMNS)}"
    rows: list[tuple[int, int, int, float]] = []
    lines: list[int] = []  # of each row, in the file
    reader = csv.reader(io.StringIO(reading.text("cluster.file", path, TRACE, advice), newline=""))
    try:
        header = [column.strip() for column in next(reader, [])]
        for column in COLUMNS:
            if header.count(column) != 1:
                many = f"has column {column} twice" if column in header else f"has no column {column}"
                raise InputError(f"{name} {many}; its first line must be {','.join(COLUMNS)}")
        places = [header.index(column) for column in COLUMNS]
        for cells in filter(None, reader):
            rows.append(_row(f"{name}, line {reader.line_num}", cells, places, workers))
            lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{name}, line {reader.line_num}: is not CSV ({error}){advice}") from error
    if not rows:
        raise InputError(f"{name} has no row below its header; give one for each update")
    order = _order(name, [row[2] for row in rows], lines)
    worker, reads, writes, seconds = (np.array(column)[order] for column in zip(*rows, strict=True))
    fall = np.flatnonzero(np.diff(seconds) < 0) + 1
    if fall.size:
        raise InputError(
            f"{name}, line {lines[order[fall[0]]]}: seconds must not fall from one write_version to the next, got {seconds[fall[0]]} after {seconds[fall[0] - 1]}"
        )
    missing = np.flatnonzero(np.bincount(worker, minlength=workers) == 0)
    if missing.size:
        raise InputError(f"{name} has no row of worker {missing[0]}; give some for each of workers={workers}")
    return Trace(worker, reads, writes, seconds)


def read_links(path: str | Path) -> dict[str, float | None]:
    """`latency` and `bandwidth` of a link from a JSON file, as `dopt doctor --collectives` writes it; null is infinite.

    Raises:
      InputError: the file is missing or no such table, or a number of it cannot be.
    """
    name, advice = f"cluster.links: {str(path)!r}", "; `dopt doctor --collectives` writes one"
    text = reading.text("cluster.links", path, LINKS, advice)
    try:
        # a whole number may have more digits than a float holds: it is infinite then, and refused as such
        found = json.loads(text, parse_int=float, object_pairs_hook=_named_once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is no JSON ({error}){advice}") from error
    if not isinstance(found, dict) or "latency" not in found or "bandwidth" not in found:
        raise InputError(f"{name} must be a JSON object with latency and bandwidth{advice}")
    latency, bandwidth = found["latency"], found["bandwidth"]
    if not isinstance(latency, float) or not 0 <= latency < np.inf:
        raise InputError(f"{name}: latency must be finite seconds and not negative, got {latency!r:.40}")
    if bandwidth is not None and not (isinstance(bandwidth, float) and 0 < bandwidth < np.inf):
        raise InputError(f"{name}: bandwidth must be positive bytes per second, or null, got {bandwidth!r:.40}")
    for key, value in (("latency", latency), ("bandwidth", bandwidth)):
        check_size(f"{name}: {key}", value)
    return {"latency": latency, "bandwidth": bandwidth}


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a name twice")
    return found


def _row(where: str, cells: list[str], places: list[int], workers: int) -> tuple[int, int, int, float]:
    """A line's numbers, in the order of `COLUMNS`."""
    try:
        whole, real = [cells[place] for place in places[:3]], cells[places[3]]
        if "_" in real or not all(map(WHOLE.fullmatch, whole)):
            raise ValueError
        worker, reads, writes = map(int, whole)
        seconds = float(real)
    except (ValueError, IndexError):
        raise InputError(f"{where}: must be three whole numbers and seconds, got {','.join(cells)!r}") from None
    if not 0 <= worker < workers:
        raise InputError(f"{where}: worker must lie in 0..{workers - 1} (workers={workers}), got {worker}")
    if not 0 <= reads <= writes:
        raise InputError(
            f"{where}: must read a version before it writes, got read_version {reads}, write_version {writes}"
        )
    if not 0 <= seconds < np.inf:
        raise InputError(f"{where}: seconds must be finite and not negative, got {seconds}")
    check_size(f"{where}: seconds", seconds)
    return worker, reads, writes, seconds


def _order(name: str, writes: list[int], lines: list[int]) -> np.ndarray:
    """[rows] the place of each write version."""
    order = np.full(len(writes), -1)
    for place, write in enumerate(writes):
        if write >= len(writes):
            raise InputError(
                f"{name}, line {lines[place]}: write versions of {len(writes)} rows must be 0..{len(writes) - 1} once each, got {write}"
            )
        if order[write] >= 0:
            raise InputError(
                f"{name}, line {lines[place]}: write versions must come once each, got {write} as in line {lines[order[write]]}"
            )
        order[write] = place
    return order


def times_of(measured: Trace, worker: int) -> np.ndarray:
    """[count] seconds of each of a worker's computations: from one of its writes to the next, the first from 0."""
    return np.diff(measured.seconds[measured.worker == worker], prepend=0)
