"""A run with every default filled in, and every name and value checked."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import optax

from dopt import algorithms, cluster, code, delays, memory, metrics, mixing, schedule, topology
from dopt.algorithms import ALGORITHMS, catalogue, traits
from dopt.algorithms.traits import UNWEIGHTED, Exchange, Traits
from dopt.config import cost
from dopt.config.exchanges import exchange_of
from dopt.config.matrices import network_of
from dopt.config.optimizers import ANCHORED, COUPLED, NOISY, counts_apart, dry_step, optimizer_options
from dopt.config.run import HORIZONS, OWN, PREFIXES, Resolved, Run, of
from dopt.config.schedules import first_zero, schedule_options
from dopt.data import PARTITIONS, SETS
from dopt.devices import EXECUTORS
from dopt.problems import PROBLEMS, layouts
from dopt.registry import Entry, Registry, coerce, did_you_mean, readable
from dopt.text import quoted
from dopt.types import InputError, Problem

SCANNED = 10**6  # steps at which a schedule is looked at

PLUGS: tuple[tuple[str, Registry, tuple[str, ...]], ...] = (  # and what is read where none is named
    ("partition", PARTITIONS, ()),
    ("cluster", cluster.LAWS, ()),
    ("delay", delays.DELAYS, ("max",)),
    ("topology", topology.TOPOLOGIES, ()),
    ("weights", mixing.WEIGHTS, ()),
)
MOST_WORKERS = 10**6
MOST_RECORDS = 10**6
MOST_PLANNED = 10**8  # computations


@cache
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(Run)


def resolve(run: Run, problem: Problem | None, graph: Any, optimizer: object, unread: str) -> Resolved:
    _check_objects(run, problem, graph)
    making = _Resolving(run, unread == "drop")
    _check_numbers(making.values)
    making.batch()
    if making.drops:
        making.leave_out()
    making.algorithm()
    making.optimizer(optimizer)
    making.problem(problem is not None)
    making.network(graph)
    making.links()
    making.delay()
    making.cluster()
    making.records()
    resolved = Resolved.of(Run(**making.values, options=making.options))
    memory.refuse_beyond(cost.needs(resolved))
    return resolved


def _check_objects(run: Run, problem: object, graph: object) -> None:
    """Refuse a name where an object is handed over, and an object where a field takes a name."""
    for name, given, what in (
        ("problem", problem, "a dopt.Problem"),
        ("graph", graph, "a networkx graph or a matrix W"),
    ):
        if isinstance(given, str | Mapping) or (name == "problem" and not isinstance(given, Problem | None)):
            field = {"graph": "topology"}.get(name, name)
            advice = f"for what has a name, write Run({field}={given!r}, ...)" if isinstance(given, str) else "make one"
            raise InputError(f"{name}: must be {what}, got {quoted(given)} ({type(given).__name__}); {advice}")
    for name, own in (("problem", "problem"), ("topology", "graph"), ("weights", "graph")):
        given = getattr(run, name)
        if not isinstance(given, str | int | float | None):
            advice = (
                'options are dotted, as "problem.dim"'
                if isinstance(given, Mapping)
                else f"hand it over as dopt.run(run, {own}=...)"
            )
            raise InputError(f"{name}: must be a name, got {quoted(given)} ({type(given).__name__}); {advice}")
    if not isinstance(run.options, Mapping):
        raise InputError(f"options: must map dotted names to values, got {quoted(run.options)}")


def rate_of(given: Any, like: Resolved) -> float:
    """A learning rate as `resolve` takes it for a run that is `like` this one in all else, whatever its rate and seed are.

    Raises:
      InputError: `resolve` would refuse that run.
    """
    rate: float = coerce("learning_rate", given, float)
    _check_positive(rate)
    _check_rate(rate, like.precision)
    method = ALGORITHMS[like.algorithm]
    catalogue.check_rate(method, rate)
    if "learning_rate.schedule" in like.options:
        events = traits.is_event_driven(exchange_of(like))
        _check_zeros({**vars(like), "learning_rate": rate}, method, like.options, events)
    return rate


def seed_of(given: Any) -> int:
    """A seed as `resolve` takes it, of whatever run."""
    seed: int = coerce("seed", given, int)
    _check_seed(seed)
    return seed


class _Resolving:
    """A run on its way: what is given, and what of it is filled in and checked. A part of the run in each method, in order."""

    def __init__(self, run: Run, drops: bool):
        hints = _hints()
        self.drops = drops  # what the method does not read, where it is not refused
        self.values = {
            f.name: coerce(f.name, getattr(run, f.name), hints[f.name])
            for f in dataclasses.fields(Run)
            if f.name != "options"
        }
        self.given: dict[str, dict[str, Any]] = {prefix: {} for prefix in PREFIXES}
        for name, value in run.options.items():
            prefix, _, rest = name.partition(".")
            if prefix not in self.given or not rest:
                raise InputError(f"{name}: no such option{did_you_mean(prefix, PREFIXES)}")
            self.given[prefix][rest] = value
        self.method = ALGORITHMS[self.values["algorithm"]]
        self.traits = self.method.traits
        self.options: dict[str, Any] = {}
        self.exchange: tuple[Exchange, ...] = ()  # what the method sends
        self.events = False  # whether it is driven by arrivals
        self.needs: str | None = None  # the kind of mixing matrix

    def take(self, prefix: str, resolved: Mapping[str, Any]) -> None:
        self.options.update({f"{prefix}.{name}": value for name, value in resolved.items()})

    def own(self, prefix: str) -> dict[str, Any]:
        """The options of a prefix that were taken."""
        return of(self.options, prefix)

    def leave(self, prefix: str, reader: str, default: Any = None) -> None:
        """`prefix` is not read: refuse it where it was given, or drop it."""
        value, options = self.values[prefix], self.given.get(prefix)
        if not self.drops and (value != default or options):
            name = prefix if value != default else f"{prefix}.{next(iter(options or ()))}"
            raise InputError(f"{name}: {reader} does not read it; leave it out")
        self.values[prefix] = default

    def batch(self) -> None:
        total, workers = self.values["total_batch"], self.values["workers"]
        if total is None:
            return
        if total % workers:
            raise InputError(f"total_batch: must be a multiple of workers={workers}, got {total}")
        own = total // workers
        if self.values["batch_size"] not in (None, own) and not self.drops:
            raise InputError(
                f"batch_size: total_batch={total} over workers={workers} says {own}, got {self.values['batch_size']}; leave one out"
            )
        self.values["batch_size"] = own

    def leave_out(self) -> None:
        """Options that only other plug-ins of the same kind read."""
        self.given["algorithm"] = algorithms.readable(self.method.name, self.given["algorithm"])
        for name, registry, plain in PLUGS:
            value, options = self.values[name], self.given[name]
            if registry is topology.TOPOLOGIES and isinstance(value, str) and topology.is_generator(value):
                self.given[name] = topology.readable(value, options)
            elif isinstance(value, str) and registry.has(value):
                self.given[name] = readable(options, registry[value].known, registry)
            elif value is None or not isinstance(value, str):  # a name from elsewhere reads what it likes
                self.given[name] = readable(options, plain, registry)

    def algorithm(self) -> None:
        """The method, and what it sends."""
        values, given = self.values, self.given
        self.take("algorithm", algorithms.options(self.method.name, given["algorithm"]))
        self.exchange = catalogue.dry_build(self.method, self.own("algorithm"), values["workers"])
        self.events, self.needs = traits.is_event_driven(self.exchange), traits.matrix_kind(self.exchange)
        if self.events:
            schedule.check(traits.coordination_of(self.exchange), values["workers"])

    def optimizer(self, handed_over: object) -> None:
        """The local optimizer and its rate."""
        values, given = self.values, self.given
        if handed_over is not None:
            self.own_optimizer(handed_over)
            return
        self.take("optimizer", optimizer_options(values["optimizer"], given["optimizer"]))
        catalogue.check_optimizer(
            self.method, values["optimizer"], self.own("optimizer"), values["learning_rate"], values["strict"]
        )
        _check_fit(values["optimizer"], self.method, self.events)
        self.take("learning_rate", schedule_options(given["learning_rate"]))
        plain = tuple((k, v) for k, v in self.options.items() if not k.startswith("algorithm."))
        dry_step(values["optimizer"], plain, values["precision"])
        if "learning_rate.schedule" in self.options:
            _check_schedule(values, self.method, self.options, plain, self.events)

    def own_optimizer(self, optimizer: object) -> None:
        """A local optimizer that was handed over, and has its rate in itself."""
        if not isinstance(optimizer, optax.GradientTransformation):
            raise InputError(
                f"optimizer: must be an optax transformation, as optax.adam(1e-3), got {quoted(optimizer)} ({type(optimizer).__name__})"
            )
        if self.given["learning_rate"]:
            raise InputError("learning_rate.schedule: a run with optimizer= does not read it; leave it out")
        self.leave("optimizer", "a run with optimizer=", default="sgd")
        self.values["optimizer"] = OWN
        strict, rate = self.values["strict"], self.values["learning_rate"]
        catalogue.check_optimizer(self.method, OWN, {}, rate, strict)

    def problem(self, handed_over: bool) -> None:
        values, given = self.values, self.given
        if handed_over:
            for name in ("problem", "data", "partition"):
                self.leave(name, "a run with problem=")
            values["problem"] = OWN
            return
        values["problem"] = "softmax" if values["problem"] is None else values["problem"]
        entry = PROBLEMS[values["problem"]]
        laid = "layout" in entry.known
        if laid and self.drops:
            given["problem"] = layouts.readable(given["problem"])
        self.take("problem", entry.options(given["problem"], "problem"))
        if laid:
            layouts.check(*(self.options[f"problem.{name}"] for name in layouts.OPTIONS))
        if not entry.traits["data"]:
            for name in ("data", "partition"):
                self.leave(name, f"problem {values['problem']}")
            memory.refuse_beyond(cost.data(values["problem"], None, values["workers"], self.options))
            return
        values["data"] = entry.traits["data"] if values["data"] is None else values["data"]
        _check_kind(entry, SETS[values["data"]])
        values["partition"] = "iid" if values["partition"] is None else values["partition"]
        if values["eval_samples"] is None:
            values["eval_samples"] = entry.traits.get("eval_samples")
        self.take("data", SETS[values["data"]].options(given["data"], "data"))
        memory.refuse_beyond(cost.data(values["problem"], values["data"], values["workers"], self.options))
        self.take("partition", PARTITIONS[values["partition"]].options(given["partition"], "partition"))

    def network(self, graph: Any) -> None:
        """The graph and its weights."""
        values, weights = self.values, self.given["weights"]
        if self.needs is None:
            if graph is not None:
                raise InputError(f"graph: {self.method.name} has no mixing matrix; leave graph= out")
            for name in ("topology", "weights"):
                self.leave(name, self.method.name)
        elif graph is not None:
            self.leave("topology", "a run with graph=")
            values["topology"] = OWN
            if isinstance(graph, topology.Network):
                self.take("weights", _weights(values, self.needs, mixing.default_rule(graph), weights, self.leave))
            else:
                self.leave("weights", "a run with a matrix as graph=")
                values["weights"] = OWN
        elif (
            self.needs not in UNWEIGHTED
            and mixing.is_file(values["weights"] or "")
            and values["topology"] in (None, OWN)
        ):
            values["topology"] = None
            self.leave("topology", "a run with a matrix as weights")
            values["topology"] = OWN  # the matrix says who talks to whom, and no graph lends it its name
            self.take("weights", _weight_options(values["weights"], weights))
            memory.refuse_beyond([mixing.need(values["workers"])])
        else:
            values["topology"] = "ring" if values["topology"] is None else values["topology"]
            self.take("topology", topology.resolved(values["topology"], self.given["topology"]))
            memory.refuse_beyond(
                cost.network(values["topology"], values["workers"], self.own("topology"), values["weights"], self.needs)
            )
            # the default follows from the kind of graph, which only the graph itself tells
            rule = mixing.default_rule(network_of(values["topology"], values["workers"], self.own("topology")))
            self.take("weights", _weights(values, self.needs, rule, weights, self.leave))

    def links(self) -> None:
        """In which form W runs, and whether its links fail."""
        values, name = self.values, self.method.name
        if self.needs in (None, *UNWEIGHTED):
            self.leave("mix", name, default="auto")
            self.leave("link_loss", name, default=0.0)
        elif values["mix"] not in mixing.FORMS:
            raise InputError(f"mix: unknown form {values['mix']!r}{did_you_mean(values['mix'], mixing.FORMS)}")
        if values["link_loss"]:
            self.take("link_loss", mixing.loss_options(self.given["link_loss"], name, str(self.needs)))
        else:
            self.leave("link_loss", "a run whose links do not fail", default=0.0)

    def delay(self) -> None:
        values, given, name = self.values, self.given["delay"], self.method.name
        if self.traits.staleness is None:
            self.leave("delay", name, default=0)
            return
        edges = self.traits.staleness == "edge"
        if values["delay"] == "cluster":
            if not self.traits.delayed or not edges:
                raise InputError(
                    f"delay: {name} cannot run without barriers, got cluster; use delayed_gossip_sgd, or a law"
                )
            if len(self.exchange) > 1:
                raise InputError(f"delay: {name} waits for all now and then, got cluster; use a law")
            if given:
                raise InputError(f"delay.{next(iter(given))}: the cluster says how old models are; leave it out")
            values["cluster"] = "exponential" if values["cluster"] is None else values["cluster"]
            return
        memory.refuse_beyond(cost.delay(values["delay"], given, values["workers"]))
        values["delay"], law = delays.resolve(values["delay"], given, edges=edges)
        if name == "delayed_sgd" and self.options["algorithm.read"] == "queue" and isinstance(values["delay"], str):
            raise InputError(
                f"delay: algorithm.read=queue needs a constant delay (each gradient lands once), got {values['delay']}; use read=iterate"
            )
        if values["delay"] and not traits.mixes_once(self.exchange):
            raise InputError(
                f"delay: {name} with these options does not mix exactly once a step, got {values['delay']}; delays need rounds = local_steps = 1 and combine-then-adapt tracking"
            )
        self.take("delay", law)

    def cluster(self) -> None:
        values, name = self.values, self.method.name
        if not self.traits.reads_cluster:
            self.leave("cluster", name)
            return
        if self.events:
            values["cluster"] = "constant" if values["cluster"] is None else values["cluster"]
        if values["cluster"] is None:
            self.leave("cluster", "a run without a cluster")
            return
        self.take("cluster", cluster.options(values["cluster"], self.given["cluster"]))
        if self.options["cluster.batch"] is not None:
            if self.options["cluster.batch"] < 1:
                raise InputError(f"cluster.batch: must be at least 1, got {self.options['cluster.batch']}")
            if values["batch_size"] is None:
                raise InputError("cluster.batch: the full gradient has no batch; give batch_size")

    def records(self) -> None:
        values = self.values
        values["metrics"] = _metrics(values["metrics"], str(values["problem"]))
        steps = cost.expected_steps(values, self.events)
        if values["record_every"] is None and values["record_seconds"] is None:
            values["record_every"] = max(1, steps // 50)
        _check_size(values, steps, self.events)


def _check_kind(problem: Entry[Any], given: Entry[Any]) -> None:
    """Refuse a set of another kind than the one that the problem learns from by default."""
    default = problem.traits["data"]
    wanted, kind = SETS[default].traits["kind"], given.traits["kind"]
    if kind != wanted:
        raise InputError(f"data: {problem.name} learns from {wanted}, got {given.name} of kind {kind}; use {default}")


def _check_size(values: Mapping[str, Any], steps: int, events: bool) -> None:
    """Refuse more than a host can write down: records, and computations that the clock plans ahead."""
    name = "record_every" if values["record_every"] is not None else "record_seconds"
    seconds = values["seconds"] or steps  # without a cluster, a step is a second
    records = steps // values[name] if name == "record_every" else min(steps, seconds / values[name])
    if records > MOST_RECORDS:
        raise InputError(
            f"{name}: at most {MOST_RECORDS} records are kept, got {name}={values[name]:g} for {steps} steps; record less often"
        )
    computations = steps * (1 if events else values["workers"])
    if values["cluster"] is not None and computations > MOST_PLANNED:
        raise InputError(
            f"{_horizon(values)}: a cluster's clock plans at most {MOST_PLANNED} computations, got about {computations}; ask for fewer, or leave cluster out"
        )


def _horizon(values: Mapping[str, Any]) -> str:
    return next(name for name in HORIZONS if values[name] is not None)


def _check_numbers(values: Mapping[str, Any]) -> None:
    horizons = [name for name in HORIZONS if values[name] is not None]
    if len(horizons) != 1:
        raise InputError(f"steps: give exactly one of steps, gradients, seconds; got {', '.join(horizons) or 'none'}")
    if not 0 <= values["link_loss"] <= 1:
        raise InputError(f"link_loss: must lie in [0, 1], got {values['link_loss']}")
    if values["record_every"] is not None and values["record_seconds"] is not None:
        raise InputError("record_seconds: give one of record_every and record_seconds, got both")
    for name in ("workers", *HORIZONS, "batch_size", "total_batch", "record_every", "record_seconds", "eval_samples"):
        if values[name] is not None and not (values[name] > 0 and math.isfinite(values[name])):
            raise InputError(f"{name}: must be positive, got {values[name]}")
    if values["workers"] > MOST_WORKERS:
        raise InputError(f"workers: must be at most {MOST_WORKERS}, got {values['workers']}")
    _check_positive(values["learning_rate"])
    _check_seed(values["seed"])
    if values["precision"] not in ("float32", "float64"):
        raise InputError(f"precision: must be float32 or float64, got {values['precision']!r}")
    _check_rate(values["learning_rate"], values["precision"])
    if values["executor"] not in EXECUTORS:
        raise InputError(f"executor: unknown name {values['executor']!r}{did_you_mean(values['executor'], EXECUTORS)}")


def _check_positive(rate: float) -> None:
    if not (rate >= 0 and math.isfinite(rate)):
        raise InputError(f"learning_rate: must be a finite number, not negative, got {rate}")


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**31:
        raise InputError(f"seed: must lie in [0, 2^31), got {seed}")


@cache
def _limits(precision: str) -> tuple[float, float]:
    """The smallest number with all its digits, and the largest."""
    return float(np.finfo(precision).tiny), float(np.finfo(precision).max)


def _check_rate(rate: float, precision: str) -> None:
    """Refuse a rate that would be infinite, or 0, in this precision."""
    least, most = _limits(precision)
    if rate and not least <= rate <= most:
        raise InputError(f"learning_rate: {rate:g} does not fit into {precision} (0, or {least:.2g} to {most:.2g})")


def _weights(
    values: dict[str, Any], needs: str, rule: str | None, given: Mapping[str, Any], leave: Callable[..., None]
) -> dict[str, Any]:
    """Options of the weight rule, which is filled in where it is not given; `rule` is the default, None: none is read."""
    if rule is None or needs in UNWEIGHTED:
        leave("weights", UNWEIGHTED.get(needs, "a random sequence, which brings its own weights,"))
        return {}
    if values["weights"] is None:
        own = {"column stochastic": "push", "row and column stochastic": "pull"}
        values["weights"] = rule if rule == "given" else own.get(needs, rule)
    return _weight_options(values["weights"], given)


def _weight_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    if mixing.is_file(name):
        if given:
            raise InputError(f"weights.{next(iter(given))}: a file has no options")
        return {}
    return mixing.WEIGHTS[name].options(given, "weights")


def _check_schedule(
    values: Mapping[str, Any],
    method: Entry[Traits],
    options: Mapping[str, Any],
    plain: tuple[tuple[str, Any], ...],
    events: bool,
) -> None:
    """Refuse a schedule that a method would forget, or divide by when it is 0."""
    name, optimizer = method.name, values["optimizer"]
    if method.traits.does_restart(of(options, "algorithm")) and not counts_apart(optimizer, plain):
        raise InputError(
            f"learning_rate.schedule: {name} restarts local optimizers or lets them rest, and {optimizer} has no separate count for its schedule; use another optimizer, such as adam"
        )
    _check_zeros(values, method, options, events)


def _check_zeros(values: Mapping[str, Any], method: Entry[Traits], options: Mapping[str, Any], events: bool) -> None:
    """Refuse a schedule that is 0 where a method divides by it."""
    if not method.traits.divides_by_rate:
        return
    period, total = options.get("algorithm.local_steps", 1), min(cost.expected_steps(values, events), SCANNED)
    fields = {name: values[name] for name in ("algorithm", "workers", "learning_rate", "precision")}
    rates = Run(**fields, options=options)
    zero = first_zero(rates, np.arange(period - 1, total, period))
    if zero is not None:
        raise InputError(
            f"learning_rate.schedule: {method.name} divides by the rate, got one that is 0 at step {zero}; let it start and end above 0"
        )


def _check_fit(optimizer: str, method: Entry[Traits], events: bool) -> None:
    """Refuse local optimizers that would be another one in this method, or draw what cannot be drawn."""
    name, steps = method.name, method.traits.steps
    if optimizer in ANCHORED and steps not in ("common", "part"):
        why = "models are averaged" if steps != "scaled" else "updates are scaled or cut"
        raise InputError(
            f"optimizer: {optimizer} works only where its own updates alone move the model, and in {name} {why}; use it where all workers share one model, as in allreduce_sgd"
        )
    if optimizer in COUPLED and steps == "part":
        raise InputError(
            f"optimizer: {optimizer} looks at whole leaves of a model, and {name} gives each worker only a piece; use one that treats each coordinate by itself, such as adam"
        )
    if optimizer in NOISY and (steps == "first" or (steps == "own" and events)):
        raise InputError(
            f"optimizer: {optimizer} draws noise for each worker and step, but {name} does not tell an optimizer both; use local_sgd or gossip_sgd"
        )


def _metrics(chosen: tuple[str, ...] | None, problem: str) -> tuple[str, ...] | None:
    """The names in order; those of a problem from outside are known when it is made (`facts.problem`)."""
    if chosen is None:
        return None
    is_own = problem == OWN or code.is_outside(PROBLEMS[problem].make)
    if not is_own and not {*metrics.CHOICES, *metrics.OF_PROBLEMS} >= set(chosen):
        known = metrics.known()
        for name in chosen:
            if name not in known:
                raise InputError(f"metrics: unknown name {quoted(name)}{did_you_mean(name, known)}")
    return tuple(sorted(set(chosen)))
