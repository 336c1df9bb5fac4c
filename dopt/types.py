"""The few types that everything shares: the named axis, a problem, a user's error, and a counter common to all workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax

AXIS = "workers"

Tree = Any  # a pytree of arrays
Params = Any  # a pytree of arrays: one worker's model
Batch = Any  # a pytree of arrays, leaves [batch, ...]
Key = jax.Array


class InputError(ValueError):
    """What a user can mend: one line that names the argument, the rule, the value, and what would work."""


class Clock(NamedTuple):
    """A count of steps that is the same on all workers and in all runs of a slab.

    The engine keeps it out of every vmap: a ring that is indexed by it is written by a slice instead of a scatter.
    """

    step: jax.Array  # [] int32

    def tick(self) -> Clock:
        return Clock(self.step + 1)


@dataclass(frozen=True)
class Problem:
    """What the workers minimize together: f = (1/n) Σᵢ fᵢ, fᵢ the mean of `loss` over worker i's own samples.

    Attributes:
      init: key -> params, the model x⁰ from which every worker starts (no worker axis).
      loss: (params, batch) -> scalar, the mean over the batch; or (params, batch, key), where key is None when f itself
        is evaluated (no dropout, no added noise).
      data: leaves [workers, samples, ...]; shards shorter than `samples` are padded, and `counts` says where they end.
      counts: [workers] true samples of each worker; None: all shards are full.
      test: held-out data, leaves [samples, ...], handed to `metrics`.
      metrics: name -> (params, test) -> scalar.
      optimum: f*, or a function that computes it; None: unknown.
      start: models to start from, leaves [workers, ...], for problems whose workers start apart.
      weighted: weigh worker i by its number of samples in f.
      note: one line on what is left out of the metrics, and why.
    """

    init: Callable[[Key], Params]
    loss: Callable[..., jax.Array]
    data: Tree
    counts: Any = None
    test: Tree = None
    metrics: Mapping[str, Callable[[Params, Tree], jax.Array]] = field(default_factory=dict)
    optimum: float | Callable[[], float] | None = None
    start: Tree = None
    weighted: bool = False
    note: str = ""
