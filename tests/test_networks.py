"""Convolutional and residual networks are their equations on images that their features spell out."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import dopt
from dopt import InputError, Problem, Run
from dopt.problems import PROBLEMS, Shards, networks

TINY: dict[str, dict[str, Any]] = {
    "cnn": {"channels": (2, 4), "groups": 2, "l2": 0.1},
    "resnet": {"width": 2, "groups": 2, "l2": 0.1},
}


def pictures(side: int, channels: int, count: int = 3, workers: int = 1) -> Shards:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((workers, count, channels * side**2))
    y = rng.integers(0, 3, (workers, count)).astype(np.int32)
    return Shards({"x": x, "y": y}, np.full(workers, count), {"x": x[0], "y": y[0]}, 3)


@cache
def tiny(name: str, channels: int = 3) -> tuple[Problem, Any]:
    """A problem on colour images of 5 x 5, and a model that is not special, float64."""
    problem = PROBLEMS[name].make(pictures(5, channels), 1, **TINY[name])
    rng, first = np.random.default_rng(2), jax.jit(problem.init)(jax.random.key(0))
    return problem, jax.tree.map(lambda p: np.asarray(p, np.float64) + 0.1 * rng.standard_normal(p.shape), first)


# -- the equations, one pixel at a time --


def convolved(x: np.ndarray, own: Any, stride: int = 1) -> np.ndarray:
    """x [side, side, channels] under a kernel [3, 3, in, out], zeros outside; of odd sides, every `stride`-th pixel."""
    kernel, side = own["kernel"], len(x)
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    out = [
        [np.einsum("ijc,ijco->o", padded[i : i + 3, j : j + 3], kernel) for j in range(0, side, stride)]
        for i in range(0, side, stride)
    ]
    return np.array(out) + own.get("bias", 0)


def normed(x: np.ndarray, own: Any, groups: int) -> np.ndarray:
    split = x.reshape(*x.shape[:2], groups, -1)
    split = (split - split.mean((0, 1, 3), keepdims=True)) / np.sqrt(split.var((0, 1, 3), keepdims=True) + 1e-6)
    return split.reshape(x.shape) * own["scale"] + own["bias"]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def cnn_logits(p: Any, x: np.ndarray) -> np.ndarray:
    for i in range(2):
        x = relu(normed(convolved(x, p[f"Conv_{i}"], 2), p[f"GroupNorm_{i}"], 2))
    return x.reshape(-1) @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]


def resnet_logits(p: Any, x: np.ndarray) -> np.ndarray:
    def layer(x: np.ndarray, i: int, stride: int = 1) -> np.ndarray:
        return normed(convolved(x, p[f"Conv_{i}"], stride), p[f"GroupNorm_{i}"], 2)

    x = relu(layer(x, 0))
    for stage in range(3):
        stride = 2 if stage else 1
        inner = layer(relu(layer(x, 2 * stage + 1, stride)), 2 * stage + 2)
        short = x[::stride, ::stride]
        wider = np.concatenate([short, np.zeros((*short.shape[:2], inner.shape[-1] - short.shape[-1]))], -1)
        x = relu(inner + wider)
    return x.mean((0, 1)) @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "logits"), [("cnn", cnn_logits), ("resnet", resnet_logits)])
def test_a_network_of_images_is_its_equation(name: str, logits: Any, channels: int) -> None:
    problem, params = tiny(name, channels)
    losses = []
    for x, y in zip(problem.data["x"][0], problem.data["y"][0], strict=True):
        z = logits(params, x.reshape(channels, 5, 5).transpose(1, 2, 0))  # plane after plane, as in the files
        losses.append(np.log(np.exp(z - z[y]).sum()))
    expected = np.mean(losses) + 0.05 * sum(np.sum(a**2) for a in jax.tree.leaves(params))
    with jax.enable_x64(True):
        batch = jax.tree.map(lambda a: jnp.asarray(a[0]), problem.data)
        assert float(jax.jit(problem.loss)(params, batch)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", TINY)
def test_its_gradient_is_a_finite_difference_along_any_direction(name: str) -> None:
    problem, params = tiny(name)
    with jax.enable_x64(True):
        batch = jax.tree.map(lambda a: jnp.asarray(a[0]), problem.data)
        x, unravel = ravel_pytree(jax.tree.map(jnp.asarray, params))
        f = jax.jit(jax.value_and_grad(lambda x: problem.loss(unravel(x), batch)))
        gradient, h = np.asarray(f(x)[1]), 1e-6  # short of the next kink of a ReLU
        for direction in np.random.default_rng(3).standard_normal((10, len(x))) / len(x) ** 0.5:
            difference = float(f(x + h * direction)[0] - f(x - h * direction)[0]) / (2 * h)
            assert gradient @ direction == pytest.approx(difference, abs=1e-7)
        assert np.abs(gradient).max() > 0.1


@pytest.mark.parametrize("depth", [8, 20])
def test_a_resnet_of_depth_6k_plus_2_has_as_many_layers_with_weights(depth: int) -> None:
    problem = PROBLEMS["resnet"].make(pictures(8, 1), 1, depth=depth, width=8)
    params = jax.eval_shape(problem.init, jax.random.key(0))
    assert sum("kernel" in layer for layer in params.values()) == depth


def test_kernels_start_with_variance_2_over_inputs_and_the_rest_at_one_and_zero() -> None:
    problem = PROBLEMS["resnet"].make(pictures(8, 1), 1, width=16)
    for layer in jax.jit(problem.init)(jax.random.key(0)).values():
        for name, leaf in layer.items():
            if name == "kernel":
                inputs = np.prod(leaf.shape[:-1])
                assert float(leaf.var() * inputs / 2) == pytest.approx(1, abs=5 * np.sqrt(2 / leaf.size))
            else:
                np.testing.assert_array_equal(leaf, name == "scale")


def test_workers_learn_digits_by_convolutions_alike_in_both_precisions() -> None:
    fields = {"algorithm": "allreduce_sgd", "workers": 3, "problem": "cnn", "batch_size": 8, "learning_rate": 0.1}
    fields |= {"steps": 30, "record_every": 30, "metrics": ["loss"], "eval_samples": 100}
    one, two = (dopt.run(Run.from_dict({**fields, "precision": p})).history["loss"] for p in ("float32", "float64"))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-4)
    assert two[-1] < two[0] - 0.3


# -- images --


@pytest.mark.parametrize(
    ("features", "side", "channels"), [(64, 8, 1), (784, 28, 1), (3072, 32, 3), (3, 1, 3), (1, 1, 1)]
)
def test_a_number_of_features_tells_the_image(features: int, side: int, channels: int) -> None:
    shards = Shards({"x": np.zeros((1, 2, features))}, np.array([2]), None, 3)
    assert networks.image(shards, 1) == (side, channels)


@pytest.mark.parametrize(
    ("name", "shards", "options", "message"),
    [
        ("cnn", pictures(3, 2), {}, "data: must be square images of 1 or 3 channels, at least 1 x 1, got 18 features"),
        ("resnet", pictures(3, 3), {}, "data: must be square images of 1 or 3 channels, at least 4 x 4, got 27"),
        ("cnn", pictures(5, 1), {"channels": ()}, "problem.channels: must be numbers of at least 1"),
        ("cnn", pictures(5, 1), {"channels": (4, 0)}, "problem.channels: must be numbers of at least 1"),
        ("cnn", pictures(5, 1), {"groups": 3}, "problem.groups: must divide 8 channels, got 3; use 1"),
        ("cnn", pictures(5, 1), {"groups": -1}, "problem.groups: must divide 8 channels, got -1; use 8"),
        ("cnn", pictures(5, 1), {"l2": -1.0}, "problem.l2: must be finite and not negative, got -1.0"),
        ("resnet", pictures(5, 1), {"depth": 10}, "problem.depth: must be 6k + 2, got 10; use 8"),
        ("resnet", pictures(5, 1), {"depth": 2}, "problem.depth: must be 6k + 2, got 2; use 8"),
        ("resnet", pictures(5, 1), {"width": 0}, "problem.width: must be at least 1, got 0"),
        ("resnet", pictures(5, 1), {"groups": 0}, "problem.groups: must be at least 1, got 0"),
        ("resnet", pictures(5, 1), {"width": 12}, "problem.groups: must divide 12 channels, got 8; use 4"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(name: str, shards: Shards, options: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        PROBLEMS[name].make(shards, 1, **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
