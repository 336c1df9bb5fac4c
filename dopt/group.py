"""Runs that share one compilation: what they need is made on the host, then slabs of them run.

Runs that differ only in values that may be traced (mixing matrix, delay law, schedule, learning rate, seed) form a group;
what changes shapes or code starts another.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import networkx as nx
import numpy as np
from jax import lax

from dopt import (
    checkpoints,
    clock,
    data,
    delays,
    divergence,
    draws,
    flags,
    memory,
    metrics,
    mixing,
    schedule,
    shards,
    topology,
    wiring,
)
from dopt.algorithms import ALGORITHMS
from dopt.algorithms.server import Arrivals
from dopt.algorithms.traits import coordination_of, is_event_driven, is_peer_to_peer
from dopt.checkpoints import Keeper
from dopt.config import COUPLED, LINEAR, OWN, UNTRACED, Run, averages, make_optimizer, make_rate, options_of
from dopt.config.exchanges import exchange_of, traits_of
from dopt.config.identity import check_drawn
from dopt.devices import ALONE, executors, hosts
from dopt.devices import memory as devices_memory
from dopt.devices.axes import COMMON, PER_RUN, PER_RUN_AND_WORKER, PER_WORKER, state_axes
from dopt.problems import PROBLEMS, Shards, sound
from dopt.program import LONGEST, Carry, Common, Data, Inputs, Program, Turns, averaged
from dopt.types import AXIS, InputError, Key, Problem, Tree
from dopt.watch import Look

First = Callable[[Mapping[str, np.ndarray]], None]  # takes the record at step 0, metric -> [runs]

# fields that may differ within a group; whatever else differs starts another
TRACED = ("learning_rate", "seed", "topology", "weights", "delay", "link_loss", "cluster", "strict")
INDEX = 4  # bytes of a row's number
ON_DEVICES = ("pmap", "shard_map")  # a worker each, so that permutations can travel


def key(run: Run) -> str:
    """The static description of a resolved run: equal keys share one compilation."""
    prefixes = ("topology.", "weights.", "delay.", "cluster.")
    scheduled = [f"algorithm.{name}" for name in traits_of(run).scheduled]
    traced = (*TRACED, *scheduled)
    static = {k: v for k, v in run.to_dict().items() if k not in traced and not k.startswith(prefixes)}
    if run.record_seconds is not None:
        plain = dataclasses.replace(run, seed=0, learning_rate=0.1)
        source = wiring.source(run) if wiring.has_matrix(run) else None
        static["record_every"] = _beat(json.dumps(plain.to_dict(), default=list), (clock.standing(run), source))
    if run.options.get("learning_rate.schedule") in UNTRACED:
        static["learning_rate"] = run.learning_rate
    if wiring.has_matrix(run) and wiring.needs_of(run) != "pairs":
        static["mix"] = " and ".join(form.described for form in _forms(run, wiring.matrix(run), steps=1))
    static["delays"] = _delay_form(run)
    if run.cluster is not None:
        events = is_event_driven(exchange_of(run))
        static["clock"] = "events" if events else "turns" if run.delay == "cluster" else "barrier"
    return json.dumps(static, sort_keys=True, default=list)


@lru_cache(maxsize=1024)
def _beat(description: str, stands: Any) -> int:
    """Steps between two records of a run, where they are given in seconds: its clock says how many. `stands`: as in `clock`."""
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(description).items()}
    return Group([Run.from_dict(fields)]).every


def _delay_form(run: Run) -> str | None:
    """Who draws the delay: one for all in a step, or (of a law that is not constant) one for each sender, now or for good."""
    traits = traits_of(run)
    if wiring.needs_of(run) == "tree" or run.delay == "edges" or run.options.get("delay.fixed"):
        return "fixed"
    if traits.staleness is None or run.delay == "cluster":
        return None
    if traits.staleness == "coordinate":
        return "coordinate"
    if isinstance(run.delay, int):  # no ring where no delay was asked for
        largest = run.options.get("delay.max") or run.delay
        return "step" if largest or traits.delayed or traits.staleness == "step" else None
    return traits.staleness


def _forms(run: Run, w: Any, steps: int) -> tuple[mixing.Form, ...]:
    """The forms in which W runs: one, or two of a pair."""
    needs = wiring.needs_of(run)
    if needs == "tree":
        return (mixing.form(np.full((run.workers, run.workers), 1 / run.workers), "dense"),)
    pair = w if isinstance(w, tuple) else (w,)
    columns = [needs == "column stochastic"] if len(pair) == 1 else [False, True]
    return tuple(
        mixing.form(part, run.mix, columns=c, devices=run.executor in ON_DEVICES, steps=steps, seed=run.seed)
        for part, c in zip(pair, columns, strict=True)
    )


class Outcome(NamedTuple):
    """What one run gave."""

    history: dict[str, np.ndarray]  # [records]
    params: Tree  # leaves [workers, ...], of server methods [1, ...]
    diverged_step: int | None
    spectral_gap: float
    stalled_step: int | None = None  # after so many steps nothing moved any more; None: not so
    extra: Mapping[str, Tree] = MappingProxyType({})  # other models of the method, leaves [1, ...]: "center"


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
        flags.check()
        self.first = runs[0]
        self.method = ALGORITHMS[self.first.algorithm]
        self.exchange = exchange_of(self.first)
        self.events = is_event_driven(self.exchange)
        self.workers = self.first.workers
        self.dtype = np.dtype(self.first.precision)
        self.needs = wiring.needs_of(self.first)
        self.own_graph = graph
        self.own_matrix = None if graph is None else wiring.own_matrix(graph, self.first)
        for run in runs if self.needs is not None else ():
            self._check(run)
        self.problem, left_out = self._problem(problem)
        self.notes = (*left_out, *wiring.notes(runs, graph))
        self.parts = 1 if self.problem.layout is None else self.problem.layout.parts
        self.devices = self._devices(devices)
        executors.check(
            self.first.executor, self.workers, self.devices, self.events, self.first.algorithm, parts=self.parts
        )
        self.start = self._start(start)
        self.staleness = self._staleness(runs)
        self.slots = max((self._slots(run) for run in runs), default=1)
        self.lines: dict[
            str, tuple[clock.Timeline, schedule.Batches | None]
        ] = {}  # and what the replay of arrivals needs
        self.kept, self.batch = 1, 1  # models that a replay keeps; gradients of an update
        lengths = [self._measure(run) for run in runs]
        self.longest_run = max(lengths)
        self.ragged = len(set(lengths)) > 1
        self._check_room()

    # -- what runs are made of --

    def _check_room(self) -> None:
        """Refuse old models that the devices have no room for, before they are made; the compiler counts the rest."""
        free = devices_memory.device_memory(self.devices[0])
        apart = 1 if self.devices[0].platform in executors.VIRTUAL else len(self.devices)
        holders = 1 if self.events and not self.peers else self.workers
        needed = holders * self.models * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self._model))
        if free is not None and needed > free * apart:
            kept = f"{self.models} models{f' for each of {holders} workers' * (holders > 1)}"
            raise InputError(
                f"workers: {self.first.algorithm} keeps {kept}, {memory.size(needed)}; there is room for {memory.size(free * apart)}; use fewer workers, a smaller model or a shorter delay"
            )

    def _devices(self, devices: Sequence[Any] | None) -> Sequence[Any]:
        if self.first.executor == "vmap":
            return list(devices or jax.local_devices()[:1])
        return list(devices or jax.devices())[: self.workers * (self.parts if self.first.executor == "mesh" else 1)]

    def _check(self, run: Run) -> None:
        if run.strict and self.own_matrix is not None:
            mixing.check(self.own_matrix, run.algorithm, self.needs or "")
        elif run.strict:
            wiring.check(run)
        if run.options.get("link_loss.policy") == "renormalise":
            w = self.matrix(run)
            mixing.check_own_weight(w[0] if isinstance(w, tuple) else w, run.algorithm)
        if run.delay == "cluster":
            clock.check_stays(self.matrix(run))

    def _staleness(self, runs: Sequence[Run]) -> str | None:
        """Where a step's staleness comes from; drawn only where some law is not constant."""
        kind = _delay_form(self.first)
        if self.events:
            return kind or "schedule"
        return "constant" if kind == "step" and all(isinstance(run.delay, int) for run in runs) else kind

    @property
    def spread(self) -> int:
        """Devices over which the runs of a slab are split; the other executors split workers."""
        return len(self.devices) if self.first.executor == "vmap" else 1

    @property
    def models(self) -> int:
        """Old and new models that a run keeps (of each worker, where there is no server)."""
        return self.kept if self.events and not self.delayed else self.slots

    @property
    def delayed(self) -> bool:
        """Whether old values are kept."""
        return self.staleness not in (None, "schedule")

    def _slots(self, run: Run) -> int:
        """Length of the ring that a run needs."""
        if self.staleness == "fixed":
            return int(self.ages(run).max()) + 1
        return len(self.delay_table(run)) if self.delayed else 1

    def ages(self, run: Run) -> np.ndarray:
        """[n, n] int32: how old each reader reads each sender, for good."""
        if self.needs == "tree":
            return mixing.relay_ages(self.matrix(run))
        if run.delay == "edges":
            return topology.edge_delays(self._graph(run))
        return delays.draw(run.delay, options_of(run, "delay"), run.seed, run.workers)

    def _graph(self, run: Run) -> nx.Graph:
        graph = self.own_graph
        if graph is None and run.topology != OWN:
            graph = wiring.network(run)
        if not isinstance(graph, nx.Graph):
            raise InputError("delay: edges needs one graph that stays, whose edges have an attribute `delay`")
        return graph

    def matrix(self, run: Run) -> Any:
        if self.own_matrix is not None:
            return self.own_matrix
        return wiring.matrix(run) if run.topology is not None else None

    def timeline(self, run: Run) -> clock.Timeline:
        return self._timed(run)[0]

    def batches(self, run: Run) -> schedule.Batches | None:
        """What the replay of a run needs that is driven by arrivals."""
        return self._timed(run)[1]

    def _timed(self, run: Run) -> tuple[clock.Timeline, schedule.Batches | None]:
        name = json.dumps(run.to_dict(), default=list)
        if name not in self.lines:
            line, found = self._line(run, self.every), None
            if isinstance(line, schedule.Schedule):
                found = schedule.batches(line) if self.peers else clock.served(run, self.message_bytes())[1]
            self.lines[name] = line, found
        return self.lines[name]

    def _line(self, run: Run, every: int) -> clock.Timeline:
        bits = (8 * self.message_bytes(),) if self.events else self.message_bits
        return clock.timeline(run, self.matrix(run), bits, every)

    @cached_property
    def every(self) -> int:
        """Steps between two records."""
        if self.first.record_seconds is None:
            return self.first.record_every or 1
        # of one seed, so that runs that differ in it share a beat; a power of two, so that many others do
        line = self._line(dataclasses.replace(self.first, seed=0), 1)
        end = line.end if isinstance(line, schedule.Schedule) else line.time[-1] if len(line.time) else np.inf
        return 2 ** int(np.log2(max(1.0, self.first.record_seconds * self._length(line) / end)))

    def _measure(self, run: Run) -> int:
        """Steps of a run; what its replay takes is noted."""
        line, found = self._timed(run)
        if found is not None:
            self.kept, self.batch = max(self.kept, found.kept), max(self.batch, found.rows.shape[1])
        return self._length(line)

    @cached_property
    def loop(self) -> tuple[int, int]:
        """(iterations between two records, iterations in all) of the longest run: steps, or waves."""
        found = [line.applied.shape[1] for line, _ in self.lines.values() if isinstance(line, schedule.Waves)]
        if not found:
            return self.every, self.longest_run
        waves = max(found)
        return waves, waves * (len(self.record_steps(self.longest_run)) - 1)

    def delay_table(self, run: Run) -> np.ndarray:
        return delays.table(run.delay, options_of(run, "delay"))

    def _problem(self, own: Problem | None) -> tuple[Problem, tuple[str, ...]]:
        with flags.fixed(self.dtype == np.float64):
            problem = own or make_problem(self.first)
        sound.check_shards(problem, self.workers)
        counts = shards.counts(problem)
        batch = self.first.batch_size
        if batch is not None and batch > counts.min():
            raise InputError(
                f"batch_size: must not exceed the smallest shard, {counts.min()} samples (worker {np.argmin(counts)}), got {batch}; use batch_size={counts.min()} or fewer workers"
            )
        if problem.layout is not None and self.first.optimizer in COUPLED:
            raise InputError(
                f"optimizer: {self.first.optimizer} looks at whole leaves of a model, which problem.layout cuts; use one that looks at coordinates, as adam, or leave the layout out"
            )
        pieces = 1 if problem.layout is None else problem.layout.micro_batches
        if pieces > 1 and (batch is None or batch % pieces):
            raise InputError(
                f"batch_size: must be a multiple of problem.micro_batches={pieces}, got {'the full local gradient' if batch is None else batch}; use batch_size={pieces}"
            )
        sound.check(problem, self.dtype, int(counts.min()) if batch is None else batch)
        self._check_weighing(problem)
        notes = [problem.note] if problem.note and self._asked("suboptimality") else []
        if self.first.eval_samples is not None and problem.optimum is not None and self._asked("suboptimality"):
            notes.append("suboptimality is left out: f* is known for all samples, not for eval_samples of them")
        looked, all_of_them = self.first.eval_samples, int(counts.sum())
        if own is None and looked is not None and looked == _evaluated(self.first) and looked < all_of_them:
            notes.append(
                f"metrics look at {looked} of {all_of_them} samples, evenly spaced; eval_samples says how many"
            )
        for name in self.first.metrics or ():
            if name not in metrics.CHOICES and name not in problem.metrics:
                notes.append(f"{name} is left out: the problem or its data do not have it")
        if self.method.traits.staleness == "coordinate" and self.first.delay == 0:
            notes.append(
                f"{self.first.algorithm} reads fresh models at delay 0, whatever the cluster; a server's are n - 1 updates old in the mean"
            )
        return problem, tuple(notes)

    def _check_weighing(self, problem: Problem) -> None:
        """Refuse weights of workers that the method, or its local optimizer, would not mind."""
        run, traits = self.first, self.method.traits
        if not problem.weighted:
            return
        if traits.weighs is None:
            raise InputError(
                f"problem.weighted: {run.algorithm} has no rule for workers of unequal weight; use weighted=false, or local_sgd, diloco or fedbuff"
            )
        alone = traits.weighs == "gradients" and traits.steps == "own"
        if alone and run.strict and run.optimizer not in LINEAR:
            raise InputError(
                f"problem.weighted: {run.algorithm} weighs the gradients that each worker steps on, and {run.optimizer} takes little notice of their size; use sgd, or strict: false"
            )

    def _asked(self, name: str) -> bool:
        return self.first.metrics is None or name in self.first.metrics

    def _start(self, start: Tree) -> Tree:
        start = self.problem.start if start is None else start
        if start is not None:
            with flags.fixed(self.dtype == np.float64):
                sound.check_start(start, self.workers, sound.model_of(self.problem, self.dtype))
        return jax.tree.map(self._cast, start)

    def _cast(self, x: Any) -> np.ndarray:
        return shards.cast(x, self.dtype)

    @cached_property
    def data(self) -> Data:
        return shards.split(self.problem, self.dtype, self.first.eval_samples, full=self.first.batch_size is None)

    @cached_property
    def common(self) -> Common:
        """The segments: a record at step 0, every so many steps, and at the end."""
        every, total = self.loop
        longest = max(1, LONGEST // (self.batch * self.rounds))
        rows = [(0, 0, 0)]
        for slot, begin in enumerate(range(0, total, every), start=1):
            end = min(begin + every, total)
            for part in range(begin, end, longest):
                rows.append((part, min(longest, end - part), slot if part + longest >= end else -1))
        start, count, slot = np.array(rows, np.int32).T
        test = self.problem.test
        wanted = self.first.eval_samples
        if wanted is not None and test is not None:
            size = len(jax.tree.leaves(test)[0])
            test = jax.tree.map(lambda x: x[np.unique(np.arange(min(wanted, size)) * size // min(wanted, size))], test)
        return Common(jax.tree.map(self._cast, test), start, count, slot)

    @property
    def rounds(self) -> int:
        """Computations of a worker between a pull and a push."""
        return coordination_of(self.exchange).local_steps if self.events else 1

    @property
    def peers(self) -> bool:
        """Driven by arrivals, and no server."""
        return is_peer_to_peer(self.exchange)

    def record_steps(self, length: int) -> np.ndarray:
        """Steps at which a run of `length` steps is recorded."""
        return np.unique(np.minimum(np.arange(0, length + self.every, self.every), length))

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
            kept=self.kept,
            rounds=self.rounds,
            peers=self.peers,
            parts=self.method.traits.assemble is not None,
            center=self.method.traits.center,
            weighs=self.weighs,
            average=averages(self.first.optimizer),
        )

    @property
    def weighs(self) -> str:
        """What counts by a worker's share of the samples; a problem that is not weighted has equal ones."""
        return (self.method.traits.weighs or "") if self.problem.weighted else "gradients"

    def _build(self, inputs: Inputs, mixes: tuple[mixing.Mix, ...] | None = None) -> Any:
        run, options = self.first, options_of(self.first, "algorithm")
        if self.needs not in (None, "pairs"):
            mixes = mixes or self._mixes(inputs)
        given = {"slots": self.slots, "seed": inputs.seed, "modulus": inputs.modulus, "workers": self.workers}
        given["distribution"] = inputs.delay
        options |= {name: value for name, value in given.items() if name in self.method.known}
        return self.method.make(
            make_optimizer(run, inputs.learning_rate, partial(self._update_key, inputs.seed)),
            mixes[0] if mixes and len(mixes) == 1 else mixes,
            learning_rate=make_rate(run, inputs.learning_rate),
            **options,
        )

    def _update_key(self, seed: Any, count: Any) -> Key:
        """What an optimizer draws from: of each worker where each steps a model of its own, else common."""
        common = self.events or self.method.traits.steps == "common"
        return draws.key(seed, draws.EVERYONE if common else lax.axis_index(AXIS), count, draws.UPDATES)

    def _mixes(self, inputs: Inputs) -> tuple[mixing.Mix, ...]:
        loss = None
        if inputs.link_loss is not None:
            loss = mixing.LinkLoss(inputs.link_loss, **options_of(self.first, "link_loss"))
        how: Any = {"slots": self.slots if self.delayed else None, "ages": inputs.ages, "loss": loss}
        forms = inputs.form if isinstance(inputs.form, tuple) else (inputs.form,)
        return tuple(mixing.mix(form, **how, seed=inputs.seed) for form in forms)

    def inputs(self, run: Run, line: clock.Timeline) -> Inputs:
        """The traced values of one run."""
        w, drawn = self.matrix(run), self.delayed and self.staleness != "fixed"
        forms: Any = None
        if w is not None and not self.events:
            forms = jax.tree.map(self._cast, _forms(run, w, max(1, int(wiring.mixings(run, self.loop[1])))))
            forms = forms if len(forms) > 1 else forms[0]
        return Inputs(
            seed=np.int32(run.seed),
            learning_rate=self.dtype.type(run.learning_rate),
            form=forms,
            modulus=self.dtype.type(mixing.second_modulus(w)) if run.options.get("algorithm.chebyshev") else None,
            link_loss=np.float32(run.link_loss) if run.link_loss else None,
            delay=delays.cumulative(self.delay_table(run), self.slots) if drawn else None,
            ages=self.ages(run) if self.staleness == "fixed" else None,
            turns=self._turns(line) if isinstance(line, schedule.Waves) else None,
            arrivals=self._arrivals(run, *self._timed(run)) if self.events else None,
            length=np.int32(self._iterations(line)) if self.ragged else None,
        )

    def _iterations(self, line: clock.Timeline) -> int:
        if isinstance(line, schedule.Waves):
            return self.loop[0] * len(line.applied)
        return self._length(line)

    def _turns(self, line: schedule.Waves) -> Turns:
        """Each stretch filled up to as many waves as the longest of the group has; and one segment more, to slice from."""
        waves, total = self.loop

        def filled(x: np.ndarray) -> np.ndarray:
            x = np.pad(x, ((0, 0), (0, waves - x.shape[1]), (0, 0))).reshape(-1, self.workers)
            return np.pad(x, ((0, total + int(self.common.count.max()) - len(x)), (0, 0)))

        return Turns(filled(line.applied), filled(line.batch))

    def _arrivals(self, run: Run, line: Any, found: Any) -> Arrivals:
        # a segment slices a whole number of steps: pad, so that the slice never runs over the end
        steps, wide = found.rows.shape
        more = self.longest_run + int(self.common.count.max()) - steps

        def filled(x: np.ndarray) -> np.ndarray:
            return np.pad(x, ((0, more), (0, self.batch - wide))[: x.ndim])

        of_rows = (line.worker, line.batch, line.staleness.astype(np.int32))
        columns = [filled(x[found.rows]) for x in of_rows]
        weight = found.weight
        if self.weighs == "arrivals":
            weight = weight * shards.shares(self.problem)[line.worker[found.rows]]
        columns += [filled(weight.astype(self.dtype)), filled(found.read), filled(found.write)]
        partner = None
        if self.peers:
            meets = wiring.links_of(run, self.matrix(run))(0)
            who = np.zeros(steps, np.int32)
            for i in range(self.workers):
                own = np.flatnonzero(columns[0][:steps, 0] == i)
                number = columns[1][own, 0]
                who[own] = schedule.partners(run.seed, meets, i, int(number.max(initial=-1)) + 1)[number]
            partner = np.pad(who, (0, more))
        worker, number, staleness, weight, read, write = columns
        return Arrivals(worker, number, staleness, weight, read, write, partner)

    # -- compiling and running --

    @property
    def _axes(self) -> tuple[Any, Any, Any, Any]:
        """Axes of carry, inputs, data, start."""
        parts: tuple[Any, ...] = (self._params_axes, self._state_axes, PER_RUN_AND_WORKER, PER_RUN)
        # field by field: pmap takes a flat tuple of axes for one per leaf where their numbers happen to agree
        inputs = Inputs(*[PER_RUN] * len(Inputs._fields))
        if not self.events:
            return Carry(*parts), inputs, PER_WORKER, PER_WORKER
        server = jax.tree.map(lambda a: PER_RUN if a.runs else COMMON, parts)
        return Carry(*server), inputs, COMMON, COMMON

    @cached_property
    def _shape(self) -> Carry:
        """One worker's carry, as shapes."""
        inputs = self.inputs(self.first, self.timeline(self.first))
        with flags.fixed(self.dtype == np.float64):
            if self.events:
                return jax.eval_shape(self.program.server_init, inputs, self.start, np.int32(0))
            return self._of_one(lambda start, number: self.program.worker_init(inputs, start, number))

    def _of_one(self, f: Callable) -> Any:
        """Shapes of what one worker among its like makes of (start, its number)."""
        all_of_them = jax.eval_shape(jax.vmap(f, axis_name=AXIS, axis_size=self.workers), self.start, self.numbers)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), all_of_them)

    @property
    def numbers(self) -> np.ndarray:
        """[workers]: an argument that is mapped over the workers even where no start is given."""
        return np.arange(self.workers, dtype=np.int32)

    @property
    def _laid(self) -> Tree:
        """One worker's model, as shapes, where it has a layout."""
        return None if self.problem.layout is None else self._model

    @property
    def _params_axes(self) -> Any:
        return PER_RUN_AND_WORKER if self._laid is None else state_axes(self._shape.params, self._laid)

    @property
    def _state_axes(self) -> Any:
        return state_axes(self._shape.state, self._laid)

    @cached_property
    def _model(self) -> Tree:
        """One worker's model, as shapes in the run's precision."""
        with flags.fixed(self.dtype == np.float64):
            return sound.model_of(self.problem, self.dtype)

    def message_bytes(self) -> int:
        """Bytes of one model, as it travels; to and from a server the rows that a gradient touches, each with its index."""
        model = sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(self._model))
        traits, touched = self.method.traits, self.problem.touched
        if touched is None or not self.events or self.peers or traits.sends_model:
            return model
        batch = self.first.batch_size or int(shards.counts(self.problem).max())
        numbers, indices = touched(batch)
        return min(model, numbers * self.dtype.itemsize + indices * INDEX)

    @cached_property
    def message_bits(self) -> tuple[int, ...]:
        """Bits that travel over each link in a round of mixing, of each mix: what the method really hands over, in a dry step.

        Of a method that reduces: of each of its messages.
        """
        if self.needs is None:
            how = clock.reduction_of(self.first)
            return how.bits(self._model) if how.bits is not None else (8 * self.message_bytes(),)
        sent: list[list[int]] = [[] for _ in range(2 if self.needs == "row and column stochastic" else 1)]

        def recorder(found: list[int]) -> mixing.Mix:
            def apply(tree: Tree, state: Any, *, bits: int | None = None, **extra: Any) -> tuple[Tree, Any]:
                found.append(
                    sum(8 * x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) if bits is None else bits
                )
                return tree, state

            return mixing.Mix(lambda tree: (), apply)

        anything = Inputs(np.int32(0), self.dtype.type(0.1), *[None] * (len(Inputs._fields) - 2))
        anything = anything._replace(modulus=self.dtype.type(0.5))

        def step(params: Tree) -> Tree:
            method = self._build(anything, tuple(map(recorder, sent)))
            return method.update(params, method.init(params), params)[0]

        stacked = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.workers, *x.shape), x.dtype), self._model)
        with flags.fixed(self.dtype == np.float64):
            jax.eval_shape(jax.vmap(step, axis_name=AXIS), stacked)
        rounds = options_of(self.first, "algorithm").get("rounds", 1)
        return tuple(sum(found) // rounds for found in sent)

    def compile(self, width: int) -> Compiled:
        """The program for slabs of `width` runs, compiled for this group's devices."""
        _ = self.optimum  # where it cannot be found, nothing is compiled
        carry, inputs, data, start = self._axes
        where: dict[str, Any] = {
            "executor": self.first.executor,
            "workers": self.workers,
            "devices": self.devices,
            "events": self.events,
            "parts": self.parts,
        }
        init = self.program.server_init if self.events else self.program.worker_init
        advance = self.program.server_advance if self.events else self.program.worker_advance
        number = COMMON if self.events else PER_WORKER
        first = executors.place(init, (inputs, start, number), carry, **where)
        rest = executors.place(advance, (carry, inputs, data, COMMON, COMMON, COMMON), carry, donate=True, **where)
        with devices_memory.room(), flags.fixed(self.dtype == np.float64):
            several = self.stack([self.first], [self.timeline(self.first)], width)
            given = hosts.shapes((several, self.start, self.numbers))
            begin = first.lower(*given).compile()
            shape = jax.eval_shape(first, *given)
            fixed = self.data, self.common
            go = rest.lower(shape, given[0], *hosts.shapes(fixed), np.int32(0), np.int32(0)).compile()
            if self.first.executor != "pmap":  # which takes its arguments apart by itself
                fixed = hosts.put(fixed, go.input_shardings[0][2:4])
        return Compiled(self, width, begin, go, *fixed)

    def agree(self, number: int) -> int:
        """The same number in all processes that make this group together."""
        return number if self.first.executor in ALONE else hosts.agree(number)

    def stack(self, runs: Sequence[Run], lines: Sequence[clock.Timeline], width: int) -> Inputs:
        """Inputs [width, ...]; a short slab is filled up with its last run."""
        each = [self.inputs(run, line) for run, line in zip(runs, lines, strict=True)]
        each += each[-1:] * (width - len(each))
        return jax.tree.map(lambda *x: np.stack(x), *each)

    # -- reading results --

    def outcome(self, run: Run, line: clock.Timeline, carry: Carry, row: int, diverged: int | None) -> Outcome:
        """One run's history and models, from a slab's arrays on the host; `diverged` is the step at which it did."""
        w = self.matrix(run)
        steps = self.record_steps(self._length(line))
        recorded = {name: np.asarray(h[row][: len(steps)], np.float64) for name, h in carry.history.items()}
        history: dict[str, np.ndarray] = {"step": steps, **self._axes_of(run, line, steps, w)}
        lost = steps >= (self.longest_run + 1 if diverged is None else diverged)
        values = {name: np.where(lost, np.nan, recorded[name]) for name in self._reported(recorded)}
        optimum = self.optimum
        if optimum is not None and "loss" in recorded:
            values["suboptimality"] = np.where(lost, np.nan, recorded["loss"] - optimum)
        params, center = self._models(carry, row), carry.state.center
        if self.method.traits.assemble is not None:
            params = jax.tree.map(lambda x: x[None], self.method.traits.assemble(params, self._model))
        extra = {} if center is None else {"center": jax.tree.map(lambda x: x[row][:1], center)}
        gap = float("nan") if w is None else mixing.spectral_gap(w[0] if isinstance(w, tuple) else w)
        stalled = self._length(line) if getattr(line, "stalled", False) else None
        return Outcome(history | values, params, diverged, gap, stalled, extra)

    def _models(self, carry: Carry, row: int) -> Tree:
        """The models of one run that are reported, leaves [workers, ...], of a server [1, ...]."""
        params, average = jax.tree.map(lambda x: np.asarray(x[row]), (carry.params, carry.state.average))
        if self.events and not self.peers:
            params, average = jax.tree.map(lambda x: x[None], (params, average))
        if average is None:
            return params
        with flags.fixed(self.dtype == np.float64):
            return jax.tree.map(np.asarray, jax.vmap(averaged)(average, params))

    def _length(self, line: clock.Timeline) -> int:
        """Steps of a run."""
        return line.steps if isinstance(line, schedule.Schedule) else len(line.time)

    def first_record(self, history: Mapping[str, Any], runs: int) -> dict[str, np.ndarray]:
        """Metrics at step 0, name -> [runs]; f where only its distance to f* is asked for, which may take long to find."""
        recorded = {name: np.asarray(h[:runs, 0], np.float64) for name, h in history.items()}
        names = self._reported(recorded) or [name for name in ("loss",) if name in recorded]
        return {name: recorded[name] for name in names}

    def _reported(self, recorded: dict[str, np.ndarray]) -> list[str]:
        return [name for name in recorded if name != "finite" and (name != "loss" or self._asked("loss"))]

    def records(self, name: str) -> bool:
        """Whether its runs have that metric."""
        there = name in metrics.CHOICES or name in self.problem.metrics
        compares = self.problem.optimum is not None and self.first.eval_samples is None
        return self._asked(name) and there and (compares or name != "suboptimality")

    @cached_property
    def optimum(self) -> float | None:
        """f*, where it is known, asked for, and comparable with what metrics look at."""
        f = self.problem.optimum
        if f is None or not self._asked("suboptimality") or self.first.eval_samples is not None:
            return None
        return sound.check_optimum(f() if callable(f) else f)

    def _axes_of(self, run: Run, line: clock.Timeline, steps: np.ndarray, w: Any) -> dict[str, Any]:
        """gradients, time and bytes_sent at the records, from the schedule; and ages, where they come from the clock."""
        found = self.batches(run)
        if isinstance(line, schedule.Schedule):
            assert found is not None
            time, computed = found.time, self.rounds * found.computed
        else:
            time, computed = line.time, line.gradients
        axes = {"gradients": np.concatenate([[0], computed])[steps], "time": np.concatenate([[0.0], time])[steps]}
        n, size = self.workers, float(self.message_bytes())
        if found is not None and self.peers:
            return axes | {"bytes_sent": 2 * size * steps / n}
        if found is not None:  # a gradient up for each that is delivered, a model down for each that is pulled
            up, down = (np.concatenate([[0], count])[steps] * size for count in (found.computed, found.pulls))
            return axes | {"bytes_sent": up / n, "server_bytes_sent": down}
        if self.needs is None:
            own, servers = clock.reduced_bytes(run, self.message_bits)
            count = clock.reduction_of(run).count(steps)
            return axes | {"bytes_sent": count * own} | ({"server_bytes_sent": count * servers} if servers else {})
        if isinstance(line, schedule.Waves):
            sent = np.concatenate([[0], line.messages])[steps] * self.message_bits[0]
            ages = {"staleness_mean": line.age_mean, "staleness_max": line.age_max}
            axes |= {name: np.concatenate([[0.0], values]) for name, values in ages.items()}
        else:
            count = wiring.mixings(run, steps)
            sent = sum(
                mixing.messages(part, int(count[-1]), run.seed)[count] * bits
                for part, bits in zip(w if isinstance(w, tuple) else (w,), self.message_bits, strict=True)
            )
        return axes | {"bytes_sent": sent / (8 * n)}


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
        return devices_memory.program_memory(self.go)

    def start(self, inputs: Inputs) -> Carry:
        """The slab before its first step."""
        given = inputs, self.group.start, self.group.numbers
        return self.begin(*(hosts.put(given, self.begin.input_shardings[0]) if hosts.several() else given))

    def resume(self, keeper: Keeper, carry: Carry) -> tuple[Carry, int]:
        """The slab at its last checkpoint, and after how many segments that was; `carry` where there is none."""
        found, done = keeper.latest(carry)
        if done and hosts.several():
            found = hosts.put(found, self.go.input_shardings[0][0])
        return found, done

    def execute(
        self, runs: Sequence[Run], look: Look | None = None, keeper: Keeper | None = None, first: First | None = None
    ) -> list[Outcome]:
        """One slab: at most `width` runs, from start to end, or from the last checkpoint.

        Args:
          look: called between chunks, on the host; it may raise to stop.
          keeper: keeps checkpoints; None: there are none.
          first: gets the record at step 0 as soon as it exists; of a run of several processes it never is here whole.
        """
        group = self.group
        with devices_memory.room(), flags.fixed(group.dtype == np.float64):
            lines = [group.timeline(run) for run in runs]
            inputs = group.stack(runs, lines, self.width)
            carry, done, total = self.start(inputs), 0, len(group.common.start)
            due: list[int] = []
            if keeper is not None:
                due = checkpoints.due(group.common.start, group.common.count, keeper.every).tolist()
                carry, done = self.resume(keeper, carry)
            while done < total:
                chunk = total - done if look is None else group.agree(max(1, min(look(done, total), total - done)))
                chunk = min([chunk, *(stop - done for stop in due if stop > done)])
                carry = self.go(carry, inputs, self.data, self.common, np.int32(done), np.int32(done + chunk))
                jax.block_until_ready(carry.ages)
                if first is not None and not done and not hosts.several():
                    first(group.first_record(carry.history, len(runs)))
                done += chunk
                if keeper is not None and done in due:
                    keeper.save(done, carry)
            host = hosts.fetch(carry._replace(state=group.program.reported(carry.state)))
            diverged = divergence.first_steps(self, inputs, host.history, len(runs))
        each = enumerate(zip(runs, lines, strict=True))
        return [group.outcome(run, line, host, row, diverged.get(row)) for row, (run, line) in each]


def _evaluated(run: Run) -> int | None:
    """Samples that metrics look at where nobody says."""
    return PROBLEMS[str(run.problem)].traits.get("eval_samples")


def make_problem(run: Run) -> Problem:
    """The problem of a resolved run, its data split over the workers.

    Raises:
      InputError: another one comes out each time.
    """
    made = _make_problem(run)
    check_drawn(run, made, lambda: _make_problem(run))
    return made


def _make_problem(run: Run) -> Problem:
    entry = PROBLEMS[str(run.problem)]
    options = options_of(run, "problem")
    if not entry.traits["data"]:
        return entry.make(None, run.workers, **options)
    dataset = data.load(str(run.data), **options_of(run, "data"))
    parts = data.PARTITIONS[str(run.partition)].make(dataset.train["y"], run.workers, **options_of(run, "partition"))
    train, counts = data.shard(dataset.train, parts)
    return entry.make(Shards(train, counts, dataset.test, dataset.classes), run.workers, **options)


__all__ = ["Compiled", "Group", "Outcome", "key", "make_problem"]
