"""Names for plug-ins: one decorator registers a function, its options are its keyword-only parameters."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import re
import types
import typing
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from dopt import plugins
from dopt.synonyms import SYNONYMS
from dopt.text import LONGEST, quoted
from dopt.types import InputError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'ring'?` where one is near, or is another word for it; else what there is."""
    known = sorted(known)
    if not known:
        return ""
    near = _meant(str(name)[:LONGEST], known)
    return f"; did you mean {near!r}?" if near else f"; known: {', '.join(known)}"


def _meant(name: str, known: Sequence[str]) -> str | None:
    """The known name that was meant, be they flags or not."""
    word = name.lstrip("-")
    dashes = "--" if known[0].startswith("--") else ""
    other = SYNONYMS.get(word.lower().replace("-", "_"))
    if other is not None and dashes + other.partition(".")[0] in known:
        return dashes + other
    ends = [one for one in known if word and one.endswith(f".{word}")]
    return next(iter(ends or difflib.get_close_matches(name, known, n=1, cutoff=0.6)), None)


class Option(NamedTuple):
    """One option of a plug-in, as a reader sees it."""

    name: str
    kind: str  # its type, and the range of a number, in words
    default: Any  # `Parameter.empty`: it must be given

    @property
    def is_needed(self) -> bool:
        return self.default is inspect.Parameter.empty


Make = TypeVar("Make", bound=Callable[..., Any])
T = TypeVar("T")  # what the harness must know of a plug-in: a mapping of names, or a type of its own


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One plug-in: its function, where it comes from, and what the harness must know of it."""

    name: str
    make: Callable[..., Any]
    source: str
    traits: T

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.make) or "").split("\n")[0].rstrip(".")

    @property
    def origin(self) -> str:
        """Where it comes from: dopt, a file, or a module."""
        return plugins.origin(self.make)

    @property
    def known(self) -> tuple[str, ...]:
        """Names of its options, implied ones among them."""
        return tuple(_keyword_only(self.make)[1])

    def described(self, implied: Iterable[str] = ()) -> list[Option]:
        """Its options in words, in the order of its parameters; without what the harness itself hands over."""
        hints, defaults = _keyword_only(self.make)
        kept = {name: default for name, default in defaults.items() if name not in set(implied)}
        return [Option(name, _kind(hints.get(name, Any)), default) for name, default in kept.items()]

    def options(self, given: Mapping[str, object], what: str, implied: Iterable[str] = ()) -> dict[str, Any]:
        """All options with their values: `given` checked against the keyword-only parameters, defaults filled in.

        Args:
          given: option name -> value.
          what: how the options are called in errors, as in `topology` of `topology.degree`.
          implied: parameters that the harness itself hands over.

        Raises:
          InputError: an unknown option, one of the wrong type, a missing one without default, or a number that no program
            should count with.
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
            check_size(f"{what}.{name}", resolved[name])
        return resolved


def traits_by_name(entry: Entry[Any]) -> Mapping[str, Any]:
    """An entry's traits by name, whatever holds them."""
    return entry.traits if isinstance(entry.traits, Mapping) else vars(entry.traits)


def readable(given: Mapping[str, object], own: Collection[str], *known: Plugins[Any]) -> dict[str, Any]:
    """`given` without what only others of these registries read; what nobody reads stays, to be refused."""
    if not given:
        return {}
    others = _others(own, known)
    if not all(name in own or name in others for name in given):  # what is not imported yet may read it
        plugins.offered()
        others = _others(own, known)
    return {name: value for name, value in given.items() if name not in others}


def _others(own: Collection[str], known: Iterable[Plugins[Any]]) -> set[str]:
    """Options of a registry's plug-ins, but for one's own."""
    return {option for each in known for entry in each.values() for option in entry.known}.difference(own)


@cache
def _keyword_only(function: Callable[..., Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(type hints, defaults) of a function's keyword-only parameters."""
    parameters = inspect.signature(function).parameters.values()
    plain = function.func if isinstance(function, functools.partial) else function
    return typing.get_type_hints(plain, include_extras=True), {
        p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY
    }


LARGEST = 2**31  # whole numbers are smaller in absolute value: programs count in int32


MOST = 1e30  # in size: sums and products of some such numbers are finite, in float32, too


def check_size(name: str, value: object) -> None:
    """Refuse finite reals, alone or in lists, that programs would take for infinite; infinity itself may mean something."""
    if isinstance(value, list | tuple):
        for one in value:
            check_size(name, one)
    elif isinstance(value, float) and MOST < abs(value) < math.inf:
        raise InputError(f"{name}: must be at most {MOST:g} in absolute value, got {value}")


def coerce(name: str, value: object, hint: Any) -> Any:
    """`value` as the type that `hint` asks for (an int is a fine float); InputError where it is another type.

    No number is NaN, whole numbers have at most 31 bits, and those of a type with a `Range` lie in it.
    """
    if hint is Any:
        return value
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _ranged(name, value, *typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        return _one_of(name, value, hint)
    if hint in (int, float) and isinstance(value, int | float) and not isinstance(value, bool):
        return _numeric(name, value, hint)
    if (origin or hint) in (tuple, list) and isinstance(value, list | tuple):
        inner = typing.get_args(hint)
        return tuple(coerce(name, x, inner[0]) for x in value) if inner else tuple(value)
    if hint in (bool, str) and isinstance(value, hint):
        return _text(name, value) if hint is str else value
    raise InputError(f"{name}: must be {_called(hint)}, got {quoted(value)} ({type(value).__name__})")


@dataclass(frozen=True)
class Range:
    """What a number may be, as part of an option's type: Annotated[float, Range(0)]. It is finite anyway."""

    low: float
    high: float = math.inf

    def rule(self, value: float) -> str:
        """What the value breaks; empty: nothing."""
        if not math.isfinite(value):
            return "must be finite"
        if value < self.low:
            return "must not be negative" if self.low == 0 else f"must be at least {self.low}"
        return f"must be at most {self.high}" if value > self.high else ""

    @property
    def words(self) -> str:
        return f"{self.low:g} or more" if self.high == math.inf else f"{self.low:g} to {self.high:g}"


Seed = Annotated[int, Range(0)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Width = Annotated[int, Range(1, 2**16)]  # of a network's layer
Depth = Annotated[int, Range(1, 1000)]  # layers, each written out in the program


def _ranged(name: str, value: object, hint: Any, limits: Range) -> Any:
    found = coerce(name, value, hint)
    broken = limits.rule(found)
    if broken:
        raise InputError(f"{name}: {broken}, got {quoted(value)}")
    return found


TAKES: dict[object, tuple[type, ...]] = {
    int: (int, float),
    float: (int, float),
    str: (str,),
    bool: (bool,),
}  # plain types


def _one_of(name: str, value: object, hint: Any) -> Any:
    """As the first type of a union that takes it."""
    choices = [choice for choice in typing.get_args(hint) if choice is not type(None)]
    if value is None and len(choices) < len(typing.get_args(hint)):
        return None
    if len(choices) == 1:
        return coerce(name, value, choices[0])
    for choice in choices:
        if choice in TAKES and not isinstance(value, TAKES[choice]):
            continue  # what an error would say takes longer than to look
        try:
            return coerce(name, value, choice)
        except InputError:
            continue
    if value != value:
        raise InputError(f"{name}: must be finite, got {value}")
    raise InputError(f"{name}: must be {_called(hint)}, got {quoted(value)} ({type(value).__name__})")


def _numeric(name: str, value: int | float, hint: Any) -> int | float:
    if value != value:
        raise InputError(f"{name}: must be finite, got {value}")
    try:
        found: int | float = hint(value)
    except OverflowError as error:  # of infinity as an int, or of an int past the floats
        raise InputError(f"{name}: must be a finite {_called(hint)}, got {quoted(value)}") from error
    if hint is int and (found != value or abs(found) >= LARGEST):
        limit = " below 2^31" if found == value else ""
        raise InputError(f"{name}: must be {_called(hint)}{limit}, got {quoted(value)} ({type(value).__name__})")
    return found


def _text(name: str, value: str) -> str:
    """No name has a NUL or half a character in it: neither is a file's, nor can it be written down."""
    if any(c == "\0" or unicodedata.category(c) == "Cs" for c in value):
        raise InputError(f"{name}: must be text, got {quoted(value)}")
    return value


def _called(hint: Any) -> str:
    """A type's name in messages."""
    if typing.get_origin(hint) is None:
        return "none" if hint is type(None) else getattr(hint, "__name__", str(hint))
    return (
        re.sub(r"typing\.Annotated\[(\w+), Range\([^)]*\)\]", r"\1", str(hint))
        .replace("NoneType", "none")
        .replace("None", "none")
    )


def _kind(hint: object) -> str:
    """A type in words, as help shows it: `int, 1 to 1000`, `float or none`."""
    if typing.get_origin(hint) is Annotated:
        inner, limits = typing.get_args(hint)
        return f"{_called(inner)}, {limits.words}"
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(map(_kind, typing.get_args(hint)))
    if typing.get_origin(hint) in (tuple, list):
        return f"list of {_kind(typing.get_args(hint)[0])}"
    return "any" if hint is Any else _called(hint)


class Plugins(dict[str, Entry[T]]):
    """name -> Entry, with an error that helps. A name that nobody has registered may be that of an installed plug-in."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def __missing__(self, name: str) -> Entry[T]:
        plugins.offered()
        if name in self:
            return self[name]
        raise InputError(f"{self.what}: unknown name {quoted(name)}{did_you_mean(name, self)}{plugins.failures()}")

    def has(self, name: object) -> bool:
        """Whether the name is known, be it by an installed plug-in that nobody has asked for yet."""
        if name not in self:
            plugins.offered()
        return name in self

    def add(self, entry: Entry[T]) -> None:
        """Register a plug-in; a file, or a session, may register its own ones anew.

        Raises:
          InputError: the name is taken.
        """
        there = self.get(entry.name)
        if there is not None and not plugins.is_same_place(there.make, entry.make):
            raise InputError(
                f"{self.what}: the name {quoted(entry.name)} is taken already, by {there.origin}; choose another name"
            )
        plugins.note(entry.make)
        self[entry.name] = entry


class Registry(Plugins[Mapping[str, Any]]):
    """Plug-ins whose traits are a few names and values."""

    def register(self, *, name: str | None = None, source: str = "", **traits: Any) -> Callable[[Make], Make]:
        """Register the function under its own name (or `name`); `traits` is what the harness must know of it."""

        def add(make: Make) -> Make:
            key = name or make.__name__
            self.add(Entry(key, make, source, traits))
            return make

        return add
