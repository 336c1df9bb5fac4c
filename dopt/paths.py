"""Names become paths here and nowhere else; and where the sweeps and figures lie that come with dopt."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

INSTALLED = Path(__file__).resolve().parent / "_shipped"  # setup.py makes it; a checkout has none


def slug(name: str) -> str:
    """The one way from a name to a path: letters, digits, '.', '_' and '-', nothing that leaves its folder."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip(".-")[:120] or "unnamed"


def shipped(what: str) -> Path:
    """The folder of sweeps ("benchmarks") or figures ("paper_figs") that come with dopt: part of an installed package, or beside a checkout's."""
    return (INSTALLED if INSTALLED.is_dir() else INSTALLED.parents[1]) / what
