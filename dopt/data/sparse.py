"""Synthetic sparse samples of two classes, like short texts: few features of each, not negative, of norm 1.

A sample has `density` of all features, drawn without replacement, with values |z|, z normal, over their norm. Its class is 1
with probability 1/(1 + exp(-signal w·x)), w normal of mean 0 over the features, so that the best model is finite, and
the two classes are about equally frequent. Two samples share density² of all features, so that x·x' is about (2/π) density: a gradient
step on one dense sample moves the outputs of all others, on a sparse one hardly any.
"""

from __future__ import annotations

import math

import numpy as np

from dopt.data import base
from dopt.data.base import SETS, Dataset
from dopt.registry import Seed
from dopt.types import InputError


@SETS.register(
    source="synthetic: sparse samples as in Niu, Recht, Ré, Wright 2011, 1106.5730",
    kind="classes",
    bytes=lambda samples, features, **_: 24 * samples * features,
)
def sparse(
    *, samples: int = 1280, features: int = 128, density: float = 0.1, signal: float = 4.0, seed: Seed = 0
) -> Dataset:
    """Synthetic samples of two classes with few features each, not negative, of norm 1; every fifth is held out.

    Args:
      samples: how many, held-out ones included.
      features: how many there are.
      density: share of the features that a sample has.
      signal: how far apart the classes are; 0: classes are coin flips.
      seed: of all that is drawn.
    """
    base.at_least(samples=(samples, 5), features=(features, 2), seed=(seed, 0))
    present = round(density * features) if 0 < density <= 1 else 0
    if not present:
        raise InputError(
            f"data.density: must lie in (0, 1] and give a sample one of features={features} at least, got {density}; use {1 / features:g} or more"
        )
    if not 0 <= signal < math.inf:
        raise InputError(f"data.signal: must be finite and not negative, got {signal}")
    rng = np.random.default_rng(seed)
    chosen = np.argsort(rng.random((samples, features)), 1) < present
    x = np.where(chosen, np.abs(rng.standard_normal((samples, features))), 0.0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    w = rng.standard_normal(features)
    margin = signal * (x @ (w - w.mean()))
    with np.errstate(over="ignore"):  # exp may be infinite: the chance is 0 then
        y = (rng.random(samples) < 1 / (1 + np.exp(-margin))).astype(np.int32)
    held_out = np.arange(samples) % 5 == 4
    return Dataset(base.samples(x[~held_out], y[~held_out]), base.samples(x[held_out], y[held_out]), 2)
