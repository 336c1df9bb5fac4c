"""fᵢ(x) = mean cross-entropy of a convolutional network on worker i's images + (l2/2)‖x‖²; not convex.

Convolutions of 3 x 3 pixels and stride 2, each followed by GroupNorm (Wu and He 2018, 1803.08494) if asked for, and
ReLU; then one fully connected layer. No BatchNorm: its statistics would be a state that workers do not exchange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax

from dopt.problems.base import Shards, problem
from dopt.problems.networks import EVALUATED, check_groups, image_network
from dopt.registry import Width
from dopt.types import InputError, Problem

if TYPE_CHECKING:
    from flax import linen as nn


def convolutions(channels: tuple[int, ...], groups: int, classes: int) -> nn.Module:
    """[batch, side, side, channels] -> logits [batch, classes]."""
    from flax import linen as nn

    class Convolutions(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for count in channels:
                x = nn.Conv(count, (3, 3), strides=2)(x)
                x = nn.relu(nn.GroupNorm(groups)(x) if groups else x)
            return nn.Dense(classes)(x.reshape(len(x), -1))

    return Convolutions()


@problem(source="convolutional network (flax), LeCun et al. 1998", data="digits", eval_samples=EVALUATED)
def cnn(
    shards: Shards,
    workers: int,
    *,
    channels: tuple[Width, ...] = (8, 16),
    groups: int = 0,
    l2: float = 0.0,
    weighted: bool = False,
) -> Problem:
    """A convolutional network on square images.

    Args:
      channels: of each convolution; each halves the sides.
      groups: of GroupNorm after each convolution; 0: none.
      l2: of all parameters.
      weighted: weigh worker i by its number of samples in f.
    """
    if not channels or min(channels) < 1:
        raise InputError(f"problem.channels: must be numbers of at least 1, as [8, 16], got {list(channels)}")
    check_groups(groups, channels)
    return image_network(convolutions(channels, groups, shards.classes), shards, l2, weighted)
