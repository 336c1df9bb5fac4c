"""A topology in one picture: who sends to whom, the matrix W, and its spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.distance import pdist

from dopt import mixing
from dopt.files import writing
from dopt.mixing.spectrum import Matrix
from dopt.plot import places, style
from dopt.plot.places import Layout
from dopt.topology import Matchings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure, SubFigure

PHASES, STEPS = 8, 4  # how many of a period, and of a random sequence, are drawn at most
NAMED = 64  # workers: up to here they are numbered in the picture, if they are large enough
FAR, NEAR = 0.88, 0.35  # greys of links


def save(w: Matrix, title: str, path: Path, layout: Layout | None = None) -> None:
    """Draw into a file, as PNG, PDF or SVG by its ending; the same topology gives the same bytes."""
    with writing("out", path, "--out"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with style.style():
            style.write(draw(w, title, layout), path)


def draw(w: Matrix, title: str = "", layout: Layout | None = None) -> Figure:
    """The graph (of a sequence, its first steps), the matrix, and its spectrum, side by side.

    Args:
      w: [n, n], a period of them [period, n, n], or random `Matchings`.
      layout: where workers stand; None: as their links say.
    """
    from matplotlib.figure import Figure

    matrix, random = mixing.mean(w), isinstance(w, Matchings)
    period = 1 if isinstance(w, Matchings) or w.ndim == 2 else len(w)
    name = "E[W]" if random else "W" if period == 1 else f"$W_{{{period - 1}}} \\cdots W_0$"
    figure = Figure(figsize=(style.WIDTHS["page"], 2.5))
    figure.suptitle(title, fontsize=9, parse_math=False)
    parts: Any = figure.subfigures(1, 3, width_ratios=(1.15, 1.05, 0.85))
    count = STEPS if random else min(period, PHASES)
    heads = "who sends to whom", f"one period, {name}" if period > 1 else name, f"eigenvalues of {name}"
    if count > 1:
        which = f"the first {count} of {period}" if count < period else f"the {count}"
        heads = f"{count} steps, drawn at random" if random else f"{which} steps of a period", *heads[1:]
    for part, head in zip(parts, heads, strict=True):
        part.suptitle(head, fontsize=8)
        part.patch.set_visible(False)  # its corner is at 0 or at -0, by the last bits of the layout
    _draw_steps(parts[0], mixing.links(w), count, layout or places.unnamed(mixing.union(w)))
    _draw_matrix(parts[1], matrix)
    _draw_spectrum(parts[2].subplots(), matrix)
    return figure


def _draw_steps(figure: SubFigure, links: Callable[[int], np.ndarray], count: int, layout: Layout) -> None:
    columns = math.ceil(math.sqrt(count))
    grid = figure.subplots(math.ceil(count / columns), columns, squeeze=False).ravel()
    for k, axes in enumerate(grid):
        axes.set_axis_off()
        if k < count:
            graph(axes, links(k), layout, alone=count == 1)
            axes.set_title(f"step {k}" if count > 1 else "", fontsize=6, pad=1)


def graph(axes: Axes, links: np.ndarray, layout: Layout, alone: bool = True) -> None:
    """Workers and their links, [n, n] bool: [i, j]: j sends to i. `alone`: it is large enough for numbers."""
    place = layout.places
    depth = np.ones(len(place)) if layout.near is None else layout.near
    near = pdist(np.column_stack([place, depth])).min(initial=1.0)
    size = float(np.clip(0.6 * near, 0.03, 0.24)) * (1 if alone else 0.5)
    axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
    both = np.argwhere(np.triu(links & links.T))
    if layout.way is None:
        _draw_lines(axes, place[both], np.full(len(both), places.PLAIN))
    else:
        ways = np.array([layout.way(u, v) for u, v in both]).reshape(len(both), -1, 3)
        pieces = np.stack([ways[:, :-1], ways[:, 1:]], 2).reshape(-1, 2, 3)
        _draw_lines(axes, pieces[..., :2], pieces[..., 2].mean(1))
    _draw_arrows(axes, links & ~links.T, place, size)
    _draw_workers(axes, place, depth, size)
    if alone and len(place) <= NAMED and size > 0.05:
        for i, (x, y) in enumerate(place):
            fontsize = min(7, 30 * size)
            axes.text(
                x,
                y,
                str(i),
                color="white",
                fontsize=fontsize,
                ha="center",
                va="center_baseline",
                zorder=1.9 + (depth[i] > 0.5),
            )


def _draw_lines(axes: Axes, lines: np.ndarray, near: np.ndarray) -> None:
    """Lines [lines, 2, 2], those behind (near 0) pale and below those in front (near 1), and below the workers there."""
    from matplotlib.collections import LineCollection

    for front in (False, True):
        chosen = (near > 0.5) == front
        order = np.argsort(near[chosen], kind="stable")
        greys = (FAR + (NEAR - FAR) * near[chosen][order]).astype(str)
        axes.add_collection(
            LineCollection(
                list(lines[chosen][order]), colors=list(greys), linewidths=0.7, capstyle="round", zorder=1.4 + front
            )
        )


def _draw_arrows(axes: Axes, links: np.ndarray, place: np.ndarray, size: float) -> None:
    reader, sender = np.nonzero(links)
    way = place[reader] - place[sender]
    way *= 1 - size / 2 / np.linalg.norm(way, axis=1, keepdims=True)  # up to the rim
    axes.quiver(
        *place[sender].T,
        *way.T,
        angles="xy",
        scale_units="xy",
        scale=1,
        units="inches",
        width=0.007,
        headwidth=6,
        headlength=7,
        headaxislength=6,
        color="0.55",
        zorder=1,
    )


def _draw_workers(axes: Axes, place: np.ndarray, near: np.ndarray, size: float) -> None:
    """Discs; those behind are smaller, and paler."""
    from matplotlib.collections import EllipseCollection
    from matplotlib.colors import to_rgb

    blue = np.array(to_rgb(style.COLOURS[0]))
    for front in (False, True):
        chosen = (near > 0.5) == front
        depth = near[chosen][:, None]
        sizes = size * (0.75 + 0.25 * depth[:, 0])
        axes.add_collection(
            EllipseCollection(
                sizes,
                sizes,
                0 * sizes,
                units="xy",
                offsets=place[chosen],
                offset_transform=axes.transData,
                facecolors=blue * depth + (0.6 * blue + 0.4) * (1 - depth),
                edgecolors="none",
                zorder=1.8 + front,
            )
        )


def _draw_matrix(figure: SubFigure, matrix: np.ndarray) -> None:
    axes, top, signed = figure.subplots(), float(np.abs(matrix).max()), matrix.min() < -1e-9
    image = axes.imshow(matrix, cmap="RdBu" if signed else "Blues", vmin=-top if signed else 0, vmax=top)
    figure.colorbar(image, ax=axes, shrink=0.8)
    for axis in (axes.xaxis, axes.yaxis):
        _count(axis)
    axes.set(xlabel="sender", ylabel="reader")


def _draw_spectrum(axes: Axes, matrix: np.ndarray) -> None:
    """Real eigenvalues in order, or all in the complex plane; the second largest modulus is marked."""
    symmetric = mixing.is_symmetric(matrix)
    values = np.linalg.eigvalsh(matrix)[::-1] if symmetric else np.linalg.eigvals(matrix)
    second = round(float(np.sort(np.abs(values))[-2]), 12) if len(values) > 1 else 0.0
    grey: Any = {"color": "0.7", "linewidth": 0.6, "zorder": 0}
    marked: Any = {"color": style.COLOURS[1], "linewidth": 0.8, "linestyle": "--", "zorder": 1}
    dots: Any = {"s": 9, "color": style.COLOURS[0], "zorder": 2, "clip_on": False}
    label = f"$|\\lambda_2|$ = {second:.4g}"
    if symmetric:
        for level in (-1, 0, 1):
            axes.axhline(level, **grey)
        axes.axhline(second, label=label, **marked)
        axes.axhline(-second, **marked)
        axes.scatter(np.arange(1, len(values) + 1), values, **dots)
        _count(axes.xaxis)
        axes.set(xlabel="number", ylabel="eigenvalue")
    else:
        turn = np.exp(2j * np.pi * np.linspace(0, 1, 200))
        axes.plot(turn.real, turn.imag, **grey)
        axes.plot(second * turn.real, second * turn.imag, label=label, **marked)
        axes.scatter(values.real, values.imag, **dots)
        axes.set(xlabel="real part", ylabel="imaginary part", aspect="equal")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), frameon=False)


def _count(axis: Axis) -> None:
    """Ticks at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(5, integer=True))
