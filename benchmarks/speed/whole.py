"""Whole sweeps, from the file to the tables, start-up and compilation included: `dopt sweep` against hand-written processes.

A hand-written process is given data, matrices and delays as arrays, compiles one program, runs its share of the slabs and writes one
table. `python -m benchmarks.speed.whole` is such a process, and the one before it that makes the arrays.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.speed.by_hand import Setting, jax_program
from benchmarks.speed.measure import cores, medians, pinned, ratio, turns

METHOD = "delayed_gossip_sgd"
FIELDS = ("seeds", "rates", "delays", "w", "arrivals")


def prepare(path: Path) -> None:
    """Data and values of the main sweep as arrays, and its file with the metrics that both record."""
    from benchmarks.speed.host import content
    from benchmarks.speed.rows import hand_arguments, planned, setting
    from dopt.engine import group_of
    from dopt.sweeps import spec

    runs, width, _, _ = planned(spec.parse(content()).runs)
    group = group_of(runs)
    values = dict(zip(FIELDS, hand_arguments(group, runs), strict=True))
    described = {name: np.asarray(value) for name, value in setting(group)._asdict().items()}
    np.savez(path, **described, **values, width=np.int32(width))
    path.with_suffix(".yaml").write_text(json.dumps(content()))
    path.with_suffix(".platform").write_text(jax.devices()[0].platform)


def by_hand(path: Path, out: Path, share: int, shares: int) -> None:
    """Every so-manieth slab, as a careful researcher's script does it."""
    import pandas as pd

    found = dict(np.load(path))
    width, given = int(found.pop("width")), [found.pop(name) for name in FIELDS]
    described = Setting(**{name: value if value.ndim else value.item() for name, value in found.items()})
    slabs = [[x[i : i + width] for x in given] for i in range(0, len(given[0]), width)][share::shares]
    program = jax.jit(jax.vmap(jax_program(METHOD, described))).lower(*slabs[0]).compile()
    history = np.concatenate([np.asarray(program(*slab)) for slab in slabs])
    runs, records = history.shape[:2]
    columns = dict(zip(("loss", "grad_norm", "consensus_distance", "accuracy"), history.reshape(-1, 4).T, strict=True))
    step = np.tile(np.arange(records) * described.every, runs)
    pd.DataFrame({"run": np.repeat(np.arange(runs), records), "step": step, **columns}).to_parquet(out)


# -- both, as processes -----------------------------------------------------------------------------------------------


def started(command: Sequence[str], on: Iterable[int], folder: Path) -> subprocess.Popen[bytes]:
    """A process on some cores, with a cache of its own that is empty: it compiles what it needs."""
    own = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    own |= {"XDG_CACHE_HOME": str(folder / "cache")}
    with pinned(on):
        return subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL, env=own)


def ended(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    codes = [process.wait() for process in processes]
    if any(codes):
        raise RuntimeError(f"a process of a whole sweep ended with {max(codes, key=abs)}: what it said stands above")


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def ours(file: Path, jobs: int | None, on: Sequence[int]) -> None:
    with _folder() as folder:
        shared = () if jobs is None else ("--jobs", str(jobs))
        # a hand-written process draws no picture either
        asked = [
            "dopt",
            "sweep",
            str(file),
            "--results",
            str(folder / "results"),
            "--wandb",
            "off",
            "--no-plot",
            *shared,
        ]
        ended([started(asked, on, folder)])


def theirs(path: Path, processes: int, on: Sequence[int], pin: bool) -> None:
    with _folder() as folder:
        ended(
            [
                started(
                    ["benchmarks.speed.whole", str(path), str(folder / f"{i}.parquet"), str(i), str(processes)],
                    [on[i % len(on)]] if pin else on,
                    folder,
                )
                for i in range(processes)
            ]
        )


def whole(pairs: int, everywhere: Sequence[int] | None = None) -> dict[str, Any]:
    """Seconds of whole sweeps, and their ratios. `everywhere`: the cores that the processes may use."""
    on = list(everywhere or cores())
    with _folder() as folder:
        path = folder / "sweep.npz"
        subprocess.run([sys.executable, "-m", "benchmarks.speed.whole", str(path)], check=True)
        pin = path.with_suffix(".platform").read_text() == "cpu"
        numbers = [n for n in (1, 2) if n <= len(on)] if pin else [1]
        file = path.with_suffix(".yaml")
        calls = {f"dopt, {n}": lambda _, n=n: ours(file, n if pin else None, on) for n in numbers}
        calls |= {f"by hand, {n}": lambda _, n=n: theirs(path, n, on, pin) for n in numbers}
        times = turns(calls, min(pairs, 9))
    ratios = {str(n): ratio(times[f"dopt, {n}"], times[f"by hand, {n}"]) for n in numbers}
    found: dict[str, Any] = {
        "pairs": min(pairs, 9),
        "seconds": medians(times),
        "ratio_by_processes": {n: middle for n, (middle, _) in ratios.items()},
        "ratio_quartiles": {n: quartiles for n, (_, quartiles) in ratios.items()},
        "jobs_to_one_by_hand": ratio(times[f"dopt, {numbers[-1]}"], times["by hand, 1"])[0],
    }
    for n, (middle, (low, high)) in ratios.items():
        took = {who: found["seconds"][f"{who}, {n}"] for who in ("dopt", "by hand")}
        print(
            f"the whole sweep, {n} process(es): dopt {took['dopt']:.1f} s, by hand {took['by hand']:.1f} s, "
            f"ratio {middle:.3f} [{low:.3f}, {high:.3f}]",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.whole", description=__doc__)
    parser.add_argument("path", type=Path, help="arrays of the sweep; they are made where nothing else is said")
    parser.add_argument("out", type=Path, nargs="?", help="the table")
    parser.add_argument("share", type=int, nargs="?", default=0, help="which share of the slabs")
    parser.add_argument("shares", type=int, nargs="?", default=1, help="how many shares there are")
    args = parser.parse_args()
    if args.out is None:
        prepare(args.path)
    else:
        by_hand(args.path, args.out, args.share, args.shares)


if __name__ == "__main__":
    main()
