"""A resolved run's graph as its mixing matrix, and who hears whom when it mixes. Host."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from dopt import algorithms, mixing, topology
from dopt.config import Run, options_of


def needs_of(run: Run) -> str | None:
    """The kind of mixing matrix that a resolved run's method asks for."""
    return algorithms.needs(run.algorithm, options_of(run, "algorithm"))


def matrix(run: Run) -> Any:
    """W of a resolved run, as its fields say: [n, n], a period [period, n, n], random `Matchings`, or a pair (R, C)."""
    return _matrix(*source(run))


def source(run: Run) -> tuple[Any, ...]:
    """All that a mixing matrix follows from."""
    options = (json.dumps(options_of(run, prefix)) for prefix in ("topology", "weights"))
    return run.topology, run.workers, next(options), run.weights, next(options), needs_of(run)


@lru_cache(maxsize=256)
def _matrix(name: Any, workers: int, options: str, rule: Any, rule_options: str, needs: str | None) -> Any:
    return wired(topology.make(name, workers, **json.loads(options)), workers, rule, json.loads(rule_options), needs)


def wired(network: topology.Network, workers: int, rule: Any, options: dict[str, Any], needs: str | None) -> Any:
    if needs == "tree":
        return mixing.as_matrix(mixing.weights(mixing.spanning_tree(network), "metropolis"), workers)
    if needs == "pairs":
        return mixing.as_matrix(mixing.weights(network, "metropolis"), workers)
    w = mixing.as_matrix(mixing.weights(network, rule, **options), workers)
    if needs != "row and column stochastic":
        return w
    # what is doubly stochastic serves for both; else C splits what R, over the same links, averages
    return (w, w) if mixing.is_doubly_stochastic(w) else (w, mixing.weights(network, "push"))


@lru_cache(maxsize=256)
def check(method: str, *source: Any) -> None:
    mixing.check(_matrix(*source), method, source[-1])


def mixings(run: Run, steps: Any) -> Any:
    """How often a resolved run has mixed after so many steps."""
    options = options_of(run, "algorithm")
    return steps // options.get("local_steps", 1) * options.get("rounds", 1)


def links_of(run: Run, w: Any) -> Callable[[int], np.ndarray]:
    """Mixing -> [n, n] bool: whom each worker hears."""
    return mixing.links(w[0] if isinstance(w, tuple) else w, run.seed)
