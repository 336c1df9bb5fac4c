"""Large sparse graphs: W stays sparse from the graph to the lists that run, and says what the dense one says."""

from __future__ import annotations

import math
from collections.abc import Callable

import networkx as nx
import numpy as np
import pytest
from scipy.sparse import csr_array, issparse

from dopt import memory, mixing, topology
from dopt.config import Run, cost, matrices
from dopt.config.identity import matrix_digest
from dopt.facts import wiring
from dopt.mixing import sparse
from dopt.types import InputError

N = 2116  # just beyond where W is dense; a square of an even number
GOSSIP = {"algorithm": "gossip_sgd", "learning_rate": 0.0, "steps": 3, "problem": "consensus"}
GRAPHS = ["ring", "torus", "random_regular", "directed_ring", "barabasi_albert", "exponential", "disconnected"]


@pytest.fixture
def as_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps graphs of a few workers sparse, too."""
    monkeypatch.setattr(sparse, "FROM", 8)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        call()
    return str(error.value)


def large(name: str, rule: str | None = None) -> csr_array:
    w = mixing.weights(topology.make(name, N), rule)
    assert issparse(w)
    return w


@pytest.mark.parametrize("name", GRAPHS)
def test_a_sparse_matrix_has_the_digest_form_and_messages_of_the_dense_one(name: str) -> None:
    w = large(name)
    dense = w.toarray()
    assert matrix_digest(w) == matrix_digest(dense)
    lists, expected = mixing.form(w), mixing.form(dense)
    np.testing.assert_array_equal(lists.index, expected.index)
    np.testing.assert_array_equal(lists.weight, expected.weight)
    assert lists.described == expected.described
    np.testing.assert_array_equal(mixing.messages(w, 2), mixing.messages(dense, 2))


@pytest.mark.parametrize("rule", ["metropolis", "metropolis_tight", "max_degree", "uniform", "push", "lazy"])
@pytest.mark.parametrize("name", ["torus", "watts_strogatz", "path"])
def test_promises_of_a_sparse_matrix_are_those_of_the_dense_one(name: str, rule: str, as_small: None) -> None:
    w = mixing.weights(topology.make(name, 100), rule)
    assert issparse(w)
    dense = w.toarray()
    for ask in (mixing.is_doubly_stochastic, mixing.is_symmetric, mixing.is_connected, mixing.gap_kind):
        assert ask(w) == ask(dense)
    assert mixing.spectral_gap(w) == pytest.approx(mixing.spectral_gap(dense), abs=sparse.TOLERANCE)
    if mixing.is_symmetric(w):
        assert mixing.smallest_eigenvalue(w) == pytest.approx(mixing.smallest_eigenvalue(dense), abs=sparse.TOLERANCE)
    for needs in ("doubly stochastic", "symmetric", "symmetric, λ > -1/3", "column stochastic"):
        said = [_verdict(each, needs) for each in (w, dense)]
        assert said[0] == said[1]


def _verdict(w: object, needs: str) -> str:
    try:
        mixing.check(w, "gossip_sgd", needs)
    except ValueError as error:
        return str(error)
    return ""


def test_the_gap_of_a_ring_is_its_closed_form_where_n_by_n_numbers_would_not_fit() -> None:
    n = 50_000
    assert mixing.spectral_gap(mixing.weights(topology.make("ring", n))) == pytest.approx(
        2 / 3 * (1 - math.cos(2 * math.pi / n)), rel=1e-5
    )


def test_a_directed_cycle_of_even_length_swings_and_one_with_own_weights_does_not() -> None:
    w = csr_array(nx.to_scipy_sparse_array(nx.DiGraph([(i, (i + 1) % N) for i in range(N)]), format="csr", dtype=float))
    assert "its spectral gap is 0" in refused(lambda: mixing.check(w, "gossip_sgd", "doubly stochastic"))
    assert not sparse.contracts(w, doubly=False)
    mixing.check(large("directed_ring"), "gossip_sgd", "doubly stochastic")
    assert "its spectral gap is 0" in refused(
        lambda: mixing.check(large("ring", "metropolis_tight"), "gossip_sgd", "symmetric")
    )


def test_a_sparse_matrix_that_is_handed_over_stays_so_and_is_checked() -> None:
    w = large("ring")
    assert issparse(mixing.as_matrix(w, N))
    wrong = w.copy()
    wrong.data[0] = np.nan
    assert refused(lambda: mixing.as_matrix(wrong)).startswith("mixing: W must be finite; W[0, ")
    assert refused(lambda: mixing.as_matrix(w * 2)).startswith("mixing: rows (or columns) of W must sum to one")
    rounded = w.astype(np.float32)
    np.testing.assert_allclose(mixing.as_matrix(rounded).sum(1), 1, atol=1e-12)
    assert mixing.notes(rounded)
    assert not mixing.notes(w)


def test_a_ring_of_100_000_workers_resolves_and_has_its_lists_within_a_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2**30)
    run = Run.from_dict(GOSSIP | {"workers": 100_000, "topology": "ring"}).resolve()
    assert sum(need.bytes for need in cost.needs(run)) < 2**30
    w = matrices.matrix(run)
    wiring.check(run)
    (lists,) = wiring.forms(run, w, 3)
    assert lists.index.shape == (1, 100_000, 2)
    assert "100000 x 100000" in refused(lambda: wiring.links_of(run, w))
    assert "100000 x 100000" in refused(lambda: mixing.form(w, "dense"))


def test_hubs_and_rules_that_solve_are_refused_as_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2**30)
    for name, rule in (("star", None), ("ring", "laplacian")):
        fields = GOSSIP | {"workers": 20_000, "topology": name, "weights": rule}
        assert "20000 x 20000" in refused(lambda fields=fields: Run.from_dict(fields).resolve())
        graph = topology.make(name, 20_000)
        assert "20000 x 20000" in refused(lambda graph=graph, rule=rule: mixing.weights(graph, rule))


def test_dense_leaves_what_is_not_sparse_as_it_is() -> None:
    pairs = topology.make("random_matching", 6)
    assert mixing.dense(pairs) is pairs
