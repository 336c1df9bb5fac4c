"""One look for all pictures: column widths, embedded fonts, colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WIDTHS = {"column": 3.25, "text": 5.5, "page": 6.75}  # inches
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe-Ito

SETTINGS: Any = {
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "savefig.dpi": 200,
}


@contextmanager
def style() -> Iterator[None]:
    """The settings, for as long as a picture is drawn (by Figure itself: pyplot costs a second, and wants a display)."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        yield


def save(figure: Any, stem: Path) -> list[Path]:
    """PNG and PDF of a figure; the same figure gives the same bytes."""
    paths = [stem.with_name(f"{stem.name}{ending}") for ending in (".png", ".pdf")]
    figure.savefig(paths[0], metadata={"Software": None})
    figure.savefig(paths[1], metadata={"CreationDate": None})
    return paths
