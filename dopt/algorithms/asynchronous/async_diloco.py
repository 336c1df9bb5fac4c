"""At an arrival the outer optimizer steps on Δ = x^v - x_H, x_H after H local steps from the model that was pulled.

Liu et al. 2024, 2401.09135 (asynchronous Local-SGD); DiLoCo's outer optimizer is SGD with Nesterov momentum (2311.08105).

The local optimizer starts afresh in each round, but its schedules do not: they count the server's updates up to the pull. So the rate
falls over the steps of the run, as in other methods, and for slow workers as fast as for the others, although they do fewer rounds.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import optax

from dopt.algorithms.method import Method, Rate, arriving, at_least, outer_optimizer
from dopt.algorithms.server import local_descent, server, stepping
from dopt.algorithms.traits import Options, Server
from dopt.algorithms.trees import subtract
from dopt.registry import NotNegative, Share
from dopt.types import Coordination, Tree


def _sends(options: Options, workers: int) -> Server:
    return Server(Coordination(local_steps=options["local_steps"]))


@arriving(
    source="Liu et al. 2024, 2401.09135",
    sends=_sends,
    sends_model=True,
    restarts=True,
    weighs=None,
    steps="own",
)
def async_diloco(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    local_steps: int = 10,
    outer: str = "sgd",
    outer_learning_rate: NotNegative = 0.7,
    outer_momentum: Share = 0.9,
) -> Method:
    """Local SGD without a barrier: an outer optimizer steps on the workers' differences as they arrive.

    Args:
      local_steps: H.
      outer: sgd (with Nesterov momentum) or adam.
      outer_learning_rate, outer_momentum: of the outer optimizer.
    """
    at_least("local_steps", local_steps)
    descend = local_descent(optimizer, local_steps)

    def work(stale: Tree, gradient: Callable[..., Tree], version: jax.Array) -> Tree:
        return subtract(stale, descend(stale, gradient, count=version)[0])

    rule = stepping(outer_optimizer(outer, outer_learning_rate, outer_momentum))
    return Method(rule.init, rule.update, server=server(rule, work))
