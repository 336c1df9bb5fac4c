"""How fast workers compute, and when they fail: laws of compute times, profiles, bursts, crashes, traces. Seconds; host.

The time of worker i's m-th computation is shiftᵢ + scaleᵢ × draw(seed, i, m), the draw of mean 1 s: a function of (seed,
i, m) alone, through one uniform number that all laws share, so that methods and laws can be compared on the same luck.
In a slow burst it takes so many times as long. A new law or profile is one function here.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from dopt import network, reading
from dopt.network import REDUCTIONS, Network, numbers, refuse, table
from dopt.registry import Entry, Registry, check_size, coerce, did_you_mean
from dopt.types import InputError

LAWS = Registry("cluster")
PROFILES = Registry("cluster.profile")
COLUMNS = ("worker", "read_version", "write_version", "seconds")
QUICKEST = 1e-30  # mean seconds of a computation: what is done in a second stays a number
BURSTS = 0x62757273 << 32  # a stream of its own
TRACE, LINKS = 2**27, 2**20  # bytes that a file of them may have
WHOLE = re.compile(r"\s*-?[0-9]{1,18}\s*")  # int() alone takes 1_0, and digits of other scripts


# -- laws: quantile functions of mean 1, finite on all of [0, 1) ------------------------------------------------------


@LAWS.register(source="deterministic compute times")
def constant(u: np.ndarray) -> np.ndarray:
    """Every computation takes the same time."""
    return np.ones_like(u)


@LAWS.register(source="memoryless compute times, as in Dutta et al. 2018, 1803.01113")
def exponential(u: np.ndarray) -> np.ndarray:
    """Memoryless: -log(1 - u)."""
    return -np.log1p(-u)


@LAWS.register(source="Dutta et al. 2018, 1803.01113")
def shifted_exponential(u: np.ndarray, *, minimum: float = 0.5) -> np.ndarray:
    """Never below `minimum`, the rest memoryless: minimum + (1 - minimum) Exp."""
    if not 0 <= minimum < 1:
        raise InputError(f"cluster.minimum: must lie in [0, 1), part of the mean of 1 s, got {minimum}; 0.5 is usual")
    return minimum + (1 - minimum) * exponential(u)


@LAWS.register(source="many small causes that multiply; long tails as measured in Chen et al. 2016, 1604.00981")
def lognormal(u: np.ndarray, *, sigma: float = 0.5) -> np.ndarray:
    """exp(σZ - σ²/2), Z standard normal."""
    # beyond, the mean comes from draws so rare that no run meets one
    if not 0 < sigma <= 5:
        raise InputError(f"cluster.sigma: must lie in (0, 5], got {sigma}; 0.5 is usual")
    return np.exp(sigma * special.ndtri(u) - sigma**2 / 2)


@LAWS.register(source="Ali et al. 2000, task execution times; for training Hakimi et al. 2019, 1907.11612")
def gamma(u: np.ndarray, *, shape: float = 2.0) -> np.ndarray:
    """Gamma of coefficient of variation 1/√shape: for whole shapes, the mean of so many exponential times."""
    if not 0.01 <= shape < np.inf:
        raise InputError(f"cluster.shape: must be finite and at least 0.01, got {shape}; 2 is usual")
    return special.gammaincinv(shape, u) / shape


@LAWS.register(source="Dutta et al. 2018, 1803.01113")
def pareto(u: np.ndarray, *, shape: float = 2.5) -> np.ndarray:
    """Heavy tails: P(draw > t) = (t_min/t)^shape, t_min = 1 - 1/shape."""
    if not 1 < shape < np.inf:
        raise InputError(f"cluster.shape: a Pareto law has a finite mean only above 1, got {shape}; 2.5 is usual")
    return (1 - 1 / shape) * (1 - u) ** (-1 / shape)


@LAWS.register(source="Tyurin-Richtárik 2023, 2305.12387")
def half_normal(u: np.ndarray) -> np.ndarray:
    """|Z| of a normal Z, of mean 1."""
    return np.sqrt(np.pi) * special.erfinv(u)


@LAWS.register(source="bounded jitter")
def uniform(u: np.ndarray, *, width: float = 0.5) -> np.ndarray:
    """Uniform on [1 - width, 1 + width]."""
    if not 0 <= width <= 1:
        raise InputError(f"cluster.width: must lie in [0, 1], got {width}; 0.5 is usual")
    return 1 + width * (2 * u - 1)


@LAWS.register(source="empirical law of what was measured: the seconds of the file, not of mean 1 s")
def trace(u: np.ndarray, seconds: np.ndarray, *, file: str) -> np.ndarray:
    """Each worker's own times, from a CSV of worker,read_version,write_version,seconds."""
    return np.sort(seconds)[(u * len(seconds)).astype(np.int64)]


# -- profiles: [workers] scale in seconds, or (scale, shift) ------------------------------------------------------------


@PROFILES.register(source="homogeneous machines")
def equal(workers: int) -> np.ndarray:
    """All workers alike."""
    return np.ones(workers)


@PROFILES.register(source="spread from 1 to 2")
def linear(workers: int) -> np.ndarray:
    """From 1 to 2 in even steps: 1 + i/(n-1)."""
    return np.linspace(1, 2, workers) if workers > 1 else np.ones(1)


@PROFILES.register(source="Tyurin-Richtárik 2023, 2305.12387")
def sqrt(workers: int) -> np.ndarray:
    """1 + √i for i = 1..n."""
    return 1 + np.sqrt(np.arange(1, workers + 1))


@PROFILES.register(source="Maranjyan, Tyurin, Richtárik 2025, 2501.16168")
def jittered_sqrt(workers: int) -> tuple[np.ndarray, np.ndarray]:
    """1 + √i that is certain, and draws of mean √(2(i+1)/π), i = 0..n-1: with half_normal, 1 + √i + |N(0, i+1)|."""
    i = np.arange(workers)
    return np.sqrt(2 * (i + 1) / np.pi), 1 + np.sqrt(i)


# -- the cluster ------------------------------------------------------------------------------------------------------


class Burst(NamedTuple):
    """Slow bursts: a two-state Markov chain over a worker's computations. Gilbert 1960, capacity of a burst-noise channel."""

    slowdown: float  # how many times as long a computation takes in a burst
    start: float  # probability that a computation begins a burst
    stop: float  # probability that a computation ends it

    @property
    def share(self) -> float:
        """Share of computations in bursts, in the long run."""
        return self.start / (self.start + self.stop) if self.start else 0.0


class Trace(NamedTuple):
    """Measured updates, in the order of their writes."""

    worker: np.ndarray  # [rows] int64
    read_version: np.ndarray  # [rows] int64: updates applied when the worker pulled
    write_version: np.ndarray  # [rows] int64: updates applied before this one, 0..rows-1
    seconds: np.ndarray  # [rows] float64: when it landed, ascending


class Cluster(NamedTuple):
    """n workers: how long they compute, when they fail, and the network between them."""

    law: str
    options: Mapping[str, Any]  # of the law
    scale: np.ndarray  # [workers] seconds
    shift: np.ndarray  # [workers] seconds
    seed: int
    burst: Burst | None
    down: np.ndarray  # [workers, 2] seconds from and until which it is down; inf: never, for good
    network: Network
    trace: Trace | None

    @property
    def workers(self) -> int:
        return len(self.scale)


def _shift(workers: int, *, shift: float | list = 0.0) -> np.ndarray:
    """[workers] seconds: of all, or a list."""
    seconds = np.zeros(workers) + table("cluster.shift", shift, workers, deepest=1)
    refuse("cluster.shift", seconds, np.isfinite(seconds) & (seconds >= 0), "must be finite and not negative")
    return seconds


def _straggler(workers: int, *, straggler: float = 1.0) -> np.ndarray:
    """[workers] how many times slower each is, on top of all else: the last one alone. Koloskova et al. 2022, 2206.08307."""
    if not 0 < straggler < np.inf:
        raise InputError(f"cluster.straggler: must be positive and finite, got {straggler}; 10 is usual")
    return np.append(np.ones(workers - 1), straggler)


def _burst(
    workers: int, *, burst_slowdown: float = 1.0, burst_start: float = 0.05, burst_stop: float = 0.2
) -> Burst | None:
    """None where bursts would change nothing."""
    if not 0 < burst_slowdown < np.inf:
        raise InputError(f"cluster.burst_slowdown: must be positive and finite, got {burst_slowdown}; 10 is usual")
    for name, value in (("burst_start", burst_start), ("burst_stop", burst_stop)):
        if not 0 <= value <= 1:
            raise InputError(f"cluster.{name}: must lie in [0, 1], got {value}")
    if burst_start + burst_stop > 1:  # one uniform number says both
        raise InputError(
            f"cluster.burst_stop: must be at most 1 - cluster.burst_start={burst_start}, got {burst_stop}; lower one of them"
        )
    return None if burst_slowdown == 1 else Burst(burst_slowdown, burst_start, burst_stop)


def _down(
    workers: int, *, crash: float | None = None, crash_workers: int = 1, restart: float | None = None
) -> np.ndarray:
    """[workers, 2]: the first `crash_workers` go down at `crash`, for `restart` seconds or for good."""
    for name, value in (("crash", crash), ("restart", restart)):
        if value is not None and not 0 <= value < np.inf:
            raise InputError(f"cluster.{name}: must be finite and not negative, got {value}; leave it out for never")
    if not 1 <= crash_workers <= workers:
        raise InputError(f"cluster.crash_workers: must lie in 1..workers={workers}, got {crash_workers}")
    down = np.full((workers, 2), np.inf)
    if crash is not None:
        down[:crash_workers] = crash, np.inf if restart is None else crash + restart
    return down


def _batch(workers: int, *, batch: int | None = None) -> int | None:
    """The batch whose gradient takes the mean time, others in proportion; None: any takes as long. The run scales by it."""
    return batch


# an option is a keyword-only parameter of the part that reads it
PARTS = [Entry("cluster", part, "", {}) for part in (_shift, _straggler, _burst, _down, network.make, _batch)]


def options(law: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a cluster, flat: its law's; `profile`, or a list `scale` (None: not given); and all others.

    `links`, a file of measured latency and bandwidth, is there only where it is given.

    Raises:
      InputError: an unknown law, profile, way to reduce or option, or one of the wrong type.
    """
    parts = [LAWS[law], *PARTS]
    _know(law, given, {"profile", "scale", "links"}.union(*(part.known for part in parts)))
    full: dict[str, Any] = {}
    if given.get("scale") is None:
        full["profile"] = PROFILES[coerce("cluster.profile", given.get("profile", "equal"), str)].name
    elif "profile" in given:
        raise InputError("cluster.profile: cluster.scale says it all; leave it out")
    else:
        full["scale"] = coerce("cluster.scale", given["scale"], list)
    if given.get("links") is not None:
        full["links"] = coerce("cluster.links", given["links"], str)
        said = [name for name in ("latency", "bandwidth") if given.get(name)]
        if said:
            raise InputError(f"cluster.{said[0]}: cluster.links says it; leave one of them out")
    for part in parts:
        full |= _read_by(part, given)
    full["reduce"] = REDUCTIONS[full["reduce"]].name
    found = {name: numbers(f"cluster.{name}", x) if isinstance(x, tuple) else x for name, x in full.items()}
    check_size("cluster.scale", found.get("scale"))
    return found


def _know(law: str, given: Mapping[str, Any], known: set[str]) -> None:
    for name in given:
        if name not in known:
            others = [other.name for other in LAWS.values() if name in other.known]
            have = "has" if len(others) == 1 else "have"
            advice = f"; {' and '.join(others)} {have} it" if others else did_you_mean(name, known)
            raise InputError(f"cluster.{name}: {law} has no such option{advice}")


def _read_by(part: Entry, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a part reads of all options, defaults filled in."""
    return part.options({name: value for name, value in given.items() if name in part.known}, "cluster")


def make(law: str, workers: int, seed: int, **given: Any) -> Cluster:
    """The cluster of a law and its options.

    Raises:
      InputError: no workers, a seed that is no key, what `options`, `read` and `network.make` refuse, lists of another
        length, a law without a mean of 1 s, a probability outside [0, 1], or a time that cannot be.
    """
    if workers < 1:
        raise InputError(f"workers: must be at least 1, got {workers}")
    if not 0 <= seed < 2**64:
        raise InputError(f"seed: must lie in [0, 2^64), got {seed}")
    full = options(law, given)
    own = _read_by(LAWS[law], full)
    told = full | (read_links(full["links"]) if "links" in full else {})
    shift, slower, burst, down, links, _ = (part.make(workers, **_read_by(part, told)) for part in PARTS)
    if "scale" in full:
        scale = table("cluster.scale", full["scale"], workers, deepest=1)
    else:
        scale = PROFILES[full["profile"]].make(workers)
        if isinstance(scale, tuple):
            scale, certain = scale
            shift = shift + certain
    refuse("cluster.scale", scale, np.isfinite(scale) & (scale > 0), "must be positive and finite")
    measured = read(own["file"], workers) if law == "trace" else None
    cluster = Cluster(law, own, slower * scale, slower * shift, seed, burst, down, links, measured)
    _draws(cluster, 0, np.zeros(1))  # a law checks its options where it draws
    mean = mean_times(cluster)
    refuse("cluster", mean, np.isfinite(mean) & (mean > 0), "mean seconds of a computation must be positive and finite")
    refuse("cluster", mean, mean >= QUICKEST, f"mean seconds of a computation must be at least {QUICKEST:g}")
    return cluster


# -- times ------------------------------------------------------------------------------------------------------------


def worker_times(cluster: Cluster, worker: int, count: int) -> np.ndarray:
    """[count] seconds of one worker's computations, as if it never failed; the first ones do not depend on `count`."""
    times = cluster.shift[worker] + cluster.scale[worker] * _draws(cluster, worker, _uniform(cluster, worker, count))
    if cluster.burst is None:
        return times
    slow = _slow(cluster.burst, _uniform(cluster, worker + BURSTS, count))
    return np.where(slow, cluster.burst.slowdown, 1.0) * times


def compute_times(cluster: Cluster, count: int) -> np.ndarray:
    """[workers, count] seconds; the first columns do not depend on `count`."""
    return np.stack([worker_times(cluster, i, count) for i in range(cluster.workers)])


def scaled(cluster: Cluster, factor: float) -> Cluster:
    """The cluster whose computations take `factor` times as long."""
    return cluster if factor == 1 else cluster._replace(scale=factor * cluster.scale, shift=factor * cluster.shift)


def mean_times(cluster: Cluster) -> np.ndarray:
    """[workers] mean seconds of a computation, in the long run."""
    draws = np.ones(cluster.workers)
    if cluster.trace is not None:
        draws = np.array([_measured(cluster.trace, i).mean() for i in range(cluster.workers)])
    burst = cluster.burst or Burst(1.0, 0.0, 1.0)
    return (1 + (burst.slowdown - 1) * burst.share) * (cluster.shift + cluster.scale * draws)


def _uniform(cluster: Cluster, stream: int, count: int) -> np.ndarray:
    # a stream of its own for each (seed, worker): no other worker's draws can move it
    return np.random.Generator(np.random.Philox(key=np.array([cluster.seed, stream], np.uint64))).random(count)


def _draws(cluster: Cluster, worker: int, u: np.ndarray) -> np.ndarray:
    measured = () if cluster.trace is None else (_measured(cluster.trace, worker),)
    return LAWS[cluster.law].make(u, *measured, **cluster.options)


def _slow(burst: Burst, u: np.ndarray) -> np.ndarray:
    """[count] bool: which computations lie in a burst; the chain is outside before the first."""
    begins, ends = u < burst.start, u >= 1 - burst.stop
    # the others leave the state as it is: look back to the last that did not
    last = np.maximum.accumulate(np.where(begins | ends, np.arange(len(u)), -1))
    return (last >= 0) & begins[last]


# -- traces -----------------------------------------------------------------------------------------------------------


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
        raise InputError(f"{name}, line {reader.line_num}: is no CSV ({error}){advice}") from error
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
        raise ValueError("a name stands twice in an object")
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


def _measured(measured: Trace, worker: int) -> np.ndarray:
    """[count] seconds of each of a worker's computations: from one of its writes to the next, the first from 0."""
    return np.diff(measured.seconds[measured.worker == worker], prepend=0)
