"""A topology in numbers and in one picture: who sends to whom, the matrix W, its spectrum, and who may use it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import networkx as nx
import numpy as np
from scipy.sparse import csgraph
from scipy.spatial.distance import pdist

from dopt import mixing, topology
from dopt.algorithms import ALGORITHMS, takes_mix
from dopt.config import Run
from dopt.facts import wiring
from dopt.files import whole, writing
from dopt.mixing.spectrum import Matrix
from dopt.paths import slug
from dopt.plot.style import COLOURS, WIDTHS, style
from dopt.topology import Matchings, Network
from dopt.types import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure, SubFigure

WORKERS = 16  # where nothing else is asked for
DECAY, ACCURACY = 0.9, 1e-6  # of the effective number of neighbours, and of the consensus time
PHASES, STEPS = 8, 4  # how many of a period, and of a random sequence, are drawn at most
NAMED = 32  # workers: up to here they are numbered in the picture

# -- numbers --


class Facts(NamedTuple):
    """What a mixing matrix is like; nan where a number is not defined for it."""

    workers: int
    degree: tuple[int, int]  # fewest and most senders of a worker at a step
    diameter: float  # hops, over the links of all steps together; inf: some never hear of some
    gap: float
    gap_kind: str
    neighbours: float  # effective, with DECAY
    time: float  # steps to ACCURACY; inf: never
    symmetric: bool
    doubly_stochastic: bool
    connected: bool


def facts(w: Matrix) -> Facts:
    """The numbers of a mixing matrix [n, n], of a period of them [period, n, n], or of random `Matchings`."""
    both = mixing.is_doubly_stochastic(w)
    return Facts(
        workers=len(w) if isinstance(w, Matchings) else w.shape[-1],
        degree=degree(w),
        diameter=float(csgraph.shortest_path(_union(w), unweighted=True).max()),
        gap=_gap(w),
        gap_kind=mixing.gap_kind(w),
        neighbours=mixing.effective_neighbours(w, DECAY) if both and not isinstance(w, Matchings) else math.nan,
        time=mixing.consensus_time(w, ACCURACY),
        symmetric=mixing.is_symmetric(w),
        doubly_stochastic=both,
        connected=mixing.is_connected(w),
    )


def degree(w: Matrix) -> tuple[int, int]:
    """Fewest and most senders that a worker can have at a step."""
    if not isinstance(w, Matchings):
        senders = ((w != 0) & ~np.eye(w.shape[-1], dtype=bool)).sum(-1)
        return int(senders.min()), int(senders.max())
    if w.partners is None:  # of an odd number one is left alone
        return 1 - w.workers % 2, min(1, w.workers - 1)
    met = w.partners != np.arange(w.workers)
    return int(met[w.probability >= 1].sum(0).min()), int(met[w.probability > 0].sum(0).max())


def verdicts(network: Network, rule: str | None = None, options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Gossip method -> why it refuses a network with the weights that it would take, or with `rule`; "": it accepts it."""
    given, found = dict(options or {}), {}
    dotted = {f"weights.{name}": value for name, value in given.items()}
    wired = cache(lambda rule, needs: wiring.wired(network, len(network), rule, given, needs))
    for name, entry in ALGORITHMS.items():
        if not takes_mix(entry):
            continue
        run = Run(algorithm=name, workers=len(network), learning_rate=0.1, weights=rule, steps=1, options=dotted)
        try:
            run = run.resolve(graph=network, unread="drop")
            needs = wiring.needs_of(run)
            mixing.check(wired(run.weights, needs), name, str(needs))
            found[name] = ""
        except InputError as error:
            found[name] = str(error).split("; strict")[0]
    return found


def glance(name: str) -> tuple[str, str]:
    """Degree and spectral gap by default weights, at the first n from 16 on that the topology exists for; `-`: not here."""
    for n in (*range(WORKERS, 8 * WORKERS), *range(WORKERS - 1, 0, -1)):
        try:
            w = mixing.weights(topology.make(name, n))
        except InputError:
            continue
        where = "" if n == WORKERS else f" (n={n})"
        return f"{degree(w)[1]}{where}", f"{_gap(w):.3g}{where}"
    return "-", "-"


def _gap(w: Matrix) -> float:
    return round(mixing.spectral_gap(w), 12)  # what rounding leaves is none


def _mean(w: Matrix) -> np.ndarray:
    """[n, n]: W, the product of a period, or E[W]."""
    if isinstance(w, Matchings):
        return w.moments()[0]
    return w if w.ndim == 2 else reduce(np.matmul, w[::-1])


def _union(w: Matrix) -> np.ndarray:
    """[n, n] bool: which links carry something at some step; [i, j]: j sends to i."""
    links = w.moments()[0] != 0 if isinstance(w, Matchings) else (w != 0).reshape(-1, *w.shape[-2:]).any(0)
    return links & ~np.eye(len(links), dtype=bool)


# -- the picture --


def save(w: Matrix, name: str, title: str, folder: Path) -> Path:
    """Draw into `folder`, as `topology_NAME.png`."""
    path = folder / f"topology_{slug(name)}.png"
    with writing("out", folder, "--out"):
        folder.mkdir(parents=True, exist_ok=True)
        with style(), whole(path) as temporary:
            draw(w, title).savefig(temporary, metadata={"Software": None})
    return path


def draw(w: Matrix, title: str = "") -> Figure:
    """The graph (of a sequence, its first steps), the matrix, and its spectrum, side by side."""
    from matplotlib.figure import Figure

    matrix, random = _mean(w), isinstance(w, Matchings)
    period = 1 if isinstance(w, Matchings) or w.ndim == 2 else len(w)
    name = "E[W]" if random else "W" if period == 1 else f"$W_{{{period - 1}}} \\cdots W_0$"
    figure = Figure(figsize=(WIDTHS["page"], 2.5))
    figure.suptitle(title, fontsize=9, parse_math=False)
    parts: Any = figure.subfigures(1, 3, width_ratios=(1.0, 1.1, 0.9))
    count = STEPS if random else min(period, PHASES)
    heads = "who sends to whom", f"one period, {name}" if period > 1 else name, f"eigenvalues of {name}"
    if count > 1:
        which = f"the first {count} of {period}" if count < period else f"the {count}"
        heads = f"{count} steps, drawn at random" if random else f"{which} steps of a period", *heads[1:]
    for part, head in zip(parts, heads, strict=True):
        part.suptitle(head, fontsize=8)
    _draw_steps(parts[0], mixing.links(w), count, _places(_union(w), circular=period > 1))
    _draw_matrix(parts[1], matrix)
    _draw_spectrum(parts[2].subplots(), matrix)
    return figure


def _draw_steps(figure: SubFigure, links: Callable[[int], np.ndarray], count: int, place: np.ndarray) -> None:
    columns = math.ceil(math.sqrt(count))
    grid = figure.subplots(math.ceil(count / columns), columns, squeeze=False).ravel()
    for k, axes in enumerate(grid):
        axes.set_axis_off()
        if k < count:
            _draw_graph(axes, links(k), place, alone=count == 1)
            axes.set_title(f"step {k}" if count > 1 else "", fontsize=6, pad=1)


def _draw_graph(axes: Axes, links: np.ndarray, place: np.ndarray, alone: bool) -> None:
    from matplotlib.collections import EllipseCollection, LineCollection

    near = pdist(place).min(initial=1.0)
    size = float(np.clip(0.6 * near, 0.03, 0.24)) * (1 if alone else 0.5)
    axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
    both = np.argwhere(np.triu(links & links.T))
    axes.add_collection(LineCollection(list(place[both]), colors="0.55", linewidths=0.6, zorder=1))
    reader, sender = np.nonzero(links & ~links.T)
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
    sizes = np.full(len(place), size)
    axes.add_collection(
        EllipseCollection(
            sizes,
            sizes,
            0 * sizes,
            units="xy",
            offsets=place,
            offset_transform=axes.transData,
            color=COLOURS[0],
            zorder=2,
        )
    )
    if alone and len(place) <= NAMED:
        for i, (x, y) in enumerate(place):
            axes.text(x, y, str(i), color="white", fontsize=min(7, 30 * size), ha="center", va="center_baseline")


def _places(links: np.ndarray, circular: bool = False) -> np.ndarray:
    """[n, 2] in [-1, 1]: a circle if asked for or if turning it changes nothing, else by hops; parts lie side by side."""
    graph = nx.from_numpy_array(links | links.T)
    parts = [list(graph)] if circular else [sorted(part) for part in nx.connected_components(graph)]
    place, columns = np.zeros((len(links), 2)), math.ceil(math.sqrt(len(parts)))
    for number, part in enumerate(parts):
        inner = links[np.ix_(part, part)]
        turns = circular or np.array_equal(np.roll(inner, (1, 1), (0, 1)), inner)
        found = (nx.circular_layout if turns else _by_hops)(graph.subgraph(part))
        place[part] = [found[i] + (2.5 * (number % columns), -2.5 * (number // columns)) for i in part]
    place -= (place.max(0) + place.min(0)) / 2
    return place / max(np.abs(place).max(), 1e-9)


def _by_hops(graph: nx.Graph) -> dict[int, np.ndarray]:
    hub, most = max(graph.degree, key=lambda pair: pair[1])
    if most == graph.number_of_edges() == len(graph) - 1:  # a star
        return nx.shell_layout(graph, [[hub], [i for i in graph if i != hub]])
    return nx.kamada_kawai_layout(graph) if len(graph) <= 200 else nx.spectral_layout(graph)


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
    marked: Any = {"color": COLOURS[1], "linewidth": 0.8, "linestyle": "--", "zorder": 1}
    dots: Any = {"s": 9, "color": COLOURS[0], "zorder": 2, "clip_on": False}
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
