"""The loops of a trajectory, written once for workers and servers, and for all executors.

A trajectory is made by calls of one program, a *segment* each (`dopt.engine.segments`): all its batches are drawn ahead (drawing in
the loop is 1.4 to 1.9 times slower), then come stretches of steps, with a record at the end of each. Both loops have bounds
that the compiler knows, since a device that does not know them asks the host before each step.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dopt.engine import server, worker
from dopt.engine.carry import Ages, Carry, Model, Pieces
from dopt.engine.program import AGES, Program
from dopt.engine.segments import Segment
from dopt.facts.inputs import Data, Inputs
from dopt.types import Tree, Whole


def pieces_of(program: Program, inputs: Inputs, data: Data, test: Tree) -> Pieces:
    of = server.pieces if program.events else worker.pieces
    return of(program, inputs, data, test)


def start(program: Program, inputs: Inputs, given: Tree, number: Whole) -> Carry:
    """A trajectory that has not begun.

    Args:
      given: where it starts; None: where the problem does.
      number: of the worker, an axis of workers where no start is given.
    """
    of = server.start if program.events else worker.start
    return of(program, inputs, given)


def begin(program: Program, inputs: Inputs, given: Tree, number: Whole, data: Data, test: Tree) -> Carry:
    """A trajectory with its first record, that of step 0."""
    carry = start(program, inputs, given, number)
    found = pieces_of(program, inputs, data, test).record(carry.params, carry.state)
    return carry._replace(history=carry.history.at[0].set(program.row(found | dict.fromkeys(AGES, 0))))


def replay(
    program: Program,
    carry: Carry,
    inputs: Inputs,
    data: Data,
    test: Tree,
    first: Whole,
    slot: Whole,
    *,
    segment: Segment,
) -> Carry:
    """One segment, whose first step is `first` and whose first record goes to `slot`: draw ahead, then step and record."""
    pieces = pieces_of(program, inputs, data, test)
    drawn, staleness = pieces.ahead(first, segment.records * segment.steps)
    columns = tuple(name for name in program.columns if name not in AGES)

    def stretch(carry: tuple[Model, jax.Array], _: None) -> tuple[tuple[Model, jax.Array], jax.Array]:
        model, record = carry

        def one(j: jax.Array, model: Model) -> Model:
            t = record * segment.steps + j
            here = jax.tree.map(lambda x: x[t], (drawn, staleness))
            return stepped(program, pieces, inputs, first + t, here, model)

        model = lax.fori_loop(np.int32(0), np.int32(segment.steps), one, model)
        return (model, record + 1), program.row(pieces.record(*model), columns)

    # a record's number is counted: to read it of a list would be one launch more
    before = (carry.params, carry.state), jnp.zeros((), jnp.int32)
    (model, _), rows = lax.scan(stretch, before, length=segment.records)
    ages = carry.ages
    if program.has_ages:
        each = ages_of(program, carry.ages, pieces, inputs, segment, first, staleness)
        said = pieces.together(each)
        rows = jnp.concatenate([rows, jnp.stack([said.sum / jnp.maximum(said.number, 1), said.largest], 1)], 1)
        ages = jax.tree.map(lambda x: x[-1], each)
    return Carry(*model, ages, lax.dynamic_update_slice_in_dim(carry.history, rows, slot, 0))


def retrace(
    program: Program, carry: Carry, inputs: Inputs, data: Data, test: Tree, first: Whole, number: Whole, slot: Whole
) -> Carry:
    """`number` steps, and after each a record that says only whether all is finite; none where `slot` is -1.

    The number is not known to the compiler: this is for the stretch in which a run has diverged, and the way to it.
    """
    pieces = pieces_of(program, inputs, data, test)

    def one(j: jax.Array, carry: Carry) -> Carry:
        here = jax.tree.map(lambda x: x[0], pieces.ahead(first + j, 1))
        params, state = stepped(program, pieces, inputs, first + j, here, (carry.params, carry.state))

        def written() -> jax.Array:
            found = pieces.record(params, state)
            said = {name: found[name] for name in ("loss", "finite") if name in program.columns}
            row = program.row(dict.fromkeys(program.columns, jnp.nan) | said)
            return lax.dynamic_update_slice_in_dim(carry.history, row[None], slot + j, 0)

        return Carry(params, state, carry.ages, lax.cond(slot >= 0, written, lambda: carry.history))

    after: Carry = lax.fori_loop(0, number, one, carry)
    return after


def stepped(program: Program, pieces: Pieces, inputs: Inputs, k: Whole, here: tuple[Any, Any], model: Model) -> Model:
    """(params, state) after step k; those of a run that has ended stay."""
    new = pieces.step(k, *here, *model)
    return pieces.stay(k < inputs.length, new, model) if program.ragged else new


def ages_of(
    program: Program, before: Ages, pieces: Pieces, inputs: Inputs, segment: Segment, first: Whole, staleness: Any
) -> Ages:
    """The ages that each record of a segment speaks of; before step 0 there is only x⁰, so none is older than its step."""
    known = first + jnp.arange(segment.records * segment.steps, dtype=jnp.int32)
    old = pieces.aged(known, staleness)
    counts = known < inputs.length if program.ragged else jnp.ones_like(known, bool)
    if isinstance(old, tuple):
        old, there = old
        known, counts = known[:, None], counts[:, None] & there
    real, taken = (
        x.astype(program.dtype).reshape(segment.records, -1)
        for x in (jnp.where(counts, jnp.minimum(old, known), 0), counts)
    )
    found = Ages(real.sum(1), taken.sum(1), real.max(1))
    if segment.steps == program.every:
        return found
    # a segment that begins within a stretch goes on from the one before
    so_far = jax.tree.map(lambda x: jnp.where(first % program.every == 0, 0, x), before)
    return Ages(found.sum + so_far.sum, found.number + so_far.number, jnp.maximum(found.largest, so_far.largest))
