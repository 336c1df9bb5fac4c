"""What each worker holds: a problem's data in the run's precision, padding cleared, ready to be averaged exactly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dopt.facts.inputs import Data, Shard, Weighed
from dopt.types import Problem, Tree


def counts(problem: Problem) -> np.ndarray:
    """[workers] true samples of each worker."""
    samples = np.shape(jax.tree.leaves(problem.data)[0])
    return np.full(samples[0], samples[1]) if problem.counts is None else np.asarray(problem.counts, np.int64)


def cast(x: object, dtype: np.dtype) -> np.ndarray:
    """Numbers in the run's precision, whole numbers as int32."""
    found: np.ndarray = np.asarray(x)
    if jnp.issubdtype(found.dtype, jnp.floating):
        return found.astype(dtype)
    return found.astype(np.int32) if found.dtype.kind in "iu" else found


def split(problem: Problem, dtype: np.dtype, eval_samples: int | None, full: bool) -> Data:
    """The problem's data as the workers need it.

    Args:
      problem: with data leaves [workers, samples, ...].
      dtype: of all real numbers.
      eval_samples: how many samples metrics look at, evenly spaced in each shard; None: all.
      full: gradients are of the whole shard.
    """
    number = counts(problem)
    padding = np.arange(np.shape(jax.tree.leaves(problem.data)[0])[1]) >= number[:, None]

    def clean(x: object) -> np.ndarray:  # what lies in the padding must not reach a gradient, not even as 0 x NaN
        found = cast(x, dtype)
        if not padding.any():
            return found
        beside = padding.reshape(padding.shape + (1,) * (found.ndim - 2))
        return np.where(beside, np.zeros((), found.dtype), found)

    samples = jax.tree.map(clean, problem.data)
    whole = _shard(samples, number) if full else None
    looked_at = (samples, number) if eval_samples is None else _evenly(samples, number, eval_samples)
    seen = _shard(*looked_at) if problem.weighted_loss is None else _weighed(*looked_at, dtype)
    return Data(samples, number.astype(np.int32), whole, seen, shares(problem).astype(dtype))


def shares(problem: Problem) -> np.ndarray:
    """[workers] each worker's weight in f, mean 1."""
    number = counts(problem)
    return number * len(number) / number.sum() if problem.weighted else np.ones(len(number))


def _shard(samples: Tree, number: np.ndarray) -> Shard:
    cut = int(number.min())
    head, tail = (
        jax.tree.map(lambda a, s=part: a[:, s], samples) for part in (slice(None, cut), slice(cut, int(number.max())))
    )
    return Shard(head, tail, number.astype(np.int32))


def _weighed(samples: Tree, number: np.ndarray, dtype: np.dtype) -> Weighed:
    most = int(number.max())
    there = np.arange(most) < number[:, None]
    return Weighed(jax.tree.map(lambda a: a[:, :most], samples), (there / number[:, None]).astype(dtype))


def _evenly(samples: Tree, number: np.ndarray, wanted: int) -> tuple[Tree, np.ndarray]:
    """About `wanted` samples in all, evenly spaced in each shard."""
    if wanted >= number.sum():
        return samples, number
    chosen = np.maximum(1, np.minimum(number, wanted * number // number.sum()))
    place = np.minimum((np.arange(chosen.max()) * number[:, None]) // chosen[:, None], number[:, None] - 1)
    return jax.tree.map(lambda x: x[np.arange(len(number))[:, None], place], samples), chosen
