"""At which step a run diverged: looked for only where a record says that it did, by running that stretch again.

A check in every step would cost what the step itself costs. The same compiled program runs again from the start up to
the last good record, then in ever shorter stretches with a record after each; so the step is exact, and a sweep without
divergence pays nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from dopt.group import Compiled
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
    exact = {row: int(steps[slot]) for row, slot in at.items() if slot == 0 or steps[slot] - steps[slot - 1] == 1}
    open_rows: dict[int, list[int]] = {}
    for row, slot in at.items():
        if row not in exact:
            open_rows.setdefault(slot, []).append(row)
    if open_rows:
        carry, done = compiled.begin(inputs, group.start, group.numbers), 0
        for slot in sorted(open_rows):
            begin = int(np.searchsorted(group.common.start, steps[slot - 1], side="left"))
            begin = max(begin, 1)  # segment 0 is the record at step 0
            carry = compiled.go(carry, inputs, compiled.data, compiled.common, np.int32(done), np.int32(begin))
            done = begin
            exact |= _within(compiled, inputs, carry, int(steps[slot - 1]), int(steps[slot]), open_rows[slot])
    return exact


def _within(compiled: Compiled, inputs: Any, carry: Carry, begin: int, end: int, rows: list[int]) -> dict[int, int]:
    """Row -> its first bad step in (begin, end], from the slab's state at step `begin`."""
    group = compiled.group
    pieces = min(group.program.records, end - begin)
    ends = begin + (np.arange(1, pieces + 1) * (end - begin)) // pieces
    starts = np.append(begin, ends[:-1])
    after = _run(compiled, inputs, jax.tree.map(jnp.copy, carry), starts, ends)
    found = bad(jax.tree.map(np.asarray, after.history))[:, :pieces]
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(int(found[row].argmax()), []).append(row)
    exact: dict[int, int] = {}
    for piece, members in groups.items():
        if ends[piece] - starts[piece] == 1:
            exact |= dict.fromkeys(members, int(ends[piece]))
        else:
            there = _run(compiled, inputs, jax.tree.map(jnp.copy, carry), starts[:piece], ends[:piece])
            exact |= _within(compiled, inputs, there, int(starts[piece]), int(ends[piece]), members)
    return exact


def _run(compiled: Compiled, inputs: Any, carry: Carry, starts: np.ndarray, ends: np.ndarray) -> Carry:
    """The stretches starts..ends, each with a record in its own slot."""
    common, longest = compiled.group.common, compiled.group.program.longest
    rows = [
        (part, min(longest, int(end) - part), slot if part + longest >= end else -1)
        for slot, (start, end) in enumerate(zip(starts, ends, strict=True))
        for part in range(int(start), int(end), longest)
    ]
    if not rows:
        return carry
    table = np.zeros((3, len(common.start)), np.int32)
    table[:, : len(rows)] = np.array(rows, np.int32).T
    stretches = compiled.common._replace(start=table[0], count=table[1], slot=table[2])
    return compiled.go(carry, inputs, compiled.data, stretches, np.int32(0), np.int32(len(rows)))
