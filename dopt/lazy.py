"""Packages whose names are imported when somebody asks for them, so that nobody waits for what nobody uses: JAX takes seconds.

Importing a module binds it in its package, under whose name a function may stand: importing `dopt.config.identity` would hide the function `identity`.
Here a name that stands for something else stays what it is, whichever modules are imported, and in which order.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


def on_demand(package: str, places: Mapping[str, str]) -> None:
    """Let a package have these names, each of the module where it is found; and all of the package's modules.

    The package says the same once more under TYPE_CHECKING, for who reads types.
    """

    class Package(ModuleType):
        def __getattr__(self, name: str) -> Any:
            found = getattr(import_module(places[name]), name) if name in places else _module(package, name)
            setattr(self, name, found)
            return found

        def __setattr__(self, name: str, value: Any) -> None:
            is_own_module = isinstance(value, ModuleType) and value.__name__ == f"{package}.{name}"
            if not (is_own_module and name in places):
                super().__setattr__(name, value)

        def __dir__(self) -> list[str]:
            return sorted({*super().__dir__(), *self.__all__})

    sys.modules[package].__class__ = Package


def _module(package: str, name: str) -> ModuleType:
    """The package's own module of that name."""
    missing = AttributeError(f"module {package!r} has no attribute {name!r}")
    if name.startswith("_"):
        raise missing
    try:
        return import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{package}.{name}":
            raise
        raise missing from None
