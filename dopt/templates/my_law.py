"""A law of delays: no delay, except for a share of the messages, which have the longest delay.

A law of compute times is registered by @dopt.register.cluster instead.
"""

import numpy as np

import dopt
from dopt.registry import Share


@dopt.register.law(source="where the idea is from")
def my_law(*, max: int, share: Share = 0.1) -> np.ndarray:
    """The first line is what `dopt list` says.

    Args:
      max: the longest delay in steps, which every law has: delay.max.
      share: options are keyword-only parameters, here delay.share; their types are checked, and so is the range of this one.
    """
    table = np.zeros(max + 1)  # probabilities of 0..max steps, which sum to one
    table[0] += 1 - share
    table[max] += share
    return table
