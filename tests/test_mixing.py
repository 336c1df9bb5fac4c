"""Mixing matrices are what their rules promise, and a Mix is W x - x, exactly where exactness matters."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import dopt
from dopt import mixing, topology
from dopt.mixing import WEIGHTS, Dense, Neighbours
from dopt.topology import adjacency
from dopt.types import InputError

N, DIM = 7, 5
EXACT = {"float32": 1e-6, "float64": 1e-13}


def weights_of(name: str, n: int = N, rule: str | None = None, **options: Any) -> np.ndarray:
    return mixing.weights(topology.make(name, n), rule, **options)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@st.composite
def graphs(draw: st.DrawFn, directed: bool | None = None) -> nx.Graph:
    """Any graph on 1 to 12 nodes, connected or not."""
    n = draw(st.integers(1, 12))
    kind = nx.DiGraph if (draw(st.booleans()) if directed is None else directed) else nx.Graph
    pairs = [(u, v) for u in range(n) for v in range(n) if u != v]
    graph = kind()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else [])
    return graph


@cache
def _displace() -> Callable:
    """(form, X) -> W X - X, each row from the view of one worker."""

    def one(form: Any, x: Any) -> Any:
        mix = mixing.mix(form)
        return mix.apply(x, mix.init(x))[0]

    return jax.jit(jax.vmap(one, in_axes=(None, 0), axis_name=dopt.AXIS))


def displace(form: Any, X: Any, dtype: str = "float64") -> np.ndarray:
    with jax.enable_x64(dtype == "float64"):
        cast = partial(jax.tree.map, lambda x: jnp.asarray(x, dtype if np.asarray(x).dtype.kind == "f" else None))
        moved = _displace()(cast(form), cast(X))
        assert moved.dtype == dtype
        return np.asarray(moved)


def dense(W: np.ndarray) -> Dense:
    """The one-product form, of disconnected graphs too."""
    off = W - np.diag(np.diag(W))
    return Dense(off, off.sum(1), np.float64(1))


def lists(W: np.ndarray) -> Neighbours:
    """The neighbour form, of connected graphs too; all n - 1 others are listed, so that shapes agree."""
    n = len(W)
    index = np.array([[j for j in range(n) if j != i] for i in range(n)], np.int32)
    return Neighbours(index, np.take_along_axis(W, index, 1))


# -- matrices --


@pytest.mark.parametrize("rule", WEIGHTS)
@settings(deadline=None, max_examples=64)
@given(data=st.data())
def test_weights_are_nonnegative_sum_to_one_and_stay_on_the_graph(rule: str, data: st.DataObject) -> None:
    traits = WEIGHTS[rule].traits
    graph = data.draw(graphs(directed=False if traits.get("undirected") else None))
    W = mixing.weights(graph, rule)
    assert W.shape == (len(graph), len(graph))
    assert W.dtype == np.float64
    assert (W >= 0).all()
    sums = W.sum(0) if traits.get("stochastic") == "column" else W.sum(1)
    np.testing.assert_allclose(sums, 1, rtol=0, atol=1e-12)
    off = ~np.eye(len(W), dtype=bool)
    np.testing.assert_array_equal(
        (W != 0) & off, adjacency(graph)
    )  # every link carries something, and nothing else does
    if traits.get("undirected") or (rule == "lazy" and not graph.is_directed()):
        np.testing.assert_array_equal(W, W.T)
        np.testing.assert_allclose(W.sum(0), 1, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=64)
@given(graph=graphs(directed=False))
def test_rules_are_their_formulas(graph: nx.Graph) -> None:
    a = adjacency(graph)
    n, d = len(a), a.sum(1)
    for rule, edge in {
        "metropolis": lambda i, j: 1 / (1 + max(d[i], d[j])),
        "metropolis_tight": lambda i, j: 1 / max(d[i], d[j]),
        "uniform": lambda i, j: 1 / (1 + d[i]),
        "pull": lambda i, j: 1 / (1 + d[i]),
        "push": lambda i, j: 1 / (1 + d[j]),
        "lazy": lambda i, j: 0.5 / (1 + max(d[i], d[j])),
    }.items():
        W = mixing.weights(graph, rule)
        for i in range(n):
            for j in range(n):
                if i != j:
                    assert W[i, j] == pytest.approx(edge(i, j) if a[i, j] else 0, abs=1e-15), (rule, i, j)


def test_directed_rules_follow_the_direction_of_the_edges() -> None:
    graph = nx.DiGraph([(0, 1), (0, 2), (1, 2), (2, 0)])
    np.testing.assert_allclose(mixing.weights(graph, "pull"), [[1 / 2, 0, 1 / 2], [1 / 2, 1 / 2, 0], [1 / 3] * 3])
    np.testing.assert_allclose(
        mixing.weights(graph, "push"), [[1 / 3, 0, 1 / 2], [1 / 3, 1 / 2, 0], [1 / 3, 1 / 2, 1 / 2]]
    )


def test_the_default_is_metropolis_or_uniform_for_directed_graphs() -> None:
    for name, rule in (("star", "metropolis"), ("exponential", "uniform")):
        np.testing.assert_array_equal(weights_of(name), weights_of(name, rule=rule))


def test_lazy_is_half_the_base_and_has_no_negative_eigenvalue() -> None:
    W = weights_of("ring", 8, "metropolis_tight")
    half = weights_of("ring", 8, "lazy", base="metropolis_tight")
    np.testing.assert_array_equal(half, (np.eye(8) + W) / 2)
    assert np.linalg.eigvalsh(W).min() == pytest.approx(-1, abs=1e-12)
    assert np.linalg.eigvalsh(half).min() >= -1e-12


# -- spectra --


@settings(deadline=None, max_examples=64)
@given(graph=graphs(directed=False))
def test_the_gap_of_a_symmetric_matrix_is_one_minus_its_second_largest_modulus(graph: nx.Graph) -> None:
    W = mixing.weights(graph)
    moduli = np.sort(np.abs(np.linalg.eigvalsh(W)))
    assert mixing.spectral_gap(W) == pytest.approx(1 - (moduli[-2] if len(W) > 1 else 0), abs=1e-12)
    assert mixing.gap_kind(W) == "doubly stochastic: 1 - ‖W - J‖₂"


def test_the_gap_of_what_is_not_doubly_stochastic_is_one_minus_the_second_largest_modulus() -> None:
    for W in (weights_of("star", rule="uniform"), weights_of("star", rule="push")):
        moduli = np.sort(np.abs(np.linalg.eigvals(W)))
        assert mixing.spectral_gap(W) == pytest.approx(1 - moduli[-2], abs=1e-12)
        assert mixing.gap_kind(W) == "not doubly stochastic: 1 - |λ₂|"
        assert mixing.spectral_gap(W) != pytest.approx(1 - np.linalg.norm(W - 1 / N, 2), abs=1e-2)


def test_a_doubly_stochastic_matrix_that_is_not_normal_has_the_gap_of_its_norm() -> None:
    W = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]]) @ np.array([[1, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]])
    assert mixing.spectral_gap(W) == pytest.approx(1 - np.linalg.norm(W - 1 / 3, 2), abs=1e-14)
    assert mixing.spectral_gap(W) < 1 - np.sort(np.abs(np.linalg.eigvals(W)))[-2] - 0.05


def test_the_gap_is_one_for_one_worker_and_zero_for_a_disconnected_graph() -> None:
    assert mixing.spectral_gap(np.ones((1, 1))) == 1
    assert mixing.spectral_gap(weights_of("disconnected")) == pytest.approx(0, abs=1e-12)


@settings(deadline=None, max_examples=64)
@given(graph=graphs())
def test_connected_means_strongly_connected(graph: nx.Graph) -> None:
    W = mixing.weights(graph, "uniform")
    assert mixing.is_connected(W) == nx.is_strongly_connected(graph.to_directed())


# -- displacements --


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), rule=st.sampled_from(["metropolis", "metropolis_tight", "uniform", "pull", "lazy"]))
def test_the_dense_and_the_neighbour_form_are_w_x_minus_x(dtype: str, seed: int, rule: str) -> None:
    graph = nx.gnp_random_graph(N, 0.4, seed=seed, directed=rule in ("uniform", "pull"))
    W, X = mixing.weights(graph, rule), normal(N, DIM, seed=seed)
    for form in (dense(W), lists(W)):
        np.testing.assert_allclose(displace(form, X, dtype), W @ X - X, rtol=0, atol=EXACT[dtype] * abs(X).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "W",
    [weights_of(name) for name in ("ring", "star", "exponential", "disconnected", "complete")]
    + [
        weights_of("exponential", rule="push"),
        weights_of("star", rule="push"),
        weights_of("disconnected", rule="push"),
        np.eye(N),
    ],
    ids=["ring", "star", "exponential", "disconnected", "complete", "push", "push star", "push disconnected", "I"],
)
def test_the_form_that_runs_is_w_x_minus_x(W: np.ndarray, dtype: str) -> None:
    X = normal(N, DIM)
    np.testing.assert_allclose(displace(mixing.form(W), X, dtype), W @ X - X, rtol=0, atol=EXACT[dtype] * abs(X).max())


def test_disconnected_graphs_run_as_neighbour_lists_and_others_as_one_product() -> None:
    assert isinstance(mixing.form(weights_of("disconnected")), Neighbours)
    assert mixing.form(weights_of("disconnected", 8)).index.shape == (8, 2)
    for name in ("ring", "star", "exponential"):
        assert isinstance(mixing.form(weights_of(name)), Dense)


@pytest.mark.parametrize("make", [mixing.form, lists], ids=["dense", "neighbours"])
@pytest.mark.parametrize("name", ["ring", "star", "exponential"])
def test_models_that_agree_do_not_move_at_all_in_float32(name: str, make: Callable) -> None:
    W = weights_of(name)
    rounded = W.astype(np.float32).sum(1, dtype=np.float64)
    assert (rounded != 1).any() == (name != "exponential")  # a row of thirds sums to 1 + 3e-8, one of quarters to 1
    X = np.tile(normal(1, DIM) * 1e3, (N, 1))
    np.testing.assert_array_equal(displace(make(W), X, "float32"), np.zeros((N, DIM)))


def test_float32_gossip_of_30000_steps_stays_at_the_mean() -> None:
    X, W = (1 + normal(N, DIM)).astype(np.float32), jax.tree.map(np.float32, mixing.form(weights_of("ring")))
    mixed = jax.jit(lambda X: lax.fori_loop(0, 30_000, lambda _, X: X + _displace()(W, X), X))(X)
    # some units in the last place, which the first steps lose; none of the later 30000 moves it
    np.testing.assert_allclose(mixed, np.tile(X.mean(0, dtype=np.float64), (N, 1)), rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["star", "exponential"])
def test_a_column_stochastic_matrix_keeps_the_sum_to_rounding(name: str) -> None:
    P, X = weights_of(name, rule="push"), normal(N, DIM)
    assert not mixing.is_stochastic(P, 1) or name == "exponential"
    for dtype, eps in (("float32", 6e-8), ("float64", 1.2e-16)):
        x = X.astype(dtype).astype(float)
        moved = displace(mixing.form(P), x, dtype).astype(float)
        assert np.abs(moved.sum(0)).max() < 8 * N * eps * np.abs(x).max()
        assert np.abs(moved).max() > 0.1


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_what_goes_wrong_in_one_component_never_reaches_the_other(poison: float) -> None:
    W, X = weights_of("disconnected"), normal(N, DIM)
    clean = displace(mixing.form(W), X, "float32")
    for worker in range(N):
        bad = X.copy()
        bad[worker] = poison
        moved = displace(mixing.form(W), bad, "float32")
        others = np.arange(3, N) if worker < 3 else np.arange(3)  # rings of 3 and 4
        np.testing.assert_array_equal(moved[others], clean[others])
        assert not np.array_equal(moved[worker], clean[worker])


def test_a_mix_moves_every_leaf_of_a_tree() -> None:
    W, X = weights_of("star"), normal(N, DIM)
    tree = {"a": X, "b": (X[:, 0], normal(N, 2, 3))}
    mix = mixing.mix(W)
    with jax.enable_x64(True):
        moved, _ = jax.vmap(lambda t: mix.apply(t, mix.init(t)), axis_name=dopt.AXIS)(jax.tree.map(jnp.asarray, tree))
    for x, m in zip(jax.tree.leaves(tree), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(m, np.tensordot(W, x, 1) - x, rtol=0, atol=1e-13)


def test_gossip_contracts_by_one_minus_the_gap_along_the_second_eigenvector() -> None:
    W = weights_of("path")
    values, vectors = np.linalg.eigh(W)
    second = vectors[:, -2:-1]
    mixed = second + displace(mixing.form(W), second)
    np.testing.assert_allclose(mixed, (1 - mixing.spectral_gap(W)) * second, rtol=0, atol=1e-14)
    assert values[-2] > -values[0]


# -- old models --


def trajectory(W: Any, start: np.ndarray, ages: Any, *, slots: int, delay_self: bool = False) -> np.ndarray:
    """[steps + 1, n, d]: x <- x + displacement; ages [steps] or [steps, n (who reads), n (whose)]."""
    mix = mixing.mix(W, slots=slots)

    def one(x: Any, ages: Any) -> Any:
        def step(carry: Any, age: Any) -> Any:
            x, state = carry
            moved, state = mix.apply(x, state, staleness=age, delay_self=delay_self)
            return (x + moved, state), x + moved

        return lax.scan(step, (x, mix.init(x)), ages)[1]

    with jax.enable_x64(True):
        per_worker = 1 if np.ndim(ages) == 3 else None
        run = jax.jit(jax.vmap(one, in_axes=(0, per_worker), out_axes=1, axis_name=dopt.AXIS))
        models = np.asarray(run(jnp.asarray(start), jnp.asarray(ages, jnp.int32)))
    return np.concatenate([start[None], models])


def loop(W: np.ndarray, start: np.ndarray, ages: np.ndarray, delay_self: bool = False) -> np.ndarray:
    """The same, one worker after the other."""
    models = [start]
    for k, age in enumerate(ages):
        age = np.broadcast_to(age, W.shape)
        new = np.zeros_like(start)
        for i in range(len(W)):
            for j in range(len(W)):
                old = age[i, j] if i != j or delay_self else 0
                new[i] += W[i, j] * models[max(0, k - old)][j]
        models.append(new)
    return np.stack(models)


STEPS, OLDEST = 12, 4
AGES = {
    "one_age": np.full(STEPS, 3),
    "one_age_a_step": np.random.default_rng(1).integers(0, OLDEST + 1, STEPS),
    "an_age_for_each_sender": np.random.default_rng(2).integers(0, OLDEST + 1, (STEPS, N, N)),
}


@pytest.mark.parametrize("delay_self", [False, True])
@pytest.mark.parametrize("name", ["star", "disconnected"])
@pytest.mark.parametrize("ages", AGES.values(), ids=AGES)
def test_a_delayed_mix_is_the_explicit_loop(ages: np.ndarray, name: str, delay_self: bool) -> None:
    W, start = weights_of(name), normal(N, DIM)
    models = trajectory(W, start, ages, slots=OLDEST + 1, delay_self=delay_self)
    np.testing.assert_allclose(models, loop(W, start, ages, delay_self), rtol=0, atol=1e-13)


@pytest.mark.parametrize("ages", AGES.values(), ids=AGES)
def test_a_longer_ring_changes_no_bit(ages: np.ndarray) -> None:
    W, start = weights_of("exponential"), normal(N, DIM)
    short = trajectory(W, start, ages, slots=OLDEST + 1)
    for slots in (OLDEST + 2, 3 * OLDEST):
        np.testing.assert_array_equal(trajectory(W, start, ages, slots=slots), short)


def test_delay_0_is_the_mix_without_delay() -> None:
    W, start = weights_of("star"), normal(N, DIM)
    models = trajectory(W, start, np.zeros(1, int), slots=1)
    np.testing.assert_array_equal(models[1], start + displace(mixing.form(W), start))


def test_a_constant_delay_keeps_the_mean_on_regular_graphs_at_every_step() -> None:
    for name in ("ring", "exponential", "complete"):
        models = trajectory(weights_of(name), normal(N, DIM), np.full(STEPS, 3), slots=4)
        np.testing.assert_allclose(models.mean(1), np.tile(models[0].mean(0), (STEPS + 1, 1)), rtol=0, atol=1e-14)
    moved = trajectory(weights_of("star"), normal(N, DIM), np.full(STEPS, 3), slots=4).mean(1)
    assert np.abs(moved - moved[0]).max() > 0.01


def test_delay_self_keeps_the_mean_on_every_graph_at_every_step_if_one_age_holds_for_all() -> None:
    for name in ("star", "path", "ring"):
        for ages in (AGES["one_age"], AGES["one_age_a_step"]):
            models = trajectory(weights_of(name), normal(N, DIM), ages, slots=OLDEST + 1, delay_self=True)
            np.testing.assert_allclose(models.mean(1), np.tile(models[0].mean(0), (STEPS + 1, 1)), rtol=0, atol=1e-14)


def test_a_constant_delay_needs_no_staleness_and_another_delayed_mix_does() -> None:
    W, start = weights_of("ring"), normal(N, DIM)

    def twice(mix: Any) -> Any:
        def one(x: Any) -> Any:
            moved, state = mix.apply(x, mix.init(x))
            return x + moved + mix.apply(x + moved, state)[0]

        with jax.enable_x64(True):
            return jax.vmap(one, axis_name=dopt.AXIS)(jnp.asarray(start))

    np.testing.assert_allclose(twice(mixing.mix(W, delay=2)), loop(W, start, np.full(2, 2))[-1], rtol=0, atol=1e-14)
    with pytest.raises(InputError, match=r"^mixing: a delayed mix needs `staleness`"):
        twice(mixing.mix(W, slots=3))


# -- what a user can mend --


def refused(call: Callable[[], Any]) -> str:
    """The one line in which it is refused."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


NAN = np.full((2, 2), 0.5)
NAN[1, 0] = np.nan


@pytest.mark.parametrize(
    ("matrix", "workers", "message"),
    [
        (np.ones((2, 3)) / 3, None, "mixing: W must be square, got shape (2, 3)"),
        (np.ones(3), None, "mixing: W must be square, got shape (3,)"),
        (np.eye(3), 4, "mixing: W is for 3 workers, got workers=4; set workers to 3"),
        (NAN, None, "mixing: W must be finite; W[1, 0] is nan"),
        (
            np.array([[0.5, 0.5], [0.4, 0.3]]),
            None,
            "mixing: rows (or columns) of W must sum to one; largest row error 3.0e-01 (row 1)",
        ),
    ],
)
def test_what_is_no_mixing_matrix_is_refused_in_one_line(matrix: Any, workers: int | None, message: str) -> None:
    assert refused(lambda: mixing.as_matrix(matrix, workers)) == message
    if workers is None:
        assert refused(lambda: mixing.mix(matrix)) == message


def test_rows_or_columns_that_sum_to_one_to_1e_9_are_a_mixing_matrix() -> None:
    for W in (weights_of("star", rule="uniform"), weights_of("star", rule="push")):
        np.testing.assert_array_equal(mixing.as_matrix(W), W)
    W = np.eye(3)
    W[0, 0] += 5e-10
    np.testing.assert_array_equal(mixing.as_matrix(W), W)
    W[0, 0] += 1e-9
    refused(lambda: mixing.as_matrix(W))


@pytest.mark.parametrize(
    ("W", "message"),
    [
        (
            weights_of("star", 4, "uniform"),
            "mixing: W must be doubly stochastic for gossip_sgd; largest column error 7.5e-01 (column 0); try metropolis",
        ),
        (
            weights_of("star", 4, "push"),
            "mixing: W must be doubly stochastic for gossip_sgd; largest row error 7.5e-01 (row 0); try metropolis",
        ),
        (
            weights_of("disconnected", 4),
            "topology: gossip_sgd needs a connected graph (directed: strongly), this one falls apart",
        ),
        (
            weights_of("ring", 4, "metropolis_tight"),
            "mixing: the graph is connected but its spectral gap is 0 (it swings for ever); try `weights: lazy`",
        ),
        (
            np.array([[-0.1, 1.1], [1.1, -0.1]]),
            "mixing: gossip_sgd needs ‖W - J‖₂ < 1 to agree, got 1.2; use smaller weights",
        ),
    ],
    ids=["rows", "columns", "disconnected", "swings", "too large"],
)
def test_what_gossip_cannot_use_is_refused_with_advice(W: np.ndarray, message: str) -> None:
    line = refused(lambda: mixing.check(W, "gossip_sgd", "doubly stochastic"))
    assert line.startswith(message)
    assert line.endswith("strict: false runs it, to show the failure")
    run = dopt.Run(algorithm="gossip_sgd", workers=len(W), learning_rate=0.1, problem="quadratic", steps=1)
    assert refused(lambda: dopt.run(run, graph=W)) == line


def test_what_the_advice_says_is_accepted() -> None:
    for W in (
        weights_of("ring", 4, "lazy", base="metropolis_tight"),
        weights_of("star", 4, "metropolis"),
        np.ones((1, 1)),
    ):
        mixing.check(W, "gossip_sgd", "doubly stochastic")


@pytest.mark.parametrize("rule", ["metropolis", "metropolis_tight"])
def test_a_directed_graph_with_a_rule_for_undirected_ones_is_refused(rule: str) -> None:
    for line in (
        refused(lambda: weights_of("exponential", rule=rule)),
        refused(lambda: weights_of("exponential", rule="lazy", base=rule)),
    ):
        assert line == f"weights: {rule} needs an undirected graph; for a directed one try uniform, push or pull"


def test_unknown_rules_and_options_are_refused_with_what_was_meant() -> None:
    assert refused(lambda: weights_of("ring", rule="metropolys")) == (
        "weights: unknown name 'metropolys'; did you mean 'metropolis'?"
    )
    assert refused(lambda: weights_of("ring", rule="lazy", bas="push")) == (
        "weights.bas: lazy has no such option; did you mean 'base'?"
    )
    assert refused(lambda: weights_of("ring", rule="push", lazy=True)) == (
        "weights.lazy: push has no such option; it has no options"
    )


def test_a_matrix_in_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    W = weights_of("star", 4)
    np.save(tmp_path / "w.npy", W)
    np.savetxt(tmp_path / "w.csv", W, delimiter=",", fmt="%.17g")
    np.savetxt(tmp_path / "w.txt", W, fmt="%.17g")
    np.savetxt(tmp_path / "w.short.csv", W, delimiter=",", fmt="%.10f")  # as many digits as a sum to 1e-9 needs
    for name in ("w.npy", "w.csv", "w.txt"):
        np.testing.assert_array_equal(mixing.weights(topology.make("star", 4), str(tmp_path / name)), W)
    np.testing.assert_allclose(mixing.read(tmp_path / "w.short.csv"), W, rtol=0, atol=1e-10)


def test_a_file_that_is_no_matrix_is_refused_in_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "big.npy", np.eye(5))
    (tmp_path / "words.csv").write_text("a,b\nc,d\n")
    (tmp_path / "ragged.csv").write_text("1,0\n0\n")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "big.npy").read_bytes()[:-8])
    (tmp_path / "empty.csv").write_text("")
    for name in ("pickled.npy", "words.csv", "ragged.csv", "empty.npy", "cut.npy", "empty.csv"):
        line = refused(lambda: mixing.weights(topology.make("star", 4), str(tmp_path / name)))
        assert line.startswith("weights: "), line
        assert name in line
    assert refused(lambda: mixing.read(tmp_path / "metropolis.npy")).endswith("did you mean 'metropolis'?")
    assert refused(lambda: mixing.weights(topology.make("star", 4), str(tmp_path / "big.npy"))) == (
        "mixing: W is for 5 workers, got workers=4; set workers to 5"
    )
