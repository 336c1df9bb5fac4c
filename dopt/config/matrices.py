"""A run's graph and its mixing matrix, made once for each distinct set of fields; and what was handed over as one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import networkx as nx
import numpy as np

from dopt import code, files, mixing, topology
from dopt.algorithms.traits import UNWEIGHTED
from dopt.config.exchanges import needs_of
from dopt.config.run import OWN, Resolved, options_of
from dopt.registry import Registry
from dopt.types import InputError

Maker = tuple[Callable[..., Any] | None, str]  # a function, and its version where it was written outside dopt


class Drawn(NamedTuple):
    """All that a graph follows from."""

    name: str
    workers: int
    options: str  # as JSON
    content: str  # digest of its file
    makers: tuple[Maker, ...]  # what names stand for today


class Source(NamedTuple):
    """All that a mixing matrix follows from."""

    graph: Drawn
    weights: str | None
    weight_options: str  # as JSON
    needs: str | None  # the kind of matrix that the method asks for
    content: str  # digest of its file
    makers: tuple[Maker, ...]  # what names stand for today


KEPT: ContextVar[Mapping[Source, Any]] = ContextVar("KEPT", default=MappingProxyType({}))  # solved for once


def source(run: Resolved) -> Source:
    """What the mixing matrix of a run follows from."""
    rule, options = run.weights, options_of(run, "weights")
    is_file = rule is not None and mixing.is_file(rule)
    base = options.get("base")
    return Source(
        drawn(str(run.topology), run.workers, options_of(run, "topology")),
        rule,
        json.dumps(options),
        needs_of(run),
        files.content(str(rule)) if is_file else "",
        (_made(mixing.WEIGHTS, rule), _made(mixing.WEIGHTS, base)),
    )


def drawn(name: str, workers: int, options: Mapping[str, object]) -> Drawn:
    """What a graph follows from."""
    is_file = topology.is_file(name) and not topology.is_generator(name)
    makers = _made(topology.TOPOLOGIES, name), _made(topology.TOPOLOGIES, options.get("base"))
    return Drawn(name, workers, json.dumps(options), files.content(name) if is_file else "", makers)


def _made(known: Registry, name: Any) -> Maker:
    """What a name stands for today."""
    make = known[name].make if isinstance(name, str) and name in known else None
    return make, code.version(make)


def network(run: Resolved) -> topology.Network:
    """The graph of a run."""
    return network_of(str(run.topology), run.workers, options_of(run, "topology"))


def network_of(name: str, workers: int, options: Mapping[str, object]) -> topology.Network:
    """The graph of that name; it is drawn once."""
    return drawn_network(drawn(name, workers, options))


@lru_cache(maxsize=64)
def drawn_network(of: Drawn) -> topology.Network:
    return topology.make(of.name, of.workers, **json.loads(of.options))


def matrix(run: Resolved) -> Any:
    """W of a run, as its fields say: [n, n], dense or sparse, a period [period, n, n], random `Matchings`, or a pair (R, C)."""
    return matrix_of(source(run))


def matrix_of(of: Source) -> Any:
    """W that follows from these; the one that is kept, if one is."""
    kept = KEPT.get().get(of)
    return _matrix(of) if kept is None else kept


def wanted(run: Resolved, own: Any) -> Any:
    """The mixing matrix of a run: the one that was handed over, or its own; None: it has none."""
    if own is not None:
        return own
    return matrix(run) if run.topology is not None else None


def notes_on(runs: Sequence[Resolved], graph: Any = None) -> tuple[str, ...]:
    """What a reader should know of how graphs and matrices were taken: those of runs, or what was handed over."""
    if graph is not None:
        return (*topology.notes(graph), *mixing.notes(graph))
    return tuple(dict.fromkeys(note for run in runs if has_matrix(run) for note in notes_of(source(run))))


def has_matrix(run: Resolved) -> bool:
    """Whether the fields of a run say its mixing matrix (also by a file alone): not where it was handed over."""
    return run.topology not in (None, OWN) or _is_alone(run.topology, run.weights)


def _is_alone(topology: str | None, weights: str | None) -> bool:
    """Whether a file of a matrix says who talks to whom, and no graph."""
    return topology == OWN and weights is not None and mixing.is_file(weights)


@lru_cache(maxsize=256)
def notes_of(of: Source) -> tuple[str, ...]:
    """What a reader should know of how files of a graph and of a matrix were taken."""
    of_matrix = mixing.notes(Path(of.weights)) if of.weights is not None and mixing.is_file(of.weights) else ()
    return of_matrix if of.graph.name == OWN else (*topology.notes(drawn_network(of.graph)), *of_matrix)


@lru_cache(maxsize=256)
def _matrix(of: Source) -> Any:
    if of.weights is not None and _is_alone(of.graph.name, of.weights):
        return _paired(mixing.read(of.weights, of.graph.workers), of.needs)
    return wired(drawn_network(of.graph), of.graph.workers, of.weights, json.loads(of.weight_options), of.needs)


def again(of: Source) -> Any:
    """W that follows from these, made anew: the same one, unless its maker draws."""
    return _matrix.__wrapped__(of)


@contextmanager
def keeping(found: Mapping[Source, Any]) -> Iterator[None]:
    """While it lasts, these matrices are the runs', as they were found once, and none of them is solved for again."""
    token = KEPT.set({**KEPT.get(), **found})
    try:
        yield
    finally:
        KEPT.reset(token)


def save(path: Path, w: Any) -> None:
    """Write a matrix, or a pair of them, to a file."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.whole(path) as temporary:
            np.savez(temporary, *(w if isinstance(w, tuple) else (w,)))


def load(path: Path) -> Any:
    """What `save` has written; None where there is none, or nothing that can be read."""
    try:
        with np.load(path, allow_pickle=False) as found:
            parts = tuple(found[name] for name in sorted(found.files))
    except Exception:  # whatever a reader raises at bytes that are no such file
        return None
    return parts[0] if len(parts) == 1 else parts


def kept(run: Resolved, path: Path) -> dict[Source, Any]:
    """What a file keeps for a run, if it is there: for `keeping`."""
    w = load(path)
    return {} if w is None else {source(run): w}


def is_solved(run: Resolved) -> bool:
    """Whether the matrix is a solver's answer (of a program, of eigenvalues), of which another machine or version may find another one."""
    rules = (run.weights, run.options.get("weights.base"))
    return needs_of(run) not in (None, *UNWEIGHTED) and any(
        isinstance(rule, str) and rule in mixing.WEIGHTS and mixing.WEIGHTS[rule].traits.get("solver") for rule in rules
    )


def wired(network: topology.Network, workers: int, rule: Any, options: Mapping[str, object], needs: str | None) -> Any:
    if needs == "tree":
        return mixing.dense(mixing.as_matrix(mixing.weights(mixing.spanning_tree(network), "metropolis"), workers))
    if needs == "pairs":
        return mixing.dense(mixing.as_matrix(mixing.weights(network, "metropolis"), workers))
    w = mixing.as_matrix(mixing.weights(network, rule, **options), workers)
    if needs != "row and column stochastic" or mixing.is_doubly_stochastic(w):
        return _paired(w, needs)
    return w, mixing.weights(network, "push")  # C splits what R, over the same links, averages


def _paired(w: Any, needs: str | None) -> Any:
    """W; or, of a method that takes a pair (R, C), W for both, which a doubly stochastic one can be."""
    if needs != "row and column stochastic":
        return w
    if not mixing.is_doubly_stochastic(w):
        raise InputError(
            "weights: a matrix that stands for R and for C must be doubly stochastic; name the topology, too"
        )
    return w, w


def own_matrix(graph: Any, run: Resolved) -> Any:
    """W of what was handed over: a graph, a sequence of them, a matrix, or a pair (R, C) of matrices."""
    needs = needs_of(run)
    if isinstance(graph, topology.Network):
        if len(graph) != run.workers:
            raise InputError(f"graph: has {len(graph)} nodes, got workers={run.workers}; set workers to {len(graph)}")
        return wired(graph, run.workers, run.weights, options_of(run, "weights"), needs)
    pair = needs == "row and column stochastic"
    if isinstance(graph, tuple):
        if not pair or len(graph) != 2:
            raise InputError(
                f"graph: {run.algorithm} takes {'two matrices (R, C)' if pair else 'one matrix'}, got {len(graph)}"
            )
        return tuple(mixing.as_matrix(part, run.workers) for part in graph)
    w = mixing.as_matrix(graph, run.workers)
    if needs in UNWEIGHTED:
        w = mixing.dense(w)
        return wired(nx.from_numpy_array(w != 0, create_using=nx.Graph), run.workers, None, {}, needs)
    if pair and not mixing.is_doubly_stochastic(w):
        raise InputError(f"graph: {run.algorithm} takes two matrices (R, C), got one that is not doubly stochastic")
    return (w, w) if pair else w
