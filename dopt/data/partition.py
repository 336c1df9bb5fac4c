"""Who owns which samples: labels [N] and a number of workers -> one array of sample indices per worker.

Every sample belongs to exactly one worker and no worker is empty. `shard` then cuts the samples themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from dopt.registry import Registry, Seed
from dopt.types import InputError

PARTITIONS = Registry("partition")
DRAWS = 100  # of Dirichlet shares, before we say that some worker will always be empty


def _count(labels: np.ndarray, workers: int) -> int:
    """N, if it is enough for all workers."""
    if not 1 <= workers <= len(labels):
        raise InputError(f"workers: must be between 1 and the number of samples, {len(labels)}; got {workers}")
    return len(labels)


def _classes(labels: np.ndarray, workers: int, name: str) -> None:
    """Refuse samples whose target is no class, as those of text."""
    _count(labels, workers)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(f"partition: these samples have no class, got {name}, which needs one; use iid or contiguous")


@PARTITIONS.register(source="uniform random split")
def iid(labels: np.ndarray, workers: int, *, seed: Seed = 0) -> list[np.ndarray]:
    """A random permutation in near-equal pieces: all workers see the same distribution."""
    order = np.random.default_rng(seed).permutation(_count(labels, workers))
    return np.array_split(order, workers)


@PARTITIONS.register(source="the order of the file")
def contiguous(labels: np.ndarray, workers: int) -> list[np.ndarray]:
    """Near-equal pieces in the order of the data set."""
    return np.array_split(np.arange(_count(labels, workers)), workers)


@PARTITIONS.register(source="McMahan et al. 2017, arXiv:1602.05629, section 3, with one piece per worker")
def by_label(labels: np.ndarray, workers: int) -> list[np.ndarray]:
    """Samples sorted by label in near-equal pieces: as heterogeneous as equal sizes allow."""
    _classes(labels, workers, "by_label")
    return np.array_split(np.argsort(labels, kind="stable"), workers)


@PARTITIONS.register(
    source="Hsu et al. 2019, arXiv:1909.06335; per class as in Yurochkin et al. 2019, arXiv:1905.12022"
)
def dirichlet(labels: np.ndarray, workers: int, *, alpha: float, seed: Seed = 0) -> list[np.ndarray]:
    """Each class is shared out in proportions ~ Dir(alpha): large alpha is iid, small alpha one class per worker.

    Hsu et al. draw class proportions for each worker, which leaves samples over or runs out of them; dopt draws worker
    proportions for each class (Yurochkin et al.), so that every sample is used once and the sizes differ. Drawn again
    until no worker is empty.
    """
    _classes(labels, workers, "dirichlet")
    if not (alpha > 0 and math.isfinite(alpha)):
        raise InputError(
            f"partition.alpha: must be positive and finite, got {alpha}; 0.1 is heterogeneous, 100 nearly iid"
        )
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for _ in range(DRAWS):
        parts = _share_out(members, rng.dirichlet(np.full(workers, alpha), size=len(members)), rng)
        if all(len(part) for part in parts):
            return parts
    raise InputError(
        f"partition.alpha: {DRAWS} draws with alpha {alpha} all left one of {workers} workers without a sample "
        f"(of {len(labels)}); raise alpha or use fewer workers"
    )


def _share_out(members: Sequence[np.ndarray], shares: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Class k's `members[k]`, shuffled and cut in proportions `shares[k]` ([classes, workers]), joined per worker."""
    pieces = [
        np.split(rng.permutation(own), (np.cumsum(share)[:-1] * len(own)).astype(int))
        for own, share in zip(members, shares, strict=True)
    ]
    # sorted, so that a pass in order does not see one class after the other
    return [np.sort(np.concatenate(of_worker)) for of_worker in zip(*pieces, strict=True)]


def shard(train: Mapping[str, np.ndarray], parts: Sequence[np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Cut samples for the workers.

    Args:
      train: leaves [N, ...].
      parts: per worker the indices of its samples.

    Returns:
      (data, counts): leaves [workers, max samples, ...], padded with zeros; true samples [workers] int32.
    """
    counts = np.array([len(part) for part in parts], np.int32)
    data = {}
    for name, leaf in train.items():
        data[name] = np.zeros((len(parts), np.max(counts), *leaf.shape[1:]), leaf.dtype)
        for row, part in zip(data[name], parts, strict=True):
            row[: len(part)] = leaf[part]
    return data, counts
