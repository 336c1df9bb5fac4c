"""A run's clock: what its method, its cluster and its graph say of when each step lands. Host, NumPy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache, lru_cache, reduce
from typing import Any, TypeGuard

import jax
import numpy as np

from dopt import cluster, code, draws, files, mixing, schedule, theory
from dopt.algorithms import traits
from dopt.algorithms.traits import AllReduce, Exchange, Neighbours
from dopt.config import Resolved, options_of
from dopt.config.exchanges import exchange_of
from dopt.facts.replays import Messages, Replay, replay
from dopt.facts.sizes import Bits, Sizes
from dopt.facts.wiring import links_of
from dopt.types import Coordination, InputError, Reduction

Timeline = schedule.Schedule | schedule.Barrier | schedule.Waves


def coordination_of(run: Resolved) -> Coordination:
    """What a run's method tells the clock, where it is driven by arrivals."""
    return traits.coordination_of(exchange_of(run))


def reduced_bytes(run: Resolved, how: Reduction, bits: tuple[int, ...]) -> tuple[float, float]:
    """(sent by a worker in the mean, by the server) when a run reduces; `bits`: of each message."""
    reduce = run.options.get("cluster.reduce", "ring")
    each = cluster.links.reduce_messages(reduce, run.workers, how.gathers, how.participants(run.workers))
    own, servers = (factor * sum(bits) / 8 for factor in each)
    return own, servers


def messages_of(run: Resolved, w: Any, sizes: Sizes) -> Messages:
    """What travels in a run. `w`: its mixing matrix, or None."""

    def sent(one: Exchange, bits: tuple[int, ...], steps: np.ndarray) -> dict[str, np.ndarray]:
        if isinstance(one, Neighbours):
            count, pair = one.mixings(steps), w if isinstance(w, tuple) else (w,)
            each = [mixing.messages(part, int(count[-1]), run.seed)[count] for part in pair]
            return {"bytes_sent": sum(m * b for m, b in zip(each, bits, strict=True)) / (8 * run.workers)}
        how = one.reduction if isinstance(one, AllReduce) else Reduction()
        (own, servers), count = reduced_bytes(run, how, bits), how.count(steps)
        return {"bytes_sent": count * own} | ({"server_bytes_sent": count * servers} if servers else {})

    def together(steps: np.ndarray) -> dict[str, np.ndarray]:
        each = [sent(one, bits, steps) for one, bits in zip(exchange_of(run), sizes.bits, strict=True)]
        names = dict.fromkeys(name for found in each for name in found)
        return {name: np.sum([found[name] for found in each if name in found], axis=0) for name in names}

    return Messages(run.workers, float(sizes.bytes), sizes.bits[0][0], together)


def _horizon_of(run: Resolved) -> dict[str, Any]:
    return {"steps": run.steps, "gradients": run.gradients, "seconds": run.seconds}


def served(run: Resolved, size: float) -> tuple[schedule.Schedule, schedule.Batches]:
    """A server's schedule and its replay."""
    horizon = tuple(_horizon_of(run).items())
    found: tuple[schedule.Schedule, schedule.Batches] = _arrivals(
        *_clock_of(run), coordination_of(run), horizon, size, standing(run)
    )
    return found


@lru_cache(maxsize=64)
def _arrivals(
    law: str,
    options: str,
    workers: int,
    seed: int,
    work: float,
    how: Coordination,
    horizon: Any,
    size: float,
    stands: tuple[str, ...],
) -> Any:
    """As `_served`: runs that differ in rate or method only share them. `stands`: what names and files stand for today."""
    line = schedule.arrivals(_machines(law, options, workers, seed, work), how, **dict(horizon), size=size)
    return line, schedule.batches(line)


def standing(run: Resolved) -> tuple[str, ...]:
    """What the names and files of a run's cluster stand for today."""
    named = ((cluster.LAWS, run.cluster), (cluster.PROFILES, run.options.get("cluster.profile")))
    makes = [known[name].make for known, name in named if isinstance(name, str) and name in known]
    paths = [run.options[name] for name in ("cluster.file", "cluster.links") if run.options.get(name)]
    return (*map(code.version, makes), *map(files.content, paths))


def alike(run: Resolved, size: int) -> Bits:
    """Messages of `size` bits, one in each exchange of a run."""
    return ((size,),) * len(exchange_of(run))


def timeline(run: Resolved, w: Any = None, bits: Bits | None = None, every: int = 1) -> Timeline:
    """When each step of a run lands: arrivals, the times of a barrier, or waves without any.

    Args:
      w: its mixing matrix, for methods that have one.
      bits: of messages, as `Sizes` has them; None: they have none.
      every: steps between two records.
    """
    exchange = exchange_of(run)
    events = traits.is_event_driven(exchange)
    bits = alike(run, 0) if bits is None else bits
    horizon, size = _horizon_of(run), sum(bits[0]) / 8
    if traits.has_server(exchange):
        return served(run, size)[0]
    n, computing = run.workers, traits.reduction_of(exchange).participants(run.workers)
    if run.cluster is None:
        return schedule.barrier(None, workers=n, computing=computing, **horizon)
    machines = machines_of(run)
    if w is not None and (events or run.delay == "cluster"):
        return _without_barriers(run, machines, links_of(run, w)(0), size, horizon, every)
    return schedule.barrier(machines, workers=n, computing=computing, **waiting(run, w, machines, bits), **horizon)


def waits_for_neighbours(one: Exchange) -> TypeGuard[Neighbours]:
    """Whether a worker goes on as soon as its neighbours are there; else it waits for all who reduce with it."""
    return isinstance(one, Neighbours)


def replayed(run: Resolved, w: Any, bits: Bits, every: int) -> Replay:
    """What the loop replays of a run's clock; arguments as of `timeline`."""
    line = timeline(run, w, bits, every)
    if not isinstance(line, schedule.Schedule):
        return replay(line)
    how = coordination_of(run)
    if how.pairs:
        return replay(line, partner=_partners(run, line, links_of(run, w)(0)), local_steps=how.local_steps)
    return replay(line, served(run, sum(bits[0]) / 8)[1], local_steps=how.local_steps)


def _partners(run: Resolved, line: schedule.Schedule, near: np.ndarray) -> np.ndarray:
    """[steps] int32: whom the worker of each update meets."""
    rows = schedule.batches(line).rows[:, 0]
    worker, number, met = line.worker[rows], line.batch[rows], np.zeros(len(rows), np.int32)
    for i in range(run.workers):
        own = np.flatnonzero(worker == i)
        met[own] = schedule.partners(run.seed, near, i, int(number[own].max(initial=-1)) + 1)[number[own]]
    return met


def every_of(run: Resolved, w: Any, bits: Bits) -> int:
    """Steps between two records of a run that is recorded by seconds."""
    assert run.record_seconds is not None
    # of one seed, so that runs that differ in it share a beat; a power of two, so that many others do
    line = replayed(dataclasses.replace(run, seed=0), w, bits, 1)
    return 1 << int(np.log2(max(1.0, run.record_seconds * line.length / line.end)))


def record_steps(every: int, length: int) -> np.ndarray:
    """Steps at which a run of `length` steps is recorded."""
    return np.unique(np.minimum(np.arange(0, length + every, every), length))


def waiting(run: Resolved, w: Any, machines: cluster.Cluster, bits: Bits) -> dict[str, Any]:
    """What a barrier is told: of each exchange in turn who waits for whom and what messages cost, and who rests."""

    def wait(one: Exchange, sizes: tuple[int, ...]) -> schedule.Wait:
        if w is not None and waits_for_neighbours(one):
            links = links_of(run, w)
            cost = None if machines.links.free else _cost(one, links, machines, sum(sizes) / 8)
            return schedule.Wait(_waits(one, links), cost)
        return _reducing(run, one.reduction if isinstance(one, AllReduce) else Reduction(), machines, sizes)

    exchange = exchange_of(run)
    first, *then = map(wait, exchange, bits)
    return {**first._asdict(), "then": tuple(then), "rests": _resting(run, traits.reduction_of(exchange))}


def _reducing(run: Resolved, how: Reduction, machines: cluster.Cluster, sizes: tuple[int, ...]) -> schedule.Wait:
    """All wait for all in the steps in which they reduce. `sizes`: bits of each message."""
    n = run.workers
    seconds = sum(cluster.links.reduce_time(machines.links, n, size / 8, how.gathers) for size in sizes)
    alone, nothing, all_of_it = np.eye(n, dtype=bool), np.zeros(n), np.full(n, seconds)

    def reduces(step: int) -> bool:
        return bool(how.count(step + 1) > how.count(step))

    def waits(step: int) -> np.ndarray:
        return np.ones((n, n), bool) if reduces(step) else alone

    def cost(step: int) -> np.ndarray:
        return all_of_it if reduces(step) else nothing

    return schedule.Wait(None if how.period == 1 else waits, None if machines.links.free else cost)


def _resting(run: Resolved, how: Reduction) -> Callable[[int], np.ndarray] | None:
    """Step -> [n] bool: who computes nothing in it; None: nobody ever rests."""
    n = run.workers
    if how.participation == 1:
        return None

    @cache
    def taking_part(number: int) -> np.ndarray:
        return np.asarray(_subset(run.seed, number, n, how.participants(n)))

    return lambda step: ~taking_part(int(how.count(step)))


_subset = jax.jit(draws.subset, static_argnums=(2, 3))


def telling(machines: cluster.Cluster, near: np.ndarray, size: float) -> Any:
    """(worker, count) -> [count] seconds in which it tells all neighbours; None where that takes no time."""
    takes = cluster.links.gossip_times(machines.links, near, size)
    return None if machines.links.free else lambda worker, count: np.full(count, takes[worker])


def _without_barriers(
    run: Resolved, machines: cluster.Cluster, near: np.ndarray, size: float, horizon: dict[str, Any], every: int
) -> Timeline:
    """Gossip in pairs, or with the last models of all neighbours. `near`: [n, n] bool, [i, j]: i hears j."""
    if run.delay == "cluster":
        sending = telling(machines, near, size)
        return schedule.unsynchronised(machines, near, every=every, **horizon, sending=sending)
    alone = np.flatnonzero(~(near & ~np.eye(run.workers, dtype=bool)).any(1))
    if len(alone):
        raise InputError(f"topology: worker {alone[0]} has no neighbour to meet; use a graph without isolated nodes")

    def meeting(worker: int, count: int) -> np.ndarray:
        who = schedule.partners(run.seed, near, worker, count)
        return np.broadcast_to(cluster.links.pair_time(machines.links, worker, who, size), count)

    return schedule.arrivals(machines, coordination_of(run), **horizon, size=2 * size, sending=meeting)


def _clock_of(run: Resolved) -> tuple[str, str, int, int, float]:
    return str(run.cluster), json.dumps(options_of(run, "cluster")), run.workers, run.seed, work_of(run)


def work_of(run: Resolved) -> float:
    """Seconds that a computation takes on a worker's devices, for each second that it would take on one device.

    As if all the work were split evenly and what the devices tell each other took no time.
    """
    options, batch = options_of(run, "problem"), run.options.get("cluster.batch")
    samples: float = 1.0 if batch is None else (run.batch_size or batch) / batch
    parts: int = options.get("parts", 1)
    if options.get("layout") == "layers":
        return samples / theory.pipeline_speedup(parts, options["micro_batches"])
    return samples / parts


def _cost(
    one: Neighbours, links: Callable[[int], np.ndarray], machines: cluster.Cluster, size: float
) -> Callable[[int], np.ndarray]:
    """Step -> [n] seconds that its messages take each worker, through all the rounds of that step."""

    @cache
    def of_links(content: bytes) -> np.ndarray:
        near = np.frombuffer(content, bool).reshape(machines.workers, -1)
        return cluster.links.gossip_times(machines.links, near, size)

    def cost(step: int) -> np.ndarray:
        rounds = range(one.mixings(step), one.mixings(step + 1))
        return sum((of_links(links(k).tobytes()) for k in rounds), np.zeros(machines.workers))

    return cost


def _waits(one: Neighbours, links: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
    """Step -> [n, n] bool: for whom each worker waits, through all the rounds of that step."""
    oneself = np.eye(len(links(0)), dtype=bool)

    def waits(step: int) -> np.ndarray:
        rounds = [links(k) | oneself for k in range(one.mixings(step), one.mixings(step + 1))]
        return reduce(lambda found, after: after @ found, rounds) if rounds else oneself

    return waits


def _machines(law: str, options: str, workers: int, seed: int, work: float) -> cluster.Cluster:
    return cluster.scaled(cluster.make(law, workers, seed, **json.loads(options)), work)


def machines_of(run: Resolved) -> cluster.Cluster:
    """The cluster of a run."""
    return _machines(*_clock_of(run))
