"""A group's program at one width, compiled: `begin` makes a slab's first carry, `go` takes it through segments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from dopt import flags
from dopt.devices import executors, hosts, memory
from dopt.devices.axes import COMMON, PER_RUN, PER_RUN_AND_WORKER, PER_WORKER, state_axes
from dopt.engine.group import Group
from dopt.engine.pack import pack
from dopt.program import Carry, Common, Data, Inputs
from dopt.types import AXIS, Tree


class Compiled(NamedTuple):
    """A group's program at one width."""

    group: Group
    width: int
    begin: Any
    go: Any
    data: Data  # on the devices, once
    common: Common

    @property
    def memory(self) -> int | None:
        """Bytes one slab needs on a device, by the compiler's analysis."""
        return memory.program_memory(self.go)

    def start(self, inputs: Inputs) -> Carry:
        """The slab before its first step."""
        given = inputs, self.group.facts.start, _numbers(self.group)
        return self.begin(*(hosts.put(given, self.begin.input_shardings[0]) if hosts.several() else given))


def compile(group: Group, width: int) -> Compiled:
    """The program for slabs of `width` runs, compiled for the group's devices."""
    facts = group.facts
    _ = facts.optimum  # where it cannot be found, nothing is compiled
    program, events = group.program, group.events
    one = pack(group, facts.runs[:1], width)
    carry, inputs, data, start = _axes(group, one)
    where: dict[str, Any] = {
        "executor": group.first.executor,
        "workers": group.first.workers,
        "devices": group.devices,
        "events": events,
        "parts": group.parts,
    }
    init = program.server_init if events else program.worker_init
    advance = program.server_advance if events else program.worker_advance
    first = executors.place(init, (inputs, start, COMMON if events else PER_WORKER), carry, **where)
    rest = executors.place(advance, (carry, inputs, data, COMMON, COMMON, COMMON), carry, donate=True, **where)
    with memory.room(), flags.fixed(facts.dtype == np.float64):
        given = hosts.shapes((one, facts.start, _numbers(group)))
        begin = first.lower(*given).compile()
        shape = jax.eval_shape(first, *given)
        fixed = facts.data, group.common
        go = rest.lower(shape, given[0], *hosts.shapes(fixed), np.int32(0), np.int32(0)).compile()
        if group.first.executor != "pmap":  # which takes its arguments apart by itself
            fixed = hosts.put(fixed, go.input_shardings[0][2:4])
    return Compiled(group, width, begin, go, *fixed)


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
        if group.events:
            return jax.eval_shape(program.server_init, one, facts.start, np.int32(0))
        return _of_one(group, lambda start, number: program.worker_init(one, start, number))


def _of_one(group: Group, f: Callable[[Tree, Any], Any]) -> Any:
    """Shapes of what one worker among its like makes of (start, its number)."""
    workers = group.first.workers
    mapped = jax.vmap(f, axis_name=AXIS, axis_size=workers)
    all_of_them = jax.eval_shape(mapped, group.facts.start, _numbers(group))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), all_of_them)
