"""What some tests need of a machine: DOPT_REQUIRE=slurm,ray,chromium fails where one of these is not there."""

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
