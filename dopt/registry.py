"""Names for plug-ins: one decorator registers a function, its options are its keyword-only parameters."""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from dopt.types import InputError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'ring'?` where one is near, else what there is."""
    known = sorted(known)
    if not known:
        return ""
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


@dataclass(frozen=True)
class Entry:
    """One plug-in: its function, where it comes from, and what the harness must know of it."""

    name: str
    make: Callable[..., Any]
    source: str
    traits: Mapping[str, Any]

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.make) or "").split("\n")[0].rstrip(".")

    @property
    def known(self) -> tuple[str, ...]:
        """Names of its options, implied ones among them."""
        return tuple(_keyword_only(self.make)[1])

    def options(self, given: Mapping[str, Any], what: str, implied: Iterable[str] = ()) -> dict[str, Any]:
        """All options with their values: `given` checked against the keyword-only parameters, defaults filled in.

        Args:
          given: option name -> value.
          what: how the options are called in errors, as in `topology` of `topology.degree`.
          implied: parameters that the harness itself hands over.

        Raises:
          InputError: an unknown option, one of the wrong type, or a missing one without default.
        """
        hints, defaults = _keyword_only(self.make)
        known = {name: default for name, default in defaults.items() if name not in set(implied)}
        for name in given:
            if name not in known:
                near = did_you_mean(name, known) if known else "; it has no options"
                raise InputError(f"{what}.{name}: {self.name} has no such option{near}")
        resolved = {name: given.get(name, default) for name, default in known.items()}
        for name, value in resolved.items():
            if value is inspect.Parameter.empty:
                raise InputError(f"{what}.{name}: {self.name} needs it; give {what}.{name}")
            resolved[name] = coerce(f"{what}.{name}", value, hints.get(name, Any))
        return resolved


def readable(given: Mapping[str, Any], own: Iterable[str], registry: Mapping[str, Entry]) -> dict[str, Any]:
    """`given` without what only others of the registry read; what nobody reads stays, to be refused."""
    others = {option for entry in registry.values() for option in entry.known}.difference(own)
    return {name: value for name, value in given.items() if name not in others}


@cache
def _keyword_only(function: Callable) -> tuple[dict[str, Any], dict[str, Any]]:
    """(type hints, defaults) of a function's keyword-only parameters."""
    parameters = inspect.signature(function).parameters.values()
    return typing.get_type_hints(function), {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def coerce(name: str, value: Any, hint: Any) -> Any:
    """`value` as the type that `hint` asks for (an int is a fine float); InputError where it is another type."""
    if hint is Any:
        return value
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for choice in typing.get_args(hint):
            try:
                return coerce(name, value, choice)
            except InputError:
                continue
    elif hint is type(None) and value is None:
        return None
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    elif hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    elif (origin or hint) in (tuple, list) and isinstance(value, list | tuple):
        return tuple(value)
    elif hint in (bool, str) and isinstance(value, hint):
        return value
    wanted = getattr(hint, "__name__", None) if origin is None else str(hint).replace("NoneType", "none")
    raise InputError(f"{name}: must be {wanted}, got {value!r} ({type(value).__name__})")


class Registry(dict[str, Entry]):
    """name -> Entry, with an error that helps."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def register(self, *, name: str | None = None, source: str = "", **traits: Any) -> Callable[[Callable], Callable]:
        """Register the function under its own name (or `name`); `traits` is what the harness must know of it."""

        def add(make: Callable) -> Callable:
            key = name or make.__name__
            self[key] = Entry(key, make, source, traits)
            return make

        return add

    def __missing__(self, name: str) -> Entry:
        raise InputError(f"{self.what}: unknown name {name!r}{did_you_mean(name, self)}")
