"""Two clouds in the plane, one for each class.

A data set that is read from files names them by `files=lambda **options: (path, ...)` beside `kind`: their content is part of a run's id.
"""

import numpy as np

import dopt
from dopt.data import Dataset


# kind: what a sample is, and so which problems learn from it: "classes", "text" or "ratings"
@dopt.register.data(kind="classes", source="where the data are from")
def my_data(*, samples: int = 200, apart: float = 4.0, seed: int = 0) -> Dataset:
    """The first line is what `dopt list` says.

    Args:
      samples: options are keyword-only parameters, here data.samples; their type annotations are checked.
      apart: distance of the clouds' middles.
      seed: of the draws.
    """
    draws = np.random.default_rng(seed)
    y = np.arange(samples) % 2
    x = draws.standard_normal((samples, 2)) + apart * (y[:, None] - 0.5) / np.sqrt(2)
    held_out = np.arange(samples) % 5 == 4

    def part(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"x": x[rows], "y": y[rows].astype(np.int32)}

    return Dataset(part(~held_out), part(held_out), classes=2)
