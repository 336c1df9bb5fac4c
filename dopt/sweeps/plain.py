"""YAML of plain data: numbers, truth values, text, lists and mappings, each written out. What YAML can do beyond that is refused.

Numbers are decimal (or 0x, 0b): 010 and 1:30 are text and not 8 and 90, dates are text, too; 1e-3 is a number. No key is said twice.
Tags, anchors and aliases are refused, so that a small file means a small thing, and that data is never code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from dopt.registry import did_you_mean
from dopt.sweeps.named import available, located
from dopt.text import quoted, shown
from dopt.types import InputError

LARGEST = 2**16  # characters: a second's work
DEEPEST = 32
DIGITS = 400  # of a number


class Refused(yaml.MarkedYAMLError):
    """What plain data does not hold."""

    def __init__(self, problem: str, mark: yaml.Mark):
        super().__init__(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):
    """The safe loader of PyYAML, for plain data only."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise Refused("anchors and aliases (& and *) are not allowed; write the value out", mark)
        if getattr(event, "tag", None) not in (None, "!"):
            raise Refused(f"the tag {quoted(event.tag)} is not allowed; write the plain value", mark)
        if self.depth >= DEEPEST:
            raise Refused(f"lists and mappings are more than {DEEPEST} deep", mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise Refused("a key must be text", key_node.start_mark)
            key = self.construct_object(key_node, deep=True)
            if key in found:
                raise Refused(f"the key {quoted(key)} is given twice", key_node.start_mark)
            found[key] = self.construct_object(value_node, deep=True)
        return found

    def text(self, node: Any) -> str:
        for character in node.value:
            if character == "\0" or 0xD800 <= ord(character) <= 0xDFFF:
                raise Refused(f"the character {quoted(character)} is not text", node.start_mark)
        return str(node.value)

    def whole(self, node: Any) -> int:
        return int(_digits(node).replace("_", ""), 0)

    def real(self, node: Any) -> float:
        text = _digits(node).replace("_", "").lower()
        value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
        named = ".inf" in text or ".nan" in text
        if not named and (math.isinf(value) or (value == 0 and re.search("[1-9]", text.split("e")[0]))):
            raise Refused(f"{text} is too large or too small for a float", node.start_mark)
        return value


def _digits(node: Any) -> str:
    if len(node.value) > DIGITS:
        raise Refused(f"a number of {len(node.value)} characters", node.start_mark)
    return str(node.value)


WHOLE = r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0b[01]+)"
REAL = r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
KINDS = (  # tag, what it looks like, first characters, how it is made
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""], _Loader.construct_yaml_null),
    ("bool", r"true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF", list("tTfFyYnNoO"), None),
    ("int", WHOLE, list("-+0123456789"), _Loader.whole),
    ("float", REAL, list("-+0123456789."), _Loader.real),
)
_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1's
for _name, _pattern, _first, _make in KINDS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first)
    if _make is not None:
        _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _make)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.text)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_mapping)


def read(sweep: str | Path) -> Any:
    """What a sweep file says, as data; a word names one that comes with dopt.

    Raises:
      InputError: it is missing, or no YAML of plain data.
    """
    return load(text(sweep), f"sweep: {located(sweep)}")


def text(sweep: str | Path) -> str:
    """What a sweep file says, word for word; of one that is too large only the beginning.

    Raises:
      InputError: it is missing, or no text.
    """
    path = located(sweep)
    if not path.is_file():
        raise InputError(f"sweep: no file {str(path)!r}{_near(path)}")
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(LARGEST + 1)  # of a larger one the rest need not be read to be refused
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"sweep: {path} is not YAML that can be read ({error})") from error


def _near(path: Path) -> str:
    """What may have been meant by a path that leads nowhere."""
    if path.stem in available():
        return f"; the one that comes with dopt is {path.stem}, without .yaml"
    return did_you_mean(path.name, [p.name for p in path.parent.glob("*.yaml")]) if path.parent.is_dir() else ""


def load(text: str, what: str) -> Any:
    """The data.

    Args:
      what: what the text is, in errors.

    Raises:
      InputError: it is not YAML, or not plain data.
    """
    if len(text) > LARGEST:
        raise InputError(f"{what} has {len(text)} characters; at most {LARGEST} are read")
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter two: escapes of no character
        raise InputError(f"{what} is not YAML of plain data ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return shown(" ".join(str(error).split()))
    mark = error.problem_mark or error.context_mark
    where = f", line {mark.line + 1}" if mark else ""
    return shown(f"{error.problem or error.context}{where}")
