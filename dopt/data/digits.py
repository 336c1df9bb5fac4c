"""Handwritten digits, 8 x 8 pixels, that come with scikit-learn: 1797 samples, 64 features in [0, 1], 10 classes.

Every fifth sample is held out. Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998
(its test part).
"""

from __future__ import annotations

import numpy as np

from dopt.data.base import SETS, Dataset, samples


@SETS.register(source="scikit-learn load_digits; UCI Optical Recognition of Handwritten Digits, 1998", kind="classes")
def digits() -> Dataset:
    """8 x 8 digits, 10 classes: 1438 samples to train, every fifth (359) held out."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]

    x, y = load_digits(return_X_y=True)
    held_out = np.arange(len(y)) % 5 == 4
    return Dataset(samples(x[~held_out] / 16, y[~held_out]), samples(x[held_out] / 16, y[held_out]), 10)
