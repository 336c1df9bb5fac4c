"""What docstrings say of a plug-in: its equation, what it is, and what each option means."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable

SECTIONS = ("Args:", "Returns:", "Raises:", "Attributes:", "Examples:", "Example:", "References:")


def equation(make: Callable[..., object]) -> str:
    """The docstring of the file in which a plug-in stands; "" where it has none."""
    return inspect.cleandoc(getattr(sys.modules.get(make.__module__), "__doc__", None) or "")


def said(make: Callable[..., object]) -> tuple[str, str]:
    """(the first line, the paragraphs after it) of a plug-in's own docstring, without its sections."""
    first, _, rest = (inspect.getdoc(make) or "").partition("\n")
    kept: list[str] = []
    for line in rest.strip().splitlines():
        if line in SECTIONS:
            break
        kept.append(line)
    return first.rstrip("."), "\n".join(kept).strip()


def options(of: Callable[..., object], section: str = "Args:") -> dict[str, str]:
    """Option -> what a section of the docstring says of it; one entry may name several options."""
    found: dict[str, str] = {}
    for names, text in _entries(_section(inspect.getdoc(of) or "", section)):
        found |= dict.fromkeys(names, text)
    return found


def _section(text: str, head: str) -> list[str]:
    """The lines of a section, which end where nothing is indented any more."""
    lines = text.splitlines()
    if head not in lines:
        return []
    kept: list[str] = []
    for line in lines[lines.index(head) + 1 :]:
        if line and not line.startswith(" "):
            break
        kept.append(line)
    return kept


def _entries(lines: Iterable[str]) -> list[tuple[list[str], str]]:
    """(names, text) of each entry `names: text`; lines that are indented further go on with it."""
    found: list[tuple[list[str], str]] = []
    for line in filter(None, map(str.rstrip, lines)):
        begins = re.match(r"  (?! )([*\w, ]+): ?(.*)", line)
        if begins:
            found.append(([name.strip().lstrip("*") for name in begins[1].split(",")], begins[2]))
        elif found:
            names, text = found[-1]
            found[-1] = names, f"{text} {line.strip()}"
    return found


__all__ = ["equation", "options", "said"]
