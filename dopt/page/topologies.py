"""The section of topologies: who sends to whom, the spectrum of W, its gap, and the closed form of the gap where one is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from dopt import mixing, theory
from dopt.config import Resolved, options_of
from dopt.config.matrices import has_matrix
from dopt.facts import wiring
from dopt.mixing.spectrum import Matrix
from dopt.page.drawing import empty, plane, tip
from dopt.page.material import Material
from dopt.page.section import Section, paragraph, place, table
from dopt.plot import places
from dopt.plot.style import COLOURS
from dopt.report import topology
from dopt.topology import Matchings
from dopt.topology.graphs import sides
from dopt.types import InputError, MachineError

if TYPE_CHECKING:
    from bokeh.plotting import figure

FIELDS = ("topology", "weights", "workers")
MOST = 24  # topologies that are shown
WORKERS, LINKS, BENT = 128, 4000, 600  # of a graph that is drawn; links that may be bent
LARGEST = 1024  # workers of a matrix whose spectrum is computed
SIDE, RANGE, GREY = 270, (-1.15, 1.15), "#888888"
CLOSED: Mapping[tuple[str, str], Callable[[int], float]] = {
    ("ring", "metropolis"): theory.ring_gap,
    ("path", "metropolis"): theory.path_gap,
    ("star", "metropolis"): theory.star_gap,
    ("complete", "metropolis"): theory.complete_gap,
    ("hypercube", "metropolis"): theory.hypercube_gap,
    ("directed_ring", "uniform"): theory.directed_ring_gap,
}
HEADS = (
    "topology",
    "workers",
    "weights",
    "degree",
    "diameter",
    "spectral gap",
    "gap, closed form",
    "consensus time to 1e-6",
)


def section(material: Material) -> Section:
    """The section; without any topology, a line that says so."""
    title, rows, shown = "Topologies", [], []
    asked = material.firsts(FIELDS)
    asked = asked[asked["topology"].notna()]
    for identity in asked["id"][:MOST]:
        run = material.resolved(identity)
        made = None if run is None else _described(run)
        if made is not None:
            rows.append(made[0])
            shown += made[1]
    if not rows:
        none = "No run has a topology." if asked.empty else "The graphs of these runs cannot be rebuilt here."
        return Section("topologies", title, paragraph(none))
    graph = place("topologies-graph-plot", "the chosen graph")
    spectrum = place("topologies-spectrum-plot", "the eigenvalues of its W, and the unit circle")
    left = f"The first {MOST} of {len(asked)} are shown. " if len(asked) > MOST else ""
    body = (
        paragraph(f"{left}W[i, j] is the weight that worker i gives worker j's model.")
        + table(HEADS, rows, "topologies")
        + ('<div class="controls" id="topologies-controls"></div>' if shown else "")
        + (f'<div class="pair">{graph}{spectrum}</div>' if shown else "")
    )
    figures = {"topologies-graph-plot": _graph_plane(), "topologies-spectrum-plot": _spectrum_plane()} if shown else {}
    return Section("topologies", title, body, {"graphs": shown}, figures)


def _described(run: Resolved) -> tuple[list[str], list[dict[str, object]]] | None:
    """(a row of the table, what is drawn of it, if it is small enough) of a run's W; None: it cannot be made here."""
    w = _matrix(run)
    if w is None:
        return None
    facts = topology.facts(w)
    low, high = facts.degree
    row = [
        *(str(run.topology), str(run.workers), run.weights or "-"),
        *(f"{low} to {high}" if low < high else f"{high}", _finite(facts.diameter, "infinite")),
        *(f"{facts.gap:.4g} ({facts.gap_kind})", _closed(run), _finite(facts.time, "never")),
    ]
    return row, _graph(run, w) if run.workers <= WORKERS else []


def _matrix(run: Resolved) -> Matrix | None:
    """W, of a pair of them the first; None: the run has none, it is too large, or it cannot be made here."""
    if not has_matrix(run) or run.workers > LARGEST:
        return None
    try:
        w = wiring.matrix(run)
    except (InputError, MachineError):  # a file or a plug-in that is not here any more
        return None
    found: Matrix = mixing.dense(w[0] if isinstance(w, tuple) else w)
    return found


def _finite(value: float, otherwise: str) -> str:
    return f"{value:.0f}" if math.isfinite(value) else otherwise


def _closed(run: Resolved) -> str:
    """The gap by its closed form, where there is one for this graph with these weights."""
    if run.topology == "torus" and run.weights == "metropolis":
        shape = sides(run.workers, run.options.get("topology.shape"), 2, "torus")
        return f"{theory.torus_gap(shape):.4g}" if min(shape) >= 3 else ""
    if run.topology == "exponential" and run.weights == "uniform" and run.workers % 2 == 0:
        return f"{theory.exponential_gap(run.workers):.4g}"
    known = CLOSED.get((str(run.topology), str(run.weights)))
    return "" if known is None else f"{known(run.workers):.4g}"


def _graph(run: Resolved, w: Matrix) -> list[dict[str, object]]:
    """What is drawn of a graph; nothing where it has too many links."""
    union = mixing.union(w)
    if union.sum() > LINKS:
        return []
    kind = "E[W]" if isinstance(w, Matchings) else "W" if w.ndim == 2 else "the product of a period of W"
    layout = places.layout(str(run.topology), options_of(run, "topology"), union)
    values = np.linalg.eigvals(mixing.mean(w))
    one_way = np.argwhere(union & ~union.T)[:, ::-1].tolist()
    links = np.argwhere(np.triu(union | union.T)).tolist()
    ways = [_way(layout, u, v, len(links)) for u, v in links]
    return [
        {
            "name": f"{run.topology}, {run.workers} workers, {run.weights or 'its own'} weights",
            "x": _short(layout.places[:, 0]),
            "y": _short(layout.places[:, 1]),
            "ways": [[_short(way[:, 0]) for way in ways], [_short(way[:, 1]) for way in ways]],
            "oneWay": one_way,
            "real": _short(values.real),
            "imag": _short(values.imag),
            "what": kind,
        }
    ]


def _way(layout: places.Layout, u: int, v: int, links: int) -> np.ndarray:
    """[points, 2] of a link: bent only where few are drawn."""
    if layout.way is not None and links <= BENT:
        return layout.way(u, v)[:, :2]
    return layout.places[[u, v]]


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _square(name: str) -> figure:
    return plane(
        name, None, "save", frame_width=SIDE, frame_height=SIDE, sizing_mode=None, x_range=RANGE, y_range=RANGE
    )


def _graph_plane() -> figure:
    """Workers and who sends to whom; an arrow where only one does."""
    made = _square("topologies-graph")
    nodes, links, arrows = empty("x", "y", "text"), empty("xs", "ys"), empty("x", "y", "angle")
    nodes.name, links.name, arrows.name = "topologies-nodes", "topologies-links", "topologies-arrows"
    made.multi_line("xs", "ys", source=links, line_color=GREY, line_width=1)
    made.scatter("x", "y", source=arrows, marker="triangle", angle="angle", size=7, color=GREY)
    drawn = made.scatter("x", "y", source=nodes, size=12, color=COLOURS[0])
    made.axis.visible = False
    made.grid.visible = False
    tip(made, [drawn])
    return made


def _spectrum_plane() -> figure:
    """The eigenvalues in the complex plane, and its unit circle."""
    made = _square("topologies-spectrum")
    values, circle = empty("x", "y", "text"), empty("x", "y")
    values.name, circle.name = "topologies-values", "topologies-circle"
    made.line("x", "y", source=circle, line_color=GREY, line_width=1)
    dots = made.scatter("x", "y", source=values, size=8, color=COLOURS[1], fill_alpha=0.7)
    made.yaxis.axis_label = "imaginary part"
    tip(made, [dots])
    return made
