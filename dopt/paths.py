"""Names become paths here and nowhere else."""

from __future__ import annotations

import re
import unicodedata


def slug(name: str) -> str:
    """The one way from a name to a path: letters, digits, '.', '_' and '-', nothing that leaves its folder."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip(".-")[:120] or "unnamed"
