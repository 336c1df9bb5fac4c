"""`python -m tests.mutants [FIGURE ...]`: each figure with its mutants, each of which must fail a claim. `make mutants` runs all.

A mutant's sweeps run in an empty folder and in a process of its own, so that nothing that was cached is taken for it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from .catalogue import MUTANTS
from .trial import Verdicts, judge


def killed(right: Verdicts, wrong: Verdicts) -> list[str]:
    """The claims that the wrong code fails, and not the right one."""
    return [statement for statement, holds in wrong.items() if not holds and right.get(statement, True)]


def trials(numbers: Sequence[int], root: Path, empty: Path, jobs: int) -> Iterator[tuple[int, list[str], Verdicts]]:
    """Of each mutant, as it is done, the claims that it fails, and what the right code made of them."""
    of = {number: (MUTANTS[number].figure, MUTANTS[number].size) for number in numbers}
    right: dict[tuple[str, str], Verdicts] = {}
    todo: list[int | tuple[str, str]] = list(dict.fromkeys(of.values()))[::-1]  # the last is next
    running: dict[Future[Verdicts], int | tuple[str, str]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        while todo or running:
            while todo and len(running) < jobs:
                what = todo.pop()
                trial = (*of[what], root, what, empty / f"{what}") if isinstance(what, int) else (*what, root)
                running[pool.submit(judge, *trial)] = what
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                what = running.pop(future)
                if isinstance(what, int):
                    yield what, killed(right[of[what]], future.result()), right[of[what]]
                else:
                    right[what] = future.result()
                    todo += [number for number in numbers[::-1] if of[number] == what]


def main() -> int:
    """0 where each mutant fails a claim that is right of the right code; else 1."""
    asked = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    asked.add_argument("names", nargs="*", metavar="FIGURE")
    asked.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked.add_argument("--results", metavar="DIR", help="where results of the right code lie (default: a new folder)")
    given = asked.parse_args()
    numbers = [n for n, mutant in enumerate(MUTANTS) if not given.names or mutant.figure in given.names]
    alive, wrong, begin = 0, set(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(folder) / "compiled"))
        root = Path(given.results or folder)
        for number, fails, right in trials(numbers, root, Path(folder) / "mutants", given.jobs):
            mutant, more = MUTANTS[number], f" (and {len(fails) - 1} more)" if len(fails) > 1 else ""
            print(f"{mutant.figure} | {mutant.wrong} | {fails[0] + more if fails else 'NONE'}", flush=True)
            alive += not fails
            wrong |= {
                f"{mutant.figure}: of the right code this fails: {says}" for says, holds in right.items() if not holds
            }
    print(f"{len(numbers) - alive} of {len(numbers)} mutants fail a claim; {time.monotonic() - begin:.0f} s")
    for line in sorted(wrong):
        print(line, file=sys.stderr)
    return 1 if alive or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
