"""What the program of a group is given: the values of its runs, and the samples of its workers."""

from __future__ import annotations

from typing import Any, NamedTuple

from dopt.types import Tree


class Inputs(NamedTuple):
    """What may differ between the runs of a group; stacked [runs, ...]."""

    seed: Any  # [] int32
    learning_rate: Any  # []
    form: Any  # the mixing matrix, or two of them; None: no mix
    modulus: Any  # [] ‖W - J‖₂, for methods that ask for it
    link_loss: Any  # [] probability with which a link fails; None: none does
    delay: Any  # [slots] distribution function of the delay; None: no delay, or one that is not drawn
    ages: Any  # [workers, workers] int32: how old each reader reads each sender, for good; None: it changes
    turns: Any  # Turns, leaves [waves, workers]: whose turn it is, where nobody waits; None: everyone's
    arrivals: Any  # Arrivals, leaves [steps, ...]: the schedule of a server; None: none
    length: Any  # [] int32 steps of this run, where the runs of a group differ in it; None: all alike


class Turns(NamedTuple):
    """Workers that wait for nobody: who updates in which wave."""

    applied: Any  # bool
    number: Any  # int32: which of the worker's computations it is


class Shard(NamedTuple):
    """All samples of one worker, or those that metrics look at."""

    head: Tree  # leaves [common, ...]: true on every worker
    tail: Tree  # leaves [rest, ...]: true up to `count`, then padding
    count: Any  # [] int32 true samples, head and tail together


class Weighed(NamedTuple):
    """What metrics look at of one worker, where the problem has a weighted loss."""

    samples: Tree  # leaves [samples, ...], padded
    weights: Any  # [samples], sum one; 0 of padding


class Data(NamedTuple):
    """One worker's samples (of an event-driven method: all workers', stacked)."""

    samples: Tree  # leaves [samples, ...]: where batches are drawn from
    count: Any  # [] int32 true samples
    whole: Shard | None  # for full local gradients; None: batches are drawn
    seen: Shard | Weighed  # what metrics look at
    share: Any  # [] the worker's weight in f, mean 1
