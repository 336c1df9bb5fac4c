"""`dopt merge OUT IN...`: several folders of one sweep become one."""

from __future__ import annotations

import argparse

from dopt.cli.command import Command, Parser, Values, folder
from dopt.cli.screen import complain, console, short

NAMED = 3  # slabs that are missing, of which so many are named


def add_flags(parser: Parser) -> None:
    """What `dopt merge` takes."""
    parser.add_argument("out", type=folder, metavar="OUT", help="target folder: new, or one of the same sweep")
    parser.add_argument(
        "folders", type=folder, nargs="+", metavar="IN", help="folders of the sweep, such as those of its shards"
    )


def run(args: argparse.Namespace, _: Values) -> int:
    """Merge them, and say what came from where, and what is missing; 1 where a slab is damaged, or two differ."""
    from dopt.sweeps.merge import merge

    done = merge(args.out, *args.folders)
    lines = [f"{done.name}: {_slabs(done.there + sum(done.came.values()))} in {short(done.folder)}"]
    lines += [f"  {_slabs(done.there)} from before"] if done.there else []
    lines += [f"  {_slabs(count)} from {short(came)}" for came, count in done.came.items()]
    lines += [f"  {_slabs(done.twice)} more than once, with the same tables"] if done.twice else []
    if done.missing:
        more = len(done.missing) - NAMED
        named = ", ".join(done.missing[:NAMED]) + f" and {more} more" * (more > 0)
        lines.append(f"missing: {_slabs(len(done.missing))} ({done.missing_runs} runs): {named}")
    console().print("\n".join(lines), highlight=False, soft_wrap=True)
    for line in (*done.faults, *done.differing):
        complain(f"dopt: {line}")
    return 1 if done.faults or done.differing else 0


def _slabs(count: int) -> str:
    return "1 slab" if count == 1 else f"{count} slabs"


EXAMPLES = ("dopt merge results/whole results/shard1 results/shard2",)
COMMAND = Command("merge the folders of a sweep's shards into one", add_flags, run, examples=EXAMPLES)
