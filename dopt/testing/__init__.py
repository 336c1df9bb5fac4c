"""The conformance suite: the checks that every method, topology, law, ... must pass, dopt's own and yours. It needs no pytest.

`dopt test-plugin FILE` runs it on what a file registers; in your own tests,

    import dopt.testing

    def test_my_method_conforms():
        dopt.testing.check("method", "my_method")

`checks(kind, name)` gives the single checks. Each fails with one line (`Failed`).
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
