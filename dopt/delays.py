"""The laws a delay can follow: tables of probabilities over 0..max, so that all laws share one program.

A new law is one function here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dopt.registry import Registry, coerce
from dopt.types import InputError

DELAYS = Registry("delay")
law = DELAYS.register
LONGEST = 10**6  # steps that a law may reach: it is a table of probabilities
DRAWN_ONCE = 0x6C696E6B  # a stream of its own


@law(source="fixed delay, as in 1806.10188")
def constant(*, value: int, max: int | None = None) -> np.ndarray:
    """Always `value` steps.

    Args:
      value: steps.
      max: the longest delay for which there is room; by default `value`.
    """
    _whole("delay.value", value)
    return _within(np.append(np.zeros(value), 1.0), max)


@law(source="Dai et al. 2018, 1810.03264")
def uniform(*, max: int, low: int = 0, high: int | None = None) -> np.ndarray:
    """Each of low..high steps equally often; high is `max` by default.

    Args:
      max: the longest delay for which there is room.
      low, high: shortest and longest delay.
    """
    high = max if high is None else high
    _whole("delay.low", low)
    _whole("delay.high", high)
    if high < low:
        raise InputError(f"delay.high: must be at least delay.low={low}, got {high}")
    table = np.zeros(high + 1)
    table[low:] = 1 / (high - low + 1)
    return _within(table, max)


@law(source="staleness of n iid exponential workers, mean n - 1")
def geometric(*, max: int, mean: float = 1.0) -> np.ndarray:
    """P(k) proportional to (mean / (1 + mean))^k, truncated at `max` and renormalised.

    Args:
      max: the longest delay.
      mean: of the law before it is cut off.
    """
    if not 0 <= mean < np.inf:
        raise InputError(f"delay.mean: must be finite and not negative, got {mean}")
    _whole("delay.max", max)
    table = (mean / (1 + mean)) ** np.arange(max + 1.0)
    return table / table.sum()


def _whole(name: str, value: int) -> None:
    if value < 0:
        raise InputError(f"{name}: must not be negative, got {value}")
    if value > LONGEST:
        raise InputError(f"{name}: must be at most {LONGEST} steps, got {value}")


def _within(table: np.ndarray, largest: int | None) -> np.ndarray:
    if largest is None:
        return table
    _whole("delay.max", largest)
    if len(table) - 1 > largest:
        raise InputError(
            f"delay: the law reaches {len(table) - 1} steps, the buffer holds delay.max={largest}; raise delay.max or lower the delay"
        )
    return np.pad(table, (0, largest + 1 - len(table)))


def resolve(delay: int | str, options: Mapping[str, object], edges: bool = False) -> tuple[int | str, dict[str, Any]]:
    """(delay, its full options): a constant law is written as the int itself, whose buffer is `max`, by default the int.

    Args:
      edges: links may have delays of their own: `edges`, from the graph's edge attribute `delay`, and the option `fixed`
        of a law, whereby each link keeps for good what it draws at the start.
    """
    if isinstance(delay, bool) or not isinstance(delay, int | str):
        raise InputError(f"delay: must be a whole number of steps or a law's name, got {delay!r}")
    if isinstance(delay, int):
        if "value" in options:
            raise InputError(
                f"delay.value: the delay is {delay} already; give `delay: constant` with it, or leave it out"
            )
        delay, options = "constant", {**options, "value": delay}
    if edges and delay == "edges":
        if options:
            raise InputError(f"delay.{next(iter(options))}: the graph says how slow its edges are; leave it out")
        return delay, {}
    law = DELAYS[delay]
    fixed = edges and coerce("delay.fixed", options.get("fixed", False), bool) and delay != "constant"
    full = law.options({k: v for k, v in options.items() if not (edges and k == "fixed")}, "delay")
    if delay == "constant":
        value = full.pop("value")
        delay, full = value, {"max": value if full["max"] is None else full["max"]}
    table(delay, full)
    return delay, full | ({"fixed": True} if fixed else {})


def draw(delay: int | str, options: Mapping[str, object], seed: int, workers: int) -> np.ndarray:
    """[n, n] int32: what each link draws from a law once and for all, [reader, sender]; on the host."""
    steps = np.cumsum(table(delay, options))
    u = np.random.Generator(np.random.Philox(key=[seed, DRAWN_ONCE])).random((workers, workers))
    return np.minimum(np.searchsorted(steps, u, side="right"), np.flatnonzero(np.diff(steps, prepend=0))[-1]).astype(
        np.int32
    )


def table(delay: int | str, options: Mapping[str, Any]) -> np.ndarray:
    """[max + 1] float64 probabilities of a resolved delay; they sum to one."""
    options = {name: value for name, value in options.items() if name != "fixed"}
    return constant(value=delay, **options) if isinstance(delay, int) else DELAYS[delay].make(**options)


def cumulative(probabilities: np.ndarray, slots: int) -> np.ndarray:
    """[slots] distribution function, padded with ones: a longer buffer changes no draw."""
    steps = np.ones(slots)
    steps[: len(probabilities)] = np.cumsum(probabilities)
    steps[np.flatnonzero(probabilities)[-1] :] = 1.0  # whatever rounding left
    return steps


def at(distribution: jax.Array, u: jax.Array) -> jax.Array:
    """int32 delays [...]: the distribution function [slots] inverted at uniform u [...]."""
    return jnp.sum(u[..., None] >= distribution.astype(jnp.float32), axis=-1, dtype=jnp.int32)
