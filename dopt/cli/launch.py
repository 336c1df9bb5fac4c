"""`dopt launch slurm FILE` and `dopt launch kubernetes FILE`: one sweep on many machines that others hand out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dopt import plugins
from dopt.cli import words
from dopt.cli.command import (
    Command,
    Dotted,
    Parser,
    Values,
    add_command,
    add_set,
    add_sweep_file,
    add_wandb,
    folder,
)
from dopt.cli.screen import complain, console, short
from dopt.launch import share
from dopt.launch.slurm import OPTIONS
from dopt.sweeps.named import located
from dopt.text import quoted
from dopt.types import InputError

if TYPE_CHECKING:
    from dopt.sweeps.spec import Sweep


def _add_file(parser: Parser) -> None:
    add_sweep_file(parser)
    add_set(parser)


def _add_slurm(parser: Parser) -> None:
    """What `dopt launch slurm` takes."""
    _add_file(parser)
    parser.add_argument("--array", type=int, required=True, metavar="N", help="tasks that share the sweep")
    for name, option in OPTIONS.items():
        parser.add_argument(f"--{name}", metavar=name[0].upper(), help=option.help)
    parser.add_argument(
        "--results",
        type=folder,
        metavar="DIR",
        help="results folder, on a file system that all tasks see (default: results/NAME)",
    )
    add_wandb(parser)
    parser.add_argument("--print", action="store_true", help="print the script, and submit nothing")


def _add_kubernetes(parser: Parser) -> None:
    """What `dopt launch kubernetes` takes."""
    _add_file(parser)
    for name, metavar, text in (
        ("image", "IMAGE", "container image with dopt and the files that the sweep names"),
        ("claim", "NAME", "PersistentVolumeClaim for the results; all pods mount it"),
    ):
        parser.add_argument(f"--{name}", required=True, metavar=metavar, help=text)
    parser.add_argument("--completions", type=int, required=True, metavar="N", help="pods that share the sweep")
    parser.add_argument(
        "--shard",
        action="store_true",
        help="give each pod its own folder and a fixed share of the slabs, if pods cannot share a folder on the claim",
    )
    for name, metavar, text in (
        ("gpus", "G", "GPUs of each pod (default: none)"),
        ("cpu", "C", "cores of each pod; one process per core (default: 1)"),
        ("memory", "M", "memory of each pod (default: no limit)"),
        ("namespace", "NAME", "namespace of the job (default: kubectl's)"),
        ("name", "NAME", "name of the job (default: dopt-SWEEP)"),
    ):
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    parser.add_argument("--results", type=folder, metavar="DIR", help="folder on the claim (default: the sweep's name)")


def _asked(args: argparse.Namespace) -> Sweep:
    """The sweep, read so that a wrong file is refused here and not by all that would share it."""
    from dopt.sweeps import plain

    plain.read(args.file)  # one that cannot be read is refused before seconds of imports
    from dopt.sweeps import spec

    return spec.read(args.file, words.changes(args.set))


def _same(args: argparse.Namespace, folder: Path) -> list[str]:
    """The flags by which `dopt sweep` reads it so, too; `folder`: where the files that are imported lie."""
    named = plugins.located(args.imports, folder)
    return [f"--set={text}" for text in args.set] + [f"--import={name}" for name in named]


def _beside(file: Path, named: Sequence[str]) -> dict[str, str]:
    """The files that a sweep and the command import, by their paths from here: text. Absolute ones the image has."""
    from dopt.sweeps import plain
    from dopt.sweeps.spec import imports_of

    own = {name: file.parent / name for name in imports_of(plain.read(file))} | {name: Path(name) for name in named}
    files = {name: path for name, path in own.items() if name.endswith(".py") and not Path(name).is_absolute()}
    for name in files:
        if ".." in Path(name).parts:
            raise InputError(
                f"imports: {quoted(name)} lies outside the sweep file's folder, so pods do not get it; move it beside the sweep file"
            )
    return {str(Path(name)): path.read_text(encoding="utf-8") for name, path in files.items()}


def _say_idle(sweep: Sweep, count: int, what: str) -> None:
    line = share.idle(sweep, count, what)
    if line is not None:
        complain(f"dopt: {line}")


def _slurm(args: argparse.Namespace, _: Values) -> int:
    """Submit a job array, or print its script."""
    from dopt.launch import slurm

    given = {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}
    share.check_count("array", args.array)
    slurm.check(given)
    sweep = _asked(args)
    from dopt.files import writing
    from dopt.sweeps.work import default_folder

    results = Path(args.results or default_folder(sweep.name, words.changes(args.set))).absolute()
    command = [sys.executable, "-m", "dopt", "sweep", str(located(args.file).absolute()), f"--results={results}"]
    command += [f"--wandb={args.wandb}", f"--jobs={given.get('cpus', 1)}", *_same(args, Path())]
    text, logs = slurm.script(sweep.name, command, results, args.array, given), results / slurm.LOGS
    if args.print:
        print(text, end="")
        if not logs.is_dir():
            complain(
                f"dopt: before you submit it yourself, make the folder {str(logs)!r}; tasks write their output there"
            )
    else:
        with writing("results", logs, "--results"):
            logs.mkdir(parents=True, exist_ok=True)
        number = slurm.submit(text)
        console().print(
            f"submitted job {number}; its tasks write their output to {short(logs)}", highlight=False, soft_wrap=True
        )
    _say_idle(sweep, args.array, "tasks")
    return 0


def _kubernetes(args: argparse.Namespace, _: Values) -> int:
    """Print a ConfigMap and an Indexed Job."""
    from dopt.launch import kubernetes

    given = {name: value for name in kubernetes.RULES if (value := getattr(args, name)) is not None}
    share.check_count("completions", args.completions)
    kubernetes.check(given)
    sweep = _asked(args)
    from dopt.paths import slug

    given = {"name": kubernetes.default_name(sweep.name), "cpu": "1"} | given
    file, results = located(args.file), args.results or slug(sweep.name)
    # a pod has no login; the next call of a machine that has logs what W&B lacks
    flags = ["--wandb=off", *_same(args, Path(kubernetes.FILES))]
    text, beside = file.read_text(encoding="utf-8"), _beside(file, args.imports)
    objects = kubernetes.render(file, text, flags, results, args.completions, not args.shard, given, beside)
    print(kubernetes.written(objects), end="")
    _say_idle(sweep, args.completions, "pods")
    return 0


SLURM = ("dopt launch slurm scaling --array 8 --time 02:00:00",)
KUBERNETES = ("dopt launch kubernetes scaling --completions 4 --image IMAGE --claim results",)
LAUNCHES: dict[str, Command] = {
    "slurm": Command("submit a job array, whose tasks share the sweep", _add_slurm, _slurm, examples=SLURM),
    "kubernetes": Command(
        "print an Indexed Job, whose pods share the sweep", _add_kubernetes, _kubernetes, examples=KUBERNETES
    ),
}


def _add_flags(parser: Parser) -> None:
    where = parser.add_subparsers(dest="where", required=True, metavar="WHERE", parser_class=Parser)
    for name, command in LAUNCHES.items():
        add_command(where, name, command)


def _run(args: argparse.Namespace, values: Values) -> int:
    return LAUNCHES[args.where].run(args, values)


def _dotted(args: argparse.Namespace) -> Dotted:
    """No dotted options, but the flags that may have been meant."""
    known = Parser()
    LAUNCHES[args.where].add_flags(known)
    return Dotted((), known.flags())


COMMAND = Command(
    "run a sweep on many machines: Slurm, Kubernetes", _add_flags, _run, _dotted, examples=(*SLURM, *KUBERNETES)
)
