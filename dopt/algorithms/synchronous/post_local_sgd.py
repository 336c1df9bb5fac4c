"""x <- x + u(mean gᵢ) until the switch, then local SGD: xᵢ <- xᵢ + u(gᵢ), and a mean after every H-th step.

Lin, Stich, Patel, Jaggi 2018, 1808.07217, section 3 (post-local SGD). Where the problem is weighted, so are the gradients until the
switch, and the models after it.
"""

from __future__ import annotations

import jax
import optax
from jax import lax

from dopt.algorithms.method import Method, Rate, at_boundary, at_least, clock, synchronous
from dopt.algorithms.synchronous.local_sgd import LocalState
from dopt.algorithms.traits import AllReduce
from dopt.algorithms.trees import add, mean_model, subtract
from dopt.types import Reduction, Tree


@synchronous(
    source="Lin et al. 2018, 1808.07217",
    sends=lambda options, workers: AllReduce(Reduction(options["local_steps"], begin=options["switch_step"])),
    weighs="models",
    steps="first",
)
def post_local_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    switch_step: int = 100,
    local_steps: int = 10,
) -> Method:
    """All-reduce at first, local SGD later.

    Args:
      switch_step: the first step that is local.
      local_steps: H, from there on.
    """
    at_least("switch_step", switch_step, 0)
    at_least("local_steps", local_steps)
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> LocalState:
        return LocalState(inner.init(params), clock())

    def update(
        grads: Tree, state: LocalState, params: Tree, *, share: jax.Array | None = None, **extra: object
    ) -> tuple[Tree, LocalState]:
        step = state.clock.step
        together = step < switch_step
        used = lax.cond(together, lambda: mean_model(grads, share), lambda: grads)
        updates, new = inner.update(used, state.inner, params, **extra)

        def boundary() -> Tree:
            return subtract(mean_model(add(params, updates), share), params)

        def local() -> Tree:
            return at_boundary(step, local_steps, boundary, lambda: updates, begin=switch_step)

        return lax.cond(together, lambda: updates, local), LocalState(new, state.clock.tick())

    return Method(init, update)
