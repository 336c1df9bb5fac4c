"""What a method is: an optax transformation with collectives inside, and the model at which it wants its gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from dopt import draws
from dopt.algorithms.traits import ALGORITHMS, AllReduce, Server, Traits, check_scheduled
from dopt.compression import Compressor
from dopt.registry import Entry, Make
from dopt.types import AXIS, Clock, InputError, Tree

ORDERS = ("joint", "gradient_first")  # of gradient and elastic force


Rate = float | jax.Array | optax.Schedule  # a learning rate, or what it is at a step


def own_params(state: optax.OptState, params: Tree, **extra: object) -> Tree:
    """The default `read`: the worker's own present model."""
    return params


class Method(optax.GradientTransformationExtraArgs):
    """`init`, `update(grads, state, params, **extra)` and `read(state, params, **extra)`.

    A subclass of optax's type with extra args, since `optax.chain` keeps the extra args from a plain pair, silently.

    `server` is what a method driven by arrivals makes of one (`dopt.algorithms.server`); None: the model is stepped on
    each gradient as it comes. `place` cuts a worker's part out of a whole model, where each keeps only a part; `init` takes the whole.
    """

    read: Callable[..., Tree]
    server: Any
    place: Callable[[Tree], Tree]

    def __new__(
        cls,
        init: Callable[[Tree], optax.OptState],
        update: Callable[..., tuple[Tree, optax.OptState]],
        read: Callable[..., Tree] = own_params,
        server: Any = None,
        place: Callable[[Tree], Tree] = lambda params: params,
    ) -> Method:
        self = super().__new__(cls, init, update)
        self.read, self.server, self.place = read, server, place
        return self


def register(make: Make, traits: Traits, name: str | None = None) -> Make:
    """Register a builder under its own name, or another one."""
    method = Entry(name or make.__name__, make, traits.source, traits)
    check_scheduled(method)
    ALGORITHMS.add(method)
    return make


P = ParamSpec("P")


def registering(tell: Callable[P, Traits]) -> Callable[P, Callable[[Make], Make]]:
    """A decorator that registers a builder under its own name, with what `tell` makes of the decorator's arguments."""

    def decorator(*args: P.args, **kwargs: P.kwargs) -> Callable[[Make], Make]:
        traits = tell(*args, **kwargs)

        return lambda make: register(make, traits)

    return decorator


# Decorators of a builder `name(optimizer, mix=None, *, learning_rate=None, **options)`, told what `Traits` says; a builder
# that takes a mix gives it no default. The last three know the usual traits of their kind.
algorithm = registering(Traits)
synchronous = partial(algorithm, family="synchronous", sends=AllReduce())
gossip = partial(algorithm, family="gossip", staleness="edge", steps="own")
arriving = partial(algorithm, family="asynchronous", sends=Server())


def chain(*parts: optax.GradientTransformation) -> Method:
    """Optax's chain, with the one non-default `read` of its parts (two are an error)."""
    whole = optax.chain(*parts)
    reads = [(i, part.read) for i, part in enumerate(parts) if isinstance(part, Method) and part.read is not own_params]
    if len(reads) > 1:
        raise InputError(f"chain: at most one part may say where the gradient is taken, got {len(reads)}")
    update = optax.with_extra_args_support(whole).update
    if not reads:
        return Method(whole.init, update)
    ((i, read),) = reads
    return Method(whole.init, update, lambda state, params, **extra: read(state[i], params, **extra))


def compressed(shrink: Compressor, tree: Tree, state: Tree, seed: ArrayLike, step: jax.Array) -> tuple[Tree, Tree]:
    """(message, state) of a worker's operator at a step: its key is of (seed, worker, step), or common, as it asks."""
    who = draws.EVERYONE if shrink.shared else lax.axis_index(AXIS)
    return shrink.apply(tree, state, draws.key(seed, who, step, draws.MESSAGES))


def at_boundary(step: Any, period: int, make: Callable[[], Any], otherwise: Callable[[], Any], begin: int = 0) -> Any:
    """`make()` at every `period`-th step, counted from `begin`, else `otherwise()`; nothing is sent between two boundaries.

    Args:
      step: of a `Clock`, the same on all workers: collectives may stand in `make`.
    """
    if period == 1:
        return make()
    return lax.cond((step - begin + 1) % period == 0, make, otherwise)


def is_count(state: object) -> bool:
    """Whether a part of an optimizer's state is a count and nothing else: that of a schedule. Moments have theirs beside them."""
    return getattr(state, "_fields", None) == ("count",)


def at_count(state: Any, count: Any) -> Any:
    """An optimizer's state as if its schedules had counted so far; what counts for itself, as Adam's moments do, stays."""

    def told(part: Any) -> Any:
        return part._replace(count=jnp.asarray(count, part.count.dtype)) if is_count(part) else part

    return jax.tree.map(told, state, is_leaf=is_count)


def clock() -> Clock:
    """A count of steps that has not begun."""
    return Clock(jnp.zeros((), jnp.int32))


def outer_optimizer(name: str, learning_rate: float, momentum: float) -> optax.GradientTransformation:
    """The optimizer that steps on the differences of whole rounds. 2311.08105: Nesterov SGD."""
    if name == "sgd":
        return optax.sgd(learning_rate, momentum, nesterov=True)
    if name == "adam":
        return optax.adam(learning_rate, momentum)
    raise InputError(f"algorithm.outer: must be sgd or adam, got {name!r}")


def check_order(order: str) -> None:
    """Refuse an order of gradient and elastic force that is none of the two."""
    if order not in ORDERS:
        raise InputError(f"algorithm.order: must be {' or '.join(ORDERS)}, got {order!r}")


def at_least(name: str, value: int, least: int = 1) -> None:
    if value < least:
        raise InputError(f"algorithm.{name}: must be at least {least}, got {value}")
