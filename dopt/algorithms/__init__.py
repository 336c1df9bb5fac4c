"""One file per method, in `synchronous/`, `asynchronous/` and `gossip/`; whatever lies there is registered."""

import importlib
import pkgutil

from dopt.algorithms.catalogue import make, options, readable, takes_mix
from dopt.algorithms.method import Method, chain
from dopt.algorithms.traits import ALGORITHMS, AllReduce, Neighbours, Pairs, Server

for _family in ("synchronous", "asynchronous", "gossip"):
    _package = importlib.import_module(f"dopt.algorithms.{_family}")
    for _module in pkgutil.iter_modules(_package.__path__):
        importlib.import_module(f"{_package.__name__}.{_module.name}")

__all__ = [
    "ALGORITHMS",
    "AllReduce",
    "Method",
    "Neighbours",
    "Pairs",
    "Server",
    "chain",
    "make",
    "options",
    "readable",
    "takes_mix",
]
