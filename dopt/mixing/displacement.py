"""W -> Mix, what runs on workers: the displacement W x - x, computed from differences.

Σ_{j≠i} W_ij (xⱼ - c) - (Σ_{j≠i} W_ij)(xᵢ - c): a float32 row of thirds sums to 1 + 3e-8, and methods that add up
displacements would add up that error. Where columns sum to one, c = 0 and what leaves is what arrives elsewhere,
Σ_{j≠i} P_ij xⱼ - (Σ_{j≠i} P_ji) xᵢ, so that the sum over workers is kept to rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dopt import rings
from dopt.mixing.failing import LinkLoss, arrivals, kept_weights, remembered
from dopt.mixing.forms import Dense, Form, form
from dopt.mixing.received import Received, Staleness, ages_of, fresh, of_worker_0, old, senders, weighted
from dopt.mixing.spectrum import Matrix
from dopt.types import AXIS, Array, Clock, InputError, Mix, Tree, Whole


class MixState(NamedTuple):
    clock: Clock
    ring: Tree  # this worker's own last models, as `dopt.rings` keeps them; (): no delay
    seen: Tree  # leaves [senders, ...]: the last received models; (): not needed


class Old(NamedTuple):
    """What a delayed mix reads."""

    received: Tree  # of each sender
    own: Tree  # the model that W's diagonal is for
    ring: Tree


class Heard(NamedTuple):
    """What a worker takes of its senders."""

    received: Tree  # leaves [senders, ...]
    seen: Tree  # as of `MixState`
    weight: jax.Array  # [senders]
    total: jax.Array  # [] of all of it


def mix(
    w: Matrix | Form,
    *,
    slots: int | None = None,
    delay: int | None = None,
    ages: Array | None = None,
    loss: LinkLoss | None = None,
    seed: Whole = 0,
) -> Mix:
    """The Mix of a matrix W [n, n], of a period of them [period, n, n], or of a `form`.

    Args:
      w: the matrix, or a form whose leaves may be traced.
      slots: length of each worker's ring of its own models, for delayed reads: largest delay + 1; None: no delay.
      delay: constant delay of neighbours' models in steps, where `apply` is not told a `staleness`.
      ages: [n, n] int, ages[i, j]: how old worker i reads worker j, likewise.
      loss: how links fail; None: they do not.
      seed: of the failures.

    A delayed `apply` takes two extra arguments: `staleness`, [] one for all senders, [n] one for each sender, or
    `Ages`; and `delay_self`, to take oneself from the ring too, xᵢ <- Σⱼ W_ij xⱼ^{k-τ} (keeps the average on irregular
    graphs).
    """
    links = w if isinstance(w, Form) else form(w)
    slots = _slots(delay, ages) if slots is None else slots
    _check_policy(links, loss)
    row = _row(links) if loss is None else None

    def init(tree: Tree) -> MixState:
        clock = Clock(jnp.zeros((), jnp.int32))
        ring = () if slots is None else rings.ring(tree, slots)
        return MixState(clock, ring, _start(links, tree, clock) if loss is not None and loss.remembers else ())

    def aged(tree: Tree, state: MixState, who: jax.Array, staleness: Staleness | None, delay_self: bool) -> Old:
        worker, clock = lax.axis_index(AXIS), state.clock
        ring = rings.write(state.ring, clock, tree)
        age = ages_of(_known(staleness, ages, worker), who, worker)
        received = old(links, clock, worker, ring, age, tree)
        return Old(received, rings.read(ring, clock, age.own, tree) if delay_self else tree, ring)

    def apply(
        tree: Tree, state: MixState, *, staleness: Staleness | None = delay, delay_self: bool = False, **extra: Any
    ) -> tuple[Tree, MixState]:
        worker, step = lax.axis_index(AXIS), state.clock.step
        now = links.at(step)
        who, _ = senders(links, step, worker)
        if slots is None:
            received, own, ring = fresh(links, step, worker, tree), tree, state.ring
        else:
            received, own, ring = aged(tree, state, who, staleness, delay_self)
        heard, arrived = Heard(received, state.seen, *(row or _weights(now, worker))), None
        if loss is not None:
            arrived = arrivals(links, now, loss, seed, step)
            heard = _through(heard, arrived[worker], jnp.arange(len(who)) if links.period == 1 else who, loss)
        out = now.outflow(arrived)[worker] if links.columns else None
        # any common reference will do; the models of now are at hand, and old ones would be gathered twice
        common = of_worker_0(tree) if isinstance(now, Dense) and not links.columns else None
        moved = _displacement(tree, own, heard.received, common, heard.weight, heard.total, out)
        return moved, MixState(state.clock.tick(), ring, heard.seen)

    return Mix(init, apply)


def _slots(delay: int | None, ages: Array | None) -> int | None:
    """How long a ring must be; None: there is no delay."""
    if delay is not None:
        return 1 + delay
    return None if ages is None else 1 + int(jnp.max(jnp.asarray(ages)))


def _check_policy(links: Form, loss: LinkLoss | None) -> None:
    if loss is not None and links.columns and loss.policy != "keep_self":
        raise InputError(
            f"link_loss.policy: only keep_self loses nothing where columns of W sum to one, got {loss.policy}; use keep_self"
        )


def _through(heard: Heard, arrived: jax.Array, at: jax.Array, loss: LinkLoss) -> Heard:
    """What is left where links fail.

    Args:
      arrived: [senders] bool.
      at: [senders] where each stands among those that were seen.
    """
    if loss.remembers:
        received, seen = remembered(arrived & (heard.weight != 0), at, heard.received, heard.seen)
        return heard._replace(received=received, seen=seen)
    weight = kept_weights(arrived, heard.weight, loss.policy)
    return heard._replace(weight=weight, total=weight.sum())


def _weights(now: Form, worker: Whole) -> tuple[jax.Array, jax.Array]:
    """What a worker gives each of its senders, and all of them."""
    weight = now.weight[worker]
    return weight, weight.sum()


def _row(links: Form) -> tuple[jax.Array, jax.Array] | None:
    """The `_weights` of a matrix that stays, taken once and not in each step, where a mix is made inside the axis.

    A compiler takes neither the row nor its sum out of a loop by itself.
    """
    try:
        worker = lax.axis_index(AXIS)
    except NameError:  # made outside: who asks is not known yet
        return None
    return _weights(links.at(np.int32(0)), worker) if links.period == 1 else None


def _start(links: Form, tree: Tree, clock: Clock) -> Tree:
    """What was last seen of each sender before the first step: x⁰."""
    everyone = lax.all_gather(tree, AXIS)
    if links.period > 1:
        return everyone
    who, _ = senders(links, clock.step, lax.axis_index(AXIS))
    return jax.tree.map(lambda x: x[who], everyone)


def _known(staleness: Staleness | None, ages: Array | None, worker: Whole) -> Staleness:
    """The staleness that `apply` is told, else the one that the mix was built with."""
    if staleness is not None:
        return staleness
    if ages is None:
        raise InputError("mixing: a delayed mix needs `staleness`; build it with delay=, or pass staleness= to update")
    return jnp.asarray(ages)[worker]


def _displacement(
    tree: Tree, own: Tree, received: Tree, common: Tree | None, weight: jax.Array, total: jax.Array, out: Array | None
) -> Tree:
    """W x - x, from differences.

    Args:
      tree: x, this worker's model.
      own: the model that W's diagonal is for: x, or an old one.
      received: of each sender.
      common: a reference that all workers have; None: `own`.
      weight: [senders] of what was received.
      total: [] of all of it.
      out: [] what this worker gives away, where columns of W sum to one.
    """

    def moved(x: jax.Array, y: jax.Array, everyone: Received, c: jax.Array | None) -> jax.Array:
        w = weight.astype(x.dtype)
        if out is not None:
            shift = weighted(w, everyone, None) - out.astype(x.dtype) * y
        elif c is None:
            shift = weighted(w, everyone, y)
        else:
            shift = weighted(w, everyone, c) - total.astype(x.dtype) * (y - c)
        return shift if y is x else shift + (y - x)

    if common is None:
        return jax.tree.map(lambda x, y, e: moved(x, y, e, None), tree, own, received)
    return jax.tree.map(moved, tree, own, received, common)
