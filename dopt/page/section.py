"""A part of the page: what it says, what it draws, and what its scripts read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bokeh.model import Model


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
      name: a word, under which scripts find its data.
      title: its heading.
      body: HTML, in which all text that users gave is escaped; a figure is drawn where `place` is.
      data: what its script reads.
      figures: name of its place -> what Bokeh draws there.
    """

    name: str
    title: str
    body: str
    data: Mapping[str, object] = field(default_factory=dict)
    figures: Mapping[str, Model] = field(default_factory=dict)


def place(name: str, label: str) -> str:
    """Where a figure is drawn; `label`: what it shows, for who cannot see it."""
    return f'<div class="figure" id="{name}" role="img" aria-label="{escape(label)}"></div>'


def paragraph(text: str, kind: str = "") -> str:
    """Text that stands alone."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], label: str) -> str:
    """A table to read, which can be scrolled sideways where the page is narrow."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}"><table>{top}<tbody>{body}</tbody></table></div>'
