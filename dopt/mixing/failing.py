"""Links that fail: which ones at a step, and what is done about what did not arrive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dopt import draws
from dopt.mixing.forms import Dense, Form
from dopt.mixing.received import either, stacked
from dopt.mixing.spectrum import Matrix
from dopt.registry import coerce, did_you_mean
from dopt.topology import Matchings
from dopt.types import InputError, Tree, Whole

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

    probability: ArrayLike  # [] may be traced
    policy: str = "keep_self"
    symmetric: bool = False  # a link fails in both directions at once

    @property
    def remembers(self) -> bool:
        """Whether each worker keeps what it last received of each sender."""
        return self.policy == "last_seen"


def check_own_weight(w: Matrix, method: str) -> None:
    """Refuse what `renormalise` would divide by: InputError where some worker gives itself a negative weight."""
    if isinstance(w, Matchings):
        return
    own = w.diagonal() if w.ndim == 2 else np.diagonal(w, axis1=1, axis2=2)
    if own.min() < 0:
        raise InputError(
            f"link_loss.policy: renormalise needs W_ii >= 0 for {method}, got {own.min():.3g}; use keep_self or other weights"
        )


def kept_weights(arrived: jax.Array, weight: jax.Array, policy: str) -> jax.Array:
    """[senders] the weights of what arrived: as they are, or rescaled so that with one's own they sum to one."""
    kept = jnp.where(arrived, weight, 0)
    if policy == "keep_self":
        return kept
    got = kept.sum()  # 0: nothing arrived, and oneself is kept
    return jnp.where(got == 0, 0, kept / jnp.where(got == 0, 1, 1 - weight.sum() + got))


def remembered(arrived: jax.Array, at: jax.Array, received: Tree, seen: Tree) -> tuple[Tree, Tree]:
    """(what arrived, or was last seen of each sender, the memory brought up to date); `at`: a sender's place in it."""
    now = jax.tree.map(lambda s, r: either(arrived, stacked(r), s[at]), seen, received)
    return now, jax.tree.map(lambda s, r: s.at[at].set(r), seen, now)


def arrivals(links: Form, now: Form, loss: LinkLoss, seed: Whole, step: Whole) -> jax.Array:
    """[n, senders] bool: which links work at `step`. A function of (seed, step, link) alone, not of the form."""
    n = now.weight.shape[0]
    reader = jnp.arange(n, dtype=jnp.uint32)[:, None]
    sender = jnp.arange(n, dtype=jnp.uint32)[None] if isinstance(now, Dense) else now.index.astype(jnp.uint32)
    first, second = (jnp.minimum(reader, sender), jnp.maximum(reader, sender)) if loss.symmetric else (reader, sender)
    u = draws.uniform_at(seed, draws.EVERYONE, step, draws.LINKS, first * np.uint32(n) + second)
    return u >= jnp.asarray(loss.probability, jnp.float32)


def loss_options(given: Mapping[str, object], method: str, needs: str) -> dict[str, Any]:
    """All options of failing links, checked, without their probability."""
    resolved = {"policy": "keep_self", "symmetric": False}
    for name, value in given.items():
        if name not in resolved:
            raise InputError(f"link_loss.{name}: no such option{did_you_mean(name, resolved)}")
        resolved[name] = coerce(f"link_loss.{name}", value, type(resolved[name]))
    policy = str(resolved["policy"])
    if policy not in POLICIES:
        raise InputError(f"link_loss.policy: unknown name {policy!r}{did_you_mean(policy, POLICIES)}")
    if "column" in needs and policy != "keep_self":
        raise InputError(
            f"link_loss.policy: {method} loses nothing only if the sender keeps what was not delivered, got {policy}; use keep_self"
        )
    return resolved
