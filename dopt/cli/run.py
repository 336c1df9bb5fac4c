"""`dopt run`: make one run, alone or as one of several processes."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dopt import plugins
from dopt.cli import devices, dry_run, words
from dopt.cli.command import Command, Dotted, Parser, Values, add_figures_folder, add_results_and_wandb, folder
from dopt.cli.screen import complain, console, print_written, short
from dopt.text import quoted
from dopt.types import InputError

if TYPE_CHECKING:
    import jax

    from dopt.config import Resolved, Run
    from dopt.engine.checkpoints import Checkpoints
    from dopt.engine.single import Result
    from dopt.sweeps.live import PlainConsole

AGENT = "WANDB_SWEEP_ID"  # W&B sets it where one of its agents calls us


def _fields() -> list[dataclasses.Field]:
    """What is said of a run by flags of its own."""
    from dopt.config import Run

    return [f for f in dataclasses.fields(Run) if f.name != "options"]


GROUPS = {  # of fields, as help shows them
    "what is run": ("algorithm", "optimizer", "learning_rate", "strict"),
    "what is minimized": ("problem", "data", "partition", "batch_size", "total_batch", "precision"),
    "who takes part, and who talks to whom": ("workers", "topology", "weights", "mix", "delay", "link_loss"),
    "when, and where": ("cluster", "executor", "seed"),
    "for how long (give one)": ("steps", "gradients", "seconds"),
    "what is recorded": ("record_every", "record_seconds", "metrics", "eval_samples"),
}


def add_flags(parser: Parser) -> None:
    """What `dopt run` takes: a flag for each field of a run, and how to run it."""
    from dopt.config import Run
    from dopt.report import docstrings

    texts, fields = docstrings.options(Run, "Attributes:"), {f.name: f for f in _fields()}
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            group.add_argument(
                f"--{name}", metavar="VALUE", default=argparse.SUPPRESS, help=_help(texts.get(name, ""), fields[name])
            )
    how = parser.add_argument_group("how")
    how.add_argument("--id", metavar="ID", help="the run of that id in a table of results, or in a figure's data")
    how.add_argument("--dry-run", action="store_true", help="check and plan the run, and stop")
    add_figures_folder(how)
    add_results_and_wandb(how)
    how.add_argument(
        "--save",
        type=folder,
        metavar="DIR",
        help="save its models (models.npz), history (history.parquet) and settings (run.json)",
    )
    how.add_argument(
        "--checkpoint-every", type=int, metavar="STEPS", help="keep checkpoints in --results; the same command resumes"
    )
    several = parser.add_argument_group("several processes make one run")
    several.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0; or auto (Slurm, MPI, TPU)")
    several.add_argument("--processes", type=int, metavar="N", help="number of processes")
    several.add_argument("--process", type=int, metavar="I", help="which of them this is, from 0")
    several.add_argument(
        "--heartbeat", type=int, metavar="SECONDS", help="after a process dies, the others end within this time"
    )


def _help(text: str, of: dataclasses.Field) -> str:
    """What a field means, and its default where the text does not say it."""
    default = "needed" if of.default is dataclasses.MISSING else f"default: {str(of.default).lower()}"
    said = text.rstrip(".").replace("%", "%%")
    return said if of.default is None else f"{said} ({default})"


def run(args: argparse.Namespace, dotted: Values) -> int:
    """Make the run, and print its history."""
    one, left_out = _asked_for(args, dotted)
    if args.dry_run:
        return _dry_run(one, left_out, devices.of(args.devices))
    if args.checkpoint_every is not None and not args.results:
        raise InputError("checkpoint_every: needs a folder for checkpoints; give --results DIR, too")
    devices.make_virtual(args.devices)
    writes = _join(args, one.executor)
    checkpoint = _checkpoints(args)
    result = _made(one, args, checkpoint, writes)
    if writes:
        out = console()
        _print(out, result, left_out)
        _keep(out, result, args)
        if checkpoint is not None:
            shutil.rmtree(checkpoint.folder)  # the results are there
    return 0


def _asked_for(args: argparse.Namespace, dotted: Values) -> tuple[Run, Sequence[str]]:
    """The run, and the names of what was given and is left out."""
    given = _given(args, dotted)
    return run_of(given) if args.id is None else (_by_id(args, given), ())


def _given(args: argparse.Namespace, dotted: Values) -> dict[str, Any]:
    """The run's fields and options, flat, as they were given."""
    given = {f.name: words.value(f.name, getattr(args, f.name)) for f in _fields() if hasattr(args, f.name)}
    if isinstance(given.get("metrics"), str):  # one name is a list of one
        given["metrics"] = [given["metrics"]]
    return {**given, **dotted}


def run_of(given: Mapping[str, Any]) -> tuple[Run, Sequence[str]]:
    """The run, and the names of what it does not read: left out where a W&B agent asks, as a sweep does; else refused."""
    from dopt.config import Run

    asked = Run.from_dict(given)
    if not os.environ.get(AGENT):
        return asked, ()
    kept = asked.resolve(unread="drop")
    flat, default = kept.to_dict(), {f.name: f.default for f in _fields()}
    said = {name: value for name, value in given.items() if value != default.get(name)}
    return kept, [name for name in said if name not in flat or (name in default and flat[name] == default[name])]


def _by_id(args: argparse.Namespace, given: Mapping[str, Any]) -> Run:
    """The run of that id: of the results below results/ or the user's own folder, or of the figures and sweep files there are."""
    from dopt.config.identity import check_same
    from dopt.figures import files
    from dopt.sweeps import results

    identity, named = args.id, args.figures
    if given:
        raise InputError(f"{next(iter(given))}: --id fixes all of a run; leave it out")
    if not re.fullmatch("[0-9a-f]{16}", identity):  # which it takes a minute to find nowhere
        raise InputError(f"id: must be 16 hex digits, as tables of results have them, got {quoted(identity)}")
    folders = dict.fromkeys(filter(None, (args.results, "results")))
    kept = next(filter(None, (results.find(identity, folder) for folder in folders)), None)
    if kept is not None and not args.imports:  # else the user says where they are today
        _import_again(kept.imports)
    shown = files.shipped() if named is None else Path(named)
    found: Resolved | None = files.find_run(identity, shown) if kept is None else kept.run
    if found is None:
        raise InputError(
            f"id: no run {identity!r} in {' and '.join(map(quoted, folders))}, nor in dopt's figures and sweep files (or give --figures DIR); their tables have the ids"
        )
    check_same(found)
    return found


def _import_again(named: Sequence[tuple[str, str]]) -> None:
    """Import the files and modules, each in its folder, from which the sweep of a run had its plug-ins."""
    for place, name in named:
        plugins.load([name], place, "import")
        complain(f"dopt: imported {name} of {short(Path(place))}, as the sweep of this run did")


def _without(left_out: Sequence[str]) -> str:
    return f"left out, as in a sweep, since this run does not read it: {', '.join(left_out)}"


def _dry_run(one: Run, left_out: Sequence[str], on: Sequence[jax.Device] | None) -> int:
    from dopt.config import Runs
    from dopt.sweeps.spec import Sweep

    resolved = one.resolve()
    if left_out:
        console().print(_without(left_out), highlight=False)
    return dry_run.show(Sweep(f"run {resolved.id}", Runs.of([resolved]), (), {}, "dopt", 0), on)


def _join(args: argparse.Namespace, executor: str) -> bool:
    """Join the other processes of a run, if there are any; whether this one writes and prints."""
    if args.coordinator is None:
        for name in ("processes", "process", "heartbeat"):
            if getattr(args, name) is not None:
                raise InputError(f"{name}: needs --coordinator HOST:PORT, too")
        return True
    from dopt.devices import ALONE, hosts

    if executor in ALONE:
        raise InputError(f"executor: {executor} runs in one process; use --executor shard_map or mesh")
    given = {} if args.heartbeat is None else {"heartbeat": args.heartbeat}
    hosts.initialize(args.coordinator, args.processes, args.process, **given)
    return hosts.first()


def _checkpoints(args: argparse.Namespace) -> Checkpoints | None:
    if args.checkpoint_every is None:
        return None
    from dopt.engine.checkpoints import Checkpoints

    return Checkpoints(Path(args.results) / "checkpoints", args.checkpoint_every)


def _made(one: Run, args: argparse.Namespace, checkpoint: Checkpoints | None, writes: bool) -> Result:
    """What the run gave; its first record is printed as soon as it is there."""
    import dopt
    from dopt.devices import hosts
    from dopt.sweeps import saved
    from dopt.sweeps.live import first_record
    from dopt.sweeps.store import Store

    out = console()

    def begun(record: Mapping[str, Any]) -> None:
        out.print(first_record(record), highlight=False, soft_wrap=True)

    with hosts.together():
        if args.results and writes:
            Store(args.results).check_writable()
        if args.save and writes:
            saved.check(one.resolve().id, args.save)
        on = devices.chosen(args.devices)
        return dopt.run(one, devices=on, checkpoint=checkpoint, first=begun if writes else None)


def _print(out: PlainConsole, result: Result, left_out: Sequence[str]) -> None:
    """Its history, and what is to be said of it."""
    import pandas as pd

    from dopt.report.terminal import history

    out.print(history(pd.DataFrame(result.history)))
    if left_out:
        out.print(_without(left_out), highlight=False)
    if result.diverged:
        out.print(f"diverged at step {result.diverged_step}", highlight=False)
    for note in result.notes:
        out.print(note, highlight=False)


def _keep(out: PlainConsole, result: Result, args: argparse.Namespace) -> None:
    """Its tables, its models and its W&B run, where they are asked for."""
    from dopt.sweeps import saved
    from dopt.sweeps.work import keep_one

    paths = saved.save(result, args.save) if args.save else []
    print_written(out, [*keep_one(result, args.results, args.wandb, say=complain), *paths])


def _dotted(_: argparse.Namespace) -> Dotted:
    return Dotted(None, [f"--{f.name}" for f in _fields()])


EPILOG = "Options of plug-ins are dotted: --topology.degree=4 --delay.max=8"
EXAMPLES = (
    "dopt run --algorithm=gossip_sgd --workers=16 --learning_rate=0.1 --steps=200 --topology=torus",
    "dopt run --algorithm=async_sgd --workers=8 --learning_rate=0.1 --seconds=50 --batch_size=16",
    "dopt run --algorithm=local_sgd --algorithm.local_steps=20 --workers=8 --learning_rate=0.1 --steps=200",
)
COMMAND = Command("make one run", add_flags, run, _dotted, EPILOG, EXAMPLES)
