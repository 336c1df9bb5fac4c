"""The problem of a group of runs: made, checked, and what follows from it alone. Host."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from dopt import data, flags, metrics
from dopt.config import COUPLED, LINEAR, Resolved, options_of
from dopt.config.exchanges import traits_of
from dopt.config.identity import check_drawn as refuse_drawn
from dopt.facts import shards
from dopt.problems import PROBLEMS, Shards, sound
from dopt.registry import did_you_mean
from dopt.text import quoted
from dopt.types import InputError, Problem, Tree


def make_problem(run: Resolved) -> Problem:
    """The problem of a run, its data split over the workers.

    Raises:
      InputError: another one comes out each time.
    """
    made = _make_problem(run)
    refuse_drawn(run, made, lambda: _make_problem(run))
    return made


def check_drawn(run: Resolved, made: Problem) -> None:
    """Refuse a problem where another one comes out each time."""
    with flags.fixed(run.precision == "float64"):
        refuse_drawn(run, made, lambda: _make_problem(run))


def _make_problem(run: Resolved) -> Problem:
    entry = PROBLEMS[str(run.problem)]
    options = options_of(run, "problem")
    if not entry.traits["data"]:
        alone: Problem = entry.make(None, run.workers, **options)
        return alone
    dataset = data.load(str(run.data), **options_of(run, "data"))
    parts = data.PARTITIONS[str(run.partition)].make(dataset.train["y"], run.workers, **options_of(run, "partition"))
    train, counts = data.shard(dataset.train, parts)
    made: Problem = entry.make(Shards(train, counts, dataset.test, dataset.classes), run.workers, **options)
    return made


def dtype_of(run: Resolved) -> np.dtype:
    """The run's precision."""
    return np.dtype(run.precision)


def checked(run: Resolved, own: Problem | None) -> Problem:
    """The problem that was handed over, or the run's own, refused where the run cannot minimize it.

    Whether the run's own is the same each time, `check_drawn` asks.
    """
    with flags.fixed(run.precision == "float64"):
        problem = own or _make_problem(run)
    sound.check_shards(problem, run.workers)
    counts = shards.counts(problem)
    _check_batch(run, counts)
    _check_layout(run, problem)
    sound.check(problem, dtype_of(run), int(counts.min()) if run.batch_size is None else run.batch_size)
    _check_weighing(run, problem)
    _check_metrics(run, problem)
    return problem


def _check_metrics(run: Resolved, problem: Problem) -> None:
    """Refuse names that neither dopt, nor a plug-in, nor the problem has, and metrics that are no number."""
    there = {*metrics.CHOICES, *metrics.OF_PROBLEMS, *problem.metrics}
    for name in run.metrics or ():
        if name not in there and not metrics.METRICS.has(name):
            raise InputError(f"metrics: unknown name {quoted(name)}{did_you_mean(name, there | metrics.known())}")
    for name in registered(run, problem):
        _check_number(name, run, problem)


def _check_number(name: str, run: Resolved, problem: Problem) -> None:
    leading = (run.workers,) if metrics.of_models(name) else ()
    models = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*leading, *x.shape), x.dtype), model_of(run, problem))
    with flags.fixed(run.precision == "float64"):
        found = jax.eval_shape(lambda them: metrics.METRICS[name].make(them, problem), models)
    shape = getattr(found, "shape", None)
    if shape != ():
        what = "a tree" if shape is None else f"an array of shape {shape}"
        raise InputError(f"metrics: {name} must give a number, got {what}")


def _check_batch(run: Resolved, counts: np.ndarray) -> None:
    if run.batch_size is not None and run.batch_size > counts.min():
        raise InputError(
            f"batch_size: must not exceed the smallest shard, {counts.min()} samples (worker {np.argmin(counts)}), got {run.batch_size}; use batch_size={counts.min()} or fewer workers"
        )


def _check_layout(run: Resolved, problem: Problem) -> None:
    """Refuse an optimizer or a batch that does not fit a model that is cut into parts."""
    if problem.layout is None:
        return
    if run.optimizer in COUPLED:
        raise InputError(
            f"optimizer: {run.optimizer} looks at whole leaves of a model, which problem.layout cuts; use one that treats each coordinate by itself, such as adam, or leave the layout out"
        )
    pieces, batch = problem.layout.micro_batches, run.batch_size
    if pieces > 1 and (batch is None or batch % pieces):
        raise InputError(
            f"batch_size: must be a multiple of problem.micro_batches={pieces}, got {'the full local gradient' if batch is None else batch}; use batch_size={pieces}"
        )


def _check_weighing(run: Resolved, problem: Problem) -> None:
    """Refuse weights of workers that the method, or its local optimizer, would not mind."""
    if not problem.weighted:
        return
    traits = traits_of(run)
    if traits.weighs is None:
        raise InputError(
            f"problem.weighted: {run.algorithm} has no rule for workers of unequal weight; use weighted=false, or local_sgd, diloco or fedbuff"
        )
    alone = traits.weighs == "gradients" and traits.steps == "own"
    if alone and run.strict and run.optimizer not in LINEAR:
        raise InputError(
            f"problem.weighted: {run.algorithm} weighs the gradients that each worker steps on, and {run.optimizer} hardly depends on their size; use sgd, or strict: false"
        )


def weighs(run: Resolved, problem: Problem) -> str:
    """What counts by a worker's share of the samples; a problem that is not weighted has equal ones."""
    return (traits_of(run).weighs or "") if problem.weighted else "gradients"


def is_asked(run: Resolved, metric: str) -> bool:
    """Whether a run asks for a metric."""
    return run.metrics is None or metric in run.metrics


def is_recorded(run: Resolved, problem: Problem, metric: str) -> bool:
    """Whether a run's history has that metric."""
    there = metric in (*metrics.CHOICES, *problem.metrics, *registered(run, problem))
    compares = problem.optimum is not None and run.eval_samples is None
    return is_asked(run, metric) and there and (compares or metric != "suboptimality")


def recorded(run: Resolved, problem: Problem) -> tuple[str, ...]:
    """The metrics that the program takes; f, too, where its distance to f* is asked for."""
    asked = [name for name in ("loss", "grad_norm", "consensus_distance") if is_asked(run, name)]
    if is_asked(run, "suboptimality"):
        asked.append("loss")
    asked += [name for name in problem.metrics if is_asked(run, name)]
    return tuple(dict.fromkeys([*asked, *registered(run, problem)]))


def registered(run: Resolved, problem: Problem) -> tuple[str, ...]:
    """The metrics from outside that a run names; a problem's own one comes first."""
    own = (*metrics.CHOICES, *problem.metrics)
    return tuple(name for name in run.metrics or () if name not in own and metrics.METRICS.has(name))


def optimum(run: Resolved, problem: Problem) -> float | None:
    """f*, where it is known, asked for, and comparable with what metrics look at."""
    f = problem.optimum
    if f is None or not is_asked(run, "suboptimality") or run.eval_samples is not None:
        return None
    return sound.check_optimum(f() if callable(f) else f)


def model_of(run: Resolved, problem: Problem) -> Tree:
    """One worker's model, as shapes in the run's precision."""
    with flags.fixed(run.precision == "float64"):
        return sound.model_of(problem, dtype_of(run))


def start_of(run: Resolved, problem: Problem, own: Tree, model: Tree) -> Tree:
    """Models to start from, leaves [workers, ...] in the run's precision; None: each worker makes its own."""
    start = problem.start if own is None else own
    if start is not None:
        with flags.fixed(run.precision == "float64"):
            sound.check_start(start, run.workers, model)
    return jax.tree.map(lambda x: shards.cast(x, dtype_of(run)), start)


def test_of(run: Resolved, problem: Problem) -> Tree:
    """The held-out samples that metrics look at, evenly spaced where `eval_samples` bounds them."""
    test, wanted = problem.test, run.eval_samples
    if wanted is not None and test is not None:
        size = len(jax.tree.leaves(test)[0])
        test = jax.tree.map(lambda x: x[np.unique(np.arange(min(wanted, size)) * size // min(wanted, size))], test)
    return jax.tree.map(lambda x: shards.cast(x, dtype_of(run)), test)


def notes(run: Resolved, problem: Problem, own: bool) -> Sequence[str]:
    """What is left out of a run's metrics, and why. `own`: the problem was handed over."""
    found = [problem.note] if problem.note and is_asked(run, "suboptimality") else []
    if run.eval_samples is not None and problem.optimum is not None and is_asked(run, "suboptimality"):
        found.append("suboptimality is left out: f* is known for all samples, not for eval_samples of them")
    looked, all_of_them = run.eval_samples, int(shards.counts(problem).sum())
    if not own and looked is not None and looked == _looked_at(run) and looked < all_of_them:
        found.append(f"metrics look at {looked} of {all_of_them} samples, evenly spaced; eval_samples says how many")
    for name in run.metrics or ():
        if name not in (*metrics.CHOICES, *recorded(run, problem)):
            found.append(f"{name} is left out: the problem or its data do not have it")
    return found


def _looked_at(run: Resolved) -> int | None:
    """Samples that metrics look at where nobody says."""
    return PROBLEMS[str(run.problem)].traits.get("eval_samples")
