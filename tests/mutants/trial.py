"""One trial: the claims of a figure, of the right code or of a mutant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dopt.figures import Claim, fill
from dopt.figures import files as figures
from dopt.paths import slug
from dopt.sweeps.show import Show

from .catalogue import MUTANTS

FOLDER = Path(__file__).parents[2] / "paper_figs"
Verdicts = dict[str, bool]  # statement of a claim -> whether it is right


def judge(name: str, size: str, right: Path, number: int | None = None, wrong: Path | None = None) -> Verdicts:
    """The claims of a figure; of the mutant of that number, whose sweeps go to `wrong`, the other sweeps are the figure's own."""
    module = figures.find(name, FOLDER)
    todo = figures.parts(name, module, FOLDER, right, size)
    if number is None or wrong is None:
        results = fill.filled(todo, Show)
        return _verdicts(figures.claims_of(name, module, results, FOLDER, size))
    mutant = MUTANTS[number]
    touched = todo if mutant.parts is None else {part: todo[part] for part in mutant.parts}
    moved = {part: todo[part]._replace(folder=wrong / slug(part)) for part in touched}
    own = fill.filled({part: todo[part] for part in todo if part not in touched}, Show)
    with mutant.patch():
        made = fill.filled(moved, Show)
        results = {part: (own | made)[part] for part in todo}
        return _verdicts(figures.claims_of(name, module, results, FOLDER, size))


def _verdicts(claims: Sequence[Claim]) -> Verdicts:
    return {claim.statement: claim.right for claim in claims}
