"""JSON that knows its own sum: a file in which a single bit was changed is found out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

SUM = "checksum"
_SUM = re.compile(rf'"{SUM}": "([0-9a-f]{{64}})"'.encode())
_NONE = f'"{SUM}": "{"0" * 64}"'.encode()


def seal(content: Mapping[str, Any]) -> bytes:
    """The content as JSON, with the sha256 of that text (in which the sum itself is zeros)."""
    text = _laid_out({SUM: "0" * 64, **content}).encode()
    return text.replace(b"0" * 64, hashlib.sha256(text).hexdigest().encode(), 1)


def _laid_out(value: Any, begin: str = "\n") -> str:
    """JSON for readers: a line for each thing of an object or a list, but one for a whole list of plain values."""
    inner = begin + " "
    if isinstance(value, Mapping) and value:
        return (
            "{"
            + ",".join(f"{inner}{json.dumps(name)}: {_laid_out(x, inner)}" for name, x in value.items())
            + begin
            + "}"
        )
    if isinstance(value, list | tuple) and any(isinstance(x, Mapping | list | tuple) for x in value):
        return "[" + ",".join(inner + _laid_out(x, inner) for x in value) + begin + "]"
    return json.dumps(value)


def parse(text: bytes) -> dict[str, Any]:
    """JSON of an object, whoever wrote it; ValueError, in one line, where it is none."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} in line {error.lineno}") from None
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def check(text: bytes) -> None:
    """ValueError unless the text is as it was sealed, to the byte."""
    found = _SUM.search(text)
    if found is None:
        raise ValueError("it has no checksum")
    bare = text[: found.start()] + _NONE + text[found.end() :]
    if hashlib.sha256(bare).hexdigest().encode() != found[1]:
        raise ValueError("its checksum is wrong: it was altered")


def unseal(text: bytes) -> dict[str, Any]:
    """What was sealed; ValueError, in one line, where the text is not as it was."""
    found = parse(text)
    check(text)
    return found
