"""What a method is: an optax transformation with collectives inside, and the model at which it wants its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from dopt import draws, registry
from dopt.compression import COMPRESSORS, Compressor
from dopt.registry import Registry
from dopt.types import AXIS, Clock, Coordination, InputError, Reduction, Tree

ALGORITHMS = Registry("algorithm")
ORDERS = ("joint", "gradient_first")  # of gradient and elastic force


def own_params(state: Any, params: Tree, **extra: Any) -> Tree:
    """The default `read`: the worker's own present model."""
    return params


class Method(optax.GradientTransformationExtraArgs):
    """`init`, `update(grads, state, params, **extra)` and `read(state, params, **extra)`.

    A subclass of optax's type with extra args, since `optax.chain` keeps the extra args from a plain pair, silently.

    `server` is what a method driven by arrivals makes of one (`dopt.algorithms.asynchronous.server`); None: the model is stepped on
    each gradient as it comes. `place` cuts a worker's part out of a whole model, where it keeps but a part; `init` takes the whole.
    """

    read: Callable[..., Tree]
    server: Any
    place: Callable[[Tree], Tree]

    def __new__(
        cls,
        init: Callable,
        update: Callable,
        read: Callable[..., Tree] = own_params,
        server: Any = None,
        place: Callable[[Tree], Tree] = lambda params: params,
    ) -> Method:
        self = super().__new__(cls, init, update)
        self.read, self.server, self.place = read, server, place
        return self


def method(
    *,
    family: str,
    source: str,
    sends: str,
    needs: str | Callable[[Mapping[str, Any]], str] | None = None,
    staleness: str | None = None,
    cluster: str | None = None,
    coordination: Callable[[Mapping[str, Any], int], Coordination] | None = None,
    scheduled: tuple[str, ...] = (),
    linear: bool = False,
    rate: bool = False,
    once: Callable[[Mapping[str, Any]], bool] = lambda options: True,
    delayed: bool = False,
    reduction: Callable[[Mapping[str, Any]], Reduction] = lambda options: Reduction(),
    center: Callable[[Any], Tree] | None = None,
    join: Callable[[Tree, Tree], Tree] | None = None,
    whole: bool = False,
    restarts: Callable[[Mapping[str, Any]], bool] = lambda options: False,
    weighs: str | None = "gradients",
    steps: str = "common",
) -> Callable[[Callable], Callable]:
    """Register a builder `name(optimizer, mix=None, *, learning_rate=None, **options)` under its own name.

    Args:
      family: synchronous, asynchronous or gossip.
      source: the paper, with equation or algorithm number.
      sends: what a step costs: "allreduce" (or what `reduction` says), "neighbours" (a message to each), "server" (a gradient up, a model down) or "pair"
        (two models, exchanged).
      needs: the kind of mixing matrix that the theory asks for (`dopt.mixing.check`), or options -> kind; None: the
        method takes no mix.
      staleness: who draws the delay: "step" (one per step), "edge" (one per sender and step), "coordinate"; None: it reads no delay.
      cluster: whom a step waits for: "all", "neighbours", "nobody"; None: it reads no cluster.
      coordination: (options, workers) -> what it tells the clock, of a method that is driven by arrivals; there is no
        axis of workers then. None: all workers make a step together.
      scheduled: options that only the clock reads.
      linear: the theory needs a linear local update u(g) (L).
      rate: it divides by the learning rate (α).
      once: options -> whether it mixes exactly once a step, as delays need.
      delayed: old models are its point: it keeps a ring of them even where the delay is 0.
      reduction: options -> what the workers reduce and when, of a synchronous method.
      center: state -> a model that all share beside their own, which is evaluated as well.
      join: (parts, leaves [workers, ...]; shapes of the whole) -> the whole model, where each worker keeps but a part.
      whole: a model travels, or the difference of two, and not a gradient: all of it, whatever a gradient touches.
      restarts: options -> whether local optimizers start afresh, or rest, now and then, and their schedules are told what to count
        (`at_count`).
      weighs: what counts in proportion to a worker's samples where the problem is weighted: "gradients"; "models", which are averaged
        (`update` is told the worker's `share`, n_k over the mean); "arrivals", what is pushed to a server; None: nothing, which is refused.
      steps: what the local optimizer steps: "common", one model of all, by its own update; "part", each worker its part of
        that; "own", each worker its own model, and these are averaged or mixed; "first" all, then own; "scaled", one
        model, but not by the optimizer's own update.
    """
    return ALGORITHMS.register(
        source=source,
        family=family,
        sends=sends,
        needs=needs,
        staleness=staleness,
        cluster=cluster,
        coordination=coordination,
        events=coordination is not None,
        scheduled=scheduled,
        linear=linear,
        rate=rate,
        once=once,
        delayed=delayed,
        reduction=reduction,
        center=center,
        join=join,
        whole=whole,
        restarts=restarts,
        weighs=weighs,
        steps=steps,
    )


synchronous = partial(method, family="synchronous", sends="allreduce", cluster="all")
gossip = partial(method, family="gossip", sends="neighbours", staleness="edge", cluster="neighbours", steps="own")

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
        own |= set(COMPRESSORS[chosen].known if isinstance(chosen, str) and chosen in COMPRESSORS else ())
    return registry.readable(given, own, {**ALGORITHMS, **COMPRESSORS})


_options = options  # `make` has options of its own


def needs(name: str, options: Mapping[str, Any]) -> str | None:
    """The kind of mixing matrix that a method with these options asks for."""
    kind = ALGORITHMS[name].traits["needs"]
    return kind(options) if callable(kind) else kind


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
    if (mix is None) != (entry.traits["needs"] is None):
        raise InputError(
            f"algorithm: {name} {'needs a mix; pass dopt.mixing.mix(W)' if mix is None else 'takes no mix'}"
        )
    resolved = _options(name, options, implied=("learning_rate",))
    return entry.make(optimizer, mix, learning_rate=learning_rate, **resolved)


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


def mean(tree: Tree) -> Tree:
    """Average over the workers: psum over n, the all-reduce."""
    return lax.pmean(tree, AXIS)


def mean_model(tree: Tree, share: Any = None) -> Tree:
    """Average of the workers' models; where each has a `share` [], Σ share x / Σ share: McMahan et al. 2017, algorithm 1."""
    if share is None:
        return mean(tree)
    total = lax.psum(share, AXIS)
    return jax.tree.map(lambda x: lax.psum(share.astype(x.dtype) * x, AXIS) / total.astype(x.dtype), tree)


def compressed(shrink: Compressor, tree: Tree, state: Any, seed: Any, step: Any) -> tuple[Tree, Any]:
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


def add(a: Tree, *rest: Tree) -> Tree:
    return jax.tree.map(lambda *x: sum(x[1:], x[0]), a, *rest)


def subtract(a: Tree, b: Tree) -> Tree:
    return jax.tree.map(lambda x, y: x - y, a, b)


def scale(factor: Any, a: Tree) -> Tree:
    """`factor` times each leaf, in the leaf's own precision."""
    return jax.tree.map(lambda x: jnp.asarray(factor, x.dtype) * x, a)


def zeros(a: Tree) -> Tree:
    return jax.tree.map(jnp.zeros_like, a)


def select(predicate: Any, a: Tree, b: Tree) -> Tree:
    return jax.tree.map(lambda x, y: jnp.where(predicate, x, y), a, b)


def is_count(state: Any) -> bool:
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


def when(predicate: Any, new: Tree, old: Tree) -> Tree:
    """`new` where the predicate holds, else `old`; nothing is computed for one that is known to hold."""
    return new if predicate is True else select(predicate, new, old)


def check_order(order: str) -> None:
    """Refuse an order of gradient and elastic force that is none of the two."""
    if order not in ORDERS:
        raise InputError(f"algorithm.order: must be {' or '.join(ORDERS)}, got {order!r}")


def at_least(name: str, value: int, least: int = 1) -> None:
    if value < least:
        raise InputError(f"algorithm.{name}: must be at least {least}, got {value}")
