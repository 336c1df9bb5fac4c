"""One look for all pictures: column widths, embedded fonts, colours that colour-blind readers can tell apart."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dopt import extras
from dopt.files import whole
from dopt.text import quoted, shown
from dopt.types import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTHS = {"column": 3.25, "text": 5.5, "page": 6.75}  # inches


class Size(NamedTuple):
    """How large a picture is."""

    width: float  # inches
    font: float  # points
    height: float | None = None  # inches; None: as what is drawn asks


AXES = {  # what a picture counts: a column of a history, in words
    "step": "steps",
    "gradients": "gradients",
    "time": "simulated seconds",
    "bytes_sent": "bytes sent per worker",
}
SIZES = {**{name: Size(width, 8) for name, width in WIDTHS.items()}, "slide": Size(10, 14, 5.6)}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe-Ito

# The same method looks the same in every picture: a family shares its dashes, its members have a colour each. The order is
# the look, so new names go to the end.
FAMILIES: tuple[tuple[tuple[Any, ...], tuple[str, ...]], ...] = (
    (
        ("-", (0, (9, 1.5))),
        (
            *("allreduce_sgd", "local_sgd", "k_sync_sgd", "easgd", "diloco", "slowmo", "fsdp_sgd"),
            *(
                "ring_allreduce_sgd",
                "post_local_sgd",
                "k_batch_sync_sgd",
                "powersgd",
                "compressed_sgd",
                "sign_majority",
            ),
        ),
    ),
    (
        ("--", ":", (0, (4, 1, 1, 1, 1, 1))),
        (
            *(
                "ssp_sgd",
                "async_sgd",
                "delay_adaptive_sgd",
                "ringmaster_sgd",
                "rennala_sgd",
                "drop_stale_sgd",
                "hogwild_sgd",
            ),
            *("k_async_sgd", "k_batch_async_sgd", "malenia_sgd", "fedbuff", "dc_asgd", "staleness_aware_sgd"),
            *("delayed_sgd", "async_easgd", "async_diloco"),
        ),
    ),
    (
        ("-.", (0, (2, 1)), (0, (6, 1, 1, 1))),
        (
            *("choco_sgd", "extra", "gossip_sgd", "ad_psgd", "gradient_tracking", "d2", "exact_diffusion"),
            *("delayed_gossip_sgd", "nids", "push_sum_sgd", "push_diging", "push_pull", "qg_dsgdm", "relay_sgd"),
        ),
    ),
)

DASHES = tuple(dash for dashes, _ in FAMILIES for dash in dashes)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
METHODS = {  # method -> (colour, dashes)
    name: (place % len(COLOURS), DASHES.index(dashes[place // len(COLOURS)]))
    for dashes, names in FAMILIES
    for place, name in enumerate(names)
}
LONGEST = 40  # characters of a name in a picture
Place = tuple[int, int]  # of a colour, and of dashes with their marker


def _settings(size: Size) -> Any:
    small = size.font * 7 / 8
    return {
        "figure.constrained_layout.use": True,
        "font.size": size.font,
        "axes.titlesize": size.font,
        "axes.labelsize": size.font,
        "figure.titlesize": size.font,
        "legend.fontsize": small,
        "legend.title_fontsize": small,
        "xtick.labelsize": small,
        "ytick.labelsize": small,
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "svg.fonttype": "path",
        "svg.hashsalt": "dopt",
        "savefig.dpi": 200,
    }


def look(name: str) -> dict[str, Any]:
    """Colour and line style of a method, the same in all pictures; of any other name, by its letters."""
    look = looks([name])[name]
    return {"color": look["color"], "linestyle": look["linestyle"]}


def looks(names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Colour, line style and marker of each of the names in one picture: no two are alike.

    A method of dopt looks the same in every picture. Another name begins where its letters say, and goes on to a colour that
    nobody has, or, where there is none any more, to dashes and a marker that nobody of its colour has. So it depends only on
    which names are in the picture, not on their order.
    """
    places = {name: METHODS[name] for name in names if name in METHODS}
    for name in sorted(set(names) - places.keys()):
        places[name] = _free(zlib.crc32(name.encode()), set(places.values()))
    return {name: _drawn(places[name]) for name in names}


def _free(first: int, taken: set[Place]) -> Place:
    colours = [(first + i) % len(COLOURS) for i in range(len(COLOURS))]
    new = [colour for colour in colours if colour not in {colour for colour, _ in taken}]
    if new:
        return new[0], first // len(COLOURS) % len(DASHES)
    return next((colour, row) for row in count() for colour in colours if (colour, row) not in taken)


def _drawn(place: Place) -> dict[str, Any]:
    colour, row = place
    turn, dash = divmod(row, len(DASHES))
    marker = MARKERS[
        (colour + dash + turn) % len(MARKERS)
    ]  # another one for each colour and for each dash: paper may be grey
    return {"color": COLOURS[colour], "linestyle": DASHES[dash], "marker": marker}


def shade(share: float) -> dict[str, Any]:
    """The look of a curve that is one of an ordered family: from dark (0) to light (1), told apart without colour, too."""
    from matplotlib import colormaps

    return {"color": colormaps["viridis"](0.9 * share), "linestyle": "-"}


def said(value: Any) -> str:
    """A value as a picture writes it: short, in one line, and never as mathematics."""
    number = "none" if value != value else f"{value:g}" if isinstance(value, float) else None
    text = shown(str(value)) if number is None else number
    return (text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…").replace("$", r"\$")


@contextmanager
def style(size: str = "text") -> Iterator[None]:
    """The settings, for as long as a picture is drawn (by Figure itself: pyplot costs a second, and wants a display).

    Args:
      size: one of `SIZES`.
    """
    extras.need("matplotlib", "picture: it")
    import matplotlib

    with matplotlib.rc_context(_settings(SIZES[size])):
        yield


UNDATED: dict[str, dict[str, Any]] = {  # what a file says of itself, without the time
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}


ENDINGS = (*UNDATED, ".csv")  # .csv: the rows that are drawn


def check_ending(path: str | Path) -> None:
    """InputError where a picture cannot be written as such a file."""
    if Path(path).suffix not in ENDINGS:
        raise InputError(f"out: a picture's name must end in {', '.join(ENDINGS)}, got {quoted(str(path))}")


def write(figure: Figure, path: Path) -> None:
    """A figure as PNG, PDF or SVG, by the ending; the same figure gives the same bytes."""
    with whole(path) as file:
        figure.savefig(file, metadata=UNDATED[path.suffix])
        if path.suffix == ".svg":
            file.write_text(_numbered(file.read_text("utf-8")), "utf-8")


def _numbered(svg: str) -> str:
    """The same picture with numbers for ids: these are hashes of where things lie, and a layout has other last bits each time."""
    names = dict.fromkeys(re.findall(r'id="([^"]*[0-9a-f]{10})"', svg))
    places = {name: f"id{number}" for number, name in enumerate(names)}
    return re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], svg) if places else svg


def save(figure: Figure, stem: Path) -> list[Path]:
    """PNG and PDF of a figure."""
    paths = [stem.with_name(f"{stem.name}{ending}") for ending in (".png", ".pdf")]
    for path in paths:
        write(figure, path)
        figure.set_layout_engine("none")  # all is in its place
    return paths
