"""xᵢ <- xᵢ + u(gᵢ); after every H-th step xᵢ <- mean of x: each worker descends alone, and now and then all average.

Stich 2018, 1805.09767, algorithm 1; McMahan et al. 2017, 1602.05629, algorithm 1 (FedAvg): with `participation` p, a random p·n of the
workers take part in a round. The others rest: the moments of their optimizers stay as they are, but their schedules go on, since they
count the steps of the run. Then all go on from the mean of those who took part. Where the problem is weighted, worker k's model has
the weight n_k over the sum of theirs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from dopt import draws
from dopt.algorithms.method import Method, Rate, at_boundary, at_count, at_least, clock, synchronous
from dopt.algorithms.traits import AllReduce
from dopt.algorithms.trees import add, mean_model, scale, subtract, when, zeros
from dopt.types import AXIS, Clock, InputError, Reduction, Tree


class LocalState(NamedTuple):
    inner: optax.OptState
    clock: Clock


@synchronous(
    source="Stich 2018, 1805.09767",
    restarts=lambda options: options["participation"] < 1,
    sends=lambda options, workers: AllReduce(Reduction(options["local_steps"], participation=options["participation"])),
    weighs="models",
    steps="own",
)
def local_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    local_steps: int = 10,
    participation: float = 1.0,
    workers: int | None = None,
    seed: Any = 0,
) -> Method:
    """Local SGD (FedAvg): average the models at every H-th step only.

    Args:
      local_steps: H.
      participation: p, the share of the workers that take part in a round.
      workers: n.
      seed: of who takes part.
    """
    at_least("local_steps", local_steps)
    if not 0 < participation <= 1:
        raise InputError(f"algorithm.participation: must lie in (0, 1], got {participation}")
    if participation < 1 and workers is None:
        raise InputError("algorithm.participation: a value below 1 needs the number of workers; pass workers=")
    count = Reduction(participation=participation).participants(workers or 1)
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> LocalState:
        return LocalState(inner.init(params), clock())

    def update(
        grads: Tree, state: LocalState, params: Tree, *, share: jax.Array | None = None, **extra: object
    ) -> tuple[Tree, LocalState]:
        step, mine = state.clock.step, jnp.array(True)
        own = state.inner if participation == 1 else at_count(state.inner, step)
        updates, new = inner.update(grads, own, params, **extra)
        if participation < 1:
            mine = draws.subset(seed, step // local_steps, workers or 1, count)[lax.axis_index(AXIS)]
            updates, new = when(mine, updates, zeros(updates)), when(mine, new, state.inner)

        def boundary() -> Tree:
            half = add(params, updates)
            if participation == 1:
                return subtract(mean_model(half, share), params)
            if share is not None:
                return subtract(mean_model(half, when(mine, share, zeros(share))), params)
            total = lax.psum(when(mine, half, zeros(half)), AXIS)
            return subtract(scale(1 / count, total), params)

        return at_boundary(step, local_steps, boundary, lambda: updates), LocalState(new, state.clock.tick())

    return Method(init, update)
