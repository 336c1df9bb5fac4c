"""Pictures of sweeps, and what they are made of. `dopt.plot.curves(results)` and so on give matplotlib figures."""

from typing import TYPE_CHECKING

from dopt.lazy import on_demand

if TYPE_CHECKING:
    from dopt.plot.kinds.cells import cells
    from dopt.plot.kinds.curves import curves
    from dopt.plot.kinds.heatmap import heatmap
    from dopt.plot.kinds.pareto import pareto
    from dopt.plot.kinds.profile import profile
    from dopt.plot.kinds.staleness import staleness
    from dopt.plot.kinds.timeline import timeline
    from dopt.plot.picture import picture

__all__ = ["cells", "curves", "heatmap", "pareto", "picture", "profile", "staleness", "timeline"]

on_demand(
    __name__,
    {"picture": "dopt.plot.picture", **{name: f"dopt.plot.kinds.{name}" for name in __all__ if name != "picture"}},
)
