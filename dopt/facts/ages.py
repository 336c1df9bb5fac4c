"""How old the models are that a run reads: who draws it, its law, and the longest ring of old models. Host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np

from dopt import delays, memory, mixing, topology
from dopt.algorithms.traits import is_event_driven
from dopt.config import OWN, Resolved, options_of
from dopt.config.exchanges import exchange_of, traits_of
from dopt.config.runs import Runs, numbered
from dopt.facts import wiring
from dopt.types import InputError

PAIR = 24  # bytes of each pair of workers while their ages are drawn
HINT = "use fewer workers, or a delay that all links share"


def form(run: Resolved) -> str | None:
    """Who draws the delay: one for all in a step, or (of a law that is not constant) one for each sender, now or for good."""
    traits = traits_of(run)
    if wiring.needs_of(run) == "tree" or run.delay == "edges" or run.options.get("delay.fixed"):
        return "fixed"
    if traits.staleness is None or run.delay == "cluster":
        return None
    if traits.staleness == "coordinate":
        return "coordinate"
    if isinstance(run.delay, int):  # no ring where no delay was asked for
        largest = run.options.get("delay.max") or run.delay
        return "step" if largest or traits.delayed or traits.staleness == "step" else None
    return traits.staleness


def staleness(runs: Sequence[Resolved]) -> str | None:
    """Where the staleness of a step comes from, in runs of one group; drawn only where some law is not constant."""
    kind = form(runs[0])
    if is_event_driven(exchange_of(runs[0])):
        return kind or "schedule"
    return "constant" if kind == "step" and all(isinstance(run.delay, int) for run in runs) else kind


def is_kept(staleness: str | None) -> bool:
    """Whether old values are kept for it."""
    return staleness not in (None, "schedule")


def table(run: Resolved) -> np.ndarray:
    """[slots] the law of a run's delay, as probabilities."""
    return delays.table(run.delay, options_of(run, "delay"))


def slots(runs: Runs, staleness: str | None, own: Any, graph: Any) -> int:
    """Length of the ring of old models that the runs of a group need. `own`, `graph`: what was handed over, or None."""
    if staleness == "fixed":
        each = (runs[int(row)] for row in numbered(runs.template, runs.seed)[0])
        return 1 + max(int(of_links(run, wiring.wanted(run, own), graph).max()) for run in each)
    return max(len(table(run)) for run in runs.kinds) if is_kept(staleness) else 1


def of_links(run: Resolved, w: Any, graph: Any) -> np.ndarray:
    """[n, n] int32: how old each reader reads each sender, for good. `graph`: what was handed over, or None."""
    memory.refuse_beyond(
        [memory.Need("delay", f"an age for each pair of {run.workers} workers", PAIR * float(run.workers) ** 2, HINT)]
    )
    if wiring.needs_of(run) == "tree":
        return mixing.relay_ages(w)
    if run.delay == "edges":
        return topology.edge_delays(_graph(run, graph))
    return delays.draw(run.delay, options_of(run, "delay"), run.seed, run.workers)


def _graph(run: Resolved, graph: Any) -> nx.Graph[int]:
    if graph is None and run.topology != OWN:
        graph = wiring.network(run)
    if not isinstance(graph, nx.Graph):
        raise InputError("delay: edges needs one fixed graph, whose edges have an attribute `delay`")
    return graph


def notes(run: Resolved) -> tuple[str, ...]:
    """What a reader should know of how old the models are."""
    if traits_of(run).staleness == "coordinate" and run.delay == 0:
        return (
            f"{run.algorithm} reads fresh models at delay 0, whatever the cluster; a server's models are n - 1 updates old on average",
        )
    return ()
