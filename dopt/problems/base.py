"""The registry of problems, what they are built from, and f* of the convex ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from dopt import draws, flags
from dopt.data import cache
from dopt.registry import Registry
from dopt.types import InputError, Params, Tree

PROBLEMS = Registry("problem")
STEEPEST = 1e100  # curvature
ACCURACY = 1e-12  # of f*, from strong convexity: f - f* <= ‖∇f‖² / (2 l2)


class Shards(NamedTuple):
    """Data split over the workers."""

    train: dict[str, np.ndarray]  # {"x", "y"}, leaves [workers, samples, ...], padded
    counts: np.ndarray  # [workers] true samples of each
    test: dict[str, np.ndarray] | None  # leaves [samples, ...]
    classes: int


def problem(*, source: str, data: str | None, **traits: Any) -> Callable[[Callable], Callable]:
    """Register a builder; `data` is the set it learns from by default, any other of that kind will do; None: it needs none.

    The trait `eval_samples` is how many samples metrics look at by default (None: all); `bytes`, a function of (workers, **options), says what of the host's memory a made problem takes.
    """
    return PROBLEMS.register(source=source, data=data, **traits)


def sample_losses(loss: Callable, params: Params, batch: Tree) -> jax.Array:
    """[samples] loss of each sample alone: how padded shards and f itself are evaluated."""
    return jax.vmap(lambda sample: loss(params, jax.tree.map(lambda a: a[None], sample)))(batch)


def cross_entropy(logits: jax.Array, labels: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
    """Σ weights · -log softmax(logits)[labels], the classes on `axis`.

    One sum goes over everything: to sum sample by sample takes longer, and to look up each one's label has more to compile.
    """
    right = jax.nn.one_hot(labels, logits.shape[axis], axis=axis, dtype=logits.dtype)
    return -jnp.sum(jnp.expand_dims(weights, axis) * right * jax.nn.log_softmax(logits, axis))


def half_square(params: Params) -> jax.Array:
    """½‖x‖² over all leaves."""
    return 0.5 * jnp.asarray(sum(jnp.sum(x * x) for x in jax.tree.leaves(params)))


def mean_of(right: jax.Array, params: Params) -> jax.Array:
    """The part of truth values that hold, in the precision of the model: JAX's own mean of them is float32 in any run."""
    return jnp.mean(right, dtype=jnp.result_type(*jax.tree.leaves(params)))


def curvatures(dim: int, mu: float, L: float) -> np.ndarray:
    """[dim] eigenvalues of a quadratic, log-spaced from mu to L."""
    if dim < 1:
        raise InputError(f"problem.dim: must be at least 1, got {dim}")
    if not 0 < mu <= L < np.inf:
        raise InputError(f"problem.mu: needs 0 < mu <= L, both finite, got mu={mu}, L={L}")
    if mu < 1 / STEEPEST or L > STEEPEST:  # whose squares are no floats
        raise InputError(f"problem.mu: needs {1 / STEEPEST:g} <= mu <= L <= {STEEPEST:g}, got mu={mu}, L={L}")
    return np.geomspace(mu, L, dim)


def regularizer(l2: float) -> tuple[float, str]:
    """(l2, note): a negative one is refused; without one separable data has no minimiser, so f* is left out."""
    if not 0 <= l2 < np.inf:
        raise InputError(f"problem.l2: must be finite and not negative, got {l2}")
    return l2, "" if l2 else "suboptimality is left out: with l2 = 0 separable data has no minimiser"


def convex_optimum(
    loss: Callable, init: Callable, shards: Shards, l2: float, weighted: bool, name: str
) -> Callable[[], float] | None:
    """A function that computes f* to 1e-12, once per content: f is l2-strongly convex. None where l2 = 0."""
    return (lambda: _minimum(loss, init, shards, l2, weighted, name)) if l2 else None


def _minimum(loss: Callable, init: Callable, shards: Shards, l2: float, weighted: bool, name: str) -> float:
    valid = np.arange(shards.train["y"].shape[1]) < shards.counts[:, None]
    share = np.broadcast_to(
        1 / (shards.counts.sum() if weighted else len(shards.counts) * shards.counts[:, None]), valid.shape
    )[valid]
    samples = {k: v[valid] for k, v in shards.train.items()}
    content = hashlib.sha256(f"{name} l2={l2!r} to {ACCURACY}".encode())
    for array in (share, *samples.values()):
        content.update(array.tobytes())
    return cache.number(content.hexdigest(), lambda: _solve(loss, init, samples, share, l2))


def _solve(loss: Callable, init: Callable, samples: dict[str, np.ndarray], share: np.ndarray, l2: float) -> float:
    """Trust-region Newton in float64 (SciPy); refuses to return a value that is not proven."""
    from scipy.optimize import minimize

    with flags.fixed(x64=True):
        batch = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64 if a.dtype.kind == "f" else jnp.int32), samples)
        weight = jnp.asarray(share)
        start, unravel = ravel_pytree(jax.tree.map(lambda x: x.astype(jnp.float64), init(draws.start(0))))

        def f(x: jax.Array) -> jax.Array:
            return weight @ sample_losses(loss, unravel(x), batch)

        value_and_grad, hvp = jax.jit(jax.value_and_grad(f)), jax.jit(lambda x, v: jax.jvp(jax.grad(f), (x,), (v,))[1])
        goal = 0.5 * np.sqrt(2 * l2 * ACCURACY)
        found = minimize(
            lambda x: tuple(np.asarray(a) for a in value_and_grad(x)),
            np.asarray(start),
            jac=True,
            hessp=lambda x, v: np.asarray(hvp(x, v)),
            method="trust-ncg",
            options={"gtol": goal, "maxiter": 1000, "initial_trust_radius": 10.0, "max_trust_radius": 1e4},
        )
        gap = float(found.jac @ found.jac) / (2 * l2)
        if not gap <= ACCURACY:
            raise InputError(
                f"problem: f* was found to {gap:.1e} only, not {ACCURACY:.0e}; raise problem.l2 or leave suboptimality out of metrics"
            )
        return float(found.fun)
