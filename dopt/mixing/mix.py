"""W -> Mix, what runs on workers: the displacement W x - x, computed from differences.

Σ_{j≠i} W_ij (xⱼ - c) - (Σ_{j≠i} W_ij)(xᵢ - c): a float32 row of thirds sums to 1 + 3e-8, and methods that integrate would
integrate that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dopt import delays
from dopt.mixing.rules import as_matrix
from dopt.mixing.spectrum import is_connected, is_stochastic
from dopt.types import AXIS, Clock, InputError, Tree


class Mix(NamedTuple):
    """A mixing matrix from the view of one worker.

    init(tree) -> state; apply(tree, state, **extra) -> (displacement W x - x, state), called once per step on one tuple
    of all that travels.
    """

    init: Callable[[Tree], Any]
    apply: Callable[..., tuple[Tree, Any]]


class Dense(NamedTuple):
    """W as one matrix product."""

    off: Any  # [n, n] off-diagonal weights
    out: Any  # [n] what leaves oneself: sum of the row (column, where only columns sum to one)
    relative: Any  # [] 1: rows sum to one and differences are taken to worker 0's model; 0: they are not


class Neighbours(NamedTuple):
    """W as lists of neighbours: for disconnected graphs, where one part's NaN must never reach another."""

    index: Any  # [n, k] int32, padded with oneself
    weight: Any  # [n, k], padded with 0


Form = Dense | Neighbours


def form(w: np.ndarray) -> Form:
    """The form in which W runs: neighbour lists where it is disconnected, else one matrix."""
    off = w - np.diag(np.diag(w))
    rows = is_stochastic(w, 1)
    if is_connected(w) or not rows:
        return Dense(off, off.sum(1 if rows else 0), np.float64(rows))
    width = max(1, int((off != 0).sum(1).max()))
    index = np.tile(np.arange(len(w), dtype=np.int32)[:, None], (1, width))
    weight = np.zeros((len(w), width))
    for i, row in enumerate(off):
        (senders,) = np.nonzero(row)
        index[i, : len(senders)], weight[i, : len(senders)] = senders, row[senders]
    return Neighbours(index, weight)


def _displacement(form: Form, own: Tree, others: Tree, reference: Tree) -> Tree:
    """Σ_{j≠i} W_ij (xⱼ - c) - out_i (xᵢ - c) for each leaf: `own` and `reference` c [...], `others` [n, ...]."""
    worker = lax.axis_index(AXIS)
    form = jax.tree.map(jnp.asarray, form)  # here, since whether this is x64 is known only where it runs

    def dense(x: jax.Array, everyone: jax.Array, c: jax.Array, f: Dense) -> jax.Array:
        c = c * f.relative.astype(x.dtype)
        row, out = f.off[worker].astype(x.dtype), f.out[worker].astype(x.dtype)
        return jnp.tensordot(row, everyone - c, axes=1, precision=lax.Precision.HIGHEST) - out * (x - c)

    def neighbours(x: jax.Array, everyone: jax.Array, f: Neighbours) -> jax.Array:
        return jnp.tensordot(
            f.weight[worker].astype(x.dtype), everyone[f.index[worker]] - x, axes=1, precision=lax.Precision.HIGHEST
        )

    def one(x: jax.Array, everyone: jax.Array, c: jax.Array) -> jax.Array:
        return dense(x, everyone, c, form) if isinstance(form, Dense) else neighbours(x, everyone, form)

    return jax.tree.map(one, own, others, reference)


def _of_worker_0(everyone: Tree) -> Tree:
    return jax.tree.map(lambda x: x[0], everyone)


class RingState(NamedTuple):
    ring: Tree  # leaves [slots, ...]: this worker's own last models
    clock: Clock


def mix(w: Any, *, slots: int | None = None, delay: int | None = None) -> Mix:
    """The Mix of a matrix W [n, n] (or of its `form`).

    Args:
      w: the matrix, or a form whose leaves may be traced.
      slots: length of each worker's ring of its own models, for delayed reads: largest delay + 1; None: no delay.
      delay: constant delay of neighbours' models in steps, where `apply` is not told a `staleness`.

    A delayed `apply` takes two extra arguments: `staleness`, [] for all senders alike or [n], one per sender; and
    `delay_self`, to take oneself from the ring too, xᵢ <- Σⱼ W_ij xⱼ^{k-τ} (keeps the average on irregular graphs).
    """
    w = form(as_matrix(w)) if not isinstance(w, Dense | Neighbours) else w
    if delay is not None and slots is None:
        slots = delay + 1
    if slots is None:

        def fresh(tree: Tree, state: Any, **extra: Any) -> tuple[Tree, Any]:
            everyone = lax.all_gather(tree, AXIS)
            return _displacement(w, tree, everyone, _of_worker_0(everyone)), state

        return Mix(lambda tree: (), fresh)

    def init(tree: Tree) -> RingState:
        return RingState(delays.ring(tree, slots), Clock(jnp.zeros((), jnp.int32)))

    def apply(
        tree: Tree, state: RingState, *, staleness: Any = delay, delay_self: bool = False, **extra: Any
    ) -> tuple[Tree, RingState]:
        if staleness is None:
            raise InputError(
                "mixing: a delayed mix needs `staleness`; build it with delay=, or pass staleness= to update"
            )
        ring, clock = delays.write(state.ring, state.clock, tree), state.clock
        if jnp.ndim(staleness) == 0:
            others = lax.all_gather(delays.read(ring, clock, staleness), AXIS)
        else:
            sent = lax.all_gather(ring, AXIS)  # [n, slots, ...]; of each sender the slot of its own age
            n = jnp.shape(staleness)[0]
            others = jax.tree.map(lambda s: s[jnp.arange(n), (clock.step - staleness) % s.shape[1]], sent)
        # any common reference will do; the models of now are at hand, and old ones would be gathered twice
        reference = _of_worker_0(lax.all_gather(tree, AXIS))
        if delay_self:
            own = jax.tree.map(lambda x: x[lax.axis_index(AXIS)], others)
            moved = jax.tree.map(lambda m, o, x: m + (o - x), _displacement(w, own, others, reference), own, tree)
        else:
            moved = _displacement(w, tree, others, reference)
        return moved, RingState(ring, clock.tick())

    return Mix(init, apply)
