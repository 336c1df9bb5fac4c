"""A topology in numbers: how far, how fast and how evenly it spreads what workers know, and who may use it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csgraph

from dopt import mixing, topology
from dopt.algorithms import ALGORITHMS, takes_mix
from dopt.config import Run
from dopt.facts import wiring
from dopt.mixing.spectrum import Matrix
from dopt.topology import Matchings, Network
from dopt.types import InputError

WORKERS = 16  # where nothing else is asked for
DECAY, ACCURACY = 0.9, 1e-6  # of the effective number of neighbours, and of the consensus time


class Facts(NamedTuple):
    """What a mixing matrix is like; nan where a number is not defined for it."""

    workers: int
    degree: tuple[int, int]  # fewest and most senders of a worker at a step
    diameter: float  # hops, over the links of all steps together; inf: some never hear of some
    gap: float
    gap_kind: str
    neighbours: float  # effective, with DECAY
    time: float  # steps to ACCURACY; inf: never
    symmetric: bool
    doubly_stochastic: bool
    connected: bool


def facts(w: Matrix) -> Facts:
    """The numbers of a mixing matrix [n, n], of a period of them [period, n, n], or of random `Matchings`."""
    both = mixing.is_doubly_stochastic(w)
    return Facts(
        workers=len(w) if isinstance(w, Matchings) else w.shape[-1],
        degree=degree(w),
        diameter=float(csgraph.shortest_path(mixing.union(w), unweighted=True).max()),
        gap=_gap(w),
        gap_kind=mixing.gap_kind(w),
        neighbours=mixing.effective_neighbours(w, DECAY) if both and not isinstance(w, Matchings) else math.nan,
        time=mixing.consensus_time(w, ACCURACY),
        symmetric=mixing.is_symmetric(w),
        doubly_stochastic=both,
        connected=mixing.is_connected(w),
    )


def degree(w: Matrix) -> tuple[int, int]:
    """Fewest and most senders that a worker can have at a step."""
    if not isinstance(w, Matchings):
        senders = ((w != 0) & ~np.eye(w.shape[-1], dtype=bool)).sum(-1)
        return int(senders.min()), int(senders.max())
    if w.partners is None:  # of an odd number one is left alone
        return 1 - w.workers % 2, min(1, w.workers - 1)
    met = w.partners != np.arange(w.workers)
    return int(met[w.probability >= 1].sum(0).min()), int(met[w.probability > 0].sum(0).max())


def verdicts(network: Network, rule: str | None = None, options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Gossip method -> why it refuses a network with the weights that it would take, or with `rule`; "": it accepts it."""
    given, found = dict(options or {}), {}
    dotted = {f"weights.{name}": value for name, value in given.items()}
    wired = cache(lambda rule, needs: wiring.wired(network, len(network), rule, given, needs))
    for name, entry in ALGORITHMS.items():
        if not takes_mix(entry):
            continue
        run = Run(algorithm=name, workers=len(network), learning_rate=0.1, weights=rule, steps=1, options=dotted)
        try:
            run = run.resolve(graph=network, unread="drop")
            needs = wiring.needs_of(run)
            mixing.check(wired(run.weights, needs), name, str(needs))
            found[name] = ""
        except InputError as error:
            found[name] = str(error).split("; strict")[0]
    return found


def glance(name: str) -> tuple[str, str]:
    """Degree and spectral gap by default weights, at the first n from 16 on that the topology exists for; `-`: not here."""
    for n in (*range(WORKERS, 8 * WORKERS), *range(WORKERS - 1, 0, -1)):
        try:
            w = mixing.weights(topology.make(name, n))
        except InputError:
            continue
        where = "" if n == WORKERS else f" (n={n})"
        return f"{degree(w)[1]}{where}", f"{_gap(w):.3g}{where}"
    return "-", "-"


def _gap(w: Matrix) -> float:
    return round(mixing.spectral_gap(w), 12)  # what rounding leaves is none
