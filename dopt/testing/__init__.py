"""The conformance suite: what every method, topology, law, ... must hold, dopt's own and anybody's. It needs no pytest.

`dopt test-plugin FILE` runs it on what a file registers; in a test of one's own,

    import dopt.testing

    def test_my_method_conforms():
        dopt.testing.check("method", "my_method")

`checks(kind, name)` says what is held, one thing after the other. Each fails with one line (`Failed`).
"""

from dopt.testing.methods import Special
from dopt.testing.runs import Failed, agree, compilations, least_squares, models, permuted, same, vector
from dopt.testing.suite import KINDS, Held, check, checks, held, registered, wrong

__all__ = [
    "KINDS",
    "Failed",
    "Held",
    "Special",
    "agree",
    "check",
    "checks",
    "compilations",
    "held",
    "least_squares",
    "models",
    "permuted",
    "registered",
    "same",
    "vector",
    "wrong",
]
