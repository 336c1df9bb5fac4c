"""my_law is a law, and delays what is sent."""

import my_law
import numpy as np
import pytest

import dopt


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_it_is_a_law_with_the_mean_that_it_should_have(share: float) -> None:
    table = my_law.my_law(max=8, share=share)
    assert (table >= 0).all()
    np.testing.assert_allclose(table.sum(), 1)
    np.testing.assert_allclose(table @ np.arange(9), 8 * share)


def test_delayed_methods_take_it() -> None:
    run = dopt.Run(
        algorithm="delayed_gossip_sgd",
        workers=4,
        learning_rate=0.05,
        steps=10,
        problem="quadratic",
        delay="my_law",
        options={"delay.max": 3, "delay.share": 0.5},
    )
    assert np.isfinite(dopt.run(run).history["loss"]).all()
