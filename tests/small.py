"""Small runs of one kind, slabs and a sweep of them, and what it is for two of them to be the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from dopt import Result, Run, engine
from dopt.engine import Outcome, group_of, key, run_slab

DIM = 4
BASE: dict[str, Any] = {
    "algorithm": "gossip_sgd",
    "workers": 4,
    "learning_rate": 0.1,
    "problem": "quadratic",
    "problem.dim": DIM,
    "steps": 20,
}
NOISE = {"problem.noise": 0.1}


def make(**changes: Any) -> Run:
    """BASE with changes, resolved; None takes a field out."""
    flat = {name: value for name, value in {**BASE, **changes}.items() if value is not None}
    return Run.from_dict(flat).resolve()


def slab(runs: Sequence[Run], width: int | None = None, look: Callable[[int, int], int] | None = None) -> list[Outcome]:
    """The runs as one slab."""
    assert len({key(run) for run in runs}) == 1
    return run_slab(engine.compile(group_of(runs), width or len(runs)), runs, look)


def same(a: Outcome | Result, b: Outcome | Result) -> None:
    """Bit for bit."""
    assert list(a.history) == list(b.history)
    for name in a.history:
        assert a.history[name].tobytes() == b.history[name].tobytes(), name
    for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
        assert x.dtype == y.dtype
        assert x.tobytes() == y.tobytes()
    assert a.diverged_step == b.diverged_step


def small_sweep(**changes: Any) -> dict[str, Any]:
    """A sweep of 14 runs, so 7 slabs of two; rate 3 diverges."""
    parameters = {
        "algorithm": "gossip_sgd",
        "workers": 4,
        "problem": "quadratic",
        "problem.dim": 4,
        "problem.noise": 0.1,
        "learning_rate": [0.1, 3.0],
        "seed": [0, 1, 2, 3, 4, 5, 6],
        "steps": 20,
    } | changes
    return {
        "name": "small",
        "parameters": {k: {"values": v} if isinstance(v, list) else {"value": v} for k, v in parameters.items()},
    }
