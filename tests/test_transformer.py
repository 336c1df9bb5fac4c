"""Text is cut into characters and their successors; the transformer is its equation, looks back only, and parallelises exactly."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.flatten_util import ravel_pytree
from refusals import refused

import dopt
from dopt import InputError, Problem, Run, data, draws
from dopt.config import identity
from dopt.engine import group_of
from dopt.problems import PROBLEMS, Shards
from dopt.problems import transformer as gpt
from dopt.problems.networks import drawn

BASE: dict[str, Any] = {"algorithm": "allreduce_sgd", "learning_rate": 0.3, "steps": 1, "problem": "transformer"}
OWN_PROBLEM: dict[str, Any] = {"algorithm": "allreduce_sgd", "learning_rate": 0.3, "steps": 1}
OWN = os.environ.get("DOPT_DATA_DIR")


# -- text --


@pytest.fixture(autouse=True)
def _fresh() -> None:
    data.load.cache_clear()


def written(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_a_text_is_cut_into_samples_whose_targets_are_the_next_characters(tmp_path: Path) -> None:
    said = "to be, or not to be: that is the question — ä"
    found = data.load("text", file=written(tmp_path / "said.txt", said), context=4)
    assert found.test is not None
    kinds = sorted(set(said))
    assert found.classes == len(kinds)
    x, y = (np.concatenate([found.train[name], found.test[name]]) for name in ("x", "y"))
    count = (len(said) - 1) // 4
    assert x.shape == y.shape == (count, 4)
    assert x.dtype == y.dtype == np.int32
    assert "".join(kinds[token] for token in x.ravel()) == said[: 4 * count]
    assert "".join(kinds[token] for token in y.ravel()) == said[1 : 4 * count + 1]
    assert len(found.test["x"]) == max(1, count // 10)  # the tail


def test_the_default_text_is_english_of_some_length() -> None:
    found = data.load("text")
    assert len(found.train["x"]) > 1000
    assert 60 < found.classes < 128
    assert found.train["x"].shape[1] == 32
    with pytest.raises(ValueError, match="read-only"):
        found.train["y"][0] = 1


@pytest.mark.skipif(
    not OWN or not (Path(OWN) / "tinyshakespeare.txt").is_file(), reason="DOPT_DATA_DIR has no tinyshakespeare.txt"
)
def test_shakespeare_has_65_characters_and_its_checksum() -> None:
    found = data.load("shakespeare", context=64)
    assert found.test is not None
    assert (len(found.train["x"]), len(found.test["x"]), found.classes) == (15686, 1742, 65)
    content = (Path(OWN or "") / "tinyshakespeare.txt").read_bytes()
    assert hashlib.sha256(content).hexdigest() == data.text.SHA256
    kinds = sorted(set(content.decode()))
    assert "".join(kinds[token] for token in found.train["x"][0]).startswith("First Citizen:")


@pytest.mark.parametrize(
    ("content", "context", "message"),
    [
        ("short", 3, "data.context: .* has 5 characters, two samples of context=3 need 7; use a smaller"),
        ("", 1, "data.context: .* has 0 characters"),
        ("aaaaaaaa", 2, "data: .* repeats one character"),
        (b"caf\xe9 au lait", 2, "data.file: .* must be UTF-8 text, got byte 3 that is not"),
        ("some text", 0, "data.context: must be at least 1, got 0"),
    ],
)
def test_a_text_that_does_not_fit_is_refused(content: str | bytes, context: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{message}") as caught:
        data.load("text", file=written(tmp_path / "it.txt", content), context=context)
    assert "\n" not in str(caught.value)


def test_the_command_refuses_text_in_one_line(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    def command(**fields: Any) -> list[str]:
        given = {"algorithm": "allreduce_sgd", "workers": 2, "learning_rate": 0.1, "steps": 1, **fields}
        return ["run", *(part for name, value in given.items() for part in (f"--{name}", str(value)))]

    missing = str(tmp_path / "none.txt")
    refused(capsys, command(problem="transformer", **{"data.file": missing}), "data.file: no file", missing)
    refused(capsys, command(problem="transformer", data="digits"), "data: transformer learns from text, got digits")
    refused(capsys, command(problem="softmax", data="text"), "data: softmax learns from classes, got text", "digits")
    refused(
        capsys, command(problem="transformer", partition="by_label"), "partition: these samples have no class, got by_"
    )
    alpha = {"partition.alpha": 1}
    refused(capsys, command(problem="transformer", partition="dirichlet", **alpha), "partition:", "got dirichlet")
    refused(
        capsys, command(problem="transformer", **{"problem.heads": 5}), "problem.heads: must divide problem.width=32"
    )


def test_a_runs_identity_has_the_content_of_its_text(tmp_path: Path) -> None:
    file = written(tmp_path / "it.txt", "some text, and more of it")
    run = Run.from_dict({**BASE, "workers": 1, "data.file": file, "data.context": 2}).resolve()
    first = identity(run)
    written(tmp_path / "it.txt", "some text, and less of it")
    assert identity(run) != first


# -- the transformer --


KINDS, CONTEXT = 6, 5


@cache
def tiny(counts: tuple[int, ...] = (4,), l2: float = 0.1) -> Problem:
    """Characters by chance, two heads and two layers."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, KINDS, (2, len(counts), max(counts), CONTEXT)).astype(np.int32)
    held_out = {"x": x[0], "y": y[0]}
    shards = Shards({"x": x, "y": y}, np.array(counts), held_out, KINDS)
    return PROBLEMS["transformer"].make(shards, len(counts), width=8, heads=2, layers=2, l2=l2)


@cache
def start() -> Any:
    """A model that is not special, float64."""
    rng, first = np.random.default_rng(2), jax.jit(tiny().init)(jax.random.key(0))
    return jax.tree.map(lambda p: np.asarray(p, np.float64) + 0.3 * rng.standard_normal(p.shape), first)


def batch_of(problem: Problem, worker: int = 0, count: int | None = None) -> Any:
    return {name: jnp.asarray(leaf[worker, :count]) for name, leaf in problem.data.items()}


def numpy_loss(params: Any, x: np.ndarray, y: np.ndarray, l2: float) -> float:
    """The equation, a character, a head and a layer at a time."""
    p = jax.tree.map(np.asarray, params)

    def norm(h: np.ndarray, own: Any) -> np.ndarray:
        return (h - h.mean()) / np.sqrt(h.var() + 1e-6) * own["scale"] + own["bias"]

    def softmax(z: np.ndarray) -> np.ndarray:
        return np.exp(z - z.max()) / np.exp(z - z.max()).sum()

    def gelu(z: np.ndarray) -> np.ndarray:
        return 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))

    losses = []
    for sample, right in zip(x, y, strict=True):
        h = [p["token"][c] + p["position"][i] for i, c in enumerate(sample)]
        for layer in range(len(p["blocks"]["up"]["kernel"])):
            own = jax.tree.map(lambda a, layer=layer: a[layer], p["blocks"])
            qkv = [np.einsum("w,wkhs->khs", norm(a, own["norm_heads"]), own["qkv"]["kernel"]) for a in h]
            for i in reversed(range(len(h))):
                for head in range(qkv[0].shape[1]):
                    scores = np.array([qkv[i][0, head] @ qkv[j][1, head] for j in range(i + 1)])
                    weight = softmax(scores / np.sqrt(qkv[0].shape[-1]))
                    seen = sum(w * qkv[j][2, head] for j, w in enumerate(weight))
                    h[i] = h[i] + seen @ own["out"]["kernel"][head]
            h = [a + gelu(norm(a, own["norm_hidden"]) @ own["up"]["kernel"]) @ own["down"]["kernel"] for a in h]
        losses += [-np.log(softmax(norm(a, p["norm"]) @ p["head"]["kernel"])[c]) for a, c in zip(h, right, strict=True)]
    return float(np.mean(losses) + l2 / 2 * sum(np.sum(a**2) for a in jax.tree.leaves(p)))


def test_the_transformer_is_its_equation() -> None:
    problem, params = tiny(), start()
    with jax.enable_x64(True):
        batch = batch_of(problem)
        expected = numpy_loss(params, np.asarray(batch["x"]), np.asarray(batch["y"]), 0.1)
        assert float(jax.jit(problem.loss)(params, batch)) == pytest.approx(expected, abs=1e-12)


def test_its_gradient_is_a_finite_difference_along_any_direction() -> None:
    problem = tiny()
    with jax.enable_x64(True):
        batch = batch_of(problem)
        x, unravel = ravel_pytree(jax.tree.map(jnp.asarray, start()))
        f = jax.jit(jax.value_and_grad(lambda x: problem.loss(unravel(x), batch)))
        gradient, h = np.asarray(f(x)[1]), 1e-5
        for direction in np.random.default_rng(3).standard_normal((20, len(x))) / len(x) ** 0.5:
            difference = float(f(x + h * direction)[0] - f(x - h * direction)[0]) / (2 * h)
            assert gradient @ direction == pytest.approx(difference, abs=1e-8)
        assert (np.abs(gradient) > 1e-9).all()  # every parameter matters


def test_a_character_does_not_see_those_after_it() -> None:
    problem, x = tiny(), batch_of(tiny())["x"][0]
    params = jax.tree.map(jnp.float32, start())

    @jax.jit
    def log_odds(x: Any, place: Any) -> Any:
        """Of character 1 over 0 at `place`: the loss is a mean over places, so nothing else is in the difference."""
        zero = jnp.zeros_like(x)
        one, other = (problem.loss(params, {"x": x[None], "y": y[None]}) for y in (zero, zero.at[place].set(1)))
        return CONTEXT * (one - other)

    changed = x.at[3].set((x[3] + 1) % KINDS)
    for place in range(CONTEXT):
        moved = abs(float(log_odds(changed, place) - log_odds(x, place)))
        assert (moved > 1e-3) == (place >= 3)
        assert place >= 3 or moved < 1e-5


def test_heads_and_hidden_units_may_be_split_over_an_axis_and_summed() -> None:
    width, heads, parts = 8, 4, 2
    whole, part = (gpt.block_layers(heads // k, 2, 4 * width // k, width) for k in (1, parts))
    with jax.enable_x64(True):
        h = jnp.asarray(np.random.default_rng(0).standard_normal((3, 5, width)))
        params = drawn(gpt.block_starts(heads, 2, 4 * width, width), jax.random.key(1))
        params = jax.tree.map(jnp.float64, params)

        def cut(name: str, axis: int) -> Any:
            return jnp.stack(jnp.split(params[name]["kernel"], parts, axis))

        axes = {"qkv": 2, "out": 0, "up": 1, "down": 0}
        split = {name: {"kernel": cut(name, axis)} for name, axis in axes.items()}
        split |= {
            name: jax.tree.map(lambda a: jnp.stack([a] * parts), params[name]) for name in params if "norm" in name
        }
        one = jax.vmap(lambda own: gpt.block(part, own, h, lambda x: lax.psum(x, "model")), axis_name="model")
        both = jax.jit(one)(split)
        expected = gpt.block(whole, params, h)
        for found in both:
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_both_precisions_start_from_the_same_model() -> None:
    one = jax.jit(tiny().init)(jax.random.key(3))
    with jax.enable_x64(True):
        other = jax.jit(tiny().init)(jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert {x.dtype for x in jax.tree.leaves(other)} == {np.dtype(np.float32)}  # the engine casts


def test_loss_accuracy_and_step_over_unequal_shards_are_those_of_their_true_samples_in_float64() -> None:
    counts, rate = (4, 2, 1), 0.3
    problem, params = tiny(counts), start()
    fields = {**OWN_PROBLEM, "workers": 3, "precision": "float64", "metrics": ["loss", "accuracy"]}
    everyone = jax.tree.map(lambda p: np.stack([p] * 3), params)
    result = dopt.run(Run.from_dict({**fields, "learning_rate": rate}), problem=problem, start=everyone)
    with jax.enable_x64(True):

        def f(params: Any) -> Any:
            return sum(problem.loss(params, batch_of(problem, i, c)) for i, c in enumerate(counts)) / 3

        value, gradient = jax.jit(jax.value_and_grad(f))(params)
        assert result.history["loss"][0] == pytest.approx(float(value), abs=1e-12)
        accuracy = float(problem.metrics["accuracy"](params, problem.test))
        assert result.history["accuracy"][0] == pytest.approx(accuracy, abs=1e-15)
        for found, p, g in zip(*map(jax.tree.leaves, (result.params, params, gradient)), strict=True):
            np.testing.assert_allclose(found[1], p - rate * np.asarray(g), rtol=0, atol=1e-12)  # float64 throughout


def test_all_reduce_over_eight_devices_reaches_the_loss_of_a_plain_optax_loop_at_equal_batches() -> None:
    n, size, steps = 8, 2, 60
    fields = {"workers": n, "batch_size": size, "steps": steps, "executor": "shard_map", "data.context": 16}
    scale = {"problem.width": 16, "eval_samples": 8, "metrics": ["loss"], "record_every": steps}
    run = Run.from_dict({**BASE, **fields, **scale, "optimizer": "adam", "learning_rate": 3e-3}).resolve()
    found = dopt.run(run).history["loss"]

    group = group_of([run])
    problem, seen = group.facts.problem, group.facts.data.seen
    samples = jax.tree.map(jnp.asarray, group.facts.data.samples)
    optimizer = optax.adam(3e-3)

    def step(carry: Any, k: Any) -> Any:
        params, state = carry
        index = jnp.stack([draws.samples(run.seed, i, k, size, group.facts.data.count[i]) for i in range(n)])
        union = jax.tree.map(lambda a: a[jnp.arange(n)[:, None], index].reshape(n * size, -1), samples)
        updates, state = optimizer.update(jax.grad(problem.loss)(params, union), state, params)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def loop(seed: Any) -> Any:
        params = problem.init(jax.random.key(seed))
        (params, _), _ = lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
        return params

    params = loop(run.seed)
    assert (seen.weights == 1).all()  # one sample each, so that f is the plain mean over all that metrics look at
    looked_at = jax.tree.map(lambda a: a.reshape(-1, a.shape[-1]), seen.samples)
    expected = float(jax.jit(problem.loss)(params, looked_at))
    assert found[-1] == pytest.approx(expected, abs=1e-4)
    assert expected < found[0] - 1  # it learns


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "problem.width: must be at least 1, got 0"),
        ({"heads": 0}, "problem.heads: must be at least 1, got 0"),
        ({"layers": 0}, "problem.layers: must be at least 1, got 0"),
        ({"width": 12, "heads": 5}, "problem.heads: must divide problem.width=12, got 5; use 4"),
        ({"l2": -1.0}, "problem.l2: must be finite and not negative, got -1.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    tokens = np.zeros((1, 4, 5), np.int32)
    with pytest.raises(InputError) as caught:
        PROBLEMS["transformer"].make(Shards({"x": tokens, "y": tokens}, np.array([4]), None, 3), 1, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("x", "y", "test", "message"),
    [
        (np.zeros((1, 4, 5)), np.zeros((1, 4)), None, "data: transformer learns from text, x and y"),
        (np.zeros((1, 4, 5), int), np.zeros((1, 4, 6), int), None, "data: transformer learns from text, x and y"),
        (np.full((1, 4, 5), 3), np.zeros((1, 4, 5), int), None, "data: characters must be numbers from 0 to 2, got 3"),
        (
            np.zeros((1, 4, 5), int),
            np.full((1, 4, 5), -1),
            None,
            "data: characters must be numbers from 0 to 2, got -1",
        ),
        (
            np.zeros((1, 4, 5), int),
            np.zeros((1, 4, 5), int),
            np.zeros((4, 6), int),
            "data: held-out samples must have the same context, 5 characters, got 6",
        ),
    ],
)
def test_samples_that_are_no_such_text_are_refused(x: Any, y: Any, test: Any, message: str) -> None:
    held_out = None if test is None else {"x": test, "y": test}
    with pytest.raises(InputError) as caught:
        PROBLEMS["transformer"].make(Shards({"x": x, "y": y}, np.array([4]), held_out, 3), 1)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
