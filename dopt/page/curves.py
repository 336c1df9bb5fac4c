"""The section of curves: any metric along steps, gradients, seconds or bytes; medians with quartiles, or each run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dopt.page import thin
from dopt.page.drawing import empty, plane, stacked, tip
from dopt.page.material import Material
from dopt.page.overlays import Overlay
from dopt.page.payload import Arrays
from dopt.page.section import Section, place
from dopt.plot.style import AXES, COLOURS, looks
from dopt.sweeps.records import RUN

if TYPE_CHECKING:
    from bokeh.plotting import figure

HEIGHT = 420
DASHES = {"-": [], "--": [6, 3], ":": [2, 3], "-.": [7, 3, 2, 3]}
MARKERS = {
    "o": "circle",
    "s": "square",
    "^": "triangle",
    "D": "diamond",
    "v": "inverted_triangle",
    "P": "plus",
    "X": "square_x",
    "<": "triangle_dot",
    ">": "triangle_pin",
    "p": "hex",
    "h": "hex_dot",
    "*": "star",
}


def section(material: Material, arrays: Arrays, theory: list[Overlay]) -> Section:
    """The section; its numbers go to `arrays`."""
    body = (
        '<div class="controls" id="curves-controls"></div><p class="said" id="curves-said"></p>'
        + place("curves-plot", "curves of the chosen metric; the table below has their last values")
        + '<div class="legend" id="curves-legend" role="group" aria-label="curves: press to hide or show"></div>'
        '<p class="detail" id="curves-detail" aria-live="polite"></p>'
    )
    planes = [_plane(x, y) for x in ("linear", "log") for y in ("linear", "log")]
    _share(planes)
    data = {
        "records": records(material, arrays),
        "axes": AXES,
        "palette": COLOURS,
        "looks": _looks(material),
        "theory": [overlay._asdict() for overlay in theory],
    }
    return Section("curves", "Curves", body, data, {"curves-plot": stacked(planes)})


def _plane(x: str, y: str) -> figure:
    """Axis types cannot change, so each pair of them has a plane, of which one is seen."""
    from bokeh.models import Span

    made = plane(
        f"curves-{x}-{y}", HEIGHT, x_axis_type=x, y_axis_type=y, visible=False, x_range=(0.1, 1.0), y_range=(0.1, 1.0)
    )
    made.add_layout(Span(name=f"target-{x}-{y}", dimension="width", line_dash=[2, 4], line_color="#888888"))
    return made


def _share(planes: list[figure]) -> None:
    """The same data in all planes."""
    bands = empty("xs", "ys", "color")
    lines = empty("xs", "ys", "color", "dash", "text")
    dots = empty("x", "y", "color", "marker")
    marks = empty("x", "y", "color", "marker", "text")
    named = {"bands": bands, "lines": lines, "dots": dots, "marks": marks}
    for name, source in named.items():
        source.name = f"curves-{name}"
    for made in planes:
        made.patches("xs", "ys", source=bands, fill_color="color", fill_alpha=0.16, line_color=None)
        drawn = made.multi_line("xs", "ys", source=lines, line_color="color", line_dash="dash", line_width=2)
        made.scatter("x", "y", source=dots, marker="marker", size=7, color="color")
        ends = made.scatter("x", "y", source=marks, marker="marker", size=10, color="color", line_width=2)
        tip(made, [drawn], line_policy="nearest")
        tip(made, [ends])


def records(material: Material, arrays: Arrays) -> dict[str, object]:
    """The records of the runs that have a curve: for each column where its codes and scales lie, and how far off they are."""
    count, table = _measured(material)
    metrics = [name for name in table if name not in AXES and pd.api.types.is_numeric_dtype(table[name])]
    begin = np.cumsum(count) - count
    values = [table[name].to_numpy(np.float64) for name in metrics]
    kept = [
        start + thin.chosen([each[start : start + n] for each in values] or [np.zeros(n)])
        for start, n in zip(begin.tolist(), count.tolist(), strict=True)
    ]
    points = np.array([len(rows) for rows in kept])
    rows = np.concatenate(kept).astype(int)
    columns = {}
    for name in (*(axis for axis in AXES if axis in table), *metrics):
        column = table[name].to_numpy(np.float64)[rows]
        coded = thin.coded(column, points)
        columns[str(name)] = {
            "codes": arrays.add(coded.codes, "u2"),
            "low": arrays.add(coded.low, "f8"),
            "high": arrays.add(coded.high, "f8"),
            "ratios": arrays.add(coded.ratios.astype(np.uint16), "u2"),
            "whole": bool(np.isfinite(column).all() and (column == np.rint(column)).all()),
            "error": coded.error,
        }
    return {
        "largest": thin.LARGEST,
        "points": arrays.add(points, "u2"),
        "runs": np.flatnonzero(material.has_curve).tolist(),
        "thinned": int(count.max(initial=0)) if (count > points).any() else 0,
        "columns": columns,
    }


def _measured(material: Material) -> tuple[np.ndarray, pd.DataFrame]:
    """([runs] how many records, the records) of the runs that have a curve, in order."""
    ids = material.runs["id"][material.has_curve]
    wanted = {identity: place for place, identity in enumerate(ids)}
    tables = []
    for one in material.sweeps:
        part = one.only(one.runs["id"].isin(list(wanted)).to_numpy())
        count, table = part.measured()
        place = np.repeat([wanted.pop(identity, -1) for identity in part.runs["id"]], count)
        tables.append(table.assign(**{RUN: place.astype(int)}))
    whole = pd.concat(tables, ignore_index=True)
    whole = whole[whole[RUN] >= 0].sort_values(RUN, kind="stable", ignore_index=True)
    return np.bincount(whole.pop(RUN), minlength=len(ids)), whole


def _looks(material: Material) -> dict[str, dict[str, object]]:
    """Each method as it looks in all pictures of dopt."""
    found = looks([str(name) for name in material.runs["algorithm"].unique()])
    return {name: _look(str(one["color"]), one["linestyle"], str(one["marker"])) for name, one in found.items()}


def _look(colour: str, dashes: str | tuple[int, tuple[float, ...]], marker: str) -> dict[str, object]:
    """A look of Matplotlib's as Bokeh has it."""
    known = DASHES[dashes] if isinstance(dashes, str) else [round(2 * part) for part in dashes[1]]
    return {"color": colour, "dash": known, "marker": MARKERS[marker]}
