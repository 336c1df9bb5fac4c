"""Runs that share one compilation: what is alike in all of them, and the most that any of them needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from dopt import flags, memory
from dopt.algorithms.traits import has_server, is_event_driven, is_peer_to_peer
from dopt.config import Resolved, averages
from dopt.config.exchanges import exchange_of, traits_of
from dopt.devices import executors
from dopt.devices import memory as devices_memory
from dopt.engine.program import Program
from dopt.engine.segments import LONGEST, Call, calls, laid
from dopt.facts import Facts, clock, facts_of, shards
from dopt.facts import problem as of_problem
from dopt.facts.replays import Room
from dopt.types import Devices, InputError, Problem, Tree

# of a segment: multiplications of a few seconds at most, and bytes drawn ahead, by platform: in between the host may look
WORK, DRAWN = {"cpu": 2**31}, {"cpu": 2**26}
WORK_ELSEWHERE, DRAWN_ELSEWHERE = 2**36, 2**29
SHORT = 1024  # steps of a run whose last stretch costs less filled up than as a program of its own


@dataclass(frozen=True, eq=False)
class Group:
    """Runs with equal keys. What they stand for is in `facts`; what is here says of which shape the program is.

    Attributes:
      longest_run: steps of the longest run.
      ragged: whether runs end before the last call does, of which each step asks.
      kept: models that a replay keeps.
      gradients: of an update.
      loop: (iterations between two records, iterations in all) of the longest run: steps, or waves.
      span: iterations that all calls make together.
    """

    facts: Facts
    devices: tuple[Any, ...]
    longest_run: int
    ragged: bool
    kept: int
    gradients: int
    loop: tuple[int, int]
    span: int
    program: Program

    @property
    def first(self) -> Resolved:
        """A run whose static fields all have."""
        return self.facts.first

    @property
    def events(self) -> bool:
        """Whether arrivals drive it, so that there is no axis of workers."""
        return self.program.events

    @property
    def parts(self) -> int:
        """Devices over which a model is laid."""
        return self.facts.parts

    @property
    def spread(self) -> int:
        """Devices over which the runs of a slab are split; the other executors split workers."""
        return len(self.devices) if self.first.executor == "vmap" else 1

    @property
    def models(self) -> int:
        """Old and new models that a run keeps (of each worker, where there is no server)."""
        return _models(self.facts, self.kept)

    @cached_property
    def room(self) -> Room:
        """The shapes of what runs replay."""
        weighs = self.program.weighs == "arrivals"
        return Room(
            self.loop[0],
            self.span,
            self.gradients,
            self.facts.dtype,
            shards.shares(self.facts.problem) if weighs else None,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """What devices do meanwhile is in the runs' precision, and one line where they have no room for it."""
        with devices_memory.room(), flags.fixed(self.facts.dtype == np.float64):
            yield

    def calls(self, width: int, most: int | None = None, after: int = 0) -> tuple[Call, ...]:
        """The calls of the program at this width.

        Args:
          most: records of a call, where somebody wants to look more often.
          after: iterations after which one of them ends, where somebody wants to start there; 0: wherever.
        """
        (every, _), run, platform = self.loop, self.first, self.devices[0].platform
        together = self.gradients * self.program.local_steps
        samples = run.batch_size or int(shards.counts(self.facts.problem).max())
        work = samples * sum(int(np.prod(x.shape)) for x in jax.tree.leaves(self.facts.model))
        drawn = 4 * ((run.batch_size or 0) + run.workers * (self.facts.staleness == "edge"))
        computing = width * (together if self.events else run.workers)
        longest = max(1, LONGEST // together)
        steps = min(
            longest,
            WORK.get(platform, WORK_ELSEWHERE) // max(1, computing * work),
            DRAWN.get(platform, DRAWN_ELSEWHERE) // max(1, computing * drawn),
        )
        each = most or max(1, steps // every)
        parts = (calls(every, part, longest, each) for part in (after, self.span - after) if part)
        return laid([call.segment for part in parts for call in part], every)

    def record_steps(self, length: int) -> np.ndarray:
        """Steps at which a run of `length` steps is recorded."""
        return clock.record_steps(self.facts.every, length)


def group_of(
    runs: Sequence[Resolved],
    *,
    problem: Problem | None = None,
    graph: Any = None,
    start: Tree = None,
    devices: Devices | None = None,
) -> Group:
    """The group of runs with equal keys; every check is made, and nothing is compiled.

    Args:
      runs: all runs of the group: the longest buffer and the longest horizon among them set the shapes.
      problem, graph, start: what stands in for fields, as for `dopt.run`.
      devices: where to run; one, or as the executor needs.

    Raises:
      InputError: something does not fit.
    """
    return grouped(facts_of(runs, problem=problem, graph=graph, start=start), devices)


def grouped(facts: Facts, devices: Devices | None = None) -> Group:
    """The group of runs whose facts are known."""
    run, replays = facts.first, facts.replays
    chosen = _devices(run, facts.parts, devices)
    events = is_event_driven(exchange_of(run))
    executors.check(run.executor, run.workers, chosen, events, run.algorithm, parts=facts.parts)
    lengths = {replay.length for replay in replays}
    kept, gradients = (max(getattr(replay, name) for replay in replays) for name in ("kept", "gradients"))
    _check_room(facts, chosen, kept)
    longest = max(lengths)
    records = len(clock.record_steps(facts.every, longest))
    waves = max((replay.waves or 0 for replay in replays), default=0)
    loop = (waves, waves * (records - 1)) if waves else (facts.every, longest)
    local_steps = clock.coordination_of(run).local_steps if events else 1
    span = _span(loop, len(lengths) > 1)
    ragged = len(lengths) > 1 or span > loop[1]
    program = _program(facts, loop[0], records, ragged, kept, local_steps)
    return Group(facts, chosen, longest, ragged, kept, gradients, loop, span, program)


def _models(facts: Facts, kept: int) -> int:
    events = is_event_driven(exchange_of(facts.first))
    return kept if events and not facts.building.delayed else facts.building.slots


def _devices(run: Resolved, parts: int, devices: Devices | None) -> tuple[Any, ...]:
    if run.executor == "vmap":
        return tuple(devices or jax.local_devices()[:1])
    return tuple(devices or jax.devices())[: run.workers * (parts if run.executor == "mesh" else 1)]


def _check_room(facts: Facts, devices: Devices, kept: int) -> None:
    """Refuse old models that the devices have no room for, before they are made; the compiler counts the rest."""
    free, run, models = devices_memory.device_memory(devices[0]), facts.first, _models(facts, kept)
    apart = 1 if devices[0].platform in executors.VIRTUAL else len(devices)
    holders = 1 if has_server(exchange_of(run)) else run.workers
    needed = holders * models * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(facts.model))
    if free is not None and needed > free * apart:
        what = f"{models} models{f' for each of {holders} workers' * (holders > 1)}"
        raise InputError(
            f"workers: {run.algorithm} keeps {what}, {memory.size(needed)}; there is room for {memory.size(free * apart)}; use fewer workers, a smaller model or a shorter delay"
        )


def _span(loop: tuple[int, int], differ: bool) -> int:
    """Iterations that all calls make together.

    A last stretch that is shorter is filled up with steps that change nothing where these are few, and where they cost
    less than a second program does; in runs that `differ` in length each step is asked anyway whether it counts.
    """
    every, total = loop
    whole = -(-total // every) * every
    return whole if 4 * (whole - total) <= total and (differ or total <= SHORT) else total


def _program(facts: Facts, every: int, records: int, ragged: bool, kept: int, local_steps: int) -> Program:
    run, traits = facts.first, traits_of(facts.first)
    return Program(
        problem=facts.problem,
        workers=run.workers,
        build=facts.building,
        dtype=facts.dtype,
        batch_size=run.batch_size,
        metrics=of_problem.recorded(run, facts.problem),
        registered=of_problem.registered(run, facts.problem),
        records=records,
        every=every,
        staleness=facts.staleness,
        ragged=ragged,
        kept=kept,
        events=is_event_driven(exchange_of(run)),
        local_steps=local_steps,
        is_peer_to_peer=is_peer_to_peer(exchange_of(run)),
        is_sharded=traits.assemble is not None,
        center=traits.center,
        weighs=of_problem.weighs(run, facts.problem),
        average=averages(run.optimizer),
    )
