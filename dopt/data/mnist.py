"""MNIST: 60000 handwritten digits of 28 x 28 pixels in [0, 1], 10 classes; 10000 more (t10k) are the test set.

Read from the four original idx files, packed with gzip. They are fetched from the mirror that PyTorch keeps, since the
original page, yann.lecun.com/exdb/mnist, no longer serves them; copies differ in their packing, so the sha256 is that
of the unpacked bytes. LeCun, Bottou, Bengio and Haffner, Proc. IEEE 86(11), 1998.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from dopt.data.base import SETS, Dataset, samples
from dopt.data.files import find, place, unpack
from dopt.types import InputError

URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"

SHA256 = {  # of the unpacked bytes
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of bytes in an idx .gz file: two zero bytes, type 8, rank, big-endian sizes, then the values."""
    raw = unpack(path)
    start = 4 + 4 * dimensions
    if raw[:4] != bytes([0, 0, 8, dimensions]) or len(raw) < start:
        raise InputError(f"data: {path} is no idx file of bytes with {dimensions} dimensions; replace it")
    shape = struct.unpack(f">{dimensions}I", raw[4:start])
    if len(raw) - start != math.prod(shape):
        raise InputError(
            f"data: {path} is truncated or too long: {shape} needs {math.prod(shape)} values, "
            f"it has {len(raw) - start}; replace it"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def part(name: str) -> dict[str, np.ndarray]:
    """The samples of `train` or `t10k`."""
    files = (f"{name}-images-idx3-ubyte.gz", f"{name}-labels-idx1-ubyte.gz")
    images_path, labels_path = (find(file, URL + file, SHA256[file], unpack) for file in files)
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape != (len(labels), 28, 28):
        raise InputError(f"data: {images_path} must hold {len(labels)} images of 28 x 28, holds {images.shape}")
    if not len(labels):
        raise InputError(f"data: {labels_path} must hold at least one digit; replace it")
    if labels.max(initial=0) > 9:
        raise InputError(f"data: {labels_path} must hold digits 0..9, holds {labels.max()}")
    return samples(images.reshape(-1, 784) / 255, labels)


@SETS.register(
    source="LeCun et al., Proc. IEEE 86(11), 1998; " + URL,
    kind="classes",
    files=lambda: tuple(place(name) for name in SHA256),
    bytes=lambda: 8 * 70000 * 784,
)
def mnist() -> Dataset:
    """MNIST, 784 features, 10 classes: 60000 samples to train, 10000 held out."""
    return Dataset(part("train"), part("t10k"), 10)
