"""The command `dopt`: sweep, run, list, show, figures, doctor."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dopt.files import is_writable, reason
from dopt.registry import Entry, did_you_mean
from dopt.text import quoted, shown
from dopt.types import InputError, MachineError
from dopt.version import VERSION
from dopt.watch import in_thread
from dopt_command import ends_at_once

AGENT = "WANDB_SWEEP_ID"  # W&B sets it where one of its agents calls us
SCHEDULE = {  # fields of a run that its clock reads
    "workers": "default: 8",
    "topology": "of gossip methods; default: ring",
    "weights": "default: what the graph and the method ask for",
    "delay": "cluster: delayed_gossip_sgd waits for nobody, which is its default here",
    "cluster": "a law of compute times; default: exponential",
    "steps": "the horizon is updates,",
    "gradients": "or computations,",
    "seconds": "or seconds; default: 20",
    "seed": "default: 0",
}
SHOWN = {  # what `show` takes: prefixes of dotted options, and flags
    "topology": (("topology", "weights"), ("workers", "weights", "out")),
    "schedule": (
        ("algorithm", "problem", "topology", "weights", "cluster"),
        (*SCHEDULE, "message_bytes", "results", "save", "load"),
    ),
}


if TYPE_CHECKING:
    from dopt.config import Run


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit codes 0, 2 (input), 1 (the machine refuses, a figure's claim fails, doctor finds a fault), 130/143 (interrupted)."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    with ends_at_once(given):
        return in_thread(lambda: _code(given))


def _code(given: list[str]) -> int:
    """The exit code of a command, whose errors are one line."""
    try:
        return _command(given)
    except InputError as error:
        _complain(f"dopt: {error}")
        return 2
    except (MemoryError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # who read our output has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        _complain(f"dopt: {_machine_says(error)}")
        return 1


def _complain(line: str) -> None:
    """One line on stderr, whatever it quotes."""
    print(shown(line), file=sys.stderr)


def _machine_says(error: MemoryError | OSError) -> str:
    """What the machine refuses, in one line."""
    if isinstance(error, MemoryError):
        return " ".join(f"memory: the machine has no more {error}; use fewer workers or a smaller model".split())
    if isinstance(error, MachineError):
        return str(error)
    name = "machine" if error.filename is None else repr(os.fsdecode(error.filename))
    return f"{name}: {reason(error)}"


def parser() -> Parser:
    top = Parser(prog="dopt", description=__doc__, allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"dopt {VERSION}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def results_and_wandb(p: argparse.ArgumentParser) -> None:
        p.add_argument("--results", metavar="DIR", help="where results lie (default: results/NAME)")
        p.add_argument(
            "--wandb",
            choices=("auto", "online", "offline", "off"),
            default="auto",
            help="log to Weights & Biases (default: auto, if logged in)",
        )
        p.add_argument(
            "--devices",
            type=int,
            metavar="N",
            help="how many devices to use (a sweep: all by default); on a CPU, N virtual ones",
        )

    def figures_folder(p: argparse.ArgumentParser) -> None:
        p.add_argument("--figures", metavar="DIR", help="a folder of figure files, which are run (default: dopt's own)")

    sweep = commands.add_parser("sweep", allow_abbrev=False, help="run a sweep file, or what is missing of it")
    sweep.add_argument("file", metavar="FILE", help="YAML in the W&B sweep schema")
    sweep.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="fix a parameter to another value, or [a, b] to several",
    )
    sweep.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    figures_folder(sweep)
    results_and_wandb(sweep)

    run = commands.add_parser(
        "run",
        allow_abbrev=False,
        help="make one run",
        epilog="Options of plug-ins are dotted: --topology.degree=4 --delay.max=8",
    )
    from dopt.config import Run

    for f in dataclasses.fields(Run):
        if f.name != "options":
            run.add_argument(
                f"--{f.name}",
                metavar="VALUE",
                default=argparse.SUPPRESS,
                help=f"default: {f.default}" if f.default is not dataclasses.MISSING else "needed",
            )
    run.add_argument("--id", metavar="ID", help="the run of that id in a table of results, or in a figure's data")
    run.add_argument("--dry-run", action="store_true", help="resolve and plan it, and stop")
    figures_folder(run)
    results_and_wandb(run)
    run.add_argument(
        "--coordinator", metavar="HOST:PORT", help="several processes: where process 0 is; or auto (Slurm, MPI, TPU)"
    )
    run.add_argument(
        "--checkpoint-every", type=int, metavar="STEPS", help="keep checkpoints in --results; the same command resumes"
    )
    run.add_argument("--processes", type=int, metavar="N", help="how many there are")
    run.add_argument("--process", type=int, metavar="I", help="which of them this is, from 0")
    run.add_argument("--heartbeat", type=int, metavar="SECONDS", help="the death of one ends the others so much later")

    listing = commands.add_parser("list", allow_abbrev=False, help="what there is, a line each, with its source")
    listing.add_argument(
        "what",
        nargs="?",
        help="algorithms, topologies, weights, compressors, delays, clusters, problems, data, partitions",
    )

    show = commands.add_parser("show", allow_abbrev=False, help="numbers and a picture of a topology or a schedule")
    shows = show.add_subparsers(dest="what", required=True, metavar="WHAT", parser_class=Parser)
    topology = shows.add_parser(
        "topology",
        allow_abbrev=False,
        help="who sends to whom, and which methods accept it",
        epilog="Options are dotted: --topology.degree=4 --weights.edge=0.2",
    )
    topology.add_argument("name", metavar="NAME", help="a registered name, networkx:FUNCTION, or a file")
    topology.add_argument(
        "--workers", type=int, metavar="N", help="default: 16, or as many as networkx or the file gives"
    )
    topology.add_argument("--weights", metavar="RULE", help="default: what the graph and the method ask for")
    topology.add_argument("--out", default=".", metavar="DIR", help="where the picture goes (default: here)")
    schedule = shows.add_parser(
        "schedule",
        allow_abbrev=False,
        help="who computes, sends, waits, or computes in vain: the clock of a method, without any model",
        epilog="Options are dotted: --algorithm.k=4 --cluster.straggler=4 --cluster.crash=10 --problem.layout=layers",
    )
    schedule.add_argument("name", nargs="?", metavar="ALGORITHM", help="a method; with --load it is not needed")
    for name, text in SCHEDULE.items():
        schedule.add_argument(f"--{name}", metavar="VALUE", default=argparse.SUPPRESS, help=text)
    schedule.add_argument("--message_bytes", metavar="B", help="size of a model, as it travels (default: 0)")
    schedule.add_argument("--results", default=".", metavar="DIR", help="where the picture goes (default: here)")
    schedule.add_argument("--save", metavar="FILE.npz", help="write the schedule, too")
    schedule.add_argument("--load", metavar="FILE.npz", help="show what was saved")

    figures = commands.add_parser(
        "figures", allow_abbrev=False, help="draw figures, running what is missing, and check their claims"
    )
    figures.add_argument("names", nargs="*", metavar="NAME")
    figures.add_argument(
        "--folder", metavar="DIR", help="where figure files lie, which are run (default: dopt's own, paper_figs)"
    )
    figures.add_argument("--results", default="results", metavar="DIR", help="where results lie (default: results)")
    figures.add_argument("--list", action="store_true", help="print the figures and what they ask, and stop")
    size = figures.add_mutually_exclusive_group()
    for name, text in (
        ("fast", "a tenth of the seeds; claims are widened, or left out where they could not fail any more"),
        ("full", "five times the seeds, and the paper's own size where that is larger: hours"),
    ):
        size.add_argument(f"--{name}", dest="size", action="store_const", const=name, default="", help=text)
    figures.add_argument("--jobs", type=int, metavar="N", help="processes (default: one for each core of a CPU)")
    figures.add_argument(
        "--gallery", action="store_true", help="also put pictures, data and GALLERY.md into --folder; for all figures"
    )

    doctor = commands.add_parser(
        "doctor", allow_abbrev=False, help="versions, devices, memory, data, W&B, results folder"
    )
    doctor.add_argument("--results", default="results", metavar="DIR")
    doctor.add_argument("--devices", type=int, metavar="N")
    doctor.add_argument(
        "--collectives", action="store_true", help="measure messages between the devices, and write them down"
    )
    doctor.add_argument(
        "--out",
        default="cluster.json",
        metavar="FILE",
        help="of --collectives, for cluster.links (default: cluster.json)",
    )
    return top


def _check_once(arguments: Sequence[str]) -> None:
    """Refuse a flag that is given twice: of its values only the last would be read."""
    seen = set()
    for word in arguments:
        flag = word.partition("=")[0]
        if flag in seen and flag != "--set":
            raise InputError(f"{shown(flag.removeprefix('--'))}: is given twice; leave one out")
        if flag.startswith("--"):
            seen.add(flag)


def _command(arguments: list[str]) -> int:
    _check_once(arguments)
    known, rest = parser().parse_known_args(_joined(arguments) if arguments[:1] == ["show"] else arguments)
    dotted = _dotted(known, rest) if known.command in ("run", "show") else {}
    if rest and not dotted:
        flags = [f"--{name.replace('_', '-')}" for name in (*vars(known), "help") if name != "command"]
        flags += ["--fast", "--full"] if known.command == "figures" else []
        near = (
            did_you_mean(rest[0].split("=")[0], flags)
            if rest[0].startswith("-")
            else f"; see `dopt {known.command} --help`"
        )
        raise InputError(f"{known.command}: unknown argument {rest[0]!r}{near}")
    commands = {"sweep": _sweep, "run": _run, "list": _list, "show": _show, "figures": _figures, "doctor": _doctor}
    return commands[known.command](known, dotted)


def _joined(arguments: list[str]) -> list[str]:
    """Dotted options with `=`, so that no value of theirs is taken for a name."""
    joined: list[str] = []
    for word in arguments:
        last = joined[-1] if joined else ""
        if last.startswith("--") and "." in last and "=" not in last and not word.startswith("--"):
            joined[-1] = f"{last}={word}"
        else:
            joined.append(word)
    return joined


def _dotted(known: argparse.Namespace, rest: list[str]) -> dict[str, Any]:
    """`--name=value` and `--name value` pairs that argparse does not know: options of plug-ins."""
    from dopt.config import Run

    command, found, queue = known.command, {}, list(rest)
    prefixes, flags = SHOWN[known.what] if command == "show" else ((), ())
    while queue:
        flag = queue.pop(0)
        name, equals, value = flag.removeprefix("--").partition("=")
        if not flag.startswith("--") or "." not in name or (command == "show" and name.split(".")[0] not in prefixes):
            fields = [f"--{f.name}" for f in dataclasses.fields(Run) if f.name != "options"]
            known_flags = fields if command == "run" else [f"--{f}" for f in (*flags, *(f"{p}." for p in prefixes))]
            raise InputError(f"{command}: unknown argument {flag!r}{did_you_mean(flag.split('=')[0], known_flags)}")
        if not equals:
            if not queue:
                raise InputError(f"{command}: {flag} needs a value")
            value = queue.pop(0)
        found[name] = value
    return {name: _value(name, text) for name, text in found.items()}


def _value(name: str, text: str) -> Any:
    """A value as YAML reads it: a number, true, none, a list, a word."""
    from dopt.sweep import plain

    return None if text in ("None", "none", "null") else plain.load(text, f"{name}: {quoted(text)}")


def _virtual(count: int | None) -> None:
    """Let a CPU have as many devices; before anything asks JAX for devices, and before other processes are joined."""
    import jax

    if count is None:
        return
    if count < 1:
        raise InputError(f"devices: must be at least 1, got {count}")
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", count)  # says nothing to accelerators


def _devices(count: int | None) -> list[Any] | None:
    """The first `count` devices of each process; on a CPU, as many virtual ones. None: as JAX finds them."""
    _virtual(count)
    return _chosen(count)


def _chosen(count: int | None) -> list[Any] | None:
    import jax

    if count is None:
        return None
    found = jax.local_devices()
    if count > len(found):
        raise InputError(f"devices: there are {len(found)} ({found[0].platform}), got {count}")
    if jax.process_count() == 1:
        return found[:count]
    hosts = range(jax.process_count())
    return [device for host in hosts for device in [d for d in jax.devices() if d.process_index == host][:count]]


def _console(stderr: bool = False) -> Any:
    from dopt.report.terminal import PlainConsole

    console = PlainConsole(stderr=stderr)
    return console if console.is_terminal else PlainConsole(stderr=stderr, width=140)


# -- commands -------------------------------------------------------------------------------------------------------


def _sweep(args: argparse.Namespace, _: Mapping[str, Any]) -> int:
    from dopt.report.terminal import ProgressShow, summary
    from dopt.sweep import spec
    from dopt.sweep.engine import sweep

    changes: dict[str, Any] = {}
    for text in args.set:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"set: must be KEY=VALUE, got {quoted(text)}")
        if name in changes:
            raise InputError(f"set: {quoted(name)} is given twice")
        changes[name] = _value(name, value)
    if args.dry_run:
        return _dry_run(spec.read(args.file, changes), _devices(args.devices))
    out, show = _console(), ProgressShow(_console(stderr=True))
    results = sweep(
        args.file, results=args.results, set=changes, wandb=args.wandb, devices=_devices(args.devices), show=show
    )
    if show.new == 0:
        out.print(f"all {len(results.runs)} runs of {results.name} are there already; nothing to run", highlight=False)
    out.print(summary(results))
    paths = [results.folder / "plan.json", results.folder / "slabs"]
    paths += _drawn(results, Path(args.file), args.figures)
    out.print("\n".join(["wrote", *(f"  {_short(path)}" for path in paths)]), highlight=False, soft_wrap=True)
    return 0


def _drawn(results: Any, file: Path, named: str | None) -> list[Path]:
    """The pictures of a sweep that a figure is made of: a figure that comes with dopt and with this very file, or one of `named`."""
    from dopt.report import figures

    folder = figures.shipped() if named is None else Path(named)
    known = figures.available(folder)
    if named is not None and not known:
        raise InputError(f"figures: no figure files in {named!r}")
    if results.name not in known or (named is None and not _is_shipped(file, folder)):
        return []
    module = figures.find(results.name, folder)
    if len(module.SWEEPS) > 1:
        return []
    return figures.draw(
        module, dict.fromkeys(module.SWEEPS, results), _beside(results.folder) / figures.file_name(results.name, "")
    )


def _is_shipped(file: Path, folder: Path) -> bool:
    return file.resolve().parent == folder.parent / "benchmarks"


def _beside(folder: Path) -> Path:
    """Where pictures of results go: to them, or here, where theirs is a folder that cannot be written."""
    return folder if is_writable(folder) else Path()


def _short(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _dry_run(asked: Any, devices: list[Any] | None) -> int:
    from dopt.config import cost
    from dopt.memory import available, size
    from dopt.report.terminal import table
    from dopt.sweep.engine import prepare

    planned = prepare(asked, devices)
    out = _console()
    out.print(f"{asked.words()}, {len(planned)} groups", highlight=False)
    rows = []
    for number, p in enumerate(planned):
        memory = "unknown" if p.memory is None else f"{p.memory / 2**20:.1f} MiB"
        host = size(sum(need.bytes for need in cost.needs_of(p.runs, p.width)))
        rows.append([number, len(p.runs), len(p.slabs), p.width, memory, host, p.models, f"{p.compile_seconds:.1f} s"])
    titles = ["group", "runs", "slabs", "width", "memory of a slab", "of the host, about", "models kept", "compiled in"]
    out.print(table("", titles, rows))
    out.print(f"this host has {size(available())} free", highlight=False)
    for number, p in enumerate(planned):
        out.print(
            f"group {number} is one because its runs share " + _reason(p, planned), highlight=False, soft_wrap=True
        )
    return 0


def _reason(p: Any, planned: Sequence[Any]) -> str:
    """What the runs of a group share that changes shapes or code; against other groups, what tells it from them."""
    import json

    from dopt.group import TRACED

    keys = [json.loads(q.key) for q in planned]
    mine = json.loads(p.key)
    if len(planned) > 1:
        names = [name for name in mine if any(key.get(name) != mine[name] for key in keys)]
    else:
        names = [
            name
            for name in (
                "algorithm",
                "mix",
                "delays",
                "clock",
                "problem",
                "data",
                "workers",
                "steps",
                "batch_size",
                "precision",
                "executor",
            )
            if mine.get(name) is not None
        ]
    vary = [name for name in TRACED if len({str(getattr(run, name)) for run in p.runs}) > 1]
    shared = ", ".join(f"{name}={mine[name]}" for name in names)
    return f"{shared}; what differs between them is a value the program takes: {', '.join(vary) or 'nothing'}"


def _run(args: argparse.Namespace, dotted: Mapping[str, Any]) -> int:
    import pandas as pd

    from dopt.report.terminal import first_record, history

    given = _asked(args, dotted)
    run, left_out = (_found(args.id, given, args.figures), []) if args.id is not None else _run_of(given)
    if args.dry_run:
        return _dry_run_one(run, left_out, _devices(args.devices))
    if args.checkpoint_every is not None and not args.results:
        raise InputError("checkpoint_every: needs a folder for them; give --results DIR, too")
    _virtual(args.devices)
    writes = _join(args, run.executor)
    import dopt
    from dopt.checkpoints import Checkpoints
    from dopt.devices import hosts
    from dopt.sweep.store import Store

    out = _console()

    def begun(record: Mapping[str, Any]) -> None:
        out.print(first_record(record), highlight=False, soft_wrap=True)

    checkpoint = None
    if args.checkpoint_every is not None:
        checkpoint = Checkpoints(Path(args.results) / "checkpoints", args.checkpoint_every)
    with hosts.together():
        if args.results and writes:
            Store(args.results).check_writable()
        result = dopt.run(run, devices=_chosen(args.devices), checkpoint=checkpoint, first=begun if writes else None)
    if not writes:
        return 0
    frame = pd.DataFrame(result.history)
    out.print(history(frame))
    if left_out:
        out.print(_without(left_out), highlight=False)
    if result.diverged:
        out.print(f"diverged at step {result.diverged_step}", highlight=False)
    for note in result.notes:
        out.print(note, highlight=False)
    from dopt.sweep.engine import keep_one

    for path in keep_one(result, args.results, args.wandb, say=_complain):
        out.print(f"wrote {_short(path)}", highlight=False, soft_wrap=True)
    if checkpoint is not None:
        shutil.rmtree(checkpoint.folder)  # the results are there
    return 0


def _asked(args: argparse.Namespace, dotted: Mapping[str, Any]) -> dict[str, Any]:
    """The run's fields and options, flat, as they were given."""
    from dopt.config import Run

    given = {f.name: _value(f.name, getattr(args, f.name)) for f in dataclasses.fields(Run) if hasattr(args, f.name)}
    if isinstance(given.get("metrics"), str):  # one name is a list of one
        given["metrics"] = [given["metrics"]]
    return {**given, **dotted}


def _run_of(given: Mapping[str, Any]) -> tuple[Run, list[str]]:
    """The run, and the names of what it does not read: left out where a W&B agent asks, as a sweep does; else refused."""
    from dopt.config import Run

    run = Run.from_dict(given)
    if not os.environ.get(AGENT):
        return run, []
    kept = run.resolve(unread="drop")
    flat, default = kept.to_dict(), {f.name: f.default for f in dataclasses.fields(Run)}
    asked = {name: value for name, value in given.items() if value != default.get(name)}
    return kept, [name for name in asked if name not in flat or (name in default and flat[name] == default[name])]


def _without(left_out: Sequence[str]) -> str:
    return f"left out, as in a sweep, since this run does not read it: {', '.join(left_out)}"


def _dry_run_one(run: Run, left_out: Sequence[str], devices: list[Any] | None) -> int:
    from dopt.sweep.spec import Sweep

    resolved = run.resolve()
    if left_out:
        _console().print(_without(left_out), highlight=False)
    return _dry_run(Sweep(f"run {resolved.id}", (resolved,), (), {}, "dopt", 0), devices)


def _found(identity: str, given: Mapping[str, Any], named: str | None) -> Any:
    """The run of that id: of the results below results/, or of the figures and sweep files there are."""
    from dopt.config.identity import check_same
    from dopt.report import figures
    from dopt.sweep import results

    if given:
        raise InputError(f"{next(iter(given))}: an id says everything; leave it out")
    if not re.fullmatch("[0-9a-f]{16}", identity):  # which it takes a minute to find nowhere
        raise InputError(f"id: must be 16 hex digits, as in a table of results, got {quoted(identity)}")
    found = results.find(identity, "results") or figures.find_run(
        identity, figures.shipped() if named is None else Path(named)
    )
    if found is None:
        raise InputError(
            f"id: no run {identity!r} in 'results', nor in dopt's figures and sweep files (or give --figures DIR); their tables have the ids"
        )
    check_same(found)
    return found


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


def _registries() -> dict[str, Mapping[str, Entry]]:
    from dopt.algorithms import ALGORITHMS
    from dopt.cluster import LAWS
    from dopt.compression import COMPRESSORS
    from dopt.config import OPTIMIZERS
    from dopt.data import PARTITIONS, SETS
    from dopt.delays import DELAYS
    from dopt.mixing import WEIGHTS
    from dopt.problems import PROBLEMS
    from dopt.topology import TOPOLOGIES

    return {
        "algorithms": ALGORITHMS,
        "optimizers": OPTIMIZERS,
        "topologies": TOPOLOGIES,
        "weights": WEIGHTS,
        "compressors": COMPRESSORS,
        "delays": DELAYS,
        "clusters": LAWS,
        "problems": PROBLEMS,
        "data": SETS,
        "partitions": PARTITIONS,
    }


def _list(args: argparse.Namespace, _: Mapping[str, Any]) -> int:
    from dopt.report.terminal import table

    registries = _registries()
    if args.what is not None and args.what not in registries:
        raise InputError(f"list: unknown kind {args.what!r}{did_you_mean(args.what, registries)}")
    out = _console()
    for what in [args.what] if args.what else registries:
        columns, more = ["name", "what it is", "source"], {}
        if what == "topologies":
            from dopt.report.topology import WORKERS, glance

            columns += ["degree", f"gap at n = {WORKERS}"]
            more = {name: glance(name) for name in registries[what]}
        rows = [[e.name, e.summary, e.source, *more.get(e.name, ())] for e in registries[what].values()]
        out.print(table(what, columns, rows))
        if what == "topologies":
            out.print(
                "and networkx:FUNCTION with its arguments as topology.*, or a file (edge list, GraphML)",
                highlight=False,
            )
        out.print()
    return 0


def _show(args: argparse.Namespace, dotted: Mapping[str, Any]) -> int:
    return {"topology": _show_topology, "schedule": _show_schedule}[args.what](args, dotted)


def _show_topology(args: argparse.Namespace, dotted: Mapping[str, Any]) -> int:
    from dopt import mixing, topology
    from dopt.report import topology as report
    from dopt.report.terminal import table

    options: dict[str, dict[str, Any]] = {"topology": {}, "weights": {}}
    for dots, value in dotted.items():
        prefix, _, option = dots.partition(".")
        options[prefix][option] = value
    own = args.name.startswith("networkx:") or topology.is_file(args.name)  # brings its number of workers
    workers = report.WORKERS if args.workers is None and not own else args.workers
    network = topology.make(args.name, workers, **options["topology"])
    w = mixing.as_matrix(mixing.weights(network, args.weights, **options["weights"]), len(network))
    rule = args.weights or mixing.default_rule(network) or "its own"
    found, verdicts = report.facts(w), report.verdicts(network, args.weights, options["weights"])
    name = Path(args.name).name if topology.is_file(args.name) else args.name
    path = report.save(w, name, f"{name}, {len(network)} workers, {rule} weights", Path(args.out))

    out, sequence = _console(), isinstance(network, topology.Periodic | topology.Matchings)
    low, high = found.degree
    yes = {True: "yes", False: "no"}
    rows: list[list[Any]] = [
        ["workers", found.workers],
        ["weights", rule],
        [f"degree{' at a step' * sequence}", f"{low}-{high}" if low < high else high],
        [f"diameter{' of all steps together' * sequence}", _finite(found.diameter, "infinite")],
        ["spectral gap", f"{found.gap:.4g} ({found.gap_kind})"],
        [f"effective neighbours (decay {report.DECAY:g})", found.neighbours],
        [f"consensus time to {report.ACCURACY:.0e} (steps)".replace("e-0", "e-"), _finite(found.time, "never")],
        ["symmetric", yes[found.symmetric]],
        ["doubly stochastic", yes[found.doubly_stochastic]],
        ["connected", yes[found.connected]],
        ["accepted by", ", ".join(method for method, reason in verdicts.items() if not reason) or "no gossip method"],
    ]
    out.print(table("", [name, ""], rows), highlight=False)
    refused = [[method, reason] for method, reason in verdicts.items() if reason]
    if refused:
        out.print(table("", ["refused by", "because"], refused), highlight=False)
    for note in topology.notes(network):
        out.print(note, highlight=False, soft_wrap=True)
    out.print(f"wrote {_short(path)}", highlight=False, soft_wrap=True)
    return 0


def _show_schedule(args: argparse.Namespace, dotted: Mapping[str, Any]) -> int:
    from dopt import files, schedule
    from dopt.report import schedule as report
    from dopt.report.terminal import table

    given = {name: _value(name, getattr(args, name)) for name in SCHEDULE if hasattr(args, name)} | dict(dotted)
    if args.message_bytes is not None:
        given["message_bytes"] = _value("message_bytes", args.message_bytes)
    if args.load:
        if given:
            raise InputError(f"{next(iter(given))}: a saved schedule does not read it; leave it out")
        line = schedule.load(args.load)
        name, failed, stages = args.name or Path(args.load).stem, report.outages(line), None
        title = report.counted(line.workers)
    elif args.name is None:
        raise InputError("show: schedule needs an ALGORITHM, or --load FILE; see `dopt list algorithms`")
    else:
        name = args.name
        line, failed, title = report.of(name, given)
        stages = report.stages_of(name, given)
    if args.save:
        with files.writing("save", args.save, "--save"):
            schedule.save(line, args.save)
    paths = report.save(line, name, f"{name}, {title}", Path(args.results), failed, stages)
    out = _console()
    out.print(table("", [name, title], report.rows(line, failed, stages)), highlight=False)
    bars = report.histogram(line)
    if bars:
        out.print(table("", ["staleness", "applied", ""], bars), highlight=False)
    drawn, _ = report.shown(line, stages)
    if line.workers > drawn:
        out.print(f"the picture has the first {drawn} of {line.workers} workers", highlight=False)
    for path in ([Path(args.save)] if args.save else []) + paths:
        out.print(f"wrote {_short(path)}", highlight=False, soft_wrap=True)
    return 0


def _finite(value: float, otherwise: str) -> str:
    return f"{value:.0f}" if math.isfinite(value) else otherwise


def _figures(args: argparse.Namespace, _: Mapping[str, Any]) -> int:
    from dopt.report import figures
    from dopt.report.terminal import table

    folder, root = figures.shipped() if args.folder is None else Path(args.folder), Path(args.results)
    known = figures.available(folder)
    if not known:
        raise InputError(f"figures: no figure files in {str(folder)!r}; give --folder, where they are")
    if args.gallery and (args.names or args.size):
        raise InputError("gallery: shows all figures at their usual size; leave names, --fast and --full out")
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"jobs: must be at least 1, got {args.jobs}")
    modules = {name: figures.find(name, folder) for name in dict.fromkeys(args.names or known)}
    out = _console()
    if args.list:
        out.print(table("figures", ["name", "question"], [[n, figures.question(m)] for n, m in modules.items()]))
        return 0
    todo = {name: figures.parts(name, module, folder, root, args.size) for name, module in modules.items()}
    all_parts = [part for found in todo.values() for part in found.values()]
    jobs = args.jobs or min(_cores(), len(all_parts))
    wrong, sections = [], []
    with figures.helped(all_parts, jobs):
        for name, module in modules.items():
            results = figures.fill(todo[name], lambda: _progress(name))
            stem = _beside(root / "figures") / figures.file_name(name, args.size)
            paths = figures.draw(module, results, stem)
            claims = figures.claims_of(name, module, results, folder, args.size)
            title = f"{name} (a tenth of the seeds, tolerances widened)" if args.size == "fast" else name
            out.print(table(title, figures.COLUMNS, [c.row for c in claims]), highlight=False)
            for path in paths:
                out.print(f"wrote {_short(path)}", highlight=False, soft_wrap=True)
            wrong += [f"{name}: {c.statement}: {c.verdict}" for c in claims if not c.right]
            if args.gallery:
                sections.append(figures.section(name, module, claims))
                figures.keep(paths, folder)
    if args.gallery:
        out.print(f"wrote {_short(figures.gallery(folder, sections))}", highlight=False, soft_wrap=True)
    for line in wrong:
        _complain(f"dopt: {line}")
    return 1 if wrong else 0


def _cores() -> int:
    """How many processes may share the runs: one for each core of a CPU, one for accelerators."""
    import jax

    return len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" and hasattr(os, "sched_getaffinity") else 1


def _progress(what: str) -> Any:
    from dopt.report.terminal import ProgressShow

    return ProgressShow(_console(stderr=True), what)


def _collectives(args: argparse.Namespace) -> int:
    """Measured messages as a table, and a file of them for `cluster.links`."""
    import json

    import jax

    from dopt import files
    from dopt.devices import collectives
    from dopt.report.terminal import table

    devices, path = _devices(args.devices) or jax.devices(), Path(args.out)
    if not path.resolve().parent.is_dir():  # said before minutes of measuring
        raise InputError(f"out: no folder {str(path.parent)!r}; choose another file")
    found = collectives.measure(devices)
    rows = [
        [name, *(f"{1e6 * s:.1f}" for s in m.seconds), f"{1e6 * m.latency:.2f}", f"{m.bandwidth / 1e9:.3g}"]
        for name, m in found.items()
    ]
    sizes = [f"{size // 1024} KiB (µs)" for size in next(iter(found.values())).sizes]
    title = f"{len(devices)} x {devices[0].device_kind}"
    out = _console()
    out.print(table(title, ["collective", *sizes, "latency (µs)", "bandwidth (GB/s)"], rows))
    with files.writing("out", path, "--out"):
        files.write(path, json.dumps(collectives.to_dict(found, devices), indent=1) + "\n")
    out.print(f"wrote {_short(path)}, for cluster.links", highlight=False, soft_wrap=True)
    return 0


def _doctor(args: argparse.Namespace, _: Mapping[str, Any]) -> int:
    if args.collectives:
        return _collectives(args)
    import jax

    from dopt.data.files import cache_folder
    from dopt.devices.memory import device_memory
    from dopt.report.terminal import table
    from dopt.sweep.store import Store
    from dopt.sweep.tracking import login_status

    def version(package: str) -> str:
        try:
            return installed(package)
        except PackageNotFoundError:
            return "missing"

    packages = (
        "jax",
        "jaxlib",
        "optax",
        "flax",
        "networkx",
        "numpy",
        "scipy",
        "scikit-learn",
        "pandas",
        "pyarrow",
        "wandb",
    )
    rows: list[list[Any]] = [
        ["dopt", VERSION],
        ["python", platform.python_version()],
        *([p, version(p)] for p in packages),
    ]
    devices = _devices(args.devices) or jax.devices()
    memory = device_memory(devices[0])
    rows.append(["devices", f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"])
    rows.append(["memory for a slab", "unknown" if memory is None else f"{memory / 2**30:.1f} GiB"])
    own = os.environ.get("DOPT_DATA_DIR")
    found = (
        f"{own} ({len(list(Path(own).iterdir()))} files)"
        if own and Path(own).is_dir()
        else f"{own} is not a folder"
        if own
        else "DOPT_DATA_DIR is not set; digits come with scikit-learn, the rest is fetched"
    )
    rows += [["data", found], ["cache", str(cache_folder())], ["W&B", login_status()]]
    fault = bool(own and not Path(own).is_dir())
    try:
        Store(args.results).check_writable()
        rows.append(["results", f"{args.results} can be written"])
    except MachineError as error:
        rows.append(["results", str(error)])
        fault = True
    _console().print(table("", ["what", "found"], rows))
    return int(fault)
