"""W -> Mix, what runs on workers: the displacement W x - x, computed from differences.

Σ_{j≠i} W_ij (xⱼ - c) - (Σ_{j≠i} W_ij)(xᵢ - c): a float32 row of thirds sums to 1 + 3e-8, and methods that integrate would
integrate that. Where columns sum to one, c = 0 and what leaves is what arrives elsewhere, Σ_{j≠i} P_ij xⱼ - (Σ_{j≠i} P_ji) xᵢ,
so that the sum over workers is kept to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from jax import lax
from scipy.sparse import csgraph, csr_array

from dopt import delays, draws
from dopt.mixing.forms import Dense, Form, form
from dopt.topology import Matchings, adjacency
from dopt.types import AXIS, Clock, InputError, Tree

UNROLLED = 16  # senders whose sum is written out: what they send is then never held all at once


class Mix(NamedTuple):
    """A mixing matrix from the view of one worker.

    init(tree) -> state; apply(tree, state, **extra) -> (displacement W x - x, state), called once per step on one tuple
    of all that travels.
    """

    init: Callable[[Tree], Any]
    apply: Callable[..., tuple[Tree, Any]]


class Ages(NamedTuple):
    """How old what a worker reads is, in steps: one number for each sender in its form, and for itself."""

    senders: Any  # [senders] int32
    own: Any  # [] int32


POLICIES = {
    "keep_self": "the missing weight goes to oneself",
    "renormalise": "the weights received are rescaled to sum to one",
    "last_seen": "the last received model is used",
}


@dataclass(frozen=True)
class LinkLoss:
    """Each link fails with a probability at each step, independently.

    The mean is kept exactly by keep_self with symmetric failures of a symmetric W, in expectation by keep_self with
    independent failures of its two directions, in general not by the others; rows sum to one under all three. Where
    columns sum to one, the sender keeps what was not delivered (keep_self only), so that nothing is lost.
    """

    probability: Any  # [] may be traced
    policy: str = "keep_self"
    symmetric: bool = False  # a link fails in both directions at once


def check_own_weight(w: Any, method: str) -> None:
    """Refuse what `renormalise` would divide by: InputError where some worker gives itself a negative weight."""
    several = np.zeros((1, 1, 1)) if isinstance(w, Matchings) else w if w.ndim == 3 else w[None]
    own = np.diagonal(several, axis1=1, axis2=2)
    if own.min() < 0:
        raise InputError(
            f"link_loss.policy: renormalise needs W_ii >= 0 for {method}, got {own.min():.3g}; use keep_self or other weights"
        )


class MixState(NamedTuple):
    clock: Clock
    ring: Tree  # leaves [slots, ...]: this worker's own last models; (): no delay
    seen: Tree  # leaves [senders, ...]: the last received models; (): not needed


def senders(links: Form, step: Any, worker: Any) -> tuple[jax.Array, jax.Array]:
    """(whose models `worker` reads at `step` [senders] int32, whether that link carries anything [senders] bool)."""
    now = links.at(step)
    if isinstance(now, Dense):
        return jnp.arange(now.weight.shape[1], dtype=jnp.int32), now.weight[worker] != 0
    return now.index[worker], now.weight[worker] != 0


def mix(
    w: Any,
    *,
    slots: int | None = None,
    delay: int | None = None,
    ages: Any = None,
    loss: LinkLoss | None = None,
    seed: Any = 0,
) -> Mix:
    """The Mix of a matrix W [n, n], of a period of them [period, n, n], or of a `form`.

    Args:
      w: the matrix, or a form whose leaves may be traced.
      slots: length of each worker's ring of its own models, for delayed reads: largest delay + 1; None: no delay.
      delay: constant delay of neighbours' models in steps, where `apply` is not told a `staleness`.
      ages: [n, n] int, ages[i, j]: how old worker i reads worker j, likewise.
      loss: how links fail; None: they do not.
      seed: of the failures.

    A delayed `apply` takes two extra arguments: `staleness`, [] for all senders alike, [n] for each worker as a sender, or
    `Ages`; and `delay_self`, to take oneself from the ring too, xᵢ <- Σⱼ W_ij xⱼ^{k-τ} (keeps the average on irregular
    graphs).
    """
    links: Form = w if hasattr(w, "at") else form(w)
    if slots is None and (delay is not None or ages is not None):
        slots = 1 + (delay if delay is not None else int(jnp.max(ages)))
    if loss is not None and links.columns and loss.policy != "keep_self":
        raise InputError(
            f"link_loss.policy: where columns of W sum to one only keep_self loses nothing, got {loss.policy}; use keep_self"
        )
    remembers = loss is not None and loss.policy == "last_seen"

    def init(tree: Tree) -> MixState:
        clock = Clock(jnp.zeros((), jnp.int32))
        ring = () if slots is None else delays.ring(tree, slots)
        seen: Tree = ()
        if remembers:  # x⁰ stands before the start
            everyone = lax.all_gather(tree, AXIS)
            seen = everyone
            if links.period == 1:
                who, _ = senders(links, clock.step, lax.axis_index(AXIS))
                seen = jax.tree.map(lambda x: x[who], everyone)
        return MixState(clock, ring, seen)

    def apply(
        tree: Tree, state: MixState, *, staleness: Any = delay, delay_self: bool = False, **extra: Any
    ) -> tuple[Tree, MixState]:
        worker, clock = lax.axis_index(AXIS), state.clock
        now = links.at(clock.step)
        who, _ = senders(links, clock.step, worker)
        own, ring = tree, state.ring
        if slots is None:
            received = _fresh(links, clock.step, worker, tree)
        else:
            if staleness is None:
                staleness = None if ages is None else jnp.asarray(ages)[worker]
            if staleness is None:
                raise InputError(
                    "mixing: a delayed mix needs `staleness`; build it with delay=, or pass staleness= to update"
                )
            ring = delays.write(ring, clock, tree)
            age = _ages(staleness, who, worker)
            received = _old(links, clock, worker, ring, age)
            own = delays.read(ring, clock, age.own) if delay_self else tree
        weight, arrived, seen = now.weight[worker], None, state.seen
        if loss is not None:
            arrived = _arrived(links, now, loss, seed, clock.step)
            if remembers:
                at = jnp.arange(len(who)) if links.period == 1 else who
                received, seen = _remembered(arrived[worker] & (weight != 0), at, received, seen)
            else:
                weight = _kept(arrived[worker], weight, loss.policy)
        out = now.outflow(arrived)[worker] if links.columns else None
        # any common reference will do; the models of now are at hand, and old ones would be gathered twice
        common = _of_worker_0(tree) if isinstance(now, Dense) and not links.columns else None

        def moved(x: jax.Array, y: jax.Array, everyone: Any, c: Any) -> jax.Array:
            w = weight.astype(x.dtype)
            if out is not None:
                shift = _sum(w, everyone, None) - out.astype(x.dtype) * y
            elif c is None:
                shift = _sum(w, everyone, y)
            else:
                shift = _sum(w, everyone, c) - w.sum() * (y - c)
            return shift if y is x else shift + (y - x)

        if common is None:
            displacement = jax.tree.map(lambda x, y, e: moved(x, y, e, None), tree, own, received)
        else:
            displacement = jax.tree.map(lambda x, y, e, c: moved(x, y, e, c), tree, own, received, common)
        return displacement, MixState(clock.tick(), ring, seen)

    return Mix(init, apply)


# What a worker receives: a tree whose leaves are arrays [senders, ...], or, of few senders, tuples of as many arrays.


def _each(number: int, of: Callable[[Any], Tree]) -> Tree:
    """What is received, where `of(s)` is what sender s sends (all of them, where s is a slice)."""
    return of(slice(None)) if number > UNROLLED else _listed([of(s) for s in range(number)])


def _listed(parts: list[Tree]) -> Tree:
    return jax.tree.map(lambda *x: x, *parts)


def _all(received: Any) -> jax.Array:
    return jnp.stack(received) if isinstance(received, tuple) else received


def _either(first: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """As `a` where `first` [senders], else b; both [senders, ...]."""
    return jnp.where(first.reshape(-1, *[1] * (a.ndim - 1)), a, b)


def _kept(arrived: jax.Array, weight: jax.Array, policy: str) -> jax.Array:
    """[senders] the weights of what arrived: as they are, or rescaled so that with one's own they sum to one."""
    kept = jnp.where(arrived, weight, 0)
    if policy == "keep_self":
        return kept
    got = kept.sum()  # 0: nothing arrived, and oneself is kept
    return jnp.where(got == 0, 0, kept / jnp.where(got == 0, 1, 1 - weight.sum() + got))


def _remembered(arrived: jax.Array, at: jax.Array, received: Tree, seen: Tree) -> tuple[Tree, Tree]:
    """(what arrived, or was last seen of each sender, the memory brought up to date); `at`: a sender's place in it."""
    now = jax.tree.map(lambda s, r: _either(arrived, _all(r), s[at]), seen, received)
    return now, jax.tree.map(lambda s, r: s.at[at].set(r), seen, now)


def _sum(w: jax.Array, received: Any, c: Any) -> jax.Array:
    """Σ_s w_s (x_s - c)."""
    if isinstance(received, tuple):
        terms = [w[s] * (x if c is None else x - c) for s, x in enumerate(received)]
        return sum(terms[1:], terms[0])
    return jnp.tensordot(w, received if c is None else received - c, axes=1, precision=lax.Precision.HIGHEST)


def _of_worker_0(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: lax.all_gather(x, AXIS)[0], tree)


def _ages(staleness: Any, who: jax.Array, worker: Any) -> Ages:
    """`staleness` in any of its forms, sender by sender."""
    if isinstance(staleness, Ages):
        return staleness
    staleness = jnp.asarray(staleness)
    if staleness.ndim == 0:
        return Ages(staleness, staleness)
    return Ages(staleness[who], staleness[worker])


def _fresh(links: Form, step: Any, worker: Any, tree: Tree) -> Tree:
    """What each sender has now."""
    if links.pairs is not None:
        return links.travel(step, lambda pairs: _listed([lax.ppermute(tree, AXIS, p) for p in pairs]))
    everyone = lax.all_gather(tree, AXIS)
    if isinstance(links, Dense):
        return everyone
    who, _ = senders(links, step, worker)
    return _each(len(who), lambda s: jax.tree.map(lambda x: x[who[s]], everyone))


def _old(links: Form, clock: Clock, worker: Any, ring: Tree, age: Ages) -> Tree:
    """What each sender had as many steps ago as its age says. Senders read their own rings."""
    if jnp.ndim(age.senders) == 0:
        return _fresh(links, clock.step, worker, delays.read(ring, clock, age.senders))
    if links.pairs is not None:

        def send(pairs: Any) -> Tree:
            parts = []
            for s, there in enumerate(pairs):  # the reader tells the sender how old a model it reads
                asked = lax.ppermute(age.senders[s], AXIS, [(reader, sender) for sender, reader in there])
                parts.append(lax.ppermute(delays.read(ring, clock, asked), AXIS, there))
            return _listed(parts)

        return links.travel(clock.step, send)
    who, _ = senders(links, clock.step, worker)
    everyone = lax.all_gather(ring, AXIS)  # [n, slots, ...]

    def read(s: Any) -> Tree:
        return jax.tree.map(lambda r: r[who[s], (clock.step - age.senders[s]) % r.shape[1]], everyone)

    return read(slice(None)) if isinstance(links, Dense) else _each(len(who), read)


def _arrived(links: Form, now: Any, loss: LinkLoss, seed: Any, step: Any) -> jax.Array:
    """[n, senders] bool: which links work at `step`. A function of (seed, step, link) alone, not of the form."""
    n = now.weight.shape[0]
    reader = jnp.arange(n, dtype=jnp.uint32)[:, None]
    sender = jnp.arange(n, dtype=jnp.uint32)[None] if isinstance(now, Dense) else now.index.astype(jnp.uint32)
    first, second = (jnp.minimum(reader, sender), jnp.maximum(reader, sender)) if loss.symmetric else (reader, sender)
    u = draws.uniform_at(seed, draws.EVERYONE, step, draws.LINKS, first * np.uint32(n) + second)
    return u >= jnp.asarray(loss.probability, jnp.float32)


def spanning_tree(network: Any) -> nx.Graph:
    """The breadth-first tree from worker 0: what a method on trees makes of any connected undirected graph.

    Raises:
      InputError: a directed graph, a sequence, or one that falls apart.
    """
    if not isinstance(network, nx.Graph) or network.is_directed():
        raise InputError("topology: relay_sgd needs an undirected graph that stays; try binary_tree, path or star")
    links = adjacency(network)
    order, parent = csgraph.breadth_first_order(csr_array(links), 0, directed=False)
    if len(order) < len(links):
        raise InputError(
            f"topology: relay_sgd needs a connected graph, worker 0 reaches {len(order)} of {len(links)}; add edges"
        )
    tree: nx.Graph = nx.Graph()
    tree.add_nodes_from(range(len(links)))
    tree.add_edges_from((int(parent[i]), int(i)) for i in order[1:])
    return tree


def relay_ages(w: np.ndarray) -> np.ndarray:
    """[n, n] int32: max(hops - 1, 0) between workers on the tree that W [n, n] has its links from."""
    hops = csgraph.shortest_path(csr_array(w != 0), unweighted=True)
    return np.maximum(hops - 1, 0).astype(np.int32)


def relay(network: Any) -> Mix:
    """The mix of `relay_sgd`: the mean of all models, each as old as its way along the tree is long.

    Args:
      network: a tree, or a connected undirected graph, whose `spanning_tree` is taken.
    """
    tree = spanning_tree(network)
    n = len(tree)
    return mix(form(np.full((n, n), 1 / n), "dense"), ages=relay_ages(adjacency(tree) + np.eye(n)))
