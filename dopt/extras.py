"""Packages that only some of what dopt does needs: each is an extra of dopt, and where it is missing one line names it.

Whoever imports one of these says so first, by `need`.
"""

from __future__ import annotations

from importlib import util

from dopt.types import InputError

EXTRAS = {  # package -> (the module that is imported, the extra that installs it)
    "bokeh": ("bokeh", "report"),
    "cvxpy": ("cvxpy", "weights"),
    "matplotlib": ("matplotlib", "figures"),
    "orbax-checkpoint": ("orbax.checkpoint", "checkpoints"),
    "ray": ("ray", "ray"),
    "xarray": ("xarray", "xarray"),
}


class MissingError(InputError):
    """What was asked for needs a package that is not installed."""


def lacking(package: str, what: str) -> str:
    """One line on what installs a missing package; "" where it is there.

    Args:
      package: a key of `EXTRAS`; it is looked for, and not imported.
      what: what needs it, as "weights: fastest".
    """
    module, extra = EXTRAS[package]
    return "" if _is_there(module) else f"{what} needs {package}, which is not installed; pip install 'dopt[{extra}]'"


def need(package: str, what: str) -> None:
    """MissingError with that line where the package is missing."""
    line = lacking(package, what)
    if line:
        raise MissingError(line)


def _is_there(module: str) -> bool:
    try:
        found = util.find_spec(module)
    except ModuleNotFoundError:  # the package that it is part of
        return False
    return found is not None and found.origin is not None  # a folder of that name is no package
