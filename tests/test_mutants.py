"""Claims and their mutants: a claim can fail, nothing holds by accident, and each figure has a mutant. `make mutants` runs them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from mutants.catalogue import MUTANTS
from mutants.patches import Mutant

from dopt.figures import Claim, claims
from dopt.figures import files as figures

FOLDER = Path(__file__).parents[1] / "paper_figs"
NAMES = sorted(figures.available(FOLDER))


@pytest.mark.parametrize("name", NAMES)
def test_each_figure_has_a_mutant(name: str) -> None:
    assert any(mutant.figure == name for mutant in MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.figure}: {mutant.wrong}")
def test_a_mutant_is_made_and_undone_and_touches_sweeps_that_there_are(mutant: Mutant) -> None:
    assert set(mutant.parts or ()) <= set(figures.find(mutant.figure, FOLDER).SWEEPS)
    assert mutant.size in figures.SIZES
    with mutant.patch():
        pass


@pytest.mark.parametrize("sense", ["=", "<=", ">="])
@pytest.mark.parametrize("measured", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_holds_only_where_a_claim_says_that_it_may_never_be_reached(
    sense: str, measured: float
) -> None:
    claim = Claim("", 2.0, measured, sense, tolerance=0.5)
    assert not claim.holds
    assert dataclasses.replace(claim, never=True).holds is (sense == ">=" and measured == math.inf)


def test_a_cost_over_one_that_was_never_reached_is_no_number() -> None:
    assert math.isnan(claims.over(1.0, math.inf))
    assert math.isnan(claims.over(math.inf, math.inf))
    assert claims.over(math.inf, 2.0) == math.inf
    assert claims.over(1.0, 2.0) == 0.5


@pytest.mark.parametrize(
    ("claim", "kept"),
    [
        (Claim("", 30, 31, tolerance=0.1), True),
        (Claim("", 30, 31, tolerance=0.3), False),  # ±95 % of a tenth of the seeds
        (Claim("", 1, 1, absolute=0.1), True),
        (Claim("", 1, 1, absolute=0.2), False),
        (Claim("", 2, 3, ">=", null=1), True),
        (Claim("", 1.05, 3, ">=", null=1), False),
        (Claim("", 0.04, 0.05, tolerance=1, null=1), True),
        (Claim("", 0, 0.01, absolute=0.1), True),
        (Claim("", "ring", "ring"), True),
    ],
)
def test_of_fewer_seeds_a_claim_is_kept_iff_it_can_still_fail(claim: Claim, kept: bool) -> None:
    wide = claim.widened()
    assert (wide is not None) is kept
    assert claims.of_fewer([claim]) == ([wide] if kept else [])
    if wide is not None and claim.null is not None:
        assert not dataclasses.replace(wide, measured=claim.null).holds
