"""A plan -> results: slab after slab, each claimed, run, and stored, then shown and logged."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from dopt import group
from dopt.checkpoints import Checkpoints
from dopt.config import Run
from dopt.execute import spread
from dopt.files import whole, writing
from dopt.run import Result
from dopt.run import run as execute
from dopt.sweep import columns, spec
from dopt.sweep import plan as planning
from dopt.sweep.results import Results, load
from dopt.sweep.store import Store, slug
from dopt.sweep.tracking import Tracker
from dopt.types import InputError
from dopt.watch import check, in_thread, pace

PACKAGES = ("dopt", "jax", "jaxlib", "optax", "flax", "networkx", "numpy", "scipy", "scikit-learn")


class Show:
    """What a sweep tells whoever watches; this one says nothing."""

    def start(self, total: int, finished: int) -> None: ...
    def slab(self, name: str, runs: int) -> None: ...
    def chunk(self, share: float) -> None: ...
    def done(self, runs: int, diverged: int) -> None: ...
    def say(self, line: str) -> None: ...
    def stop(self) -> None: ...


def run_one(run: Run, devices: Sequence[Any] | None = None, checkpoint: Checkpoints | None = None) -> Result:
    """The run, as the command makes it."""
    return execute(run, devices=devices, checkpoint=checkpoint)


def keep_one(result: Result, results: str | Path | None, wandb: str, say: Callable[[str], None]) -> list[Path]:
    """Store one run's tables in a folder (if there is one) and log it to W&B; returns the paths written."""
    outcome = group.Outcome(
        result.history, result.params, result.diverged_step, result.spectral_gap, result.stalled_step
    )
    runs, history = tables([result.run], [outcome])
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
    store.check_writable()
    try:
        planned = _plan(asked, store, devices)
        tracker = Tracker(wandb, group=asked.name, folder=store.folder, project=asked.project, say=show.say)
        _work(planned, store, tracker, devices, show)
    finally:
        show.stop()
    return load(store.folder)


def default_folder(name: str, changes: Mapping[str, Any] | None) -> Path:
    suffix = "".join(f"_{key}-{value}" for key, value in (changes or {}).items())
    return Path("results") / slug(name + suffix)


def prepare(asked: spec.Sweep, devices: Sequence[Any] | None) -> list[planning.Planned]:
    """Groups, widths and slabs of a new sweep; every check that a run can fail is made before anything is compiled."""
    built = [(key, runs, _group(runs, devices)) for key, runs in planning.groups_of(asked.runs).items()]
    _check_metric(asked.metric.get("name"), [made for _, _, made in built])
    planned = []
    for number, (key, runs, made) in enumerate(built):
        begin = time.perf_counter()
        width, compiled = planning.choose_width(made, len(runs))
        one = planning.Planned(
            key, runs, width, compiled.memory, made.models, planning.cut(number, runs, width), made, {width: compiled}
        )
        one.compile_seconds = time.perf_counter() - begin
        planned.append(one)
    return planned


def _check_metric(name: str | None, built: Sequence[group.Group]) -> None:
    """Refuse a metric of the sweep that none of its runs will have."""
    if name is not None and not any(made.records(name) for made in built):
        raise InputError(f"sweep.metric.name: no run of this sweep has {name}; see the metrics in a run's history")


def _group(runs: Sequence[Run], devices: Sequence[Any] | None) -> group.Group:
    return group.Group(runs, devices=devices or spread(runs[0].executor))


def _plan(asked: spec.Sweep, store: Store, devices: Sequence[Any] | None) -> list[planning.Planned]:
    written = store.plan() if store.folder.exists() else None
    if written is not None:
        store.create()
        return _same(asked, store, written)
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
        planned = planned or prepare(asked, devices)
        store.write_plan(planning.write(asked, planned, devices or jax.devices()))
    return planned


def _same(asked: spec.Sweep, store: Store, written: dict[str, Any]) -> list[planning.Planned]:
    """The plan that is there, if it is this sweep's."""
    if sorted(written["order"]) != sorted(run.id for run in asked.runs):
        theirs = {run["id"]: run for g in written["groups"] for slab in g["slabs"] for run in slab["runs"]}
        new = [run for run in asked.runs if run.id not in theirs]
        one = next(iter(theirs.values()))
        differs = [
            k
            for k, v in (new[0].to_dict() if new else {}).items()
            if (list(v) if isinstance(v, tuple) else v) not in [r.get(k) for r in theirs.values()]
        ]
        what = f"; new: {', '.join(differs)}" if differs else ""
        raise InputError(
            f"results: {store.folder} holds another sweep ({len(theirs)} runs of {one['algorithm']}{what}); choose another folder with --results"
        )
    return planning.read(written)


def _work(
    planned: Sequence[planning.Planned],
    store: Store,
    tracker: Tracker,
    devices: Sequence[Any] | None,
    show: Show,
) -> None:
    """Do every slab that is missing; those that another process works on are waited for, and done if it dies."""
    names = [name for p in planned for name, _ in p.slabs]
    total = sum(len(p.runs) for p in planned)
    there = {name for name in names if store.finished(name, show.say)}
    show.start(total, sum(len(runs) for p in planned for name, runs in p.slabs if name in there))
    for name, runs in ((name, runs) for p in planned for name, runs in p.slabs if name in there):
        if _unlogged(store, tracker, name, runs):
            with store.locked(name, wait=False) as mine:
                if mine:  # else somebody else is at it
                    _log(store, tracker, name, runs)
    missing = [(p, name, runs) for p in planned for name, runs in p.slabs if name not in there]
    while missing:
        left = []
        for p, name, runs in missing:
            check()
            with store.locked(name, wait=False) as mine:
                if not mine:
                    left.append((p, name, runs))
                    continue
                if not store.finished(name, show.say):
                    show.slab(name, len(runs))
                    _slab(p, name, runs, store, devices, show)
                diverged = int(store.read_slab(name)[0]["diverged"].sum())
                _log(store, tracker, name, runs)
            show.done(len(runs), diverged)
        if len(left) == len(missing):
            time.sleep(0.2)
        missing = left


def _marks(store: Store, name: str) -> Path:
    return store.folder / "locks" / f"{slug(name)}.logged"


def _unlogged(store: Store, tracker: Tracker, name: str, runs: Sequence[Run]) -> bool:
    """Whether W&B lacks a run of the slab."""
    return bool(tracker.lacks([run.id for run in runs], _marks(store, name)))


def _log(store: Store, tracker: Tracker, name: str, runs: Sequence[Run]) -> None:
    """Hand W&B what it lacks of a slab."""
    if _unlogged(store, tracker, name, runs):
        tracker.log(*store.read_slab(name), _marks(store, name))


def _slab(
    p: planning.Planned,
    name: str,
    runs: list[Run],
    store: Store,
    devices: Sequence[Any] | None,
    show: Show,
) -> None:
    if p.group is None:
        p.group = _group(p.runs, devices)
    width = math.ceil(p.width / p.group.spread) * p.group.spread  # the plan may be from a machine with fewer devices
    if width not in p.compiled:
        begin = time.perf_counter()
        p.compiled[width] = p.group.compile(width)
        p.compile_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    outcomes = p.compiled[width].execute(runs, pace(show.chunk))
    seconds = time.perf_counter() - begin
    manifest = {
        "slab": name,
        "runs": [run.id for run in runs],
        "group": p.key,
        "width": width,
        "device": p.group.devices[0].device_kind,
        "devices": len(p.group.devices),
        "seconds": {"compile": p.compile_seconds, "run": seconds},
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "notes": p.group.notes,
    }
    check()
    store.write_slab(name, *tables(runs, outcomes), manifest)


def tables(runs: Sequence[Run], outcomes: Sequence[group.Outcome]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(runs, history) of a slab."""
    rows, histories = [], []
    for run, outcome in zip(runs, outcomes, strict=True):
        final = {f"final.{k}": v[-1] for k, v in outcome.history.items()}
        fields = run.to_dict() | {"spectral_gap": outcome.spectral_gap, "diverged": outcome.diverged_step is not None}
        ends = {"diverged_step": outcome.diverged_step, "stalled_step": outcome.stalled_step}
        rows.append({"id": run.id, **fields, **ends, **final})
        histories.append(pd.DataFrame({"id": run.id, **outcome.history}))
    table = pd.DataFrame(rows, dtype=object).infer_objects()  # whole numbers beside missing ones stay exact
    for name in ("diverged_step", "stalled_step"):
        table[name] = table[name].astype("Int64")
    return table, pd.concat(histories, ignore_index=True)
