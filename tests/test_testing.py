"""The public conformance suite: dopt's own plug-ins hold it, what is wrong fails it in one line that says why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from jax import lax

import dopt
from dopt import InputError, Problem, register, testing
from dopt.algorithms import AllReduce, Neighbours
from dopt.compression import Compressor
from dopt.config.identity import PLUGINS

OWN = {
    "topology": ["ring", "torus", "exponential", "base_k", "random_matching", "erdos_renyi"],
    "weights": ["metropolis", "uniform", "push", "pull", "lazy"],
    "law": ["uniform", "geometric"],
    "compressor": ["identity", "top_k", "natural"],
    "problem": ["quadratic", "logistic"],
    "data": ["digits", "ratings"],
    "partition": ["iid", "contiguous", "by_label"],
    "cluster": ["constant", "exponential", "pareto", "uniform"],
}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    registries = {id(known): known for _, known in PLUGINS}.values()
    before = [dict(known) for known in registries]
    yield
    for known, entries in zip(registries, before, strict=True):
        known.clear()
        known.update(entries)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in OWN.items() for name in names])
def test_dopts_own_plugins_hold_what_others_must(kind: str, name: str) -> None:
    testing.check(kind, name)


def rounded(x: Any) -> Any:
    return jnp.round(x, 1) + 0.5


def whole(tree: Any) -> int:
    return sum(32 * x.size for x in jax.tree.leaves(tree))


def of(loss: Any) -> Any:
    """A problem of this loss."""
    data = {"c": np.ones((4, 3, 2))}
    return lambda shards, workers: Problem(lambda key: jnp.ones(2), loss, data)


WRONG: list[tuple[str, Any, str, str]] = [
    ("topology", register.topology(name="wrong"), "connected", "not connected"),
    ("topology", register.topology(name="wrong"), "again", "differs from call to call"),
    ("weights", register.weights(name="wrong"), "sum", "of W must sum to one"),
    ("weights", register.weights(name="wrong"), "sum", "say signed=True"),
    ("weights", register.weights(name="wrong"), "links", "where no link is"),
    ("law", register.law(name="wrong"), "probabilities", "sum to one, got 0.1 at least and 0.3 together"),
    ("compressor", register.compressor(kind="exact", name="wrong"), "kind", "it is exact, but it changes"),
    ("compressor", register.compressor(kind="unbiased", name="wrong"), "kind", "standard errors off"),
    ("compressor", register.compressor(kind="contraction", name="wrong"), "kind", "a contraction has"),
    ("compressor", register.compressor(kind="contraction", name="wrong"), "form", "bits must give a whole number"),
    ("problem", register.problem(name="wrong"), "gradient", "finite differences"),
    ("problem", register.problem(name="wrong"), "mean", "take a mean over the batch"),
    ("partition", register.partition(name="wrong"), "samples", "belong to no worker, or to two"),
    ("cluster", register.cluster(name="wrong"), "mean", "must be 1 second, got 2"),
    ("cluster", register.cluster(name="wrong"), "mean", "never falls"),
    ("metric", register.metric(name="wrong"), "number", "a finite number"),
]
MAKERS: list[Any] = [
    lambda workers: nx.empty_graph(workers),
    lambda workers: nx.gnp_random_graph(workers, 0.5),
    lambda graph: np.eye(len(graph)) * 0.5 + np.eye(len(graph))[::-1] * 0.1 + np.diag(np.arange(len(graph))),
    lambda graph: np.eye(len(graph)) * (1 + 2 / len(graph)) - 2 / len(graph) ** 2,
    lambda graph: np.full((len(graph), len(graph)), 1 / len(graph)),
    lambda: np.array([0.1, 0.2]),
    lambda: Compressor(lambda t: (), lambda t, s, k: (jax.tree.map(rounded, t), s), whole),
    lambda: Compressor(lambda t: (), lambda t, s, k: (jax.tree.map(rounded, t), s), whole),
    lambda: Compressor(lambda t: (), lambda t, s, k: (jax.tree.map(lambda x: -x, t), s), whole),
    lambda: Compressor(lambda t: (), lambda t, s, k: (t, s), lambda t: 1.5),
    of(lambda x, batch: jnp.mean((lax.stop_gradient(x[0]) * x[1] - batch["c"]) ** 2)),
    of(lambda x, batch: jnp.sum((x - batch["c"] * 2) ** 2)),
    lambda labels, workers: np.array_split(np.arange(len(labels) - 1), workers),
    lambda u: np.full(u.shape, 2.0),
    lambda u: 2 * (1 - u),
    lambda model, problem: jnp.ones(3),
]


@pytest.mark.parametrize(
    ("row", "make"), list(zip(WRONG, MAKERS, strict=True)), ids=[f"{kind}: {said}" for kind, _, _, said in WRONG]
)
def test_what_is_wrong_fails_its_check_in_one_line(row: tuple[str, Any, str, str], make: Any) -> None:
    kind, registered, which, said = row
    registered(make)
    lines = {held.what: held.wrong for held in testing.held(kind, "wrong")}
    (line,) = (line for what, line in lines.items() if which in what)
    assert line is not None
    assert said in line
    assert "\n" not in line


def method(update: Any, sends: Any = None, **told: Any) -> None:
    """Register a method of this update: (grads, params, mix, rate) -> updates."""
    mixes = isinstance(sends, Neighbours)

    def gossiping(optimizer: Any, mix: Any, *, learning_rate: Any = None) -> dopt.Method:
        def step(grads: Any, state: Any, params: Any, **extra: Any) -> Any:
            return update(grads, params, mix, learning_rate), state

        return dopt.Method(lambda params: mix.init(params) if mixes else (), step)

    def reducing(optimizer: Any, mix: None = None, *, learning_rate: Any = None) -> dopt.Method:
        return gossiping(optimizer, mix, learning_rate=learning_rate)

    register.method(sends=sends or AllReduce(), name="wrong", **told)(gossiping if mixes else reducing)


def descent(grads: Any, params: Any, mix: Any, rate: Any) -> Any:
    return jax.tree.map(lambda g: -rate * lax.pmean(g, dopt.AXIS), grads)


@pytest.mark.parametrize(
    ("update", "sends", "told", "which", "said"),
    [
        (lambda g, x, mix, rate: jax.tree.map(jnp.zeros_like, x), None, {}, "finite", "no model has moved"),
        (lambda g, x, mix, rate: jax.tree.map(lambda a: a * jnp.nan, x), None, {}, "finite", "no longer finite"),
        (
            lambda g, x, mix, rate: jax.tree.map(lambda a: -0.1 * a, x),
            None,
            {},
            "is another trace",
            "the gradients are not used",
        ),
        (descent, Neighbours("doubly stochastic"), {}, "bytes", "gives nothing to its mix"),
        (
            descent,
            None,
            {"special": [({"learning_rate": 0.1}, {"algorithm": "allreduce_sgd", "learning_rate": 0.2})]},
            "special",
            "the models differ by up to",
        ),
        (
            lambda g, x, mix, rate: jax.tree.map(lambda a: -float(rate) * a, g),
            None,
            {},
            "compiles",
            "ConcretizationTypeError",
        ),
    ],
)
def test_a_wrong_method_fails_its_check_in_one_line(update: Any, sends: Any, told: Any, which: str, said: str) -> None:
    method(update, sends, **told)
    found = testing.checks("method", "wrong")
    (line,) = (testing.wrong(found[what]) for what in found if which in what)
    assert line is not None
    assert said in line
    assert "\n" not in line


def test_a_method_that_descends_holds_all_checks() -> None:
    method(descent, special=[({}, {"algorithm": "allreduce_sgd"})])
    found = list(testing.held("method", "wrong", {"workers": 4}))
    assert [one.wrong for one in found] == [None] * len(found)
    assert found[-1].what.startswith("special case")


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("toplogy", "ring", "kind: unknown name 'toplogy'; did you mean 'topology'?"),
        ("topology", "rng", "topology: unknown name 'rng'"),
        ("partition", "dirichlet", "partition.alpha: dirichlet needs it; give partition.alpha"),
    ],
)
def test_a_check_of_what_is_not_there_is_refused(kind: str, name: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        testing.checks(kind, name)
    assert str(error.value).startswith(said)
