"""Real data by name, and how it is split over workers: `load("a9a")`, then `shard(train, parts)`.

Files are looked for in the folder DOPT_DATA_DIR, then in the cache (DOPT_CACHE_DIR, else the user's), and are fetched
into the cache last. Importing this is cheap: scikit-learn and pooch are imported by the readers that need them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from dopt.data import cifar10, digits, factors, libsvm, mnist, ratings, sparse, text
from dopt.data.base import SETS, Dataset
from dopt.data.partition import PARTITIONS, by_label, contiguous, dirichlet, iid, shard

__all__ = [
    "PARTITIONS",
    "SETS",
    "Dataset",
    "by_label",
    "cifar10",
    "contiguous",
    "digits",
    "dirichlet",
    "factors",
    "iid",
    "libsvm",
    "load",
    "mnist",
    "ratings",
    "shard",
    "sparse",
    "text",
]


@lru_cache(maxsize=4)  # a sweep reads one or two sets, many times; MNIST alone takes 0.4 GB
def load(name: str, **options: Any) -> Dataset:
    """The set registered as `name`; the arrays are shared between callers, and read-only.

    Raises:
      InputError: an unknown name or option, or a file that is missing, damaged or of another content than published.
    """
    entry = SETS[name]
    dataset: Dataset = entry.make(**entry.options(options, "data"))
    return dataset
