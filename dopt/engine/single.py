"""`run()`, which makes a `Run` happen, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from dopt.config import Resolved, Run, matrices
from dopt.config.identity import digests, fresh, hashed
from dopt.config.runs import Runs
from dopt.devices import ALONE, hosts, memory
from dopt.engine.carry import Carry
from dopt.engine.checkpoints import Checkpoints, Keeper
from dopt.engine.compiled import compile
from dopt.engine.group import Group, grouped
from dopt.engine.outcome import gap_notes, read, recorded
from dopt.engine.slab import First, run_slab
from dopt.facts import facts_of
from dopt.text import quoted
from dopt.types import Devices, InputError, Problem, Tree
from dopt.watch import Look, in_thread, pace


@dataclass(frozen=True, repr=False)
class Result:
    """What a run gave.

    Attributes:
      run: the resolved run.
      id: its identity: fields, and the content of all that they stand for or that was handed over, code included; "" of a run
        with optimizer=, which has none.
      history: name -> NumPy array [records]: step, gradients, time (s), bytes_sent, and the metrics; NaN from the step at
        which the run diverged.
      params: leaves [workers, ...], of server methods [1, ...]; with a layout in its form, which
        `jax.vmap(dopt.facts.make_problem(run).layout.whole)` makes whole again.
      diverged_step: first step at which loss or model was no longer finite; None: never.
      notes: what was left out, and why.
    """

    run: Resolved
    id: str
    history: dict[str, np.ndarray]
    params: Tree
    diverged_step: int | None
    spectral_gap: float  # of the mixing matrix; NaN without one, or where that of a large sparse one was not found
    stalled_step: int | None = None  # after so many steps nothing moved any more: who was waited for never returned
    extra: Mapping[str, Tree] = field(default_factory=dict)  # other models, leaves [1, ...]: easgd's "center"
    notes: tuple[str, ...] = ()

    @property
    def diverged(self) -> bool:
        return self.diverged_step is not None

    def __repr__(self) -> str:
        last = {name: values[-1] for name, values in self.history.items() if len(values)}
        said = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
        end = f"; diverged at step {self.diverged_step}" * self.diverged
        return f"Result {self.id or 'without id'}: {self.run.algorithm} of {self.run.workers} workers on {self.run.problem}, at last {said}{end}"


Callback = Callable[[Mapping[str, float]], object]  # takes a record, name -> number


class _Telling:
    """Tells a callback of each record, once, in order."""

    def __init__(self, group: Group, runs: Runs, callback: Callback) -> None:
        self.group, self.runs, self.callback = group, runs, callback
        self.told = 0  # records

    def __call__(self, carry: Carry, end: int) -> None:
        there = recorded(self.group, np.asarray(carry.history), 1)
        found = read(self.group, self.runs, carry, there, {}).columns.history
        made = int(np.sum(found["step"][0] <= end))
        for row in range(self.told, made):
            self.callback({name: column[0][row].item() for name, column in found.items()})
        self.told = made


def stalling(run: Resolved, step: int | None) -> tuple[str, ...]:
    """One line on who was waited for in vain, if anybody was."""
    if step is None:
        return ()
    who, at = run.options["cluster.crash_workers"], run.options["cluster.crash"]
    who = "worker 0" if who == 1 else f"workers 0 to {who - 1}"
    return (
        f"{run.algorithm} stalls after step {step}: {who} crashed at {at:g} s and never returned; give cluster.restart, or use a method that does not wait",
    )


def run(
    run: Run,
    *,
    problem: Problem | None = None,
    graph: Any = None,
    start: Tree = None,
    devices: Devices | None = None,
    look: Look | None = None,
    checkpoint: Checkpoints | None = None,
    first: First | None = None,
    optimizer: optax.GradientTransformation | None = None,
    callback: Callback | None = None,
) -> Result:
    """Compute one run, and return what it gave.

    Args:
      run: what to run.
      problem: one's own problem, in place of `run.problem`, `data` and `partition`.
      graph: a networkx graph, or a mixing matrix W [n, n], in place of `run.topology`.
      start: models to start from, leaves [workers, ...].
      devices: JAX devices to use; the first one, or as many as the executor needs, by default.
      look: called between calls of the compiled program with (calls done, of how many); returns how many to do next, or raises to stop.
      checkpoint: where to keep checkpoints, and how often; a run that finds its own goes on from the last one, and gives
        the same bits as without the break.
      first: called with the record at step 0, metric -> [1], as soon as it exists.
      optimizer: an optax transformation in place of `run.optimizer`, with a learning rate of its own; `run.learning_rate` is then
        only for methods that divide by it. Such a run has no id, and is not stored anywhere.
      callback: called with each record, name -> number, soon after it was made: step, gradients, time, bytes_sent, and the
        metrics. An exception in it ends the run.

    Raises:
      InputError: something in the description does not fit, or the checkpoints are of another run or other devices;
        nothing was compiled yet.
      MachineError: the machine has not enough memory, or cannot write checkpoints.
      KeyboardInterrupt: as soon as it comes.
    """
    _check_run(run)

    handed = {"problem": problem, "graph": graph, "start": start, "optimizer": optimizer}
    own = {name: value for name, value in handed.items() if value is not None}

    def work() -> Result:
        with hosts.together():
            return _run(run, own, devices, _Watched(look, checkpoint, first, callback))

    return in_thread(work)


def _check_run(run: object) -> None:
    """Refuse what is no run."""
    if not isinstance(run, Run):
        how = (
            "Run.from_dict({...})" if isinstance(run, Mapping) else "Run(algorithm=..., workers=..., learning_rate=...)"
        )
        raise InputError(
            f"run: must be a dopt.Run, got {quoted(run)} ({type(run).__name__}); write dopt.run(dopt.{how})"
        )


class _Watched(NamedTuple):
    """Who looks at a run on its way, and what is kept of it."""

    look: Look | None
    checkpoint: Checkpoints | None
    first: First | None
    callback: Callback | None


def _run(run: Run, own: Mapping[str, Any], devices: Devices | None, watched: _Watched) -> Result:
    checkpoint = watched.checkpoint
    if run.executor not in ALONE:
        every = None if checkpoint is None else checkpoint.every
        hosts.compare({**run.to_dict(), "checkpoint_every": every, "devices": len(devices or jax.devices())})
    resolved = run.resolve(**{name: value for name, value in own.items() if name != "start"})
    runs = Runs.of([resolved])
    solved = None  # where a solver's matrix lies beside the checkpoints: it is not asked again, where it might say something else
    if checkpoint is not None and "graph" not in own and matrices.is_solved(resolved):
        solved = Path(checkpoint.folder) / "matrix.npz"
    with matrices.keeping({} if solved is None else matrices.kept(resolved, solved)):
        return _made(runs, own, devices, watched, solved)


def _check_watched(watched: _Watched, own: Mapping[str, Any], unhashed: Sequence[str]) -> None:
    """Refuse checkpoints that nobody could tell whose they are, and a callback where a record is nowhere whole."""
    why = "a run with optimizer= has no id" if "optimizer" in own else next(iter(unhashed), None)
    if watched.checkpoint is not None and why is not None:
        raise InputError(f"checkpoint: {why}, so its checkpoints could not be found again; leave it out")
    if watched.callback is not None and hosts.several():
        raise InputError("callback: where several processes make a run, none of them has all records; leave it out")


def _made(
    runs: Runs, own: Mapping[str, Any], devices: Devices | None, watched: _Watched, solved: Path | None
) -> Result:
    facts = facts_of(runs, **own)
    (resolved,) = runs
    has_id = "optimizer" not in own
    found = digests(resolved, own) if has_id else {}
    number, unhashed = hashed(resolved.to_dict(), found) if has_id else "", fresh(found)
    _check_watched(watched, own, unhashed)
    checkpoint = watched.checkpoint
    shared = resolved.executor not in ALONE
    if resolved.executor == "vmap" and devices:
        devices = devices[:1]  # one run has no runs to split
    group = grouped(facts, devices)
    if shared:
        hosts.compare({} if unhashed else {"id": number})
    keeper = None if checkpoint is None else Keeper(checkpoint, number, group.devices)
    if solved is not None and hosts.first():
        matrices.save(solved, matrices.matrix(resolved))
    try:
        told = None if watched.callback is None else _Telling(group, runs, watched.callback)
        calls = None if keeper is None and told is None else group.calls(1, most=1)  # checkpoints lie where calls end
        compiled = compile(group, 1, calls)
        memory.check_fits(compiled.memory, group.devices[0], resolved.algorithm)
        if shared:
            hosts.compare({})  # nobody has refused
        (outcome,) = run_slab(compiled, runs, watched.look or pace(), keeper, watched.first, told)
    finally:
        if keeper is not None:
            keeper.close()
    return Result(
        resolved,
        number,
        outcome.history,
        outcome.params,
        outcome.diverged_step,
        outcome.spectral_gap,
        outcome.stalled_step,
        outcome.extra,
        (
            *facts.notes,
            *gap_notes(group, facts.runs),
            *(f"{line}; so this run gets a new id each time, and is never reused" for line in unhashed),
            *stalling(resolved, outcome.stalled_step),
        ),
    )
