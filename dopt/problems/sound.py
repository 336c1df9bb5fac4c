"""Whether a problem is one that can be minimized: real data, a real model, a loss that is one real number.

All is asked by shapes alone, before anything is compiled. JAX differentiates a complex model, too, but the gradient that
it gives is the conjugate one, along which a step ascends; a model of whole numbers has none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dopt import draws, flags
from dopt.types import InputError, Params, Problem, Tree

# what a history has anyhow, or a run's table: a metric of that name would take its place
TAKEN = {
    *("step", "gradients", "time", "bytes_sent", "server_bytes_sent"),
    *("loss", "suboptimality", "grad_norm", "consensus_distance"),
    *("finite", "staleness_mean", "staleness_max", "center_loss"),
}
SPLIT = "; split a complex number into two real ones"
SHOWN = 5  # shapes in a message


def check(problem: Problem, dtype: np.dtype, samples: int) -> None:
    """Refuse what is not sound.

    Args:
      dtype: of a run's real numbers.
      samples: of a batch.
    """
    _check_data("data", problem.data, dtype)
    _check_data("test", problem.test, dtype)
    with flags.fixed(dtype == np.float64):
        model = model_of(problem, dtype)
        batch = _batch(problem.data, dtype, samples)
        drawn = (draws.start(0),) if takes_key(problem.loss) else ()
        _check_loss("problem.loss", problem.loss, "take the mean over the batch", model, batch, *drawn)
        if problem.weighted_loss is not None:
            name, weights = "problem.weighted_loss", jax.ShapeDtypeStruct((samples,), dtype)
            _check_loss(name, problem.weighted_loss, "sum the losses by the weights", model, batch, weights)
        _check_metrics(problem, model, dtype)
    if problem.optimum is not None and not callable(problem.optimum):
        check_optimum(problem.optimum)


def check_shards(problem: Problem, workers: int) -> None:
    """Refuse data that is not [workers, samples, ...], and counts that are not of it."""
    leaves = jax.tree.leaves(problem.data)
    shapes = [_shape(x) for x in leaves]
    if not leaves or any(len(s) < 2 or s[:2] != shapes[0][:2] or s[0] != workers for s in shapes):
        more = f" and {len(shapes) - SHOWN} more" if len(shapes) > SHOWN else ""
        raise InputError(
            f"problem: data leaves must be [workers, samples, ...] with workers={workers}, got shapes {shapes[:SHOWN]}{more}"
        )
    if problem.counts is None:
        return
    counts = np.asarray(problem.counts)
    whole = counts.dtype.kind in "iuf" and np.array_equal(counts, np.round(counts))
    if counts.shape != (workers,) or not whole or counts.min() < 1 or counts.max() > shapes[0][1]:
        raise InputError(
            f"problem: counts must be [workers] between 1 and {shapes[0][1]} samples, got {counts.tolist()}"
        )


def check_start(start: Tree, workers: int, model: Tree) -> None:
    """Refuse starts that are not a model for each worker."""
    for x in jax.tree.leaves(start):
        if _shape(x)[:1] != (workers,):
            raise InputError(f"start: leaves must be [workers, ...] with workers={workers}, got shape {_shape(x)}")
    if _form(start) != _form(model):
        raise InputError(f"start: must be built as what problem.init gives, {_form(model)}, got {_form(start)}")
    for (path, x), like in zip(jax.tree_util.tree_leaves_with_path(start), jax.tree.leaves(model), strict=True):
        name = f"start{jax.tree_util.keystr(path)}"
        if _shape(x)[1:] != like.shape:
            raise InputError(f"{name}: must be [workers, *{like.shape}], as problem.init gives, got shape {_shape(x)}")
        if not jnp.issubdtype(_dtype(x), jnp.floating):
            raise InputError(f"{name}: must be floating-point numbers, got {_dtype(x)}{_hint(_dtype(x))}")
        _check_range(name, x, jnp.dtype(like.dtype))


def check_optimum(value: object) -> float:
    """f* as a number."""
    if not isinstance(value, int | float | np.number | np.ndarray | jax.Array) or jnp.ndim(value) != 0:
        raise InputError(f"problem.optimum: must be a number, got {value!r}")
    if jnp.iscomplexobj(value) or not np.isfinite(float(value)):
        raise InputError(f"problem.optimum: must be a finite real number, got {value}")
    return float(value)


def model_of(problem: Problem, dtype: np.dtype) -> Params:
    """Shapes of what `init` gives, in the run's precision."""
    model = _shapes("problem.init", problem.init, draws.start(0))
    leaves = jax.tree_util.tree_leaves_with_path(model)
    if not sum(x.size for _, x in leaves):
        raise InputError("problem.init: gives no number to minimize over; return an array, or a tree of arrays")
    for path, x in leaves:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise InputError(
                f"problem.init: params must be floating-point numbers, got {x.dtype}{_hint(x.dtype)}{_at(path)}"
            )
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), model)


def takes_key(loss: Callable) -> bool:
    """Whether a loss draws: it has a third argument, without a default, or called key."""
    try:
        parameters = list(inspect.signature(loss).parameters.values())
    except (TypeError, ValueError):  # what is written in C does not say
        return False
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(placed) > 2 and (placed[2].name == "key" or placed[2].default is inspect.Parameter.empty)


def _check_data(what: str, data: Tree, dtype: np.dtype) -> None:
    for path, x in jax.tree_util.tree_leaves_with_path(data):
        name, kind = f"problem.{what}{jax.tree_util.keystr(path)}", _dtype(x)
        if not any(jnp.issubdtype(kind, real) for real in (jnp.floating, jnp.integer, jnp.bool_)):
            raise InputError(f"{name}: must be real numbers, whole numbers or truth values, got {kind}{_hint(kind)}")
        _check_range(name, x, dtype)


def _check_range(name: str, x: Any, dtype: np.dtype) -> None:
    """Refuse what the cast to the run's precision, or to int32, would turn into another number."""
    x = np.asarray(x)
    if x.dtype.kind in "iu" and x.dtype.itemsize >= 4 and x.dtype != np.int32 and x.size:
        low, high = int(x.min()), int(x.max())
        if low < -(2**31) or high >= 2**31:
            raise InputError(f"{name}: whole numbers must fit into int32, got {low if low < -(2**31) else high}")
    if x.dtype.kind == "f" and x.dtype.itemsize > dtype.itemsize and x.size:
        largest = float(np.max(np.abs(x), initial=0, where=np.isfinite(x)))
        if largest > float(np.finfo(dtype).max):
            raise InputError(f"{name}: {largest:g} does not fit into {dtype}; use precision: float64, or scale it")


def _check_loss(name: str, loss: Callable, advice: str, *arguments: Tree) -> None:
    kind = _one_number(name, _shapes(name, loss, *arguments), advice)
    if not jnp.issubdtype(kind, jnp.floating):
        raise InputError(f"{name}: must be a floating-point number, got {kind}; it has no gradient")


def _check_metrics(problem: Problem, model: Params, dtype: np.dtype) -> None:
    test = jax.tree.map(lambda x: jax.ShapeDtypeStruct(_shape(x), _kind(x, dtype)), problem.test)
    for name, metric in problem.metrics.items():
        if not isinstance(name, str) or name in TAKEN:
            raise InputError(f"problem.metrics: the name {name!r} is taken; choose another")
        kind = _one_number(f"problem.metrics[{name!r}]", _shapes(f"problem.metrics[{name!r}]", metric, model, test))
        if jnp.issubdtype(kind, jnp.complexfloating):
            raise InputError(f"problem.metrics[{name!r}]: must be a real number, got {kind}")


def _one_number(name: str, found: Any, advice: str = "") -> Any:
    """Its dtype."""
    shapes = [x.shape for x in jax.tree.leaves(found)]
    if _form(found) != _form(0) or shapes != [()]:
        got = f"shape {shapes[0]}" if _form(found) == _form(0) else f"{len(shapes)} values"
        raise InputError(f"{name}: must be one number, got {got}{advice and '; ' + advice}")
    return found.dtype


def _batch(data: Tree, dtype: np.dtype, samples: int) -> Tree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((samples, *_shape(x)[2:]), _kind(x, dtype)), data)


def _shapes(name: str, f: Callable, *arguments: Tree) -> Any:
    """What `f` gives, as shapes; whatever stops it is the user's to mend, and told in a line."""
    try:
        return jax.eval_shape(f, *arguments)
    except InputError:
        raise
    except Exception as error:
        said = " ".join(str(error).split("\n\n")[0].split()) or "no reason given"
        raise InputError(f"{name}: cannot be computed ({type(error).__name__}: {said[:300]})") from error


def _form(tree: Tree) -> Any:
    return jax.tree.structure(tree)


def _kind(x: Any, dtype: np.dtype) -> Any:
    """The dtype in which a worker has it: of real numbers the run's, of whole numbers int32."""
    kind = _dtype(x)
    if jnp.issubdtype(kind, jnp.floating):
        return dtype
    return np.dtype(np.int32) if jnp.issubdtype(kind, jnp.integer) else kind


def _shape(x: Any) -> tuple[int, ...]:
    try:
        return tuple(np.shape(x))
    except ValueError:  # a ragged list
        return ()


def _dtype(x: Any) -> Any:
    return x.dtype if hasattr(x, "dtype") and isinstance(x, jax.Array) else np.asarray(x).dtype


def _hint(kind: Any) -> str:
    return SPLIT if jnp.issubdtype(kind, jnp.complexfloating) else ""


def _at(path: Any) -> str:
    return f", at {jax.tree_util.keystr(path)}" if path else ""


__all__ = ["check", "check_optimum", "check_shards", "check_start", "model_of", "takes_key"]
