"""When the stages of a model compute: GPipe's pipeline of micro-batches (Huang et al. 2018, 1811.06965, figure 2c).

Each micro-batch goes forward through all stages and, when the last one is through, backward through all of them in the
other direction. Who computes when follows from what it waits for alone; `dopt.theory.pipeline_bubble` is the closed form.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dopt.schedule.table import COMPUTING, WAITING, WASTED, Intervals
from dopt.types import InputError

FORWARD = 1 / 3  # of the work of a gradient: backward, each product is taken twice


class Pipeline(NamedTuple):
    """The computation of one batch, a row for each stage, micro-batch and direction. The whole is one second's work."""

    stage: np.ndarray  # [rows] int32
    micro_batch: np.ndarray  # [rows] int32
    backward: np.ndarray  # [rows] bool
    begin: np.ndarray  # [rows] float64: seconds
    end: np.ndarray  # [rows] float64

    @property
    def stages(self) -> int:
        return int(self.stage.max()) + 1

    @property
    def seconds(self) -> float:
        """Until the last stage is through."""
        return float(self.end.max())

    @property
    def idle(self) -> float:
        """Share of the stages' time in which they wait: the bubble."""
        return 1 - float((self.end - self.begin).sum()) / (self.seconds * self.stages)


def pipeline(stages: int, micro_batches: int) -> Pipeline:
    """The pipeline of so many equal stages and micro-batches; messages take no time.

    Raises:
      InputError: less than one of either.
    """
    for name, value in (("stages", stages), ("micro_batches", micro_batches)):
        if value < 1:
            raise InputError(f"pipeline: {name} must be at least 1, got {value}")
    share = np.array([FORWARD, 1 - FORWARD]) / (stages * micro_batches)
    free = np.zeros(stages)  # when each stage has done what it was given
    rows = []

    def through(backward: bool, order: range, micro_batch: int) -> None:
        known = free[order[0]]  # when what the next stage needs is there
        for stage in order:
            begin = max(known, free[stage])
            known = free[stage] = begin + share[int(backward)]
            rows.append((stage, micro_batch, backward, begin, known))

    for m in range(micro_batches):
        through(False, range(stages), m)
    for m in reversed(range(micro_batches)):
        through(True, range(stages - 1, -1, -1), m)
    stage, micro_batch, backward, begin, end = map(np.array, zip(*rows, strict=True))
    return Pipeline(stage.astype(np.int32), micro_batch.astype(np.int32), backward, begin, end)


def by_stage(told: Intervals, stages: Pipeline) -> Intervals:
    """What each stage of each worker does, worker by worker: it computes or waits while its worker computes.

    What was cut short is drawn as a short computation.
    """
    count, seconds = stages.stages, stages.seconds
    order = np.lexsort((stages.begin, stages.stage))
    stage, begin, end = stages.stage[order], stages.begin[order], stages.end[order]
    first, last = np.diff(stage, prepend=-1) != 0, np.diff(stage, append=-1) != 0
    before = np.where(first, 0.0, np.roll(end, 1))
    which = np.concatenate([stage, stage, stage[last]])
    busy = np.arange(len(which)) < len(stage)
    part = np.concatenate([[begin, end], [before, begin], [end[last], np.full(count, seconds)]], axis=1) / seconds

    computes = np.isin(told.kind, (COMPUTING, WASTED))
    worker, kind, start, length = told.worker, told.kind, told.begin, told.end - told.begin
    of, rest = computes[:, None] & (part[1] > part[0]), ~computes[:, None] & np.ones(count, bool)
    (i, j), (k, s) = np.nonzero(of), np.nonzero(rest)
    at = start[i] + part[:, j] * length[i]
    return Intervals(
        np.concatenate([count * worker[i] + which[j], count * worker[k] + s]),
        np.concatenate([np.where(busy[j], kind[i], WAITING), kind[k]]),
        np.concatenate([at[0], told.begin[k]]),
        np.concatenate([at[1], told.end[k]]),
    )
