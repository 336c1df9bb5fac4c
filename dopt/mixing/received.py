"""What a worker receives: a tree whose leaves are arrays [senders, ...], or, of few senders, tuples of as many arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from dopt import rings
from dopt.mixing.forms import Dense, Form
from dopt.permute import Pairs, permute
from dopt.types import AXIS, Clock, Tree, Whole

Received = jax.Array | tuple[jax.Array, ...]  # a leaf of it
UNROLLED = 16  # senders whose sum is written out: what they send is then never held all at once


class Ages(NamedTuple):
    """How old what a worker reads is, in steps: one number for each sender in its form, and for itself."""

    senders: jax.Array  # [senders] int32
    own: jax.Array  # [] int32


Staleness = ArrayLike | Ages  # of all senders alike, [n] of each worker as a sender, or sender by sender


def each(number: int, of: Callable[[Any], Tree]) -> Tree:
    """What is received, where `of(s)` is what sender s sends (all of them, where s is a slice)."""
    return of(slice(None)) if number > UNROLLED else listed([of(s) for s in range(number)])


def listed(parts: list[Tree]) -> Tree:
    return jax.tree.map(lambda *x: x, *parts)


def stacked(received: Received) -> jax.Array:
    return jnp.stack(received) if isinstance(received, tuple) else received


def either(first: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """As `a` where `first` [senders], else b; both [senders, ...]."""
    return jnp.where(first.reshape(-1, *[1] * (a.ndim - 1)), a, b)


def weighted(w: jax.Array, received: Received, c: jax.Array | None) -> jax.Array:
    """Σ_s w_s (x_s - c)."""
    if isinstance(received, tuple):
        terms = [w[s] * (x if c is None else x - c) for s, x in enumerate(received)]
        return sum(terms[1:], terms[0])
    return jnp.tensordot(w, received if c is None else received - c, axes=1, precision=lax.Precision.HIGHEST)


def of_worker_0(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: lax.all_gather(x, AXIS)[0], tree)


def ages_of(staleness: Staleness, who: jax.Array, worker: Whole) -> Ages:
    """`staleness` in any of its forms, sender by sender."""
    if isinstance(staleness, Ages):
        return staleness
    staleness = jnp.asarray(staleness)
    if staleness.ndim == 0:
        return Ages(staleness, staleness)
    return Ages(staleness[who], staleness[worker])


def senders(links: Form, step: Whole, worker: Whole) -> tuple[jax.Array, jax.Array]:
    """(whose models `worker` reads at `step` [senders] int32, whether that link carries anything [senders] bool)."""
    now = links.at(step)
    if isinstance(now, Dense):
        return jnp.arange(now.weight.shape[1], dtype=jnp.int32), now.weight[worker] != 0
    return now.index[worker], now.weight[worker] != 0


def fresh(links: Form, step: Whole, worker: Whole, tree: Tree) -> Tree:
    """What each sender has now."""
    if links.pairs is not None:
        return links.travel(step, lambda pairs: listed([permute(tree, worker, p) for p in pairs]))
    everyone = lax.all_gather(tree, AXIS)
    if isinstance(links, Dense):
        return everyone
    who, _ = senders(links, step, worker)
    return each(len(who), lambda s: jax.tree.map(lambda x: x[who[s]], everyone))


def old(links: Form, clock: Clock, worker: Whole, ring: Tree, age: Ages, like: Tree) -> Tree:
    """What each sender had as many steps ago as its age says, each shaped as `like`. Senders read their own rings."""
    if jnp.ndim(age.senders) == 0:
        return fresh(links, clock.step, worker, rings.read(ring, clock, age.senders, like))
    if links.pairs is not None:

        def send(pairs: tuple[Pairs, ...]) -> Tree:
            parts = []
            for s, there in enumerate(pairs):  # the reader tells the sender how old a model it reads
                asked = permute(age.senders[s], worker, tuple((reader, sender) for sender, reader in there))
                parts.append(permute(rings.read(ring, clock, asked, like), worker, there))
            return listed(parts)

        return links.travel(clock.step, send)
    who, _ = senders(links, clock.step, worker)
    everyone = lax.all_gather(ring, AXIS)  # [n, slots, ...]

    def read(s: Any) -> Tree:
        def one(r: jax.Array, x: jax.Array) -> jax.Array:
            found = r[who[s], (clock.step - age.senders[s]) % r.shape[1]]
            return found.reshape(*jnp.shape(who[s]), *x.shape)

        return jax.tree.map(one, everyone, like)

    return read(slice(None)) if isinstance(links, Dense) else each(len(who), read)
