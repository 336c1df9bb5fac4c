"""The few types that everything shares: the named axes, a problem, a user's error, a counter common to all workers, and what mixes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import jax
    import numpy as np

AXIS = "workers"
MODEL = "model"  # of the parts of one worker's model, where a problem has a layout
PARTS, WHOLE = "parts", "whole"  # keys of such params: what is split over that axis, and what is not

Tree = Any  # a pytree of arrays
Params = Any  # a pytree of arrays: one worker's model
Batch = Any  # a pytree of arrays, leaves [batch, ...]
Key: TypeAlias = "jax.Array"
Array: TypeAlias = "np.ndarray | jax.Array"  # made on the host, or traced
Devices: TypeAlias = "Sequence[jax.Device]"
Whole: TypeAlias = "int | np.integer | jax.Array"  # a whole number, which may be traced: a step, a worker, a seed


class InputError(ValueError):
    """What a user can mend: one line that names the argument, the rule, the value, and what would work."""


class MachineError(OSError):
    """What the machine refuses (disk, memory, rights): one line that says what, and what would work. The command ends with 1."""


class Clock(NamedTuple):
    """A count of steps that is the same on all workers and in all runs of a slab.

    The engine keeps it out of every vmap: a ring that is indexed by it is written by a slice instead of a scatter.
    """

    step: jax.Array  # [] int32

    def tick(self) -> Clock:
        return Clock(self.step + 1)


class Mix(NamedTuple):
    """A mixing matrix from the view of one worker.

    init(tree) -> state; apply(tree, state, **extra) -> (displacement W x - x, state), called once per step on one tuple
    of all that travels.
    """

    init: Callable[[Tree], Any]
    apply: Callable[..., tuple[Tree, Any]]


class Coordination(NamedTuple):
    """Whose gradients make an update, and who waits for whom: all that an asynchronous method tells the clock.

    With the defaults every gradient is an update, and its worker pulls right after it.
    """

    gradients: int | None = None  # of an update; None: one, and pushes of one instant pull one by one
    limit: int | None = None  # a gradient whose staleness exceeds it is dropped; None: none is
    counts_dropped: bool = (
        False  # the staleness that `limit` bounds counts all gradients since the pull, dropped ones too
    )
    stop: bool = False  # work that has become staler than `limit` is aborted at once
    waits: bool = False  # who has pushed waits for the update that its gradient goes into
    slack: int | None = None  # who is more than so many pushes ahead of the slowest waits; None: nobody
    per_worker: bool = False  # the update is the mean of each worker's own mean, when all have some
    power: float = 0.0  # a gradient of an update counts (1 + staleness)^-power
    local_steps: int = 1  # computations between a pull and a push
    pairs: bool = False  # no server: who has computed averages with a neighbour drawn by chance


class Reduction(NamedTuple):
    """What the workers of a synchronous method reduce together, and at which steps: what its clock and its bytes count."""

    period: int = 1  # at every so many steps
    begin: int = 0  # counted from this step; until then, at each
    participation: float = 1.0  # the part of the workers that takes part; the others only receive
    gathers: bool = False  # messages that cannot be added on their way: all reach everybody
    bits: Callable[[Tree], tuple[int, ...]] | None = None  # of each message, by a model's shapes; None: the model

    def count(self, steps: int | np.ndarray) -> Any:
        """How often they have reduced after so many steps."""
        import numpy as np

        late = np.maximum(np.asarray(steps) - self.begin, 0)
        return np.minimum(steps, self.begin) + late // self.period

    def participants(self, workers: int) -> int:
        return max(1, round(self.participation * workers))


class Layout(NamedTuple):
    """How a worker's model lies on several devices: params = {"parts": leaves [parts, ...], "whole": what is not split}.

    The loss of such a problem has collectives over an axis "model" that it makes itself, by `vmap`; the executor `mesh`
    lays that axis over devices.
    """

    parts: int  # S, the length of the axis
    split: Callable[[Params], Params]  # of the same model without a layout, no worker axis
    whole: Callable[[Params], Params]  # and back
    micro_batches: int = 1  # M, into how many a batch is cut


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
      metrics: name -> (params, test) -> scalar, in the precision of params: JAX's own mean of truth values is float32.
      optimum: f*, or a function that computes it; None: unknown.
      start: models to start from, leaves [workers, ...], for problems whose workers start apart.
      weighted: weigh worker i by its number of samples in f; so do its gradients, or its model where models are averaged after local steps.
      touched: batch size -> (numbers, indices) of the rows that a gradient of so many samples touches, at most; it is zero elsewhere,
        so that no more travels to a server or from it. None: a gradient is as large as the model.
      note: one line on what is left out of the metrics, and why.
      layout: how the model lies on several devices; None: it is whole.
      weighted_loss: (params, batch, weights) -> scalar, the mean of the samples' losses by `weights` [samples], which sum to one;
        equal ones give `loss`. By it metrics look at all workers' samples at once, padding with weight 0. None: `loss` serves, at
        more time to compile, since a mean over a batch knows no padding.
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
    touched: Callable[[int], tuple[int, int]] | None = None
    note: str = ""
    layout: Layout | None = None
    weighted_loss: Callable[[Params, Tree, jax.Array], jax.Array] | None = field(default=None, metadata={"later": True})
