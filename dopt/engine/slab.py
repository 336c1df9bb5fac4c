"""One slab, from start to end: packed, advanced call by call, collected. While one is advanced, others can be packed and collected."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import numpy as np

from dopt import flags
from dopt.config import Run
from dopt.config.runs import Runs
from dopt.devices import ALONE, hosts, memory
from dopt.engine import checkpoints, divergence
from dopt.engine.carry import Carry
from dopt.engine.compiled import Compiled
from dopt.engine.group import Group
from dopt.engine.outcome import Outcomes, first_record, read, recorded
from dopt.engine.pack import pack
from dopt.facts.inputs import Inputs
from dopt.types import Tree
from dopt.watch import Look


class Keeping(Protocol):
    """Who keeps what the loop carries between two calls: `checkpoints` of one run, or what a sweep keeps of its slabs."""

    every: int  # steps from one state that is kept to the next, at least

    def latest(self, carry: Tree) -> tuple[Tree, int]:
        """(what the loop carried, after how many calls); as given, and 0, where nothing was kept."""
        ...

    def save(self, done: int, carry: Tree) -> None:
        """Keep what the loop carries after so many calls."""
        ...


First = Callable[[Mapping[str, np.ndarray]], None]  # takes the record at step 0, metric -> [runs]
Told = Callable[[Carry, int], None]  # takes what calls have left, and at which step


def run_slab(
    compiled: Compiled,
    runs: Sequence[Run],
    look: Look | None = None,
    keeper: Keeping | None = None,
    first: First | None = None,
    told: Told | None = None,
) -> Outcomes:
    """At most `width` runs of a group, from start to end, or from the last checkpoint.

    Args:
      runs: runs of the group.
      look: called between calls of the program, on the host; it may raise to stop.
      keeper: keeps checkpoints; None: there are none.
      first: gets the record at step 0 as soon as it exists; of a run of several processes it never is here whole.
      told: gets what is there before the first call, and what calls have left whenever the host looks.
    """
    slab = packed(compiled, Runs.of(runs))
    return collected(slab, advanced(slab, look, keeper, first, told))


class Slab(NamedTuple):
    """Runs of a group, and their values on the way to the devices."""

    compiled: Compiled
    runs: Runs
    inputs: Inputs


def packed(compiled: Compiled, runs: Runs) -> Slab:
    """A slab that is ready to run. It needs the host alone."""
    return Slab(compiled, runs, pack(compiled.group, runs, compiled.width))


def advanced(
    slab: Slab,
    look: Look | None = None,
    keeper: Keeping | None = None,
    first: First | None = None,
    told: Told | None = None,
) -> Carry:
    """What the slab's last call leaves on the devices. Arguments as of `run_slab`."""
    compiled, inputs = slab.compiled, slab.inputs
    group = compiled.group
    with group.running():
        carry, done, total = compiled.start(inputs), 0, len(compiled.calls)
        if first is not None and not hosts.several():
            first(first_record(group, recorded(group, np.asarray(carry.history), len(slab.runs))))
        due: list[int] = []
        if keeper is not None:
            due = checkpoints.due([call.end for call in compiled.calls], keeper.every)
            carry, done = _resumed(compiled, keeper, carry)
        if done < total:
            inputs = compiled.placed(inputs)
        if told is not None:
            told(carry, compiled.calls[done - 1].end if done else 0)
        while done < total:
            number = total - done if look is None else _agreed(group, max(1, min(look(done, total), total - done)))
            number = min([number, *(stop - done for stop in due if stop > done)])
            for call in compiled.calls[done : done + number]:
                carry = compiled.after(carry, inputs, call)
            jax.block_until_ready(carry.ages)
            done += number
            if told is not None:
                told(carry, compiled.calls[done - 1].end)
            if keeper is not None and done in due:
                keeper.save(done, carry)
    return carry


def seconds_of_step(slab: Slab, tries: int, long: float) -> float:
    """Seconds of a step in the first call of a slab, whose runs share it: the least of some tries, after one that warms up.

    Args:
      long: seconds after which no other try begins.
    """
    compiled, inputs = slab.compiled, slab.inputs
    call = compiled.calls[0]
    took: list[float] = []
    with compiled.group.running():
        carry = jax.block_until_ready(compiled.after(compiled.start(inputs), inputs, call))
        while len(took) < tries and sum(took) < long:
            begin = time.perf_counter()
            carry = jax.block_until_ready(compiled.after(carry, inputs, call))
            took.append(time.perf_counter() - begin)
    return min(took) / (call.end - call.start)


def collected(slab: Slab, carry: Carry) -> Outcomes:
    """What the slab gave, read from what its last call left; where a run diverged, its step is looked for."""
    group, runs = slab.compiled.group, slab.runs
    left = carry._replace(state=group.program.reported(carry.state))
    with memory.room(), jax.transfer_guard_device_to_host("allow"):
        if hosts.several():  # all of them must fetch together; else models stay until somebody looks at them
            with flags.fixed(group.facts.dtype == np.float64):
                left = hosts.fetch(left)
        found = recorded(group, np.asarray(left.history), len(runs))
    return read(group, runs, left, found, _diverged(slab, found))


def _diverged(slab: Slab, found: Mapping[str, np.ndarray]) -> dict[int, int]:
    """Row -> the step at which it diverged, where its records say that it did."""
    if not divergence.bad(found).any():
        return {}
    with slab.compiled.group.running():
        return divergence.first_steps(slab.compiled, slab.inputs, found)


def _resumed(compiled: Compiled, keeper: Keeping, carry: Carry) -> tuple[Carry, int]:
    """The slab at its last checkpoint, and after how many calls that was; `carry` where there is none."""
    found, done = keeper.latest(carry)
    if done and hosts.several():
        found = hosts.put(found, compiled.go.input_shardings[0][0])
    return found, done


def _agreed(group: Group, number: int) -> int:
    """The same number in all processes that make this group together."""
    return number if group.first.executor in ALONE else hosts.agree(number)
