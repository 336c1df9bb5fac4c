"""Curves made small: at most 200 records of each run, among them the extremes of each column, as whole numbers of 16 bits.

A curve spans 65532 levels between its least and its largest finite value: equal steps, or, where all are positive and span more
than a factor of `WIDE`, equal ratios. So the error is at most half a step. The four codes above are what is no such number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

POINTS = 200
LARGEST = 65531
ZERO, BELOW, ABOVE, NONE = range(LARGEST + 1, LARGEST + 5)  # 0 among ratios, -inf, inf, missing
WIDE = 100.0


class Coded(NamedTuple):
    """One column of all curves, one curve after the other."""

    codes: np.ndarray  # [points] uint16
    low: np.ndarray  # [curves] float64: of code 0; a logarithm where `ratios`
    high: np.ndarray  # [curves] float64: of code LARGEST
    ratios: np.ndarray  # [curves] bool

    @property
    def error(self) -> float:
        """The largest error, as a share: of the span of its curve, or, of ratios, of the value."""
        step = 0.5 / LARGEST
        wide = (self.high - self.low)[self.ratios].max(initial=0.0)
        return float(max(step, np.expm1(step * wide)))

    def values(self, count: np.ndarray) -> np.ndarray:
        """[points] float64: the numbers, as the page reads them. `count`: [curves] points of each."""
        low, high, ratios = (np.repeat(each, count) for each in (self.low, self.high, self.ratios))
        with np.errstate(over="ignore"):
            found = low + (high - low) * (self.codes / LARGEST)
            found = np.where(ratios, np.exp(found), found)
        for code, value in ((ZERO, 0.0), (BELOW, -np.inf), (ABOVE, np.inf), (NONE, np.nan)):
            found[self.codes == code] = value
        return found


def chosen(columns: Sequence[np.ndarray], most: int = POINTS) -> np.ndarray:
    """Which records of a run to keep, in order: first and last, the extremes of each column and its last finite value, and others evenly between.

    Args:
      columns: what was measured, [records] each.
    """
    records = len(columns[0]) if columns else 0
    if records <= most:
        return np.arange(records)
    kept = {0, records - 1}
    for column in columns:
        finite = np.flatnonzero(np.isfinite(column))
        if len(finite):
            inner = column[finite]
            kept |= {int(finite[place]) for place in (inner.argmin(), inner.argmax(), -1)}
    first = np.array(sorted(kept))[:most]
    even = np.linspace(0, records - 1, most - len(first) + 2).round().astype(int)[1:-1]
    return np.union1d(first, even)


def coded(values: np.ndarray, count: np.ndarray) -> Coded:
    """A column in 16 bits.

    Args:
      values: [points], curve after curve.
      count: [curves] points of each.
    """
    values = np.asarray(values, np.float64)
    curve, curves = np.repeat(np.arange(len(count)), count), len(count)
    finite = np.isfinite(values)
    low, high = np.full(curves, np.inf), np.full(curves, -np.inf)
    np.minimum.at(low, curve[finite], values[finite])
    np.maximum.at(high, curve[finite], values[finite])
    least = np.full(curves, np.inf)  # of what is positive
    positive = finite & (values > 0)
    np.minimum.at(least, curve[positive], values[positive])
    ratios = (low >= 0) & (least < np.inf) & (high > WIDE * least)
    low, high = np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 0.0)
    low[ratios], high[ratios] = np.log(least[ratios]), np.log(high[ratios])
    of_ratios = ratios[curve]
    scaled = np.where(of_ratios, np.log(np.where(positive, values, 1.0)), np.where(finite, values, 0.0))
    span = np.where(high > low, high - low, 1.0)
    shares = np.clip((scaled - low[curve]) / span[curve], 0, 1)
    codes = np.rint(shares * LARGEST).astype(np.uint16)
    codes[of_ratios & finite & ~positive] = ZERO
    codes[np.isnan(values)], codes[values == np.inf], codes[values == -np.inf] = NONE, ABOVE, BELOW
    return Coded(codes, low, high, ratios)
