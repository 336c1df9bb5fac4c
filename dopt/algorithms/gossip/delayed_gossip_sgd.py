"""xᵢ <- W_ii xᵢ + Σ_{j≠i} W_ij xⱼ^{k-τ_ij} + u(gᵢ): neighbours' models are τ_ij steps old, one's own is fresh.

Combine then adapt over delayed links; models from before the start are x⁰ (Tsianos-Rabbat 2011). With `delay_self` one's own
model is as old as the others', which keeps the average on irregular graphs. The delays live in the mix. With `delay: cluster`
nobody waits: a worker that has computed mixes with the last models of its neighbours, as old as the clock makes them.
"""

from __future__ import annotations

from functools import partial

import optax

from dopt.algorithms.gossip.gossip_sgd import gossip_sgd
from dopt.algorithms.method import Method, Rate, gossip
from dopt.algorithms.traits import Neighbours
from dopt.types import Mix


@gossip(
    source="Tsianos-Rabbat 2011, distributed consensus under fixed delays",
    sends=Neighbours("doubly stochastic"),
    delayed=True,
)
def delayed_gossip_sgd(
    optimizer: optax.GradientTransformation, mix: Mix, *, learning_rate: Rate | None = None, delay_self: bool = False
) -> Method:
    """Decentralized SGD over slow links: neighbours' models are old.

    Args:
      mix: a delayed one, as `dopt.mixing.mix(W, delay=4)`; its extra argument `staleness` is handed on.
      delay_self: use an old model of one's own, too, as old as the others'.
    """
    return gossip_sgd(optimizer, mix._replace(apply=partial(mix.apply, delay_self=delay_self)))
