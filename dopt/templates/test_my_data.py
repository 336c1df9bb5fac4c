"""my_data is the same each time, and can be learned."""

import my_data
import numpy as np

import dopt


def test_the_same_options_give_the_same_samples() -> None:
    first, again = (my_data.my_data(samples=50, seed=3).train for _ in range(2))
    np.testing.assert_array_equal(first["x"], again["x"])
    assert len(first["x"]) == 40


def test_it_can_be_learned() -> None:
    run = dopt.Run(
        algorithm="allreduce_sgd",
        workers=4,
        learning_rate=0.5,
        steps=30,
        problem="softmax",
        data="my_data",
        metrics=("accuracy",),
    )
    assert dopt.run(run).history["accuracy"][-1] > 0.9
