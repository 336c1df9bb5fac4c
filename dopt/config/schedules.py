"""Optax's schedules of learning rates, by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from dopt import flags
from dopt.config.plain import plain_options
from dopt.config.run import Run, of
from dopt.registry import did_you_mean
from dopt.types import InputError

RATES = ("peak_value", "init_value", "value")  # what schedules call the rate itself, the first that they have
SCHEDULES = {
    name: f
    for name, f in vars(optax).items()
    if name.endswith(("_schedule", "_decay"))
    and inspect.isfunction(f)
    and {*inspect.signature(f).parameters} & {*RATES}
}
UNTRACED = ("warmup_cosine_decay_schedule",)  # asks whether its rate is zero, so the rate must be a number


def schedule_options(given: Mapping[str, object]) -> dict[str, Any]:
    """`schedule` and its parameters, checked; the rate itself stands for its peak, initial or only value."""
    if not given:
        return {}
    if "schedule" not in given:
        raise InputError(
            f"learning_rate.{next(iter(given))}: give learning_rate.schedule, the name of an optax schedule"
        )
    name = given["schedule"]
    if not isinstance(name, str):
        raise InputError(f"learning_rate.schedule: must be the name of an optax schedule, got {name!r}")
    if name not in SCHEDULES and f"{name}_schedule" in SCHEDULES:
        name = f"{name}_schedule"
    if name not in SCHEDULES:
        raise InputError(f"learning_rate.schedule: unknown name {name!r}{did_you_mean(name, SCHEDULES)}")
    parameters = dict(inspect.signature(SCHEDULES[name]).parameters)
    parameters.pop(_rate_parameter(parameters))
    rest = {k: v for k, v in given.items() if k != "schedule"}
    resolved = plain_options("learning_rate", name, parameters, rest)
    for p in parameters.values():
        if p.default is p.empty and p.name not in resolved:
            raise InputError(f"learning_rate.{p.name}: {name} needs it")
    if resolved.get("decay_rate") == 0:
        raise InputError(f"learning_rate.decay_rate: 0 leaves {name} at its first value; give a positive one")
    return {"schedule": name, **resolved}


def _rate_parameter(parameters: Mapping[str, Any]) -> str:
    return next(name for name in RATES if name in parameters)


def make_rate(run: Run, rate: Any) -> Any:
    """The learning rate of a run, possibly traced; a function of the step where it has a schedule."""
    options = of(run.options, "learning_rate")
    if not options:
        return rate
    if options["schedule"] in UNTRACED:
        rate = np.dtype(run.precision).type(run.learning_rate)
    over_steps = SCHEDULES[options.pop("schedule")]
    schedule = over_steps(**{_rate_parameter(inspect.signature(over_steps).parameters): rate}, **options)
    if run.precision == "float32":
        return schedule
    # JAX divides whole numbers in float32, whatever the precision
    return lambda count: schedule(np.dtype(run.precision).type(1) * count)


def first_zero(run: Run, steps: np.ndarray) -> int | None:
    """The first of the steps at which the rate of a run is 0; None: at none."""
    with flags.fixed(run.precision == "float64"):
        rates = np.broadcast_to(make_rate(run, run.learning_rate)(jnp.asarray(steps)), steps.shape)
    return next(iter(steps[rates == 0].tolist()), None)


__all__ = ["RATES", "SCHEDULES", "UNTRACED", "first_zero", "make_rate", "schedule_options"]
