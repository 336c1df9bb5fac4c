"""Pictures of figures, and GALLERY.md, which shows all of them with their claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dopt.figures.claims import COLUMNS, Claim
from dopt.files import write, writing
from dopt.paths import slug
from dopt.plot.style import save, style

if TYPE_CHECKING:
    import pandas as pd

    from dopt.sweeps.results import Results

HEAD = """# Gallery

Published figures of the field, rebuilt: the picture, the question, what the paper says against what was measured here, and what
differs. `dopt figures --gallery` writes this file. `dopt figures NAME` runs and draws one of them, and `dopt run --id ID` repeats
the run behind a row of its data.
"""


def draw(module: ModuleType, results: Mapping[str, Results], stem: Path) -> list[Path]:
    """Draw a figure: `stem` with the endings png, pdf, and csv for what is drawn. The same results give the same bytes."""
    with writing("results", stem.parent, "--results"):
        stem.parent.mkdir(parents=True, exist_ok=True)
    with style():
        paths = save(module.draw(results), stem)
    csv = stem.with_name(f"{stem.name}.csv")
    rows: pd.DataFrame = module.table(results)
    write(csv, rows.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    return [*paths, csv]


def file_name(name: str, size: str) -> str:
    """What a figure's files are called at a size."""
    return slug(f"{name}-{size}" if size else name)


def keep(paths: Sequence[Path], folder: Path) -> None:
    """Copy picture and data beside the figure's file."""
    for path in paths:
        if path.suffix in (".png", ".csv"):
            write(folder / path.name, path.read_bytes())


def publish(folder: Path, sections: Sequence[str]) -> Path:
    """Write GALLERY.md: all figures, one after the other."""
    path = folder / "GALLERY.md"
    write(path, HEAD + "\n" + "\n".join(sections))
    return path


def section(name: str, module: ModuleType, claims: Sequence[Claim]) -> str:
    """A figure's part of the gallery, in Markdown."""
    head, _, text = (module.__doc__ or "").strip().partition("\n")
    text = text.strip().replace("Differs:", "**Differs:**")
    lines = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in [COLUMNS, *(c.row for c in claims)]
    ]
    table = "\n".join([lines[0], "|---" * len(COLUMNS) + "|", *lines[1:]])
    whys = [f"**Not reproduced: {c.statement}.** {c.differs}" for c in claims if c.differs]
    picture = f"![{name}]({name}.png)\n\nData: [{name}.csv]({name}.csv)"
    return "\n\n".join(filter(None, [f"## {name}", f"*{head}*", picture, text, table, *whys])) + "\n"
