"""Optax by name: local optimizers and schedules of learning rates."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import optax

from dopt.config.run import Run, of
from dopt.registry import Entry, did_you_mean
from dopt.types import InputError


def _optimizers() -> dict[str, Entry]:
    """Optax's own optimizers: public functions whose first parameter is the learning rate."""
    found = {}
    for name, f in vars(optax).items():
        if inspect.isfunction(f) and not name.startswith("_"):
            parameters = list(inspect.signature(f).parameters.values())
            if parameters and parameters[0].name == "learning_rate":
                found[name] = Entry(name, f, "optax", {})
    return found


OPTIMIZERS = _optimizers()
RATES = ("peak_value", "init_value", "value")  # what schedules call the rate itself, the first that they have
SCHEDULES = {
    name: f
    for name, f in vars(optax).items()
    if name.endswith(("_schedule", "_decay"))
    and inspect.isfunction(f)
    and {*inspect.signature(f).parameters} & {*RATES}
}
UNTRACED = ("warmup_cosine_decay_schedule",)  # asks whether its rate is zero, so the rate must be a number


def optimizer_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, checked against the optimizer's own parameters (numbers, bools and names only)."""
    if name not in OPTIMIZERS:
        raise InputError(f"optimizer: unknown name {name!r}{did_you_mean(name, OPTIMIZERS)}")
    parameters = dict(inspect.signature(OPTIMIZERS[name].make).parameters)
    parameters.pop("learning_rate")
    return _plain_options("optimizer", name, parameters, given)


def schedule_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """`schedule` and its parameters, checked; the rate itself stands for its peak, initial or only value."""
    if not given:
        return {}
    if "schedule" not in given:
        raise InputError(
            f"learning_rate.{next(iter(given))}: give learning_rate.schedule, the name of an optax schedule"
        )
    name = given["schedule"]
    if name not in SCHEDULES and f"{name}_schedule" in SCHEDULES:
        name = f"{name}_schedule"
    if name not in SCHEDULES:
        raise InputError(f"learning_rate.schedule: unknown name {name!r}{did_you_mean(str(name), SCHEDULES)}")
    parameters = dict(inspect.signature(SCHEDULES[name]).parameters)
    parameters.pop(_rate_parameter(parameters))
    rest = {k: v for k, v in given.items() if k != "schedule"}
    resolved = _plain_options("learning_rate", name, parameters, rest)
    for p in parameters.values():
        if p.default is p.empty and p.name not in resolved:
            raise InputError(f"learning_rate.{p.name}: {name} needs it")
    return {"schedule": name, **resolved}


def _rate_parameter(parameters: Mapping[str, Any]) -> str:
    return next(name for name in RATES if name in parameters)


def _plain_options(
    what: str, name: str, parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any]
) -> dict[str, Any]:
    for key, value in given.items():
        if key not in parameters:
            raise InputError(f"{what}.{key}: {name} has no such option{did_you_mean(key, parameters)}")
        if not isinstance(value, int | float | bool | str):
            raise InputError(f"{what}.{key}: must be a number, a truth value or a name, got {value!r}")
    return dict(given)


def make_rate(run: Run, rate: Any) -> Any:
    """The learning rate of a resolved run, possibly traced; a function of the step where it has a schedule."""
    options = of(run.options, "learning_rate")
    if not options:
        return rate
    if options["schedule"] in UNTRACED:
        rate = np.dtype(run.precision).type(run.learning_rate)
    over_steps = SCHEDULES[options.pop("schedule")]
    return over_steps(**{_rate_parameter(inspect.signature(over_steps).parameters): rate}, **options)


def make_optimizer(run: Run, rate: Any) -> optax.GradientTransformation:
    """The local optimizer of a resolved run, its rate possibly traced."""
    return OPTIMIZERS[run.optimizer].make(make_rate(run, rate), **of(run.options, "optimizer"))


@cache
def dry_step(optimizer: str, options: tuple[tuple[str, Any], ...]) -> None:
    """One step as shapes: a value that optax cannot compute with is refused here, and not in a compilation."""
    import jax

    run = Run(algorithm="", workers=1, learning_rate=0.1, optimizer=optimizer, options=dict(options))
    try:
        made = make_optimizer(run, 0.1)
        jax.eval_shape(lambda x: made.update(x, made.init(x), x), np.zeros(1, np.float32))
    except (TypeError, ValueError) as error:
        given = "".join(f" {name}={value!r}" for name, value in options)
        raise InputError(f"optimizer: cannot use {optimizer}{given} ({' '.join(str(error).split())})") from error
