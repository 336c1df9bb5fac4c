"""All that the page's scripts read, as one text: JSON, and behind it arrays of numbers; compressed, and written in base64.

The bytes are [4: length of the JSON, little-endian][4: zeros][JSON, filled up to a multiple of 8][arrays, each filled up to one].
Where the JSON means an array it has [its first byte behind the JSON, how many numbers, their type].
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping

import numpy as np

TYPES = ("u2", "f8")
EIGHT = 8  # bytes of the largest number: arrays begin at multiples of it
GZIP = 16 + zlib.MAX_WBITS


class Arrays:
    """Arrays that lie one behind the other."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, values: np.ndarray, kind: str) -> list[int | str]:
        """Where the array lies; `kind`: one of `TYPES`."""
        assert kind in TYPES
        part = _filled(np.ascontiguousarray(values, f"<{kind}").tobytes(), b"\0")
        place: list[int | str] = [self.size, values.size, kind]
        self.parts.append(part)
        self.size += len(part)
        return place


def encoded(content: Mapping[str, object], arrays: Arrays) -> str:
    """The text; the same content gives the same one. What is not finite is no number of JSON, and must not be in `content`."""
    said = _filled(json.dumps(content, allow_nan=False, separators=(",", ":")).encode(), b" ")
    head = len(said).to_bytes(4, "little") + bytes(4)
    squeeze = zlib.compressobj(9, wbits=GZIP)
    return base64.b64encode(squeeze.compress(b"".join([head, said, *arrays.parts])) + squeeze.flush()).decode()


def _filled(part: bytes, filler: bytes) -> bytes:
    return part + filler * (-len(part) % EIGHT)
