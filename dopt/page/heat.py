"""The section of the heatmap: what the runs reach over two of the parameters that are varied."""

from __future__ import annotations

import pandas as pd

from dopt.page.drawing import empty, plane, tip
from dopt.page.material import Material
from dopt.page.section import Section, paragraph, place

HEIGHT = 380
SHADES = 32


def section(material: Material) -> Section:
    """The section; with less than two parameters that are varied, a line that says so."""
    title = "Two parameters"
    axes = [name for name in material.varied if name != "seed"]
    if len(axes) < 2:
        return Section("heat", title, paragraph("A heatmap needs two varied parameters, besides the seed."))
    from bokeh.models import FactorRange
    from bokeh.palettes import Cividis256

    body = (
        '<div class="controls" id="heat-controls"></div><p class="said" id="heat-said"></p>'
        + place("heat-plot", "heatmap; each field has its number written in it")
        + '<div class="scale" id="heat-scale"></div>'
    )
    made = plane("heat", HEIGHT, tools="save", x_range=FactorRange(), y_range=FactorRange())
    source = empty("x", "y", "color", "ink", "label", "text")
    source.name = "heat-cells"
    fields = made.rect("x", "y", 0.97, 0.95, source=source, fill_color="color", line_color=None)
    made.text(
        "x",
        "y",
        "label",
        source=source,
        text_color="ink",
        text_align="center",
        text_baseline="middle",
        text_font_size="12px",
    )
    tip(made, [fields])
    made.grid.grid_line_color = None
    finals = [
        name
        for name in material.runs
        if str(name).startswith("final.") and pd.api.types.is_numeric_dtype(material.runs[name])
    ]
    data = {
        "axes": axes,
        "finals": [name for name in finals if material.runs[name].notna().any()],
        "shades": [Cividis256[round(255 * i / (SHADES - 1))] for i in range(SHADES)],
    }
    return Section("heat", title, body, data, {"heat-plot": made})
