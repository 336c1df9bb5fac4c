"""Sweeps on real clusters that tests start on this machine. `make cluster` runs them; DOPT_REQUIRE=slurm,ray fails where one cannot start."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def require(what: str, reason: str) -> NoReturn:
    """Leave a test out for the lack of something; where DOPT_REQUIRE names it, fail.

    Args:
      what: what is lacking, as `slurm`.
      reason: how that shows.
    """
    if what in os.environ.get("DOPT_REQUIRE", "").split(","):
        pytest.fail(f"DOPT_REQUIRE names {what}: {reason}")
    pytest.skip(reason)
