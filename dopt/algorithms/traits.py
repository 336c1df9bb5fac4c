"""What the harness must know of a method beside its code: what it sends, and what it asks of the rest of a run."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dopt.registry import Entry, Plugins, did_you_mean
from dopt.types import Coordination, InputError, Reduction, Tree

if TYPE_CHECKING:
    import numpy as np

Options = Mapping[str, Any]  # all options of a method, with their values

Family = Literal["synchronous", "asynchronous", "gossip"]
Kind = Literal[
    "doubly stochastic",
    "symmetric",
    "symmetric, λ > -1/3",
    "column stochastic",
    "row and column stochastic",
    "tree",
]
Staleness = Literal["step", "edge", "coordinate"]
Weighs = Literal["gradients", "models", "arrivals"]
Steps = Literal["common", "part", "own", "first", "scaled"]

MatrixKind = Kind | Literal["pairs"]  # whose links are those of workers that meet
UNWEIGHTED = {"tree": "relay_sgd", "pairs": "ad_psgd"}  # kinds without weights: only the links matter


# -- what a method exchanges ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AllReduce:
    """All workers reduce something together: at each step, or as `reduction` says."""

    reduction: Reduction = field(default_factory=Reduction)


@dataclass(frozen=True)
class Neighbours:
    """Each worker sends to its neighbours, and mixes what it receives.

    Attributes:
      kind: of mixing matrix that the theory asks for (`dopt.mixing.check`).
      mixes_once: whether it mixes exactly once a step, as delays need.
      rounds: how often it mixes, each time that it does.
      period: it mixes at every so many steps.
    """

    kind: Kind
    mixes_once: bool = True
    rounds: int = 1
    period: int = 1

    def __post_init__(self) -> None:
        _check_word("kind", self.kind, typing.get_args(Kind))

    def mixings(self, steps: int | np.ndarray) -> Any:
        """How often it has mixed after so many steps."""
        return steps // self.period * self.rounds


@dataclass(frozen=True)
class Server:
    """A worker that has computed sends a gradient to a server and takes a model back; there is no axis of workers."""

    coordination: Coordination = field(default_factory=Coordination)


@dataclass(frozen=True)
class Pairs:
    """A worker that has computed averages its model with that of a random neighbour; there is no server."""


Exchange = AllReduce | Neighbours | Server | Pairs
Sends = Exchange | tuple[Exchange, ...]


def is_event_driven(exchange: tuple[Exchange, ...]) -> bool:
    """Whether updates are made as messages arrive; else all workers make a step together."""
    return any(isinstance(one, Server | Pairs) for one in exchange)


def has_server(exchange: tuple[Exchange, ...]) -> bool:
    """Whether updates are made as messages arrive at a server."""
    return any(isinstance(one, Server) for one in exchange)


def is_peer_to_peer(exchange: tuple[Exchange, ...]) -> bool:
    """Whether updates are made as workers meet, without a server."""
    return any(isinstance(one, Pairs) for one in exchange)


def coordination_of(exchange: tuple[Exchange, ...]) -> Coordination:
    """What an event-driven method tells the clock."""
    told = (one.coordination for one in exchange if isinstance(one, Server))
    return next(told, Coordination(pairs=is_peer_to_peer(exchange)))


def reduction_of(exchange: tuple[Exchange, ...]) -> Reduction:
    """What all workers reduce together, and when; the default where they do not."""
    return next((one.reduction for one in exchange if isinstance(one, AllReduce)), Reduction())


def neighbours_of(exchange: tuple[Exchange, ...]) -> Neighbours | None:
    """What is sent to neighbours; None: nothing is."""
    return next((one for one in exchange if isinstance(one, Neighbours)), None)


def mixes_once(exchange: tuple[Exchange, ...]) -> bool:
    """Whether nothing is mixed but once a step."""
    found = neighbours_of(exchange)
    return found is None or found.mixes_once


def matrix_kind(exchange: tuple[Exchange, ...]) -> MatrixKind | None:
    """The kind of mixing matrix that a method takes; None: it takes none."""
    found = neighbours_of(exchange)
    if found is not None:
        return found.kind
    return "pairs" if is_peer_to_peer(exchange) else None


# -- a method's traits ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What `@algorithm(...)` is told.

    Attributes:
      family: synchronous, asynchronous or gossip.
      source: the paper, with equation or algorithm number.
      sends: what it exchanges, one thing or several, one after the other in each step; or (options, workers) -> that,
        where it follows from them.
      staleness: who draws the delay: "step" (one per step, in place of a cluster), "edge" (one per sender and step),
        "coordinate"; None: it reads no delay.
      scheduled: options that only the clock reads.
      needs_linear_update: the theory needs a linear local update u(g) (L).
      divides_by_rate: it divides by the learning rate (α).
      delayed: old models are its point: it keeps a ring of them even where the delay is 0.
      center: state -> a model that all share beside their own, which is evaluated as well.
      assemble: (parts, leaves [workers, ...]; shapes of the whole) -> the whole model, where each worker keeps only a part.
      sends_model: it sends a server a model, or the difference of two, not a gradient: always all of it, whatever a gradient touches.
      restarts: whether local optimizers start afresh, or rest, now and then, and their schedules are told what to count
        (`at_count`); or options -> that.
      weighs: what counts in proportion to a worker's samples where the problem is weighted: "gradients"; "models", which are
        averaged (`update` is told the worker's `share`, n_k over the mean); "arrivals", what is pushed to a server; None: nothing,
        which is refused.
      steps: what the local optimizer steps: "common", one model of all, by its own update; "part", each worker its part of
        that; "own", each worker its own model, and these are averaged or mixed; "first" all, then own; "scaled", one
        model, but not by the optimizer's own update.
    """

    family: Family
    source: str
    sends: Sends | Callable[[Options, int], Sends]
    staleness: Staleness | None = None
    scheduled: tuple[str, ...] = ()
    needs_linear_update: bool = False
    divides_by_rate: bool = False
    delayed: bool = False
    center: Callable[[Any], Tree] | None = None
    assemble: Callable[[Tree, Tree], Tree] | None = None
    sends_model: bool = False
    restarts: bool | Callable[[Options], bool] = False
    weighs: Weighs | None = "gradients"
    steps: Steps = "common"

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(Traits).items():
            if words := _words(hint):
                _check_word(name, getattr(self, name), words)
        if not callable(self.sends):
            _checked(self.sends)

    def exchange(self, options: Options, workers: int) -> tuple[Exchange, ...]:
        """What a method with these options sends."""
        return _checked(self.sends(options, workers) if callable(self.sends) else self.sends)

    def does_restart(self, options: Options) -> bool:
        """Whether local optimizers restart or rest with these options."""
        return self.restarts(options) if callable(self.restarts) else self.restarts

    @property
    def reads_cluster(self) -> bool:
        """Whether a cluster says when its steps land: not where a delay is drawn for each step."""
        return self.staleness != "step"


ALGORITHMS: Plugins[Traits] = Plugins("algorithm")


def _checked(sends: object) -> tuple[Exchange, ...]:
    """What is sent, as a tuple of what the clock has a rule for."""
    exchange = sends if isinstance(sends, tuple) else (sends,)
    for one in exchange:
        if not isinstance(one, Exchange):
            known = ", ".join(kind.__name__ for kind in typing.get_args(Exchange))
            raise InputError(f"sends: must be {known}, or a tuple of them, got {one!r}")
    if not exchange:
        raise InputError("sends: must be at least one thing, got none")
    if len(exchange) > 1:
        _check_several(exchange)
    return exchange


def _check_several(exchange: tuple[Exchange, ...]) -> None:
    """Refuse several exchanges of a step that no clock can put one after the other."""
    for one in exchange:
        if isinstance(one, Server | Pairs):
            raise InputError(f"sends: {type(one).__name__} must be alone: what arrives has a clock of its own")
        if isinstance(one, AllReduce) and one.reduction.participation != 1:
            raise InputError("sends: a reduction of only a part of the workers must be alone")
    if sum(isinstance(one, Neighbours) for one in exchange) > 1:
        raise InputError(
            "sends: Neighbours may be given only once, since a run has one mixing matrix; send more in one mix"
        )


def _words(hint: Any) -> tuple[Any, ...]:
    """The words that a field of this type takes; (): it takes no words."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    found = [word for part in typing.get_args(hint) for word in _words(part)]
    return (*found, None) if found and type(None) in typing.get_args(hint) else tuple(found)


def _check_word(name: str, value: Any, words: tuple[Any, ...]) -> None:
    """Refuse a word that is none of those that a field takes."""
    if value not in words:
        raise InputError(f"{name}: unknown word {value!r}{did_you_mean(str(value), filter(None, words))}")


def check_scheduled(method: Entry[Traits]) -> None:
    """Refuse options that are said to be the clock's, and that the builder does not have."""
    for name in method.traits.scheduled:
        if name not in method.known:
            raise InputError(f"scheduled: {method.name} has no option {name!r}{did_you_mean(name, method.known)}")


__all__ = [
    "ALGORITHMS",
    "UNWEIGHTED",
    "AllReduce",
    "Exchange",
    "MatrixKind",
    "Neighbours",
    "Options",
    "Pairs",
    "Server",
    "Traits",
    "check_scheduled",
    "coordination_of",
    "is_event_driven",
    "is_peer_to_peer",
    "matrix_kind",
    "mixes_once",
    "neighbours_of",
    "reduction_of",
]
