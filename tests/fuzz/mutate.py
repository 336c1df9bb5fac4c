"""How an input is damaged: as bytes, as text, or as a tree of plain values. All is a function of the generator `rng`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np

WORDS = (
    "nan", "inf", "-inf", "-1", "0", "1e400", "1e-400", "9" * 400, "99999999999", "1.5", "true", "null", "~", "1:30", "010",
    "2024-13-45", "2024-01-01", "[", "]", "{", "}", "[[[[", ":", ",", "- ", "&a", "*a", "!!python/object:os.system", "<<: *a",
    "\0", "\ud800", "é", "\u202e", "\x1b[31m", "[bold]", "../../evil", "/dev/zero", "%", "#", "'", '"', "\\", "\t", "\r\n", " ",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3.5, 1e-300, 1e300, 10**9, 10**30, float("nan"), float("inf"), "", "nan", "x", "ring",
    "../../evil", "\0", "\ud800", "a" * 300, [], [1], [[1]], ["ring", 0.5], {}, {"a": 1}, {"value": 1},
)  # fmt: skip


def of_bytes(rng: Random, content: bytes) -> bytes:
    """A few bits flipped, a stretch cut out, doubled or overwritten, or the end cut off."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not damaged:
            break
        at, wide = rng.randrange(len(damaged)), rng.choice((1, 2, 8, 64))
        match rng.randrange(5):
            case 0:
                damaged[at] ^= 1 << rng.randrange(8)
            case 1:
                del damaged[at : at + wide]
            case 2:
                damaged[at:at] = damaged[at : at + wide]
            case 3:
                damaged[at : at + wide] = rng.randbytes(wide)
            case 4:
                if rng.random() < 0.3:
                    del damaged[at:]
    return bytes(damaged)


def of_text(rng: Random, text: str) -> str:
    """A word put in, or in place of another; a line doubled, moved or cut; or a character changed."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        match rng.randrange(6):
            case 0:
                lines[at] = _replaced(rng, lines[at])
            case 1:
                place = rng.randint(0, len(lines[at]))
                lines[at] = lines[at][:place] + rng.choice(WORDS) + lines[at][place:]
            case 2:
                lines.insert(at, lines[at])
            case 3:
                lines.insert(rng.randrange(len(lines)), lines.pop(at))
            case 4:
                lines[at] = lines[at][: rng.randint(0, len(lines[at]))]
            case 5:
                lines[at] = "".join(chr(ord(c) ^ 1) if rng.random() < 0.1 else c for c in lines[at])
    return "\n".join(lines)


def _replaced(rng: Random, line: str) -> str:
    words = line.split(" ")
    words[rng.randrange(len(words))] = rng.choice(WORDS)
    return " ".join(words)


def of_tree(rng: Random, tree: Any, values: Sequence[Any] = VALUES) -> Any:
    """A tree of mappings, lists and plain values with one or two places changed, taken out, wrapped, or named otherwise."""
    damaged = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2))):
        places = list(_places(damaged))
        if not places:
            return rng.choice(values)
        holder, key = rng.choice(places)
        rng.choice(CHANGES)(rng, holder, key, values)
    return damaged


def of_words(rng: Random, words: list[str]) -> list[str]:
    """A command's arguments (all but the first) with another value or name, one put in, or one in another's place."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(1, len(words))
        name, _, _ = words[at].partition("=")
        word = rng.choice(WORDS)
        words[at : at + rng.randrange(2)] = [rng.choice((f"{name}={word}", word, f"{name}x", f"{name}.x=1", words[at]))]
    return words


def of_arrays(rng: Random, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Named arrays, one of them cut short, of another type, or with an axis more."""
    name = rng.choice(list(arrays))
    of_type = rng.choice((np.float64, np.complex128, "U5", bool, np.int8, np.uint64, "datetime64[s]", "V4"))
    changes = (lambda x: x.ravel()[:3], lambda x: x.astype(of_type), lambda x: x[None])
    try:
        return arrays | {name: rng.choice(changes)(arrays[name])}
    except (TypeError, ValueError):  # NumPy has no such type of it
        return arrays | {name: arrays[name][..., None]}


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(holder, key or index) of each value in the tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in items for place in [(tree, key), *_places(value)]]


Change = Callable[[Random, Any, Any, Sequence[Any]], None]


def _set(rng: Random, holder: Any, key: Any, values: Sequence[Any]) -> None:
    holder[key] = copy.deepcopy(rng.choice(values))


def _take_out(rng: Random, holder: Any, key: Any, values: Sequence[Any]) -> None:
    del holder[key]


def _wrap(rng: Random, holder: Any, key: Any, values: Sequence[Any]) -> None:
    holder[key] = [holder[key]]


def _rename(rng: Random, holder: Any, key: Any, values: Sequence[Any]) -> None:
    if isinstance(holder, dict):
        holder[rng.choice((f"{key}x", str(key)[1:], rng.choice(WORDS)))] = holder.pop(key)


CHANGES: tuple[Change, ...] = (_set, _set, _set, _take_out, _wrap, _rename)
