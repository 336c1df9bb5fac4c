"""Measure this machine, part by part, into a JSON file: what is in it already is left alone, so that the same command goes on.

Each part is a process of its own. On a CPU it has one core, as a slab has under `dopt sweep`; whole sweeps have all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.speed import measure, rows, slopes
from benchmarks.speed.host import host, planning
from benchmarks.speed.store import store
from benchmarks.speed.whole import whole

PARTS: dict[str, Callable[[int], Any]] = {
    "sweep": rows.the_sweep,
    **{method: partial(rows.one_run, method, 1) for method in rows.METHODS},
    "quadratic": rows.quadratic,
    "transformer": rows.transformer,
    "asynchronous": rows.asynchronous,
    "large_graph": rows.large_graph,
    "host": host,
    "planning": planning,
    "store": store,
    "slopes": slopes.slopes,
    "whole": whole,
}
EVERYWHERE = (
    "host",
    "planning",
    "store",
    "whole",
)  # parts that have all cores, and leave the device to their own processes


def measured(part: str, pairs: int, out: Path) -> None:
    """One part, in this process, into the file."""
    found = PARTS[part](pairs)
    if part == "slopes":
        slopes.draw(found, out.with_suffix(".png"))
    measure.keep(measure.kept(out) | {part: found}, out)


def asked_for(parts: list[str], pairs: int, threads: int | None, out: Path | None, again: bool) -> int:
    """Each part that the file lacks, in a process of its own; how many failed."""
    here = [sys.executable, "-m", "benchmarks.speed"]
    header = json.loads(subprocess.run([*here, "--machine"], check=True, stdout=subprocess.PIPE).stdout)
    everywhere = measure.cores()
    own = everywhere[: threads or (1 if header["platform"] == "cpu" else len(everywhere))]
    out = out or measure.place(header)
    measure.keep({**header, "threads": len(own), **measure.kept(out)}, out)
    failed = 0
    for part in parts:
        if part in measure.kept(out) and not again:
            print(f"{part}: {out} has it", flush=True)
            continue
        with measure.pinned(everywhere if part in EVERYWHERE else own):
            asked = [*here, "--here", "--only", part, "--pairs", str(pairs), "--out", str(out)]
            failed += subprocess.run(asked).returncode != 0
    print(f"wrote {out}" + f"; {failed} of {len(parts)} parts failed" * (failed > 0))
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--pairs", type=int, default=15, help="interleaved pairs of measurements (default: 15)")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--again", action="store_true", help="measure also what the file has")
    parser.add_argument(
        "--threads", type=int, help="cores of a part (default: one of a CPU, all beside an accelerator)"
    )
    parser.add_argument(
        "--out", type=Path, help="the JSON file (default: in results/ beside this file, by device and date)"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # the process of a part
    parser.add_argument("--machine", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.machine:
        print(json.dumps(measure.machine()))
    elif args.here:
        measured(args.only[0], args.pairs, args.out)
    else:
        sys.exit(asked_for(args.only or list(PARTS), args.pairs, args.threads, args.out, args.again) > 0)


if __name__ == "__main__":
    main()
