"""`dopt figures`: draw figures, and check their claims; missing runs are made first."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from dopt import cores, paths
from dopt.cli.command import Command, Parser, Values, folder
from dopt.cli.screen import beside, complain, console, print_written, progress
from dopt.types import InputError

if TYPE_CHECKING:
    from dopt.figures.claims import Claim
    from dopt.figures.files import Part
    from dopt.sweeps.live import PlainConsole
    from dopt.sweeps.results import Results

SIZES = {
    "fast": "a tenth of the seeds; claims get wider tolerances, and those that could no longer fail are left out",
    "full": "five times the seeds, and the paper's own size if that is larger; takes hours",
}


class Figure(NamedTuple):
    """A figure, and the sweeps that it asks for."""

    name: str
    module: ModuleType
    parts: Mapping[str, Part]


class Drawn(NamedTuple):
    """A figure that was drawn, and what it claims."""

    figure: Figure
    claims: Sequence[Claim]
    paths: Sequence[Path]

    @property
    def wrong(self) -> list[str]:
        """A line for each claim that is not as the figure's file says."""
        return [f"{self.figure.name}: {c.statement}: {c.verdict}" for c in self.claims if not c.right]


def add_flags(parser: Parser) -> None:
    """What `dopt figures` takes."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="names of figures (default: all)")
    parser.add_argument(
        "--folder",
        type=folder,
        metavar="DIR",
        help="a folder of figure files; their code is executed (default: dopt's own)",
    )
    parser.add_argument(
        "--results", type=folder, default="results", metavar="DIR", help="results folder (default: results)"
    )
    parser.add_argument("--list", action="store_true", help="print the figures and their questions, and stop")
    size = parser.add_mutually_exclusive_group()
    for name, text in SIZES.items():
        size.add_argument(f"--{name}", dest="size", action="store_const", const=name, default="", help=text)
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: one for each core of a CPU)")
    parser.add_argument(
        "--gallery",
        action="store_true",
        help="also write pictures, data and GALLERY.md to --folder (if dopt is installed as a package: to --results); only for all figures together",
    )


def run(args: argparse.Namespace, _: Values) -> int:
    """Draw the figures, and print their claims; 1 where one is not as its file says."""
    _check(args)
    from dopt.figures import files

    folder = files.shipped() if args.folder is None else Path(args.folder)
    if not files.available(folder):
        raise InputError(f"figures: no figure files in {str(folder)!r}; name their folder with --folder")
    modules = {name: files.find(name, folder) for name in dict.fromkeys(args.names or files.available(folder))}
    if args.list:
        _list(modules)
        return 0
    drawn = list(_drawn(args, modules, folder))
    if args.gallery:
        is_ours = folder.parent != paths.INSTALLED  # an installation is left alone
        _publish(drawn, folder if is_ours else beside(Path(args.results) / "figures"))
    wrong = [line for one in drawn for line in one.wrong]
    for line in wrong:
        complain(f"dopt: {line}")
    return 1 if wrong else 0


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot be, before anything is imported or run."""
    if args.gallery and (args.names or args.size):
        raise InputError("gallery: it shows all figures at their usual size; leave out names, --fast and --full")
    if args.jobs is not None and args.jobs < 1:
        raise InputError(f"jobs: must be at least 1, got {args.jobs}")


def _list(modules: Mapping[str, ModuleType]) -> None:
    from dopt.figures import files
    from dopt.report.terminal import table

    questions = [[name, files.question(module)] for name, module in modules.items()]
    console().print(table("figures", ["name", "question"], questions))


def _drawn(args: argparse.Namespace, modules: Mapping[str, ModuleType], folder: Path) -> Iterator[Drawn]:
    """The figures one after the other, while other processes run what the next ones need."""
    from dopt.figures import files, fill

    root, out = Path(args.results), console()
    todo = [
        Figure(name, module, files.parts(name, module, folder, root, args.size)) for name, module in modules.items()
    ]
    parts = [part for figure in todo for part in figure.parts.values()]
    with fill.helped(parts, args.jobs or min(_cores(), len(parts))):
        for figure in todo:
            results = fill.filled(figure.parts, partial(progress, figure.name))
            drawn = _draw(figure, results, folder, root, args.size)
            _print(out, drawn, args.size)
            yield drawn


def _draw(figure: Figure, results: Mapping[str, Results], folder: Path, root: Path, size: str) -> Drawn:
    from dopt.figures import files, gallery

    paths = gallery.draw(figure.module, results, beside(root / "figures") / gallery.file_name(figure.name, size))
    return Drawn(figure, files.claims_of(figure.name, figure.module, results, folder, size), paths)


def _print(out: PlainConsole, drawn: Drawn, size: str) -> None:
    """The claims of a figure, and what was written."""
    from dopt.figures.claims import COLUMNS
    from dopt.report.terminal import table

    name = drawn.figure.name
    title = f"{name} (a tenth of the seeds, tolerances widened)" if size == "fast" else name
    out.print(table(title, COLUMNS, [c.row for c in drawn.claims]), highlight=False)
    print_written(out, drawn.paths)


def _publish(drawn: Iterable[Drawn], folder: Path) -> None:
    """Put pictures and data beside the figures' files, and all of them into GALLERY.md."""
    from dopt.figures import gallery

    sections = []
    for one in drawn:
        gallery.keep(one.paths, folder)
        sections.append(gallery.section(one.figure.name, one.figure.module, one.claims))
    print_written(console(), [gallery.publish(folder, sections)])


def _cores() -> int:
    """How many processes may share the runs: one for each core of a CPU, one for accelerators."""
    import jax

    return len(cores.usable()) if jax.default_backend() == "cpu" else 1


EXAMPLES = ("dopt figures --list", "dopt figures connectivity_delay --fast")
COMMAND = Command(
    "draw figures, and check their claims; missing runs are made first",
    add_flags,
    run,
    examples=EXAMPLES,
    fails="a claim fails",
)
