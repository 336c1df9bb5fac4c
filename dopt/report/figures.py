"""Pictures of sweeps: a figure file holds the sweep it needs, the drawing, and the claims it checks.

A figure file is `FOLDER/NAME.py` with `SWEEP` (a sweep file beside the project's root, or the sweep as data),
`table(results) -> DataFrame` (what is drawn), `draw(results) -> Figure`, and `claims(results) -> list of Claim`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from dopt.registry import did_you_mean
from dopt.report.style import save, style
from dopt.sweep.results import Results
from dopt.sweep.store import slug
from dopt.types import InputError


class Claim(NamedTuple):
    """A statement, what it says, what was measured, and whether it holds."""

    statement: str
    expected: Any
    measured: Any
    tolerance: Any
    holds: bool
    reproduced: bool = True  # False: known not to hold; then it is an error if it does


def available(folder: Path) -> dict[str, Path]:
    """Figure name -> file."""
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


def find(name: str, folder: Path) -> ModuleType:
    """The figure called `name`."""
    known = available(folder)
    if name not in known:
        near = did_you_mean(name, known) if known else "; run it where the folder paper_figs is"
        raise InputError(f"figures: no figure {name!r} in {folder}{near}")
    location = importlib.util.spec_from_file_location(f"dopt_figure_{slug(name)}", known[name])
    if location is None or location.loader is None:
        raise InputError(f"figures: {known[name]} cannot be loaded")
    module = importlib.util.module_from_spec(location)
    sys.modules[location.name] = module
    location.loader.exec_module(module)
    return module


def draw(module: ModuleType, results: Results, name: str) -> list[Path]:
    """Draw a figure into the results' folder: PNG, PDF, and the CSV of what is drawn."""
    stem = results.folder / slug(name)
    with style():
        paths = save(module.draw(results), stem)
    csv = stem.with_name(f"{stem.name}.csv")
    module.table(results).to_csv(csv, index=False)
    return [*paths, csv]
