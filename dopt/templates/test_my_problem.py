"""my_problem is solved by gradient descent, and its optimum is the one that it says."""

import my_problem  # noqa: F401  registers it
import numpy as np

import dopt


def test_gradient_descent_finds_the_optimum_that_it_says() -> None:
    run = dopt.Run(algorithm="allreduce_sgd", workers=4, learning_rate=0.1, steps=200, problem="my_problem")
    found = dopt.run(run).history["suboptimality"]
    assert found[0] > 1
    np.testing.assert_allclose(found[-1], 0, atol=1e-5)


def test_its_steepness_is_an_option() -> None:
    run = dopt.Run(
        algorithm="allreduce_sgd",
        workers=4,
        learning_rate=0.1,
        steps=1,
        problem="my_problem",
        options={"problem.steep": 2.0},
    )
    middle = np.linspace(-1, 1, 4)
    np.testing.assert_allclose(dopt.run(run).history["loss"][0], np.mean((1 - middle) ** 2) + 0.5, rtol=1e-5)
