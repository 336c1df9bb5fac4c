"""Measure and print: per step, compile seconds, memory, as ratios to hand-written JAX and to NumPy."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.speed.by_hand import Setting, TextSetting, event_loop, jax_program, numpy_program, transformer_program
from dopt import AXIS, Problem, Run, engine, mixing, schedule, topology
from dopt.algorithms import ALGORITHMS, options
from dopt.algorithms.traits import coordination_of, is_event_driven, is_peer_to_peer
from dopt.engine import Group, group_of, run_slab
from dopt.facts.clock import machines_of
from dopt.facts.wiring import matrix
from dopt.sweeps import plan, spec
from dopt.sweeps.work import tables
from dopt.version import installed

HERE = Path(__file__).parent
SWEEP = HERE.parent / "connectivity_delay.yaml"
METRICS = ("loss", "grad_norm", "consensus_distance", "accuracy")
METHODS = {
    "allreduce_sgd": {},
    "delayed_sgd": {"delay": 4},
    "async_sgd": {"cluster": "exponential", "steps": 4000},
    "gossip_sgd": {},
    "delayed_gossip_sgd": {"delay": 4},
}


def seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def setting(group: Group) -> Setting:
    data, test, run = group.facts.data, group.facts.test, group.first
    return Setting(
        np.asarray(data.samples["x"]),
        np.asarray(data.samples["y"]),
        data.count,
        test["x"],
        test["y"],
        int(data.samples["y"].max()) + 1,
        run.batch_size or 1,
        group.longest_run,
        run.record_every or 1,
        group.facts.building.slots,
    )


def hand_arguments(group: Group, runs: Sequence[Run]) -> tuple[Any, ...]:
    """(seeds, rates, delays, W, arrivals), each [runs, ...]."""
    n = group.first.workers
    mixes = [matrix(run) if run.topology else np.eye(n) for run in runs]
    arrivals = [_order(group.facts.replay(0, run.seed).line) if group.events else np.zeros(1, np.int32) for run in runs]
    return (
        np.array([run.seed for run in runs], np.int32),
        np.array([run.learning_rate for run in runs], np.float32),
        np.array([run.delay for run in runs], np.int32),
        np.stack(mixes).astype(np.float32),
        np.stack(arrivals),
    )


def _order(line: Any) -> np.ndarray:
    """[steps] who delivers."""
    return line.worker[line.applied]


def compare(
    name: str, slabs: Sequence[Sequence[Run]], everything: Sequence[Run], width: int, pairs: int
) -> dict[str, Any]:
    """Both programs on the same slabs, turn by turn."""
    group = group_of(everything)
    method, steps = group.first.algorithm, group.longest_run
    by_hand = setting(group)
    program = jax_program(method, by_hand)
    arguments = [hand_arguments(group, slab) for slab in slabs]

    def compile_hand() -> Any:
        # a fresh function each time, or JAX would find the last trace
        return jax.jit(jax.vmap(lambda *a: program(*a))).lower(*arguments[0]).compile()

    engine.compile(group, width), compile_hand()  # whatever JAX sets up once
    compile_times: dict[str, list[float]] = {"dopt": [], "by_hand": []}
    for _ in range(3):
        compile_times["dopt"].append(seconds(lambda: engine.compile(group, width)))
        compile_times["by_hand"].append(seconds(compile_hand))
    ours, theirs = engine.compile(group, width), compile_hand()
    times: dict[str, list[float]] = {"dopt": [], "by_hand": []}
    for pair in range(-1, pairs):
        slab, given = slabs[pair % len(slabs)], arguments[pair % len(slabs)]
        calls = {
            "dopt": lambda slab=slab: run_slab(ours, slab),
            "by_hand": lambda given=given: np.asarray(theirs(*given)),
        }
        for who in ("dopt", "by_hand") if pair % 2 else ("by_hand", "dopt"):
            took = seconds(calls[who])
            if pair >= 0:  # the first pair warms up
                times[who].append(took)
    unvectorised = seconds(
        lambda: numpy_program(method, by_hand)(0, arguments[0][1], arguments[0][2], arguments[0][3], arguments[0][4])
    )
    outcomes = run_slab(ours, slabs[0])
    ratios = np.array(times["dopt"]) / np.array(times["by_hand"])
    per = 1e6 / (steps * width)
    return {
        "name": name,
        "runs_of_a_slab": width,
        "steps": steps,
        "pairs": pairs,
        "microseconds_per_run_and_step": {who: float(np.median(t)) * per for who, t in times.items()}
        | {"numpy": unvectorised * per},
        "ratio_to_hand_written_jax": float(np.median(ratios)),
        "ratio_quartiles": [float(q) for q in np.quantile(ratios, [0.25, 0.75])],
        "numpy_over_dopt": unvectorised / float(np.median(times["dopt"])),
        "compile_seconds": {who: float(np.median(t)) for who, t in compile_times.items()},
        "compile_ratio": float(np.median(compile_times["dopt"]) / np.median(compile_times["by_hand"])),
        "memory_bytes": {"dopt": ours.memory, "by_hand": _memory(theirs)},
        "final_loss": {
            "dopt": float(np.median([o.history["loss"][-1] for o in outcomes])),
            "by_hand": float(np.median(np.asarray(theirs(*arguments[0]))[:, -1, 0])),
        },
        "tables_seconds": seconds(lambda: tables(slabs[0], outcomes)),
    }


def _memory(compiled: Any) -> int | None:
    from dopt.devices.memory import program_memory

    return program_memory(compiled)


def the_sweep(pairs: int) -> tuple[dict[str, Any], int]:
    """The runs of connectivity_delay, slab by slab; and how many groups they form."""
    asked = spec.read(SWEEP, {"metrics": [list(METRICS)]})
    groups = plan.groups_of(asked.runs)
    runs = max(groups.values(), key=len)
    width = plan.width_of(len(runs), jax.devices()[:1])
    slabs = [slab for _, slab in plan.cut(0, runs, width) if len(slab) == width]
    return compare("connectivity_delay, a slab", slabs, runs, width, pairs), len(groups)


def row_fields(method: str) -> dict[str, Any]:
    """The run of a single method's row."""
    fields = {
        "algorithm": method,
        "steps": 2000,
        "workers": 16,
        "learning_rate": 0.2,
        "batch_size": 8,
        "partition": "by_label",
        "metrics": METRICS,
    }
    return {**fields, **METHODS[method]}


def one_run(method: str, width: int, pairs: int) -> dict[str, Any]:
    run = Run(**row_fields(method)).resolve()
    return compare(f"{method}, {width} run{'s' * (width > 1)}", [[run] * width], [run], width, pairs)


def transformer(pairs: int) -> dict[str, Any]:
    """A simulated transformer, eight workers on one device, against a hand-written one in jit(scan) of vmapped gradients."""
    scale = {"problem.width": 64, "problem.heads": 4, "problem.layers": 2}
    fields: dict[str, Any] = {
        "algorithm": "allreduce_sgd",
        "workers": 8,
        "learning_rate": 0.2,
        "batch_size": 8,
        "problem": "transformer",
    }
    horizon: dict[str, Any] = {"steps": 40, "record_every": 20, "metrics": ("loss", "accuracy"), "eval_samples": 64}
    run = Run.from_dict({**fields, **horizon, **scale}).resolve()
    group = group_of([run])
    data, seen, test = group.facts.data, group.facts.data.seen, group.facts.test
    there = np.arange(seen.count.max()) < seen.count[:, None]
    looked_at = {name: np.concatenate([seen.head[name], seen.tail[name]], 1)[there] for name in ("x", "y")}
    by_hand = TextSetting(
        x=data.samples["x"],
        y=data.samples["y"],
        counts=data.count,
        seen_x=looked_at["x"],
        seen_y=looked_at["y"],
        test_x=test["x"],
        test_y=test["y"],
        kinds=int(max(a.max() for a in data.samples.values())) + 1,
        width=scale["problem.width"],
        heads=scale["problem.heads"],
        layers=scale["problem.layers"],
        batch=fields["batch_size"],
        steps=horizon["steps"],
        every=horizon["record_every"],
    )
    program = transformer_program(by_hand)

    def compile_hand() -> Any:
        return jax.jit(lambda *a: program(*a)).lower(np.int32(0), np.float32(0.2)).compile()

    engine.compile(group, 1), compile_hand()
    compile_times = {"dopt": [seconds(lambda: engine.compile(group, 1))], "by_hand": [seconds(compile_hand)]}
    ours, theirs = engine.compile(group, 1), compile_hand()
    calls = {"dopt": lambda: run_slab(ours, [run]), "by_hand": lambda: np.asarray(theirs(np.int32(0), np.float32(0.2)))}
    times = turns(calls, pairs)
    ratios = np.array(times["dopt"]) / np.array(times["by_hand"])
    per = 1e6 / by_hand.steps
    row = {
        "name": "transformer, 8 workers",
        "steps": by_hand.steps,
        "pairs": pairs,
        "microseconds_per_step": {who: float(np.median(t)) * per for who, t in times.items()},
        "ratio_to_hand_written_jax": float(np.median(ratios)),
        "ratio_quartiles": [float(q) for q in np.quantile(ratios, [0.25, 0.75])],
        "compile_seconds": {who: float(np.median(t)) for who, t in compile_times.items()},
        "final_loss": {
            "dopt": float(calls["dopt"]()[0].history["loss"][-1]),
            "by_hand": float(calls["by_hand"]()[-1, 0]),
        },
    }
    took, loss, compiling = row["microseconds_per_step"], row["final_loss"], row["compile_seconds"]
    print(
        f"{row['name']:28s} dopt {took['dopt']:8.0f} us  by hand {took['by_hand']:8.0f} us  ratio {row['ratio_to_hand_written_jax']:.3f} "
        f"[{row['ratio_quartiles'][0]:.3f}, {row['ratio_quartiles'][1]:.3f}]  loss {loss['dopt']:.3f} / {loss['by_hand']:.3f}  "
        f"compile {compiling['dopt']:.2f} s / {compiling['by_hand']:.2f} s",
        flush=True,
    )
    return row


def turns(calls: dict[str, Callable[[], Any]], pairs: int) -> dict[str, list[float]]:
    """Seconds of both, turn by turn; the first pair warms up."""
    times: dict[str, list[float]] = {who: [] for who in calls}
    for pair in range(-1, pairs):
        for who in list(calls)[:: 1 if pair % 2 else -1]:
            took = seconds(calls[who])
            if pair >= 0:
                times[who].append(took)
    return times


def large_graph(pairs: int, workers: int = 4096, dim: int = 10_000) -> dict[str, Any]:
    """A mix on a large ring: lists of neighbours, which are chosen by themselves, against one product with W."""
    w = mixing.weights(topology.make("ring", workers))
    models = jax.random.normal(jax.random.key(0), (workers, dim))

    def program(kind: str) -> Callable[[], Any]:
        form = jax.tree.map(
            lambda x: jax.device_put(x.astype(np.float32) if x.dtype.kind == "f" else x), mixing.form(w, kind)
        )
        mix = mixing.mix(form)
        step = jax.jit(jax.vmap(lambda x: x + mix.apply(x, mix.init(x))[0], axis_name=AXIS))
        step(models).block_until_ready()
        return lambda: step(models).block_until_ready()

    programs = {"neighbours": program("auto"), "dense": program("dense")}
    times = {name: [seconds(call) for _ in range(pairs)] for name, call in programs.items()}
    found = {name: float(np.median(t)) for name, t in times.items()}
    ratio = found["dense"] / found["neighbours"]
    print(
        f"a mix on a ring of {workers}, d = {dim}: {found['neighbours']:.3f} s, as one product {ratio:.1f} times as long"
    )
    return {"workers": workers, "dim": dim, "seconds": found, "dense_over_neighbours": ratio}


def asynchronous(pairs: int) -> dict[str, Any]:
    """A server's arrivals replayed: 1 run and 64, against hand-written JAX and the usual loop over events; and the clock alone."""
    rows = [one_run("async_sgd", width, pairs) for width in (1, 64)]
    for row in rows:
        show(row)
    group = group_of([Run(**row_fields("async_sgd")).resolve()])
    by_hand, scale = setting(group), np.ones(group.first.workers)
    each = 1e6 / by_hand.steps
    loop = float(np.median([seconds(lambda: event_loop(by_hand, scale, 0.2)) for _ in range(3)])) * each
    per = [row["microseconds_per_run_and_step"]["dopt"] for row in rows]
    print(
        f"a loop over events in Python and NumPy: {loop:.1f} us an event, {loop / per[0]:.1f} and {loop / per[1]:.1f} times dopt's"
    )
    return {
        "rows": rows,
        "events_per_second": {"1 run": 1e6 / per[0], "64 runs": 1e6 / per[1], "event loop": 1e6 / loop},
        "event_loop_over_dopt": {"1 run": loop / per[0], "64 runs": loop / per[1]},
        "clock_microseconds_per_event": the_clock(),
        "ringmaster": many_workers(),
    }


def the_clock(events: int = 10**6) -> dict[str, float]:
    """Microseconds of the host for each computation of a schedule, aborted ones among them, by rule."""
    found = {}
    machines = machines_of(Run(**row_fields("async_sgd")).resolve())
    for name, entry in ALGORITHMS.items():
        exchange = entry.traits.exchange(options(name, {}), machines.workers)
        if not is_event_driven(exchange) or is_peer_to_peer(exchange):
            continue
        how = coordination_of(exchange)
        plain = how == type(how)()
        begin = time.perf_counter()
        line = schedule.arrivals(machines, how, gradients=events if plain else events // 10)
        found[name] = 1e6 * (time.perf_counter() - begin) / len(line.time)
    print("the clock, us an event: " + ", ".join(f"{name} {t:.2f}" for name, t in found.items()))
    return found


def many_workers(workers: int = 10_000, dim: int = 10_000, threshold: int = 64) -> dict[str, Any]:
    """What Ringmaster keeps: as many models as may still be read, and not one for each worker."""
    data = np.zeros((workers, 1, 1), np.float32)
    problem = Problem(lambda key: jax.numpy.zeros(dim), lambda x, batch: 0.5 * ((x - batch[0]) ** 2).mean(), data)
    fields = {"algorithm": "ringmaster_sgd", "cluster": "exponential", "steps": 20_000, "metrics": ()}
    options = {"algorithm.threshold": threshold, "cluster.profile": "sqrt"}
    run = Run(workers=workers, learning_rate=0.1, **fields, options=options).resolve(problem=problem)
    compiled = engine.compile(group_of([run], problem=problem), 1)
    models = compiled.memory / (4 * dim)
    print(
        f"ringmaster_sgd, R = {threshold}, {workers} workers: {compiled.group.kept} old models are kept, memory is {models:.0f} models"
    )
    return {"workers": workers, "kept": compiled.group.kept, "memory_in_models": models}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--pairs", type=int, default=15, help="interleaved pairs of measurements (default: 15)")
    parser.add_argument(
        "--only", choices=["sweep", "large_graph", "asynchronous", "transformer", *METHODS], help="one row of the table"
    )
    parser.add_argument(
        "--width", type=int, default=1, help="runs vmapped together in the rows of single methods (default: 1)"
    )
    parser.add_argument(
        "--out", type=Path, help="the JSON file (default: results/ beside this file, by device and date)"
    )
    args = parser.parse_args()
    rows, groups = [], None
    if args.only in (None, "sweep"):
        row, groups = the_sweep(args.pairs)
        rows.append(row)
        show(row)
    for method in METHODS:
        if args.only in (None, method):
            rows.append(one_run(method, args.width, args.pairs))
            show(rows[-1])
    large = large_graph(max(3, args.pairs // 5)) if args.only in (None, "large_graph") else None
    events = asynchronous(args.pairs) if args.only in (None, "asynchronous") else None
    text = transformer(args.pairs) if args.only in (None, "transformer") else None
    found = {
        **machine(),
        "groups_of_the_sweep": groups,
        "large_graph": large,
        "asynchronous": events,
        "transformer": text,
        "rows": rows,
    }
    write(found, args.out)


def machine() -> dict[str, Any]:
    """On what and when it was measured."""
    device = jax.devices()[0]
    return {**versions(), "device": device.device_kind, "platform": device.platform, "cores": os.cpu_count()}


def versions() -> dict[str, Any]:
    """When it was measured, and with what."""
    return {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "versions": {p: installed(p) for p in ("dopt", "jax", "jaxlib", "optax", "numpy")},
    }


def write(found: dict[str, Any], out: Path | None, kind: str = "") -> None:
    """The JSON of what was found on a `machine()`."""
    name = f"{kind}{found['platform']}-jax{found['versions']['jax']}-{found['date']}.json"
    out = out or HERE / "results" / name
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"wrote {out}")


def show(row: dict[str, Any]) -> None:
    per, compiling = row["microseconds_per_run_and_step"], row["compile_seconds"]
    print(
        f"{row['name']:28s} dopt {per['dopt']:8.2f} us  by hand {per['by_hand']:8.2f} us  ratio {row['ratio_to_hand_written_jax']:.3f} "
        f"[{row['ratio_quartiles'][0]:.3f}, {row['ratio_quartiles'][1]:.3f}]  numpy/dopt {row['numpy_over_dopt']:5.1f}  "
        f"compile {compiling['dopt']:.2f} s / {compiling['by_hand']:.2f} s = {row['compile_ratio']:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
