"""fᵢ(x) = mean cross-entropy of a residual network on worker i's images + (l2/2)‖x‖²; not convex.

The network of He et al. 2016, 1512.03385, section 4.2 (depth 6k + 2; three stages of k blocks, of width, 2 width and 4 width
channels; shortcuts without parameters), with GroupNorm (Wu and He 2018, 1803.08494) in place of BatchNorm, whose
statistics would be a state that workers do not exchange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from dopt.problems.base import Shards, problem
from dopt.problems.networks import EVALUATED, check_groups, image_network
from dopt.registry import Depth, Width
from dopt.types import InputError, Problem

if TYPE_CHECKING:
    from flax import linen as nn


def residual(blocks: int, width: int, groups: int, classes: int) -> nn.Module:
    """[batch, side, side, channels] -> logits [batch, classes]; so many blocks in each stage."""
    from flax import linen as nn

    def convolved(x: jax.Array, channels: int, stride: int = 1) -> jax.Array:
        return nn.GroupNorm(groups)(nn.Conv(channels, (3, 3), strides=stride, use_bias=False)(x))

    class Residual(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = nn.relu(convolved(x, width))
            for stage in range(3):
                for block in range(blocks):
                    channels, stride = width * 2**stage, 2 if stage and not block else 1
                    inner = convolved(nn.relu(convolved(x, channels, stride)), channels)
                    short = x[:, ::stride, ::stride]
                    x = nn.relu(inner + jnp.pad(short, ((0, 0),) * 3 + ((0, channels - short.shape[-1]),)))
            return nn.Dense(classes)(x.mean((1, 2)))

    return Residual()


@problem(source="He et al. 2016, 1512.03385, with GroupNorm, 1803.08494 (flax)", data="digits", eval_samples=EVALUATED)
def resnet(
    shards: Shards,
    workers: int,
    *,
    depth: Depth = 8,
    width: Width = 16,
    groups: int = 8,
    l2: float = 0.0,
    weighted: bool = False,
) -> Problem:
    """A residual network with GroupNorm on square images: for CIFAR-10 and a GPU.

    Args:
      depth: layers, 6k + 2: 8, 14, 20, ...
      width: channels of the first stage.
      groups: of GroupNorm.
      l2: of all parameters.
      weighted: weigh worker i by its number of samples in f.
    """
    if depth < 8 or depth % 6 != 2:
        raise InputError(f"problem.depth: must be 6k + 2, got {depth}; use {max(8, (depth - 2) // 6 * 6 + 2)}")
    if width < 1:
        raise InputError(f"problem.width: must be at least 1, got {width}")
    if groups < 1:
        raise InputError(f"problem.groups: must be at least 1, got {groups}")
    check_groups(groups, (width,))
    module = residual((depth - 2) // 6, width, groups, shards.classes)
    return image_network(module, shards, l2, weighted, least=4)
