"""A plan -> results: slab after slab, each claimed, run, and stored, then shown and logged."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from dopt import code, memory
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
from dopt.devices.executors import spread
from dopt.engine import Group, compile, group_of, run_slab
from dopt.engine.single import Result
from dopt.facts.problem import is_recorded
from dopt.files import whole, writing
from dopt.paths import slug
from dopt.sweep import columns, spec
from dopt.sweep import plan as planning
from dopt.sweep.results import Results, load
from dopt.sweep.show import Show
from dopt.sweep.store import Store
from dopt.sweep.tables import of_result, tables
from dopt.sweep.tracking import Tracker
from dopt.types import InputError, MachineError
from dopt.version import ENGINE, installed
from dopt.watch import check, in_thread, pace

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
) -> Results:
    """Run what a sweep file asks for and is not in the results folder yet.

    Args:
      source: a YAML file in the W&B sweep schema, or its content.
      results: the folder; `results/NAME` by default, `results/NAME_CHANGES` where `set` changes something.
      set: parameters to fix to other values, as `{"steps": 100}`.
      wandb: auto, online, offline or off.
      devices: JAX devices to use, over which the runs are split; by default all of this process, on a CPU (where they
        are virtual) one.

    Returns:
      The tables of the whole folder.

    Raises:
      InputError: the sweep cannot mean anything, or the folder holds another one or cannot be written.
      MachineError: the folder cannot be written, or the machine has not enough memory; finished slabs are kept.
      KeyboardInterrupt: as soon as it comes; finished slabs are kept.
    """
    return in_thread(lambda: _sweep(source, results, set, wandb, devices, show or Show()))


def _sweep(
    source: str | Path | Mapping[str, Any],
    results: str | Path | None,
    set: Mapping[str, Any] | None,
    wandb: str,
    devices: Sequence[Any] | None,
    show: Show,
) -> Results:
    asked = spec.parse(source, changes=set) if isinstance(source, Mapping) else spec.read(source, set)
    if asked.left_out:
        show.say(asked.words())
    store = Store(results if results is not None else default_folder(asked.name, set))
    try:
        planned = _plan(asked, store, devices)
        _keep_metric(asked, store, show)
        for line in dict.fromkeys(line for like in _kinds(planned) for line in fresh(like.digests)):
            show.say(f"results: {line}; these runs have ids of their own, and nothing reuses them")
        tracker = Tracker(wandb, group=asked.name, folder=store.folder, project=asked.project, say=show.say)
        with matrices.keeping(_solved(planned, store)):
            _work(planned, store, tracker, devices, show)
    finally:
        show.stop()
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


def prepare(asked: spec.Sweep, devices: Sequence[Any] | None) -> list[planning.Planned]:
    """Groups, widths and slabs of a new sweep; nothing is compiled before all are checked."""
    built, planned = grouped(asked, devices), []
    for number, (key, runs, made) in enumerate(built):
        begin = time.perf_counter()
        width, compiled = planning.choose_width(made, len(runs))
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


def _plan(asked: spec.Sweep, store: Store, devices: Sequence[Any] | None) -> list[planning.Planned]:
    written = store.plan() if store.folder.exists() else None
    if written is not None:
        return _same(asked, store, written)
    store.check_writable()
    planned = None
    if store.folder.exists():  # somebody may be planning right now
        store.create()
    else:
        planned = prepare(asked, devices)  # may refuse: nothing is written then
        store.create()
    with store.locked("plan", wait=True):
        written = store.plan()
        if written is not None:
            return _same(asked, store, written)
        if store.has_slabs():
            raise InputError(
                f"results: {store.folder} has slabs and no plan.json, so that nobody can tell whose they are; put it back, or choose another folder with --results"
            )
        planned = planned or prepare(asked, devices)
        _write_plan(asked, planned, store, devices)
    return planned


def _write_plan(
    asked: spec.Sweep, planned: Sequence[planning.Planned], store: Store, devices: Sequence[Any] | None
) -> None:
    """The plan, and before it what a solver found for it."""
    for like in filter(matrices.is_solved, asked.runs.templates):
        matrices.save(store.matrix_path(like.digests["matrix"]), matrices.matrix(like))
    store.write_plan(planning.write(asked, planned, devices or jax.devices()))


def _same(asked: spec.Sweep, store: Store, written: dict[str, Any]) -> list[planning.Planned]:
    """The plan that is there, if it is this sweep's: of the same fields, which stand for the same things."""
    planned = planning.read(written, store.plan_path)
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
    show: Show,
) -> None:
    """Do every slab that is missing; those that another process works on are waited for, and done if it dies."""
    total = sum(len(p.runs) for p in planned)
    ids = {name: runs.ids for p in planned for name, runs in p.slabs}
    there = {name for name in ids if store.finished(name, ids[name], show.say)}
    show.start(total, sum(len(runs) for p in planned for name, runs in p.slabs if name in there))
    try:
        for name, runs in ((name, runs) for p in planned for name, runs in p.slabs if name in there):
            if _unlogged(store, tracker, name, runs):
                with store.locked(name, wait=False) as mine:
                    if mine:  # else somebody else is at it
                        _log(store, tracker, name, runs)
    except MachineError as error:
        show.say(f"wandb: what is finished is not logged, since nobody could remember it ({error})")
    missing = [(p, name, runs) for p in planned for name, runs in p.slabs if name not in there]
    if missing:  # a finished folder may be one that nobody can write
        store.create()
        _name_engines(store, there, show)
    while missing:
        left = []
        for p, name, runs in missing:
            check()
            with store.locked(name, wait=False) as mine:
                if not mine:
                    left.append((p, name, runs))
                    continue
                if not store.finished(name, ids[name], show.say):
                    show.slab(name, len(runs))
                    _slab(p, name, runs, store, devices, show)
                diverged = int(store.read_slab(name, ids[name])[0]["diverged"].sum())
                _log(store, tracker, name, runs)
            show.done(len(runs), diverged)
        if len(left) == len(missing):
            time.sleep(0.2)
        missing = left


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


def _slab(
    p: planning.Planned,
    name: str,
    runs: Runs,
    store: Store,
    devices: Sequence[Any] | None,
    show: Show,
) -> None:
    if p.group is None:
        p.group = _group(p.runs, devices)
    _compare(runs.where(lambda like: not fresh(like.digests)), store)  # after it was made, from what lay there then
    for line in p.group.facts.notes:
        show.note(line)
    width = math.ceil(p.width / p.group.spread) * p.group.spread  # the plan may be from a machine with fewer devices
    if width not in p.compiled:
        begin = time.perf_counter()
        p.compiled[width] = compile(p.group, width)
        p.compile_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    outcomes = run_slab(p.compiled[width], runs, pace(show.chunk), first=show.first)
    seconds = time.perf_counter() - begin
    manifest = {
        "slab": name,
        "runs": runs.ids,
        "group": p.key,
        "engine": ENGINE,
        "width": width,
        "device": p.group.devices[0].device_kind,
        "devices": len(p.group.devices),
        "seconds": {"compile": p.compile_seconds, "run": seconds},
        "versions": {
            "python": platform.python_version(),
            **{package: installed(package) or "missing" for package in PACKAGES},
        },
        "notes": p.group.facts.notes,
    }
    check()
    store.write_slab(name, *tables(runs, outcomes.columns), manifest)
