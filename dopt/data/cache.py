"""Numbers that are costly to compute and depend on content alone, kept in the user's cache: f* of a data set."""

from __future__ import annotations

import json
from collections.abc import Callable

from dopt.data.files import cache_folder
from dopt.files import write


def number(content: str, compute: Callable[[], float]) -> float:
    """`compute()`, or what it gave for the same `content` (a hex digest) before.

    A cache that cannot be read or written only costs time.
    """
    path = cache_folder() / "optimum" / f"{content}.json"
    try:
        return float.fromhex(json.loads(path.read_text())["value"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    value = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps({"value": value.hex(), "decimal": value}))
    except OSError:
        pass
    return value
