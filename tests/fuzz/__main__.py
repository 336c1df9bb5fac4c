"""`python -m tests.fuzz [--cases 20000] [--seed 0] [--jobs 2] [--only KIND] [--number N]`: a table, and exit code 1 where an input broke the rule."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

from . import run


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    asked.add_argument("--cases", type=int, default=20_000)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked.add_argument("--only", metavar="KIND")
    asked.add_argument("--number", type=int, help="this one alone")
    args = asked.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as root, multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        sound = str(Path(root) / "sound")
        pool.apply(run.finish, (sound,))
        if args.number is not None:
            shares = [range(args.number, args.number + 1)]
        else:
            shares = [range(j, args.cases, args.jobs) for j in range(args.jobs)]
        parts = pool.map(run.share, [(sound, numbers, args.seed, args.only) for numbers in shares])
    failures = [failure for _, _, found in parts for failure in found]
    names = sorted({name for taken, refused, _ in parts for name in (*taken, *refused)} | {f[0] for f in failures})
    print(f"{'kind':12} {'taken':>7} {'refused':>8} {'broke the rule':>15}")
    for name in names:
        taken, refused = (sum(part[which].get(name, 0) for part in parts) for which in (0, 1))
        print(f"{name:12} {taken:7} {refused:8} {sum(f[0] == name for f in failures):15}")
    for kind, number, what, content in failures:
        print(f"\n{kind} {number}: {what[:400]}\n  {content[:400]}")
    print(f"\n{sum(sum(part[w].values()) for part in parts for w in (0, 1))} passed, {len(failures)} failed")
    print(f"{time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
