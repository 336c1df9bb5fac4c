"""A plan -> results: slab after slab, each claimed, run, and stored, then shown and logged."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax

from dopt import code, cores, engine, memory
from dopt.config import Run, Runs, cost, matrices
from dopt.config.identity import find_code, fresh, identify
from dopt.engine import Group
from dopt.engine.single import Result
from dopt.facts.problem import is_recorded
from dopt.files import whole, writing
from dopt.paths import slug
from dopt.sweeps import columns, contents, engines, handed, knee, luggage, on_ray, spec, states
from dopt.sweeps import extend as extending
from dopt.sweeps import plan as planning
from dopt.sweeps.agreement import Held, by_digest, solved, templates_of
from dopt.sweeps.hired import Order
from dopt.sweeps.jobs import Team, Together, working
from dopt.sweeps.knee import Ask
from dopt.sweeps.pipeline import Pipeline, Todo, is_unlogged, log, todo_of, with_next
from dopt.sweeps.results import Results, read
from dopt.sweeps.shard import Shard
from dopt.sweeps.show import Part, Show
from dopt.sweeps.store import Reading, Store
from dopt.sweeps.tables import of_result
from dopt.sweeps.tracking import Tracker
from dopt.text import quoted
from dopt.types import InputError, MachineError, Problem
from dopt.version import ENGINE
from dopt.watch import aside, check, in_thread

WAIT = 0.05  # seconds between two looks at what others do


def keep_one(result: Result, results: str | Path | None, wandb: str, say: Callable[[str], None]) -> list[Path]:
    """Store one run's tables in a folder (if there is one) and log it to W&B; returns the paths written."""
    runs, history = of_result(result)
    folder = Path(results) if results else Path("results")
    written = []
    if results:
        with writing("results", folder, "--results"):
            folder.mkdir(parents=True, exist_ok=True)
        for name, table in (("runs", runs), ("history", history)):
            written.append(folder / f"{slug(result.id)}.{name}.parquet")
            with whole(written[-1]) as temporary:
                columns.write(table, temporary)
    tracker = Tracker(wandb, group="runs", folder=folder, say=say)
    if tracker.mode != "off":
        tracker.log(columns.frame(runs), columns.frame(history))
    return written


def sweep(
    source: str | Path | Mapping[str, Any],
    *,
    results: str | Path | None = None,
    set: Mapping[str, Any] | None = None,
    wandb: str = "off",
    devices: Sequence[Any] | None = None,
    progress: str | bool = "auto",
    show: Show | None = None,
    jobs: int | None = 1,
    extend: str | None = None,
    shard: str | None = None,
    checkpoint_every: int | None = None,
    engine: str = "local",
    address: str | None = None,
    cpus_per_slab: int | None = None,
    gpus_per_slab: int | None = None,
    kind: str | None = None,
    problem: Problem | None = None,
    graph: Any = None,
) -> Results:
    """Run what a sweep file asks for and is not in the results folder yet.

    Args:
      source: a YAML file in the W&B sweep schema, the name of one that comes with dopt, or its content.
      results: the folder; `results/NAME` by default, `results/NAME_CHANGES` where `set` changes something.
      set: parameters to fix to other values, as `{"steps": 100}`.
      wandb: auto, online, offline or off.
      devices: JAX devices to use, over which the runs are split; by default all of this process, on a CPU (where they
        are virtual) one.
      progress: "auto": a bar in a notebook, elsewhere a line on stderr every half minute; True: as the command shows it; False: nothing.
      show: who is told instead.
      jobs: processes that share the work on a CPU, each on one thread and one core; None: one for each core. 1: only
        this process, with all its threads. The number of threads affects the last bits, so a folder is always continued with
        the number that it was begun with, by another process if necessary.
      checkpoint_every: keep a checkpoint of each slab every so many steps, and at its end. A slab that was interrupted
        resumes there, and so does a later run with more `steps`, where that is possible.
      extend: `learning_rate`: while the best rate of a cell is at the edge of its grid, the grid of that cell grows by the
        ratio of its two outermost values, at most five times. The tables have these runs, too, also when
        the sweep is asked for again.
      shard: "i/N": do only every N-th slab, from the i-th on, for N machines that share no folder; None: all. `dopt.merge`
        puts their folders into one.
      engine: local, or ray: slabs are tasks on the machines of a Ray cluster (`pip install dopt[ray]`), and what they
        return is written here, so no other machine needs the folder. `devices` and `jobs` cannot be used with it.
      address: HOST:PORT of the cluster; None: a Ray is started on this machine, for as long as the sweep lasts.
      cpus_per_slab: cores of each slab, with one thread per core: 1 by default.
      gpus_per_slab: or devices of one; by default 1 where each machine has some.
      kind: the kind of devices to use, as JAX calls it, if the cluster has several; other devices are not used.
      problem: your own problem, in place of `problem`, `data` and `partition`; and
      graph: a networkx graph, or a mixing matrix W [n, n], in place of `topology`, of all runs of a `source` that is content.
        Their content is part of the runs' ids. This process does all runs then.

    Returns:
      The tables of what was asked for; a folder may hold more.

    Raises:
      InputError: the sweep is not valid, or the folder holds another one or cannot be written.
      MachineError: the folder cannot be written, or the machine has not enough memory; finished slabs are kept.
      KeyboardInterrupt: as soon as it comes; finished slabs are kept.
    """
    _check_source(source)
    luggage.check_script()
    share, every = None if shard is None else Shard.read(shard), states.check(checkpoint_every)
    if show is None:
        from dopt.sweeps import live  # rich, which a run does not need

        show = live.chosen(progress)
    far = engines.Asked(address, cpus_per_slab, gpus_per_slab, kind)
    engines.check(engine, far, devices, None if jobs == 1 else jobs, every)
    if (problem is not None or graph is not None) and (engine != "local" or jobs != 1):
        raise InputError("jobs: problem= and graph= exist only in this process; leave jobs and engine out")
    crews = _crews(engine, far, devices, jobs, show, every)

    def work() -> Results:
        with handed.over(source, problem, graph) as content:
            return _sweep(content, results, set, wandb, show, crews, extend, share)

    return in_thread(work)


def _check_source(source: object) -> None:
    """Refuse what is neither a file nor its content."""
    if not isinstance(source, str | Path | Mapping):
        how = "; for a single run use dopt.run(run)" * isinstance(source, Run)
        raise InputError(f"sweep: must be a file, or its content as a dict, got {quoted(source)}{how}")


class Crew(Protocol):
    """Who does a sweep's slabs."""

    show: Show

    def agree(self, threads: int | None) -> None:
        """Take the threads that a plan says, which decide about bits."""

    @property
    def threads(self) -> int | None:
        """On which each slab runs; None: on an accelerator."""

    def plan(self, held: Held) -> tuple[Sequence[planning.Planned], Mapping[str, Any]]:
        """What the plans of a folder lack, planned; and as it is written."""

    def do(self, planned: Sequence[planning.Planned], missing: Sequence[Todo], store: Store, tracker: Tracker) -> None:
        """Do every slab that is missing, and wait for those that others do."""


Crews = Callable[[], AbstractContextManager[Crew]]


@contextmanager
def _crews(
    engine: str,
    far: engines.Asked,
    devices: Sequence[Any] | None,
    jobs: int | None,
    show: Show,
    every: int | None,
) -> Iterator[Crews]:
    """Who does a sweep's slabs, round by round: helpers begin anew with each, a cluster stays."""
    if engine == "local":
        yield partial(_here, devices, jobs, show, every)
        return
    with on_ray.connected(far, show) as cluster:
        yield lambda: nullcontext(cluster)


@contextmanager
def _here(devices: Sequence[Any] | None, jobs: int | None, show: Show, every: int | None) -> Iterator[Crew]:
    """This process and its helpers."""
    with working(jobs, show) as team:
        yield _Here(devices, team, every)


class _Here:
    def __init__(self, devices: Sequence[Any] | None, team: Team, every: int | None) -> None:
        self.devices, self.team, self.every = devices, team, every
        self.show: Show = Together(team)

    def agree(self, threads: int | None) -> None:
        self.team.agree(threads)

    @property
    def threads(self) -> int | None:
        return self.team.threads

    def plan(self, held: Held) -> tuple[Sequence[planning.Planned], Mapping[str, Any]]:
        assert held.lacking is not None
        with matrices.keeping(held.matrices):
            shorter, number = None if self.every is None else held.runs, held.number + 1
            planned = prepare(held.lacking, self.devices, self.team, knee.measured, number, held.extends, shorter)
            return planned, planning.write(held.lacking, planned, self.devices or jax.devices(), self.threads)

    def do(self, planned: Sequence[planning.Planned], missing: Sequence[Todo], store: Store, tracker: Tracker) -> None:
        _share(planned, self.team, len(missing))
        devices = None if self.devices is None else len(self.devices)
        self.team.go(store.folder, devices, [todo.name for todo in missing], self.every)
        with aside("pack") as pack, aside("write") as write:
            work = Pipeline(store, tracker, self.devices, self.show, pack, write, self.every)
            while missing:
                missing = _round(work, self.team, missing)
            work.finish()


def _sweep(
    source: str | Path | Mapping[str, Any],
    results: str | Path | None,
    set: Mapping[str, Any] | None,
    wandb: str,
    show: Show,
    crews: AbstractContextManager[Crews],
    extend: str | None,
    shard: Shard | None,
) -> Results:
    asked = spec.parse(source, changes=set) if isinstance(source, Mapping) else spec.read(source, set)
    asked = replace(asked, text=spec.written(source, set))
    if asked.left_out:
        show.say(asked.words())
    extending.check(extend, asked)
    if extend is not None and shard is not None:
        raise InputError(
            "extend: a shard cannot tell which rate is best; merge the shards, and extend the merged sweep"
        )
    store = Store(results if results is not None else default_folder(asked.name, set))
    with ExitStack() as ends:
        ends.callback(show.stop)
        who = ends.enter_context(crews)
        held, found = _filled(asked, store, wandb, who, show, shard=shard)
        while extend is not None:
            step = extending.step(held, found)
            for line in step.lines:
                show.say(line)
            if step.runs is None:
                break
            held, found = _filled(asked, store, wandb, who, show, step.runs)
        return found


def _filled(
    asked: spec.Sweep,
    store: Store,
    wandb: str,
    crews: Crews,
    show: Show,
    more: Runs | None = None,
    shard: Shard | None = None,
) -> tuple[Held, Results]:
    """What a folder holds when all is done that was missing; `more`: as of `Held`; `shard`: whose slabs alone are done."""
    with crews() as who:
        held = _plan(asked, store, who, more)
        reading = _keep_reading(held, store, show)
        planned = held.wanted() if shard is None else held.share(shard)
        for line in dict.fromkeys(line for like in templates_of(planned) for line in fresh(like.digests)):
            show.say(f"results: {line}; so these runs get new ids each time, and are never reused")
        tracker = Tracker(wandb, group=asked.name, folder=store.folder, project=asked.project, say=show.say)
        with matrices.keeping(held.matrices):
            _work(planned, store, tracker, who)
        if shard is not None:
            show.say(_left_to_others(shard, held, planned))
        return held, read(store, reading)  # while helpers end


def _left_to_others(shard: Shard, held: Held, planned: Sequence[planning.Planned]) -> str:
    """What a sharded sweep does not do, in words."""
    slabs, mine = todo_of(held.wanted()), todo_of(planned)
    runs = sum(len(todo.runs) for todo in slabs) - sum(len(todo.runs) for todo in mine)
    return f"shard {shard}: {len(slabs) - len(mine)} of {len(slabs)} slabs ({runs} runs) are left to the other shards; `dopt merge` puts all into one folder"


def _keep_reading(held: Held, store: Store, show: Show) -> Reading:
    """What is asked for belongs to the reading of a folder, not to its plans; it is kept where it can be."""
    asked = held.asked
    if held.hidden and held.more is None:  # it was said before the first grid grew
        show.say(f"results: {held.hidden} runs of {store.folder} are hidden, since this sweep does not ask for them")
    reading = Reading(asked.metric, held.shown.ids, asked.varied, asked.merged)
    try:
        store.write_reading(reading)
        store.write_text(asked.text)
    except MachineError as error:
        show.say(f"results: what this call asks for could not be saved for `dopt.load` ({error})")
    return reading


def default_folder(name: str, changes: Mapping[str, Any] | None) -> Path:
    suffix = "".join(f"_{key}-{value}" for key, value in (changes or {}).items())
    return Path("results") / slug(name + suffix)


Built = tuple[str, Runs, Group]  # key, runs, and the group of them


@code.once()
def grouped(asked: spec.Sweep, devices: Sequence[Any] | None = None) -> list[Built]:
    """The groups of a sweep: every check that a run can fail is made, and nothing is compiled."""
    memory.refuse_beyond(cost.needs_of(asked.runs))
    identify(asked.runs.templates)  # before data are read: what changes from now on is found before a slab runs
    built = [(key, runs, planning.group_on(runs, devices)) for key, runs in planning.groups_of(asked.runs).items()]
    _check_metric(asked.metric.get("name"), [made for _, _, made in built])
    return built


def prepare(
    asked: spec.Sweep,
    devices: Sequence[Any] | None,
    team: Team | None = None,
    ask: Ask = knee.remembered,
    plan: int = 1,
    extended: bool = False,
    shorter: Runs | None = None,
) -> list[planning.Planned]:
    """Groups, widths and slabs of a new sweep; nothing is compiled before all are checked.

    Args:
      ask: what is known of how many runs an accelerator does best at once.
      plan: its number.
      extended: whether it was asked for by what came of the others.
      shorter: runs whose states were kept, so that longer ones may start there.
    """
    built, planned = grouped(asked, devices), []
    team = team or Team()
    team.expect(
        sum(math.ceil(len(runs) / planning.width_of(len(runs), made.devices[: made.spread])) for _, runs, made in built)
    )
    labels = contents.labels([json.loads(key) for key, _, _ in built])
    for number, (key, runs, made) in enumerate(built):
        begin = time.perf_counter()
        team.show.compiling(f"{labels[number]} ({number + 1} of {len(built)})")
        known = None if planning.is_fixed(made.devices) else ask(made, runs, key)
        after, why_not = (0, "") if shorter is None else states.begins(made, runs, shorter)
        if why_not:
            team.show.say(f"checkpoint: {why_not}")
        if shorter is not None and after:
            runs = states.begun_first(runs, after, shorter)
        width, compiled = planning.choose_width(made, len(runs), team.size, known, after)
        slabs, segments = planning.cut(plan, number, runs, width), tuple(call.segment for call in compiled.calls)
        one = planning.Planned(
            key, runs, width, compiled.memory, made.models, slabs, segments, after, extended=extended
        )
        one.group, one.compiled, one.knee = made, {width: compiled}, known
        one.compile_seconds = time.perf_counter() - begin
        team.show.compiled(one.compile_seconds)
        planned.append(one)
    return planned


def _check_metric(name: str | None, built: Sequence[Group]) -> None:
    """Refuse a metric of the sweep that none of its runs will have."""
    if name is not None and not any(is_recorded(made.first, made.facts.problem, name) for made in built):
        raise InputError(f"sweep.metric.name: no run of this sweep has {name}; see the metrics in a run's history")


def _plan(asked: spec.Sweep, store: Store, crew: Crew, more: Runs | None = None) -> Held:
    """What the plans of a folder hold of a sweep; a plan of what they lack is added to them first."""
    held = _held(asked, store, crew, more)
    if held.lacking is None:
        return held
    store.check_writable()
    planned = None
    if not store.folder.exists() or held.number:  # else somebody may be planning the whole of it right now
        planned = crew.plan(held)  # may refuse: nothing is written then
    store.create()
    with store.locked("plan", wait=True):
        while True:
            # somebody was sooner, or was it while we planned and were stopped
            if len(store.plan_paths()) != held.number:
                held, planned = _held(asked, store, crew, more), None
            if held.lacking is None:
                return held
            if not held.number and store.has_slabs():
                raise InputError(
                    f"results: {store.folder} has slabs but no plan, so it is unknown which sweep they belong to; put plans back, or choose another folder with --results"
                )
            if planned is not None:
                break
            planned = crew.plan(held)
        made, content = planned
        _write_plan(held, content)
    return held.grown(made, crew.threads)


def _held(asked: spec.Sweep, store: Store, crew: Crew, more: Runs | None) -> Held:
    """What the plans hold of a sweep, which is compared with what lies here now."""
    held = Held.read(asked, store, more)
    crew.agree(held.threads)
    with matrices.keeping(held.matrices):
        held.compare()
    return held


def _write_plan(held: Held, plan: Mapping[str, Any]) -> None:
    """The plan, and before it what a solver found for it."""
    asked, store = held.lacking, held.store
    assert asked is not None
    with matrices.keeping(held.matrices):
        for like in filter(matrices.is_solved, asked.runs.templates):
            matrices.save(store.matrix_path(like.digests["matrix"]), matrices.matrix(like))
    store.write_plan(held.number + 1, plan)


def _work(planned: Sequence[planning.Planned], store: Store, tracker: Tracker, crew: Crew) -> None:
    """Do every slab that is missing; those that another process works on are waited for, and done if it dies."""
    show = crew.show
    slabs = todo_of(planned)
    there = [todo for todo in slabs if store.finished(todo.name, todo.runs.ids, show.say)]
    names = {todo.name for todo in there}
    missing = [todo for todo in slabs if todo.name not in names]
    labels = contents.labels([json.loads(p.key) for p in planned])
    parts = [Part(label, {name: len(runs) for name, runs in p.slabs}) for label, p in zip(labels, planned, strict=True)]
    show.plan(parts, names)
    show.start(sum(len(todo.runs) for todo in slabs), sum(len(todo.runs) for todo in there))
    busy = _log_finished(there, store, tracker, show, wait=False)
    if missing:  # a finished folder may be one that nobody can write
        store.create()
        _name_engines(store, names, show)
        crew.do(planned, missing, store, tracker)
    _log_finished(busy, store, tracker, show, wait=True)  # who is at one logs it, or is dead


def _log_finished(there: Sequence[Todo], store: Store, tracker: Tracker, show: Show, wait: bool) -> list[Todo]:
    """Hand W&B what it lacks of slabs that are there; left are those at which another process is, unless it is waited for."""
    left = []
    try:
        for todo in there:
            if is_unlogged(store, tracker, todo.name, todo.runs):
                with store.locked(todo.name, wait) as mine:
                    if mine:
                        log(store, tracker, todo.name, todo.runs)
                    else:
                        left.append(todo)
    except MachineError as error:
        show.say(f"wandb: finished runs are not logged, since it could not be recorded which are ({error})")
    return left


def _round(work: Pipeline, team: Team, missing: Sequence[Todo]) -> list[Todo]:
    """Take a turn at each slab that is missing, and look after the helpers; what is left then."""
    check()
    team.look()
    left = [todo for todo, after in with_next(missing) if not _turn(work, team, todo, after)]
    team.see_to([todo.name for todo in left])
    if len(left) == len(missing):
        time.sleep(WAIT)
    return left


def _share(planned: Sequence[planning.Planned], team: Team, slabs: int) -> None:
    """Settle how many processes share so many slabs: no more than have room for what the largest takes."""
    # a program may have half of what is free (`devices.memory`)
    each = [2.0 * (p.memory or 0) + sum(need.bytes for need in cost.needs_of(p.runs, p.width)) for p in planned]
    team.afford(max(each))
    if not team.works_here and not cores.is_own():
        team.show.say(
            f"results: the plan is for {_threads(team.threads)}, and this process has {team.here}: a helper process does what is missing"
        )
    team.expect(slabs)


def _threads(count: int | None) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def _turn(work: Pipeline, team: Team, todo: Todo, after: Todo | None) -> bool:
    """Whether a slab is done, or on its way to the disk, by us or by others."""
    if todo.name in team.told:
        work.log(todo)
        return True
    done = work.do(todo, after) if team.may_take(todo.name) else work.is_there(todo)
    if done:
        team.told.add(todo.name)  # so that it is not shown again, when its helper says so
    return done


def rehearse(file: str, changes: Mapping[str, Any], part: float) -> None:
    """Do what can be done for a sweep before its plan is written: what is imported and traced here is ready then.

    What takes much memory waits until it was refused or counted for how many processes there is room, and what a solver makes
    until the plan has it.

    Args:
      part: as of `Order`.
    """
    groups = list(planning.groups_of(spec.read(file, changes).runs).values())
    runs = groups[int(part * len(groups))]
    small = sum(need.bytes for need in cost.needs_of(runs)) <= memory.SMALL
    if small and not any(map(matrices.is_solved, runs.kinds)):
        made = planning.group_on(runs, None)
        engine.rehearse(made, planning.width_of(len(runs), made.devices[: made.spread]))


def help_with(order: Order, skipped: Collection[str], show: Show) -> None:
    """Do what is missing in a folder and nobody holds, until all is there; `skipped` may grow meanwhile."""
    store, names = Store(order.folder), set(order.slabs)
    planned = [p for path in store.plan_paths() for p in planning.read(store.plan(path), path)]
    find_code(templates_of(planned))
    slabs = [todo for todo in todo_of(planned) if todo.name in names]
    if len(slabs) < len(names):
        raise MachineError(f"results: a plan of {store.folder} is gone")
    devices = None if order.devices is None else jax.local_devices()[: order.devices]
    begin = int(order.part * len(slabs))
    with (
        matrices.keeping(solved(templates_of(planned), by_digest(store))),
        aside("pack") as pack,
        aside("write") as write,
    ):
        work = Pipeline(
            store, Tracker("off", group="", folder=store.folder), devices, show, pack, write, order.checkpoint_every
        )
        missing = [*slabs[begin:], *slabs[:begin]]
        while missing:
            begun = [
                todo.name in skipped or store.has(todo.name) or work.do(todo, after)
                for todo, after in with_next(missing)
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
            f"results: slabs of {store.folder} were made by engine {which}, and missing slabs are made by engine {ENGINE}: last bits may differ between them"
        )
