"""What a method accepts of the rest of a run: asked of the checks that every run goes through, so that it cannot be said wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dopt.algorithms import ALGORITHMS
from dopt.config.optimizers import OPTIMIZERS
from dopt.config.run import Run
from dopt.registry import did_you_mean
from dopt.text import quoted
from dopt.types import InputError

# name of a part of a run -> fields that ask for it
ASKS: Mapping[str, Mapping[str, Any]] = {
    "topology": {"topology": "ring"},
    "delay": {"delay": "uniform", "delay.max": 2},
    "link_loss": {"link_loss": 0.1},
    "cluster": {"cluster": "exponential"},
    "optimizer": {"optimizer": "adam"},
    "compressor": {"algorithm.compressor": "identity"},
}
PLAIN: Mapping[str, Any] = {"workers": 8, "learning_rate": 0.1, "problem": "quadratic", "problem.dim": 4, "steps": 10}


def refusal(method: str, fields: Mapping[str, object]) -> str:
    """Why a method refuses a run with these fields; "": it accepts it."""
    try:
        Run.from_dict({"algorithm": method, **PLAIN, **fields}).resolve()
    except InputError as error:
        return str(error)
    return ""


def check(part: str) -> None:
    """InputError where no part of a run has that name."""
    if part not in ASKS:
        raise InputError(f"accepts: unknown part of a run {quoted(part)}{did_you_mean(part, ASKS)}")


def accepts(method: str, part: str) -> bool:
    """Whether a method, with the defaults of its options, accepts a part of a run."""
    return not refusal(method, ASKS[part])


def optimizers(method: str) -> dict[str, str]:
    """Optimizer -> why a method refuses it; "": it accepts it."""
    return {name: refusal(method, {"optimizer": name}) for name in OPTIMIZERS}


def methods(optimizer: str) -> list[str]:
    """The methods that accept an optimizer."""
    return [name for name in ALGORITHMS if not refusal(name, {"optimizer": optimizer})]


__all__ = ["ASKS", "accepts", "check", "methods", "optimizers", "refusal"]
