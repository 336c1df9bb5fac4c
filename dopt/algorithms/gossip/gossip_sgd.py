"""X <- W X + u(G) (combine then adapt, the lecture's order), or X <- W (X + u(G)) (adapt then combine).

Nedić-Ozdaglar 2009; Lian et al. 2017, D-PSGD, 1705.09056, algorithm 1. Both orders take the gradient at X.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from dopt.algorithms.method import Method, add, method
from dopt.types import Tree


class GossipState(NamedTuple):
    inner: optax.OptState
    mix: Any


@method(
    family="gossip",
    source="Lian et al. 2017, 1705.09056",
    sends="neighbours",
    needs="doubly stochastic",
    cluster="neighbours",
)
def gossip_sgd(
    optimizer: optax.GradientTransformation, mix: Any, *, learning_rate: Any = None, adapt_then_combine: bool = False
) -> Method:
    """Decentralized SGD: average with the neighbours and step on one's own gradient."""
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> GossipState:
        return GossipState(inner.init(params), mix.init(params))

    def update(grads: Tree, state: GossipState, params: Tree, **extra: Any) -> tuple[Tree, GossipState]:
        updates, new = inner.update(grads, state.inner, params, **extra)
        travels = add(params, updates) if adapt_then_combine else params
        moved, mixed = mix.apply(travels, state.mix, **extra)
        return add(updates, moved), GossipState(new, mixed)

    return Method(init, update)
