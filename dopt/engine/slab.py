"""One slab, from start to end: packed, run stretch by stretch, fetched, and read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from dopt import checkpoints, flags
from dopt.checkpoints import Keeper
from dopt.config.runs import Runs
from dopt.devices import ALONE, hosts, memory
from dopt.engine import divergence
from dopt.engine.compiled import Compiled
from dopt.engine.group import Group
from dopt.engine.outcome import Outcomes, first_record, read
from dopt.engine.pack import pack
from dopt.program import Carry
from dopt.watch import Look

First = Callable[[Mapping[str, np.ndarray]], None]  # takes the record at step 0, metric -> [runs]


def run_slab(
    compiled: Compiled,
    runs: Any,
    look: Look | None = None,
    keeper: Keeper | None = None,
    first: First | None = None,
) -> Outcomes:
    """At most `width` runs of a group, from start to end, or from the last checkpoint.

    Args:
      runs: runs of the group.
      look: called between calls of the program, on the host; it may raise to stop.
      keeper: keeps checkpoints; None: there are none.
      first: gets the record at step 0 as soon as it exists; of a run of several processes it never is here whole.
    """
    group, runs = compiled.group, Runs.of(runs)
    with memory.room(), flags.fixed(group.facts.dtype == np.float64):
        inputs = pack(group, runs, compiled.width)
        carry, done, total = compiled.start(inputs), 0, len(compiled.calls)
        if first is not None and not hosts.several():
            first(first_record(group, group.program.named(carry.history), len(runs)))
        due: list[int] = []
        if keeper is not None:
            due = checkpoints.due([call.end for call in compiled.calls], keeper.every)
            carry, done = _resumed(compiled, keeper, carry)
        while done < total:
            number = total - done if look is None else _agreed(group, max(1, min(look(done, total), total - done)))
            number = min([number, *(stop - done for stop in due if stop > done)])
            for call in compiled.calls[done : done + number]:
                carry = compiled.after(carry, inputs, call)
            jax.block_until_ready(carry.ages)
            done += number
            if keeper is not None and done in due:
                keeper.save(done, carry)
        host = hosts.fetch(carry._replace(state=group.program.reported(carry.state)))
        host = host._replace(history=group.program.named(host.history))
        diverged = divergence.first_steps(compiled, inputs, host.history, len(runs))
    return read(group, runs, host, diverged)


def _resumed(compiled: Compiled, keeper: Keeper, carry: Carry) -> tuple[Carry, int]:
    """The slab at its last checkpoint, and after how many calls that was; `carry` where there is none."""
    found, done = keeper.latest(carry)
    if done and hosts.several():
        found = hosts.put(found, compiled.go.input_shardings[0][0])
    return found, done


def _agreed(group: Group, number: int) -> int:
    """The same number in all processes that make this group together."""
    return number if group.first.executor in ALONE else hosts.agree(number)
