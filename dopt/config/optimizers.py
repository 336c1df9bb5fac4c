"""Optax's optimizers, by name.

A local optimizer is one that descends by itself and needs nothing but (grads, state, params). Optax's other
transformations have names, too: they are refused, with the reason.
"""

from __future__ import annotations

import inspect
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
from dopt.config.plain import plain_options
from dopt.config.run import Run, of
from dopt.config.schedules import make_rate
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
_VALUE = "needs the value of the loss at each step, but here an optimizer gets only the gradient"
_WRAPS = "wraps another optimizer, which a name cannot say"
_SAMPLES = "needs the gradient of each sample, but here an optimizer gets their mean"
REFUSED = {
    "lbfgs": "uses a line search, which needs the loss itself",
    "polyak_sgd": _VALUE,
    "optimistic_adam": "is deprecated by optax; use optimistic_adam_v2",
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
NO_DESCENT = "is a transformation that does not descend by itself"
# what they do to a coordinate depends on others: on norms of leaves, on their shape, or on the way of the whole model
COUPLED = {
    *("adafactor", "fromage", "lamb", "lars", "novograd", "sm3"),
    *(CONTRIB + name for name in ("dadapt_adamw", "dog", "dowg", "galore", "muon", "prodigy")),
}
SCHEDULE_FREE = {"contrib.schedule_free_adamw", "contrib.schedule_free_sgd"}
# they lead the model back to a path of their own, so that an average of models would be undone by the next update
ANCHORED = {*SCHEDULE_FREE, "contrib.cocob", "contrib.madgrad"}

LINEAR = {"sgd", "noisy_sgd", "optimistic_gradient_descent"}  # twice the gradient, twice the step

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
    """Noisy SGD: SGD with Gaussian noise that fades, drawn for each worker and seed."""
    return optax.chain(add_noise(eta, gamma, keys), optax.scale_by_learning_rate(learning_rate))


NOISY = {"noisy_sgd": noisy_sgd}  # they draw


# -- names --


def _optimizers() -> dict[str, Entry[Any]]:
    """What there is of the optimizers that descend."""
    found: dict[str, Entry[Any]] = {}
    for prefix, names in DESCEND.items():
        for name in names.split():
            if (make := _of_optax(prefix + name)) is not None:
                found[prefix + name] = Entry(prefix + name, make, "optax.contrib" if prefix else "optax", {})
    found |= {name: Entry(name, make, "optax", {}) for name, make in NOISY.items()}
    return dict(sorted(found.items(), key=lambda item: (item[0].startswith(CONTRIB), item[0])))


def _of_optax(name: str) -> Callable[..., Any] | None:
    where = optax.contrib if name.startswith(CONTRIB) else optax
    found = vars(where).get(name.removeprefix(CONTRIB))
    return found if callable(found) else None


OPTIMIZERS = _optimizers()


def _entry(name: str) -> Entry[Any]:
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


def optimizer_options(name: str, given: Mapping[str, object]) -> dict[str, Any]:
    """`given`, checked against the optimizer's own parameters."""
    resolved = plain_options("optimizer", name, parameters_of(name), given)
    if name in SCHEDULE_FREE and not resolved.get("b1", 1.0) > 0:  # its model is divided by it
        raise InputError(f"optimizer.b1: must be positive for {name}, got {given['b1']}")
    return resolved


def parameters_of(name: str) -> dict[str, inspect.Parameter]:
    """An optimizer's own parameters, without what the harness hands over."""
    found = inspect.signature(_entry(name).make).parameters
    return {name: parameter for name, parameter in found.items() if name not in ("learning_rate", "keys")}


# -- making --


def make_optimizer(run: Run, rate: Any, keys: Keys) -> optax.GradientTransformation:
    """The local optimizer of a run, its rate possibly traced; `keys` is what one draws from that draws."""
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


def _types(state: Any) -> list[tuple[tuple[int, ...], Any]]:
    return [(x.shape, x.dtype) for x in jax.tree.leaves(state)]


__all__ = [
    "ANCHORED",
    "COUPLED",
    "LINEAR",
    "NOISY",
    "OPTIMIZERS",
    "add_noise",
    "averages",
    "counts_apart",
    "dry_step",
    "make_optimizer",
    "optimizer_options",
    "parameters_of",
]
