"""`dopt list`: what there is, a line each, with its source."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dopt import plugins
from dopt.cli.command import Command, Parser, Values
from dopt.cli.screen import complain, console
from dopt.registry import Entry, did_you_mean
from dopt.types import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from dopt.sweeps.live import PlainConsole

REGISTRIES = {  # kind -> where its registry lies; only what is asked for is imported
    "algorithms": "dopt.algorithms:ALGORITHMS",
    "optimizers": "dopt.config.optimizers:OPTIMIZERS",
    "topologies": "dopt.topology:TOPOLOGIES",
    "weights": "dopt.mixing:WEIGHTS",
    "compressors": "dopt.compression:COMPRESSORS",
    "delays": "dopt.delays:DELAYS",
    "clusters": "dopt.cluster:LAWS",
    "problems": "dopt.problems:PROBLEMS",
    "data": "dopt.data:SETS",
    "partitions": "dopt.data:PARTITIONS",
}
METRICS, SWEEPS = "metrics", "sweeps"  # most of which are no plug-ins
KINDS = (*REGISTRIES, METRICS, SWEEPS)
FAMILIES = ("synchronous", "asynchronous", "gossip")


def registry(kind: str) -> Mapping[str, Entry]:
    """The plug-ins of a kind."""
    plugins.offered()
    module, _, name = REGISTRIES[kind].partition(":")
    found: Mapping[str, Entry] = getattr(importlib.import_module(module), name)
    return found


def add_flags(parser: Parser) -> None:
    """What `dopt list` takes."""
    parser.add_argument("what", nargs="?", help=f"{', '.join(KINDS)} (default: all)")
    parser.add_argument("--family", metavar="NAME", help=f"algorithms of a family: {', '.join(FAMILIES)}")
    parser.add_argument(
        "--accepts",
        metavar="PART[,PART]",
        help="algorithms that accept these parts of a run: topology, delay, link_loss, cluster, compressor, optimizer (any, not only sgd)",
    )


def run(args: argparse.Namespace, _: Values) -> int:
    """Print all plug-ins, or those of a kind, or some algorithms."""
    if args.what is not None and args.what not in KINDS:
        raise InputError(f"list: unknown kind {args.what!r}{did_you_mean(args.what, KINDS)}")
    out = console()
    if args.family is not None or args.accepts is not None:
        _print_accepting(out, args.what, args.family, args.accepts)
        return 0
    for kind in [args.what] if args.what else KINDS:
        out.print(_of(kind))
        if kind == "topologies":
            also = "and networkx:FUNCTION with its arguments as topology.*, or a file (edge list, GraphML)"
            out.print(also, highlight=False)
        out.print()
    for line in plugins.FAILED.values():
        complain(f"dopt: {line}")
    return 0


def _of(kind: str) -> Table:
    """What there is of a kind."""
    others = {METRICS: _metrics, SWEEPS: _sweeps}
    return others[kind]() if kind in others else _table(kind, registry(kind))


def _metrics() -> Table:
    """What a run can record, others' own metrics among it."""
    from dopt import metrics
    from dopt.report.terminal import table

    plugins.offered()
    rows = [[name, text, plugins.OWN] for name, text in {**metrics.CHOICES, **metrics.OF_PROBLEMS}.items()]
    rows += [[entry.name, entry.summary, entry.origin] for entry in metrics.METRICS.values()]
    return table(METRICS, ["name", "what it is", "from"], rows)


def _print_accepting(out: PlainConsole, what: str | None, family: str | None, accepted: str | None) -> None:
    """Print the algorithms of a family (None: of all) that accept all these parts of a run."""
    if what not in (None, "algorithms"):
        raise InputError(f"list: --family and --accepts choose among algorithms, got {what!r}; leave them out")
    if family is not None and family not in FAMILIES:
        raise InputError(f"family: unknown name {family!r}{did_you_mean(family, FAMILIES)}")
    from dopt.config import accepts

    parts = accepted.split(",") if accepted is not None else []
    for part in parts:
        accepts.check(part)
    kept = {
        name: method
        for name, method in registry("algorithms").items()
        if family in (None, method.traits.family) and all(accepts.accepts(name, part) for part in parts)
    }
    if kept:
        out.print(_table("algorithms", kept))
    else:
        out.print(f"no {f'{family} ' if family else ''}algorithm accepts {' and '.join(parts)}", highlight=False)


def _sweeps() -> Table:
    """The sweeps that come with dopt."""
    from dopt.report.terminal import table
    from dopt.sweeps import named

    return table(
        SWEEPS, ["name", "question"], [[name, named.question(path)] for name, path in named.available().items()]
    )


def _table(kind: str, entries: Mapping[str, Entry]) -> Table:
    """The plug-ins of a kind; of topologies a glance at each, too."""
    from dopt.report.terminal import table

    columns: list[str] = ["name", "what it is", "source"]
    more: dict[str, tuple[Any, ...]] = {}
    if kind == "topologies":
        from dopt.report.topology import WORKERS

        columns += ["degree", f"gap at n = {WORKERS}"]
        more = {name: _glance(entry) for name, entry in entries.items()}
    if any(e.origin != plugins.OWN for e in entries.values()):
        columns += ["from"]
        more = {name: (*more.get(name, ()), e.origin) for name, e in entries.items()}
    rows = [[e.name, e.summary, e.source, *more.get(e.name, ())] for e in entries.values()]
    return table(kind, columns, rows)


def _glance(entry: Entry) -> tuple[str, str]:
    """Degree and gap; of a user's topology that cannot be made, nothing, and why."""
    from dopt.report.topology import glance

    try:
        return glance(entry.name)
    except Exception as error:
        line = plugins.line_of(error)
        if line is None:
            raise
        complain(f"dopt: topology {entry.name}: {line}")
        return "-", "-"


EXAMPLES = ("dopt list topologies", "dopt list --family gossip --accepts delay,link_loss")
COMMAND = Command(
    "list methods, topologies, problems, ..., one line each, with the source", add_flags, run, examples=EXAMPLES
)
