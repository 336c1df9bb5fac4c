"""Runs that share one compilation: what they need is made on the host, then slabs of them run.

Runs that differ only in values that may be traced (mixing matrix, delay law, schedule, learning rate, seed) form a group;
what changes shapes or code starts another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import jax
import networkx as nx
import numpy as np

from dopt import cluster, data, delays, divergence, execute, metrics, mixing, schedule, shards, topology
from dopt.algorithms import ALGORITHMS
from dopt.algorithms.asynchronous.server import Arrival
from dopt.config import OWN, UNTRACED, Run, make_optimizer, options_of
from dopt.execute import COMMON, PER_RUN, PER_RUN_AND_WORKER, PER_WORKER
from dopt.problems import PROBLEMS, Shards
from dopt.program import LONGEST, Carry, Common, Data, Inputs, Program
from dopt.types import InputError, Problem, Tree

Timeline = schedule.Schedule | schedule.Barrier
Look = Callable[[int, int], int]  # (segments done, of how many) -> how many to do before looking again

# fields that may differ within a group; whatever else differs starts another
TRACED = ("learning_rate", "seed", "topology", "weights", "delay", "cluster", "strict")


def key(run: Run) -> str:
    """The static description of a resolved run: equal keys share one compilation."""
    prefixes = ("topology.", "weights.", "delay.", "cluster.")
    static = {k: v for k, v in run.to_dict().items() if k not in TRACED and not k.startswith(prefixes)}
    if run.options.get("learning_rate.schedule") in UNTRACED:
        static["learning_rate"] = run.learning_rate
    if run.topology not in (None, OWN):
        form = mixing.form(matrix(run))
        static["mix"] = "dense" if isinstance(form, mixing.Dense) else f"neighbours of {form.index.shape[1]}"
    if ALGORITHMS[run.algorithm].traits["staleness"]:
        static["delays"] = _delay_form(run)
    if run.cluster is not None:
        static["clock"] = "events" if ALGORITHMS[run.algorithm].traits["events"] else "barrier"
    return json.dumps(static, sort_keys=True, default=list)


def _delay_form(run: Run) -> str:
    """Who draws the delay: one for all in a step, or (of a law that is not constant) one for each sender."""
    return "edge" if ALGORITHMS[run.algorithm].traits["staleness"] == "edge" and isinstance(run.delay, str) else "step"


def matrix(run: Run) -> np.ndarray:
    """The mixing matrix W [n, n] of a resolved run, as its fields say."""
    return _matrix(
        run.topology,
        run.workers,
        json.dumps(options_of(run, "topology")),
        run.weights,
        json.dumps(options_of(run, "weights")),
    )


@lru_cache(maxsize=256)
def _matrix(name: Any, workers: int, options: str, rule: Any, rule_options: str) -> np.ndarray:
    graph = topology.make(name, workers, **json.loads(options))
    return mixing.as_matrix(mixing.weights(graph, rule, **json.loads(rule_options)), workers)


@lru_cache(maxsize=256)
def _checked(w: bytes, n: int, method: str, needs: str) -> None:
    mixing.check(np.frombuffer(w).reshape(n, n), method, needs)


def timeline(run: Run, w: np.ndarray | None) -> Timeline:
    """When each step of a resolved run lands: the schedule of a server's arrivals, or the times of a barrier."""
    method = ALGORITHMS[run.algorithm].traits
    horizon: Any = {"steps": run.steps, "gradients": run.gradients, "seconds": run.seconds}
    if method["events"]:
        return schedule.always_busy(machines(run), **horizon)
    if run.cluster is None:
        return schedule.barrier(None, None, workers=run.workers, **horizon)
    neighbours = w != 0 if method["cluster"] == "neighbours" and w is not None else None
    return schedule.barrier(machines(run), neighbours, workers=run.workers, **horizon)


def steps_of(run: Run, w: np.ndarray | None) -> int:
    """Steps until a resolved run's horizon: from its fields, or from its clock where the horizon is in seconds."""
    if run.cluster is not None and run.seconds is not None:
        return len(timeline(run, w).time)
    if run.cluster is not None:
        machines(run)  # which may refuse
    if run.steps is not None:
        return run.steps
    if ALGORITHMS[run.algorithm].traits["events"]:
        return run.gradients or 0
    return len(timeline(run, w).time)


def machines(run: Run) -> cluster.Cluster:
    """The cluster of a resolved run."""
    return cluster.make(str(run.cluster), run.workers, run.seed, **options_of(run, "cluster"))


class Outcome(NamedTuple):
    """What one run gave."""

    history: dict[str, np.ndarray]  # [records]
    params: Tree  # leaves [workers, ...], of server methods [1, ...]
    diverged_step: int | None
    spectral_gap: float


class Group:
    """Runs with equal keys, and what they need: problem, matrices, schedules, the program.

    Args:
      runs: all runs of the group, resolved: the longest buffer and the longest horizon among them set the shapes.
      problem, graph, start: what stands in for fields, as for `dopt.run`.
      devices: where to run; one, or as the executor needs.

    Raises:
      InputError: something does not fit; nothing was compiled.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        *,
        problem: Problem | None = None,
        graph: Any = None,
        start: Tree = None,
        devices: Sequence[Any] | None = None,
    ):
        self.first = runs[0]
        self.method = ALGORITHMS[self.first.algorithm]
        self.events = self.method.traits["events"]
        self.workers = self.first.workers
        self.dtype = np.dtype(self.first.precision)
        self.own_matrix = _own_matrix(graph, self.first)
        for run in runs:
            w = self.matrix(run)
            if w is not None and run.strict:
                _checked(w.tobytes(), len(w), run.algorithm, self.method.traits["needs"])
        self.devices = self._devices(devices)
        execute.check(self.first.executor, self.workers, self.devices, self.events, self.first.algorithm)
        self.problem, self.notes = self._problem(problem)
        self.start = self._start(start)
        self.longest_run = max(steps_of(run, self.matrix(run)) for run in runs)
        self.ragged = self.first.seconds is not None and self.first.cluster is not None
        self.staleness = self._staleness(runs)
        self.slots = (
            max((len(self.delay_table(run)) for run in runs), default=1) if self.method.traits["staleness"] else 1
        )

    # -- what runs are made of --

    def _devices(self, devices: Sequence[Any] | None) -> Sequence[Any]:
        available = list(devices or jax.devices())
        if self.first.executor == "vmap":
            return available if devices else available[:1]
        return available[: self.workers]

    def _staleness(self, runs: Sequence[Run]) -> str | None:
        """Where a step's staleness comes from; drawn only where some law is not constant."""
        if self.events:
            return "schedule"
        kind: str | None = self.method.traits["staleness"]
        return "constant" if kind and all(isinstance(run.delay, int) for run in runs) else kind

    def matrix(self, run: Run) -> np.ndarray | None:
        if self.own_matrix is not None:
            return self.own_matrix
        return matrix(run) if run.topology is not None else None

    def timeline(self, run: Run) -> Timeline:
        return timeline(run, self.matrix(run))

    def delay_table(self, run: Run) -> np.ndarray:
        return delays.table(run.delay, options_of(run, "delay"))

    def _problem(self, own: Problem | None) -> tuple[Problem, tuple[str, ...]]:
        problem = own or make_problem(self.first)
        leaves = jax.tree.leaves(problem.data)
        if not leaves or any(
            np.ndim(x) < 2 or np.shape(x)[:2] != np.shape(leaves[0])[:2] or len(x) != self.workers for x in leaves
        ):
            shapes = [np.shape(x) for x in leaves]
            raise InputError(
                f"problem: data leaves must be [workers, samples, ...] with workers={self.workers}, got shapes {shapes}"
            )
        counts = shards.counts(problem)
        if counts.shape != (self.workers,) or counts.min() < 1 or counts.max() > np.shape(leaves[0])[1]:
            raise InputError(
                f"problem: counts must be [workers] between 1 and {np.shape(leaves[0])[1]} samples, got {counts.tolist()}"
            )
        batch = self.first.batch_size
        if batch is not None and batch > counts.min():
            raise InputError(
                f"batch_size: must not exceed the smallest shard, {counts.min()} samples (worker {np.argmin(counts)}), got {batch}; use batch_size={counts.min()} or fewer workers"
            )
        notes = [problem.note] if problem.note and self._asked("suboptimality") else []
        if self.first.eval_samples is not None and problem.optimum is not None and self._asked("suboptimality"):
            notes.append("suboptimality is left out: f* is known for all samples, not for eval_samples of them")
        for name in self.first.metrics or ():
            if name not in metrics.CHOICES and name not in problem.metrics:
                notes.append(f"{name} is left out: the problem or its data do not have it")
        return problem, tuple(notes)

    def _asked(self, name: str) -> bool:
        return self.first.metrics is None or name in self.first.metrics

    def _start(self, start: Tree) -> Tree:
        start = self.problem.start if start is None else start
        for x in jax.tree.leaves(start):
            if np.shape(x)[:1] != (self.workers,):
                raise InputError(
                    f"start: leaves must be [workers, ...] with workers={self.workers}, got shape {np.shape(x)}"
                )
        return jax.tree.map(self._cast, start)

    def _cast(self, x: Any) -> np.ndarray:
        return shards.cast(x, self.dtype)

    @cached_property
    def data(self) -> Data:
        return shards.split(self.problem, self.dtype, self.first.eval_samples, full=self.first.batch_size is None)

    @cached_property
    def common(self) -> Common:
        """The segments: a record at step 0, every `record_every` steps, and at the end."""
        every, total = self.first.record_every or 1, self.longest_run
        rows = [(0, 0, 0)]
        for slot, begin in enumerate(range(0, total, every), start=1):
            end = min(begin + every, total)
            for part in range(begin, end, LONGEST):
                rows.append((part, min(LONGEST, end - part), slot if part + LONGEST >= end else -1))
        start, count, slot = np.array(rows, np.int32).T
        test = self.problem.test
        wanted = self.first.eval_samples
        if wanted is not None and test is not None:
            size = len(jax.tree.leaves(test)[0])
            test = jax.tree.map(lambda x: x[np.unique(np.arange(min(wanted, size)) * size // min(wanted, size))], test)
        return Common(jax.tree.map(self._cast, test), start, count, slot)

    def record_steps(self, length: int) -> np.ndarray:
        """Steps at which a run of `length` steps is recorded."""
        every = self.first.record_every or 1
        return np.unique(np.minimum(np.arange(0, length + every, every), length))

    @cached_property
    def program(self) -> Program:
        asked = [name for name in ("loss", "grad_norm", "consensus_distance") if self._asked(name)]
        if self._asked("suboptimality"):
            asked.append("loss")
        asked += [name for name in self.problem.metrics if self._asked(name)]
        return Program(
            problem=self.problem,
            workers=self.workers,
            build=self._build,
            dtype=self.dtype,
            batch_size=self.first.batch_size,
            metrics=tuple(dict.fromkeys(asked)),
            records=len(self.record_steps(self.longest_run)),
            longest=int(self.common.count.max()),
            staleness=self.staleness,
            ragged=self.ragged,
            always_records=bool((self.common.slot >= 0).all()),
        )

    def _build(self, inputs: Inputs) -> Any:
        run, options = self.first, options_of(self.first, "algorithm")
        delayed = self.method.traits["staleness"] is not None
        mix = None
        if self.method.traits["needs"] is not None:
            mix = mixing.mix(inputs.form, slots=self.slots if delayed else None)
        elif delayed:
            options["slots"] = self.slots
        return self.method.make(
            make_optimizer(run, inputs.learning_rate), mix, learning_rate=inputs.learning_rate, **options
        )

    def inputs(self, run: Run, line: Timeline) -> Inputs:
        """The traced values of one run."""
        w = self.matrix(run)
        delayed = self.method.traits["staleness"] is not None
        return Inputs(
            seed=np.int32(run.seed),
            learning_rate=self.dtype.type(run.learning_rate),
            form=jax.tree.map(self._cast, mixing.form(w)) if w is not None else None,
            delay=delays.cumulative(self.delay_table(run), self.slots) if delayed else None,
            arrivals=self._arrivals(line) if isinstance(line, schedule.Schedule) else None,
            length=np.int32(len(line.time)) if self.ragged else None,
        )

    def _arrivals(self, line: schedule.Schedule) -> Any:
        # a segment slices a whole number of steps: pad, so that the slice never runs over the end
        pad = self.longest_run + int(self.common.count.max()) - len(line.time)
        worker, batch, staleness = (np.pad(x, (0, pad)) for x in (line.worker, line.batch, line.staleness))
        return Arrival(worker, batch, staleness)

    # -- compiling and running --

    @property
    def _axes(self) -> tuple[Any, Any, Any, Any]:
        """Axes of carry, inputs, data, start."""
        parts: tuple[Any, ...] = (PER_RUN_AND_WORKER, self._state_axes, PER_RUN_AND_WORKER, PER_RUN)
        # field by field: pmap takes a flat tuple of axes for one per leaf where their numbers happen to agree
        inputs = Inputs(*[PER_RUN] * len(Inputs._fields))
        if not self.events:
            return Carry(*parts), inputs, PER_WORKER, PER_WORKER
        server = jax.tree.map(lambda a: PER_RUN if a.runs else COMMON, parts)
        return Carry(*server), inputs, COMMON, COMMON

    @cached_property
    def _shape(self) -> Carry:
        """One worker's carry, as shapes."""
        init = self.program.server_init if self.events else self.program.worker_init
        start = self.start if self.events else jax.tree.map(lambda x: x[0], self.start)
        with jax.enable_x64(self.dtype == np.float64):
            return jax.eval_shape(init, self.inputs(self.first, self.timeline(self.first)), start, np.int32(0))

    @property
    def numbers(self) -> np.ndarray:
        """[workers]: an argument that is mapped over the workers even where no start is given."""
        return np.arange(self.workers, dtype=np.int32)

    @property
    def _state_axes(self) -> Any:
        return execute.state_axes(self._shape.state)

    def message_bytes(self) -> int:
        """Bytes of one model, as it travels."""
        return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(self._shape.params))

    def compile(self, width: int) -> Compiled:
        """The program for slabs of `width` runs, compiled for this group's devices."""
        carry, inputs, data, start = self._axes
        where = {
            "executor": self.first.executor,
            "workers": self.workers,
            "devices": self.devices,
            "events": self.events,
        }
        init = self.program.server_init if self.events else self.program.worker_init
        advance = self.program.server_advance if self.events else self.program.worker_advance
        number = COMMON if self.events else PER_WORKER
        first = execute.place(init, (inputs, start, number), carry, **where)
        rest = execute.place(advance, (carry, inputs, data, COMMON, COMMON, COMMON), carry, donate=True, **where)
        with jax.enable_x64(self.dtype == np.float64):
            several = self.stack([self.first], [self.timeline(self.first)], width)
            begin = first.lower(several, self.start, self.numbers).compile()
            shape = jax.eval_shape(first, several, self.start, self.numbers)
            go = rest.lower(shape, several, self.data, self.common, np.int32(0), np.int32(0)).compile()
            fixed = self.data, self.common
            if self.first.executor != "pmap":  # which takes its arguments apart by itself
                fixed = jax.device_put(fixed, go.input_shardings[0][2:4])
        return Compiled(self, width, begin, go, *fixed)

    def stack(self, runs: Sequence[Run], lines: Sequence[Timeline], width: int) -> Inputs:
        """Inputs [width, ...]; a short slab is filled up with its last run."""
        each = [self.inputs(run, line) for run, line in zip(runs, lines, strict=True)]
        each += each[-1:] * (width - len(each))
        return jax.tree.map(lambda *x: np.stack(x), *each)

    # -- reading results --

    def outcome(self, run: Run, line: Timeline, carry: Carry, row: int, diverged: int | None) -> Outcome:
        """One run's history and models, from a slab's arrays on the host; `diverged` is the step at which it did."""
        w = self.matrix(run)
        steps = self.record_steps(len(line.time))
        recorded = {name: np.asarray(h[row][: len(steps)], np.float64) for name, h in carry.history.items()}
        history: dict[str, np.ndarray] = {"step": steps, **self._axes_of(line, steps, w)}
        lost = steps >= (self.longest_run + 1 if diverged is None else diverged)
        values = {name: np.where(lost, np.nan, recorded[name]) for name in self._reported(recorded)}
        optimum = self.optimum
        if optimum is not None and "loss" in recorded:
            values["suboptimality"] = np.where(lost, np.nan, recorded["loss"] - optimum)
        params = jax.tree.map(lambda x: np.asarray(x[row])[None] if self.events else np.asarray(x[row]), carry.params)
        gap = mixing.spectral_gap(w) if w is not None else float("nan")
        return Outcome(history | values, params, diverged, gap)

    def _reported(self, recorded: dict[str, np.ndarray]) -> list[str]:
        return [name for name in recorded if name != "finite" and (name != "loss" or self._asked("loss"))]

    @cached_property
    def optimum(self) -> float | None:
        """f*, where it is known, asked for, and comparable with what metrics look at."""
        f = self.problem.optimum
        if f is None or not self._asked("suboptimality") or self.first.eval_samples is not None:
            return None
        return f() if callable(f) else float(f)

    def _axes_of(self, line: Timeline, steps: np.ndarray, w: np.ndarray | None) -> dict[str, Any]:
        """gradients, time and bytes_sent at the records, from the schedule."""
        time = np.concatenate([[0.0], line.time])[steps]
        gradients = np.concatenate([[0], line.gradients])[steps]
        axes = {"gradients": gradients, "time": time}
        n, size, sends = self.workers, float(self.message_bytes()), self.method.traits["sends"]
        if sends == "server":  # a gradient up for each arrival, a model down after it, and n models down at the start
            return axes | {"bytes_sent": steps * size / n, "server_bytes_sent": (steps + n) * size}
        links = 0 if w is None else np.count_nonzero(w) - np.count_nonzero(np.diagonal(w))
        per_step = size * links / n if sends == "neighbours" else 2 * (n - 1) / n * size
        return axes | {"bytes_sent": steps * per_step}


class Compiled(NamedTuple):
    """A group's program at one width."""

    group: Group
    width: int
    begin: Any
    go: Any
    data: Data  # on the devices, once
    common: Common

    @property
    def memory(self) -> int | None:
        """Bytes one slab needs on a device, by the compiler's analysis."""
        return execute.memory(self.go)

    def execute(self, runs: Sequence[Run], look: Look | None = None) -> list[Outcome]:
        """One slab: at most `width` runs, from start to end.

        Args:
          look: called between chunks, on the host; it may raise to stop.
        """
        group = self.group
        with jax.enable_x64(group.dtype == np.float64):
            lines = [group.timeline(run) for run in runs]
            inputs = group.stack(runs, lines, self.width)
            carry, done, total = self.begin(inputs, group.start, group.numbers), 0, len(group.common.start)
            while done < total:
                chunk = total - done if look is None else max(1, min(look(done, total), total - done))
                carry = self.go(carry, inputs, self.data, self.common, np.int32(done), np.int32(done + chunk))
                jax.block_until_ready(carry.ages)
                done += chunk
            host = jax.tree.map(np.asarray, carry._replace(state=None))
            diverged = divergence.first_steps(self, inputs, host.history, len(runs))
        each = enumerate(zip(runs, lines, strict=True))
        return [group.outcome(run, line, host, row, diverged.get(row)) for row, (run, line) in each]


def make_problem(run: Run) -> Problem:
    """The problem of a resolved run, its data split over the workers."""
    entry = PROBLEMS[str(run.problem)]
    options = options_of(run, "problem")
    if not entry.traits["data"]:
        return entry.make(None, run.workers, **options)
    dataset = data.load(str(run.data), **options_of(run, "data"))
    parts = data.PARTITIONS[str(run.partition)].make(dataset.train["y"], run.workers, **options_of(run, "partition"))
    train, counts = data.shard(dataset.train, parts)
    return entry.make(Shards(train, counts, dataset.test, dataset.classes), run.workers, **options)


def _own_matrix(graph: Any, run: Run) -> np.ndarray | None:
    if graph is None:
        return None
    if isinstance(graph, nx.Graph):
        if len(graph) != run.workers:
            raise InputError(f"graph: has {len(graph)} nodes, got workers={run.workers}; set workers to {len(graph)}")
        graph = mixing.weights(graph, run.weights, **options_of(run, "weights"))
    return mixing.as_matrix(graph, run.workers)


__all__ = ["Compiled", "Group", "Look", "Outcome", "key", "make_problem", "matrix", "timeline"]
