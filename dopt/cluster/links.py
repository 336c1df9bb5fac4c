"""What messages cost: latencies and bandwidths of links, and the seconds of what methods exchange. Host, NumPy.

A message of B bytes takes ℓ + B/w over a link of latency ℓ (seconds) and bandwidth w (bytes per second). Both are one
number for all links; or one of each worker's own link, and between two workers the slower of both counts; or a matrix
[reader, sender]. A new way to reduce is one function here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dopt.registry import Registry, coerce
from dopt.types import InputError

Index = int | np.ndarray  # a worker, or several
REDUCTIONS = Registry("cluster.reduce")
SLOWEST = 1e-30  # bytes per second: what a message takes stays a number


class Links(NamedTuple):
    """The links between workers, and to a server."""

    latency: np.ndarray  # [], [workers] or [workers, workers]: seconds
    bandwidth: np.ndarray  # [], [workers] or [workers, workers]: bytes per second, inf where size does not matter
    server_bandwidth: float  # bytes per second of the server's port; inf: as the worker's link
    reduce: str  # how all-reduce goes: a name in REDUCTIONS
    parallel: bool  # whether a worker's links carry their messages at once, or one after another

    @property
    def free(self) -> bool:
        """Whether all messages take no time."""
        return not self.latency.any() and bool(np.isinf([*self.bandwidth.flat, self.server_bandwidth]).all())


def make(
    workers: int,
    *,
    latency: float | list = 0.0,
    bandwidth: float | list | None = None,
    server_bandwidth: float | None = None,
    reduce: str = "ring",
    parallel_links: bool = False,
) -> Links:
    """The links of n workers; None is infinite.

    Args:
      latency: seconds per message: one number for all links, one for each worker, or one for each pair [reader][sender].
      bandwidth: bytes per second, in the same forms; none: infinite.
      server_bandwidth: bytes per second of a server's port; none: infinite.
      reduce: how an all-reduce is done: ring, tree or server.
      parallel_links: a worker's links carry their messages at the same time, not one after another.

    Raises:
      InputError: lists of other lengths, a latency that is negative or infinite, a bandwidth that is not positive or
        below `SLOWEST`, or an unknown way to reduce.
    """
    seconds = _links(table("cluster.latency", latency, workers), oneself=0)
    refuse("cluster.latency", seconds, np.isfinite(seconds) & (seconds >= 0), "must be finite and not negative")
    rate = _links(table("cluster.bandwidth", _infinite(bandwidth), workers), oneself=np.inf)
    refuse("cluster.bandwidth", rate, rate > 0, "must be positive")
    refuse("cluster.bandwidth", rate, rate >= SLOWEST, f"must be at least {SLOWEST:g} bytes per second")
    port = np.array(_infinite(server_bandwidth), float)
    refuse("cluster.server_bandwidth", port, port > 0, "must be positive")
    refuse("cluster.server_bandwidth", port, port >= SLOWEST, f"must be at least {SLOWEST:g} bytes per second")
    return Links(seconds, rate, float(port), REDUCTIONS[reduce].name, parallel_links)


def numbers(name: str, value: object) -> Any:
    """Lists as tuples of floats, however deep; None stays."""
    if isinstance(value, list | tuple):
        return tuple(numbers(name, x) for x in value)
    return None if value is None else coerce(name, value, float)


def table(name: str, value: object, workers: int, deepest: int = 2) -> np.ndarray:
    """A number as [], a list as [workers], and lists of lists (up to which `deepest` may go) as [workers, workers].

    Raises:
      InputError: other lengths.
    """
    rule = f"must be one number for each of workers={workers}"
    if deepest == 2:
        rule = f"must be one number, {workers} (workers={workers}), or {workers} lists of {workers} ([reader][sender])"
    try:
        array = np.array(value, float)
    except ValueError:
        raise InputError(f"{name}: {rule}, got lists of unequal lengths") from None
    if array.shape not in ((), (workers,), (workers, workers))[: deepest + 1]:
        raise InputError(f"{name}: {rule}, got {' x '.join(map(str, array.shape))}")
    return array


def refuse(name: str, values: np.ndarray, good: np.ndarray, rule: str) -> None:
    """InputError of the first value that is not good."""
    for bad in np.argwhere(~good):
        where = ("", " for worker {}", " for reader {}, sender {}")[values.ndim].format(*bad)
        raise InputError(f"{name}: {rule}, got {values[tuple(bad)]}{where}")


def _infinite(value: object) -> Any:
    if isinstance(value, list | tuple):
        return [_infinite(x) for x in value]
    return np.inf if value is None else value


def _links(values: np.ndarray, oneself: float) -> np.ndarray:
    """What a worker sends to itself costs nothing, whatever the diagonal says."""
    if values.ndim == 2:
        np.fill_diagonal(values, oneself)
    return values


# -- one message ------------------------------------------------------------------------------------------------------


def pair_time(links: Links, reader: Index, sender: Index, size: float | np.ndarray) -> Any:
    """Seconds of a message of `size` bytes, ℓ_ij + B/w_ij, i the reader and j the sender: indices, or arrays of them."""
    latency = _of_links(links.latency, reader, sender, np.maximum)
    bandwidth = _of_links(links.bandwidth, reader, sender, np.minimum)
    return latency + size / bandwidth


def _of_links(values: np.ndarray, reader: Index, sender: Index, slower: Callable) -> Any:
    if values.ndim == 2:
        return values[reader, sender]
    if values.ndim == 1:
        return slower(values[reader], values[sender])
    return np.broadcast_to(values, np.shape(reader))[()]


def server_links(links: Links, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """(latency [n] seconds, [n] seconds per byte) between each worker and a server.

    A message goes at the speed of the worker's link or of the server's port, whichever is slower.

    Raises:
      InputError: links that are given per pair of workers.
    """
    for name, values in (("latency", links.latency), ("bandwidth", links.bandwidth)):
        if values.ndim == 2:
            raise InputError(
                f"cluster.{name}: a server has no place in a matrix of links, got {workers} x {workers}; give one number, or one for each worker"
            )
    bandwidth = np.minimum(links.bandwidth, links.server_bandwidth)
    return np.broadcast_to(links.latency, workers), np.broadcast_to(1 / bandwidth, workers)


# -- messages of all --------------------------------------------------------------------------------------------------


def gossip_times(links: Links, reads: np.ndarray, size: float) -> np.ndarray:
    """[n] seconds until each worker has received `size` bytes from each of its senders; 0 for those without.

    Serial links: Σⱼ (ℓ_ij + B/w_ij). Parallel links: the largest of them.

    Args:
      reads: [n, n] bool, [reader, sender]; the diagonal does not matter.
    """
    reader, sender = np.nonzero(reads & ~np.eye(len(reads), dtype=bool))
    done = np.zeros(len(reads))
    (np.maximum if links.parallel else np.add).at(done, reader, pair_time(links, reader, sender, size))
    return done


def reduce_time(links: Links, workers: int, size: float, gathers: bool = False) -> float:
    """Seconds of one all-reduce of `size` bytes, the way that the links say; none for one worker.

    Args:
      gathers: messages cannot be added on their way, and all reach everybody.
    """
    return float(REDUCTIONS[links.reduce].make(links, workers, size, gathers)) if workers > 1 else 0.0


def reduce_messages(
    reduce: str, workers: int, gathers: bool = False, participants: int | None = None
) -> tuple[float, float]:
    """(sent by a worker in the mean, by the server) in one all-reduce, in messages.

    Args:
      reduce: a name in REDUCTIONS.
      participants: how many workers are summed up; the result reaches all.
    """
    if workers == 1:
        return 0.0, 0.0
    return REDUCTIONS[reduce].traits["messages"](workers, gathers, workers if participants is None else participants)


def _ring_messages(n: int, gathers: bool, participants: int) -> tuple[float, float]:
    """Summed up along the participants, then handed on to all."""
    return (n - 1.0 if gathers else (participants + n - 2) / n), 0.0


def _tree_messages(n: int, gathers: bool, participants: int) -> tuple[float, float]:
    if not gathers:
        return (participants + n - 2) / n, 0.0
    return sum(int(np.sum(below)) for *_, below in _branches(n)) / n + n - 1.0, 0.0


def _server_messages(n: int, gathers: bool, participants: int) -> tuple[float, float]:
    return participants / n, float(n * n if gathers else n)


def _branches(workers: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(parents, children, how many workers a child stands for) in each round of a binomial tree, leaves first."""
    found = []
    for k in range((workers - 1).bit_length()):
        parent = np.arange(0, workers - 2**k, 2 ** (k + 1))
        child = parent + 2**k
        found.append((parent, child, np.minimum(2**k, workers - child)))
    return found


@REDUCTIONS.register(source="Patarasuk-Yuan 2009, bandwidth optimal all-reduce algorithms", messages=_ring_messages)
def ring(links: Links, workers: int, size: float, gathers: bool) -> float:
    """2(n-1)ℓ + 2(n-1)/n·B/w: 2(n-1) rounds in which each sends 1/n to the next; a round takes as long as its slowest link.

    Gathered: (n-1)(ℓ + B/w), each hands on what it got last.
    """
    i = np.arange(workers)
    rounds, part = (1, size) if gathers else (2, size / workers)
    return rounds * (workers - 1) * pair_time(links, (i + 1) % workers, i, part).max()


@REDUCTIONS.register(
    source="Thakur-Rabenseifner-Gropp 2005, optimization of collective communication in MPICH", messages=_tree_messages
)
def tree(links: Links, workers: int, size: float, gathers: bool) -> float:
    """2⌈log₂n⌉(ℓ + B/w): up a binomial tree and down again; a round takes as long as its slowest link.

    Gathered: what comes up from below grows, and all of it goes down.
    """
    total = 0.0
    for parent, child, below in _branches(workers):
        up, down = (size * below, size * workers) if gathers else (size, size)
        total += pair_time(links, parent, child, up).max() + pair_time(links, child, parent, down).max()
    return total


@REDUCTIONS.register(source="parameter server with one port, as in Li et al. 2014 (OSDI)", messages=_server_messages)
def server(links: Links, workers: int, size: float, gathers: bool) -> float:
    """2ℓ + 2nB/w: all send to one port and receive from it, one after another; of the latencies the largest counts.

    Gathered: 2ℓ + n(n+1)B/w, each receives what all have sent.
    """
    latency, pace = server_links(links, workers)
    return 2 * latency.max() + (1 + (workers if gathers else 1)) * size * pace.sum()
