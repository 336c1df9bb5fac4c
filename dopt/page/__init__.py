"""The report page: sweeps in one HTML file that asks nobody for anything, and that a reader can turn about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dopt import extras
from dopt.files import write as written
from dopt.files import writing

if TYPE_CHECKING:
    from dopt.sweeps.results import Results


def write(path: str | Path, *sweeps: str | Path | Results) -> Path:
    """Write the page of finished sweeps, and return its path.

    Args:
      path: of the HTML file.
      sweeps: results folders, or what `dopt.load` gave; parts of one sweep that lie in several folders are one.

    Raises:
      InputError: a folder holds no sweep, nothing is finished, there is more than a page takes, or Bokeh is not installed.
      MachineError: records are damaged, or the file cannot be written.
    """
    extras.need("bokeh", "report: the page")
    from dopt.page import document, material
    from dopt.sweeps.results import Results, load

    loaded = [one if isinstance(one, Results) else load(one) for one in sweeps]
    made = document.made(material.gathered(loaded))
    with writing("out", path, "--out"):
        written(path, made)
    return Path(path)


__all__: Sequence[str] = ("write",)
