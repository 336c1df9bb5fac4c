"""What pictures are made of: medians with bands, ticks, and so on, each drawn in one way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dopt.plot.style import MARKERS, looks, shade

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from numpy.typing import ArrayLike


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


def path(axes: Axes, x: ArrayLike, y: ArrayLike, form: str = "", log: str = "", **look: Any) -> None:
    """A line, or marks, through points.

    Args:
      form: marker and dashes in short, as matplotlib reads them.
      log: which axes are logarithmic: x, y or xy.
    """
    axes.plot(x, y, *([form] if form else []), **look)
    for name in log:
        axes.set(**{f"{name}scale": "log"})


def band(axes: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, **look: Any) -> None:
    """What lies between two curves."""
    axes.fill_between(x, low, high, **look)


def level(axes: Axes, y: float, **look: Any) -> None:
    """A thin line at a height, as of a target."""
    axes.axhline(y, **{"color": "0.6", "linewidth": 0.6, **look})


def mark(axes: Axes, x: float, **look: Any) -> None:
    """A thin line at a place."""
    axes.axvline(x, **{"color": "0.6", "linewidth": 0.6, **look})


def region(axes: Axes, low: float, high: float) -> None:
    """Heights that are not what the curves are about, as those of rounding."""
    axes.axhspan(low, high, color="0.92", linewidth=0)


def note(axes: Axes, x: float, y: float, text: str, up: float = 0, **how: Any) -> None:
    """A few words at a point, so many typographic points above it."""
    if up:
        axes.annotate(text, (x, y), (0, up), textcoords="offset points", **how)
    else:
        axes.text(x, y, text, **how)


def key(where: Axes | Figure, *known: Any, **how: Any) -> None:
    """Which name is which curve: in a panel, or beside all."""
    where.legend(*known, **how)


def tile(axes: Axes, x: float, y: float, colour: str, hatch: str) -> None:
    """A square of side 1 around a point, pale and hatched, with a white rim."""
    from matplotlib.patches import Rectangle

    looks: list[dict[str, Any]] = [
        {"facecolor": colour, "alpha": 0.3, "linewidth": 0},
        {"fill": False, "edgecolor": colour, "alpha": 0.35, "hatch": hatch, "linewidth": 0},
        {"fill": False, "edgecolor": "white", "linewidth": 1.5},
    ]
    for look in looks:
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **look))


def shares(
    axes: Axes, place: float, parts: Mapping[str, float], looks: Mapping[str, Mapping[str, Any]], ink: Mapping[str, str]
) -> None:
    """A lying bar of parts that add up to 1; what has room for it says its percentage.

    Args:
      ink: the colour of that number, where it is not black.
    """
    left = 0.0
    for name, share in parts.items():
        axes.barh(place, share, 0.86, left=left, edgecolor="white", linewidth=0.5, **looks[name])
        if share >= 0.05:
            how: dict[str, Any] = {
                "ha": "center",
                "va": "center_baseline",
                "fontsize": 6,
                "color": ink.get(name, "black"),
            }
            axes.text(left + share / 2, place, f"{100 * share:.0f}", **how)
        left += share


def ticks(axis: Axis, values: Sequence[float]) -> None:
    """Ticks of an axis at these values alone, written out: what a logarithmic one of few decades needs."""
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_ticks([], minor=True)


def told_apart(values: Sequence[Any], others: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A look for each value of a parameter, and then for each other name: no two are alike.

    Numbers go from dark to light in their order; names have the looks of `style.looks`.
    """
    from matplotlib import rcParams

    size = rcParams["font.size"]
    marks = {"markersize": 0.45 * size, "markeredgewidth": 0, "linewidth": 0.15 * size}
    names = [str(value) for value in values]
    numbers = [value for value in values if isinstance(value, int | float) and value == value]
    if len(numbers) > 1 and not others:
        lightness = np.linspace(0, 1, len(values))
        return [{**shade(light), "marker": MARKERS[i % len(MARKERS)], **marks} for i, light in enumerate(lightness)]
    found = looks([*names, *others])
    return [{**found[name], **marks} for name in [*names, *others]]


def logarithmic(values: ArrayLike) -> bool:
    """Whether an axis of these values should be logarithmic: they are positive, and go over more than a decade and a half."""
    there = np.asarray(values, float)
    there = there[np.isfinite(there)]
    return bool(len(there)) and bool(there.min() > 0) and bool(there.max() / there.min() > 30)


def bars(
    axes: Axes, labels: Sequence[str], found: np.ndarray, colours: Sequence[str], missing: str, size: float
) -> None:
    """A lying bar for each label, the first on top, with an interval; of what is not finite it says so.

    Args:
      found: [bars, 3] value, and the interval's ends.
      missing: what it says.
      size: of letters, in points.
    """
    value, low, high = found.T
    there = found[np.isfinite(found)]
    log = logarithmic(there)
    edge = float(there.max(initial=0.0)) * (1.6 if log else 1.1) or 1.0
    places = np.arange(len(labels))
    shown = np.isfinite(value)
    axes.barh(places[shown], value[shown], 0.75, color=np.asarray(colours, object)[shown].tolist(), alpha=0.85)
    for place in places[np.isfinite(low)]:
        end = high[place] if np.isfinite(high[place]) else edge
        axes.plot([low[place], end], [place, place], color="black", linewidth=0.9)
    for place in places[~shown]:
        axes.text(edge, place, f"{missing} ", ha="right", va="center", fontsize=0.9 * size, color="0.35")
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", length=0, labelsize=size)
    axes.set(ylim=(len(labels) - 0.4, -0.6), xscale="log" if log else "linear")
    axes.set_xlim(None if log else float(there.min(initial=0.0)), edge)


def front(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """The staircase below and left of which nothing is."""
    order = np.argsort(x)
    axes.step(x[order], y[order], where="post", color="0.5", linewidth=0.9, zorder=0, label="front")


def grid(
    axes: Axes,
    cells: np.ndarray,
    texts: np.ndarray,
    norm: Normalize | None = None,
    dark_is_high: bool = True,
    size: float | None = None,
) -> AxesImage:
    """Cells of a table as colours, with a text in each; what is not finite is grey.

    Args:
      cells: [rows, columns] float.
      texts: [rows, columns] str.
      norm: from numbers to colours; from the least to the largest by default.
      size: of the texts, in points; as large as there is room by default.
    """
    colours = "cividis_r" if dark_is_high else "cividis"
    image = axes.imshow(np.ma.masked_invalid(cells), cmap=colours, norm=norm, aspect="auto")
    axes.set_facecolor("0.85")
    size = size or _fitting(axes, texts)
    for (i, j), text in np.ndenumerate(texts):
        dark = np.isfinite(cells[i, j]) and bool(np.asarray(image.norm(cells[i, j])) > 0.5) == dark_is_high
        axes.text(j, i, text, ha="center", va="center", fontsize=size, color="white" if dark else "black")
    return image


def scale(figure: Figure, image: AxesImage, label: str, panels: Sequence[Axes] | None = None) -> None:
    """Which colour is which number, beside the panels."""
    figure.colorbar(image, ax=panels, label=label)


def _fitting(axes: Axes, texts: np.ndarray) -> float:
    """Points of letters that have room in the cells of a panel."""
    from matplotlib import rcParams

    width, height = _inches(axes)
    lines = max((str(text).count("\n") + 1 for text in texts.flat), default=1)
    room = 72 * min(width / (texts.shape[1] * 5), 0.85 * height / (texts.shape[0] * 1.3 * lines))
    return min(float(rcParams["font.size"]) * 0.82, room)


def _inches(axes: Axes) -> tuple[float, float]:
    """About how wide and how tall a panel is, once names have their room."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    box = axes.get_position()
    return 0.8 * float(figure.get_figwidth() * box.width), 0.9 * float(figure.get_figheight() * box.height)
