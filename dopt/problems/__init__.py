"""One file per problem: what a worker minimizes. Whatever lies here is registered.

A builder is `name(shards, workers, *, options) -> Problem`; `shards` is None for problems that need no data.
"""

import importlib
import pkgutil

from dopt.problems.base import PROBLEMS, Shards

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["PROBLEMS", "Shards"]
