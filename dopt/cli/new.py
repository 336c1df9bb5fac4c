"""`dopt new KIND NAME`: a file of one's own plug-in or sweep, with comments, and its test, both of which work as they are."""

from __future__ import annotations

import argparse
import keyword
from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from dopt.cli import listing
from dopt.cli.command import Command, Parser, Values
from dopt.cli.screen import console, print_written
from dopt.files import write, writing
from dopt.registry import Entry
from dopt.text import quoted
from dopt.types import InputError


class Template(NamedTuple):
    """What is written, and how it is used then."""

    what: str
    ending: str
    registry: str | None  # in which the name must be free
    then: tuple[str, ...]  # commands; NAME stands for the name


RUN = "dopt run --import NAME.py --workers=8 --learning_rate=0.1 --steps=100"
KINDS = {
    "method": Template("a method", ".py", "algorithms", (f"{RUN} --algorithm=NAME --problem=quadratic",)),
    "topology": Template(
        "a graph",
        ".py",
        "topologies",
        ("dopt show topology NAME --import NAME.py", f"{RUN} --algorithm=gossip_sgd --topology=NAME"),
    ),
    "problem": Template("a problem", ".py", "problems", (f"{RUN} --algorithm=gossip_sgd --problem=NAME",)),
    "law": Template(
        "a law of delays",
        ".py",
        "delays",
        (f"{RUN} --algorithm=delayed_gossip_sgd --problem=quadratic --delay=NAME --delay.max=8",),
    ),
    "compressor": Template(
        "an operator that shrinks messages",
        ".py",
        "compressors",
        (f"{RUN} --algorithm=choco_sgd --problem=quadratic --algorithm.compressor=NAME",),
    ),
    "data": Template("a set of data", ".py", "data", (f"{RUN} --algorithm=gossip_sgd --problem=softmax --data=NAME",)),
    "sweep": Template("a sweep file", ".yaml", None, ("dopt sweep NAME.yaml --dry-run", "dopt sweep NAME.yaml")),
}


def add_flags(parser: Parser) -> None:
    """What `dopt new` takes."""
    parser.add_argument("kind", choices=[*KINDS], help="; ".join(f"{kind}: {one.what}" for kind, one in KINDS.items()))
    parser.add_argument("name", metavar="NAME", help="its name, and that of its files: a Python name")


def run(args: argparse.Namespace, _: Values) -> int:
    """Write both files into this folder, and say how they are used."""
    template = KINDS[args.kind]
    _check_name(args.name, template)
    contents = _contents(args.kind, args.name, template)
    with writing("new", Path.cwd(), "another folder"):
        for path, text in contents.items():
            write(path, text)
    out = console()
    print_written(out, contents)
    for line in ("python -m pytest test_NAME.py", *template.then):
        out.print(f"try: {line.replace('NAME', args.name)}", highlight=False, soft_wrap=True)
    return 0


def _check_name(name: str, template: Template) -> None:
    """Refuse a name that no plug-in can have, or that is taken."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise InputError(f"name: must be a Python name, such as my_idea, got {quoted(name)}")
    for path in (Path(f"{name}{template.ending}"), Path(f"test_{name}.py")):
        if path.exists():
            raise InputError(f"name: {path} exists already; choose another name")
    known: Mapping[str, Entry] = {} if template.registry is None else listing.registry(template.registry)
    if name in known:
        raise InputError(
            f"name: {template.registry} has {quoted(name)} already, from {known[name].origin}; choose another name"
        )
    if template.ending == ".py" and find_spec(name) is not None:
        raise InputError(
            f"name: a Python module {quoted(name)} exists already, and the file would hide it; choose another name"
        )


def _contents(kind: str, name: str, template: Template) -> dict[Path, str]:
    """File -> what is written into it."""
    folder = resources.files("dopt") / "templates"
    files = (f"my_{kind}{template.ending}", f"test_my_{kind}.py")
    return {
        Path(file.replace(f"my_{kind}", name)): (folder / file).read_text("utf-8").replace(f"my_{kind}", name)
        for file in files
    }


EXAMPLES = ("dopt new method slow_gossip", "dopt new topology two_rings", "dopt new sweep my_question")
COMMAND = Command(
    "write a file for your own method, topology, problem, ... or sweep, and its test", add_flags, run, examples=EXAMPLES
)
