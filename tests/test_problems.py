"""Problems are what their dials say: known optima, heterogeneity, noise, gradients, and f over unequal shards."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import dopt
from dopt import InputError, Problem, Run, data
from dopt.engine import group_of
from dopt.facts import make_problem
from dopt.problems import PROBLEMS, Shards, base

BASE = {"algorithm": "allreduce_sgd", "learning_rate": 0.5, "steps": 1, "precision": "float64"}
UNEQUAL = {"workers": 4, "partition": "dirichlet", "partition.alpha": 0.3, "partition.seed": 1}


def make(name: str, workers: int = 1, **options: Any) -> Problem:
    """The problem of a Run."""
    return make_problem(Run.from_dict({**BASE, "workers": workers, "problem": name, **options}).resolve())


def tiny(samples: int = 6, features: int = 3, classes: int = 3, workers: int = 1) -> Shards:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((workers, samples, features))
    y = rng.integers(0, classes, (workers, samples)).astype(np.int32)
    return Shards({"x": x, "y": y}, np.full(workers, samples), None, classes)


# -- quadratic --


def gradients(problem: Problem, x: np.ndarray) -> np.ndarray:
    """[n, d]: ∇fᵢ(x)."""
    with jax.enable_x64(True):
        each = jax.vmap(jax.grad(problem.loss), (None, 0))
        return np.asarray(each(jnp.asarray(x), jax.tree.map(jnp.asarray, problem.data)))


def value(problem: Problem, x: np.ndarray) -> float:
    with jax.enable_x64(True):
        each = jax.vmap(problem.loss, (None, 0))
        return float(each(jnp.asarray(x), jax.tree.map(jnp.asarray, problem.data)).mean())


@pytest.mark.parametrize(("mu", "L", "heterogeneity"), [(0.1, 1.0, 1.0), (0.01, 5.0, 30.0), (2.0, 2.0, 0.0)])
def test_a_quadratics_optimum_and_heterogeneity_are_what_the_dials_say(
    mu: float, L: float, heterogeneity: float
) -> None:
    problem = PROBLEMS["quadratic"].make(None, 5, dim=7, mu=mu, L=L, heterogeneity=heterogeneity, seed=3)
    best = problem.data["minimum"][:, 0].mean(0)
    at_best = gradients(problem, best)
    assert np.linalg.norm(best) == pytest.approx(1, abs=1e-12)  # x⁰ = 0 is at distance 1
    np.testing.assert_array_equal(problem.init(jax.random.key(0)), np.zeros(7))
    np.testing.assert_allclose(at_best.mean(0), 0, rtol=0, atol=1e-12)  # x*
    assert np.mean(np.sum(at_best**2, 1)) == pytest.approx(heterogeneity, rel=1e-12)  # ζ²
    assert problem.optimum == pytest.approx(value(problem, best), abs=1e-13)  # f*
    curvature = (gradients(problem, best + np.eye(7)[0]) - at_best)[0]
    assert curvature[0] == pytest.approx(mu, abs=1e-12)
    assert (gradients(problem, best + np.eye(7)[6]) - at_best)[0, 6] == pytest.approx(L, abs=1e-12)


def test_a_quadratic_of_one_worker_has_no_heterogeneity() -> None:
    problem = PROBLEMS["quadratic"].make(None, 1, heterogeneity=4.0)
    assert problem.optimum == 0
    assert np.linalg.norm(problem.data["minimum"]) == pytest.approx(1, abs=1e-12)


def test_a_quadratics_noise_has_mean_0_and_expected_square_sigma_squared_evenly_over_coordinates() -> None:
    dim, noise, draws = 4, 9.0, 100_000
    problem = PROBLEMS["quadratic"].make(None, 2, dim=dim, noise=noise)
    x, batch = jnp.ones(dim), {name: jnp.asarray(a[1], jnp.float32) for name, a in problem.data.items()}

    @jax.jit
    def errors() -> jax.Array:
        keys = jax.random.split(jax.random.key(1), draws)
        noisy = jax.vmap(lambda key: jax.grad(problem.loss)(x, batch, key))(keys)
        return noisy - jax.grad(problem.loss)(x, batch)

    e = np.asarray(errors(), np.float64)
    assert np.mean(np.sum(e**2, 1)) == pytest.approx(noise, rel=5 * np.sqrt(2 / (dim * draws)))
    covariance = e.T @ e / draws
    np.testing.assert_allclose(covariance, noise / dim * np.eye(dim), rtol=0, atol=5 * noise / dim * np.sqrt(2 / draws))
    assert np.abs(e.mean(0)).max() < 5 * np.sqrt(noise / dim / draws)


def test_noise_is_in_gradients_and_not_in_the_metrics() -> None:
    run = {**BASE, "problem": "quadratic", "workers": 3, "problem.dim": 5}
    calm, noisy = (dopt.run(Run.from_dict({**run, "problem.noise": noise})) for noise in (0.0, 4.0))
    assert noisy.history["loss"][0] == calm.history["loss"][0]
    assert noisy.history["grad_norm"][0] == calm.history["grad_norm"][0]
    assert np.abs(noisy.params - calm.params).max() > 0.01


def test_a_turned_quadratics_optimum_heterogeneity_and_curvatures_are_what_the_dials_say() -> None:
    problem = PROBLEMS["turned_quadratic"].make(None, 5, dim=4, mu=0.2, L=3.0, heterogeneity=7.0, seed=2)
    curvature, minima = problem.data["curvature"][:, 0], problem.data["minimum"][:, 0]
    best = np.linalg.solve(curvature.sum(0), np.einsum("nij,nj->i", curvature, minima))
    at_best = gradients(problem, best)
    assert np.linalg.norm(best) == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(problem.init(jax.random.key(0)), np.zeros(4))
    np.testing.assert_allclose(at_best.mean(0), 0, rtol=0, atol=1e-12)  # x*
    assert np.mean(np.sum(at_best**2, 1)) == pytest.approx(7, rel=1e-12)  # ζ²
    assert problem.optimum == pytest.approx(value(problem, best), abs=1e-12)  # f*
    columns = np.stack([gradients(problem, best + e) - at_best for e in np.eye(4)], -1)  # Aᵢ, by what it does
    np.testing.assert_allclose(np.linalg.eigvalsh(columns), np.tile(np.geomspace(0.2, 3, 4), (5, 1)), atol=1e-12)
    assert np.abs(columns - columns[0]).max(axis=(1, 2))[1:].min() > 0.1  # each its own way


def test_a_turned_quadratic_of_one_worker_or_without_heterogeneity_has_one_minimum() -> None:
    for workers, heterogeneity in ((1, 4.0), (3, 0.0)):
        problem = PROBLEMS["turned_quadratic"].make(None, workers, heterogeneity=heterogeneity)
        assert problem.optimum == pytest.approx(0, abs=1e-20)
        np.testing.assert_allclose(np.linalg.norm(problem.data["minimum"], axis=-1), 1, atol=1e-12)


def test_a_random_quadratics_gradients_have_the_moments_of_normal_samples() -> None:
    dim, draws = 5, 200_000
    problem = PROBLEMS["random_quadratic"].make(None, 2, dim=dim)
    x = problem.init(jax.random.key(3))
    keys = jax.random.split(jax.random.key(1), draws)
    g = np.asarray(jax.jit(jax.vmap(lambda key: jax.grad(problem.loss)(x, {}, key)))(keys), np.float64)
    square = float(x @ x)
    np.testing.assert_allclose(g.mean(0), x, rtol=0, atol=5 * np.sqrt((dim + 2) * square / draws))
    # E a aᵀ⟨a, x⟩² = 2xxᵀ + ‖x‖²I, so E‖g‖² = ζ‖x‖², ζ = dim + 2
    np.testing.assert_allclose(g.T @ g / draws, 2 * np.outer(x, x) + square * np.eye(dim), rtol=0, atol=0.05 * square)
    assert problem.loss(x, {}) == pytest.approx(square / 2)
    assert np.abs(np.asarray(x) - problem.init(jax.random.key(4))).max() > 0.1


# -- tridiagonal, least squares --


@pytest.mark.parametrize("dim", [1, 2, 9])
def test_the_tridiagonal_quadratic_is_its_matrix_and_its_optimum_is_proven(dim: int) -> None:
    problem = PROBLEMS["tridiagonal"].make(None, 3, dim=dim, L=2.0)
    A = 0.5 * (2 * np.eye(dim) - np.eye(dim, k=1) - np.eye(dim, k=-1))
    b, x = np.eye(dim)[0] * -0.5, np.random.default_rng(1).standard_normal(dim)
    np.testing.assert_allclose(gradients(problem, x), np.tile(A @ x - b, (3, 1)), rtol=0, atol=1e-14)
    assert value(problem, x) == pytest.approx(0.5 * x @ A @ x - b @ x, abs=1e-14)
    assert problem.optimum == pytest.approx(value(problem, np.linalg.solve(A, b)), abs=1e-14)
    np.testing.assert_allclose(problem.init(jax.random.key(0)), np.sqrt(dim) * np.eye(dim)[0], rtol=1e-7)


def test_the_tridiagonal_quadratics_noise_has_expected_square_sigma_squared() -> None:
    problem = PROBLEMS["tridiagonal"].make(None, 1, dim=4, noise=9.0)
    x, batch = jnp.ones(4), {"none": jnp.zeros(1)}
    noisy = jax.vmap(lambda key: jax.grad(problem.loss)(x, batch, key))(jax.random.split(jax.random.key(1), 50_000))
    e = np.asarray(noisy - jax.grad(problem.loss)(x, batch), np.float64)
    np.testing.assert_allclose(e.T @ e / len(e), 9 / 4 * np.eye(4), rtol=0, atol=5 * 9 / 4 * np.sqrt(2 / len(e)))


def test_least_squares_is_numpys_and_eval_samples_of_n_sees_each_sample_once() -> None:
    run = {**BASE, "problem": "least_squares", "problem.samples": 24, "problem.dim": 3, "workers": 4}
    problem = make("least_squares", 4, **{"problem.samples": 24, "problem.dim": 3})
    rng = np.random.default_rng(0)
    A = rng.uniform(size=(24, 3)) / np.sqrt(3)
    b = A @ rng.standard_normal(3) + 1e-5 * rng.standard_normal(24)
    x = np.array([0.3, -1.0, 2.0])
    assert value(problem, x) == pytest.approx(0.5 * np.mean((A @ x - b) ** 2), rel=1e-12)
    np.testing.assert_allclose(gradients(problem, x), np.tile(A.T @ (A @ x - b) / 24, (4, 1)), rtol=1e-12)
    best = np.linalg.solve(A.T @ A, A.T @ b)
    assert problem.optimum == pytest.approx(value(problem, best), rel=1e-9)
    whole, once = (dopt.run(Run.from_dict({**run, "eval_samples": n})).history["loss"] for n in (None, 24))
    np.testing.assert_allclose(once, whole, rtol=1e-12)
    fewer = dopt.run(Run.from_dict({**run, "eval_samples": 12})).history["loss"]
    assert np.abs(fewer - whole).max() > 1e-3


# -- gradients --


@pytest.mark.parametrize("name", ["softmax", "logistic", "mlp"])  # the larger ones have files of their own
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_gradients_are_finite_differences(name: str, l2: float) -> None:
    shards = tiny()
    options = {"l2": l2, **({"hidden": (4, 3)} if name == "mlp" else {})}
    problem = PROBLEMS[name].make(shards, 1, **options)
    with jax.enable_x64(True):
        batch = jax.tree.map(lambda a: jnp.asarray(a[0]), problem.data)
        x, unravel = ravel_pytree(jax.tree.map(lambda a: a.astype(jnp.float64), problem.init(jax.random.key(0))))
        x = x + 0.3 * np.random.default_rng(2).standard_normal(x.shape)
        f = jax.jit(lambda x: problem.loss(unravel(x), batch))
        h = 1e-5
        numerical = [(f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.eye(len(x))]
        np.testing.assert_allclose(jax.grad(f)(x), numerical, rtol=0, atol=1e-8)
        assert np.abs(np.array(numerical)).max() > 0.01


WEIGHTED = {
    **{name: {} for name in ("softmax", "logistic", "mlp", "embedding")},
    "cnn": {"channels": (2,), "groups": 1},
    "transformer": {"width": 8, "layers": 1},
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_the_weighted_loss_is_the_weighted_mean_of_the_losses_of_single_samples(name: str) -> None:
    options = {f"problem.{k}": v for k, v in WEIGHTED[name].items()}
    problem = make(name, 8, **({} if name == "embedding" else {"problem.l2": 0.3}), **options)
    assert problem.weighted_loss is not None
    weights = np.array([0.1, 0.2, 0.0, 0.7])
    with jax.enable_x64(True):
        wide = {"f": jnp.float64, "i": jnp.int32, "u": jnp.int32}
        batch = jax.tree.map(lambda a: jnp.asarray(a[0, :4], wide[a.dtype.kind]), problem.data)
        x, unravel = ravel_pytree(jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), problem.init(jax.random.key(0))))
        params = unravel(x + 0.3 * np.random.default_rng(2).standard_normal(x.shape))
        losses = jax.jit(partial(base.sample_losses, problem.loss))(params, batch)
        weighted = jax.jit(problem.weighted_loss)
        assert float(weighted(params, batch, jnp.asarray(weights))) == pytest.approx(float(weights @ losses), rel=1e-6)
        equal = float(weighted(params, batch, jnp.full(4, 0.25)))
        assert equal == pytest.approx(float(jax.jit(problem.loss)(params, batch)), rel=1e-6)
        assert np.ptp(losses) > 1e-3


def test_every_problem_whose_shards_may_be_padded_has_a_weighted_loss() -> None:
    """Else its records compile a second path for the samples that only some workers have."""
    padded = {name for name, entry in PROBLEMS.items() if entry.traits["data"] is not None}
    assert padded == {*WEIGHTED, "resnet"}


def softmax_numpy(
    w: np.ndarray, b: np.ndarray, x: np.ndarray, y: int, l2: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss of one sample and its gradients in w and b."""
    z = w @ x + b
    p = np.exp(z - z.max())
    p /= p.sum()
    f = -np.log(p[y]) + l2 / 2 * (np.sum(w**2) + np.sum(b**2))
    p[y] -= 1
    return f, np.outer(p, x) + l2 * w, p + l2 * b


def test_softmax_and_logistic_are_their_formulas() -> None:
    shards, rng = tiny(), np.random.default_rng(0)
    x, y = shards.train["x"][0], shards.train["y"][0]
    w, b, v = rng.standard_normal((3, 3)), rng.standard_normal(3), rng.standard_normal(3)
    signs = np.where(y % 2 == 1, 1, -1)
    with jax.enable_x64(True):
        softmax, logistic = (PROBLEMS[name].make(shards, 1, l2=0.1) for name in ("softmax", "logistic"))
        one, other = (jax.tree.map(lambda a: jnp.asarray(a[0]), p.data) for p in (softmax, logistic))
        assert softmax.loss({"w": jnp.asarray(w), "b": jnp.asarray(b)}, one) == pytest.approx(
            np.mean([softmax_numpy(w, b, x[s], y[s], 0.1)[0] for s in range(6)]), abs=1e-14
        )
        assert logistic.loss(jnp.asarray(v), other) == pytest.approx(
            np.mean(np.log1p(np.exp(-signs * (x @ v)))) + 0.05 * v @ v, abs=1e-14
        )


# -- f*, cached --


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOPT_CACHE_DIR", str(tmp_path))
    return tmp_path


def optimum(problem: Problem) -> float:
    assert callable(problem.optimum)
    return problem.optimum()


@pytest.mark.parametrize(("name", "known"), [("a9a", 0.333340752068716), ("mushrooms", 0.050301979486148)])
def test_f_star_of_a_known_set_is_the_known_value(name: str, known: float, empty_cache: Path) -> None:
    folder = os.environ.get("DOPT_DATA_DIR")
    if not folder or not (Path(folder) / name).is_file():
        pytest.skip(f"needs the file {name} in DOPT_DATA_DIR")
    # one worker: f is the plain mean; l2 = 1e-3 is the default
    assert optimum(make("logistic", data=name, partition="contiguous")) == pytest.approx(known, abs=1e-12)


def pieces(weighted: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All true samples of the unequal digits, x [N, d] and y [N], and the weight of each in f [N]."""
    digits = data.load("digits").train
    parts = data.dirichlet(digits["y"], 4, alpha=0.3, seed=1)
    order = np.concatenate(parts)
    each = [np.full(len(p), 1 / len(order) if weighted else 1 / (4 * len(p))) for p in parts]
    assert min(map(len, parts)) < 0.7 * max(map(len, parts))
    return digits["x"][order], digits["y"][order], np.concatenate(each)


def newton(x: np.ndarray, y: np.ndarray, weight: np.ndarray, l2: float) -> float:
    """Minimum of Σ weight log(1 + exp(-y a·x)) + l2/2 ‖x‖²."""
    signs, w = np.where(y % 2 == 1, 1, -1), np.zeros(x.shape[1])

    def f(w: np.ndarray) -> float:
        return weight @ np.logaddexp(0, -signs * (x @ w)) + l2 / 2 * w @ w

    for _ in range(50):
        p = 1 / (1 + np.exp(signs * (x @ w)))
        gradient = -x.T @ (weight * signs * p) + l2 * w
        hessian = (x.T * (weight * p * (1 - p))) @ x + l2 * np.eye(len(w))
        direction, t = np.linalg.solve(hessian, gradient), 1.0
        while f(w - t * direction) > f(w) - 0.1 * t * gradient @ direction and t > 1e-4:
            t /= 2
        w = w - t * direction
    assert np.linalg.norm(gradient) < 1e-10
    return f(w)


@pytest.mark.parametrize("weighted", [False, True])
def test_f_star_of_unequal_shards_is_the_minimum_of_the_mean_of_their_means_or_of_the_pooled_mean(
    weighted: bool, empty_cache: Path
) -> None:
    problem = make("logistic", **{**UNEQUAL, "problem.weighted": weighted, "problem.l2": 0.01})
    assert optimum(problem) == pytest.approx(newton(*pieces(weighted), 0.01), abs=1e-12)


def test_weighted_f_star_does_not_depend_on_the_split_and_unweighted_does(empty_cache: Path) -> None:
    options = {"problem.l2": 0.1, "problem.weighted": True}
    split, whole = make("logistic", **{**UNEQUAL, **options}), make("logistic", **options)
    assert optimum(split) == pytest.approx(optimum(whole), abs=2e-12)
    apart = make("logistic", **{**UNEQUAL, **options, "problem.weighted": False})
    assert abs(optimum(apart) - optimum(whole)) > 1e-5


def test_f_star_is_computed_once_for_each_content(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solved = []
    monkeypatch.setattr(base, "_solve", lambda *a: solved.append(a) or 0.1 + len(solved))
    builders: list[Callable[[], Problem]] = [
        lambda: PROBLEMS["logistic"].make(tiny(), 1, l2=0.1),
        lambda: PROBLEMS["logistic"].make(tiny(), 1, l2=0.2),
        lambda: PROBLEMS["softmax"].make(tiny(), 1, l2=0.1),
        lambda: PROBLEMS["logistic"].make(tiny(samples=5), 1, l2=0.1),
        lambda: PROBLEMS["logistic"].make(tiny(workers=2)._replace(counts=np.array([6, 3])), 2, l2=0.1),
        lambda: PROBLEMS["logistic"].make(tiny(workers=2)._replace(counts=np.array([6, 3])), 2, l2=0.1, weighted=True),
    ]
    first = [optimum(build()) for build in builders]
    assert first == [1.1, 2.1, 3.1, 4.1, 5.1, 6.1]
    assert [optimum(build()) for build in builders] == first
    assert len(solved) == len(builders)


def test_padding_does_not_change_f_star(empty_cache: Path) -> None:
    shards = tiny(workers=2)._replace(counts=np.array([6, 3]))
    other = {name: a.copy() for name, a in shards.train.items()}
    other["x"][1, 3:], other["y"][1, 3:] = np.nan, 1
    one, two = (
        optimum(PROBLEMS["softmax"].make(shards._replace(train=train), 2, l2=0.1)) for train in (shards.train, other)
    )
    assert one == two


def test_a_damaged_cache_only_costs_time(empty_cache: Path) -> None:
    def build() -> Problem:
        return PROBLEMS["logistic"].make(tiny(), 1, l2=0.1)

    first = optimum(build())
    (file,) = empty_cache.rglob("*.json")
    file.write_text("{")
    assert optimum(build()) == first


@pytest.mark.parametrize("name", ["softmax", "logistic"])
def test_without_l2_suboptimality_is_left_out_with_a_note(name: str) -> None:
    run = Run.from_dict({**BASE, "problem": name, "workers": 2, "problem.l2": 0.0})
    result = dopt.run(run)
    assert "suboptimality" not in result.history
    assert result.notes == ("suboptimality is left out: with l2 = 0 separable data has no minimiser",)
    assert np.isfinite(result.history["loss"]).all()


def test_an_mlps_suboptimality_is_left_out_with_a_note_unless_nobody_asks() -> None:
    run = {**BASE, "problem": "mlp", "workers": 2}
    note = "suboptimality is left out: f* of a network is not known"
    assert group_of([Run.from_dict(run).resolve()]).facts.notes == (note,)
    assert group_of([Run.from_dict({**run, "metrics": ["loss"]}).resolve()]).facts.notes == ()


# -- f over unequal shards, as the engine sees it --


@cache
def softmax_loop(weighted: bool) -> tuple[np.ndarray, np.ndarray, float, np.ndarray, np.ndarray]:
    """(w, b, f, ∂f/∂w, ∂f/∂b) at some model: a loop over true samples."""
    rng = np.random.default_rng(5)
    w, b = 0.3 * rng.standard_normal((10, 64)), 0.3 * rng.standard_normal(10)
    f, gw, gb = 0.0, np.zeros_like(w), np.zeros_like(b)
    for x, y, weight in zip(*pieces(weighted), strict=True):
        one, dw, db = softmax_numpy(w, b, x, y, 0.05)
        f, gw, gb = f + weight * one, gw + weight * dw, gb + weight * db
    return w, b, f, gw, gb


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_full_gradient_over_unequal_shards_are_a_loop_over_true_samples(weighted: bool) -> None:
    w, b, f, gw, gb = softmax_loop(weighted)
    start = {"w": np.tile(w, (4, 1, 1)), "b": np.tile(b, (4, 1))}
    run = {**BASE, **UNEQUAL, "problem": "softmax", "problem.l2": 0.05, "problem.weighted": weighted}
    result = dopt.run(Run.from_dict({**run, "metrics": ["loss", "grad_norm"]}), start=start)
    assert result.history["loss"][0] == pytest.approx(f, abs=1e-12)
    assert result.history["grad_norm"][0] == pytest.approx(np.sqrt(np.sum(gw**2) + np.sum(gb**2)), abs=1e-12)
    np.testing.assert_allclose(result.params["w"][2], w - 0.5 * gw, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.params["b"][2], b - 0.5 * gb, rtol=0, atol=1e-12)


def test_weighted_f_is_the_pooled_mean() -> None:
    x, y, _ = pieces(True)
    w, b, f, *_ = softmax_loop(True)
    assert f == pytest.approx(np.mean([softmax_numpy(w, b, x[s], y[s], 0.05)[0] for s in range(len(y))]), abs=1e-12)
    assert abs(f - softmax_loop(False)[2]) > 1e-3


def tagged(counts: list[int], **options: Any) -> Problem:
    """A loss that is the mean of the samples' values: a record of it tells what was looked at."""
    values = np.zeros((len(counts), max(counts)))
    for row, count in zip(values, counts, strict=True):
        row[:count] = np.arange(count)
        row[count:] = np.nan  # padding

    def loss(x: Any, batch: Any) -> jax.Array:
        return jnp.mean(batch["value"]) + 0 * x.sum()

    return Problem(lambda key: jnp.zeros(1), loss, {"value": values}, counts=np.array(counts, np.int32), **options)


def looked_at(problem: Problem, eval_samples: int | None) -> list[np.ndarray]:
    """Of each worker, the samples that metrics look at."""
    run = Run(**{**BASE, "workers": len(problem.counts), "eval_samples": eval_samples}).resolve(problem=problem)
    seen = group_of([run], problem=problem).facts.data.seen
    both = np.concatenate([seen.head["value"], seen.tail["value"]], 1)
    return [row[:count] for row, count in zip(both, seen.count, strict=True)]


@pytest.mark.parametrize("counts", [[10, 10], [100, 7, 1], [50]])
@pytest.mark.parametrize("wanted", [1, 5, 20, 60, 1000])
def test_eval_samples_bounds_what_metrics_look_at_evenly_and_never_sees_padding(counts: list[int], wanted: int) -> None:
    seen = looked_at(tagged(counts), wanted)
    assert sum(map(len, seen)) <= wanted + len(counts)  # each worker shows one sample at least
    for own, count in zip(seen, counts, strict=True):
        assert 1 <= len(own) <= count
        assert np.isfinite(own).all()
        assert len(np.unique(own)) == len(own)
        assert abs(len(own) - min(count, max(1, wanted * count / sum(counts)))) < 1
        gaps = np.diff(np.append(own, count))  # to the end of the shard
        assert gaps.max() - gaps.min() <= 1
    for own, whole in zip(looked_at(tagged(counts), sum(counts)), looked_at(tagged(counts), None), strict=True):
        np.testing.assert_array_equal(own, whole)


def test_eval_samples_of_a_large_set_are_as_many_as_asked_for() -> None:
    # 60000 x 50000 is more than an int32 holds
    assert [len(own) for own in looked_at(tagged([60_000]), 50_000)] == [50_000]


def test_a_loss_of_eval_samples_is_the_mean_over_them() -> None:
    problem = tagged([9, 4])
    run = Run(**{**BASE, "workers": 2, "eval_samples": 6, "metrics": ("loss",)})
    loss = dopt.run(run, problem=problem).history["loss"][0]
    expected = np.mean([own.mean() for own in looked_at(problem, 6)])
    assert loss == pytest.approx(expected, abs=1e-14)
    assert expected != np.mean([4.0, 1.5])


def test_with_eval_samples_suboptimality_is_left_out_with_a_note() -> None:
    run = {**BASE, "problem": "logistic", "workers": 2, "eval_samples": 50}
    group = group_of([Run.from_dict(run).resolve()])
    assert group.facts.notes == (
        "suboptimality is left out: f* is known for all samples, not for eval_samples of them",
    )
    assert group.facts.optimum is None
    assert len(group.facts.test["y"]) == 50


# -- consensus, and what a user can mend --


def test_consensus_starts_apart_and_has_no_loss() -> None:
    problem = PROBLEMS["consensus"].make(None, 4, dim=3, seed=2)
    assert problem.start.shape == (4, 3)
    assert len(np.unique(problem.start)) == 12
    assert problem.optimum == 0
    batch = jax.tree.map(lambda a: jnp.asarray(a[0]), problem.data)
    assert problem.loss(jnp.ones(3), batch) == 0
    np.testing.assert_array_equal(jax.grad(problem.loss)(jnp.ones(3), batch), np.zeros(3))
    assert np.isnan(problem.loss(jnp.array([1, np.nan, 1]), batch))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("quadratic", {"mu": 0.0}, "problem.mu: needs 0 < mu <= L, both finite, got mu=0.0, L=1.0"),
        ("quadratic", {"mu": 2.0}, "problem.mu: needs 0 < mu <= L, both finite, got mu=2.0, L=1.0"),
        ("quadratic", {"mu": float("nan")}, "problem.mu: needs 0 < mu <= L, both finite, got mu=nan"),
        ("quadratic", {"L": float("inf")}, "problem.mu: needs 0 < mu <= L, both finite, got mu=0.1, L=inf"),
        ("quadratic", {"dim": 0}, "problem.dim: must be at least 1, got 0"),
        ("quadratic", {"noise": -1.0}, "problem: heterogeneity and noise must be finite and not negative"),
        ("quadratic", {"heterogeneity": -1.0}, "problem: heterogeneity and noise must be finite and not negative"),
        (
            "quadratic",
            {"heterogeneity": float("nan")},
            "problem: heterogeneity and noise must be finite and not negative",
        ),
        ("quadratic", {"noise": float("inf")}, "problem: heterogeneity and noise must be finite and not negative"),
        ("turned_quadratic", {"dim": 0}, "problem.dim: must be at least 1, got 0"),
        ("turned_quadratic", {"mu": 2.0}, "problem.mu: needs 0 < mu <= L, both finite, got mu=2.0, L=1.0"),
        (
            "turned_quadratic",
            {"heterogeneity": -1.0},
            "problem.heterogeneity: must be finite and not negative, got -1.0",
        ),
        ("random_quadratic", {"dim": 0}, "problem.dim: must be at least 1, got 0"),
        ("consensus", {"dim": 0}, "problem.dim: must be at least 1, got 0"),
        ("tridiagonal", {"dim": 0}, "problem.dim: must be at least 1, got 0"),
        ("tridiagonal", {"L": 0.0}, "problem.L: must be positive and finite, got 0.0"),
        ("tridiagonal", {"noise": float("inf")}, "problem.noise: must be finite and not negative, got inf"),
        ("least_squares", {"dim": 9, "samples": 8}, "problem.dim: must lie in 1..samples=8, got 9"),
        ("least_squares", {"noise": -1.0}, "problem.noise: must be finite and not negative, got -1.0"),
        ("softmax", {"l2": -1.0}, "problem.l2: must be finite and not negative, got -1.0"),
        ("logistic", {"l2": float("nan")}, "problem.l2: must be finite and not negative, got nan"),
        ("mlp", {"hidden": ()}, "problem.hidden: must be widths of at least 1"),
        ("mlp", {"hidden": (3, 0)}, "problem.hidden: must be widths of at least 1"),
    ],
)
def test_a_problem_that_cannot_be_is_an_input_error_in_one_line(name: str, options: dict, message: str) -> None:
    entry = PROBLEMS[name]
    with pytest.raises(InputError) as caught:
        entry.make(tiny() if entry.traits["data"] else None, 2, **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (tagged([3, 2, 4]), "problem: data leaves must be [workers, samples, ...] with workers=2, got shapes [(3, 4)]"),
        (Problem(jnp.zeros, jnp.sum, {}), "problem: data leaves must be"),
        (Problem(jnp.zeros, jnp.sum, np.zeros(2)), "problem: data leaves must be"),
        (
            Problem(jnp.zeros, jnp.sum, np.zeros((2, 3)), counts=[3, 4]),
            "problem: counts must be [workers] between 1 and 3",
        ),
        (
            Problem(jnp.zeros, jnp.sum, np.zeros((2, 3)), counts=[3, 0]),
            "problem: counts must be [workers] between 1 and 3",
        ),
        (
            Problem(jnp.zeros, jnp.sum, np.zeros((2, 3)), counts=[3]),
            "problem: counts must be [workers] between 1 and 3",
        ),
    ],
)
def test_ones_own_problem_that_does_not_fit_is_an_input_error_in_one_line(problem: Problem, message: str) -> None:
    with pytest.raises(InputError) as caught:
        dopt.run(Run(**{**BASE, "workers": 2}), problem=problem)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
