"""`Run`, the frozen description of one trajectory: its fields, their defaults, their checks, its identity."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import optax

from dopt import cluster, delays, mixing, topology
from dopt.algorithms import ALGORITHMS
from dopt.data import PARTITIONS, SETS
from dopt.execute import EXECUTORS
from dopt.problems import PROBLEMS
from dopt.registry import Entry, coerce, did_you_mean
from dopt.types import InputError, Problem

SCHEMA = 1  # of the fields and their meaning: part of a run's identity
HORIZONS = ("steps", "gradients", "seconds")
PREFIXES = (
    "algorithm",
    "optimizer",
    "learning_rate",
    "problem",
    "data",
    "partition",
    "topology",
    "weights",
    "delay",
    "cluster",
)
OWN = "own"  # stands for what was handed over in Python


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trajectory: which method, on what problem, network and machines, for how long.

    Options of a plug-in are dotted names in `options`, as `{"topology.degree": 4}`; `from_dict` takes everything flat.
    """

    algorithm: str  # a registered method
    workers: int  # n
    learning_rate: float  # the rate, or the start of `learning_rate.schedule` (an optax schedule by name)
    optimizer: str = "sgd"  # an optax optimizer by name
    problem: str | None = None  # softmax by default
    data: str | None = None  # digits by default, for problems that need data
    partition: str | None = None  # iid by default
    topology: str | None = None  # ring by default, for methods with a mixing matrix
    weights: str | None = None  # metropolis, or uniform for directed graphs
    delay: int | str = 0  # steps, or a law's name
    cluster: str | None = None  # a law of compute times; None: a step takes one second
    steps: int | None = None  # the horizon is exactly one of these three: updates,
    gradients: int | None = None  # computed gradients of all workers together,
    seconds: float | None = None  # or simulated seconds
    batch_size: int | None = None  # None: the full local gradient
    seed: int = 0  # of batches, delays, compute times and starts
    record_every: int | None = None  # steps between records; a fiftieth of the horizon by default
    metrics: tuple[str, ...] | None = None  # None: all there are
    eval_samples: int | None = None  # bounds the cost of metrics; None: all samples
    precision: str = "float32"  # or float64
    executor: str = "vmap"  # vmap, pmap, shard_map, mesh
    strict: bool = True  # False runs what the theory forbids, to show the failure
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, flat: Mapping[str, Any]) -> Run:
        """A Run from names, dotted ones for options; InputError for a name that is neither."""
        fields = {f.name for f in dataclasses.fields(cls)} - {"options"}
        plain = {k: v for k, v in flat.items() if k in fields}
        dotted = {k: v for k, v in flat.items() if k not in fields}
        for name in dotted:
            if name.split(".")[0] not in PREFIXES or "." not in name:
                raise InputError(f"{name}: no such field{did_you_mean(name, [*fields, *(f'{p}.' for p in PREFIXES)])}")
        for name in ("algorithm", "workers", "learning_rate"):
            if plain.get(name) is None:
                raise InputError(f"{name}: every run needs one")
        return cls(**plain, options=dotted)

    def to_dict(self) -> dict[str, Any]:
        """The flat form: fields and dotted options."""
        flat = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "options"}
        return flat | dict(sorted(self.options.items()))

    def resolve(self, *, problem: Problem | None = None, graph: Any = None, unread: str = "refuse") -> Run:
        """This run with every default filled in and every name and value checked.

        Args:
          problem, graph: what stands in for the fields of that name.
          unread: "refuse" or "drop" what the method does not read (a sweep drops, and merges the duplicates).

        Raises:
          InputError: a name, type or value that does not fit.
        """
        return _resolve(self, problem, graph, unread)

    @cached_property
    def id(self) -> str:
        """16 hex digits: a hash of all resolved fields, the schema's number, and the content of own files."""
        return identity(self.resolve(unread="drop"))


def identity(resolved: Run, own: Mapping[str, Any] | None = None) -> str:
    """Hash of a resolved run and of the content of what was handed over (`own`: name -> tree of arrays, or graph)."""
    content = {"schema": SCHEMA, **resolved.to_dict()}
    for name, is_file in (("topology", topology.is_file), ("weights", lambda w: bool(Path(w).suffix))):
        if (
            content[name]
            and content[name] != OWN
            and is_file(content[name])
            and not content[name].startswith("networkx:")
        ):
            try:
                content[f"{name}.content"] = hashlib.sha256(Path(content[name]).read_bytes()).hexdigest()
            except OSError as error:
                raise InputError(f"{name}: no file {content[name]!r} ({error.strerror})") from error
    for name, value in (own or {}).items():
        content[f"{name}.content"] = _digest(value)
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()[:16]


def _digest(value: Any) -> str:
    import jax

    if isinstance(value, nx.Graph):
        value = topology.adjacency(value)
    if isinstance(value, Problem):  # a function has no content to hash: its name stands for it
        loss = (
            f"{getattr(value.loss, '__module__', '')}.{getattr(value.loss, '__qualname__', type(value.loss).__name__)}"
        )
        value = (value.data, value.counts, value.test, value.start, [loss, value.weighted])
    leaves, tree = jax.tree.flatten(value)
    digest = hashlib.sha256(str(tree).encode())
    for leaf in leaves:
        array = np.asarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes() if array.dtype.kind in "biufc" else str(leaf).encode())
    return digest.hexdigest()


# -- resolving ------------------------------------------------------------------------------------------------------


@cache
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(Run)


def _resolve(run: Run, problem: Problem | None, graph: Any, unread: str) -> Run:
    hints = _hints()
    values = {
        f.name: coerce(f.name, getattr(run, f.name), hints[f.name])
        for f in dataclasses.fields(Run)
        if f.name != "options"
    }
    given: dict[str, dict[str, Any]] = {prefix: {} for prefix in PREFIXES}
    for name, value in run.options.items():
        prefix, _, rest = name.partition(".")
        if prefix not in given or not rest:
            raise InputError(f"{name}: no such option{did_you_mean(prefix, PREFIXES)}")
        given[prefix][rest] = value
    method = ALGORITHMS[values["algorithm"]]
    options: dict[str, Any] = {}

    def take(prefix: str, resolved: Mapping[str, Any]) -> None:
        options.update({f"{prefix}.{name}": value for name, value in resolved.items()})

    def leave(prefix: str, reader: str, default: Any = None) -> None:
        """`prefix` is not read: refuse it where it was given, or drop it."""
        if unread == "refuse" and (values[prefix] != default or given[prefix]):
            name = prefix if values[prefix] != default else f"{prefix}.{next(iter(given[prefix]))}"
            raise InputError(f"{name}: {reader} does not read it; leave it out")
        values[prefix] = default

    _check_numbers(values)
    take("algorithm", method.options(given["algorithm"], "algorithm", implied=("learning_rate", "slots")))
    take("optimizer", optimizer_options(values["optimizer"], given["optimizer"]))
    take("learning_rate", schedule_options(given["learning_rate"]))
    _dry_step(values["optimizer"], tuple((k, v) for k, v in options.items() if not k.startswith("algorithm.")))

    if problem is not None:
        for name in ("problem", "data", "partition"):
            leave(name, "a run with problem=")
        values["problem"] = OWN
    else:
        values["problem"] = values["problem"] or "softmax"
        entry = PROBLEMS[values["problem"]]
        take("problem", entry.options(given["problem"], "problem"))
        if entry.traits["data"]:
            values["data"] = values["data"] or "digits"
            values["partition"] = values["partition"] or "iid"
            take("data", SETS[values["data"]].options(given["data"], "data"))
            take("partition", PARTITIONS[values["partition"]].options(given["partition"], "partition"))
        else:
            for name in ("data", "partition"):
                leave(name, f"problem {values['problem']}")

    if method.traits["needs"] is None:
        if graph is not None:
            raise InputError(f"graph: {method.name} has no mixing matrix; leave graph= out")
        for name in ("topology", "weights"):
            leave(name, method.name)
    elif graph is not None:
        leave("topology", "a run with graph=")
        values["topology"] = OWN
        if isinstance(graph, nx.Graph):
            values["weights"] = values["weights"] or mixing.default_rule(graph)
            take("weights", _weight_options(values["weights"], given["weights"]))
        else:
            leave("weights", "a run with a matrix as graph=")
            values["weights"] = OWN
    else:
        values["topology"] = values["topology"] or "ring"
        take("topology", _topology_options(values["topology"], given["topology"]))
        # the default follows from the kind of graph, which only the graph itself tells
        if values["weights"] is None:
            values["weights"] = mixing.default_rule(
                topology.make(values["topology"], values["workers"], **_of(options, "topology"))
            )
        take("weights", _weight_options(values["weights"], given["weights"]))

    if method.traits["staleness"] is None:
        leave("delay", method.name, default=0)
    else:
        values["delay"], law = delays.resolve(values["delay"], given["delay"])
        if method.name == "delayed_sgd" and options["algorithm.read"] == "queue" and isinstance(values["delay"], str):
            raise InputError(
                f"delay: algorithm.read=queue needs a constant delay (each gradient lands once), got {values['delay']}; use read=iterate"
            )
        take("delay", law)

    if method.traits["cluster"] is None:
        leave("cluster", method.name)
    else:
        if method.traits["events"]:
            values["cluster"] = values["cluster"] or "constant"
        if values["cluster"] is None:
            leave("cluster", "a run without a cluster")
        else:
            take("cluster", cluster.options(values["cluster"], given["cluster"]))
    values["metrics"] = _metrics(values["metrics"])
    if values["record_every"] is None:
        values["record_every"] = max(1, _expected_steps(values, method.traits["events"]) // 50)
    resolved = Run(**values, options=options)
    if problem is None and graph is None:
        vars(resolved)["id"] = identity(resolved)  # resolving it once more would give the same
    return resolved


def options_of(run: Run, prefix: str) -> dict[str, Any]:
    """The options of one plug-in, without the prefix."""
    return _of(run.options, prefix)


def _of(options: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(f"{prefix}."): value for name, value in options.items() if name.startswith(f"{prefix}.")}


def _expected_steps(values: Mapping[str, Any], events: bool) -> int:
    """Steps until the horizon, as far as the fields alone tell (seconds: at one second a computation)."""
    if values["steps"] is not None:
        return values["steps"]
    if values["gradients"] is not None:
        return values["gradients"] // (1 if events else values["workers"])
    return int(values["seconds"] * (values["workers"] if events else 1))


def _check_numbers(values: Mapping[str, Any]) -> None:
    horizons = [name for name in HORIZONS if values[name] is not None]
    if len(horizons) != 1:
        raise InputError(f"steps: give exactly one of steps, gradients, seconds; got {', '.join(horizons) or 'none'}")
    for name in ("workers", *HORIZONS, "batch_size", "record_every", "eval_samples"):
        if values[name] is not None and not (values[name] > 0 and math.isfinite(values[name])):
            raise InputError(f"{name}: must be positive, got {values[name]}")
    if not (values["learning_rate"] >= 0 and math.isfinite(values["learning_rate"])):
        raise InputError(f"learning_rate: must be a finite number, not negative, got {values['learning_rate']}")
    if not 0 <= values["seed"] < 2**31:
        raise InputError(f"seed: must lie in [0, 2^31), got {values['seed']}")
    if values["precision"] not in ("float32", "float64"):
        raise InputError(f"precision: must be float32 or float64, got {values['precision']!r}")
    if values["executor"] not in EXECUTORS:
        raise InputError(f"executor: unknown name {values['executor']!r}{did_you_mean(values['executor'], EXECUTORS)}")


def _topology_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    if name.startswith("networkx:") or topology.is_file(name):
        return dict(given)
    return topology.TOPOLOGIES[name].options(given, "topology")


def _weight_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    if Path(name).suffix:
        if given:
            raise InputError(f"weights.{next(iter(given))}: a file has no options")
        return {}
    return mixing.WEIGHTS[name].options(given, "weights")


def _metrics(chosen: tuple[str, ...] | None) -> tuple[str, ...] | None:
    from dopt.metrics import CHOICES

    known = {*CHOICES, "accuracy"}
    for name in chosen or ():
        if name not in known:
            raise InputError(f"metrics: unknown name {name!r}{did_you_mean(name, known)}")
    return tuple(sorted(set(chosen))) if chosen is not None else None


# -- optax by name --------------------------------------------------------------------------------------------------


def _optimizers() -> dict[str, Entry]:
    """Optax's own optimizers: public functions whose first parameter is the learning rate."""
    found = {}
    for name, f in vars(optax).items():
        if inspect.isfunction(f) and not name.startswith("_"):
            parameters = list(inspect.signature(f).parameters.values())
            if parameters and parameters[0].name == "learning_rate":
                found[name] = Entry(name, f, "optax", {})
    return found


OPTIMIZERS = _optimizers()
RATES = ("peak_value", "init_value", "value")  # what schedules call the rate itself, the first that they have
SCHEDULES = {
    name: f
    for name, f in vars(optax).items()
    if name.endswith(("_schedule", "_decay"))
    and inspect.isfunction(f)
    and {*inspect.signature(f).parameters} & {*RATES}
}
UNTRACED = ("warmup_cosine_decay_schedule",)  # asks whether its rate is zero, so the rate must be a number


def optimizer_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, checked against the optimizer's own parameters (numbers, bools and names only)."""
    if name not in OPTIMIZERS:
        raise InputError(f"optimizer: unknown name {name!r}{did_you_mean(name, OPTIMIZERS)}")
    parameters = dict(inspect.signature(OPTIMIZERS[name].make).parameters)
    parameters.pop("learning_rate")
    return _plain_options("optimizer", name, parameters, given)


def schedule_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """`schedule` and its parameters, checked; the rate itself stands for its peak, initial or only value."""
    if not given:
        return {}
    if "schedule" not in given:
        raise InputError(
            f"learning_rate.{next(iter(given))}: give learning_rate.schedule, the name of an optax schedule"
        )
    name = given["schedule"]
    if name not in SCHEDULES and f"{name}_schedule" in SCHEDULES:
        name = f"{name}_schedule"
    if name not in SCHEDULES:
        raise InputError(f"learning_rate.schedule: unknown name {name!r}{did_you_mean(str(name), SCHEDULES)}")
    parameters = dict(inspect.signature(SCHEDULES[name]).parameters)
    parameters.pop(_rate_parameter(parameters))
    rest = {k: v for k, v in given.items() if k != "schedule"}
    resolved = _plain_options("learning_rate", name, parameters, rest)
    for p in parameters.values():
        if p.default is p.empty and p.name not in resolved:
            raise InputError(f"learning_rate.{p.name}: {name} needs it")
    return {"schedule": name, **resolved}


def _rate_parameter(parameters: Mapping[str, Any]) -> str:
    return next(name for name in RATES if name in parameters)


def _plain_options(
    what: str, name: str, parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any]
) -> dict[str, Any]:
    for key, value in given.items():
        if key not in parameters:
            raise InputError(f"{what}.{key}: {name} has no such option{did_you_mean(key, parameters)}")
        if not isinstance(value, int | float | bool | str):
            raise InputError(f"{what}.{key}: must be a number, a truth value or a name, got {value!r}")
    return dict(given)


def make_optimizer(run: Run, rate: Any) -> optax.GradientTransformation:
    """The local optimizer of a resolved run, its rate possibly traced."""
    options = _of(run.options, "learning_rate")
    if options:
        if options["schedule"] in UNTRACED:
            rate = np.dtype(run.precision).type(run.learning_rate)
        schedule = SCHEDULES[options.pop("schedule")]
        rate = schedule(**{_rate_parameter(inspect.signature(schedule).parameters): rate}, **options)
    return OPTIMIZERS[run.optimizer].make(rate, **_of(run.options, "optimizer"))


@cache
def _dry_step(optimizer: str, options: tuple[tuple[str, Any], ...]) -> None:
    """One step as shapes: a value that optax cannot compute with is refused here, and not in a compilation."""
    import jax

    run = Run(algorithm="", workers=1, learning_rate=0.1, optimizer=optimizer, options=dict(options))
    try:
        made = make_optimizer(run, 0.1)
        jax.eval_shape(lambda x: made.update(x, made.init(x), x), np.zeros(1, np.float32))
    except (TypeError, ValueError) as error:
        given = "".join(f" {name}={value!r}" for name, value in options)
        raise InputError(f"optimizer: cannot use {optimizer}{given} ({' '.join(str(error).split())})") from error
