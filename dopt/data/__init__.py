"""Real data by name, and how it is split over workers: `load("a9a")`, then `shard(train, parts)`.

Files are looked for in the folder DOPT_DATA_DIR, then in the cache (DOPT_CACHE_DIR, else the user's), and are fetched
into the cache last. Importing this is cheap: scikit-learn and pooch are imported by the readers that need them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from dopt import code
from dopt.data import cifar10, digits, factors, libsvm, mnist, ratings, sparse, text
from dopt.data.base import SETS, Dataset
from dopt.data.files import unpack
from dopt.data.partition import PARTITIONS, by_label, contiguous, dirichlet, iid, shard
from dopt.files import digest as file_digest
from dopt.registry import Entry

__all__ = [
    "PARTITIONS",
    "SETS",
    "Dataset",
    "by_label",
    "cifar10",
    "contiguous",
    "digest",
    "digits",
    "dirichlet",
    "factors",
    "iid",
    "libsvm",
    "load",
    "mnist",
    "paths",
    "ratings",
    "shard",
    "sparse",
    "text",
]


def load(name: str, **options: object) -> Dataset:
    """The set registered as `name`; the arrays are shared between callers, and read-only.

    Raises:
      InputError: an unknown name or option, or a file that is missing, damaged or of another content than published.
    """
    entry = SETS[name]
    chosen = tuple(entry.options(options, "data").items())
    return _load(entry.make, chosen, _content(_paths(entry, chosen)), code.version(entry.make))


def digest(name: str, **options: object) -> str:
    """Digest of a set: of the bytes of its files, or of its arrays where it lies in none.

    Raises:
      InputError: as `load`.
    """
    entry = SETS[name]
    chosen = tuple(entry.options(options, "data").items())
    paths = _paths(entry, chosen)
    if not all(map(_file_content, paths)):
        load(name, **options)  # fetches them, or says why not
    return _content(paths) if paths else _arrays(name, entry.make, chosen, code.version(entry.make))


def paths(name: str, **options: object) -> tuple[Path, ...]:
    """The files that a set reads; of one that lies in none, nothing."""
    entry = SETS[name]
    return _paths(entry, tuple(entry.options(options, "data").items()))


def _paths(entry: Entry, options: tuple[tuple[str, Any], ...]) -> tuple[Path, ...]:
    return entry.traits["files"](**dict(options)) if "files" in entry.traits else ()


def _content(paths: tuple[Path, ...]) -> str:
    """Digest of files' bytes, and of which are there."""
    found = [(path.name, _file_content(path)) for path in paths]
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _file_content(path: Path) -> str:
    """Digest of a file, unpacked where packing differs from copy to copy; nothing of one that its reader cannot read, and says why."""
    try:
        content = file_digest(path)
        packed = path.suffix == ".gz" and not path.name.endswith(".tar.gz")
        return _unpacked(path, content) if packed else content
    except (OSError, ValueError):
        return ""


@lru_cache(maxsize=64)
def _unpacked(path: Path, content: str) -> str:
    return hashlib.sha256(unpack(path)).hexdigest()


@lru_cache(maxsize=4)  # a sweep reads one or two sets, many times; MNIST alone takes 0.4 GB
def _load(make: Callable[..., Dataset], options: tuple[tuple[str, Any], ...], content: str, version: str) -> Dataset:
    return make(**dict(options))


load.cache_clear = _load.cache_clear  # type: ignore[attr-defined]


@lru_cache(maxsize=4096)
def _arrays(name: str, make: Callable[..., Dataset], options: tuple[tuple[str, Any], ...], version: str) -> str:
    found, said = load(name, **dict(options)), hashlib.sha256()
    for part in (found.train, found.test or {}):
        for leaf, array in sorted(part.items()):
            said.update(f"{leaf} {array.dtype} {array.shape}".encode())
            said.update(array.data)
    said.update(str(found.classes).encode())
    return said.hexdigest()
