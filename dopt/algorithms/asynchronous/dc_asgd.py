"""x <- x + u(g + λ H (x - x^v)): a stale gradient is moved to the present model by its Taylor expansion.

Zheng et al. 2017, 1609.08326, eq. 10: H is ∇²f(x^v), for which the paper takes the cheap g⊙g (`plain`), or λ/√(m + ε) in place
of λ, m a running mean of g² (`adaptive`, their DC-ASGD-a). `hessian` multiplies by the true ∇²f(x^v), λ = 1 being exact on
quadratics.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dopt.algorithms.method import Method, Rate, arriving
from dopt.algorithms.trees import add, scale, subtract, when, zeros
from dopt.registry import NotNegative
from dopt.types import InputError, Tree

VARIANTS = ("plain", "adaptive", "hessian")
DECAY, TINY = 0.95, 1e-7


class CompensatedState(NamedTuple):
    inner: optax.OptState
    square: Tree  # running mean of g², for `adaptive`; else ()


@arriving(source="Zheng et al. 2017, 1609.08326")
def dc_asgd(
    optimizer: optax.GradientTransformation,
    mix: None = None,
    *,
    learning_rate: Rate | None = None,
    strength: NotNegative = 1.0,
    variant: str = "plain",
) -> Method:
    """Asynchronous SGD with delay compensation.

    Args:
      strength: λ.
      variant: plain, adaptive or hessian.

    `update` takes `stale_params` (x^v) and, for hessian, `hvp` (v -> ∇²f(x^v)v) as extra arguments.
    """
    if variant not in VARIANTS:
        raise InputError(f"algorithm.variant: must be one of {', '.join(VARIANTS)}, got {variant!r}")
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Tree) -> CompensatedState:
        return CompensatedState(inner.init(params), zeros(params) if variant == "adaptive" else ())

    def update(
        grads: Tree,
        state: CompensatedState,
        params: Tree,
        *,
        stale_params: Tree,
        applied: jax.Array | bool = True,
        **extra: Any,
    ) -> tuple[Tree, CompensatedState]:
        moved, square = subtract(params, stale_params), state.square
        cheap = jax.tree.map(lambda g, d: g * g * d, grads, moved)
        correction = extra["hvp"](moved) if variant == "hessian" else cheap
        if variant == "adaptive":
            square = jax.tree.map(lambda m, g: DECAY * m + (1 - DECAY) * g * g, square, grads)
            correction = jax.tree.map(lambda c, m: c / jnp.sqrt(m + TINY), correction, square)
        updates, new = inner.update(add(grads, scale(strength, correction)), state.inner, params, **extra)
        return when(applied, updates, zeros(updates)), when(applied, CompensatedState(new, square), state)

    return Method(init, update)
