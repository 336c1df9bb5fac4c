"""dopt: which way of parallel training wins, and what do connectivity and delay cost?"""

from dopt import algorithms, cluster, compression, data, delays, metrics, mixing, problems, schedule, theory, topology
from dopt.algorithms import Method, chain
from dopt.checkpoints import Checkpoints
from dopt.config import Run
from dopt.run import Result, run
from dopt.sweep.engine import sweep
from dopt.sweep.results import Results, load
from dopt.types import AXIS, Clock, Coordination, InputError, Layout, Problem
from dopt.version import VERSION

__version__ = VERSION

__all__ = [
    "AXIS",
    "Checkpoints",
    "Clock",
    "Coordination",
    "InputError",
    "Layout",
    "Method",
    "Problem",
    "Result",
    "Results",
    "Run",
    "algorithms",
    "chain",
    "cluster",
    "compression",
    "data",
    "delays",
    "load",
    "metrics",
    "mixing",
    "problems",
    "run",
    "schedule",
    "sweep",
    "theory",
    "topology",
]
