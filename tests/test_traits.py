"""What the harness knows of a method: words that are checked when it is registered, and what it sends as a value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import optax
import pytest

from dopt import Run
from dopt.algorithms import ALGORITHMS, Method, options, takes_mix
from dopt.algorithms.method import arriving, gossip, synchronous
from dopt.algorithms.traits import (
    AllReduce,
    Neighbours,
    Pairs,
    Server,
    coordination_of,
    is_event_driven,
    matrix_kind,
    mixes_once,
    reduction_of,
)
from dopt.types import Coordination, InputError, Reduction


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is forgotten."""
    with mock.patch.dict(ALGORITHMS):
        yield


def of(name: str, **given: Any) -> tuple[Any, ...]:
    return ALGORITHMS[name].traits.exchange(options(name, given), 8)


def with_mix(optimizer: optax.GradientTransformation, mix: Any, *, learning_rate: Any = None, k: int = 1) -> Method:
    return Method(optimizer.init, optimizer.update)


def without_mix(optimizer: Any, mix: None = None, *, learning_rate: Any = None, k: int = 1) -> Method:
    return Method(optimizer.init, optimizer.update)


def resolved(name: str, **fields: Any) -> Run:
    return Run(algorithm=name, workers=4, steps=2, learning_rate=0.1, problem="quadratic", **fields).resolve()


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"staleness": "egde"}, "staleness: unknown word 'egde'; did you mean 'edge'?"),
        ({"weighs": "model"}, "weighs: unknown word 'model'; did you mean 'models'?"),
        ({"steps": "owm"}, "steps: unknown word 'owm'; did you mean 'own'?"),
        ({"family": "gosip"}, "family: unknown word 'gosip'; did you mean 'gossip'?"),
        (
            {"sends": "neighbours"},
            "sends: must be AllReduce, Neighbours, Server, Pairs, or a tuple of them, got 'neighbours'",
        ),
        ({"sends": ()}, "sends: must be at least one thing, got none"),
    ],
)
def test_a_word_that_no_trait_knows_is_refused_when_a_method_is_registered(told: Any, line: str) -> None:
    with pytest.raises(InputError) as error:
        synchronous(**{"source": "here", **told})(without_mix)
    assert str(error.value).startswith(line)
    assert "without_mix" not in ALGORITHMS


def test_a_trait_that_does_not_exist_is_refused_when_a_method_is_registered() -> None:
    with pytest.raises(TypeError, match="'stalenes'"):
        gossip(source="here", sends=Pairs(), stalenes="edge")  # type: ignore[call-arg]


def test_a_kind_of_matrix_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="kind: unknown word 'symetric'; did you mean 'symmetric'"):
        Neighbours("symetric")  # type: ignore[arg-type]


def test_an_option_that_only_the_clock_reads_is_an_option() -> None:
    with pytest.raises(InputError, match="scheduled: without_mix has no option 'kk'"):
        arriving(source="here", scheduled=("kk",))(without_mix)
    assert "without_mix" not in ALGORITHMS
    arriving(source="here", scheduled=("k",))(without_mix)
    assert ALGORITHMS["without_mix"].traits.scheduled == ("k",)


def test_what_a_method_sends_follows_from_its_options() -> None:
    assert of("gossip_sgd") == (Neighbours("doubly stochastic"),)
    assert of("gossip_sgd", chebyshev=True, rounds=3) == (Neighbours("symmetric", mixes_once=False, rounds=3),)
    assert of("local_sgd", local_steps=7) == (AllReduce(Reduction(period=7)),)
    assert of("k_async_sgd", k=3) == (Server(Coordination(gradients=3, waits=True)),)
    assert of("ad_psgd") == (Pairs(),)


def test_what_the_clock_is_told_follows_from_what_is_sent() -> None:
    assert coordination_of((Pairs(),)) == Coordination(pairs=True)
    assert coordination_of((Server(Coordination(slack=2)),)).slack == 2
    assert reduction_of((AllReduce(Reduction(period=5)),)).period == 5
    assert reduction_of((Neighbours("symmetric"),)) == Reduction()
    assert not mixes_once((Neighbours("tree", mixes_once=False),))


def test_a_builder_takes_a_mix_exactly_where_something_is_mixed() -> None:
    for name, entry in ALGORITHMS.items():
        assert takes_mix(entry) == (matrix_kind(of(name)) is not None), name
        assert (entry.traits.family == "gossip") == takes_mix(entry), name
        assert is_event_driven(of(name)) == (type(of(name)[0]) in (Server, Pairs)), name


def test_a_builder_that_does_not_agree_with_what_it_sends_is_refused_in_one_line() -> None:
    synchronous(source="here")(with_mix)
    with pytest.raises(InputError, match="algorithm: with_mix has a mix without default, but sends nothing to neigh"):
        resolved("with_mix")
    gossip(source="here", sends=Neighbours("symmetric"))(without_mix)
    with pytest.raises(InputError, match="algorithm: without_mix mixes, but takes no mix"):
        resolved("without_mix")


def test_a_method_of_ones_own_tells_no_more_than_what_it_sends() -> None:
    synchronous(source="here")(without_mix)
    assert resolved("without_mix").topology is None
    gossip(source="here", sends=Neighbours("doubly stochastic"))(with_mix)
    assert resolved("with_mix").topology == "ring"
    arriving(source="here")(without_mix)
    assert resolved("without_mix").cluster == "constant"
