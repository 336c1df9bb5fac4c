"""fᵢ(x) = ½ steep (x₀ - cᵢ)² + ½ x₁²: a valley whose middle cᵢ differs from worker to worker, from -1 to 1.

Write the function here: `dopt show problem my_problem` shows these lines.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dopt


# with data="digits" it learns from data: `shards` holds each worker's part then (dopt.problems.Shards)
@dopt.register.problem(source="where the idea is from")
def my_problem(shards: None, workers: int, *, steep: float = 10.0) -> dopt.Problem:
    """The first line is what `dopt list` says.

    Args:
      steep: options are keyword-only parameters, here problem.steep; their type annotations are checked.
    """
    middle = np.linspace(-1, 1, workers)

    def init(key: Any) -> Any:
        return jnp.ones(2)  # x⁰, from which every worker starts

    def loss(x: Any, batch: Any) -> jax.Array:
        """The mean over a batch of samples, leaves [batch, ...]."""
        return jnp.mean(0.5 * steep * (x[0] - batch["middle"]) ** 2 + 0.5 * x[1] ** 2)

    # leaves [workers, samples, ...]; `optimum` is f*, which "suboptimality" is measured from
    return dopt.Problem(init, loss, {"middle": middle[:, None]}, optimum=float(0.5 * steep * np.mean(middle**2)))
