"""Options of optax's functions: plain values, of the kind that a parameter's default tells."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from dopt.registry import did_you_mean
from dopt.types import InputError

# a schedule that gets less stays at its first value, without a word
LEAST = {"transition_steps": 1, "decay_steps": 1, "warmup_steps": 1, "transition_begin": 0}
DTYPES = ("float16", "bfloat16", "float32", "float64")
UNSAID = ("mask", "_fn", "_numbers", "_scales", "optimizer")  # ends of names of what is a function, or a tree


def plain_options(
    what: str, name: str, parameters: Mapping[str, inspect.Parameter], given: Mapping[str, object]
) -> dict[str, Any]:
    """`given`, checked against the parameters of optax's function `name`.

    Args:
      what: how the options are called in errors, as `optimizer` in `optimizer.momentum`.
    """
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
    wanted, fits = asked(parameter, value)
    if wanted is None:
        raise InputError(f"{name}: is no number or name, so it cannot be given here; leave it out")
    if not fits:
        raise InputError(f"{name}: must be {wanted}, got {value!r}")
    if type(value) is int and abs(value) >= 2**31:  # which no array of whole numbers holds
        return float(value)
    return tuple(value) if isinstance(value, list) else value


def asked(parameter: inspect.Parameter, value: Any) -> tuple[str | None, bool]:
    """(what the parameter asks for, None: what cannot be said; whether the value is that)."""
    default = parameter.default
    if "dtype" in parameter.name:
        return f"one of {', '.join(DTYPES)}", isinstance(value, str) and value in DTYPES
    if isinstance(default, bool):
        return "true or false", isinstance(value, bool)
    if isinstance(default, str) or parameter.annotation in ("str", str):
        return "a name", isinstance(value, str)
    if isinstance(default, tuple):
        return f"{len(default)} values like {list(default)}", _alike(value, default)
    if isinstance(default, int):
        return "a whole number", type(value) is int and abs(value) < 2**31
    if default is not parameter.empty and (parameter.name.endswith(UNSAID) or callable(default)):
        return None, False
    return "a finite number (0, or from 1e-45 to 3e38)", _finite(value)


def _alike(value: Any, default: tuple[Any, ...]) -> bool:
    if not isinstance(value, list | tuple) or len(value) != len(default):
        return False
    pairs = zip(value, default, strict=True)
    return all(isinstance(given, str) if isinstance(usual, str) else _finite(given) for given, usual in pairs)


def _finite(value: Any) -> bool:
    """Whether it is a number that float32 holds, as one that is neither infinite nor 0 where the number is not."""
    if type(value) not in (int, float):
        return False
    least, most = (float(getattr(np.finfo(np.float32), name)) for name in ("smallest_subnormal", "max"))
    return bool(value == 0 or least <= abs(value) <= most)  # which NaN is not


__all__ = ["asked", "plain_options"]
