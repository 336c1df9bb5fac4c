"""Compile for a GPU or a TPU that is not here, and count what a step and a record launch, beside the hand-written program's.

XLA compiles ahead of time for a device that is only described: `python -m benchmarks.speed.ahead --target h100` (one GPU) or
`--target v5e` (a slice of 2 x 4 chips, on which every method is compiled under all its executors). What compiles, its memory, and its loops with their trip counts and
launches are facts; its speed is not seen. `make ahead` brings the plug-ins, into environments of their own. It exits with 1 where a
program does not clear the bars: it compiles, the compiler knows how long its loops are, it launches hardly more than by hand, and
neighbours on a ring of chips hear each other by permutations.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.speed.by_hand import jax_program
from benchmarks.speed.measure import versions, write
from benchmarks.speed.rows import METHODS, hand_arguments, row_fields, setting
from dopt import Run, flags
from dopt.algorithms import ALGORITHMS
from dopt.algorithms.traits import Neighbours, is_event_driven
from dopt.config import Runs
from dopt.config.exchanges import exchange_of
from dopt.devices import EXECUTORS
from dopt.devices.memory import program_memory
from dopt.engine import group_of
from dopt.engine.compiled import lower
from dopt.engine.segments import Segment
from dopt.facts.wiring import IN_ROWS

TARGETS = {"h100": "jax-cuda13-plugin", "v5e": "jax[tpu]"}  # and what brings it
DESCRIBED = Path(__file__).with_name("h100.txtpb")
# instructions that launch nothing: they name what is there, or are part of a kernel
FREE = {
    "parameter",
    "get-tuple-element",
    "tuple",
    "constant",
    "bitcast",
    "iota",
    "after-all",
    "partition-id",
    "replica-id",
}
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
FIELDS: dict[str, Any] = {"problem": "softmax", "workers": 8, "learning_rate": 0.2, "batch_size": 8, "steps": 200}
NEEDED: dict[str, dict[str, Any]] = {
    "delayed_sgd": {"delay": 4},
    "delayed_gossip_sgd": {"delay": 4},
    "d2": {"weights": "lazy"},  # of the others' W on a ring the smallest eigenvalue is too small
}
MORE = 3  # launches than by hand that a step, or a record, may have
APART = ("pmap", "shard_map", "mesh")  # one worker on each chip, so that a neighbour is a permutation away
OF_ALL = {"relay_sgd"}  # whose mean is of all workers' models, wherever they are on the tree


class Loop(NamedTuple):
    """A while loop of a compiled program."""

    body: str
    within: str  # the computation in which it stands
    trip_count: int | None  # None: the device asks the host before each iteration
    kinds: dict[str, int]  # of the instructions of one iteration that launch something

    @property
    def launches(self) -> int:
        return sum(self.kinds.values())


def computations(text: str) -> dict[str, list[str]]:
    """The lines of each computation of a compiled program's text (`compiled.as_text()`)."""
    found: dict[str, list[str]] = {}
    name = None
    for line in text.splitlines():
        begins = re.match(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{", line)
        if begins:
            name = begins.group(1)
            found[name] = []
        elif line.startswith("}"):
            name = None
        elif name is not None:
            found[name].append(line)
    return found


def loops(text: str) -> list[Loop]:
    """All while loops of a compiled program's text."""
    bodies = computations(text)
    found = []
    for within, lines in bodies.items():
        for line in lines:
            loop = re.search(r"while\(.*body=%?([\w.\-]+)", line)
            if loop:
                kinds = _kinds(bodies, loop.group(1))
                found.append(Loop(loop.group(1), within, _trip_count(bodies, line), dict(kinds)))
    return found


def _trip_count(bodies: dict[str, list[str]], line: str) -> int | None:
    """How often a loop runs: the compiler's note, or (a TPU's compiler leaves none) the constant that its condition compares with."""
    noted = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
    if noted:
        return int(noted.group(1))
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    bounds = re.findall(
        r"s32\[\]\S* constant\((\d+)\)", "\n".join(bodies.get(condition.group(1), []) if condition else [])
    )
    return int(bounds[0]) if len(bounds) == 1 else None


def _kinds(bodies: dict[str, list[str]], name: str) -> Counter[str]:
    """Instructions that launch something; those of a command buffer, or of another call, each by itself."""
    found: Counter[str] = Counter()
    for line in bodies.get(name, []):
        kind = re.search(r"= .*? ([a-z][\w\-]*)\(", line)
        called = re.search(r" call\(.*to_apply=%?([\w.\-]+)", line)
        if called:
            found += _kinds(bodies, called.group(1))
        elif kind and kind.group(1) not in FREE:
            found[kind.group(1)] += 1
    return found


class Seen(NamedTuple):
    """What a program's loops do: None where there is no such loop, as of one step or one record."""

    step: Loop | None
    record: Loop | None


def seen(text: str, segment: Segment) -> Seen:
    """The loop over steps and that over records; a loop that the compiler does not know the length of is neither."""
    every = loops(text)
    outer = next((loop for loop in every if loop.trip_count == segment.records and segment.records > 1), None)
    inside = [loop for loop in every if outer is None or loop.within == outer.body]
    return Seen(next((loop for loop in inside if loop.trip_count == segment.steps and segment.steps > 1), None), outer)


# -- programs ----------------------------------------------------------------------------------------------------------


def devices(target: str) -> list[Any]:
    """Described devices; ImportError where their plug-in is not installed."""
    from jax.experimental import topologies

    if target == "h100":
        importlib.import_module("jax_plugins.xla_cuda13")
        jax.devices()  # JAX finds its plug-ins when it looks for devices first
        described = {"target_config": DESCRIBED.read_text(), "topology": "1x1x1"}
        return list(topologies.get_topology_desc("h100", "cuda", **described).devices)
    importlib.import_module("libtpu")
    os.environ.update(TPU_SKIP_MDS_QUERY="1", TPU_ACCELERATOR_TYPE="v5litepod-8", TPU_WORKER_HOSTNAMES="localhost")
    return list(topologies.get_topology_desc("v5e:2x4", "tpu").devices)


def described(method: str, executor: str) -> Run:
    """The run that stands for a method: that of its row in `benchmarks.speed`, where it has one."""
    if method in METHODS and executor == "vmap":
        return Run.from_dict(row_fields(method)).resolve()
    # in rows one product is made, whatever the graph, unless permutations are asked for
    needed = NEEDED.get(method, {}) | ({"mix": "permutations"} if executor in IN_ROWS and mixes(method) else {})
    return Run.from_dict({**FIELDS, "algorithm": method, "executor": executor, **needed}).resolve()


def programs(target: str, only: str | None, here: list[Any]) -> Iterator[tuple[str, str, list[Any]]]:
    """(method, executor, its devices): on one GPU all workers of a run; on a slice every executor."""
    for method in [only] if only else ALGORITHMS:
        has_workers = not is_event_driven(exchange_of(described(method, "vmap")))
        names = list(EXECUTORS) if target != "h100" and has_workers else ["vmap"]
        for executor in names:
            yield method, executor, here[:1] if target == "h100" else here


def ours(run: Run, width: int, here: list[Any]) -> tuple[Any, Segment]:
    """Dopt's program, compiled; and what a call of it does."""
    group = group_of([run], devices=here)
    with flags.fixed(x64=False):
        segment = group.calls(width)[0].segment
        return lower(group, width).replay(segment).compile(), segment


def by_hand(method: str, width: int, here: list[Any]) -> tuple[Any, Segment]:
    """The hand-written program of a method, compiled for the first of the devices."""
    run = described(method, "vmap")
    group = group_of([run])
    by_hand = setting(group)
    on = jax.sharding.SingleDeviceSharding(here[0])
    given = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on), hand_arguments(group, Runs.of([run] * width))
    )
    program = jax_program(method, by_hand)
    return jax.jit(jax.vmap(program)).lower(*given).compile(), Segment(by_hand.steps // by_hand.every, by_hand.every)


def described_program(compiled: Any, segment: Segment) -> dict[str, Any]:
    """What can be said of a compiled program."""
    text = compiled.as_text()
    step, record = seen(text, segment)
    return {
        "records": segment.records,
        "steps": segment.steps,
        "known_trip_counts": (step is not None or segment.steps == 1) and (record is not None or segment.records == 1),
        "launches_per_step": None if step is None else step.launches,
        "launches_per_record": None if record is None else record.launches,
        "kinds_of_a_step": None if step is None else step.kinds,
        "kinds_of_a_record": None if record is None else record.kinds,
        "memory_bytes": program_memory(compiled),
        "collectives": {kind: text.count(f" {kind}(") + text.count(f" {kind}-start(") for kind in COLLECTIVES},
    }


def row_of(method: str, executor: str, width: int, on: list[Any]) -> dict[str, Any]:
    begin = time.perf_counter()
    row: dict[str, Any] = {"method": method, "executor": executor, "devices": len(on), "runs": width}
    try:
        row |= {"dopt": described_program(*ours(described(method, executor), width, on))}
        if method in METHODS and len(on) == 1:
            row |= {"by_hand": described_program(*by_hand(method, width, on))}
    except Exception as error:  # whatever the compiler says: the others are looked at all the same
        row |= {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"}
    return row | {"seconds": round(time.perf_counter() - begin, 1)}


def shown(row: dict[str, Any]) -> str:
    name = f"{row['method']:22s} {row['executor']:10s}"
    if "error" in row:
        return f"{name} does not compile: {row['error']}"
    found = row["dopt"]
    sides = [found, *([row["by_hand"]] if "by_hand" in row else [])]
    counts = " / ".join(f"{side['launches_per_step']} a step, {side['launches_per_record']} a record" for side in sides)
    known = "" if found["known_trip_counts"] else "  a loop without a known trip count"
    sent = ", ".join(f"{count} {kind}" for kind, count in found["collectives"].items() if count)
    return f"{name} {found['records']} x {found['steps']} steps: {counts}  {(found['memory_bytes'] or 0) / 2**20:.1f} MiB  {sent}{known}"


def fallen(row: dict[str, Any]) -> list[str]:
    """The bars that a program does not clear, each in words."""
    name = f"{row['method']} under {row['executor']}"
    if "error" in row:
        return [f"{name} does not compile"]
    said = [] if row["dopt"]["known_trip_counts"] else [f"{name} has a loop without a known trip count"]
    return [f"{name}: {what}" for what in (*too_many(row), *gathered(row))] + said


def too_many(row: dict[str, Any]) -> Iterator[str]:
    """Where it launches more than the hand-written program."""
    for what in ("step", "record"):
        ours, theirs = (row.get(who, {}).get(f"launches_per_{what}") for who in ("dopt", "by_hand"))
        if ours is not None and theirs is not None and ours > theirs + MORE:
            yield f"{ours} launches a {what}, by hand {theirs}"


def gathered(row: dict[str, Any]) -> Iterator[str]:
    """Where neighbours on a ring of chips hear each other by other means than permutations."""
    sent = row["dopt"]["collectives"]
    if row["executor"] in APART and is_ring(row["method"]):
        if not sent["collective-permute"]:
            yield "no collective-permute"
        if sent["all-gather"]:
            yield f"{sent['all-gather']} all-gathers where a permutation serves"


def is_ring(method: str) -> bool:
    """Whether a method's messages go to neighbours on a ring."""
    return method == "ring_allreduce_sgd" or mixes(method)


def mixes(method: str) -> bool:
    """Whether its workers hear their neighbours on a graph, and nobody else."""
    talks = any(isinstance(one, Neighbours) for one in exchange_of(described(method, "vmap")))
    return talks and method not in OF_ALL


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.ahead", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, default="h100", help="the device described (default: h100)")
    parser.add_argument("--only", choices=list(ALGORITHMS), metavar="METHOD", help="one method")
    parser.add_argument("--runs", type=int, default=8, help="runs vmapped together (default: 8)")
    parser.add_argument("--out", type=Path, help="the JSON file (default: results/ beside this file; none with --only)")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # whatever is here is not asked
    try:
        here = devices(args.target)
    except ImportError as error:
        sys.exit(f"ahead: {args.target} needs {TARGETS[args.target]} ({error}); say make ahead")
    rows = []
    for method, executor, on in programs(args.target, args.only, here):
        rows.append(row_of(method, executor, args.runs if executor == "vmap" else 1, on))
        print(shown(rows[-1]), flush=True)
    compiled = [row for row in rows if "error" not in row]
    known = sum(row["dopt"]["known_trip_counts"] for row in compiled)
    print(f"{len(compiled)} of {len(rows)} programs compile, {known} of them with known trip counts")
    if args.out or not args.only:
        found = {**versions(), "platform": args.target, "device": here[0].device_kind, "rows": rows}
        write(found, args.out, "ahead-")
    under = [line for row in rows for line in fallen(row)]
    for line in under:
        print(f"not as it must be: {line}")
    sys.exit(bool(under))


if __name__ == "__main__":
    main()
