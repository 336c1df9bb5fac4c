"""One look for all pictures: column widths, embedded fonts, colours that colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dopt.files import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTHS = {"column": 3.25, "text": 5.5, "page": 6.75}  # inches
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


def look(method: str) -> dict[str, Any]:
    """Colour and line style of a method, the same in all pictures; of one that has none yet, grey."""
    for dashes, names in FAMILIES:
        if method in names:
            turn, place = divmod(names.index(method), len(COLOURS))
            return {"color": COLOURS[place], "linestyle": dashes[turn]}
    return {"color": "0.5", "linestyle": "-"}


def shade(share: float) -> dict[str, Any]:
    """The look of a curve that is one of an ordered family: from dark (0) to light (1), told apart without colour, too."""
    from matplotlib import colormaps

    return {"color": colormaps["viridis"](0.9 * share), "linestyle": "-"}


@contextmanager
def style() -> Iterator[None]:
    """The settings, for as long as a picture is drawn (by Figure itself: pyplot costs a second, and wants a display)."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        yield


def save(figure: Figure, stem: Path) -> list[Path]:
    """PNG and PDF of a figure; the same figure gives the same bytes."""
    paths = [stem.with_name(f"{stem.name}{ending}") for ending in (".png", ".pdf")]
    with whole(paths[0]) as png:
        figure.savefig(png, metadata={"Software": None})
    figure.set_layout_engine("none")  # all is in its place
    with whole(paths[1]) as pdf:
        figure.savefig(pdf, metadata={"CreationDate": None})
    return paths
