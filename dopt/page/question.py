"""The first section: what was asked and found, as the comment at the head of the sweep file says, and the file itself."""

from __future__ import annotations

from html import escape

from dopt.page.material import Material
from dopt.page.section import Section, paragraph
from dopt.sweeps.results import Results
from dopt.sweeps.store import Store


def section(material: Material) -> Section:
    """The section, sweep by sweep."""
    texts = [Store(one.folder).text() for one in material.sweeps]
    several = len(material.sweeps) > 1
    parts = [
        _part(number, one, text, several) for number, (one, text) in enumerate(zip(material.sweeps, texts, strict=True))
    ]
    return Section("question", "Question and finding", "".join(parts), {"files": texts})


def _part(number: int, one: Results, text: str, several: bool) -> str:
    said = "".join(map(paragraph, paragraphs(text))) or paragraph("The sweep file has no comment at its head.")
    if not text:
        return paragraph(f"{one.name}: its folder was made by an earlier version of dopt, and has no sweep file.")
    head = f"<h3>{escape(one.name)}</h3>" if several else ""
    return (
        f"{head}{said}<details><summary>The sweep file</summary>"
        f'<button type="button" class="copy" data-file="{number}">Copy the sweep file</button>'
        f'<pre class="wide" tabindex="0" aria-label="sweep file of {escape(one.name)}">{escape(text)}</pre></details>'
    )


def paragraphs(text: str) -> list[str]:
    """The comment block at the head of a file, in paragraphs: lines that begin with # up to the first that does not."""
    found: list[list[str]] = [[]]
    for line in text.split("\n"):
        if not line.startswith("#"):
            break
        words = line.removeprefix("#").strip()
        if words:
            found[-1].append(words)
        elif found[-1]:
            found.append([])
    return [" ".join(lines) for lines in found if lines]
