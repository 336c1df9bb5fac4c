"""X¹ = X⁰ - αG⁰; X⁺ = ½(I + W)(2X - X⁻ - α(G - G⁻)): exact with a constant rate, which the graph does not limit.

Li et al. 2019, NIDS, 1704.07807, eq. (4). It is one local step, then exact diffusion from there with S = 0.
"""

from __future__ import annotations

import optax

from dopt.algorithms.gossip.exact_diffusion import diffusion
from dopt.algorithms.method import Method, Rate, gossip
from dopt.algorithms.traits import Neighbours
from dopt.types import Mix


@gossip(source="Li-Shi-Yan 2019, 1704.07807", sends=Neighbours("symmetric"), needs_linear_update=True)
def nids(optimizer: optax.GradientTransformation, mix: Mix, *, learning_rate: Rate | None = None) -> Method:
    """NIDS: the largest rate depends on the functions alone, not on the network."""
    return diffusion(optimizer, mix, fraction=0.5, local_first_step=True)
