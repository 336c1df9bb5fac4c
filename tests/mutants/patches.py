"""What mutants are made of: a context in which a method, a law or a rule is a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import wraps
from typing import Any, NamedTuple
from unittest import mock

from dopt.algorithms import ALGORITHMS
from dopt.registry import Plugins

Patch = Callable[[], AbstractContextManager[Any]]


class Mutant(NamedTuple):
    """A figure whose runs are made by something wrong.

    Attributes:
      figure: its name.
      wrong: what was made wrong, in words.
      patch: () -> the context in which it is.
      parts: the sweeps that it touches; the others are those of the right code. None: all.
      size: of the figure; "fast", or "" (usual) where a tenth of the seeds cannot tell.
    """

    figure: str
    wrong: str
    patch: Patch
    parts: tuple[str, ...] | None = None
    size: str = "fast"


def attribute(owner: Any, name: str, value: Any) -> Patch:
    """`owner.name` is another value."""
    return lambda: mock.patch.object(owner, name, value)


def entry(registry: Plugins[Any], name: str, make: Callable[..., Any], **traits: Any) -> Patch:
    """A plug-in is made by another function, of the same options, and has other traits where some are given."""

    def patched() -> AbstractContextManager[Any]:
        known = registry[name]
        others = {**known.traits, **traits} if isinstance(known.traits, Mapping) else replace(known.traits, **traits)
        return mock.patch.dict(registry, {name: replace(known, make=make, traits=others)})

    return patched


def imposter(name: str, other: str) -> Patch:
    """What is asked for as one plug-in method is another, which takes the same options."""
    return lambda: mock.patch.dict(ALGORITHMS, {name: replace(ALGORITHMS[other], name=name)})


def told(name: str, **forced: Any) -> Patch:
    """A method has other options than the ones asked for."""
    make = ALGORITHMS[name].make

    @wraps(make)  # with all its options
    def otherwise(*args: Any, **options: Any) -> Any:
        return make(*args, **{**options, **forced})

    return entry(ALGORITHMS, name, otherwise)


def traits(name: str, **changes: Any) -> Patch:
    """The harness knows other things of a method."""

    return entry(ALGORITHMS, name, ALGORITHMS[name].make, **changes)
