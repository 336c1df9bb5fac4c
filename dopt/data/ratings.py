"""Synthetic ratings: a matrix of low rank with noise, of which each user shows a few entries.

r[u, i] = p_u · q_i / √rank + a_u + c_i + noise, all normal with standard deviation 1, a and c with 1/2. Each user rates as many items, drawn
without replacement; a tenth of them, at least one, is held out. Samples go user by user, so that `contiguous` gives whole users to
the workers if the number of workers divides that of users.
"""

from __future__ import annotations

import math

import numpy as np

from dopt.data.base import SETS, Dataset, at_least, frozen
from dopt.registry import Seed
from dopt.types import InputError


@SETS.register(
    source="synthetic: low rank plus noise, as in Koren, Bell and Volinsky 2009",
    kind="ratings",
    bytes=lambda users, items, rank, **_: 16 * users * items + 16 * rank * (users + items),
)
def ratings(
    *, users: int = 256, items: int = 128, rank: int = 4, density: float = 0.1, noise: float = 0.1, seed: Seed = 0
) -> Dataset:
    """Synthetic ratings of items by users: low rank plus noise; a tenth of each user's ratings is held out.

    Args:
      users, items: how many there are.
      rank: of the matrix without its biases.
      density: share of the items that each user rates.
      noise: standard deviation of what is added to each rating.
      seed: of all that is drawn.
    """
    at_least(users=(users, 1), items=(items, 2), rank=(rank, 1))
    rated = round(density * items) if 0 < density <= 1 else 0
    if rated < 2:
        raise InputError(
            f"data.density: must lie in (0, 1] and give each user two of items={items} at least, got {density}; use {2 / items:g} or more"
        )
    if not 0 <= noise < math.inf:
        raise InputError(f"data.noise: must be finite and not negative, got {noise}")
    if seed < 0:
        raise InputError(f"data.seed: must not be negative, got {seed}")
    rng = np.random.default_rng(seed)
    full = rng.standard_normal((users, rank)) @ rng.standard_normal((rank, items)) / math.sqrt(rank)
    full += 0.5 * rng.standard_normal((users, 1)) + 0.5 * rng.standard_normal(items)
    full += noise * rng.standard_normal((users, items))
    item = np.argsort(rng.random((users, items)), 1)[:, :rated]
    user = np.broadcast_to(np.arange(users)[:, None], item.shape)
    held_out = max(1, rated // 10)

    def part(columns: slice) -> dict[str, np.ndarray]:
        x = np.stack([user[:, columns].ravel(), item[:, columns].ravel()], 1)
        return frozen(x=x, y=full[x[:, 0], x[:, 1]])

    return Dataset(part(slice(held_out, None)), part(slice(held_out)), 0)
