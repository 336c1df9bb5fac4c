"""What a run's method exchanges."""

from __future__ import annotations

from dopt.algorithms import ALGORITHMS
from dopt.algorithms.traits import Exchange, MatrixKind, Traits, matrix_kind
from dopt.config.run import Resolved, options_of


def traits_of(run: Resolved) -> Traits:
    """What the harness knows of a run's method."""
    return ALGORITHMS[run.algorithm].traits


def exchange_of(run: Resolved) -> tuple[Exchange, ...]:
    """What a run's method exchanges, with its options."""
    return traits_of(run).exchange(options_of(run, "algorithm"), run.workers)


def needs_of(run: Resolved) -> MatrixKind | None:
    """The kind of mixing matrix that a run's method asks for."""
    return matrix_kind(exchange_of(run))
