"""The section of the tuned table: a row for each cell, at its best rate; it sorts, filters, and marks rates at the edge of their grid."""

from __future__ import annotations

from html import escape

import pandas as pd

from dopt.page.material import Material
from dopt.page.section import Section, paragraph
from dopt.report import formats
from dopt.report.terminal import summarized
from dopt.sweeps.results import Results

MOST = 2000  # rows
EDGE = "grid edge"


def section(material: Material) -> Section:
    """The section, sweep by sweep."""
    parts = [
        _part(number, one, cells)
        for number, (one, cells) in enumerate(zip(material.sweeps, material.cells, strict=True))
    ]
    return Section("tuned", "Tuned: the best rate of each cell", "".join(parts))


def _part(number: int, one: Results, cells: pd.DataFrame) -> str:
    title, shown = summarized(one, cells)
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(str(name))}</button></th>' for name in shown
    )
    names = [str(name) for name in shown]
    rows = zip(*(shown[name].head(MOST).tolist() for name in shown), strict=True)
    body = "".join(_row(row, names) for row in rows)
    more = paragraph(f"The first {MOST} of {len(shown)} cells are shown.", "said") if len(shown) > MOST else ""
    at_edge = int(cells["edge"].sum())
    note = f"{at_edge} of {len(cells)} cells have their best rate at the edge of the grid: a larger grid may do better."
    return (
        f'<div class="sortable">{paragraph(title, "said")}{paragraph(note, "said") if at_edge else ""}{more}'
        f'<div class="controls"><label for="tuned-filter-{number}">Rows with<input id="tuned-filter-{number}" class="filter" type="search" placeholder="ring 0.1"></label>'
        f'<span class="said count" aria-live="polite"></span></div>'
        f'<div class="wide" tabindex="0" role="region" aria-label="tuned cells of {escape(one.name)}"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></div>'
    )


def _row(values: tuple[object, ...], names: list[str]) -> str:
    cells = []
    for name, value in zip(names, values, strict=True):
        text = formats.cell(value, name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
        key = f' data-value="{float(value)!r}"' if number and isinstance(value, int | float) else ""
        shown = "not reached" if text == "inf" else text
        cells.append(f"<td{key}>{escape(shown)}</td>")
    edge = ' class="edge"' if EDGE in names and values[names.index(EDGE)] == "edge" else ""
    return f"<tr{edge}>{''.join(cells)}</tr>"
