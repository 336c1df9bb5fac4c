"""How fast workers compute, and when they fail: stragglers, bursts, crashes. Seconds; host.

The time of worker i's m-th computation is shiftᵢ + scaleᵢ × draw(seed, i, m), the draw of mean 1 s: a function of (seed,
i, m) alone. In a slow burst it takes so many times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dopt.cluster import links
from dopt.cluster.laws import LAWS, PROFILES
from dopt.cluster.links import REDUCTIONS, Links, numbers, refuse, table
from dopt.cluster.traces import Trace, read, read_links, times_of
from dopt.registry import Entry, check_size, coerce, did_you_mean
from dopt.types import InputError

QUICKEST = 1e-30  # mean seconds of a computation: what is done in a second stays a number
BURSTS = 0x62757273 << 32  # a stream of its own


class Burst(NamedTuple):
    """Slow bursts: a two-state Markov chain over a worker's computations. Gilbert 1960, capacity of a burst-noise channel."""

    slowdown: float  # how many times as long a computation takes in a burst
    start: float  # probability that a computation begins a burst
    stop: float  # probability that a computation ends it

    @property
    def share(self) -> float:
        """Share of computations in bursts, in the long run."""
        return self.start / (self.start + self.stop) if self.start else 0.0


class Cluster(NamedTuple):
    """n workers: how long they compute, when they fail, and the links between them."""

    law: str
    options: Mapping[str, object]  # of the law
    scale: np.ndarray  # [workers] seconds
    shift: np.ndarray  # [workers] seconds
    seed: int
    burst: Burst | None
    down: np.ndarray  # [workers, 2] seconds from and until which it is down; inf: never, for good
    links: Links
    trace: Trace | None

    @property
    def workers(self) -> int:
        return len(self.scale)


def _shift(workers: int, *, shift: float | list = 0.0) -> np.ndarray:
    """[workers] seconds: of all, or a list.

    Args:
      shift: seconds that are added to each computation; one number for all workers, or a list.
    """
    seconds = np.zeros(workers) + table("cluster.shift", shift, workers, deepest=1)
    refuse("cluster.shift", seconds, np.isfinite(seconds) & (seconds >= 0), "must be finite and not negative")
    return seconds


def _straggler(workers: int, *, straggler: float = 1.0) -> np.ndarray:
    """[workers] how many times slower each is, on top of all else: the last one alone. Koloskova et al. 2022, 2206.08307.

    Args:
      straggler: how many times as long the last worker's computations take.
    """
    if not 0 < straggler < np.inf:
        raise InputError(f"cluster.straggler: must be positive and finite, got {straggler}; 10 is usual")
    return np.append(np.ones(workers - 1), straggler)


def _burst(
    workers: int, *, burst_slowdown: float = 1.0, burst_start: float = 0.05, burst_stop: float = 0.2
) -> Burst | None:
    """None where bursts would change nothing.

    Args:
      burst_slowdown: how many times as long a computation takes in a slow burst.
      burst_start: probability that a computation begins a burst.
      burst_stop: probability that a computation ends it.
    """
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
    """[workers, 2]: from when and until when each is down.

    Args:
      crash: time at which workers crash, in seconds; none: never.
      crash_workers: how many workers crash; they are the first ones.
      restart: seconds from the crash until they are back; none: never.
    """
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
    """The batch whose gradient takes the mean time, others in proportion; None: any takes as long. The run scales by it.

    Args:
      batch: samples of a gradient that takes the mean time, others in proportion; none: all batches take equally long.
    """
    return batch


# an option is a keyword-only parameter of the part that reads it
PARTS: list[Entry[Mapping[str, Any]]] = [
    Entry("cluster", part, "", {}) for part in (_shift, _straggler, _burst, _down, links.make, _batch)
]


def options(law: str, given: Mapping[str, object]) -> dict[str, Any]:
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
        raise InputError("cluster.profile: cluster.scale gives all speeds; leave it out")
    else:
        full["scale"] = coerce("cluster.scale", given["scale"], list)
    if given.get("links") is not None:
        full["links"] = coerce("cluster.links", given["links"], str)
        said = [name for name in ("latency", "bandwidth") if given.get(name)]
        if said:
            raise InputError(f"cluster.{said[0]}: cluster.links gives it, too; leave one of them out")
    for part in parts:
        full |= _read_by(part, given)
    full["reduce"] = REDUCTIONS[full["reduce"]].name
    found = {name: numbers(f"cluster.{name}", x) if isinstance(x, tuple) else x for name, x in full.items()}
    check_size("cluster.scale", found.get("scale"))
    return found


def _know(law: str, given: Mapping[str, object], known: set[str]) -> None:
    for name in given:
        if name not in known:
            others = [other.name for other in LAWS.values() if name in other.known]
            have = "has" if len(others) == 1 else "have"
            advice = f"; {' and '.join(others)} {have} it" if others else did_you_mean(name, known)
            raise InputError(f"cluster.{name}: {law} has no such option{advice}")


def _read_by(part: Entry, given: Mapping[str, object]) -> dict[str, Any]:
    """What a part reads of all options, defaults filled in."""
    return part.options({name: value for name, value in given.items() if name in part.known}, "cluster")


def make(law: str, workers: int, seed: int, **given: object) -> Cluster:
    """The cluster of a law and its options.

    Raises:
      InputError: no workers, a seed that is no key, what `options`, `read` and `links.make` refuse, lists of another
        length, a law without a mean of 1 s, a probability outside [0, 1], or a time that cannot be.
    """
    if workers < 1:
        raise InputError(f"workers: must be at least 1, got {workers}")
    if not 0 <= seed < 2**64:
        raise InputError(f"seed: must lie in [0, 2^64), got {seed}")
    full = options(law, given)
    own = _read_by(LAWS[law], full)
    told = full | (read_links(full["links"]) if "links" in full else {})
    shift, slower, burst, down, between, _ = (part.make(workers, **_read_by(part, told)) for part in PARTS)
    if "scale" in full:
        scale = table("cluster.scale", full["scale"], workers, deepest=1)
    else:
        scale = PROFILES[full["profile"]].make(workers)
        if isinstance(scale, tuple):
            scale, certain = scale
            shift = shift + certain
    refuse("cluster.scale", scale, np.isfinite(scale) & (scale > 0), "must be positive and finite")
    measured = read(own["file"], workers) if law == "trace" else None
    cluster = Cluster(law, own, slower * scale, slower * shift, seed, burst, down, between, measured)
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
        draws = np.array([times_of(cluster.trace, i).mean() for i in range(cluster.workers)])
    burst = cluster.burst or Burst(1.0, 0.0, 1.0)
    return (1 + (burst.slowdown - 1) * burst.share) * (cluster.shift + cluster.scale * draws)


def _uniform(cluster: Cluster, stream: int, count: int) -> np.ndarray:
    # a stream of its own for each (seed, worker): no other worker's draws can move it
    return np.random.Generator(np.random.Philox(key=np.array([cluster.seed, stream], np.uint64))).random(count)


def _draws(cluster: Cluster, worker: int, u: np.ndarray) -> np.ndarray:
    measured = () if cluster.trace is None else (times_of(cluster.trace, worker),)
    return LAWS[cluster.law].make(u, *measured, **cluster.options)


def _slow(burst: Burst, u: np.ndarray) -> np.ndarray:
    """[count] bool: which computations lie in a burst; the chain is outside before the first."""
    begins, ends = u < burst.start, u >= 1 - burst.stop
    # the others leave the state as it is: look back to the last that did not
    last = np.maximum.accumulate(np.where(begins | ends, np.arange(len(u)), -1))
    return (last >= 0) & begins[last]
