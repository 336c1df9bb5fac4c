"""`dopt sweep FILE`: run a sweep file, or what is missing of it."""

from __future__ import annotations

import argparse
import math
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dopt import cores, extras
from dopt.cli import devices, dry_run, words
from dopt.cli.command import Command, Parser, Values, add_figures_folder, add_results_and_wandb, add_set, add_sweep_file
from dopt.cli.screen import beside, console, progress, short
from dopt.files import is_writable, write
from dopt.sweeps import named
from dopt.sweeps.named import located
from dopt.sweeps.shard import Shard
from dopt.types import InputError, MachineError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from dopt.sweeps.live import Tally
    from dopt.sweeps.results import Results
    from dopt.sweeps.show import Show


def add_flags(parser: Parser) -> None:
    """What `dopt sweep` takes."""
    add_sweep_file(parser)
    what = parser.add_argument_group("what is run")
    add_set(what)
    what.add_argument(
        "--extend",
        metavar="NAME",
        help="learning_rate: where a cell's best rate is at the edge of its grid, extend the grid, at most five times",
    )
    what.add_argument(
        "--checkpoint-every",
        type=int,
        metavar="STEPS",
        help="keep checkpoints, also at the end: interrupted slabs resume there, and so do later runs with more steps",
    )
    shown = parser.add_argument_group("what is shown")
    shown.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    shown.add_argument("--quiet", action="store_true", help="print the result and errors only")
    shown.add_argument("--no-plot", action="store_true", help="draw no picture at the end")
    add_figures_folder(shown)
    here = parser.add_argument_group("results folder, and who does the runs")
    add_results_and_wandb(here)
    here.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="processes that share the runs on a CPU, each on a core of its own (default: one for each core)",
    )
    here.add_argument(
        "--shard",
        metavar="i/N",
        help="do only every N-th slab, from the i-th on: for N machines that share no folder (see dopt merge)",
    )
    here.add_argument(
        "--engine", default="local", metavar="NAME", help="who does the runs: local, or ray (default: local)"
    )
    ray = parser.add_argument_group("with --engine ray")
    ray.add_argument(
        "--address", metavar="HOST:PORT", help="address of a Ray cluster (default: start Ray on this machine)"
    )
    ray.add_argument("--cpus-per-slab", type=int, metavar="C", help="CPU cores for each slab (default: 1)")
    ray.add_argument("--gpus-per-slab", type=int, metavar="G", help="or GPUs for each slab")
    ray.add_argument("--kind", metavar="KIND", help="kind of devices to use, if the cluster has several")


def run(args: argparse.Namespace, _: Values) -> int:
    """Run the sweep, print what came of it, and draw its figure."""
    changes = words.changes(args.set)
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"jobs: must be at least 1, got {args.jobs}")
    share = None if args.shard is None else Shard.read(args.shard)
    from dopt.sweeps import engines, hired, plain

    far = engines.Asked(args.address, args.cpus_per_slab, args.gpus_per_slab, args.kind)
    engines.check(args.engine, far, args.devices, args.jobs, args.checkpoint_every)
    if args.engine != "local":  # this process only hands out work, and leaves accelerators to who does it
        os.environ["JAX_PLATFORMS"] = "cpu"
    content = plain.read(args.file)  # one that cannot be read is refused before seconds of imports
    if args.figures is not None:
        _figures_in(args.figures)  # refused before anything runs
    if args.dry_run:
        from dopt.sweeps import spec
        from dopt.sweeps.work import default_folder

        asked = spec.read(args.file, changes)
        return dry_run.show(asked, devices.of(args.devices), args.results or default_folder(asked.name, changes))
    jobs = args.jobs or (None if cores.is_own() and args.engine == "local" else 1)
    with hired.early(jobs, _points(content, changes) // (1 if share is None else share.of), args.file, changes):
        from dopt.sweeps.work import sweep

        out, show = console(), progress(quiet=args.quiet)
        results = sweep(
            args.file,
            results=args.results,
            set=changes,
            wandb=args.wandb,
            devices=devices.of(args.devices),
            show=show,
            jobs=jobs,
            extend=args.extend,
            checkpoint_every=args.checkpoint_every,
            shard=args.shard,
            engine=args.engine,
            **far._asdict(),
        )
    _end(results, args, share, out, show)
    return 0


def _end(results: Results, args: argparse.Namespace, share: Shard | None, out: Console, show: Tally) -> None:
    """Print what came of a sweep, and where it lies; draw its pictures."""
    from dopt.report.terminal import summary
    from dopt.sweeps.cells import tuned

    if show.new == 0:
        what = f"{len(results.runs)} runs" if share is None else f"runs of shard {share}"
        out.print(f"all {what} of {results.name} are finished already; nothing to run", highlight=False)
    paths = [results.folder / "plans", results.folder / "slabs"]
    if len(results.runs):
        cells = tuned(results)
        out.print(summary(results, cells))
        paths += _kept(results, cells, show)
    for line in results.notes:
        show.say(line)
    pictures = [] if results.missing or args.no_plot else _pictures(results, args, show)
    paths += pictures
    out.print("\n".join(["wrote", *(f"  {short(path)}" for path in paths)]), highlight=False, soft_wrap=True)
    if pictures:
        folder = shlex.quote(short(results.folder))
        others = f"other pictures: dopt plot {folder} --kind curves -o curves.pdf (see `dopt plot --help`)"
        out.print(f"{others}; all on one page: dopt report {folder} --open", highlight=False, soft_wrap=True)


def _kept(results: Results, cells: pd.DataFrame, show: Show) -> list[Path]:
    """The table that was printed, as files beside the slabs; of a finished folder that nobody can write there are none."""
    from dopt.report import formats, terminal

    if not is_writable(results.folder):
        return []
    title, shown = terminal.summarized(results, cells)
    printed = f"{title}\n\n{formats.markdown(shown, lambda value, _: terminal.number(value))}"
    written = []
    try:
        for name, text in (("table.csv", formats.csv(cells)), ("table.md", printed)):
            write(results.folder / name, text)
            written.append(results.folder / name)
    except MachineError as error:
        show.say(f"results: the table is printed, but not saved ({error})")
    return written


def _picture(results: Results, show: Show) -> list[Path]:
    """The picture that the sweep's parameters ask for, beside its table; it is drawn again, since what is asked for may be less."""
    if not is_writable(results.folder):
        return []
    path = results.folder / "plot.png"
    try:
        from dopt import plot

        plot.picture(results).save(path)
    except Exception as error:  # whatever is wrong with a picture, the sweep is done
        show.say(f"plot: no picture ({' '.join(str(error).split()) or type(error).__name__})")
        return []
    return [path]


def _points(content: Any, changes: dict[str, Any]) -> int:
    """How many points a file lists, before anything of it is checked."""
    match content:
        case {"parameters": dict(parameters)}:
            listed = {name: said.get("values") for name, said in parameters.items() if isinstance(said, dict)}
            return math.prod(len(values) for values in (listed | changes).values() if isinstance(values, list))
    return 0


def _pictures(results: Results, args: argparse.Namespace, show: Show) -> list[Path]:
    """The pictures of a finished sweep, where there is what draws them."""
    no_picture = extras.lacking("matplotlib", "picture: it")
    if no_picture:
        show.say(no_picture)
        return []
    return [*_picture(results, show), *_drawn(results, located(args.file), args.figures)]


def _drawn(results: Results, file: Path, named: str | None) -> list[Path]:
    """The pictures of a sweep that a figure is made of: a figure that comes with dopt and with this very file, or one of `named`."""
    from dopt.figures import files, gallery

    folder = files.shipped() if named is None else _figures_in(named)
    known = files.available(folder)
    if results.name not in known or (named is None and not _is_shipped(file, folder)):
        return []
    module = files.find(results.name, folder)
    if len(module.SWEEPS) > 1:
        return []
    stem = beside(results.folder) / gallery.file_name(results.name, "")
    return gallery.draw(module, dict.fromkeys(module.SWEEPS, results), stem)


def _figures_in(named: str) -> Path:
    """The folder, which must have some."""
    from dopt.figures import files

    if not files.available(Path(named)):
        raise InputError(f"figures: no figure files in {named!r}")
    return Path(named)


def _is_shipped(file: Path, folder: Path) -> bool:
    return file.resolve().parent == folder.parent / "benchmarks"


EPILOG = f"Sweeps that come with dopt: {', '.join(named.available())}"
EXAMPLES = (
    "dopt sweep connectivity_delay --dry-run",
    "dopt sweep my_sweep.yaml --set steps=500 --set learning_rate=[0.03,0.1]",
    "dopt sweep my_sweep.yaml --extend learning_rate --results results/first",
)
COMMAND = Command(
    "run a sweep file; runs that are finished already are not repeated",
    add_flags,
    run,
    epilog=EPILOG,
    examples=EXAMPLES,
)
