"""`python -m benchmarks.speed.on_ray`: 300 slabs that sleep, on nine slots of a Ray cluster on this machine, against a bare loop of the same tasks.

What is compared is the driver: a bare loop submits all tasks at once and throws away what they return; ours claims slabs, hands
them out, and has them checked and on the disk in the end. Each slab sleeps for a second, so that two cores can be nine machines.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.speed import measure
from dopt.version import installed

SLABS, NODES, SLOTS, PAIRS = 300, 3, 3, 3
RUNS = 32  # of a slab
SLEEPS = """
import sys, time
import numpy as np
from dopt import engine
from dopt.mixing import WEIGHTS

packed = engine.packed

def slow(compiled, runs):
    if "ray" in sys.modules and "ray.cluster_utils" not in sys.modules:
        time.sleep(1.0)
    return packed(compiled, runs)

engine.packed = slow

@WEIGHTS.register()
def sleeps(graph):
    return np.full((len(graph), len(graph)), 1 / len(graph))
"""
SHORT = {
    "algorithm": "gossip_sgd",
    "workers": 4,
    "problem": "quadratic",
    "problem.dim": 4,
    "steps": 20,
    "weights": "sleeps",
}


def content() -> dict[str, Any]:
    """A sweep of so many slabs."""
    swept = {"learning_rate": [0.1, 0.2, 0.3], "seed": list(range(RUNS * SLABS // 3))}
    fixed = {name: {"value": value} for name, value in SHORT.items()}
    return {"name": "sleeps", "parameters": fixed | {name: {"values": values} for name, values in swept.items()}}


def compared(folder: Path, pairs: int) -> dict[str, Any]:
    """Seconds of both, turn by turn, in a session that is in the cluster."""
    import ray

    from dopt.sweeps import on_ray, spec
    from dopt.sweeps.agreement import Held
    from dopt.sweeps.engines import Asked
    from dopt.sweeps.pipeline import todo_of
    from dopt.sweeps.show import Show
    from dopt.sweeps.store import Store
    from dopt.sweeps.tracking import Tracker

    asked, first = spec.parse(content()), Store(folder / "first")
    with on_ray.connected(Asked(cpus_per_slab=1), Show()) as cluster:
        first.create()
        first.write_plan(1, cluster.plan(Held.read(asked, first))[1])
        held = Held.read(asked, first)
        todo = todo_of(held.planned)
        assert len(todo) == SLABS
        assert cluster.slots() == NODES * SLOTS

        def ours(turn: int) -> None:
            out = folder / f"{turn} {len(os.listdir(folder))}"
            out.mkdir()
            shutil.copytree(first.folder / "plans", out / "plans")
            store = Store(out)
            store.create()
            cluster.do(held.planned, todo, store, Tracker("off", group="", folder=out))
            assert all(store.has(one.name) for one in todo)

        def bare(turn: int) -> None:
            tasks = [cluster.start(one.name) for one in todo]
            while tasks:
                ended, tasks = ray.wait(tasks)
                ray.get(ended)

        ours(0)  # what all processes have compiled is there from now on, and what tasks share
        times: dict[str, list[float]] = {"ours": [], "bare": []}
        for turn in range(pairs):
            for who, call in (("ours", ours), ("bare", bare))[:: 1 if turn % 2 else -1]:
                times[who].append(measure.seconds(lambda call=call, turn=turn: call(turn)))
                print(who, times[who][-1], flush=True)
    found = {who: sorted(each)[len(each) // 2] for who, each in times.items()}
    return {"slabs": SLABS, "slots": NODES * SLOTS, "seconds": times, **found, "ratio": found["ours"] / found["bare"]}


def main() -> None:
    """Measure, and keep it beside the other results."""
    root = str(Path(__file__).parents[2])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sleeps.py").write_text(SLEEPS)
        os.environ |= {"PYTHONPATH": root, "JAX_PLATFORMS": "cpu", "RAY_USAGE_STATS_ENABLED": "0"}
        os.environ |= {"DOPT_CACHE_DIR": str(Path(folder) / "cache")}
        sys.path.insert(0, folder)
        import ray
        from ray.cluster_utils import Cluster

        __import__("sleeps")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": SLOTS, "include_dashboard": False})
        try:
            for _ in range(NODES - 1):
                made.add_node(num_cpus=SLOTS)
            ray.init(made.address, log_to_driver=False, logging_level="ERROR")
            (Path(folder) / "out").mkdir()
            found = compared(Path(folder) / "out", PAIRS)
        finally:
            ray.shutdown()
            made.shutdown()
    measure.write({**measure.machine(), "ray": installed("ray"), **found}, None, "ray-")


if __name__ == "__main__":
    main()
