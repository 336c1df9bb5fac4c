"""At which step a run diverged: looked for only where a record says that it did, by running that stretch again.

A check in every step would cost what the step itself costs. The same calls are made again up to the last good record; what is
left to it, and the stretch after it, is run by a program that goes step by step, which is compiled only now. So the step is exact, and
a sweep without divergence pays nothing. Step by step, and not by halving: a loss that swings overflows, comes back, and overflows again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dopt.engine.carry import Carry
from dopt.engine.compiled import Compiled
from dopt.facts.inputs import Inputs


def bad(history: Mapping[str, np.ndarray]) -> np.ndarray:
    """[runs, records] bool: the models, or f at their mean, are not finite. Records that were not made are not bad."""
    finite = np.asarray(history["finite"])
    found: np.ndarray = finite == 0
    if "loss" in history:
        found |= ~np.isnan(finite) & ~np.isfinite(np.asarray(history["loss"]))
    return found


def first_steps(compiled: Compiled, inputs: Inputs, history: Mapping[str, np.ndarray]) -> dict[int, int]:
    """Row -> first step at which its models, or f at their mean, were not finite; rows that stayed finite are left out.

    Args:
      compiled: the program of the slab.
      inputs: the slab's inputs.
      history: the records of the runs that count, [runs, records] each; other rows only fill the slab.
    """
    group, found = compiled.group, bad(history)
    steps = group.record_steps(group.longest_run)
    at = {row: int(found[row].argmax()) for row in map(int, np.flatnonzero(found.any(1)))}
    # without barriers there is no step between two records that all workers share
    exact = {
        row: int(steps[slot])
        for row, slot in at.items()
        if slot == 0 or steps[slot] - steps[slot - 1] == 1 or inputs.turns is not None
    }
    open_rows: dict[int, list[int]] = {}
    for row, slot in at.items():
        if row not in exact:
            open_rows.setdefault(slot, []).append(row)
    if open_rows:
        carry, done = compiled.start(inputs), 0
        for slot in sorted(open_rows):
            begin, end = int(steps[slot - 1]), int(steps[slot])
            carry = _forward(compiled, inputs, carry, done, begin)
            carry, seen = _step_by_step(compiled, inputs, carry, begin, end)
            exact |= {row: begin + 1 + int(seen[row].argmax()) for row in open_rows[slot]}
            done = end
    return exact


def _forward(compiled: Compiled, inputs: Inputs, carry: Carry, done: int, goal: int) -> Carry:
    """The slab at step `goal`, from step `done`: by whole calls where they fit, and step by step between them."""
    begins = {call.start: call for call in compiled.calls}
    while done < goal:
        call = begins.get(done)
        if call is not None and call.end <= goal:
            carry, done = compiled.after(carry, inputs, call), call.end
        else:
            stop = min([goal, *(start for start in begins if start > done)])
            carry, done = _retraced(compiled, inputs, carry, done, stop - done, -1), stop
    return carry


def _retraced(compiled: Compiled, inputs: Inputs, carry: Carry, start: int, number: int, slot: int) -> Carry:
    bounds = (np.int32(x) for x in (start, number, slot))
    new: Carry = compiled.retrace()(carry, inputs, compiled.data, compiled.test, *bounds)
    return new


def _step_by_step(compiled: Compiled, inputs: Inputs, carry: Carry, begin: int, end: int) -> tuple[Carry, np.ndarray]:
    """The slab at step `end`, from `begin`; and [rows, end - begin] bool: bad after each of these steps."""
    program = compiled.group.program
    seen = []
    for start in range(begin, end, program.records):
        number = min(program.records, end - start)
        carry = _retraced(compiled, inputs, carry, start, number, 0)
        seen.append(bad(program.named(np.asarray(carry.history)))[:, :number])
    return carry, np.concatenate(seen, axis=1)
