"""A group's programs at one width, compiled: `begin` makes a slab's first carry, and calls take it from segment to segment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from dopt import flags
from dopt.devices import executors, hosts, memory
from dopt.devices.axes import COMMON, PER_RUN, PER_RUN_AND_WORKER, PER_WORKER, state_axes
from dopt.engine import loop
from dopt.engine.carry import Carry
from dopt.engine.group import Group
from dopt.engine.pack import pack
from dopt.engine.segments import Call, Segment
from dopt.facts.inputs import Data, Inputs
from dopt.types import AXIS, Tree


class Lowered(NamedTuple):
    """A group's programs at one width, as functions that lower them; called, as all tracing, under `flags.fixed`."""

    begin: Callable[[], Any]
    replay: Callable[[Segment], Any]
    retrace: Callable[[], Any]


class Compiled(NamedTuple):
    """A group's programs at one width."""

    group: Group
    width: int
    calls: tuple[Call, ...]  # from start to end
    begin: Any
    programs: Mapping[Segment, Any]
    retrace: Callable[[], Any]  # the program that goes step by step, compiled when it is first asked for
    data: Data  # on the devices, once
    test: Tree

    @property
    def go(self) -> Any:
        """The program of most calls."""
        return self.programs[self.calls[0].segment]

    @property
    def memory(self) -> int | None:
        """Bytes one slab needs on a device, by the compiler's analysis."""
        each = [memory.program_memory(program) for program in self.programs.values() or (self.begin,)]
        return max((size for size in each if size is not None), default=None)

    @property
    def _more(self) -> int:
        """Bytes that one slab takes on a device beside the data, which are there."""
        here = sum(leaf.nbytes for leaf in jax.tree.leaves((self.data, self.test)) if isinstance(leaf, jax.Array))
        return max(0, (self.memory or 0) - here)

    def start(self, inputs: Inputs) -> Carry:
        """The slab before its first step, with the record of step 0."""
        memory.check_room(self._more, self.group.devices[0])
        given = inputs, self.group.facts.start, _numbers(self.group)
        if hosts.several():
            given = hosts.put(given, self.begin.input_shardings[0][:3])
        carry: Carry = self.begin(*given, self.data, self.test)
        return carry

    def placed(self, inputs: Inputs) -> Inputs:
        """A slab's values on an accelerator, so that calls need not copy them there again."""
        on_cpu = self.group.devices[0].platform == "cpu"
        if on_cpu or self.group.first.executor == "pmap":  # which takes its arguments apart by itself
            return inputs
        on: Inputs = hosts.put(inputs, self.go.input_shardings[0][1])
        return on

    def after(self, carry: Carry, inputs: Inputs, call: Call) -> Carry:
        """The slab after a call; `carry` is used up."""
        given = carry, inputs, self.data, self.test, np.int32(call.start), np.int32(call.slot)
        new: Carry = self.programs[call.segment](*given)
        return new


def compile(group: Group, width: int, calls: tuple[Call, ...] | None = None) -> Compiled:
    """The programs for slabs of `width` runs, compiled for the group's devices.

    Args:
      calls: how the run is cut; None: as the group does at this width.
    """
    facts = group.facts
    calls = group.calls(width) if calls is None else calls
    _ = facts.optimum  # where it cannot be found, nothing is compiled
    with memory.room(), flags.fixed(facts.dtype == np.float64):
        fixed = facts.data, facts.test
        lowered = lower(group, width)
        begin = lowered.begin().compile()
        programs = {segment: lowered.replay(segment).compile() for segment in dict.fromkeys(c.segment for c in calls)}
        if group.first.executor != "pmap":  # which takes its arguments apart by itself
            fixed = hosts.put(
                fixed, _read_by(begin.input_shardings[0][3:5], *(p.input_shardings[0][2:4] for p in programs.values()))
            )
    return Compiled(group, width, calls, begin, programs, cache(lambda: lowered.retrace().compile()), *fixed)


def rehearse(group: Group, width: int) -> None:
    """Lower the programs, and forget them: what JAX has imported and traced for them it has ready when they are compiled."""
    with memory.room(), flags.fixed(group.facts.dtype == np.float64):
        lowered = lower(group, width)
        lowered.begin()
        for segment in {call.segment for call in group.calls(width)}:
            lowered.replay(segment)


def _read_by(first: Tree, *others: Tree) -> Tree:
    """Where arguments lie that several programs share: what one does not read, of which it says None, another may."""
    for other in others:
        first = jax.tree.map(lambda a, b: b if a is None else a, first, other, is_leaf=lambda s: s is None)
    return first


def lower(group: Group, width: int) -> Lowered:
    """The programs at this width."""
    facts, program = group.facts, group.program
    one = pack(group, facts.one, width)
    carry, inputs, data, start = _axes(group, one)
    where: dict[str, Any] = {
        "executor": group.first.executor,
        "workers": group.first.workers,
        "devices": group.devices,
        "events": group.events,
        "parts": group.parts,
    }
    given = hosts.shapes((one, facts.start, _numbers(group)))
    fixed = hosts.shapes((facts.data, facts.test))
    axes = inputs, start, COMMON if group.events else PER_WORKER, data, COMMON
    first = executors.place(partial(loop.begin, program), axes, carry, **where)

    def later(f: Callable[..., Carry], numbers: int) -> Any:
        axes = (carry, inputs, data, *[COMMON] * (1 + numbers))
        placed = executors.place(f, axes, carry, donate=True, **where)
        shape = jax.eval_shape(first, *given, *fixed)
        return placed.lower(shape, given[0], *fixed, *[np.int32(0)] * numbers)

    return Lowered(
        lambda: first.lower(*given, *fixed),
        lambda segment: later(partial(loop.replay, program, segment=segment), 2),
        lambda: later(partial(loop.retrace, program), 3),
    )


def per_run(group: Group, inputs: Inputs, carry: Carry) -> list[bool]:
    """Of each leaf of a slab's carry, or of one without its history, whether it has an axis of runs; the others all runs share."""
    axes = jax.tree.map(lambda axes: axes.runs, _axes(group, inputs)[0])
    if carry.history is None:
        axes = axes._replace(history=None)
    return jax.tree.leaves(jax.tree.map(lambda runs, leaves: jax.tree.map(lambda _: runs, leaves), axes, carry))


def _numbers(group: Group) -> np.ndarray:
    """[workers]: an argument that is mapped over the workers even where no start is given."""
    return np.arange(group.first.workers, dtype=np.int32)


def _axes(group: Group, inputs: Inputs) -> tuple[Any, Any, Any, Any]:
    """Axes of carry, inputs, data, start."""
    shape = carry_of_one(group, inputs)
    laid = None if group.facts.problem.layout is None else group.facts.model
    params = PER_RUN_AND_WORKER if laid is None else state_axes(shape.params, laid)
    parts: tuple[Any, ...] = (params, state_axes(shape.state, laid), PER_RUN_AND_WORKER, PER_RUN)
    # field by field: pmap takes a flat tuple of axes for one per leaf where their numbers happen to agree
    packed = Inputs(*[PER_RUN] * len(Inputs._fields))
    if not group.events:
        return Carry(*parts), packed, PER_WORKER, PER_WORKER
    server = jax.tree.map(lambda a: PER_RUN if a.runs else COMMON, parts)
    return Carry(*server), packed, COMMON, COMMON


def carry_of_one(group: Group, inputs: Inputs) -> Carry:
    """One worker's carry in one run, as shapes. `inputs`: of a slab."""
    facts, program = group.facts, group.program
    one = jax.tree.map(lambda x: x[0], inputs)
    with flags.fixed(facts.dtype == np.float64):
        if not group.events:
            return _of_one(group, lambda start, number: loop.start(program, one, start, number))
        shapes: Carry = jax.eval_shape(partial(loop.start, program), one, facts.start, np.int32(0))
    return shapes


def _of_one(group: Group, f: Callable[[Tree, Any], Carry]) -> Carry:
    """Shapes of what one worker among its like makes of (start, its number)."""
    workers = group.first.workers
    mapped = jax.vmap(f, axis_name=AXIS, axis_size=workers)
    all_of_them = jax.eval_shape(mapped, group.facts.start, _numbers(group))
    one: Carry = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), all_of_them)
    return one
