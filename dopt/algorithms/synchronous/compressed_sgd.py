"""q = C(e + g), e <- e + g - q, x <- x + u(mean q): an all-reduce of small messages, whose errors are sent later.

Karimireddy et al. 2019, error feedback, 1901.09847, algorithm 2; Seide et al. 2014 (1-bit SGD). Messages in which
all workers send the same coordinates (`random_k`), or all of them, are added on their way; each worker receives all others one by
one, and bytes are counted so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import optax

from dopt import compression
from dopt.algorithms.method import Method, Rate, clock, compressed, synchronous
from dopt.algorithms.traits import AllReduce, Options
from dopt.algorithms.trees import add, mean, subtract, zeros
from dopt.types import Clock, Reduction, Tree

ADDS = ("identity", "random_k")  # the sum of two messages is a message of the same size


class CompressedState(NamedTuple):
    inner: optax.OptState
    error: Tree  # e, like params
    operator: Any
    clock: Clock


def _sends(options: Options, workers: int) -> AllReduce:
    name = options["compressor"]
    own = {k: v for k, v in options.items() if k in compression.COMPRESSORS[name].known}
    operator = compression.make(name, **own)
    return AllReduce(Reduction(gathers=name not in ADDS, bits=lambda model: (operator.bits(model),)))


@synchronous(source="Karimireddy et al. 2019, 1901.09847", sends=_sends)
def compressed_sgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    seed: Any = 0,
    compressor: str = "top_k",
    error_feedback: bool = True,
    **operator: Any,
) -> Method:
    """All-reduce of compressed gradients, with error feedback.

    Args:
      compressor: a name in `dopt list compressors`; its own options are given like this one, as `algorithm.fraction`.
      error_feedback: send later what was lost; without it only unbiased operators converge, and more slowly.
      seed: of what the compressor draws.
    """
    inner = optax.with_extra_args_support(optimizer)
    shrink = compression.make(compressor, **operator)

    def init(params: Tree) -> CompressedState:
        return CompressedState(inner.init(params), zeros(params), shrink.init(params), clock())

    def update(
        grads: Tree, state: CompressedState, params: Tree = None, **extra: object
    ) -> tuple[Tree, CompressedState]:
        wanted = add(grads, state.error) if error_feedback else grads
        message, operator = compressed(shrink, wanted, state.operator, seed, state.clock.step)
        error = subtract(wanted, message) if error_feedback else state.error
        updates, new = inner.update(mean(message), state.inner, params, **extra)
        return updates, CompressedState(new, error, operator, state.clock.tick())

    return Method(init, update)
