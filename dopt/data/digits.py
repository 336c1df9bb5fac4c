"""Handwritten digits, 8 x 8 pixels, that come with scikit-learn: 1797 samples, 64 features in [0, 1], 10 classes.

Every fifth sample is held out. Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998
(its test part).
"""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from dopt.data.base import SETS, Dataset, samples
from dopt.data.files import unpack
from dopt.types import InputError


@SETS.register(source="scikit-learn load_digits; UCI Optical Recognition of Handwritten Digits, 1998", kind="classes")
def digits() -> Dataset:
    """8 x 8 digits, 10 classes: 1438 samples to train, every fifth (359) held out."""
    x, y = np.split(_table(), [64], axis=1)
    y = y[:, 0].astype(np.int64)
    held_out = np.arange(len(y)) % 5 == 4
    return Dataset(samples(x[~held_out] / 16, y[~held_out]), samples(x[held_out] / 16, y[held_out]), 10)


def _table() -> np.ndarray:
    """[samples, 65]: pixels and the digit, from scikit-learn's own file: its import would take most of a second in each process."""
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise InputError("data: digits come with scikit-learn, which is not installed; pip install scikit-learn")
    file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    return np.loadtxt(io.BytesIO(unpack(file)), delimiter=",")
