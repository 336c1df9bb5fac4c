"""x <- x + η (1/K) Σ (1 + τ)^-p Δ over K arrivals, Δ = x_H - x^v after H local steps from the model that was pulled.

Nguyen et al. 2022, 2106.06639, algorithm 1 (FedBuff). Where the problem is weighted, the differences of worker k count n_k over the mean
of all n_k, as in `LinearExampleWeight` of FLSim, its authors' code. The sum is still divided by K, so that on average over equally
fast workers they count n_k/N.

The local optimizer starts afresh in each round, but its schedules do not: they count the server's updates up to the pull. So the rate
falls over the steps of the run, as in other methods, and for slow workers as fast as for the others, although they do fewer rounds.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import optax

from dopt.algorithms.method import Method, Rate, arriving, at_least
from dopt.algorithms.server import collecting, local_descent, server
from dopt.algorithms.traits import Options, Server
from dopt.algorithms.trees import subtract
from dopt.registry import NotNegative
from dopt.types import Coordination, InputError, Tree


def _sends(options: Options, workers: int) -> Server:
    return Server(Coordination(gradients=options["buffer"], power=options["power"], local_steps=options["local_steps"]))


@arriving(
    source="Nguyen et al. 2022, 2106.06639",
    sends=_sends,
    scheduled=("power",),
    sends_model=True,
    restarts=True,
    weighs="arrivals",
    steps="own",
)
def fedbuff(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    buffer: int = 10,
    local_steps: int = 1,
    power: NotNegative = 0.5,
    server_learning_rate: NotNegative = 1.0,
) -> Method:
    """Buffered asynchronous federated averaging.

    Args:
      buffer: K, arrivals per update.
      local_steps: H.
      power: p; a difference that is τ updates old counts (1 + τ)^-p.
      server_learning_rate: η.
    """
    at_least("buffer", buffer)
    at_least("local_steps", local_steps)
    if not power >= 0:
        raise InputError(f"algorithm.power: must not be negative, got {power}; 0.5 is usual")
    descend = local_descent(optimizer, local_steps)

    def work(stale: Tree, gradient: Callable[..., Tree], version: jax.Array) -> Tree:
        return subtract(descend(stale, gradient, count=version)[0], stale)

    rule = collecting(optax.scale(server_learning_rate), buffer, lambda staleness: (1.0 + staleness) ** -power)
    return Method(rule.init, rule.update, server=server(rule, work))
