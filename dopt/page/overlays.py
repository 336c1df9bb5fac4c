"""What theory says of runs, where a closed form of `dopt.theory` really is about them, and nothing where it is not.

Floors: gossip SGD with full gradients on quadratics comes to rest where one linear solve says. Rates: delayed SGD with full gradients on
quadratics shrinks, in the long run, by a factor each step. Both take plain SGD with a constant rate, and neither noise nor lost links.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dopt import mixing, theory
from dopt.config import Resolved
from dopt.facts import problem as of_problem
from dopt.facts import wiring
from dopt.page.material import BEST, Material
from dopt.types import InputError, MachineError

MOST = 24  # runs that are looked at
ROUNDING = 1e-12  # below it a floor is none
SIZE = 1500  # numbers that a linear solve is for: workers times coordinates
QUADRATICS = ("quadratic", "turned_quadratic")


class Overlay(NamedTuple):
    """A line over the curves of a metric."""

    label: str
    metric: str
    kind: str  # floor: the value that it ends at; rate: the factor by which it shrinks each step
    value: float
    runs: list[int]  # rows of the page's runs: all that differ from the one that was looked at in their seed alone


def found(material: Material) -> list[Overlay]:
    """The overlays of tuned runs, one setting after the other."""
    names = [name for name in material.varied if name != "seed"]
    best = material.runs[material.runs[BEST] & material.runs["problem"].isin(QUADRATICS)]
    overlays: list[Overlay] = []
    for _, alike in list(best.groupby(names, sort=False, dropna=False) if names else [((), best)])[:MOST]:
        if len(alike):
            run = material.resolved(alike["id"].iloc[0])
            for metric, kind, value, label in () if run is None else _said(run):
                overlays.append(Overlay(label, metric, kind, value, alike.index.tolist()))
    return overlays


def _said(run: Resolved) -> list[tuple[str, str, float, str]]:
    """(metric, kind, value, label) of each closed form that is about this run."""
    try:
        if _is_plain(run) and run.algorithm == "gossip_sgd":
            return _floors(run)
        if _is_plain(run) and run.algorithm == "delayed_sgd":
            return _rates(run)
    except (InputError, MachineError):  # a plug-in or a file that is not here any more
        pass
    return []


def _is_plain(run: Resolved) -> bool:
    """Whether it is plain SGD with full, exact gradients, and every message arrives in time."""
    bent = [name for name in run.options if name.startswith(("optimizer.", "learning_rate."))]
    exact = run.batch_size is None and not run.options.get("problem.noise")
    return run.optimizer == "sgd" and not bent and exact and not run.link_loss and isinstance(run.delay, int)


def _quadratic(run: Resolved) -> tuple[np.ndarray, np.ndarray]:
    """(curvatures [n, d, d], minima [n, d]) of its workers."""
    data: Any = of_problem.checked(run, None).data
    a, b = (np.asarray(data[name], np.float64)[:, 0] for name in ("curvature", "minimum"))
    return (a if a.ndim == 3 else a[:, :, None] * np.eye(a.shape[1])), b


def _floors(run: Resolved) -> list[tuple[str, str, float, str]]:
    simple = {"algorithm.rounds": 1, "algorithm.local_steps": 1, "algorithm.chebyshev": False}
    if run.delay != 0 or any(run.options.get(name) != value for name, value in simple.items()):
        return []
    w = wiring.matrix(run)
    if isinstance(w, tuple) or np.ndim(w) != 2 or run.workers > SIZE:
        return []
    a, b = _quadratic(run)
    w = mixing.dense(w)
    if b.size > SIZE or not _contracts(w, a, run):
        return []
    first = bool(run.options["algorithm.adapt_then_combine"])
    x = theory.gossip_fixed_point(w, a, b, run.learning_rate, adapt_then_combine=first)
    mean = x.mean(0)
    best = np.linalg.solve(a.mean(0), np.einsum("nij,nj->i", a, b) / len(b))
    away, least = mean - b, best - b
    gap = 0.5 * np.mean(np.einsum("ni,nij,nj->n", away, a, away) - np.einsum("ni,nij,nj->n", least, a, least))
    apart = np.mean(np.sum((x - mean) ** 2, 1))
    named = f"theory: fixed point of gossip SGD (Yuan et al. 2016), rate {run.learning_rate:g}"
    values = (("suboptimality", float(gap)), ("consensus_distance", float(apart)))
    return [(metric, "floor", value, named) for metric, value in values if value > ROUNDING]


def _contracts(w: np.ndarray, a: np.ndarray, run: Resolved) -> bool:
    """Whether the iteration comes to rest at all."""
    n, d = a.shape[:2]
    whole = np.kron(w, np.eye(d)).reshape(n, d, n, d)
    pull = np.zeros((n, d, n, d))
    pull[np.arange(n), :, np.arange(n)] = run.learning_rate * a
    if run.options["algorithm.adapt_then_combine"]:
        pull = np.einsum("idje,jekf->idkf", whole, pull)
    return bool(np.abs(np.linalg.eigvals((whole - pull).reshape(n * d, n * d))).max() < 1)


def _rates(run: Resolved) -> list[tuple[str, str, float, str]]:
    assert isinstance(run.delay, int)
    a, _ = _quadratic(run)
    factor = max(theory.delayed_factor(run.learning_rate * x, run.delay) for x in np.linalg.eigvalsh(a.mean(0)))
    named = f"theory: delayed SGD, factor {factor:.4g} a step at rate {run.learning_rate:g}, delay {run.delay}"
    powers = (("suboptimality", 2), ("grad_norm", 1))
    return [(metric, "rate", factor**power, named) for metric, power in powers] if factor < 1 else []
