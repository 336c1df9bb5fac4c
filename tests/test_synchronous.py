"""The synchronous family beside the conformance table: what theory says of it, what its programs send, and its clock."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quadratics import quadratics, random_quadratics
from refusals import refused

import dopt
from dopt import Problem, Result, Run, algorithms, cluster, compression, engine, theory
from dopt.cluster import links
from dopt.engine import group_of
from dopt.facts import timetable
from dopt.facts.clock import machines_of


def run(own: Problem | None = None, **fields: Any) -> Result:
    flat = {"learning_rate": 0.05, "precision": "float64", **fields}
    if own is not None:
        flat["workers"] = len(jax.tree.leaves(own.data)[0])
    return dopt.run(Run.from_dict(flat), problem=own)


# -- local SGD --

NOISY = {"problem": "quadratic", "problem.noise": 1.0, "problem.heterogeneity": 4.0, "workers": 8}


@pytest.mark.parametrize("local_steps", [2, 5, 25])
def test_with_one_curvature_the_mean_of_local_sgd_is_minibatch_sgd_path_wise(local_steps: int) -> None:
    """x̄ <- x̄ - α (A x̄ - mean of Abᵢ + mean noise), whatever H: the mean of linear gradients is the gradient at the mean."""
    local = run(algorithm="local_sgd", steps=50, record_every=1, **NOISY, **{"algorithm.local_steps": local_steps})
    batch = run(algorithm="allreduce_sgd", steps=50, record_every=1, **NOISY)
    np.testing.assert_allclose(local.history["loss"], batch.history["loss"], rtol=1e-10)
    np.testing.assert_allclose(local.params.mean(0), batch.params[0], rtol=1e-10, atol=1e-12)
    assert local.history["consensus_distance"][1] > 1e-4


@pytest.mark.parametrize("local_steps", [1, 4, 10])
def test_with_other_curvatures_local_sgd_ends_at_its_biased_fixed_point(local_steps: int) -> None:
    curvature, minima = random_quadratics(4, seed=5)
    found = run(
        quadratics(curvature, minima), algorithm="local_sgd", steps=2000, **{"algorithm.local_steps": local_steps}
    )
    expected = theory.local_sgd_fixed_point(curvature, minima, 0.05, local_steps)
    np.testing.assert_allclose(found.params[0], expected, rtol=0, atol=1e-10)
    optimum = np.linalg.solve(curvature.sum(0), np.einsum("nij,nj->i", curvature, minima))
    assert (np.linalg.norm(expected - optimum) > 1e-3) == (local_steps > 1)


def test_the_variance_of_the_mean_falls_as_one_over_n() -> None:
    """Stationary variance of x̄ in each coordinate: α σ²/(d n (2 - α)) for curvature 1, noise σ²/d in each of d coordinates."""
    dim, rate = 20_000, 0.5
    fields = {
        "problem": "quadratic",
        "problem.dim": dim,
        "problem.mu": 1.0,
        "problem.L": 1.0,
        "problem.noise": float(dim),
    }
    fields |= {"problem.heterogeneity": 0.0, "learning_rate": rate, "steps": 16, "metrics": ("loss",)}
    for n in (1, 4, 16):
        found = run(algorithm="local_sgd", workers=n, **fields, **{"algorithm.local_steps": 4})
        again = run(algorithm="local_sgd", workers=n, seed=1, **fields, **{"algorithm.local_steps": 4})
        # the optimum is common to both: it drops out of the difference, whose variance is twice as large
        variance = np.var(found.params.mean(0) - again.params.mean(0)) / 2
        assert variance == pytest.approx(rate / (n * (2 - rate)), rel=0.05)


# -- easgd --


@pytest.mark.parametrize("order", ["joint", "gradient_first"])
def test_the_center_of_easgd_is_a_result_and_its_loss_is_recorded(order: str) -> None:
    curvature, minima = random_quadratics(4)
    fields = {"algorithm": "easgd", "steps": 3, "record_every": 1, "algorithm.order": order}
    found = run(quadratics(curvature, minima), **fields)
    beta, X, z = 0.9 / 4, np.zeros((4, 3)), np.zeros(3)
    for _ in range(3):
        G = np.einsum("nij,nj->ni", curvature, X - minima)
        Y = X if order == "joint" else X - 0.05 * G
        X, z = X - 0.05 * G - beta * (Y - z), z + beta * (Y - z).sum(0)
    np.testing.assert_allclose(found.extra["center"], z[None], rtol=1e-12)
    loss = np.mean([0.5 * (z - b) @ A @ (z - b) for A, b in zip(curvature, minima, strict=True)])
    assert found.history["center_loss"][-1] == pytest.approx(loss, rel=1e-12)
    assert found.history["center_loss"][-1] != found.history["loss"][-1]
    assert run(quadratics(curvature, minima), algorithm="allreduce_sgd", steps=1).extra == {}


# -- matrices: powersgd --


def matrices(n: int, a: int = 6, b: int = 5) -> Problem:
    """fᵢ(M, v) = ½‖M - Mᵢ‖² + ½‖v - vᵢ‖², M [a, b]."""
    rng = np.random.default_rng(n)
    data = {"M": rng.standard_normal((n, 1, a, b)), "v": rng.standard_normal((n, 1, b))}

    def loss(x: Any, batch: Any) -> jax.Array:
        return 0.5 * sum(jnp.sum((x[k] - batch[k][0]) ** 2) for k in ("M", "v"))

    return Problem(lambda key: {"M": jnp.zeros((a, b)), "v": jnp.zeros(b)}, loss, data)


@pytest.mark.parametrize("executor", ["vmap", "pmap"])
@pytest.mark.parametrize("rank", [1, 2])
def test_powersgd_is_its_algorithm_in_numpy(rank: int, executor: str) -> None:
    n, steps, rate, problem = 8, 6, 0.3, matrices(8)
    found = run(
        problem, algorithm="powersgd", steps=steps, learning_rate=rate, executor=executor, **{"algorithm.rank": rank}
    )
    M, v, e = np.zeros((6, 5)), np.zeros(5), np.zeros((n, 6, 5))
    Q = np.random.default_rng(0).standard_normal((5, rank))  # of the first leaf
    target, aim = problem.data["M"][:, 0], problem.data["v"][:, 0]
    for _ in range(steps):
        wanted = (M - target) + e
        P = np.linalg.qr((wanted @ Q).mean(0))[0]
        Q = (wanted.transpose(0, 2, 1) @ P).mean(0)
        e = wanted - P @ Q.T
        M, v = M - rate * P @ Q.T, v - rate * (v - aim.mean(0))
    np.testing.assert_allclose(found.params["M"][3], M, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.params["v"][3], v, rtol=1e-10, atol=1e-10)
    assert np.linalg.matrix_rank(M) > rank  # error feedback brings the rest


def test_full_rank_powersgd_is_allreduce() -> None:
    """rank r with r (a + b) >= a b: nothing is saved, so the leaf is averaged whole."""
    low, whole = (
        run(matrices(4), algorithm=name, steps=9, **options)
        for name, options in (("powersgd", {"algorithm.rank": 3}), ("allreduce_sgd", {}))
    )
    np.testing.assert_array_equal(low.params["M"], whole.params["M"])


def test_with_error_feedback_a_tenth_of_the_gradient_reaches_the_optimum() -> None:
    curvature, minima = random_quadratics(4, d=20)
    optimum = np.linalg.solve(curvature.sum(0), np.einsum("nij,nj->i", curvature, minima))
    fields = {"algorithm": "compressed_sgd", "algorithm.fraction": 0.1, "steps": 6000, "learning_rate": 0.01}
    found, without = (
        run(quadratics(curvature, minima), **fields, **{"algorithm.error_feedback": feedback})
        for feedback in (True, False)
    )
    assert np.abs(found.params[0] - optimum).max() < 0.05 * np.abs(without.params[0] - optimum).max()


# -- what is compiled --


def compiled(algorithm: str, executor: str = "shard_map", **fields: Any) -> Any:
    described = Run.from_dict(
        {"algorithm": algorithm, "workers": 8, "learning_rate": 0.1, "steps": 3, "executor": executor, **fields}
    )
    return engine.compile(group_of([described.resolve()]), 1)


def test_the_ring_sends_2n_minus_2_chunks_of_an_nth() -> None:
    dim, n = 100, 8
    text = compiled("ring_allreduce_sgd", problem="consensus", **{"problem.dim": dim}, metrics=("loss",)).go.as_text()
    sent = re.findall(r"(\w+)\[([\d,]*)\]\S* collective-permute(?:-start)?\(", text)
    assert sent == [("f32", str(-(-dim // n)))] * (2 * (n - 1))
    assert "collective-permute" not in compiled("allreduce_sgd", problem="consensus", metrics=("loss",)).go.as_text()


@pytest.mark.parametrize("workers", [8, 16])
def test_the_ring_of_a_mesh_goes_by_permutes_as_well(workers: int) -> None:
    asked = {"workers": workers, "problem": "consensus", "problem.dim": 100, "metrics": ("loss",)}
    text = compiled("ring_allreduce_sgd", "mesh", **asked).go.as_text()
    assert len(re.findall(r" collective-permute(?:-start)?\(", text)) == 2 * (workers - 1)
    assert "all-gather" not in text


def test_fsdp_holds_an_nth_of_the_model_and_of_the_optimizer_on_each_device() -> None:
    wide = {
        "problem": "mlp",
        "problem.hidden": (512, 512),
        "optimizer": "adam",
        "metrics": ("loss",),
        "eval_samples": 8,
    }
    whole, part = (compiled(name, batch_size=4, **wide) for name in ("allreduce_sgd", "fsdp_sgd"))
    model = whole.group.facts.sizes.bytes
    held = [made.go.memory_analysis().output_size_in_bytes for made in (whole, part)]
    # the carry is all that comes out: parameters and two moments
    assert held[0] == pytest.approx(3 * model, rel=0.01)
    assert held[1] == pytest.approx(3 * model / 8, rel=0.01)


def test_a_step_of_fsdp_gathers_the_model_once_and_scatters_the_gradient_once() -> None:
    """ZeRO stage 2, 2(n-1)/n models; stage 3 would gather again in the backward pass."""
    method, params = algorithms.make("fsdp_sgd", optax.adam(0.1)), {"a": jnp.ones((3, 4)), "b": jnp.ones(2)}

    def step(x: jax.Array) -> Any:
        state, piece = method.init(params), method.place(params)
        grads = jax.grad(lambda p: jnp.tanh(x @ p["a"]).sum() + jnp.sum(p["b"] ** 2))(method.read(state, piece))
        return method.update(grads, state, piece)[0]

    mesh = jax.make_mesh((8,), (dopt.AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    over = jax.sharding.PartitionSpec(dopt.AXIS)
    shown = str(jax.make_jaxpr(jax.shard_map(step, mesh=mesh, in_specs=over, out_specs=over))(jnp.ones((8, 3))))
    assert shown.count("all_gather[") == shown.count("reduce_scatter[") == 1


# -- bytes and seconds --

D = 40  # bytes of the model: ten float32


@pytest.mark.parametrize("reduce", ["ring", "tree", "server"])
@pytest.mark.parametrize(
    ("algorithm", "options", "sizes", "gathers", "count"),
    [
        ("allreduce_sgd", {}, [D], False, 12),
        ("ring_allreduce_sgd", {}, [D], False, 12),
        ("fsdp_sgd", {}, [D], False, 12),
        ("local_sgd", {"local_steps": 5}, [D], False, 2),
        ("post_local_sgd", {"local_steps": 4, "switch_step": 3}, [D], False, 5),
        ("slowmo", {"local_steps": 3}, [D], False, 4),
        ("diloco", {"local_steps": 12}, [D], False, 1),
        ("easgd", {"local_steps": 2}, [D], False, 6),
        ("sign_majority", {}, [10 / 8], False, 12),
        ("compressed_sgd", {"fraction": 0.2}, [2 * (32 + 4) / 8], True, 12),
        ("compressed_sgd", {"compressor": "random_k", "fraction": 0.2}, [2 * 4], False, 12),
        ("powersgd", {}, [D, 0], False, 12),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_seconds_and_bytes_are_those_of_the_reductions_made(
    algorithm: str, options: dict[str, Any], sizes: list[float], gathers: bool, count: int, reduce: str
) -> None:
    n, steps = 4, 12
    fields = {"algorithm": algorithm, "workers": n, "steps": steps, "record_every": steps, "problem": "consensus"}
    fields |= {"problem.dim": 10, "precision": "float32", "cluster": "constant", "metrics": ("loss",)}
    fields |= {"cluster.latency": 0.5, "cluster.bandwidth": 100.0, "cluster.reduce": reduce}
    found = run(**fields, **{f"algorithm.{name}": value for name, value in options.items()}).history
    net = links.make(n, latency=0.5, bandwidth=100.0, reduce=reduce)
    seconds = sum(links.reduce_time(net, n, size, gathers) for size in sizes)
    assert found["time"][-1] == pytest.approx(steps + count * seconds)
    own, server = links.reduce_messages(reduce, n, gathers)
    assert found["bytes_sent"][-1] == pytest.approx(count * own * sum(sizes))
    assert found.get("server_bytes_sent", [0])[-1] == pytest.approx(count * server * sum(sizes))


def test_two_factors_are_two_messages() -> None:
    fields = {"algorithm": "powersgd", "workers": 4, "learning_rate": 0.1, "steps": 2, "algorithm.rank": 1}
    found = dopt.run(Run.from_dict(fields), problem=matrices(4)).history
    sizes = compression.checked_rank(1).bits({"M": np.zeros((6, 5), np.float32), "v": np.zeros(5, np.float32)})
    assert sizes == (32 * (6 + 5), 32 * 5)
    assert found["bytes_sent"][-1] == pytest.approx(2 * 2 * 3 / 4 * sum(sizes) / 8)


def test_a_gradient_takes_time_in_proportion_to_its_batch() -> None:
    fields = {
        "algorithm": "allreduce_sgd",
        "learning_rate": 0.1,
        "steps": 5,
        "cluster": "exponential",
        "record_every": 1,
    }
    fields |= {"problem": "softmax", "metrics": ("loss",), "workers": 4}
    plain = run(**fields, batch_size=8).history["time"]
    np.testing.assert_allclose(run(**fields, batch_size=8, **{"cluster.batch": 4}).history["time"], 2 * plain)
    np.testing.assert_allclose(run(**fields, total_batch=16, **{"cluster.batch": 4}).history["time"], plain)


def test_between_two_averages_nobody_waits() -> None:
    """A round of local SGD takes the slowest worker's sum, max over i of Σ c_im, not the sum of the slowest."""
    fields = {"algorithm": "local_sgd", "workers": 6, "learning_rate": 0.1, "steps": 20, "cluster": "exponential"}
    fields |= {"algorithm.local_steps": 5, "problem": "consensus", "record_every": 5}
    described = Run.from_dict(fields).resolve()
    times = cluster.compute_times(machines_of(described), 20)
    found = dopt.run(described).history["time"]
    np.testing.assert_allclose(found, np.append(0, np.cumsum(times.reshape(6, 4, 5).sum(2).max(0))), rtol=1e-12)


def test_federated_averaging_waits_for_those_who_take_part_and_counts_what_they_send() -> None:
    fields = {"algorithm": "local_sgd", "workers": 8, "learning_rate": 0.1, "steps": 200, "record_every": 10}
    fields |= {"algorithm.local_steps": 10, "problem": "consensus", "cluster": "constant", "cluster.straggler": 7.0}
    times, sent, gradients = {}, {}, {}
    for share in (1.0, 0.25):
        found = dopt.run(Run.from_dict(fields | {"algorithm.participation": share})).history
        times[share], sent[share] = np.diff(found["time"]), found["bytes_sent"][-1]
        gradients[share] = found["gradients"][-1]
    assert (times[1.0] == 70).all()
    assert set(times[0.25]) == {10.0, 70.0}  # the others rest, and nobody waits for them
    assert sent[0.25] / sent[1.0] == pytest.approx((8 + 2 - 2) / (2 * 7))
    assert (gradients[1.0], gradients[0.25]) == (8 * 200, 2 * 200)


def test_who_rests_has_no_row_in_the_schedule() -> None:
    fields = {"workers": 8, "steps": 40, "cluster": "exponential", "algorithm.local_steps": 10, "message_bytes": 100}
    line, _, _ = timetable.of("local_sgd", fields | {"algorithm.participation": 0.25})
    assert line.applied.sum() == 2 * 40
    for step in range(0, 40, 10):  # the same two for a round
        assert len(set(line.worker[(line.write_version >= step) & (line.write_version < step + 10)])) == 2
    np.testing.assert_allclose(line.weight[line.applied], 1 / 2)
    assert line.bytes.sum() == pytest.approx(4 * (8 + 2 - 2) * 100)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"algorithm": "local_sgd", "algorithm.local_steps": 0}, "algorithm.local_steps: must be at least 1, got 0"),
        (
            {"algorithm": "local_sgd", "algorithm.participation": 0.0},
            "algorithm.participation: must lie in (0, 1], got 0",
        ),
        (
            {"algorithm": "post_local_sgd", "algorithm.switch_step": -1},
            "algorithm.switch_step: must be at least 0, got -1",
        ),
        ({"algorithm": "slowmo", "algorithm.momentum": 1.0}, "algorithm.momentum: must lie in [0, 1), got 1"),
        ({"algorithm": "slowmo", "optimizer": "adam"}, "optimizer: slowmo takes sgd only"),
        ({"algorithm": "diloco", "algorithm.outer": "lion"}, "algorithm.outer: must be sgd or adam, got 'lion'"),
        (
            {"algorithm": "easgd", "algorithm.elastic_rate": 0.5},
            "algorithm.elastic_rate: must lie between 0 and 1, and below 2/n",
        ),
        ({"algorithm": "compressed_sgd", "algorithm.fraction": 2}, "algorithm.fraction: must lie in (0, 1], got 2"),
        ({"algorithm": "powersgd", "algorithm.rank": 0}, "algorithm.rank: must be at least 1, got 0"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_options_that_mean_nothing_are_refused_in_one_line(
    options: dict[str, Any], said: str, capsys: pytest.CaptureFixture
) -> None:
    fields = {"workers": 8, "learning_rate": 0.1, "steps": 5, **options}
    refused(capsys, ["run", *(f"--{name}={value}" for name, value in fields.items())], said)
