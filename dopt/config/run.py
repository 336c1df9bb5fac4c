"""`Run`, the frozen description of one trajectory: plain data, what a user asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from dopt.registry import did_you_mean
from dopt.types import InputError, Problem

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
    "link_loss",
    "cluster",
)
OWN = "own"  # stands for what was handed over in Python


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trajectory: which method, on what problem, network and machines, for how long.

    Options of a plug-in are dotted names in `options`, as `{"topology.degree": 4}`; `from_dict` takes everything flat.

    Attributes:
      algorithm: a registered method (`dopt list algorithms`).
      workers: n, how many take part.
      learning_rate: the rate, or the start of `learning_rate.schedule` (an optax schedule by name).
      optimizer: the local optimizer, one of optax's by name (`dopt list optimizers`).
      problem: what is minimized (`dopt list problems`); none: softmax.
      data: a set of data (`dopt list data`), for problems that need one; none: the problem's own default, mostly digits.
      partition: how the data are split over workers (`dopt list partitions`); none: iid.
      topology: a graph by name or from a file, for methods with a mixing matrix (`dopt list topologies`); none: ring.
      weights: how the graph becomes a mixing matrix, or a file with one (`dopt list weights`); none: metropolis, or what the graph
        and the method ask for.
      mix: the form in which W runs: auto, dense, neighbours, permutations.
      delay: steps, a law by name (`dopt list delays`), edges (what the graph says), or cluster (what the clock says).
      link_loss: probability that a link fails at a step.
      cluster: a law of compute times (`dopt list clusters`); none: a step takes one second.
      steps: length of the run in updates; give exactly one of steps, gradients and seconds.
      gradients: or its length in gradients, computed by all workers together.
      seconds: or its length in simulated seconds.
      batch_size: samples of each worker's gradient; none: all of its samples.
      total_batch: or samples of all workers' gradients together, split equally.
      seed: of batches, delays, compute times and starts.
      record_every: steps between records; none: a fiftieth of the run.
      record_seconds: or simulated seconds between records, on average, since records come at whole steps.
      metrics: names of what is recorded; none: all metrics.
      eval_samples: samples that metrics look at; none: all, for neural networks 2000.
      precision: float32 or float64.
      executor: where workers run: vmap (all on one device), pmap, shard_map or mesh (on several).
      strict: false runs what the theory forbids, to show the failure.
      options: dotted name -> value.
    """

    algorithm: str
    workers: int
    learning_rate: float
    optimizer: str = "sgd"
    problem: str | None = None
    data: str | None = None
    partition: str | None = None
    topology: str | None = None
    weights: str | None = None
    mix: str = "auto"
    delay: int | str = 0
    link_loss: float = 0.0
    cluster: str | None = None
    steps: int | None = None
    gradients: int | None = None
    seconds: float | None = None
    batch_size: int | None = None
    total_batch: int | None = None
    seed: int = 0
    record_every: int | None = None
    record_seconds: float | None = None
    metrics: tuple[str, ...] | None = None
    eval_samples: int | None = None
    precision: str = "float32"
    executor: str = "vmap"
    strict: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    def __new__(cls, **fields: Any) -> Any:
        """A run; InputError for a field that it does not have."""
        unknown = fields.keys() - cls.__dataclass_fields__.keys()
        if unknown:
            name = min(unknown)
            option = f"; write options={{{name!r}: ...}}, or Run.from_dict" * ("." in name)
            raise InputError(f"{name}: a Run has no such field{option or did_you_mean(name, cls.__dataclass_fields__)}")
        return super().__new__(cls)

    @classmethod
    def from_dict(cls, flat: Mapping[str, Any]) -> Run:
        """A Run from names, dotted ones for options; InputError for a name that is neither."""
        fields = {f.name for f in dataclasses.fields(cls)} - {"options"}
        plain = {k: v for k, v in flat.items() if k in fields}
        dotted = {k: v for k, v in flat.items() if k not in fields}
        for name in dotted:
            if not isinstance(name, str) or name.split(".")[0] not in PREFIXES or "." not in name:
                raise InputError(f"{name}: no such field{did_you_mean(name, [*fields, *(f'{p}.' for p in PREFIXES)])}")
        for name in ("algorithm", "workers", "learning_rate"):
            if plain.get(name) is None:
                raise InputError(f"{name}: every run needs one")
        return cls(**plain, options=dotted)

    def to_dict(self) -> dict[str, Any]:
        """The flat form: fields and dotted options."""
        flat = {name: getattr(self, name) for name in PLAIN}
        return flat | dict(sorted(self.options.items()))

    def __eq__(self, other: object) -> bool:
        """Whether all fields are equal, whether or not the runs are resolved."""
        return isinstance(other, Run) and self.to_dict() == other.to_dict()

    def resolve(
        self, *, problem: Problem | None = None, graph: Any = None, optimizer: Any = None, unread: str = "refuse"
    ) -> Resolved:
        """This run with every default filled in and every name and value checked.

        Args:
          problem, graph, optimizer: what stands in for the fields of that name.
          unread: "refuse" or "drop" what the method does not read (a sweep drops, and merges the duplicates).

        Raises:
          InputError: a name, type or value that does not fit.
        """
        from dopt.config.resolve import resolve

        return resolve(self, problem, graph, optimizer, unread)

    @cached_property
    def id(self) -> str:
        """16 hex digits: a hash of all that can change the result, `dopt.config.identity`."""
        from dopt.config.identity import hashed

        return hashed(self._resolved.to_dict(), self.digests)

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """What the resolved fields stand for today: name -> digest of the graph, matrix, data, files and code."""
        from dopt.config.identity import digests

        return digests(self._resolved)

    @cached_property
    def _resolved(self) -> Resolved:
        return self.resolve(unread="drop")


class Resolved(Run):
    """A run with every default filled in and every name and value checked. Only `Run.resolve` makes one, and who keeps what it made.

    What `dataclasses.replace` makes of it is a plain `Run` again, since nobody has checked that one.
    """

    def __new__(cls, **fields: Any) -> Any:
        return Run(**fields) if fields else object.__new__(cls)  # no fields: a copy, which is filled in afterwards

    @classmethod
    def of(cls, run: Run) -> Resolved:
        """The same run, of which it is known that it was resolved."""
        new: Resolved = object.__new__(cls)
        vars(new).update({f.name: getattr(run, f.name) for f in dataclasses.fields(Run)})
        return new

    def at(self, learning_rate: float, seed: int) -> Resolved:
        """This run with another rate and seed, which fit it; it stands for the same things."""
        new: Resolved = object.__new__(Resolved)
        vars(new).update(vars(self), learning_rate=learning_rate, seed=seed)
        vars(new).pop("id", None)
        return new

    @property
    def _resolved(self) -> Resolved:
        handed_over = OWN in (self.problem, self.topology, self.weights, self.optimizer)
        return self.resolve(unread="drop") if handed_over else self  # which refuses what no field can say


PLAIN = tuple(f.name for f in dataclasses.fields(Run) if f.name != "options")


def options_of(run: Run, prefix: str) -> dict[str, Any]:
    """The options of one plug-in, without the prefix."""
    return of(run.options, prefix)


def of(options: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(f"{prefix}."): value for name, value in options.items() if name.startswith(f"{prefix}.")}
