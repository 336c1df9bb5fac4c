"""Optax by name: local optimizers and schedules of learning rates.

A local optimizer is one that descends by itself and needs nothing but (grads, state, params). Optax's other
transformations have names, too: they are refused, with the reason.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from dopt import draws, flags
from dopt.algorithms.method import is_count
from dopt.config.run import Run, of
from dopt.registry import Entry, did_you_mean
from dopt.types import InputError, Key, Tree

CONTRIB = "contrib."
Keys = Callable[[Any], Key]  # number of an update -> what it draws from

# each of them descends (tests/test_optimizers.py has a rate for each); what this version of optax lacks is left out
DESCEND = {
    "": "adabelief adadelta adafactor adagrad adam adamax adamaxw adamw adan amsgrad fromage lamb lars lion nadam nadamw "
    "novograd optimistic_adam_v2 optimistic_gradient_descent radam rmsprop rprop sgd sign_sgd signum sm3 yogi",
    CONTRIB: "acprop ademamix adopt cocob dadapt_adamw dog dowg galore madgrad muon prodigy schedule_free_adamw "
    "schedule_free_sgd simplified_ademamix",
}
_VALUE = "needs the loss's value at each step, and here an optimizer is told the gradient only"
_WRAPS = "wraps another optimizer, which a name cannot say"
_SAMPLES = "needs the gradient of each sample, and here an optimizer is told their mean"
REFUSED = {
    "lbfgs": "searches along lines, which needs the loss itself",
    "polyak_sgd": _VALUE,
    "optimistic_adam": "is given up by optax; use optimistic_adam_v2",
    "contrib.momo": _VALUE,
    "contrib.momo_adam": _VALUE,
    "contrib.reduce_on_plateau": _VALUE,
    "contrib.sophia": "needs the loss itself, for its Hessian",
    "contrib.hutchinson_estimator_diag_hessian": "needs the loss itself, for its Hessian",
    "contrib.sam": _WRAPS + ", and takes a second gradient of its own",
    "contrib.mechanize": _WRAPS,
    "contrib.schedule_free": _WRAPS + "; use contrib.schedule_free_sgd or contrib.schedule_free_adamw",
    "contrib.split_real_and_imaginary": _WRAPS,
    "contrib.dpsgd": _SAMPLES,
    "contrib.differentially_private_aggregate": _SAMPLES,
}
NO_DESCENT = "is a transformation that may ascend or stand still by itself"
# what they do to a coordinate depends on others: on norms of leaves, on their shape, or on the way of the whole model
COUPLED = {
    *("adafactor", "fromage", "lamb", "lars", "novograd", "sm3"),
    *(CONTRIB + name for name in ("dadapt_adamw", "dog", "dowg", "galore", "muon", "prodigy")),
}
SCHEDULE_FREE = {"contrib.schedule_free_adamw", "contrib.schedule_free_sgd"}
# they lead the model back to a path of their own, so that an average of models would be undone by the next update
ANCHORED = {*SCHEDULE_FREE, "contrib.cocob", "contrib.madgrad"}

LINEAR = {"sgd", "noisy_sgd", "optimistic_gradient_descent"}  # twice the gradient, twice the step

RATES = ("peak_value", "init_value", "value")  # what schedules call the rate itself, the first that they have
SCHEDULES = {
    name: f
    for name, f in vars(optax).items()
    if name.endswith(("_schedule", "_decay"))
    and inspect.isfunction(f)
    and {*inspect.signature(f).parameters} & {*RATES}
}
UNTRACED = ("warmup_cosine_decay_schedule",)  # asks whether its rate is zero, so the rate must be a number
# a schedule that gets less stays at its first value, without a word
LEAST = {"transition_steps": 1, "decay_steps": 1, "warmup_steps": 1, "transition_begin": 0}


# -- noise --


class NoiseState(NamedTuple):
    updates: jax.Array  # [] int32 so far


def add_noise(eta: Any, gamma: Any, keys: Keys) -> optax.GradientTransformation:
    """Gradients plus N(0, η/(1+t)^γ) at update t. Optax's own has one key for all who use it.

    Neelakantan et al. 2015, 1511.06807.
    """

    def init(params: Tree) -> NoiseState:
        return NoiseState(jnp.zeros((), jnp.int32))

    def update(grads: Tree, state: NoiseState, params: Tree = None) -> tuple[Tree, NoiseState]:
        leaves, tree = jax.tree.flatten(grads)
        deviation = jnp.sqrt(eta / (state.updates + 1.0) ** gamma)
        key = jax.random.split(keys(state.updates), len(leaves))
        drawn = [jax.random.normal(k, g.shape, jnp.float32) for k, g in zip(key, leaves, strict=True)]
        noisy = [g + (deviation * z).astype(g.dtype) for g, z in zip(leaves, drawn, strict=True)]
        return jax.tree.unflatten(tree, noisy), NoiseState(state.updates + 1)

    return optax.GradientTransformation(init, update)


def noisy_sgd(learning_rate: Any, eta: float = 0.01, gamma: float = 0.55, *, keys: Keys) -> Any:
    """Noisy SGD: SGD with Gaussian noise, of each worker and seed its own, that fades."""
    return optax.chain(add_noise(eta, gamma, keys), optax.scale_by_learning_rate(learning_rate))


NOISY = {"noisy_sgd": noisy_sgd}  # they draw


# -- names --


def _optimizers() -> dict[str, Entry]:
    """What there is of the optimizers that descend."""
    found = {}
    for prefix, names in DESCEND.items():
        for name in names.split():
            if (make := _of_optax(prefix + name)) is not None:
                found[prefix + name] = Entry(prefix + name, make, "optax.contrib" if prefix else "optax", {})
    found |= {name: Entry(name, make, "optax", {}) for name, make in NOISY.items()}
    return dict(sorted(found.items(), key=lambda item: (item[0].startswith(CONTRIB), item[0])))


def _of_optax(name: str) -> Callable | None:
    where = optax.contrib if name.startswith(CONTRIB) else optax
    found = vars(where).get(name.removeprefix(CONTRIB))
    return found if callable(found) else None


OPTIMIZERS = _optimizers()


def _entry(name: str) -> Entry:
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    full = CONTRIB + name if CONTRIB + name in {*OPTIMIZERS, *REFUSED} else name
    if full in OPTIMIZERS:
        raise InputError(f"optimizer: unknown name {name!r}; did you mean {full!r}?")
    if full in REFUSED:
        raise InputError(f"optimizer: {full} {REFUSED[full]}; `dopt list optimizers` names those that fit")
    if _of_optax(name) is not None:
        raise InputError(f"optimizer: {name} {NO_DESCENT}; `dopt list optimizers` names those that descend")
    raise InputError(f"optimizer: unknown name {name!r}{did_you_mean(name, OPTIMIZERS)}")


# -- options --


def optimizer_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, checked against the optimizer's own parameters."""
    parameters = dict(inspect.signature(_entry(name).make).parameters)
    for own in ("learning_rate", "keys"):
        parameters.pop(own, None)
    resolved = _plain_options("optimizer", name, parameters, given)
    if name in SCHEDULE_FREE and not resolved.get("b1", 1.0) > 0:  # its model is divided by it
        raise InputError(f"optimizer.b1: must be positive for {name}, got {given['b1']}")
    return resolved


def schedule_options(given: Mapping[str, Any]) -> dict[str, Any]:
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
    resolved = _plain_options("learning_rate", name, parameters, rest)
    for p in parameters.values():
        if p.default is p.empty and p.name not in resolved:
            raise InputError(f"learning_rate.{p.name}: {name} needs it")
    if resolved.get("decay_rate") == 0:
        raise InputError(f"learning_rate.decay_rate: 0 leaves {name} at its first value; give a positive one")
    return {"schedule": name, **resolved}


def _rate_parameter(parameters: Mapping[str, Any]) -> str:
    return next(name for name in RATES if name in parameters)


def _plain_options(
    what: str, name: str, parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any]
) -> dict[str, Any]:
    resolved = {}
    for key, value in given.items():
        if key in ("key", "seed"):
            raise InputError(f"{what}.{key}: what {name} draws follows from the run's seed; leave it out")
        if key not in parameters:
            raise InputError(f"{what}.{key}: {name} has no such option{did_you_mean(key, parameters)}")
        resolved[key] = _value(f"{what}.{key}", value, parameters[key])
        if key in LEAST and not resolved[key] >= LEAST[key]:
            raise InputError(f"{what}.{key}: must be at least {LEAST[key]}, got {value}")
    return resolved


def _value(name: str, value: Any, parameter: inspect.Parameter) -> Any:
    """A value that fits the parameter, as its default tells: a truth value, a name, a number, or several."""
    default = parameter.default
    if "dtype" in parameter.name:
        return _dtype(name, value)
    if isinstance(default, bool):
        wanted, fits = "true or false", isinstance(value, bool)
    elif isinstance(default, str) or parameter.annotation in ("str", str):
        wanted, fits = "a name", isinstance(value, str)
    elif isinstance(default, tuple):
        wanted = f"{len(default)} values like {list(default)}"
        fits = isinstance(value, list | tuple) and len(value) == len(default)
        fits = fits and all(
            type(b) is str if isinstance(a, str) else _finite(b) for a, b in zip(default, value, strict=True)
        )
    elif isinstance(default, int):
        wanted, fits = "a whole number", type(value) is int and abs(value) < 2**31
    elif parameter.name.endswith(("mask", "_fn", "_numbers", "_scales", "optimizer")) or callable(default):
        if default is not parameter.empty:
            raise InputError(f"{name}: is no number or name, so it cannot be given here; leave it out")
        wanted, fits = "a finite number", _finite(value)
    else:
        wanted, fits = "a finite number", _finite(value)
    if not fits:
        raise InputError(f"{name}: must be {wanted}, got {value!r}")
    if type(value) is int and abs(value) >= 2**31:  # which no array of whole numbers holds
        return float(value)
    return tuple(value) if isinstance(value, list) else value


def _finite(value: Any) -> bool:
    """Whether it is a number that float32 can hold, apart from small ones."""
    return type(value) in (int, float) and abs(value) <= float(np.finfo(np.float32).max) and not math.isnan(value)


def _dtype(name: str, value: Any) -> str:
    known = ("float16", "bfloat16", "float32", "float64")
    if value not in known:
        raise InputError(f"{name}: must be one of {', '.join(known)}, got {value!r}")
    return str(value)


# -- making --


def make_rate(run: Run, rate: Any) -> Any:
    """The learning rate of a resolved run, possibly traced; a function of the step where it has a schedule."""
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


def make_optimizer(run: Run, rate: Any, keys: Keys) -> optax.GradientTransformation:
    """The local optimizer of a resolved run, its rate possibly traced; `keys` is what one draws from that draws."""
    options = of(run.options, "optimizer")
    if run.optimizer in NOISY:
        options["keys"] = keys
    return OPTIMIZERS[run.optimizer].make(make_rate(run, rate), **options)


def averages(name: str) -> Callable[[Any], Any] | None:
    """State, a schedule-free optimizer's in it -> that, as `optax.contrib.schedule_free_eval_params` takes it.

    None: the model is params themselves.
    """
    return _averages if name in SCHEDULE_FREE else None


def _averages(state: Any) -> Any:

    def own(x: Any) -> bool:
        return isinstance(x, optax.contrib.ScheduleFreeState)

    (found,) = (x for x in jax.tree.leaves(state, is_leaf=own) if own(x))
    return found._replace(base_optimizer_state=())


# -- checks --


@cache
def dry_step(optimizer: str, options: tuple[tuple[str, Any], ...], precision: str = "float32") -> None:
    """One step as shapes: a value that optax cannot compute with is refused here, and not in a compilation."""
    run = Run(
        algorithm="", workers=1, learning_rate=0.1, optimizer=optimizer, options=dict(options), precision=precision
    )
    given = "".join(f" {name}={value!r}" for name, value in options)

    def step(rate: Any, x: Any) -> tuple[Any, Any, Any]:
        made = make_optimizer(run, rate, lambda count: draws.key(0, draws.EVERYONE, count, draws.UPDATES))
        state = made.init(x)
        updates, new = made.update(x, state, x)
        return state, new, optax.apply_updates(x, updates)

    x = np.zeros((2, 2), precision)
    try:
        with flags.fixed(precision == "float64"):
            state, new, moved = jax.eval_shape(step, x[0, 0], x)
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise InputError(f"optimizer: cannot use {optimizer}{given} ({' '.join(str(error).split())})") from error
    if _types(state) != _types(new) or moved.dtype != x.dtype:
        raise InputError(f"optimizer: {optimizer}{given} does not keep the precision of its state, {precision}")
    asked = any("dtype" in name for name, _ in options)
    if not asked and any(jnp.issubdtype(kind, jnp.floating) and kind != x.dtype for _, kind in _types(new)):
        raise InputError(f"optimizer: {optimizer}{given} keeps a state that is not {precision}; give its dtype option")


@cache
def counts_apart(optimizer: str, options: tuple[tuple[str, Any], ...]) -> bool:
    """Whether the schedule of an optimizer's rate has a count of its own in the state, which can be told how far it is."""
    run = Run(algorithm="", workers=1, learning_rate=0.1, optimizer=optimizer, options=dict(options))
    made = make_optimizer(run, 0.1, lambda count: draws.key(0, draws.EVERYONE, count, draws.UPDATES))
    state = jax.eval_shape(made.init, np.zeros((2, 2), np.float32))
    return any(is_count(part) for part in jax.tree.leaves(state, is_leaf=is_count))


def first_zero(run: Run, steps: np.ndarray) -> int | None:
    """The first of the steps at which the rate of a resolved run is 0; None: at none."""
    with flags.fixed(run.precision == "float64"):
        rates = np.broadcast_to(make_rate(run, run.learning_rate)(jnp.asarray(steps)), steps.shape)
    return next(iter(steps[rates == 0].tolist()), None)


def _types(state: Any) -> list[tuple[tuple[int, ...], Any]]:
    return [(x.shape, x.dtype) for x in jax.tree.leaves(state)]


__all__ = [
    "ANCHORED",
    "COUPLED",
    "LINEAR",
    "NOISY",
    "OPTIMIZERS",
    "RATES",
    "SCHEDULES",
    "UNTRACED",
    "add_noise",
    "averages",
    "counts_apart",
    "dry_step",
    "first_zero",
    "make_optimizer",
    "make_rate",
    "optimizer_options",
    "schedule_options",
]
