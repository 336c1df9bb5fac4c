"""A Mix is W x - x in every form in which it runs, exactly where exactness matters; old models and links that fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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
from dopt import draws, mixing, topology
from dopt.mixing import Dense, LinkLoss
from dopt.mixing.forms import permutations, shifts
from dopt.types import InputError

N, DIM = 7, 5
EXACT = {"float32": 1e-6, "float64": 1e-13}
FORMS = ["dense", "neighbours", "permutations"]


def weights_of(name: str, n: int = N, rule: str | None = None, **options: Any) -> Any:
    return mixing.weights(topology.make(name, n, **options), rule)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def cast(tree: Any, dtype: str) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, dtype if np.asarray(x).dtype.kind == "f" else None), tree)


@cache
def _displace(devices: bool = False) -> Callable:
    """(form, X) -> W X - X, each row from the view of one worker."""

    def one(form: Any, x: Any) -> Any:
        mix = mixing.mix(form)
        return mix.apply(x, mix.init(x))[0]

    if devices:
        return jax.pmap(one, dopt.AXIS, in_axes=(None, 0))
    return jax.jit(jax.vmap(one, in_axes=(None, 0), axis_name=dopt.AXIS))


def displace(form: Any, X: Any, dtype: str = "float64") -> np.ndarray:
    with jax.enable_x64(dtype == "float64"):
        moved = _displace(form.pairs is not None)(cast(form, dtype), cast(X, dtype))
        assert moved.dtype == dtype
        return np.asarray(moved)


def in_form(W: Any, kind: str, **options: Any) -> Any:
    return mixing.form(W, kind, devices=kind == "permutations", **options)


# -- displacements --


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), rule=st.sampled_from(["metropolis", "metropolis_tight", "uniform", "pull", "lazy"]))
def test_the_dense_and_the_neighbour_form_are_w_x_minus_x(dtype: str, seed: int, rule: str) -> None:
    graph = nx.gnp_random_graph(N, 0.4, seed=seed, directed=rule in ("uniform", "pull"))
    W, X = mixing.weights(graph, rule), normal(N, DIM, seed=seed)
    for form in (mixing.form(W, "dense"), mixing.form(W, "neighbours")):
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


def test_small_graphs_run_as_one_product_and_large_sparse_or_disconnected_ones_as_lists() -> None:
    assert mixing.form(weights_of("disconnected", 8)).index.shape == (1, 8, 2)
    for name in ("ring", "star", "exponential"):
        assert isinstance(mixing.form(weights_of(name)), Dense)
    for name, width in (("ring", 2), ("torus", 4), ("hypercube", 8)):
        assert mixing.form(weights_of(name, 256)).index.shape == (1, 256, width)
    assert isinstance(mixing.form(weights_of("complete", 256)), Dense)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("name", ["ring", "star", "exponential"])
def test_models_that_agree_do_not_move_at_all_in_float32(name: str, kind: str) -> None:
    W = weights_of(name)
    rounded = W.astype(np.float32).sum(1, dtype=np.float64)
    assert (rounded != 1).any() == (name != "exponential")  # a row of thirds sums to 1 + 3e-8, one of quarters to 1
    X = np.tile(normal(1, DIM) * 1e3, (N, 1))
    np.testing.assert_array_equal(displace(in_form(W, kind), X, "float32"), np.zeros((N, DIM)))


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


# -- every form is the same W --


GRAPHS = {
    "ring": weights_of("ring"),
    "star": weights_of("star"),
    "exponential": weights_of("exponential"),
    "complete": weights_of("complete"),
    "disconnected": weights_of("disconnected"),
    "push": weights_of("star", rule="push"),
    "directed": weights_of("random_digraph", rule="pull"),
}
SEQUENCES = {
    "one_peer_exponential": weights_of("one_peer_exponential"),
    "base_k": weights_of("base_k"),
    "one_peer_ring": weights_of("one_peer_ring"),
    "random_matching": weights_of("random_matching"),
    "matcha": weights_of("matcha"),
}
ROUNDS = 6


def walk(
    form: Any, X: np.ndarray, dtype: str = "float64", staleness: Any = None, rows: bool = False, **options: Any
) -> np.ndarray:
    """[rounds, n, d]: X <- W_k X, over and over. `rows`: no worker has a device, whatever the form."""

    def one(form: Any, x: Any) -> Any:
        mix = mixing.mix(form, **options)

        def step(carry: Any, _: Any) -> Any:
            x, state = carry
            moved, state = mix.apply(x, state, **({} if staleness is None else {"staleness": staleness}))
            return (x + moved, state), x + moved

        return lax.scan(step, (x, mix.init(x)), length=ROUNDS)[1]

    with jax.enable_x64(dtype == "float64"):
        how = {"in_axes": (None, 0), "out_axes": 1, "axis_name": dopt.AXIS}
        run = jax.pmap(one, **how) if form.pairs is not None and not rows else jax.jit(jax.vmap(one, **how))
        return np.asarray(run(cast(form, dtype), cast(X, dtype)))


@cache
def _densely(name: str, dtype: str) -> np.ndarray:
    return walk(in_form((GRAPHS | SEQUENCES)[name], "dense", steps=ROUNDS, seed=3), normal(N, DIM), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["neighbours", "permutations"])
@pytest.mark.parametrize("name", [*GRAPHS, *SEQUENCES])
def test_each_form_is_the_dense_one(name: str, kind: str, dtype: str) -> None:
    W, X = (GRAPHS | SEQUENCES)[name], normal(N, DIM)
    if name == "random_matching" and kind == "permutations":
        with pytest.raises(InputError, match="no fixed permutations"):
            in_form(W, kind)
        return
    other = in_form(W, kind, steps=ROUNDS, seed=3)
    np.testing.assert_allclose(walk(other, X, dtype), _densely(name, dtype), rtol=0, atol=EXACT[dtype])


@pytest.mark.parametrize("name", [*GRAPHS, "one_peer_exponential", "base_k", "one_peer_ring"])
def test_a_sequence_takes_its_matrices_in_turn(name: str) -> None:
    W, X = (GRAPHS | SEQUENCES)[name], normal(N, DIM)
    several = W if W.ndim == 3 else W[None]
    expected = X
    for k, found in enumerate(walk(mixing.form(W), X)):
        expected = several[k % len(several)] @ expected
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


OLD = {"fresh": None, "old": 2, "each": np.random.default_rng(0).integers(0, 3, N)}


@cache
def _lossy(name: str, kind: str, policy: str | None, ages: str) -> np.ndarray:
    """A walk in that form; without a policy no link fails."""
    options: dict[str, Any] = {} if policy is None else {"loss": LinkLoss(0.4, policy), "seed": 5}
    if OLD[ages] is not None:
        options |= {"slots": 3, "staleness": jnp.asarray(OLD[ages])}
    return walk(in_form((GRAPHS | SEQUENCES)[name], kind), normal(N, DIM), **options)


@pytest.mark.parametrize("ages", OLD)
@pytest.mark.parametrize("name", [*GRAPHS, "one_peer_exponential", "base_k", "matcha"])
def test_among_the_rows_of_an_array_shifts_are_the_dense_form(name: str, ages: str) -> None:
    W, X = (GRAPHS | SEQUENCES)[name], normal(N, DIM)
    options = {} if OLD[ages] is None else {"slots": 3, "staleness": jnp.asarray(OLD[ages])}
    dense, shifted = (mixing.form(W, kind, rows=True, steps=ROUNDS, seed=3) for kind in ("dense", "permutations"))
    found, expected = (walk(form, X, rows=True, **options) for form in (shifted, dense))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("policy", mixing.POLICIES)
@pytest.mark.parametrize("ages", OLD)
@pytest.mark.parametrize("name", ["star", "one_peer_ring"])
def test_lossy_and_delayed_links_are_the_same_in_each_form(name: str, ages: str, policy: str, kind: str) -> None:
    found = _lossy(name, kind, policy, ages)
    np.testing.assert_allclose(found, _lossy(name, "dense", policy, ages), rtol=0, atol=1e-13)
    assert np.abs(found - _lossy(name, kind, None, "fresh")).max() > 0.01


def test_what_is_no_form_or_has_no_devices_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^mix: unknown form 'dens'; did you mean 'dense'\?$"):
        mixing.form(GRAPHS["ring"], "dens")
    with pytest.raises(InputError, match=r"^mix: permutations travel between devices"):
        mixing.form(GRAPHS["ring"], "permutations")


# -- permutations --


@settings(deadline=None, max_examples=64)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), directed=st.booleans())
def test_links_are_as_many_permutations_as_the_largest_degree(seed: int, n: int, directed: bool) -> None:
    links = topology.adjacency(nx.gnp_random_graph(n, 0.5, seed=seed, directed=directed))
    found = permutations(links)
    assert len(found) == max(links.sum(0).max(), links.sum(1).max())
    seen = np.zeros_like(links, int)
    for sender in found:
        real = np.flatnonzero(sender != np.arange(n))
        assert len(set(sender[real])) == len(real)  # nobody sends twice in one of them
        seen[real, sender[real]] += 1
    np.testing.assert_array_equal(seen, links)


@settings(deadline=None, max_examples=64)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), directed=st.booleans())
def test_each_link_is_in_one_shift(seed: int, n: int, directed: bool) -> None:
    links = topology.adjacency(nx.gnp_random_graph(n, 0.5, seed=seed, directed=directed))
    seen = np.zeros_like(links, int)
    for sender in shifts(links):
        real = np.flatnonzero(sender != np.arange(n))
        assert len(set((real - sender[real]) % n)) == 1
        seen[real, sender[real]] += 1
    np.testing.assert_array_equal(seen, links)


@pytest.mark.parametrize(("name", "messages"), [("ring", 2), ("exponential", 3), ("torus", None), ("complete", None)])
def test_a_device_sends_a_message_to_each_neighbour_and_no_more(name: str, messages: int | None) -> None:
    n = 8 if name != "torus" else 9
    W = weights_of(name, n)
    form = mixing.form(W, devices=True)
    if name == "torus":  # more workers than devices here: the lists say it
        assert len(form.pairs[0]) == 4
        return
    program = str(_displace(True).lower(form, normal(n, DIM).astype(np.float32)).compiler_ir())
    sends, gathers = program.count("collective_permute"), program.count("all_gather")
    assert (sends, gathers) == ((messages, 0) if messages else (0, gathers))
    assert (name == "complete") == (gathers > 0)


# -- links that fail --


def effective(W: np.ndarray, loss: LinkLoss, seeds: Any, columns: bool = False) -> np.ndarray:
    """[seeds, n, n] the matrix of the first step: its columns are what the unit vectors become."""
    form = mixing.form(W, columns=columns)

    def one(form: Any, x: Any, seed: Any) -> Any:
        mix = mixing.mix(form, loss=loss, seed=seed)
        return x + mix.apply(x, mix.init(x))[0]

    with jax.enable_x64(True):
        of_a_seed = jax.vmap(one, (None, 0, None), axis_name=dopt.AXIS)
        each = jax.jit(jax.vmap(of_a_seed, (None, None, 0)))
        return np.asarray(each(cast(form, "float64"), jnp.eye(len(W)), jnp.asarray(seeds, jnp.int32)))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("policy", mixing.POLICIES)
@pytest.mark.parametrize("name", ["star", "ring", "directed", "complete"])
def test_rows_sum_to_one_whatever_fails(name: str, policy: str, symmetric: bool) -> None:
    W = effective(GRAPHS[name], LinkLoss(0.5, policy, symmetric), range(4))
    np.testing.assert_allclose(W.sum(2), 1, rtol=0, atol=1e-14)


@pytest.mark.parametrize("p", [0.2, 0.5, 1.0])
def test_the_sender_keeps_what_was_not_delivered_so_that_columns_sum_to_one(p: float) -> None:
    for name in ("push", "exponential"):
        P = effective(GRAPHS[name], LinkLoss(p), range(4), columns=True)
        np.testing.assert_allclose(P.sum(1), 1, rtol=0, atol=1e-14)
        assert (P >= 0).all()


def test_the_mean_is_kept_exactly_by_keep_self_with_symmetric_failures() -> None:
    for name in ("ring", "star", "complete"):
        W = effective(GRAPHS[name], LinkLoss(0.5, "keep_self", True), range(4))
        np.testing.assert_allclose(W, W.swapaxes(1, 2), rtol=0, atol=1e-15)
        np.testing.assert_allclose(W.sum(1), 1, rtol=0, atol=1e-14)


def test_the_mean_is_kept_in_expectation_by_keep_self_and_by_no_other_policy() -> None:
    star, number = GRAPHS["star"], 400
    mean = {policy: np.zeros((N, N)) for policy in ("keep_self", "renormalise")}
    for policy in mean:
        each = effective(star, LinkLoss(0.5, policy), range(number))
        mean[policy] = each.mean(0)
        assert np.abs(each.sum(1) - 1).max() > 0.1  # never mind a single step
    error = 5 * 0.5 * star[0, 1] * np.sqrt(N / number)  # five standard errors of a column's sum
    assert np.abs(mean["keep_self"].sum(0) - 1).max() < error
    assert np.abs(mean["renormalise"].sum(0) - 1).max() > 2 * error


def test_the_last_seen_model_is_a_delay_that_grows_until_a_link_works_again() -> None:
    W, X, loss = GRAPHS["star"], normal(N, DIM), LinkLoss(0.5, "last_seen")
    found, models, last = walk(mixing.form(W), X, loss=loss, seed=7), [X], np.zeros((N, N), int)
    lane = np.arange(N)[:, None] * N + np.arange(N)
    for k in range(ROUNDS):
        arrived = np.asarray(draws.uniform_at(7, draws.EVERYONE, k, draws.LINKS, jnp.asarray(lane))) >= 0.5
        last = np.where(arrived, k, last)
        new = np.zeros_like(X)
        for i in range(N):
            for j in range(N):
                new[i] += W[i, j] * models[k if i == j else last[i, j]][j]
        models.append(new)
        np.testing.assert_allclose(found[k], new, rtol=0, atol=1e-13)


def test_links_fail_as_often_as_they_should_and_one_does_not_tell_of_another() -> None:
    lane = jnp.arange(N * N)
    u = np.stack([draws.uniform_at(0, draws.EVERYONE, k, draws.LINKS, lane) for k in range(600)])
    failed = u < 0.3
    assert np.abs(failed.mean(0) - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 600)
    assert np.abs(np.corrcoef(failed.T)[np.triu_indices(N * N, 1)]).max() < 5.5 / np.sqrt(600)


def test_policies_that_would_lose_mass_are_refused_where_columns_sum_to_one() -> None:
    for policy in ("renormalise", "last_seen"):
        with pytest.raises(InputError, match=rf"^link_loss.policy: .* got {policy}; use keep_self$"):
            mixing.mix(GRAPHS["push"], loss=LinkLoss(0.1, policy))
    W = np.array([[-0.2, 1.2], [1.2, -0.2]])
    with pytest.raises(InputError, match=r"^link_loss.policy: renormalise needs W_ii >= 0 for gossip_sgd, got -0.2;"):
        mixing.check_own_weight(W, "gossip_sgd")


@pytest.mark.parametrize("poison", [np.nan, 1e30])
@pytest.mark.parametrize("kind", ["auto", "permutations"])
@pytest.mark.parametrize("how", ["plain", "keep_self", "renormalise", "last_seen", "old", "push"])
def test_what_goes_wrong_stays_in_its_component_over_old_and_failing_links_too(
    how: str, kind: str, poison: float
) -> None:
    options: dict[str, Any] = {"loss": LinkLoss(0.3, how)} if how in mixing.POLICIES else {}
    if how == "old":
        options = {"slots": 3, "staleness": jnp.arange(N) % 3}
    form = in_form(weights_of("disconnected", rule="push" if how == "push" else None), kind)
    X = normal(N, DIM)
    bad = X.copy()
    bad[1] = poison
    clean, found = (walk(form, x, "float32", **options) for x in (X, bad))
    np.testing.assert_array_equal(found[:, 3:], clean[:, 3:])
    assert not np.allclose(found[-1, :3], clean[-1, :3])


# -- scale --


def test_a_ring_of_4096_workers_holds_no_square_array() -> None:
    n = 4096
    form = mixing.form(weights_of("ring", n))
    assert form.index.shape == (1, n, 2)
    lowered = _displace().lower(cast(form, "float32"), jax.ShapeDtypeStruct((n, 100), jnp.float32))
    assert f"{n}x{n}" not in lowered.as_text()
    assert lowered.compile().memory_analysis().temp_size_in_bytes < n * 100 * 4


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
