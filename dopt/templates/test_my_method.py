"""my_method is gossip SGD where it goes all the way, and sends as much."""

import my_method  # noqa: F401  registers it
import numpy as np
import pytest

import dopt


def history(algorithm: str, **options: float) -> dict[str, np.ndarray]:
    """The records of a short run."""
    given = {f"algorithm.{name}": value for name, value in options.items()} | {"problem.dim": 3}
    run = dopt.Run(algorithm=algorithm, workers=4, learning_rate=0.1, steps=10, problem="quadratic", options=given)
    return dopt.run(run).history


def test_all_the_way_it_is_gossip_sgd() -> None:
    mine, known = history("my_method", part=1.0), history("gossip_sgd")
    for name in ("loss", "consensus_distance", "bytes_sent"):
        np.testing.assert_allclose(mine[name], known[name], rtol=1e-4, atol=1e-6)


def test_no_part_is_refused() -> None:
    with pytest.raises(dopt.InputError, match=r"algorithm\.part"):
        history("my_method", part=0.0)
