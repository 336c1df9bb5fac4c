"""What theory says of runs, where a closed form of `dopt.theory` really is about them, and nothing where it is not.

Floors: gossip SGD with full gradients on quadratics comes to rest where one linear solve says. Paths: delayed SGD with full gradients on
quadratics obeys a linear recursion. Both take plain SGD with a constant rate, and neither noise nor lost links.
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
LONGEST = 20_000  # steps of a path
POINTS = 200  # of it that are drawn
SIZE = 1500  # numbers that a linear solve is for: workers times coordinates
QUADRATICS = ("quadratic", "turned_quadratic")


class Overlay(NamedTuple):
    """A line over the curves of a metric."""

    label: str
    metric: str
    steps: list[int]  # none: a floor, the one value at which it ends
    values: list[float]
    runs: list[int]  # rows of the page's runs: all that differ from the one that was looked at in their seed alone


def found(material: Material) -> list[Overlay]:
    """The overlays of tuned runs, one setting after the other."""
    names = [name for name in material.varied if name != "seed"]
    best = material.runs[material.runs[BEST] & material.runs["problem"].isin(QUADRATICS)]
    overlays: list[Overlay] = []
    for _, alike in list(best.groupby(names, sort=False, dropna=False) if names else [((), best)])[:MOST]:
        if len(alike):
            run = material.resolved(alike["id"].iloc[0])
            overlays += [] if run is None else [said._replace(runs=alike.index.tolist()) for said in said_of(run)]
    return overlays


def said_of(run: Resolved) -> list[Overlay]:
    """Each closed form that is about this run."""
    try:
        if _is_plain(run) and run.algorithm == "gossip_sgd":
            return _floors(run)
        if _is_plain(run) and run.algorithm == "delayed_sgd":
            return _paths(run)
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


def _floors(run: Resolved) -> list[Overlay]:
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
    return [Overlay(named, metric, [], [value], []) for metric, value in values if value > ROUNDING]


def _contracts(w: np.ndarray, a: np.ndarray, run: Resolved) -> bool:
    """Whether the iteration comes to rest at all."""
    n, d = a.shape[:2]
    whole = np.kron(w, np.eye(d)).reshape(n, d, n, d)
    pull = np.zeros((n, d, n, d))
    pull[np.arange(n), :, np.arange(n)] = run.learning_rate * a
    if run.options["algorithm.adapt_then_combine"]:
        pull = np.einsum("idje,jekf->idkf", whole, pull)
    return bool(np.abs(np.linalg.eigvals((whole - pull).reshape(n * d, n * d))).max() < 1)


def _paths(run: Resolved) -> list[Overlay]:
    assert isinstance(run.delay, int)
    steps = run.steps if run.gradients is None else run.gradients // run.workers
    if steps is None or not 0 < steps <= LONGEST:
        return []
    a, b = _quadratic(run)
    mean = a.mean(0)
    best = np.linalg.solve(mean, np.einsum("nij,nj->i", a, b) / len(b))
    queue = run.options.get("algorithm.read") == "queue"
    away = theory.delayed_descent(mean, -best, run.learning_rate, run.delay, steps + 1, queue=queue)
    at = np.unique(np.linspace(0, steps, POINTS).round().astype(int))
    pull = away[at] @ mean
    factor = max(theory.delayed_factor(run.learning_rate * x, run.delay) for x in np.linalg.eigvalsh(mean))
    named = (
        f"theory: delayed SGD at rate {run.learning_rate:g}, delay {run.delay}; in the long run × {factor:.4g} a step"
    )
    measured = {"suboptimality": 0.5 * (pull * away[at]).sum(1), "grad_norm": np.linalg.norm(pull, axis=1)}
    whole = [name for name, values in measured.items() if np.isfinite(values).all()]
    return [Overlay(named, name, at.tolist(), measured[name].tolist(), []) for name in whole]
