"""The words of a command line: flags that are given once, dotted options, and values as YAML reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dopt import plugins
from dopt.cli.command import Dotted, Values
from dopt.registry import did_you_mean
from dopt.text import quoted, shown
from dopt.types import InputError

IMPORT = "--import"
AGENTS = "--imports"  # as a W&B agent hands over a sweep's parameter, to a run


def imported(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the files and modules that `--import` names, wherever it stands; all other words)."""
    found: list[str] = []
    others: list[str] = []
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        flag, equals, said = word.partition("=")
        if flag not in (IMPORT, AGENTS):
            others.append(word)
            continue
        if not equals:
            said = queue.pop(0) if queue else ""
        named = plugins.words(value(flag, said) if flag == AGENTS else said, flag)
        if not named:
            raise InputError(f"import: needs a file or a module, got {quoted(said)}")
        found += named
    return found, others


def check_once(arguments: Sequence[str]) -> None:
    """Refuse a flag that is given twice: of its values only the last would be read."""
    seen = set()
    for word in arguments:
        flag = word.partition("=")[0]
        if flag in seen and flag not in ("--set", IMPORT):
            raise InputError(f"{shown(flag.removeprefix('--'))}: is given twice; leave one out")
        if flag.startswith("--"):
            seen.add(flag)


def joined(arguments: Sequence[str]) -> list[str]:
    """Dotted options with `=`, so that no value of theirs is taken for a name."""
    found: list[str] = []
    for word in arguments:
        last = found[-1] if found else ""
        if last.startswith("--") and "." in last and "=" not in last and not word.startswith("--"):
            found[-1] = f"{last}={word}"
        else:
            found.append(word)
    return found


def dotted(command: str, rest: Sequence[str], allowed: Dotted) -> Values:
    """The values of `--name=value` and `--name value` pairs that argparse does not know: options of plug-ins."""
    found, queue = {}, list(rest)
    while queue:
        flag = queue.pop(0)
        name, equals, given = flag.removeprefix("--").partition("=")
        if not flag.startswith("--") or not _is_dotted(name, allowed.prefixes):
            raise InputError(f"{command}: unknown argument {flag!r}{did_you_mean(flag.split('=')[0], allowed.flags)}")
        if not equals:
            if not queue:
                raise InputError(f"{command}: {flag} needs a value")
            given = queue.pop(0)
        found[name] = given
    return {name: value(name, text) for name, text in found.items()}


def _is_dotted(name: str, prefixes: Sequence[str] | None) -> bool:
    prefix, dot, _ = name.partition(".")
    return bool(dot) and (prefixes is None or prefix in prefixes)


def changes(given: Sequence[str]) -> dict[str, Any]:
    """Parameters that `--set` fixes to other values."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, said = text.partition("=")
        if not equals or not name:
            raise InputError(f"set: must be KEY=VALUE, got {quoted(text)}")
        if name in found:
            raise InputError(f"set: {quoted(name)} is given twice")
        found[name] = value(name, said)
    return found


def written(value: Any) -> str:
    """A value as `value` reads it."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def value(name: str, text: str) -> Any:
    """A value as YAML reads it: a number, true, none, a list, a word."""
    from dopt.sweeps import plain

    return None if text in ("None", "none", "null") else plain.load(text, f"{name}: {quoted(text)}")


def names(flag: str, text: str | None) -> list[str]:
    """Names between commas."""
    names = [] if text is None else [name.strip() for name in text.split(",")]
    for place, name in enumerate(names):
        if not name or name in names[:place]:
            raise InputError(
                f"{flag}: {quoted(name)} {'is given twice' if name else 'is not a name'}, got {quoted(text)}"
            )
    return names
