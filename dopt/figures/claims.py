"""Claims: what a figure says, what was measured, and whether it holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

COLUMNS = ("claim", "expected", "measured", "tolerance", "verdict")
WIDER = math.sqrt(10)  # what a tenth of the seeds does to a standard error
SLACK = 0.1  # and to a bound that has no tolerance of its own


@dataclass(frozen=True)
class Claim:
    """A statement, what it says, and what was measured.

    Attributes:
      sense: "=", "<=" or ">=": how the measured value must lie to the expected one; words must be equal.
      tolerance, absolute: what it may miss, as a share of the expected value, and in its unit.
      differs: why our run does not show it, where it does not; it is then an error if it does.
      never: the measured value may be infinite, which means "never reached"; without it nothing infinite holds.
      null: what would be measured if it were not so; a claim so wide that it would hold then, too, says nothing.
    """

    statement: str
    expected: Any
    measured: Any
    sense: str = "="
    tolerance: float = 0.0
    absolute: float = 0.0
    differs: str = ""
    never: bool = False
    null: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the measured value is as the claim says; what is not a number never is, nor what is infinite by accident."""
        if not _number(self.expected):
            return bool(self.measured == self.expected)
        if not _number(self.measured) or math.isnan(self.measured):
            return False
        if not (math.isfinite(self.measured) and math.isfinite(self.expected)):
            reached = self.measured != math.inf
            return self.never and not reached and (self.sense == ">=" or self.expected == math.inf)
        miss = float(self.measured) - float(self.expected)
        room = self.absolute + self.tolerance * abs(self.expected)
        return bool({"=": abs(miss), "<=": miss, ">=": -miss}[self.sense] <= room)

    @property
    def right(self) -> bool:
        """Whether it is as the figure's file says: holds, or is known not to."""
        return self.holds != bool(self.differs)

    @property
    def verdict(self) -> str:
        """In words."""
        if self.differs:
            return "holds after all" if self.holds else "not reproduced"
        return "holds" if self.holds else "fails"

    @property
    def may_miss(self) -> str:
        """The tolerance in words."""
        parts = [f"{100 * self.tolerance:.3g} %"] * bool(self.tolerance) + [f"{self.absolute:.3g}"] * bool(
            self.absolute
        )
        return "±" + " ±".join(parts) if parts else "-"

    @property
    def says(self) -> str:
        """What is expected, in words."""
        said = f"{'' if self.sense == '=' else self.sense + ' '}{short(self.expected)}"
        return f"{said} or never" if self.never and self.expected != math.inf else said

    @property
    def row(self) -> tuple[str, ...]:
        """What tables say of it, under `COLUMNS`."""
        return self.statement, self.says, short(self.measured), self.may_miss, self.verdict

    @property
    def can_fail(self) -> bool:
        """Whether it would if it were not so: at `null`; where none is given, at half and at twice an expected value."""
        if self.null is not None:
            wrong: tuple[float, ...] = (self.null,)
        elif _number(self.expected) and self.expected != 0 and self.sense == "=":
            wrong = self.expected / 2, 2 * self.expected
        else:
            wrong = ()
        return not any(replace(self, measured=value).holds for value in wrong)

    def widened(self) -> Claim | None:
        """As it can be asked of a tenth of the seeds; None: not at all, since so wide it could not fail any more."""
        if not _number(self.expected):
            return self
        bare = self.sense != "=" and not (self.tolerance or self.absolute)
        wide = replace(self, tolerance=SLACK if bare else WIDER * self.tolerance, absolute=WIDER * self.absolute)
        return wide if wide.can_fail else None


def _number(x: Any) -> bool:
    return isinstance(x, int | float | np.number) and not isinstance(x, bool | np.bool_)


def short(x: Any) -> str:
    """A value as tables of claims write it: four digits; what is infinite was never reached."""
    if not _number(x):
        return str(x)
    return "never" if x == math.inf else f"{float(x):.4g}"


def over(a: float, b: float) -> float:
    """a/b of costs that may be infinite (never reached): infinite where only a is; NaN, for which nothing holds, where b is."""
    return float(a) / float(b) if math.isfinite(b) else math.nan


def of_fewer(claims: Sequence[Claim]) -> list[Claim]:
    """Claims as they can be asked of a tenth of the seeds."""
    return [wide for claim in claims if (wide := claim.widened()) is not None]
