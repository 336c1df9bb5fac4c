"""What the figures of the page share: an empty plane of a certain look, whose data the page's scripts put in.

Bokeh is an extra, so that nobody imports it before something is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bokeh.models import Column, ColumnDataSource
    from bokeh.plotting import figure

TIP = '<div style="white-space: pre-line; max-width: 26em; font-size: 11px">@text</div>'  # Bokeh escapes what a column holds, unless it is told not to
TOOLS = "pan,box_zoom,wheel_zoom,reset,save"


def plane(name: str, height: int | None, tools: str = TOOLS, **options: object) -> figure:
    """A figure as wide as its place; `options`: Bokeh's."""
    from bokeh.plotting import figure

    made = figure(
        name=name, height=height, tools=tools, output_backend="canvas", **{"sizing_mode": "stretch_width", **options}
    )
    made.toolbar.logo = None
    made.toolbar.autohide = True
    made.outline_line_color = None
    made.border_fill_color = made.background_fill_color = None  # scripts fill them in the page's colours
    if "wheel_zoom" in tools:
        made.toolbar.active_scroll = None  # the wheel scrolls the page
    return made


def stacked(planes: Sequence[figure]) -> Column:
    """Planes, one below the other."""
    from bokeh.models import Column

    return Column(children=list(planes), sizing_mode="stretch_width")


def empty(*columns: str) -> ColumnDataSource:
    """A source of these columns, which scripts fill."""
    from bokeh.models import ColumnDataSource

    return ColumnDataSource({name: [] for name in columns})


def tip(made: figure, renderers: Sequence[object], **options: object) -> None:
    """Show the column `text` of what is under the pointer."""
    from bokeh.models import HoverTool

    made.add_tools(HoverTool(renderers=list(renderers), tooltips=TIP, **options))
