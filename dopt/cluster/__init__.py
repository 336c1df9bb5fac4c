"""What a run takes of time: how fast workers compute (`machines`, `laws`), what was measured (`traces`), what messages cost (`links`)."""

from dopt.cluster.laws import LAWS, PROFILES
from dopt.cluster.links import REDUCTIONS, Links
from dopt.cluster.machines import Burst, Cluster, compute_times, make, mean_times, options, scaled, worker_times
from dopt.cluster.traces import Trace, read, read_links

__all__ = [
    "LAWS",
    "PROFILES",
    "REDUCTIONS",
    "Burst",
    "Cluster",
    "Links",
    "Trace",
    "compute_times",
    "make",
    "mean_times",
    "options",
    "read",
    "read_links",
    "scaled",
    "worker_times",
]
