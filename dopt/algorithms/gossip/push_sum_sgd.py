"""X <- P(X + u(G(Z))), w <- P w, Z = X/w: the weights w undo the bias of a directed graph.

Nedić-Olshevsky 2016 (subgradient-push); Assran et al. 2019, stochastic gradient push, 1811.10792, algorithm 1. P is
column-stochastic, w⁰ = 1. The model is Z: gradients are taken there, and it is what `params` holds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dopt.algorithms.method import Method, Rate, gossip
from dopt.algorithms.traits import Neighbours
from dopt.algorithms.trees import add, subtract
from dopt.types import Mix, Tree


class PushState(NamedTuple):
    inner: optax.OptState
    mix: Any
    mass: Tree  # X, like params
    weight: jax.Array  # [] w


def ones(params: Tree) -> jax.Array:
    """[] the weight at the start, in the precision of the model."""
    return jnp.ones((), jnp.result_type(*jax.tree.leaves(params)))


def ratio(mass: Tree, weight: jax.Array) -> Tree:
    return jax.tree.map(lambda x: x / weight.astype(x.dtype), mass)


@gossip(source="Assran et al. 2019, 1811.10792", sends=Neighbours("column stochastic"))
def push_sum_sgd(optimizer: optax.GradientTransformation, mix: Mix, *, learning_rate: Rate | None = None) -> Method:
    """Stochastic gradient push: gossip on directed graphs."""
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> PushState:
        weight = ones(params)
        return PushState(inner.init(params), mix.init((params, weight)), params, weight)

    def update(grads: Tree, state: PushState, params: Tree, **extra: object) -> tuple[Tree, PushState]:
        updates, new = inner.update(grads, state.inner, params, **extra)
        half = add(state.mass, updates)
        moved, mixed = mix.apply((half, state.weight), state.mix, **extra)
        mass, weight = add((half, state.weight), moved)
        return subtract(ratio(mass, weight), params), PushState(new, mixed, mass, weight)

    return Method(init, update)
