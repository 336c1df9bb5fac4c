"""At which step a run diverged: looked for only where a record says that it did, by running that stretch again.

A check in every step would cost what the step itself costs. The same compiled program runs again up to the last good
record, then step by step with a record after each; so the step is exact, and a sweep without divergence pays nothing.
Step by step, and not by halving: a loss that swings overflows, comes back, and overflows again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dopt.engine.compiled import Compiled
from dopt.program import Carry


def bad(history: Mapping[str, np.ndarray]) -> np.ndarray:
    """[runs, records] bool: the models, or f at their mean, are not finite. Records that were not made are not bad."""
    found = np.asarray(history["finite"]) == 0
    if "loss" in history:
        made = ~np.isnan(np.asarray(history["finite"]))
        found |= made & ~np.isfinite(np.asarray(history["loss"]))
    return found


def first_steps(compiled: Compiled, inputs: Any, history: Mapping[str, np.ndarray], runs: int) -> dict[int, int]:
    """Row -> first step at which its models, or f at their mean, were not finite; rows that stayed finite are left out.

    Args:
      compiled: the program of the slab.
      inputs: the slab's inputs.
      history: the slab's records, [runs, records] each.
      runs: rows that count; the others only fill the slab.
    """
    group = compiled.group
    steps = group.record_steps(group.longest_run)
    found = bad(history)[:runs]
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
            begin = int(np.searchsorted(group.common.start, steps[slot - 1], side="left"))
            begin = max(begin, 1)  # segment 0 is the record at step 0
            carry = compiled.go(carry, inputs, compiled.data, compiled.common, np.int32(done), np.int32(begin))
            carry, seen = _step_by_step(compiled, inputs, carry, int(steps[slot - 1]), int(steps[slot]))
            exact |= {row: int(steps[slot - 1]) + 1 + int(seen[row].argmax()) for row in open_rows[slot]}
            done = int(np.searchsorted(group.common.start, steps[slot], side="left"))
    return exact


def _step_by_step(compiled: Compiled, inputs: Any, carry: Carry, begin: int, end: int) -> tuple[Carry, np.ndarray]:
    """The slab at step `end`, from `begin`; and [rows, end - begin] bool: bad after each of these steps."""
    size = min(compiled.group.program.records, len(compiled.common.start))
    seen = []
    for start in range(begin, end, size):
        number = min(size, end - start)
        table = np.zeros((3, len(compiled.common.start)), np.int32)
        table[:, :number] = start + np.arange(number), np.ones(number), np.arange(number)
        single = compiled.common._replace(start=table[0], count=table[1], slot=table[2])
        carry = compiled.go(carry, inputs, compiled.data, single, np.int32(0), np.int32(number))
        seen.append(bad(jax.tree.map(np.asarray, carry.history))[:, :number])
    return carry, np.concatenate(seen, axis=1)
