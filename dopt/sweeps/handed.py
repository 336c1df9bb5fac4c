"""A problem and a graph that `dopt.sweep` was handed over: plug-ins for as long as the sweep lasts, so that ids take their content like any other's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import networkx as nx

from dopt import mixing, topology
from dopt.problems import PROBLEMS
from dopt.registry import Entry, Registry
from dopt.sweeps.spec import choice
from dopt.types import InputError, Problem

NAME = "handed_over"


@contextmanager
def over(content: Any, problem: Problem | None, graph: Any) -> Iterator[Any]:
    """A sweep's content with what was handed over in it, which has a name while this lasts.

    Raises:
      InputError: the content has such a field, too, or it is no problem, and no graph.
    """
    named: dict[str, str] = {}
    with ExitStack() as ends:
        if problem is not None:
            _refuse_own(content, "problem", ("problem", "data", "partition"))
            if not isinstance(problem, Problem):
                raise InputError(f"problem: must be a dopt.Problem, got {type(problem).__name__}")
            ends.enter_context(_named(PROBLEMS, partial(_problem, problem), {"data": None}))
            named["problem"] = NAME
        if graph is not None:
            _refuse_own(content, "graph", ("topology",))
            network = graph
            if not isinstance(graph, topology.Network):
                _refuse_own(content, "a matrix as graph", ("weights",))
                w = _matrix(graph)
                network = _links(w)
                ends.enter_context(_named(mixing.WEIGHTS, partial(_weights, w), {}))
                named["weights"] = NAME
            ends.enter_context(_named(topology.TOPOLOGIES, partial(_graph, network), {}))
            named["topology"] = NAME
        yield _with(content, named)


def _with(content: Any, named: Mapping[str, str]) -> Any:
    """The content with these names as its parameters."""
    if not named:
        return content
    return {**content, "parameters": {**content["parameters"], **{key: choice(name) for key, name in named.items()}}}


def _refuse_own(content: Any, what: str, fields: tuple[str, ...]) -> None:
    match content:
        case {"parameters": dict(parameters)}:
            for name in parameters:
                if str(name).partition(".")[0] in fields:
                    raise InputError(f"{name}: a sweep with {what}= does not read it; leave it out")
        case _:
            raise InputError(f"{what}: needs a sweep with parameters, as {{'parameters': {{...}}}}")


@contextmanager
def _named(registry: Registry, make: Any, traits: Mapping[str, Any]) -> Iterator[None]:
    if NAME in registry:
        raise InputError(
            f"{registry.what}: another sweep of this process was given an object for it; let that sweep end first"
        )
    registry[NAME] = Entry(NAME, make, "handed over to dopt.sweep", traits)
    try:
        yield
    finally:
        del registry[NAME]


# `partial`, and no closure: what was handed over is an argument, whose content makes the digest


def _problem(problem: Problem, shards: None, workers: int) -> Problem:
    return problem


def _graph(graph: Any, workers: int) -> Any:
    return graph


def _weights(w: Any, graph: Any) -> Any:
    return w


def _matrix(graph: Any) -> Any:
    try:
        return mixing.as_array(graph)
    except InputError as error:
        said = str(error).removeprefix("mixing: ")
        raise InputError(f"graph: must be a networkx graph, or a mixing matrix W [n, n]; {said}") from error


def _links(w: Any) -> nx.Graph[Any]:
    """Who sends to whom by W [n, n], or at some step of a period: j to i where W[i, j] is not zero."""
    there = (w != 0) if w.ndim == 2 else (w != 0).any(0)
    both = (there == there.T).all()
    graph: nx.Graph[Any] = nx.from_numpy_array(there.T, create_using=nx.Graph if both else nx.DiGraph)
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    for *_, said in graph.edges(data=True):
        said.clear()
    return graph
