"""Rows of the table: per step, compile seconds, memory, as ratios to hand-written JAX and to NumPy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.speed.by_hand import (
    QuadraticSetting,
    Setting,
    TextSetting,
    event_loop,
    jax_program,
    numpy_program,
    quadratic_program,
    transformer_program,
)
from benchmarks.speed.measure import medians, ratio, seconds, turns
from dopt import AXIS, Problem, Run, engine, mixing, schedule, topology
from dopt.algorithms import ALGORITHMS, options
from dopt.algorithms.traits import coordination_of, is_event_driven, is_peer_to_peer
from dopt.config import Runs
from dopt.devices.memory import program_memory
from dopt.engine import Compiled, Group, group_of, run_slab
from dopt.facts.clock import machines_of
from dopt.facts.wiring import matrix
from dopt.sweeps import knee, plan, spec
from dopt.sweeps.tables import tables

SWEEP = Path(__file__).parents[1] / "connectivity_delay.yaml"
METRICS = ("loss", "grad_norm", "consensus_distance", "accuracy")
METHODS: dict[str, dict[str, Any]] = {
    "allreduce_sgd": {},
    "delayed_sgd": {"delay": 4},
    "async_sgd": {"cluster": "exponential", "steps": 4000},
    "gossip_sgd": {},
    "delayed_gossip_sgd": {"delay": 4},
}
COMPILED = 9  # pairs in which programs are compiled
UNROLL = 5  # steps of one iteration of a hand-written loop, where launching an iteration costs; tried beside 1
# eight graphs of sixteen workers, eight delays, ten rates, sixteen seeds: one program
QUADRATICS: dict[str, Sequence[Any]] = {
    "topology": ("ring", "path", "star", "complete", "torus", "hypercube", "exponential", "binary_tree"),
    "delay": range(8),
    "learning_rate": [round(0.01 * 1.3**i, 6) for i in range(10)],
    "seed": range(16),
}


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


def hand_arguments(group: Group, runs: Runs) -> tuple[Any, ...]:
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


def hand_compiled(make: Callable[[int], Callable[..., Any]], given: Sequence[Any]) -> Any:
    """A hand-written program of these arguments; where launches cost, unrolled if that is faster."""

    def compiled(unroll: int) -> Any:
        return jax.jit(make(unroll)).lower(*given).compile()

    if jax.devices()[0].platform == "cpu":
        return compiled(1)
    tried = {unroll: compiled(unroll) for unroll in (1, UNROLL)}
    times = medians(turns({str(u): lambda _, p=p: jax.block_until_ready(p(*given)) for u, p in tried.items()}, 3))
    return tried[min(tried, key=lambda unroll: times[str(unroll)])]


def contest(
    name: str, ours: Compiled, slabs: Sequence[Runs], hand: Any, given: Sequence[Sequence[Any]], pairs: int
) -> dict[str, Any]:
    """Both programs on the same slabs, turn by turn: the whole of a slab, and its device's part alone."""
    steps, width = ours.group.longest_run, ours.width
    ready = [engine.packed(ours, slab) for slab in slabs[: pairs + 1]]
    times = turns(
        {
            "dopt": lambda turn: run_slab(ours, slabs[turn % len(slabs)]),
            "dopt_device": lambda turn: engine.advanced(ready[turn % len(ready)]),
            "by_hand": lambda turn: np.asarray(hand(*given[turn % len(given)])),
        },
        pairs,
    )
    whole, quartiles = ratio(times["dopt"], times["by_hand"])
    return {
        "name": name,
        "runs_of_a_slab": width,
        "steps": steps,
        "pairs": pairs,
        "microseconds_per_run_and_step": medians(times, 1e6 / (steps * width)),
        "ratio_to_hand_written_jax": whole,
        "ratio_quartiles": quartiles,
        "device_ratio": ratio(times["dopt_device"], times["by_hand"])[0],
        "memory_bytes": {"dopt": ours.memory, "by_hand": program_memory(hand)},
    }


def compare(name: str, slabs: Sequence[Runs], everything: Runs, width: int, pairs: int) -> dict[str, Any]:
    """A row of softmax regression: against hand-written JAX, and NumPy."""
    group = group_of(everything)
    method, by_hand = group.first.algorithm, setting(group)
    given = [hand_arguments(group, slab) for slab in slabs]

    def make(unroll: int = 1) -> Callable[..., Any]:
        return jax.vmap(jax_program(method, by_hand, unroll))

    compile_times = turns(
        {
            "dopt": lambda _: engine.compile(group, width),
            # a fresh function each time, or JAX would find the last trace
            "by_hand": lambda _: jax.jit(make()).lower(*given[0]).compile(),
        },
        COMPILED,
    )
    ours, theirs = engine.compile(group, width), hand_compiled(make, given[0])
    row = contest(name, ours, slabs, theirs, given, pairs)
    unvectorised = seconds(lambda: numpy_program(method, by_hand)(0, *given[0][1:]))
    outcomes = run_slab(ours, slabs[0])
    per = row["microseconds_per_run_and_step"]
    per["numpy"] = 1e6 * unvectorised / (group.longest_run * width)
    return row | {
        "numpy_over_dopt": per["numpy"] / per["dopt"],
        "compile_seconds": medians(compile_times),
        "compile_ratio": ratio(compile_times["dopt"], compile_times["by_hand"])[0],
        "final_loss": {
            "dopt": float(np.median([o.history["loss"][-1] for o in outcomes])),
            "by_hand": float(np.median(np.asarray(theirs(*given[0]))[:, -1, 0])),
        },
        "tables_seconds": seconds(lambda: tables(slabs[0], outcomes.columns)),
    }


def planned(runs: Runs) -> tuple[Runs, int, list[Runs], int]:
    """(runs of the largest group, its width, its whole slabs, groups): as a sweep of these runs is planned."""
    groups = plan.groups_of(runs)
    key, largest = max(groups.items(), key=lambda group: len(group[1]))
    on = jax.devices()[:1]
    known = None if plan.is_fixed(on) else knee.measured(plan.group_on(largest, on), largest, key)
    width = plan.width_of(len(largest), on, known)
    slabs = [slab for _, slab in plan.cut(1, 0, largest, width) if len(slab) == width]
    return largest, width, slabs, len(groups)


def the_sweep(pairs: int) -> dict[str, Any]:
    """The runs of connectivity_delay, slab by slab; and how many groups they form."""
    runs, width, slabs, groups = planned(spec.read(SWEEP, {"metrics": [list(METRICS)]}).runs)
    row = {"groups": groups, **compare("connectivity_delay, a slab", slabs, runs, width, pairs)}
    show(row)
    return row


def quadratic_runs(steps: int = 1000, dim: int = 64, **swept: Sequence[Any]) -> Runs:
    """Gossip of old models on quadratics, of all graphs, delays, rates and seeds."""
    fixed = {"algorithm": "delayed_gossip_sgd", "workers": 16, "problem": "quadratic", "problem.dim": dim}
    fixed |= {"steps": steps, "record_every": steps // 10, "metrics": ["loss", "consensus_distance"]}
    return spec.parse({"parameters": spec.grid(fixed, QUADRATICS | swept)}).runs


def quadratic_setting(group: Group) -> QuadraticSetting:
    data = group.facts.data.samples
    curvature, minimum = (np.asarray(data[name])[:, 0] for name in ("curvature", "minimum"))
    return QuadraticSetting(curvature, minimum, group.longest_run, group.facts.every, group.facts.building.slots)


def quadratic_contest(runs: Runs, name: str, pairs: int) -> dict[str, Any]:
    """Runs of `quadratic_runs`, slab by slab."""
    runs, width, slabs, groups = planned(runs)
    group = group_of(runs)
    given = [hand_arguments(group, slab)[1:4] for slab in slabs]
    by_hand = quadratic_setting(group)
    hand = hand_compiled(lambda unroll: jax.vmap(quadratic_program(by_hand, unroll)), given[0])
    ours = engine.compile(group, width)
    row = contest(name, ours, slabs, hand, given, pairs)
    loss = run_slab(ours, slabs[0]).columns.history["loss"][:, -1]
    final = {"dopt": float(np.median(loss)), "by_hand": float(np.median(np.asarray(hand(*given[0]))[:, -1, 0]))}
    return {"groups": groups, "runs": len(runs), **row, "final_loss": final}


def quadratic(pairs: int) -> dict[str, Any]:
    """10 240 small runs: one program, whose device's part is short beside what the host does for a run."""
    row = quadratic_contest(quadratic_runs(), "10 240 quadratic runs, a slab", pairs)
    show(row)
    return row


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
    name = f"{method}, {width} run{'s' * (width > 1)}"
    row = compare(name, [Runs.of([run] * width)], Runs.of([run]), width, pairs)
    show(row)
    return row


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
    looked_at = {name: seen.samples[name][seen.weights > 0] for name in ("x", "y")}
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

    compile_times = turns({"dopt": lambda _: engine.compile(group, 1), "by_hand": lambda _: compile_hand()}, COMPILED)
    ours, theirs = engine.compile(group, 1), compile_hand()
    times = turns(
        {
            "dopt": lambda _: run_slab(ours, [run]),
            "by_hand": lambda _: np.asarray(theirs(np.int32(0), np.float32(0.2))),
        },
        pairs,
    )
    whole, quartiles = ratio(times["dopt"], times["by_hand"])
    row = {
        "name": "transformer, 8 workers",
        "steps": by_hand.steps,
        "pairs": pairs,
        "microseconds_per_step": medians(times, 1e6 / by_hand.steps),
        "ratio_to_hand_written_jax": whole,
        "ratio_quartiles": quartiles,
        "compile_seconds": medians(compile_times),
        "compile_ratio": ratio(compile_times["dopt"], compile_times["by_hand"])[0],
        "final_loss": {
            "dopt": float(run_slab(ours, [run])[0].history["loss"][-1]),
            "by_hand": float(np.asarray(theirs(np.int32(0), np.float32(0.2)))[-1, 0]),
        },
    }
    took, loss, compiling = row["microseconds_per_step"], row["final_loss"], row["compile_seconds"]
    print(
        f"{row['name']:28s} dopt {took['dopt']:8.0f} us  by hand {took['by_hand']:8.0f} us  ratio {row['ratio_to_hand_written_jax']:.3f} "
        f"[{row['ratio_quartiles'][0]:.3f}, {row['ratio_quartiles'][1]:.3f}]  loss {loss['dopt']:.3f} / {loss['by_hand']:.3f}  "
        f"compile {compiling['dopt']:.2f} s / {compiling['by_hand']:.2f} s = {row['compile_ratio']:.2f}",
        flush=True,
    )
    return row


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
    found = medians(turns({name: lambda _, call=call: call() for name, call in programs.items()}, max(3, pairs // 5)))
    ratio = found["dense"] / found["neighbours"]
    print(
        f"a mix on a ring of {workers}, d = {dim}: {found['neighbours']:.3f} s, as one product {ratio:.1f} times as long"
    )
    return {"workers": workers, "dim": dim, "seconds": found, "dense_over_neighbours": ratio}


def asynchronous(pairs: int) -> dict[str, Any]:
    """A server's arrivals replayed: 1 run and 64, against hand-written JAX and the usual loop over events; and the clock alone."""
    rows = [one_run("async_sgd", width, pairs) for width in (1, 64)]
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


def show(row: dict[str, Any]) -> None:
    per, (low, high) = row["microseconds_per_run_and_step"], row["ratio_quartiles"]
    more = ""
    if "compile_seconds" in row:
        compiling = row["compile_seconds"]
        more = f"  numpy/dopt {row['numpy_over_dopt']:5.1f}  compile {compiling['dopt']:.2f} s / {compiling['by_hand']:.2f} s = {row['compile_ratio']:.2f}"
    print(
        f"{row['name']:30s} dopt {per['dopt']:8.3f} us (device {per['dopt_device']:.3f})  by hand {per['by_hand']:8.3f} us  "
        f"ratio {row['ratio_to_hand_written_jax']:.3f} [{low:.3f}, {high:.3f}], device {row['device_ratio']:.3f}{more}",
        flush=True,
    )
