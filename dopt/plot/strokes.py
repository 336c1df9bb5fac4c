"""What pictures are made of: medians with bands, ticks, and so on, each drawn in one way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis


def line(axes: Axes, x: str, rows: pd.DataFrame, look: Mapping[str, Any], label: str | None = None) -> None:
    """A median with its band of quartiles; where it stops being finite, a cross marks the end of the curve.

    Args:
      x: the column of `rows` to draw along.
      look: colour, line style and so on, as `style.look` gives them.
    """
    rows = rows.sort_values(x, kind="stable")
    at, median = rows[x].to_numpy(float), rows["median"].to_numpy(float)
    finite = np.isfinite(median)
    axes.plot(at[finite], median[finite], label=label, **look)
    banded = finite & np.isfinite(rows["high"].to_numpy(float))
    axes.fill_between(
        at[banded],
        rows["low"].to_numpy(float)[banded],
        rows["high"].to_numpy(float)[banded],
        color=look.get("color"),
        alpha=0.18,
        linewidth=0,
    )
    if finite.any() and not finite.all():
        last = np.flatnonzero(finite)[-1]
        axes.plot(at[last], median[last], marker="x", color=look.get("color"), markersize=6, markeredgewidth=1.5)


def ticks(axis: Axis, values: Sequence[float]) -> None:
    """Ticks of an axis at these values alone, written out: what a logarithmic one of few decades needs."""
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_ticks([], minor=True)
