"""The page as one HTML text: sections, their figures and data, Bokeh itself, and our scripts and style, all of it inline.

The page's policy lets run only the scripts that it came with, by their digests, and lets nothing be fetched: names that users give are
escaped where they stand in HTML, and could run nothing and ask nobody even if they were not.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from importlib.resources import files

import numpy as np

from dopt.page import clocks, curves, heat, overlays, question, source, topologies, tuned
from dopt.page.material import Material
from dopt.page.payload import Arrays, encoded
from dopt.page.section import Section
from dopt.report.formats import is_missing
from dopt.sweeps.cells import cost

SCRIPTS = (
    "data.js",
    "statistics.js",
    "parts.js",
    "legend.js",
    "curves.js",
    "heat.js",
    "topologies.js",
    "clocks.js",
    "tables.js",
    "start.js",
)
HIDDEN = ("sweep",)  # columns that are this page's where there is one sweep


def made(material: Material) -> bytes:
    """The page, in UTF-8."""
    arrays = Arrays()
    theory = overlays.found(material)
    drawn = curves.section(material, arrays, theory)
    sections = [
        question.section(material),
        heat.section(material),
        drawn,
        tuned.section(material),
        topologies.section(material),
        clocks.section(material),
    ]
    sections.append(source.section(material, _error(drawn)))
    return _page(material, sections, arrays).encode(errors="replace")


def _error(drawn: Section) -> float:
    records = drawn.data["records"]
    assert isinstance(records, dict)
    return max(column["error"] for column in records["columns"].values())


def _page(material: Material, sections: list[Section], arrays: Arrays) -> str:
    from bokeh.embed import json_item
    from bokeh.resources import Resources

    names = ", ".join(one.name for one in material.sweeps)
    figures = {name: json_item(model, target=name) for section in sections for name, model in section.figures.items()}
    content = {"runs": _runs(material), **_described(material), **{s.name: dict(s.data) for s in sections if s.data}}
    bokeh = Resources(mode="inline", components=["bokeh"]).js_raw[0]
    ours = '"use strict";\n(() => {\n' + "\n".join(map(_static, SCRIPTS)) + "\n})();\n"
    body = "\n".join(f'<section id="{s.name}"><h2>{escape(s.title)}</h2>{s.body}</section>' for s in sections)
    links = "".join(f'<a href="#{s.name}">{escape(s.title)}</a>' for s in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_policy(bokeh, ours)}">
<title>{escape(names)}: report</title>
<style>{_static("page.css")}</style>
</head>
<body>
<header><h1>{escape(names)}</h1><button type="button" id="theme">Theme: as the system</button></header>
<nav aria-label="sections">{links}</nav>
<noscript><p>The figures of this page need JavaScript, which is off. All tables and text are shown without it.</p></noscript>
<p class="warning" id="trouble" hidden></p>
<main>
{body}
</main>
<script type="application/json" id="figures">{_inert(json.dumps(figures))}</script>
<script type="text/plain" id="content">{encoded(content, arrays)}</script>
<script>{bokeh}</script>
<script>{ours}</script>
</body>
</html>
"""


def _policy(*scripts: str) -> str:
    """What the browser allows: these scripts, the page's own style, pictures that are in it, and nothing from elsewhere."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    runs = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {runs}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"


def _static(name: str) -> str:
    return files("dopt.page").joinpath("static", name).read_text(encoding="utf-8")


def _inert(text: str) -> str:
    """JSON that ends no script."""
    return text.replace("<", "\\u003c")


# -- what all sections read --


def _described(material: Material) -> dict[str, object]:
    first = material.sweeps[0]
    varied = [name for name in material.varied if material.runs[name].astype(str).nunique() > 1]
    return {
        "varied": varied,
        "metric": first.metric.get("name", "loss"),
        "target": first.metric.get("target"),
        "highest": first.metric.get("goal") == "maximize",
        "cost": f"{cost(first)} to the target",
    }


def _runs(material: Material) -> dict[str, list[object]]:
    """The columns of the runs: of all, what a reader of the CSV wants."""
    left = [name for name in HIDDEN if len(material.sweeps) == 1]
    return {str(name): [_plain(x) for x in material.runs[name].tolist()] for name in material.runs if name not in left}


def _plain(value: object) -> object:
    """A cell as JSON has it: what is missing is null, infinity is a word, a list is text."""
    if is_missing(value):
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else str(float(value))
    return json.dumps(value) if isinstance(value, tuple | list) else str(value)
