"""A plan -> results: slab after slab, each claimed, run, and stored, then shown and logged."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from dopt import code, cores, engine, memory
from dopt.config import Resolved, Runs, cost, matrices
from dopt.config.identity import (
    Memo,
    code_digests,
    content_digests,
    differences,
    fresh,
    identify,
    matrix_digest,
)
from dopt.config.runs import joined, missing_in, numbered
from dopt.devices import host
from dopt.devices.executors import spread
from dopt.engine import Group, group_of
from dopt.engine.single import Result
from dopt.facts.problem import is_recorded
from dopt.files import whole, writing
from dopt.paths import slug
from dopt.sweeps import columns, spec
from dopt.sweeps import plan as planning
from dopt.sweeps.jobs import Order, Team, Together, working
from dopt.sweeps.results import Results, load
from dopt.sweeps.show import Show
from dopt.sweeps.store import Store
from dopt.sweeps.tables import of_result, tables
from dopt.sweeps.tracking import Tracker
from dopt.types import InputError, MachineError
from dopt.version import ENGINE, installed
from dopt.watch import Aside, aside, check, in_thread, pace

WAIT = 0.05  # seconds between two looks at what others do
PACKAGES = ("dopt", "jax", "jaxlib", "optax", "flax", "networkx", "numpy", "scipy", "scikit-learn")


def keep_one(result: Result, results: str | Path | None, wandb: str, say: Callable[[str], None]) -> list[Path]:
    """Store one run's tables in a folder (if there is one) and log it to W&B; returns the paths written."""
    runs, history = of_result(result)
    folder = Path(results) if results else Path("results")
    written = []
    if results:
        with writing("results", folder, "--results"):
            folder.mkdir(parents=True, exist_ok=True)
        for name, frame in (("runs", runs), ("history", history)):
            written.append(folder / f"{slug(result.id)}.{name}.parquet")
            with whole(written[-1]) as temporary:
                columns.write(frame, temporary)
    tracker = Tracker(wandb, group="runs", folder=folder, say=say)
    if tracker.mode != "off":
        tracker.log(runs, history)
    return written


def sweep(
    source: str | Path | Mapping[str, Any],
    *,
    results: str | Path | None = None,
    set: Mapping[str, Any] | None = None,
    wandb: str = "off",
    devices: Sequence[Any] | None = None,
    show: Show | None = None,
    jobs: int | None = 1,
) -> Results:
    """Run what a sweep file asks for and is not in the results folder yet.

    Args:
      source: a YAML file in the W&B sweep schema, or its content.
      results: the folder; `results/NAME` by default, `results/NAME_CHANGES` where `set` changes something.
      set: parameters to fix to other values, as `{"steps": 100}`.
      wandb: auto, online, offline or off.
      devices: JAX devices to use, over which the runs are split; by default all of this process, on a CPU (where they
        are virtual) one.
      jobs: processes that share the work on a CPU, each on one thread and one core; None: one for each core. 1: this
        process alone, with the threads that it has, which decide about last bits: so a folder is gone on with on as many
        as it was begun with, if need be by another process.

    Returns:
      The tables of the whole folder.

    Raises:
      InputError: the sweep cannot mean anything, or the folder holds another one or cannot be written.
      MachineError: the folder cannot be written, or the machine has not enough memory; finished slabs are kept.
      KeyboardInterrupt: as soon as it comes; finished slabs are kept.
    """
    return in_thread(lambda: _sweep(source, results, set, wandb, devices, show or Show(), jobs))


def _sweep(
    source: str | Path | Mapping[str, Any],
    results: str | Path | None,
    set: Mapping[str, Any] | None,
    wandb: str,
    devices: Sequence[Any] | None,
    show: Show,
    jobs: int | None,
) -> Results:
    asked = spec.parse(source, changes=set) if isinstance(source, Mapping) else spec.read(source, set)
    if asked.left_out:
        show.say(asked.words())
    store = Store(results if results is not None else default_folder(asked.name, set))
    with ExitStack() as ends:
        ends.callback(show.stop)
        team = ends.enter_context(working(jobs, show))
        planned = _plan(asked, store, devices, team)
        _keep_metric(asked, store, show)
        for line in dict.fromkeys(line for like in _kinds(planned) for line in fresh(like.digests)):
            show.say(f"results: {line}; these runs have ids of their own, and nothing reuses them")
        tracker = Tracker(wandb, group=asked.name, folder=store.folder, project=asked.project, say=show.say)
        with matrices.keeping(_solved(planned, store)):
            _work(planned, store, tracker, devices, team)
    return dataclasses.replace(load(store.folder), metric=asked.metric)


def _keep_metric(asked: spec.Sweep, store: Store, show: Show) -> None:
    """The metric belongs to the reading of a folder, not to its plan; it is kept where it can be."""
    try:
        store.write_metric(asked.metric)
    except MachineError as error:
        show.say(f"results: the metric is not kept for `dopt.load` ({error})")


def _kinds(planned: Sequence[planning.Planned]) -> list[Resolved]:
    """The templates of all groups: one may be in several."""
    return [like for p in planned for like in p.runs.kinds]


def _solved(planned: Sequence[planning.Planned], store: Store) -> dict[matrices.Source, Any]:
    """The matrices that a solver found when the plan was made: it is not asked again, where it might say something else.

    One that is not there, or not what it was, is made anew, and compared like everything else before a slab runs.
    """
    found: dict[matrices.Source, Any] = {}
    for like in filter(matrices.is_solved, _kinds(planned)):
        of = matrices.source(like)
        if of not in found:
            w = matrices.load(store.matrix_path(like.digests["matrix"]))
            if w is not None and matrix_digest(w) == like.digests["matrix"]:
                found[of] = w
    return found


def default_folder(name: str, changes: Mapping[str, Any] | None) -> Path:
    suffix = "".join(f"_{key}-{value}" for key, value in (changes or {}).items())
    return Path("results") / slug(name + suffix)


Built = tuple[str, Runs, Group]  # key, runs, and the group of them


@code.once()
def grouped(asked: spec.Sweep, devices: Sequence[Any] | None = None) -> list[Built]:
    """The groups of a sweep: every check that a run can fail is made, and nothing is compiled."""
    memory.refuse_beyond(cost.needs_of(asked.runs))
    identify(asked.runs.templates)  # before data are read: what changes from now on is found before a slab runs
    built = [(key, runs, _group(runs, devices)) for key, runs in planning.groups_of(asked.runs).items()]
    _check_metric(asked.metric.get("name"), [made for _, _, made in built])
    return built


def prepare(asked: spec.Sweep, devices: Sequence[Any] | None, team: Team | None = None) -> list[planning.Planned]:
    """Groups, widths and slabs of a new sweep; nothing is compiled before all are checked."""
    built, planned = grouped(asked, devices), []
    team = team or Team()
    team.expect(
        sum(math.ceil(len(runs) / planning.width_of(len(runs), made.devices[: made.spread])) for _, runs, made in built)
    )
    for number, (key, runs, made) in enumerate(built):
        begin = time.perf_counter()
        width, compiled = planning.choose_width(made, len(runs), team.size)
        one = planning.Planned(
            key, runs, width, compiled.memory, made.models, planning.cut(number, runs, width), made, {width: compiled}
        )
        one.compile_seconds = time.perf_counter() - begin
        planned.append(one)
    return planned


def _check_metric(name: str | None, built: Sequence[Group]) -> None:
    """Refuse a metric of the sweep that none of its runs will have."""
    if name is not None and not any(is_recorded(made.first, made.facts.problem, name) for made in built):
        raise InputError(f"sweep.metric.name: no run of this sweep has {name}; see the metrics in a run's history")


def _group(runs: Sequence[Resolved], devices: Sequence[Any] | None) -> Group:
    return group_of(runs, devices=devices or spread(runs[0].executor))


def _plan(asked: spec.Sweep, store: Store, devices: Sequence[Any] | None, team: Team) -> list[planning.Planned]:
    written = store.plan() if store.folder.exists() else None
    if written is not None:
        return _same(asked, store, written, team)
    store.check_writable()
    planned = None
    if store.folder.exists():  # somebody may be planning right now
        store.create()
    else:
        planned = prepare(asked, devices, team)  # may refuse: nothing is written then
        store.create()
    with store.locked("plan", wait=True):
        written = store.plan()
        if written is not None:
            return _same(asked, store, written, team)
        if store.has_slabs():
            raise InputError(
                f"results: {store.folder} has slabs and no plan.json, so that nobody can tell whose they are; put it back, or choose another folder with --results"
            )
        planned = planned or prepare(asked, devices, team)
        _write_plan(asked, planned, store, devices, team.threads)
    return planned


def _write_plan(
    asked: spec.Sweep,
    planned: Sequence[planning.Planned],
    store: Store,
    devices: Sequence[Any] | None,
    threads: int | None,
) -> None:
    """The plan, and before it what a solver found for it."""
    for like in filter(matrices.is_solved, asked.runs.templates):
        matrices.save(store.matrix_path(like.digests["matrix"]), matrices.matrix(like))
    store.write_plan(planning.write(asked, planned, devices or jax.devices(), threads))


def _same(asked: spec.Sweep, store: Store, written: dict[str, Any], team: Team) -> list[planning.Planned]:
    """The plan that is there, if it is this sweep's: of the same fields, which stand for the same things."""
    planned = planning.read(written, store.plan_path)
    team.agree(written.get("threads"))
    theirs = joined([p.runs for p in planned])
    new = missing_in(theirs, asked.runs)
    if len(new) or len(theirs) != len(asked.runs):
        fields = new[0].to_dict() if len(new) else {}
        differs = [name for name, value in fields.items() if value not in theirs.values(name)]
        what = f"; new: {', '.join(differs)}" if differs else ""
        raise InputError(
            f"results: {store.folder} holds another sweep ({len(theirs)} runs of {theirs[0].algorithm}{what}); choose another folder with --results"
        )
    with matrices.keeping(_solved(planned, store)):
        _compare(theirs, store, there=not _is_missing(planned, store))
    return planned


def _is_missing(planned: Sequence[planning.Planned], store: Store) -> bool:
    """Whether any slab is not there."""
    return not all(store.has(name) for p in planned for name, _ in p.slabs)


def _compare(runs: Runs, store: Store, there: bool = False) -> None:
    """Refuse what is no longer what the plan was made of.

    Args:
      there: all results are; then what cannot be made here, as data that lie elsewhere, is not compared.
    """
    memo: Memo = {}
    for row in numbered(runs.template)[0].tolist():
        run = runs[row]
        today = code_digests(run, memo)
        try:
            today |= content_digests(run)
        except InputError:
            if not there:
                raise
            today |= {name: digest for name, digest in run.digests.items() if name not in today}
        changed = differences(run.digests, today)
        if changed:
            raise InputError(
                f"results: {', '.join(changed)} of run {run.id} ({run.algorithm}): no longer what {store.plan_path} was made of; put back what it was, or choose another folder with --results"
            )


def _work(
    planned: Sequence[planning.Planned],
    store: Store,
    tracker: Tracker,
    devices: Sequence[Any] | None,
    team: Team,
) -> None:
    """Do every slab that is missing; those that another process works on are waited for, and done if it dies."""
    show = Together(team)
    total = sum(len(p.runs) for p in planned)
    slabs = [Todo(p, name, runs) for p in planned for name, runs in p.slabs]
    there = {todo.name for todo in slabs if store.finished(todo.name, todo.runs.ids, show.say)}
    show.start(total, sum(len(todo.runs) for todo in slabs if todo.name in there))
    try:
        for todo in slabs:
            if todo.name in there and _unlogged(store, tracker, todo.name, todo.runs):
                with store.locked(todo.name, wait=False) as mine:
                    if mine:  # else somebody else is at it
                        _log(store, tracker, todo.name, todo.runs)
    except MachineError as error:
        show.say(f"wandb: what is finished is not logged, since nobody could remember it ({error})")
    missing = [todo for todo in slabs if todo.name not in there]
    if missing:  # a finished folder may be one that nobody can write
        store.create()
        _name_engines(store, there, show)
        _share(planned, team, len(missing))
        team.go(store.folder, None if devices is None else len(devices))
    with aside("pack") as pack, aside("write") as write:
        work = _Pipeline(store, tracker, devices, show, pack, write)
        while missing:
            check()
            team.look()
            left = [todo for todo, after in _with_next(missing) if not _turn(work, team, todo, after)]
            team.see_to([todo.name for todo in left])
            if len(left) == len(missing):
                time.sleep(WAIT)
            missing = left
        work.finish()


def _share(planned: Sequence[planning.Planned], team: Team, slabs: int) -> None:
    """Settle how many processes share so many slabs: no more than have room for what the largest takes."""
    # a program may have half of what is free (`devices.memory`)
    each = [2.0 * (p.memory or 0) + sum(need.bytes for need in cost.needs_of(p.runs, p.width)) for p in planned]
    team.afford(max(each))
    if not team.works_here and not cores.is_own():
        team.show.say(
            f"results: the plan is for {_threads(team.threads)}, and this process has {team.here}: another one does what is missing"
        )
    team.expect(slabs)


def _threads(count: int | None) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def _with_next(missing: Sequence[Todo]) -> Iterator[tuple[Todo, Todo | None]]:
    return zip(missing, [*missing[1:], None], strict=True)


def _turn(work: _Pipeline, team: Team, todo: Todo, after: Todo | None) -> bool:
    """Whether a slab is done, or on its way to the disk, by us or by others."""
    if todo.name in team.told:
        work.log(todo)
        return True
    done = work.do(todo, after) if team.may_take(todo.name) else work.is_there(todo)
    if done:
        team.told.add(todo.name)  # so that it is not shown again, when its helper says so
    return done


def help_with(order: Order, skipped: Collection[str], show: Show) -> None:
    """Do what is missing in a folder and nobody holds, until all is there; `skipped` may grow meanwhile."""
    store = Store(order.folder)
    written = store.plan()
    if written is None:
        raise MachineError(f"results: {store.plan_path} is gone")
    devices = None if order.devices is None else jax.local_devices()[: order.devices]
    planned = planning.read(written, store.plan_path)
    slabs = [Todo(p, name, runs) for p in planned for name, runs in p.slabs]
    begin = int(order.part * len(slabs))
    with matrices.keeping(_solved(planned, store)), aside("pack") as pack, aside("write") as write:
        work = _Pipeline(store, Tracker("off", group="", folder=store.folder), devices, show, pack, write)
        missing = [*slabs[begin:], *slabs[:begin]]
        while missing:
            begun = [
                todo.name in skipped or store.has(todo.name) or work.do(todo, after)
                for todo, after in _with_next(missing)
            ]
            missing = [todo for todo, done in zip(missing, begun, strict=True) if not done]
            time.sleep(WAIT if missing else 0)
        work.finish()


def _name_engines(store: Store, there: Iterable[str], show: Show) -> None:
    """Say so where slabs that are there were made by another engine than the one that will make the others."""
    others = {store.manifest(name).get("engine") for name in there} - {ENGINE}
    if others:
        which = ", ".join(sorted(map(str, others)))
        show.say(
            f"results: slabs of {store.folder} were made by engine {which}, and what is missing is made by engine {ENGINE}: last bits may differ between them"
        )


def _marks(store: Store, name: str) -> Path:
    return store.folder / "locks" / f"{slug(name)}.logged"


def _unlogged(store: Store, tracker: Tracker, name: str, runs: Runs) -> bool:
    """Whether W&B lacks a run of the slab."""
    return bool(tracker.lacks(runs.ids, _marks(store, name)))


def _log(store: Store, tracker: Tracker, name: str, runs: Runs) -> None:
    """Hand W&B what it lacks of a slab."""
    if _unlogged(store, tracker, name, runs):
        tracker.log(*store.read_slab(name, runs.ids), _marks(store, name))


class Todo(NamedTuple):
    """A slab that is to be done."""

    planned: planning.Planned
    name: str
    runs: Runs


class _Pipeline:
    """While the devices run a slab, the next one is packed, and the one before is read, written and logged.

    A slab is claimed when it goes to the devices, and its claim is held until it is written. An error of the writer ends the sweep.
    """

    def __init__(
        self, store: Store, tracker: Tracker, devices: Sequence[Any] | None, show: Show, pack: Aside, write: Aside
    ):
        self.store, self.tracker, self.devices, self.show = store, tracker, devices, show
        self.pack, self.write = pack, write
        self.ahead: tuple[str, Future[engine.Slab]] | None = None  # what is being packed
        self.behind: Future[None] | None = None  # what is being written
        self.first: engine.First | None = show.first  # until a first record was seen

    def do(self, todo: Todo, after: Todo | None) -> bool:
        """Whether the slab is done, or on its way to the disk; not where another process works on it. `after`: the next one."""
        check()
        with ExitStack() as claim:
            if not claim.enter_context(self.store.locked(todo.name, wait=False)):
                return False
            if self.is_there(todo):
                return True
            self.show.slab(todo.name, len(todo.runs))
            compiled = self._compiled(todo)
            begin = time.perf_counter()
            slab = self._packed(todo, compiled)
            if after is not None and after.planned is todo.planned:
                self.ahead = after.name, self.pack(partial(engine.packed, compiled, after.runs))
            carry = engine.advanced(slab, pace(self.show.chunk), first=self.first)
            self.first, seconds = None, time.perf_counter() - begin
            self.finish()
            self.behind = self.write(partial(self._keep, todo, slab, carry, seconds, claim.pop_all()))
        return True

    def is_there(self, todo: Todo) -> bool:
        """Whether somebody else has done the slab."""
        there = self.store.has(todo.name) and self.store.finished(todo.name, todo.runs.ids, self.show.say)
        if there:
            self._show_done(todo, int(self.store.read_slab(todo.name, todo.runs.ids)[0]["diverged"].sum()))
        return there

    def log(self, todo: Todo) -> None:
        """Hand W&B what it lacks of a slab that a helper has done."""
        if _unlogged(self.store, self.tracker, todo.name, todo.runs):
            self.finish()
            self.behind = self.write(partial(_log, self.store, self.tracker, todo.name, todo.runs))

    def finish(self) -> None:
        """Wait for the writer.

        Raises:
          MachineError: it could not write.
        """
        if self.behind is not None:
            self.behind.result()
        self.behind = None

    def _compiled(self, todo: Todo) -> engine.Compiled:
        """The slab's program; what it was planned of is compared with what there is now."""
        p, runs = todo.planned, todo.runs
        if p.group is None:
            p.group = _group(p.runs, self.devices)
        # after it was made, from what lay there then
        _compare(runs.where(lambda like: not fresh(like.digests)), self.store)
        for line in p.group.facts.notes:
            self.show.note(line)
        width = (
            math.ceil(p.width / p.group.spread) * p.group.spread
        )  # the plan may be from a machine with fewer devices
        if width not in p.compiled:
            begin = time.perf_counter()
            p.compiled[width] = engine.compile(p.group, width)
            p.compile_seconds = time.perf_counter() - begin
        return p.compiled[width]

    def _packed(self, todo: Todo, compiled: engine.Compiled) -> engine.Slab:
        """The slab's values, which may have been packed while the one before ran."""
        ahead, self.ahead = self.ahead, None
        if ahead is not None and ahead[0] == todo.name:
            return ahead[1].result()
        return engine.packed(compiled, todo.runs)

    def _keep(self, todo: Todo, slab: engine.Slab, carry: engine.Carry, seconds: float, claim: ExitStack) -> None:
        """Read a slab, write it, look whether it is there, and log it; then give its claim back."""
        with claim:
            found = engine.collected(slab, carry).columns
            runs, history = tables(todo.runs, found)
            check()
            self.store.write_slab(todo.name, runs, history, _manifest(todo, slab.compiled, seconds))
            self.store.check_slab(todo.name, todo.runs.ids)
            if _unlogged(self.store, self.tracker, todo.name, todo.runs):
                self.tracker.log(runs, history, _marks(self.store, todo.name))
        self._show_done(todo, int((found.diverged >= 0).sum()))

    def _show_done(self, todo: Todo, diverged: int) -> None:
        self.show.done(todo.name, len(todo.runs), diverged)


def _manifest(todo: Todo, compiled: engine.Compiled, seconds: float) -> dict[str, Any]:
    """What made a slab."""
    p, group = todo.planned, compiled.group
    return {
        "slab": todo.name,
        "runs": todo.runs.ids,
        "group": p.key,
        "engine": ENGINE,
        "width": compiled.width,
        "device": group.devices[0].device_kind,
        "devices": len(group.devices),
        "threads": host.threads(),
        "seconds": {"compile": p.compile_seconds, "run": seconds},
        "versions": {
            "python": platform.python_version(),
            **{package: installed(package) or "missing" for package in PACKAGES},
        },
        "notes": group.facts.notes,
    }
