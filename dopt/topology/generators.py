"""networkx's generators by name: `networkx:NAME` -> a graph that follows from its options alone, built in a bounded way.

A generator that draws has an option `seed`, 0 by default. Options are plain values: what takes a graph, a function, a
class or another program's backend is none.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import networkx as nx

from dopt.registry import coerce, did_you_mean
from dopt.topology import files
from dopt.types import InputError

MODULES = ("networkx.generators.", "networkx.algorithms.bipartite.generators")
NOT_PLAIN = (
    "backend",
    "create_using",
    "default",
    "initial_graph",
    "kernel",
    "kernel_integral",
    "kernel_root",
    "metric",
    "p_dist",
    "pos",
    "pos_name",
    "weight_name",
)
WORDS = ("triad_name",)
LARGEST = 10**5  # of a number among the options
TOTAL = 10**7  # of the numbers of a list
WORK = 2 * 10**6  # calls that a generator may make, a second of them: a complete graph of 700 nodes
ROOM = 2**28  # bytes by which the process may grow meanwhile
LOOK = 2**16  # calls between two looks at it
# nodes, or what else is made at once, where it grows faster than the options do
FORETOLD: dict[str, Callable[[dict[str, Any]], float]] = {
    **dict.fromkeys(
        ("caveman_graph", "connected_caveman_graph", "planted_partition_graph", "relaxed_caveman_graph"),
        lambda o: o["l"] * o["k"],
    ),
    **dict.fromkeys(
        ("random_geometric_graph", "soft_random_geometric_graph", "thresholded_random_geometric_graph"),
        lambda o: o["n"] ** 2 * min(1.0, 2 * abs(o["radius"])) ** min(o.get("dim", 2), 99) / 5,
    ),
    "dorogovtsev_goltsev_mendes_graph": lambda o: 3 ** min(o["n"], 99),
    "hypercube_graph": lambda o: 2 ** min(o["n"], 99),
    "kneser_graph": lambda o: math.comb(min(o["n"], 9999), min(o["k"], o["n"] - o["k"], 99)),
    "maybe_regular_expander_graph": lambda o: o["n"] * o["d"] / 10,
    "mycielski_graph": lambda o: 2 ** min(o["n"], 99),
    "navigable_small_world_graph": lambda o: o["n"] ** min(o.get("dim", 2), 99),
    "random_k_out_graph": lambda o: o["n"] * o["k"] * (1 + o["n"] / 1000),
    "random_regular_expander_graph": lambda o: o["n"] * o["d"] / 10,
    "random_regular_graph": lambda o: o["n"] * o["d"] / 100,
    "sudoku_graph": lambda o: o["n"] ** 4,
    "visibility_graph": lambda o: len(o["series"]) ** 2 / 100,
}


def known() -> dict[str, Callable[..., Any]]:
    """Name -> function, of those that make a graph from plain values."""
    return {
        name: f
        for name, f in vars(nx).items()
        if name.endswith("_graph") and inspect.isroutine(f) and f.__module__.startswith(MODULES) and not _needs_graph(f)
    }


def _needs_graph(f: Callable[..., Any]) -> bool:
    return next(iter(inspect.signature(f).parameters), "") == "G"


def parameters(name: str) -> tuple[str, ...]:
    """Names of a generator's options."""
    functions = known()
    if name not in functions:
        raise InputError(f"topology: networkx has no generator {name!r}{did_you_mean(name, functions)}")
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(functions[name]).parameters.values()
    return tuple(p.name for p in found if p.kind in kinds and p.name not in NOT_PLAIN)


def options(name: str, given: Mapping[str, object]) -> dict[str, Any]:
    """`given`, checked, and the seed where the generator takes one.

    Raises:
      InputError: an unknown generator or option, a value that is not plain, or a number that makes no graph of workers.
    """
    own = parameters(name)
    for option, value in given.items():
        if option not in own:
            near = did_you_mean(option, own) if own else "; it has no options"
            raise InputError(f"topology.{option}: networkx:{name} has no such option{near}")
        if option != "seed" and not _is_word(option, value) and not _is_switch(name, option, value):
            _check_plain(f"topology.{option}", value)
    if "seed" not in own:
        return dict(given)
    seed = coerce("topology.seed", given.get("seed", 0), int)
    if not 0 <= seed < 2**32:
        raise InputError(f"topology.seed: must lie in [0, 2^32), got {seed}")
    return {**given, "seed": seed}


def _is_word(option: str, value: object) -> bool:
    return option in WORDS and isinstance(value, str)


def _is_switch(name: str, option: str, value: object) -> bool:
    """Whether the option is yes or no, or may be left out, and so is the value."""
    default = inspect.signature(known()[name]).parameters[option].default
    return value is default is None or (isinstance(value, bool) and isinstance(default, bool))


def _check_plain(name: str, value: object) -> None:
    if isinstance(value, list | tuple):
        for one in value:
            _check_plain(name, one)
        if sum(abs(one) for one in value if isinstance(one, int | float)) > TOTAL:
            raise InputError(f"{name}: must sum up to at most {TOTAL}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= LARGEST:
            raise InputError(f"{name}: must lie within ±{LARGEST}, got {value!r:.40}")
    else:
        raise InputError(f"{name}: must be a number or a list of them, got {value!r:.40}")


def make(name: str, given: Mapping[str, object]) -> nx.Graph:
    """The graph of a generator, simple and without self-loops.

    Raises:
      InputError: what `options` refuses, what networkx refuses, or a graph that takes too long or too much room.
    """
    full = options(name, given)
    said = f"{dict(given)!s:.200}"
    try:
        if name in FORETOLD and FORETOLD[name](full) > LARGEST:
            raise _TooLargeError
        simple = files.merged(_bounded(lambda: known()[name](**full)))
    except _TooLargeError as error:
        raise InputError(f"topology: networkx:{name} of {said} makes too large a graph; use smaller numbers") from error
    except Exception as error:  # a generator that is given numbers that it cannot take raises whatever it meets
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"topology: networkx:{name} refused its arguments {said} ({reason:.200})") from error
    simple.remove_edges_from(list(nx.selfloop_edges(simple)))
    return simple


class _TooLargeError(BaseException):  # so that no generator's own handlers keep it
    pass


def _bounded(call: Callable[[], nx.Graph]) -> nx.Graph:
    """What the call gives, unless it makes more than WORK calls or takes more than ROOM.

    Sizes follow from options in too many ways to foretell them all. A profile function sees every call that this thread
    makes, those of C functions among them, and may raise.
    """
    import psutil

    calls, before, process = 0, sys.getprofile(), psutil.Process()
    most = process.memory_info().rss + ROOM

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += 1
        if calls > WORK or (calls % LOOK == 0 and process.memory_info().rss > most):
            raise _TooLargeError

    sys.setprofile(count)
    try:
        return call()
    finally:
        sys.setprofile(before)
