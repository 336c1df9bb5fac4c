"""When the stages of a model compute: GPipe's pipeline of micro-batches (Huang et al. 2018, 1811.06965, figure 2c).

Each micro-batch goes forward through all stages and, when the last one is through, backward through all of them in the
other direction. Who computes when follows from what it waits for alone; `dopt.theory.pipeline_bubble` is the closed form.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
