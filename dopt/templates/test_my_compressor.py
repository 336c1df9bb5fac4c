"""my_compressor is a contraction, and methods that compress take it."""

import jax
import my_compressor
import numpy as np

import dopt


def test_it_is_a_contraction_that_sends_less() -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    operator = my_compressor.my_compressor(digits=2)
    message, _ = operator.apply(x, operator.init(x), jax.random.key(0))
    assert np.linalg.norm(message - x) < 0.01 * np.linalg.norm(x)
    assert operator.bits(x) < 32 * x.size


def test_choco_sgd_takes_it() -> None:
    run = dopt.Run(
        algorithm="choco_sgd",
        workers=4,
        learning_rate=0.1,
        steps=10,
        problem="quadratic",
        options={"algorithm.compressor": "my_compressor", "algorithm.digits": 3},
    )
    found = dopt.run(run).history
    assert found["loss"][-1] < found["loss"][0]
