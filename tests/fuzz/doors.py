"""What dopt reads, a few sound inputs of each kind, and the public door through which each goes in.

A door makes of a damaged input all that comes before a compilation: it is read, resolved, and the groups of its runs are built.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import pandas as pd
import yaml

import dopt
from dopt import cluster, data, mixing, schedule, topology
from dopt.cli import main
from dopt.sweeps import seal, spec, where, work
from dopt.types import InputError

from . import mutate

Read = Callable[[], object]


class Kind(NamedTuple):
    """A kind of input.

    Attributes:
      name: as the table shows it.
      damage: (generator, an empty folder) -> (what the damaged input is, for a report; what reads it).
    """

    name: str
    damage: Callable[[Random, Path], tuple[object, Read]]


# -- sweeps ---------------------------------------------------------------------------------------------------------

SMALL = {"workers": 4, "problem": "consensus", "learning_rate": 0.1, "steps": 10}


def _sweep(fixed: dict[str, Any], swept: dict[str, list[Any]] | None = None, **more: Any) -> dict[str, Any]:
    return {"method": "grid", "name": "small", "parameters": spec.grid({**SMALL, **fixed}, swept)} | more


def _random_sweep(**drawn: dict[str, Any]) -> dict[str, Any]:
    fixed = {name: {"value": value} for name, value in {**SMALL, "algorithm": "gossip_sgd"}.items()}
    return {"method": "random", "name": "drawn", "run_cap": 4, "parameters": fixed | drawn}


SWEEPS: tuple[dict[str, Any], ...] = (
    _sweep({"algorithm": "gossip_sgd", "topology": "hypercube"}, {"seed": [0, 1], "delay": [0, 2, "uniform"], "delay.max": [3]}),
    _sweep({"algorithm": "gossip_sgd", "topology": "networkx:gnp_random_graph", "topology.n": 4, "topology.p": 0.9}),
    _sweep({"algorithm": "async_sgd", "cluster": "exponential"}, {"cluster.latency": [0.1, [0.1, 0.2, 0.3, 0.4]]}),
    _sweep({"algorithm": "local_sgd", "algorithm.local_steps": 2, "optimizer": "adam", "optimizer.b1": 0.5}),
    _sweep({"algorithm": "choco_sgd", "algorithm.compressor": "top_k", "algorithm.fraction": 0.5, "link_loss": 0.1}),
    _sweep({"algorithm": "allreduce_sgd", "problem": "quadratic", "problem.dim": 3, "learning_rate.schedule": "cosine_decay",
            "learning_rate.decay_steps": 10}),
    _sweep({"algorithm": "ringmaster_sgd", "algorithm.threshold": 2, "cluster": "pareto"}, {"precision": ["float32", "float64"]},
           metric={"name": "loss", "goal": "minimize", "target": 0.1}),
    _random_sweep(seed={"distribution": "int_uniform", "min": 0, "max": 9}, delay={"values": [0, 1], "probabilities": [0.5, 0.5]}),
    _random_sweep(learning_rate={"distribution": "log_uniform_values", "min": 0.01, "max": 1.0}),
    _random_sweep(link_loss={"distribution": "q_uniform", "min": 0, "max": 0.5, "q": 0.1}),
)  # fmt: skip


def sweeps(rng: Random, folder: Path) -> tuple[object, Read]:
    content, path = rng.choice(SWEEPS), folder / "small.yaml"
    if rng.random() < 0.5:
        text = yaml.safe_dump(mutate.of_tree(rng, content), allow_unicode=True)
    else:
        text = mutate.of_text(rng, yaml.safe_dump(content))
    _write(path, text)
    return text, lambda: work.grouped(spec.read(path))


# -- arguments ------------------------------------------------------------------------------------------------------

ARGUMENTS: tuple[tuple[str, ...], ...] = (
    ("run", "--dry-run", "--algorithm=gossip_sgd", "--workers=4", "--problem=consensus", "--learning_rate=0.1", "--steps=10", "--topology=ring"),
    ("run", "--dry-run", "--algorithm=async_sgd", "--workers=4", "--problem=quadratic", "--learning_rate=0.1", "--seconds=5", "--cluster=pareto",
     "--cluster.straggler=3", "--problem.dim=3"),
    ("run", "--dry-run", "--algorithm=delayed_sgd", "--workers=4", "--problem=consensus", "--learning_rate=0.1", "--steps=10", "--delay=2",
     "--metrics=[loss]", "--seed=3"),
    ("list", "algorithms"),
    ("list", "delays"),
    ("figures", "--list"),
    ("list", "optimizers"),
)  # fmt: skip


def arguments(rng: Random, folder: Path) -> tuple[object, Read]:
    words = mutate.of_words(rng, list(rng.choice(ARGUMENTS)))
    return words, lambda: command(words)


def command(words: list[str]) -> None:
    """The command ends with 0, or with one line on stderr and 2 (or 1, where the machine refuses)."""
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as end:  # --help and --version
            code = int(end.code or 0)
    told = err.getvalue()
    if code and not (code in (1, 2) and told.startswith("dopt: ") and told.count("\n") == 1):
        raise AssertionError(f"exit code {code}, and on stderr {told!r}")
    if code:
        raise InputError(told.strip())


# -- files that a run reads -----------------------------------------------------------------------------------------

RING = "0 1\n1 2\n2 3\n3 0\n"
_ring = nx.cycle_graph(4)
nx.set_edge_attributes(_ring, 0.25, "weight")
nx.set_edge_attributes(_ring, 2, "delay")
GRAPHS = {
    "ring.edgelist": RING,
    "weighted.edgelist": "# directed\n0 1 0.5\n1 2 0.5\n2 0 0.5\n",
    "delays.edgelist": "0 1 {'delay': 2}\n1 2 {'delay': 1}\n2 0 {'delay': 2}\n",
    "ring.adjlist": "0 1 3\n1 2\n2 3\n3\n",
    "ring.graphml": "\n".join(nx.generate_graphml(_ring)),
    "ring.gml": "\n".join(nx.generate_gml(_ring)),
    "ring.gexf": "\n".join(nx.generate_gexf(_ring)),
}


def graphs(rng: Random, folder: Path) -> tuple[object, Read]:
    name = rng.choice(list(GRAPHS))
    content = _damaged_file(rng, folder / name, GRAPHS[name].encode())

    def read() -> None:
        network = topology.make(str(folder / name))
        mixing.as_matrix(mixing.weights(network), len(network))
        delay = "edges" if "delay" in name else 0
        run = {"algorithm": "gossip_sgd", "workers": len(network), "topology": str(folder / name), "delay": delay}
        work.grouped(spec.parse(_sweep(run)))

    return content, read


_w = np.asarray(mixing.weights(_ring, "metropolis"))


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


_csv = "\n".join(",".join(map(repr, row)) for row in _w.tolist())
MATRICES = {
    "w.csv": _csv.encode(),
    "w.txt": _csv.replace(",", " ").encode(),
    "w.txt.gz": gzip.compress(_csv.replace(",", " ").encode(), mtime=0),
    "w.npy": _npy(_w),
    "period.npy": _npy(np.stack([_w, _w])),
    "single.npy": _npy(_w.astype(np.float32)),
}


def matrices(rng: Random, folder: Path) -> tuple[object, Read]:
    name = rng.choice(list(MATRICES))
    content = _damaged_file(rng, folder / name, MATRICES[name])
    return content, lambda: mixing.read(folder / name)


LIBSVM = "".join(
    f"{(-1) ** i:+d} " + " ".join(f"{j}:{(i * j) % 7 / 7:g}" for j in range(1, 14)) + "\n" for i in range(8)
)


def sets(rng: Random, folder: Path) -> tuple[object, Read]:
    (folder / "heart_scale").write_text(LIBSVM)
    (folder / "heart_scale.t").write_text(LIBSVM)
    content = _damaged_file(rng, folder / rng.choice(("heart_scale", "heart_scale.t")), LIBSVM.encode())
    return content, lambda: _load("heart_scale", folder)


def _load(name: str, folder: Path) -> None:
    before = os.environ.get("DOPT_DATA_DIR")
    os.environ["DOPT_DATA_DIR"] = str(folder)
    try:
        data.load(name)
    finally:
        data.load.cache_clear()
        del os.environ["DOPT_DATA_DIR"]
        if before is not None:
            os.environ["DOPT_DATA_DIR"] = before


LINKS = {"latency": 1e-5, "bandwidth": 1e9, "device": "cpu", "collectives": [{"name": "psum", "seconds": [1.0, 2.0]}]}


def links(rng: Random, folder: Path) -> tuple[object, Read]:
    path = folder / "links.json"
    if rng.random() < 0.5:
        content: object = json.dumps(mutate.of_tree(rng, LINKS))
        _write(path, str(content))
    else:
        content = _damaged_file(rng, path, json.dumps(LINKS, indent=1).encode())
    return content, lambda: cluster.make("exponential", 4, seed=0, links=str(path))


TRACE = "worker,read_version,write_version,seconds\n" + "".join(
    f"{i % 4},{max(0, i - 2)},{i},{i / 4 + 0.25}\n" for i in range(12)
)


def traces(rng: Random, folder: Path) -> tuple[object, Read]:
    content = _damaged_file(rng, folder / "trace.csv", TRACE.encode())
    return content, lambda: cluster.make("trace", 4, seed=0, file=str(folder / "trace.csv"))


def _schedule() -> schedule.Schedule:
    return schedule.arrivals(cluster.make("pareto", 4, seed=0), dopt.Coordination(slack=3), steps=12)


def schedules(rng: Random, folder: Path) -> tuple[object, Read]:
    path = folder / "line.npz"
    schedule.save(_schedule(), path)
    if rng.random() < 0.5:
        content: object = _damaged_file(rng, path, path.read_bytes())
    else:
        with np.load(path) as found:
            arrays = dict(found)
        arrays = mutate.of_arrays(rng, arrays)
        np.savez(path, **arrays)
        content = {k: (v.dtype, v.shape) for k, v in arrays.items()}

    def read() -> None:
        schedule.batches(schedule.load(path))

    return content, read


# -- results folders ------------------------------------------------------------------------------------------------


def folders(sound: Path, part: str) -> Callable[[Random, Path], tuple[object, Read]]:
    """Damage to one file of a finished sweep: what is read of it then is what it was, or it is refused.

    Half of the JSON files are changed by somebody who seals them again: those are only not to surprise.
    """

    def damage(rng: Random, folder: Path) -> tuple[object, Read]:
        here = folder / "results"
        shutil.copytree(sound, here)
        path = rng.choice(sorted(here.rglob(part)))
        sealed = path.suffix == ".json" and rng.random() < 0.5
        if sealed:
            content = json.loads(path.read_bytes())
            del content[seal.SUM]
            damaged = mutate.of_tree(rng, content)
            path.write_bytes(seal.seal(damaged))
        else:
            damaged = _damaged_file(rng, path, path.read_bytes())

        def read() -> None:
            found = dopt.load(here).checked()
            if sealed:
                return
            for table, known in zip((found.runs, found.history), whole(sound), strict=True):
                there = known[known["id"].isin(table["id"])].reset_index(drop=True)
                pd.testing.assert_frame_equal(table, there)

        return damaged, read

    return damage


CONDITIONS = (
    "topology=ring,delay=0",
    "learning_rate<=0.1,topology!=none",
    'algorithm="gossip_sgd",seed>0',
    "strict=true,final.loss<1e-1",
)


def conditions(sound: Path) -> Callable[[Random, Path], tuple[object, Read]]:
    """Conditions on the runs of a finished sweep."""

    def damage(rng: Random, folder: Path) -> tuple[object, Read]:
        text = mutate.of_text(rng, rng.choice(CONDITIONS))
        return text, lambda: where.mask(whole(sound)[0], where.parse(text))

    return damage


@cache
def whole(sound: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of the sound folder."""
    found = dopt.load(sound)
    return found.runs, found.history


def finished(folder: Path) -> Path:
    """A sweep of four runs, each in a slab of its own."""
    from dopt.sweeps import plan

    width = dict(plan.PREFERRED)
    plan.PREFERRED["cpu"] = 1
    try:
        dopt.sweep(_sweep({"algorithm": "gossip_sgd"}, {"seed": [0, 1], "topology": ["ring", "star"]}), results=folder)
    finally:
        plan.PREFERRED.update(width)
    return folder


def kinds(sound: Path) -> tuple[Kind, ...]:
    """All of them; `sound` is a folder that `finished` made."""
    plain = (sweeps, arguments, graphs, matrices, sets, links, traces, schedules)
    parts = {"plans": "0001.json", "manifests": "manifest.json", "tables": "*.parquet"}
    return (
        *(Kind(damage.__name__, damage) for damage in plain),
        Kind("conditions", conditions(sound)),
        *(Kind(name, folders(sound, part)) for name, part in parts.items()),
    )


# -- helpers --------------------------------------------------------------------------------------------------------


def _damaged_file(rng: Random, path: Path, content: bytes) -> bytes:
    """Write `content` damaged, as text where it is some, or as bytes."""
    try:
        text = content.decode() if rng.random() < 0.7 else None
    except UnicodeDecodeError:
        text = None
    damaged = mutate.of_bytes(rng, content) if text is None else _encoded(mutate.of_text(rng, text))
    path.write_bytes(damaged)
    return damaged


def _write(path: Path, text: str) -> None:
    path.write_bytes(_encoded(text))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
