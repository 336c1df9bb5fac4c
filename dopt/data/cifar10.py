"""CIFAR-10: 50000 colour images of 32 x 32 pixels in [0, 1], 10 classes; 10000 more are the test set.

Read from the binary version: a byte for the class, then 1024 for each of red, green and blue, row by row; so a sample has 3072
features, one plane after the other. Either the archive as it is published, or the folder `cifar-10-batches-bin` that it
unpacks to, in DOPT_DATA_DIR; the archive is fetched where neither is there (162 MB). Its page publishes an md5, which is
checked; the sha256 of the first download is recorded as for other sets. Krizhevsky 2009, learning multiple layers of features
from tiny images.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dopt import reading
from dopt.data.base import SETS, Dataset, samples
from dopt.data.files import find, own_folder, place, read_bytes, unpack
from dopt.types import InputError

URL = "https://www.cs.toronto.edu/~kriz/"
ARCHIVE, FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
TRAIN, TEST = [f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"]
IMAGE = 3 * 32 * 32


def _unpacked() -> Path | None:
    """The user's folder of unpacked files, if there is one."""
    own = own_folder()
    folder = own / FOLDER if own else None
    return folder if folder is not None and os.path.isdir(folder) else None


def files() -> tuple[Path, ...]:
    """The unpacked files, or the archive."""
    folder = _unpacked()
    return (place(ARCHIVE),) if folder is None else tuple(folder / name for name in (*TRAIN, *TEST))


@SETS.register(source="Krizhevsky 2009; " + URL + ARCHIVE, kind="classes", files=files, bytes=lambda: 8 * 60000 * 3072)
def cifar10() -> Dataset:
    """CIFAR-10, 3072 features, 10 classes: 50000 samples to train, 10000 held out."""
    folder = _unpacked()
    if folder is not None:
        again = f"; unpack {URL + ARCHIVE} again"
        return _dataset(lambda name: reading.read("data", folder / name, hint=again), folder)
    path = find(ARCHIVE, URL + ARCHIVE, read=_published)
    whole = unpack(path)
    try:
        with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
            # members are read and never unpacked: no path in the archive is trusted
            return _dataset(lambda name: _member(archive, name, path, len(whole)), path)
    except (tarfile.TarError, EOFError, OSError, OverflowError) as error:
        raise InputError(f"data: {path} is truncated or damaged ({error}); delete it to fetch it again") from error


def _published(path: Path) -> bytes:
    """The bytes of an archive, which must be the published ones."""
    content = read_bytes(path)
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != MD5:
        raise InputError(f"data: {path} has md5 {found}, expected {MD5}; delete it to fetch it again")
    return content


def _member(archive: tarfile.TarFile, name: str, path: Path, most: int) -> bytes:
    try:
        info = archive.getmember(f"{FOLDER}/{name}")
    except KeyError:
        info = None
    # a sparse member may say that it is larger than the archive
    member = archive.extractfile(info) if info is not None and info.isreg() and info.size <= most else None
    if member is None:
        raise InputError(f"data: {path} has no file {FOLDER}/{name}; delete it to fetch it again")
    return member.read()


def _dataset(read: Callable[[str], bytes], source: Path) -> Dataset:
    train, test = (_part([(name, read(name)) for name in names], source) for names in (TRAIN, TEST))
    return Dataset(train, test, 10)


def _part(files: list[tuple[str, bytes]], source: Path) -> dict[str, np.ndarray]:
    for name, content in files:
        if not content or len(content) % (1 + IMAGE):
            raise InputError(
                f"data: {name} in {source} must be records of {1 + IMAGE} bytes, got {len(content)} bytes; replace it"
            )
    rows = np.frombuffer(b"".join(content for _, content in files), np.uint8).reshape(-1, 1 + IMAGE)
    most = int(np.max(rows[:, 0]))
    if most > 9:
        raise InputError(f"data: {source} must hold classes 0..9, got {most}; replace it")
    return samples(rows[:, 1:] / 255, rows[:, 0])
