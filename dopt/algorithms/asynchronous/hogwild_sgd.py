"""x[c] <- x[c] + u(g)[c] where g[c] ≠ 0, g = ∇fᵢ(x̃), x̃[c] = x^{k - τ_{k,c}}[c]: shared memory without locks.

Niu, Recht, Ré, Wright 2011, 1106.5730 (Hogwild!). Reads are inconsistent: each coordinate is as old as the delay law draws it, x⁰ before
the start. Only coordinates that a gradient touches are written, and each write is lost with probability `lost_writes`, as where two
threads write at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from dopt import delays, draws, rings
from dopt.algorithms.method import Method, Rate, arriving, clock
from dopt.algorithms.server import Arrivals, ServerProgram, Tables
from dopt.types import Clock, InputError, Tree


class HogwildState(NamedTuple):
    inner: optax.OptState
    clock: Clock


@arriving(
    source="Niu, Recht, Ré, Wright 2011, 1106.5730",
    staleness="coordinate",
    steps="scaled",
)
def hogwild_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    lost_writes: float = 0.0,
    slots: int = 1,
    distribution: Any = (1.0,),
    seed: Any = 0,
) -> Method:
    """Hogwild!: threads read and write one model at once, coordinate by coordinate.

    Args:
      lost_writes: probability with which a coordinate's write is lost.
      slots: largest delay + 1.
      distribution: [slots] distribution function of the delay (`dopt.delays.cumulative`).
      seed: of the delays and losses.
    """
    if not 0 <= lost_writes < 1:
        raise InputError(f"algorithm.lost_writes: must lie in [0, 1), got {lost_writes}")
    inner = optax.with_extra_args_support(optimizer)
    law = jnp.asarray(distribution)

    def luck(step: jax.Array, stream: np.uint32, count: int) -> jax.Array:
        return draws.uniforms(seed, draws.EVERYONE, step, stream, count)

    def init(params: Tree) -> HogwildState:
        return HogwildState(inner.init(params), clock())

    def update(grads: Tree, state: HogwildState, params: Tree = None, **extra: object) -> tuple[Tree, HogwildState]:
        updates, new = inner.update(grads, state.inner, params, **extra)
        touched, back = ravel_pytree(grads)
        written = touched != 0
        if lost_writes:
            written &= luck(state.clock.step, draws.LINKS, touched.size) >= jnp.float32(lost_writes)
        kept = jax.tree.map(lambda u, w: jnp.where(w != 0, u, 0), updates, back(written.astype(touched.dtype)))
        return kept, HogwildState(new, state.clock.tick())

    def begin(params: Tree, workers: int, kept: int) -> Tables:
        return Tables(params, init(params), rings.ring(ravel_pytree(params)[0], slots))

    def event(tables: Tables, arrivals: Arrivals, gradient: Callable[..., Tree]) -> Tables:
        now, (flat, back) = tables.state.clock, ravel_pytree(tables.params)
        ring = rings.write(tables.models, now, flat)
        age = delays.at(law, luck(now.step, draws.DELAYS, flat.size))
        read = ring[(now.step - age) % slots, jnp.arange(flat.size)]
        updates, state = update(gradient(back(read), 0, 0), tables.state, tables.params)
        return Tables(optax.apply_updates(tables.params, updates), state, ring)

    return Method(init, update, server=ServerProgram(begin, event))
