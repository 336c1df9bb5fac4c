"""What a run takes of the host's memory, as its resolved fields tell, before anything of it is built.

Each graph, problem and set of data says by its trait `bytes` what it takes; the rest is arithmetic. Estimates: right to a
factor of about two. On devices the compiler's own analysis decides (`devices.memory`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dopt import mixing, topology
from dopt.algorithms.traits import UNWEIGHTED, is_event_driven, matrix_kind
from dopt.config.exchanges import exchange_of
from dopt.config.run import OWN, Resolved, Run, of
from dopt.config.runs import Runs
from dopt.data import SETS
from dopt.memory import Need
from dopt.problems import PROBLEMS

NUMBER = 8  # bytes: what is made on the host is float64
COPIES = 4  # of data: the set, its parts, the parts in the run's precision, and on the devices
KEPT = 256  # mixing matrices that are remembered (`wiring.matrix`)
ARRIVAL, STEP, SEAT = 200, 24, 20  # bytes that a clock keeps of a computation, of a step, and of each worker in it


def network(
    name: str, workers: int, options: Mapping[str, object], weights: str | None, kind: str | None
) -> list[Need]:
    """A graph and its mixing matrix. Files and other libraries' graphs are not known before they are there.

    Args:
      weights: the rule, or None.
      kind: of matrix, which the method asks for.
    """
    if name not in topology.TOPOLOGIES:
        return [mixing.need(workers)] if kind in UNWEIGHTED or not mixing.stays_sparse(weights, workers, 0) else []
    if topology.TOPOLOGIES[name].traits.get("sequence") == "random":  # which has no matrix of its own
        return [topology.need(name, workers, options)]
    return [matrix(name, workers, options, weights, kind), topology.need(name, workers, options)]


def matrix(name: str, workers: int, options: Mapping[str, object], weights: str | None, kind: str | None) -> Need:
    """A mixing matrix: sparse where it stays so, as far as names tell."""
    if name not in topology.TOPOLOGIES:
        return mixing.need(workers)
    links, static = topology.most_links(name, workers, options), topology.phases(name, workers) == 1
    if static and kind not in UNWEIGHTED and mixing.stays_sparse(weights, workers, links):
        return mixing.need(workers, links=links * workers)
    return mixing.need(workers, topology.phases(name, workers))


def data(problem: str, name: str | None, workers: int, options: Mapping[str, Any]) -> list[Need]:
    """What a problem is made of; `options`: dotted, of both."""
    made = PROBLEMS[problem].traits.get("bytes", lambda n, **_: 0.0)(float(workers), **of(options, "problem"))
    found = [Need("problem", f"problem {problem} of {workers} workers", made, "use a smaller one, or fewer workers")]
    if name is not None:
        size = COPIES * SETS[name].traits.get("bytes", lambda **_: 0.0)(**of(options, "data"))
        found.append(Need("data", f"data {name}, with its parts and copies,", size, "use fewer samples or features"))
    return found


def delay(value: Any, options: Mapping[str, Any], workers: int) -> list[Need]:
    """A law's table, and rings of at least a number for each worker."""
    longest = min(max((x for x in (value, *options.values()) if isinstance(x, int)), default=0), 10**18)
    what = f"a delay of up to {longest} steps, for which {workers} workers keep their old models,"
    return [Need("delay", what, (longest + 1) * (3.0 * NUMBER + 4 * workers), "use a shorter one")]


def clock(run: Resolved) -> Need:
    """When the steps of a run land."""
    events = is_event_driven(exchange_of(run))
    steps, seats = expected_steps(vars(run), events), run.delay == "cluster" or _draws_graphs(run)
    what = f"the clock of about {steps} steps of {run.workers} workers"
    each = (ARRIVAL if events else STEP) + SEAT * run.workers * seats
    return Need("steps", what, float(min(steps, 10**18)) * each, "use fewer steps")


def expected_steps(values: Mapping[str, Any], events: bool) -> int:
    """Steps until the horizon, as far as the fields alone tell (seconds: at one second a computation)."""
    if values["steps"] is not None:
        return int(values["steps"])
    if values["gradients"] is not None:
        return int(values["gradients"]) // (1 if events else int(values["workers"]))
    return int(values["seconds"] * (values["workers"] if events else 1))


def _draws_graphs(run: Resolved) -> bool:
    entry = topology.TOPOLOGIES.get(run.topology or "")
    return entry is not None and entry.traits.get("sequence") == "random"


def _has_network(run: Resolved) -> bool:
    return run.topology not in (None, OWN) and matrix_kind(exchange_of(run)) is not None


def _kept(run: Resolved) -> float:
    """Bytes of its mixing matrix, once it is made."""
    kind = matrix_kind(exchange_of(run))
    made = matrix(str(run.topology), run.workers, of(run.options, "topology"), run.weights, kind)
    return min(NUMBER * float(run.workers) ** 2, made.bytes / mixing.sparse.COPIES)


def needs(run: Resolved) -> list[Need]:
    """All that a run needs."""
    found = [clock(run)]
    if _has_network(run):
        kind = matrix_kind(exchange_of(run))
        found += network(str(run.topology), run.workers, of(run.options, "topology"), run.weights, kind)
    if run.problem not in (None, OWN):
        found += data(str(run.problem), run.data, run.workers, run.options)
    if run.delay not in ("cluster", "edges"):
        found += delay(run.delay, of(run.options, "delay"), run.workers)
    return found


def needs_of(runs: Sequence[Run], width: int = 1) -> list[Need]:
    """What runs need of one host together: data once, each distinct mixing matrix, and the clocks of a slab."""
    kinds = Runs.of(runs).kinds
    first = max(kinds, key=lambda run: sum(need.bytes for need in needs(run)))
    sources = {
        (run.topology, run.workers, str(of(run.options, "topology")), run.weights): run
        for run in kinds
        if _has_network(run)
    }
    kept = [_kept(run) for run in list(sources.values())[:KEPT]]
    what = f"{len(kept)} mixing matrices of up to {max(run.workers for run in kinds)} workers"
    several = Need("topology", what, sum(kept) - max(kept, default=0.0), "sweep fewer graphs at once")
    others = clock(first)._replace(bytes=clock(first).bytes * (min(width, len(runs)) - 1))
    return [*needs(first), several, others]
