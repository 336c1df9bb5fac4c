"""x^{k+1} = x^k + u((1/n) Σᵢ gᵢ), where the gradients are τ_k steps old; no cluster, the delay follows a law.

`read="iterate"`: gᵢ = ∇fᵢ(x^{max(0, k-τ_k)}; batch_k), from a ring of models (Agarwal-Duchi 2011, 1104.5525; Arjevani et
al. 2018, 1806.10188, eq. 2). `read="queue"`: gradients of the present model wait in a ring and each is applied once, τ
steps later; nothing is applied in the first τ steps (constant τ only).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dopt import rings
from dopt.algorithms.method import Method, Rate, algorithm
from dopt.algorithms.traits import AllReduce
from dopt.algorithms.trees import mean, select
from dopt.types import Clock, InputError, Tree


class DelayedState(NamedTuple):
    inner: optax.OptState
    ring: Tree  # leaves [slots, ...]: old models (iterate) or waiting gradients (queue)
    clock: Clock


@algorithm(
    family="asynchronous",
    source="Agarwal-Duchi 2011, 1104.5525; Arjevani et al. 2018, 1806.10188",
    sends=AllReduce(),
    staleness="step",
)
def delayed_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    slots: int = 1,
    read: str = "iterate",
) -> Method:
    """Gradient descent on gradients that are τ steps old.

    Args:
      slots: length of the ring, largest delay + 1.
      read: "iterate" or "queue", as above.

    `update` and `read` take `staleness` ([] int32) as an extra argument; it is slots - 1 where they are not told.
    """
    if read not in ("iterate", "queue"):
        raise InputError(f"algorithm.read: must be iterate or queue, got {read!r}")
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> DelayedState:
        fill = params if read == "iterate" else jax.tree.map(jnp.zeros_like, params)
        return DelayedState(inner.init(params), rings.ring(fill, slots), Clock(jnp.zeros((), jnp.int32)))

    def old_model(
        state: DelayedState, params: Tree, *, staleness: jax.Array | int = slots - 1, **extra: object
    ) -> Tree:
        # the same write as the update's, which the compiler does once: a fresh read finds the model of now
        return rings.read(rings.write(state.ring, state.clock, params), state.clock, staleness, params)

    def iterate(grads: Tree, state: DelayedState, params: Tree, **extra: object) -> tuple[Tree, DelayedState]:
        updates, new = inner.update(mean(grads), state.inner, params, **extra)
        return updates, DelayedState(new, rings.write(state.ring, state.clock, params), state.clock.tick())

    def queue(
        grads: Tree, state: DelayedState, params: Tree, *, staleness: jax.Array | int = slots - 1, **extra: object
    ) -> tuple[Tree, DelayedState]:
        ring = rings.write(state.ring, state.clock, mean(grads))
        arrived = rings.read(ring, state.clock, staleness, grads)
        updates, new = inner.update(arrived, state.inner, params, **extra)
        there = state.clock.step >= staleness
        updates = select(there, updates, jax.tree.map(jnp.zeros_like, updates))
        return updates, DelayedState(select(there, new, state.inner), ring, state.clock.tick())

    return Method(init, iterate, old_model) if read == "iterate" else Method(init, queue)
