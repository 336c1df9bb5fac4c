"""Small runs on one problem, and what it is for two of them to be the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dopt.config import Run
from dopt.types import Problem, Tree

DIM, SAMPLES, STEPS, EVERY = 3, 4, 12, 5  # records at 0, 5, 10 and, off the beat, 12
FIELDS: dict[str, Any] = {
    "learning_rate": 0.05,
    "steps": STEPS,
    "record_every": EVERY,
    "metrics": ("consensus_distance", "loss"),
    "precision": "float64",
    "seed": 3,
}


class Failed(AssertionError):  # noqa: N818  it reads as what it is: a check failed
    """A check that does not hold: one line that says what is not so."""


def describe(fields: Mapping[str, Any]) -> Run:
    """A short run, with these fields; None takes one away."""
    return Run.from_dict({name: value for name, value in {**FIELDS, **fields}.items() if value is not None})


@cache
def least_squares(workers: int, apart: bool = True) -> Problem:
    """fᵢ = mean of ½ (a·w + b - y)² over worker i's samples; a pytree of a vector and a scalar.

    Args:
      apart: workers start from different models.
    """
    rng = np.random.default_rng(workers)
    data = {"a": rng.standard_normal((workers, SAMPLES, DIM)), "y": rng.standard_normal((workers, SAMPLES))}
    start = {"w": rng.standard_normal((workers, DIM)), "b": rng.standard_normal(workers)}
    if not apart:
        start = jax.tree.map(lambda x: np.broadcast_to(x[0], x.shape), start)

    def loss(params: Any, batch: Any) -> jax.Array:
        return 0.5 * jnp.mean((batch["a"] @ params["w"] + params["b"] - batch["y"]) ** 2)

    return Problem(lambda key: jax.tree.map(lambda x: jnp.zeros(x.shape[1:]), start), loss, data, start=start)


def permuted(problem: Problem, order: np.ndarray) -> Problem:
    """The problem whose worker i is worker order[i] of this one."""
    data, start = jax.tree.map(lambda x: x[order], (problem.data, problem.start))
    return Problem(problem.init, problem.loss, data, start=start)


def vector(params: Tree) -> np.ndarray:
    """[..., d] of a model of `least_squares`."""
    return np.concatenate([np.asarray(params["b"])[..., None], np.asarray(params["w"])], -1)


def models(found: Any) -> np.ndarray:
    """[workers, d]: the last models of a run of `least_squares`."""
    return vector(found.params)


def agree(found: Any, expected: Any, tolerance: float, what: str = "the two runs") -> None:
    """Models and history are the same within rounding.

    Raises:
      Failed: they are not.
    """
    _check_names(found, expected, what)
    pairs = {"models": (models(found), models(expected))}
    pairs |= {name: (found.history[name], expected.history[name]) for name in expected.history}
    for name, (ours, theirs) in pairs.items():
        near(ours, theirs, tolerance, f"{what}: their {name}")


def near(found: np.ndarray, expected: np.ndarray, tolerance: float, what: str) -> None:
    """Two arrays are the same within rounding."""
    ours, theirs = np.broadcast_arrays(found, expected)
    if not np.allclose(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True):
        raise Failed(
            f"{what} differ by up to {np.max(np.abs(ours - theirs)):.2g}, where rounding explains {tolerance:g}"
        )


def same(found: Any, expected: Any, what: str = "the two runs") -> None:
    """Models and history are the same to the last bit.

    Raises:
      Failed: they are not.
    """
    _check_names(found, expected, what)
    equal = {
        name: np.array_equal(found.history[name], expected.history[name], equal_nan=True) for name in found.history
    }
    equal["models"] = np.array_equal(models(found), models(expected))
    differ = [name for name, is_equal in equal.items() if not is_equal]
    if differ:
        raise Failed(f"{what} differ in the bits of {', '.join(differ)}")


def _check_names(found: Any, expected: Any, what: str) -> None:
    if found.history.keys() != expected.history.keys():
        raise Failed(f"{what} record different things: {sorted(found.history.keys() ^ expected.history.keys())}")


@contextmanager
def compilations() -> Iterator[list[str]]:
    """What XLA compiles meanwhile."""
    seen: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
