"""`dopt show topology`: who sends to whom, and which methods accept it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dopt.cli import words
from dopt.cli.command import Command, Dotted, Parser, Values, folder
from dopt.cli.screen import console, finite, print_written
from dopt.paths import slug
from dopt.text import quoted
from dopt.types import InputError

if TYPE_CHECKING:
    from dopt.report.topology import Facts
    from dopt.sweeps.live import PlainConsole

ENDINGS = (".png", ".pdf", ".svg")
YES = {True: "yes", False: "no"}


def add_flags(parser: Parser) -> None:
    """What `dopt show topology` takes."""
    parser.add_argument("name", metavar="NAME", help="a registered name, networkx:FUNCTION, or a file")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="default: 16, or as many as networkx or the file gives"
    )
    parser.add_argument("--weights", metavar="RULE", help="default: what the graph and the method ask for")
    parser.add_argument(
        "-o",
        "--out",
        type=folder,
        default=".",
        metavar="FILE",
        help="the picture, .png, .pdf or .svg, or a folder for it (default: topology_NAME.png, here)",
    )


def run(args: argparse.Namespace, dotted: Values) -> int:
    """Print a topology's numbers and who refuses it, and draw it."""
    name = Path(args.name).name if "/" in args.name else args.name
    path = _picture(args.out, name)
    from dopt import mixing, topology
    from dopt.plot import places
    from dopt.plot import topology as picture
    from dopt.report import topology as report
    from dopt.report.terminal import table

    options = _by_prefix(dotted)
    own = topology.is_generator(args.name) or topology.is_file(args.name)  # brings its number of workers
    workers = report.WORKERS if args.workers is None and not own else args.workers
    network = topology.make(args.name, workers, **options["topology"])
    w = mixing.dense(mixing.as_matrix(mixing.weights(network, args.weights, **options["weights"]), len(network)))
    rule = args.weights or mixing.default_rule(network) or "its own"
    facts, verdicts = report.facts(w), report.verdicts(network, args.weights, options["weights"])
    layout = places.layout(args.name, options["topology"], mixing.union(w))
    picture.save(w, f"{name}, {len(network)} workers, {rule} weights", path, layout)

    out = console()
    _print_head(out, args.name)
    rows = _rows(facts, rule, isinstance(network, topology.Periodic | topology.Matchings))
    accepted = [method for method, reason in verdicts.items() if not reason]
    out.print(
        table("", [name, ""], [*rows, ["accepted by", ", ".join(accepted) or "no gossip method"]]), highlight=False
    )
    refused = [[method, reason] for method, reason in verdicts.items() if reason]
    if refused:
        out.print(table("", ["refused by", "because"], refused), highlight=False)
    for note in topology.notes(network):
        out.print(note, highlight=False, soft_wrap=True)
    if accepted:
        out.print(f"try: {_example(args, accepted, len(network), dotted)}", highlight=False, soft_wrap=True)
    print_written(out, [path])
    return 0


def _print_head(out: PlainConsole, name: str) -> None:
    """Print what a topology is, if it is one by name."""
    from dopt.cli.show_plugin import print_head
    from dopt.report.plugins import described
    from dopt.topology import TOPOLOGIES

    if name in TOPOLOGIES:
        one = described("topologies", TOPOLOGIES[name])
        print_head(out, one._replace(summary=f"{one.summary} ({one.source})" if one.source else one.summary))


def _example(args: argparse.Namespace, accepted: Sequence[str], workers: int, dotted: Values) -> str:
    """A run on it, by a method that accepts it."""
    from dopt.report.plugins import run_with
    from dopt.topology import TOPOLOGIES

    method = "gossip_sgd" if "gossip_sgd" in accepted else accepted[0]
    given = {"algorithm": method, "topology": args.name, "weights": args.weights, "workers": workers, **dotted}
    flags = [f"--{name}={words.written(value)}" for name, value in given.items() if value is not None]
    begin = run_with(TOPOLOGIES[args.name]) if args.name in TOPOLOGIES else ["dopt", "run"]
    return shlex.join([*begin, *flags, "--problem=quadratic", "--learning_rate=0.1", "--steps=100"])


def _picture(out: str, name: str) -> Path:
    """Where the picture goes: a file, by its ending, or into a folder."""
    path = Path(out)
    if path.suffix in ENDINGS:
        return path
    if path.suffix[1:].isalpha() and not path.is_dir():
        raise InputError(f"out: must end in {', '.join(ENDINGS)}, or be a folder, got {quoted(out)}")
    return path / f"topology_{slug(name)}.png"


def _by_prefix(dotted: Values) -> dict[str, dict[str, Any]]:
    """Options of the graph and of its weights."""
    options: dict[str, dict[str, Any]] = {"topology": {}, "weights": {}}
    for dots, value in dotted.items():
        prefix, _, option = dots.partition(".")
        options[prefix][option] = value
    return options


def _rows(facts: Facts, rule: str, changes: bool) -> list[list[Any]]:
    """The numbers in words; `changes`: from step to step."""
    from dopt.report.topology import ACCURACY, DECAY

    low, high = facts.degree
    return [
        ["workers", facts.workers],
        ["weights", rule],
        [f"degree{' at a step' * changes}", f"{low}-{high}" if low < high else high],
        [f"diameter{' of all steps together' * changes}", finite(facts.diameter, "infinite")],
        ["spectral gap", f"{facts.gap:.4g} ({facts.gap_kind})"],
        [f"effective neighbours (decay {DECAY:g})", facts.neighbours],
        [f"consensus time to {ACCURACY:.0e} (steps)".replace("e-0", "e-"), finite(facts.time, "never")],
        ["symmetric", YES[facts.symmetric]],
        ["doubly stochastic", YES[facts.doubly_stochastic]],
        ["connected", YES[facts.connected]],
    ]


def _dotted(_: argparse.Namespace) -> Dotted:
    flags = ("workers", "weights", "out", "topology.", "weights.")
    return Dotted(("topology", "weights"), [f"--{name}" for name in flags])


EPILOG = "Options are dotted: --topology.degree=4 --weights.edge=0.2"
EXAMPLES = (
    "dopt show topology exponential --workers 32",
    "dopt show topology torus --workers 24 --topology.shape=[4,6]",
)
COMMAND = Command("show who sends to whom, and which methods accept it", add_flags, run, _dotted, EPILOG, EXAMPLES)
