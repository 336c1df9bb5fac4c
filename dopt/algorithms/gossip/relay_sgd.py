"""xᵢ <- (1/n) Σⱼ (xⱼ + u(gⱼ))^{k-τ_ij}, τ_ij = max(hops(i, j) - 1, 0), x⁰ before the start: sums relayed along a tree.

Vogels et al. 2021, RelaySum, 2110.04175, algorithm 1. Every worker's step reaches every other one in full, as late as
the way along the tree is long; all weights are 1/n. The mix is `dopt.mixing.relay`: the mean of old models, each worker keeping a ring of
its own, which is what relaying sums to; what travels is one sum along each edge.
"""

from __future__ import annotations

import optax

from dopt.algorithms.gossip.gossip_sgd import gossip_sgd
from dopt.algorithms.method import Method, Rate, gossip
from dopt.algorithms.traits import Neighbours
from dopt.types import Mix


@gossip(source="Vogels et al. 2021, 2110.04175", sends=Neighbours("tree", mixes_once=False))
def relay_sgd(optimizer: optax.GradientTransformation, mix: Mix, *, learning_rate: Rate | None = None) -> Method:
    """RelaySGD: exact averages on a tree; steps arrive late, but in full.

    Args:
      mix: `dopt.mixing.relay(graph)`.
    """
    return gossip_sgd(optimizer, mix, adapt_then_combine=True)
