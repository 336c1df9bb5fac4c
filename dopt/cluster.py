"""How fast workers compute: laws of compute times, and speed profiles. Seconds; host, NumPy.

The time of worker i's m-th computation is shiftᵢ + scaleᵢ × draw(seed, i, m), the draw of mean 1 s: a function of (seed,
i, m) alone, through one uniform number that all laws share, so that methods and laws can be compared on the same luck.
A new law or profile is one function here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dopt.registry import Registry, coerce
from dopt.types import InputError

LAWS = Registry("cluster")
PROFILES = Registry("cluster.profile")


@LAWS.register(source="deterministic compute times")
def constant(u: np.ndarray) -> np.ndarray:
    """Every computation takes the same time."""
    return np.ones_like(u)


@LAWS.register(source="memoryless compute times, as in Dutta et al. 2018, 1803.01113")
def exponential(u: np.ndarray) -> np.ndarray:
    """Memoryless: -log(1 - u)."""
    return -np.log1p(-u)


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


@PROFILES.register(source="one straggler, as in Koloskova et al. 2022, 2206.08307")
def straggler(workers: int, *, slowdown: float = 10.0) -> np.ndarray:
    """The last worker is `slowdown` times slower than the others."""
    if not 0 < slowdown < np.inf:
        raise InputError(f"cluster.slowdown: must be positive and finite, got {slowdown}; 10 is usual")
    return np.append(np.ones(workers - 1), slowdown)


class Cluster(NamedTuple):
    """n workers and how long they compute."""

    law: str
    scale: np.ndarray  # [workers] seconds
    shift: np.ndarray  # [workers] seconds
    seed: int

    @property
    def workers(self) -> int:
        return len(self.scale)


def options(law: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a cluster: `profile` and its own, or a list `scale` (None: not given); and `shift`, seconds for everyone.

    Raises:
      InputError: an unknown law, profile or option.
    """
    LAWS[law]
    rest = dict(given)
    shift = coerce("cluster.shift", rest.pop("shift", 0.0), float)
    scale = rest.pop("scale", None)
    if scale is not None:
        scale = tuple(coerce("cluster.scale", x, float) for x in coerce("cluster.scale", scale, list))
        if rest:
            raise InputError(f"cluster.{next(iter(rest))}: cluster.scale says it all; leave it out")
        return {"scale": scale, "shift": shift}
    profile = PROFILES[coerce("cluster.profile", rest.pop("profile", "equal"), str)]
    return {"profile": profile.name, **profile.options(rest, "cluster"), "shift": shift}


def make(law: str, workers: int, seed: int, **given: Any) -> Cluster:
    """The cluster of a law and its options.

    Raises:
      InputError: no workers, a scale that is not positive, a list of another length, a negative shift, or a seed that
        is no key.
    """
    if workers < 1:
        raise InputError(f"workers: must be at least 1, got {workers}")
    if not 0 <= seed < 2**64:
        raise InputError(f"seed: must lie in [0, 2^64), got {seed}")
    full = options(law, given)
    shift = full.pop("shift")
    if "scale" in full:
        scale = np.array(full["scale"], float)
        if scale.shape != (workers,):
            raise InputError(f"cluster.scale: must be one number for each of workers={workers}, got {scale.size}")
    else:
        scale = PROFILES[full.pop("profile")].make(workers, **full)
    bad = np.flatnonzero(~(np.isfinite(scale) & (scale > 0)))
    if bad.size:
        raise InputError(f"cluster.scale: must be positive and finite, got {scale[bad[0]]} for worker {bad[0]}")
    if not (np.isfinite(shift) and shift >= 0):
        raise InputError(f"cluster.shift: must be finite and not negative, got {shift}")
    return Cluster(law, scale, np.full(workers, shift), seed)


def worker_times(cluster: Cluster, worker: int, count: int) -> np.ndarray:
    """[count] seconds of one worker's computations; the first ones do not depend on `count`."""
    # a stream of its own for each (seed, worker): no other worker's draws can move it
    stream = np.random.Generator(np.random.Philox(key=np.array([cluster.seed, worker], np.uint64)))
    return cluster.shift[worker] + cluster.scale[worker] * LAWS[cluster.law].make(stream.random(count))


def compute_times(cluster: Cluster, count: int) -> np.ndarray:
    """[workers, count] seconds; the first columns do not depend on `count`."""
    return np.stack([worker_times(cluster, i, count) for i in range(cluster.workers)])
