"""Synthetic classes in many dense features: two classes that a noisy linear rule tells apart, features that share few factors.

x = Bz + noise, scaled to norm one, z_j normal of variance 1/j, B random: all features matter, and are correlated, so that few
directions carry most of the variance, as in real sets. y = 1 where ⟨w, z⟩ > 0, w random; a share of the labels is flipped. A tenth of
the samples is held out.
"""

from __future__ import annotations

import math

import numpy as np

from dopt.data import base
from dopt.data.base import SETS, Dataset
from dopt.types import InputError


@SETS.register(
    source="synthetic: dense and correlated, rows of norm one, as PASCAL's epsilon",
    kind="classes",
    bytes=lambda samples, features, rank, **_: 8 * (samples * features + 2 * rank * (samples + features)),
)
def factors(
    *,
    samples: int = 5000,
    features: int = 2000,
    rank: int = 100,
    noise: float = 0.1,
    flipped: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Synthetic classes in many dense features that share few factors; a tenth of the samples is held out.

    Args:
      samples: how many, held-out ones included.
      features: of each sample.
      rank: factors z, of variances 1, 1/2, 1/3, ...
      noise: standard deviation of the noise in each feature, in units of the factors' part of it.
      flipped: share of wrong labels.
      seed: of all that is drawn.
    """
    base.at_least(samples=(samples, 10), features=(features, 1), rank=(rank, 1))
    if not 0 <= noise < math.inf:
        raise InputError(f"data.noise: must be finite and not negative, got {noise}")
    if not 0 <= flipped < 0.5:
        raise InputError(f"data.flipped: must lie in [0, 0.5), got {flipped}")
    if seed < 0:
        raise InputError(f"data.seed: must not be negative, got {seed}")
    rng = np.random.default_rng(seed)
    variance = 1 / np.arange(1, rank + 1)
    z = rng.standard_normal((samples, rank)) * np.sqrt(variance / variance.sum())
    x = z @ rng.standard_normal((rank, features)) + noise * rng.standard_normal((samples, features))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    right = z @ rng.standard_normal(rank) > 0
    y = right ^ (rng.random(samples) < flipped)
    held_out = np.arange(samples) % 10 == 9
    return Dataset(base.samples(x[~held_out], y[~held_out]), base.samples(x[held_out], y[held_out]), 2)
