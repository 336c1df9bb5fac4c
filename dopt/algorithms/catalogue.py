"""Methods by name: their options, what they send, how one is built, and which runs they are defined for."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import optax

from dopt import registry
from dopt.algorithms.method import Method
from dopt.algorithms.traits import ALGORITHMS, Exchange, Options, Traits, matrix_kind
from dopt.compression import COMPRESSORS
from dopt.registry import Entry
from dopt.types import InputError, Mix

# parameters that the harness hands over itself
IMPLIED = ("learning_rate", "slots", "seed", "modulus", "workers", "distribution")


def options(name: str, given: Mapping[str, Any], implied: Iterable[str] = IMPLIED) -> dict[str, Any]:
    """All options of a method with their values, those of its compressor among them.

    Raises:
      InputError: an unknown method or option, or a value of the wrong type.
    """
    entry = ALGORITHMS[name]
    if "compressor" not in entry.known:
        return entry.options(given, "algorithm", implied)
    own = entry.options({k: v for k, v in given.items() if k in entry.known}, "algorithm", implied)
    operator = COMPRESSORS[own["compressor"]]
    return own | operator.options({k: v for k, v in given.items() if k not in entry.known}, "algorithm")


def readable(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` without what only other methods and compressors read; what nobody reads stays, to be refused."""
    own = set(ALGORITHMS[name].known)
    if "compressor" in own:
        chosen = given.get("compressor", "identity")
        own |= set(COMPRESSORS[chosen].known if isinstance(chosen, str) and COMPRESSORS.has(chosen) else ())
    return registry.readable(given, own, ALGORITHMS, COMPRESSORS)


_options = options  # `make` has options of its own


def takes_mix(method: Entry[Traits]) -> bool:
    """Whether a builder takes a mix: it gives that parameter no default."""
    return inspect.signature(method.make).parameters["mix"].default is inspect.Parameter.empty


def make(
    name: str, optimizer: optax.GradientTransformation, mix: Any = None, *, learning_rate: Any = None, **options: Any
) -> Method:
    """The method `name` as an optax transformation, for one's own training loop inside an axis named "workers".

    Args:
      name: a registered method.
      optimizer: the local optimizer whose update is u(g); any optax one.
      mix: a `dopt.mixing.Mix`, for gossip methods.
      learning_rate: the rate itself, for methods that divide by it.
      **options: the method's own.

    Raises:
      InputError: unknown name or option, or a mix that is missing or not wanted.
    """
    entry = ALGORITHMS[name]
    if (mix is None) == takes_mix(entry):
        raise InputError(
            f"algorithm: {name} {'needs a mix; pass dopt.mixing.mix(W)' if mix is None else 'takes no mix'}"
        )
    resolved = _options(name, options, implied=("learning_rate",))
    made: Method = entry.make(optimizer, mix, learning_rate=learning_rate, **resolved)
    return made


# what a builder is given where nothing is mixed
_STAND_IN = Mix(lambda tree: (), lambda tree, state, **extra: (tree, state))


def dry_build(method: Entry[Traits], options: Options, workers: int) -> tuple[Exchange, ...]:
    """Build a method once from nothing, for its own checks of its options; what it then sends.

    Raises:
      InputError: an option's value, or a builder that takes no mix although the method needs one.
    """
    exchange = method.traits.exchange(options, workers)
    needs = matrix_kind(exchange)
    if takes_mix(method) != (needs is not None):
        why = (
            "has a mix without default, but sends nothing to neighbours" if needs is None else "mixes, but takes no mix"
        )
        raise InputError(
            f"algorithm: {method.name} {why}; give `mix` a default exactly where it sends nothing to neighbours"
        )
    mix = None if needs is None else (_STAND_IN, _STAND_IN) if needs == "row and column stochastic" else _STAND_IN
    implied = {name: value for name, value in (("modulus", 0.5), ("workers", workers)) if name in method.known}
    method.make(optax.sgd(0.1), mix, learning_rate=0.1, **options, **implied)
    return exchange


def check_rate(method: Entry[Traits], learning_rate: float) -> None:
    """Refuse a rate of 0 where a method divides by it."""
    if method.traits.divides_by_rate and learning_rate == 0:
        raise InputError(f"learning_rate: {method.name} divides by it, got 0; give a positive one")


def check_optimizer(
    method: Entry[Traits], optimizer: str, options: Options, learning_rate: float, strict: bool
) -> None:
    """Refuse local optimizers for which a method is not defined; `options`: the optimizer's own."""
    name, linear, divides = method.name, method.traits.needs_linear_update, method.traits.divides_by_rate
    check_rate(method, learning_rate)
    if not strict or not (linear or divides):
        return
    hint = "; use sgd, or strict: false"
    if optimizer != "sgd":
        why = "its theory needs a linear update" if linear else "it divides by the rate of plain sgd"
        raise InputError(f"optimizer: {name} takes sgd only, {why}, got {optimizer}{hint}")
    if divides and (options.get("momentum") or options.get("nesterov")):
        raise InputError(f"optimizer.momentum: {name} has a momentum of its own; leave it out{hint}")


__all__ = ["IMPLIED", "check_optimizer", "check_rate", "dry_build", "make", "options", "readable", "takes_mix"]
