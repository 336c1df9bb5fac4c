"""One worker per device: time per step against hand-written pmap, weak and strong scaling, how near the device's limits, how wide a slab pays.

`python -m benchmarks.speed.devices`, on all devices there are; on a CPU, `--devices 4` makes virtual ones, which share its cores, so
that the ratios count there and the scaling does not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

from benchmarks.speed.measure import machine, medians, ratio, seconds, turns, write
from benchmarks.speed.rows import UNROLL
from dopt import Run, engine
from dopt.config import Runs
from dopt.engine import Compiled, Group, group_of, run_slab

RATE, LOCAL_STEPS, STEPS = 0.05, 8, 200
METHODS: dict[str, dict[str, Any]] = {
    "allreduce_sgd": {},
    "ring_allreduce_sgd": {},
    "fsdp_sgd": {},
    "local_sgd": {"algorithm.local_steps": LOCAL_STEPS},
    "gossip_sgd": {"topology": "ring"},
}
WIDTHS = {"cpu": (1, 4, 16, 64, 256), "gpu": (1, 10, 100, 1000, 10_000, 100_000)}


def described(method: str, workers: int, executor: str, batch: int, hidden: int) -> Run:
    fields = {"problem": "mlp", "problem.hidden": (hidden, hidden), "batch_size": batch, "metrics": (), "steps": STEPS}
    fields |= {"algorithm": method, "workers": workers, "learning_rate": RATE, "executor": executor}
    return Run.from_dict(fields | {"record_every": STEPS, **METHODS[method]}).resolve()


# -- by hand ----------------------------------------------------------------------------------------------------------


def by_hand(method: str, group: Group) -> Callable[[], Any]:
    """The hand-written steps; where launching an iteration costs, unrolled if that is faster."""
    if group.devices[0].platform == "cpu":
        return by_hand_unrolled(method, group, 1)
    tried = {str(unroll): by_hand_unrolled(method, group, unroll) for unroll in (1, UNROLL)}
    took = medians(turns({name: lambda _, call=call: call() for name, call in tried.items()}, 3))
    return tried[min(tried, key=took.__getitem__)]


def by_hand_unrolled(method: str, group: Group, unroll: int) -> Callable[[], Any]:
    """The same steps as a careful researcher writes them: pmap of a loop of static length, batches drawn ahead, models donated."""
    n, batch, data = group.first.workers, group.first.batch_size or 1, group.facts.data
    loss, devices = group.facts.problem.loss, group.devices
    right, left = [(i, (i + 1) % n) for i in range(n)], [(i, (i - 1) % n) for i in range(n)]
    size, back = ravel_pytree(group.facts.problem.init(jax.random.key(0)))
    piece = -(-size.size // n)

    def start(_: Any) -> Any:
        x = group.facts.problem.init(jax.random.key(group.first.seed))
        if method != "fsdp_sgd":
            return x
        flat = jnp.pad(ravel_pytree(x)[0], (0, n * piece - size.size))
        return flat.reshape(n, piece)[lax.axis_index("i")]

    def run(params: Any, x: Any, y: Any, count: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(1), lax.axis_index("i"))
        drawn = jax.random.randint(key, (STEPS, batch), 0, count)

        def gradient(params: Any, k: Any) -> Any:
            return jax.grad(loss)(params, {"x": x[drawn[k]], "y": y[drawn[k]]})

        def step(k: Any, params: Any) -> Any:
            if method == "fsdp_sgd":
                whole = back(lax.all_gather(params, "i").reshape(-1)[: size.size])
                flat = jnp.pad(ravel_pytree(gradient(whole, k))[0], (0, n * piece - size.size))
                return params - RATE / n * lax.psum_scatter(flat.reshape(n, piece), "i")
            g = gradient(params, k)
            if method == "allreduce_sgd":
                g = lax.pmean(g, "i")
            if method == "ring_allreduce_sgd":
                chunks = jnp.pad(ravel_pytree(g)[0], (0, n * piece - size.size)).reshape(n, piece)
                i = lax.axis_index("i")
                part = chunks[i]
                for r in range(n - 1):  # the sum of chunk i + 1 ends here
                    part = lax.ppermute(part, "i", right) + chunks[(i - r - 1) % n]
                chunks = chunks.at[(i + 1) % n].set(part)
                for r in range(n - 1):
                    part = lax.ppermute(part, "i", right)
                    chunks = chunks.at[(i - r) % n].set(part)
                g = back(chunks.reshape(-1)[: size.size] / n)
            if method == "gossip_sgd":
                ways = (right, left) if n > 2 else (right,)
                near = [jax.tree.map(lambda a, way=way: lax.ppermute(a, "i", way), params) for way in ways]
                params = jax.tree.map(lambda *a: sum(a) / len(a), params, *near)
            params = jax.tree.map(lambda a, b: a - RATE * b, params, g)
            if method == "local_sgd":
                params = lax.cond((k + 1) % LOCAL_STEPS == 0, lambda p: lax.pmean(p, "i"), lambda p: p, params)
            return params

        return lax.fori_loop(0, STEPS, step, params, unroll=unroll)

    put = {"devices": devices, "axis_name": "i"}
    begin = jax.pmap(start, **put)
    go = jax.pmap(run, donate_argnums=0, **put)
    mesh = jax.sharding.Mesh(np.array(devices), ("i",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("i"))
    fixed = jax.device_put((data.samples["x"], data.samples["y"], data.count), spread)  # once, and not at each call
    number = np.arange(n)
    return lambda: jax.block_until_ready(go(begin(number), *fixed))


# -- what is measured -------------------------------------------------------------------------------------------------


def limits() -> dict[str, float]:
    """FLOP a second of a float32 product, bytes a second of a copy, of one device."""
    size, device = (2048, 2**24) if jax.devices()[0].platform == "cpu" else (8192, 2**28), jax.devices()[0]
    a = jax.device_put(jnp.ones((size[0], size[0]), jnp.float32), device)
    b = jax.device_put(jnp.ones(size[1], jnp.float32), device)
    product, copy = jax.jit(lambda x: x @ x), jax.jit(lambda x: x + 1)
    found = {}
    for name, call, work in (("flops", lambda: product(a), 2 * size[0] ** 3), ("bytes", lambda: copy(b), 8 * size[1])):
        call().block_until_ready()
        found[name] = work / float(np.median([seconds(lambda: call().block_until_ready()) for _ in range(9)]))
    return found


def work_of(compiled: Compiled) -> dict[str, float]:
    """FLOP and bytes of one step of one gradient, by the compiler's own count."""
    group = compiled.group
    model = group.facts.problem.init(jax.random.key(0))
    batch = jax.tree.map(lambda a: a[0, : group.first.batch_size], group.facts.data.samples)
    cost = jax.jit(jax.grad(group.facts.problem.loss)).lower(model, batch).compile().cost_analysis() or {}
    return {"flops": float(cost.get("flops", np.nan)), "bytes": float(cost.get("bytes accessed", np.nan))}


def one(method: str, workers: int, batch: int, hidden: int, pairs: int, most: dict[str, float]) -> dict[str, Any]:
    run = described(method, workers, "pmap", batch, hidden)
    group = group_of([run])
    ours, theirs = engine.compile(group, 1), by_hand(method, group)
    times = turns({"dopt": lambda _: run_slab(ours, [run]), "by_hand": lambda _: theirs()}, pairs)
    per, work = medians(times, 1e6 / STEPS), work_of(ours)
    return {
        "method": method,
        "devices": workers,
        "batch": batch,
        "microseconds_per_step": per,
        "ratio_to_hand_written_pmap": ratio(times["dopt"], times["by_hand"])[0],
        "share_of_limit": {name: work[name] / (1e-6 * per["dopt"]) / most[name] for name in most},
    }


def scaling(counts: Sequence[int], batch: int, hidden: int, pairs: int) -> list[dict[str, Any]]:
    """All-reduce on 1, 2, 4 ... devices: the same batch for each (weak), or for all together (strong)."""
    rows = []
    for kind in ("weak", "strong"):
        for n in counts:
            own = batch if kind == "weak" else max(1, batch * counts[0] // n)
            run = described("allreduce_sgd", n, "pmap", own, hidden)
            compiled = engine.compile(group_of([run]), 1)
            times = turns({"dopt": lambda _, c=compiled, r=run: run_slab(c, [r])}, pairs)
            per = medians(times, 1e6 / STEPS)["dopt"]
            rows.append({"kind": kind, "devices": n, "batch_of_each": own, "microseconds_per_step": per})
    for row in rows:
        first = next(r for r in rows if r["kind"] == row["kind"])["microseconds_per_step"]
        ideal = 1 if row["kind"] == "weak" else row["devices"]
        row["efficiency"] = first / (row["microseconds_per_step"] * ideal)
    return rows


def widths(numbers: Sequence[int], most: dict[str, float], pairs: int) -> list[dict[str, Any]]:
    """Runs vmapped together on one device: microseconds per run and step, and the share of the memory's bandwidth.

    Gossip on a ring of 16 with models of 64 numbers: a step reads and writes them, and little else.
    """
    n, dim, rows = 16, 64, []
    for width in numbers:
        fields = {"algorithm": "gossip_sgd", "problem": "quadratic", "problem.dim": dim, "workers": n, "steps": STEPS}
        run = Run.from_dict(fields | {"learning_rate": RATE, "record_every": STEPS, "metrics": ()}).resolve()
        runs = Runs((run,), np.zeros(width, np.int32), np.full(width, RATE), np.arange(width))
        compiled = engine.compile(group_of([run]), width)
        times = turns({"dopt": lambda _, c=compiled, r=runs: run_slab(c, r)}, pairs)
        per = medians(times, 1e6 / STEPS)["dopt"]
        moved = 2 * 4 * n * dim * width / (1e-6 * per)
        row = {"runs": width, "microseconds_per_run_and_step": per / width, "share_of_bandwidth": moved / most["bytes"]}
        rows.append(row)
        print(
            f"{width:7d} runs together: {row['microseconds_per_run_and_step']:9.4f} us per run and step, "
            f"{100 * row['share_of_bandwidth']:5.1f} % of the copy's bandwidth",
            flush=True,
        )
    return rows


def knee(rows: Sequence[dict[str, Any]]) -> int:
    """The smallest width at most a tenth slower per run than the best."""
    best = min(row["microseconds_per_run_and_step"] for row in rows)
    return next(row["runs"] for row in rows if row["microseconds_per_run_and_step"] <= 1.1 * best)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.devices", description=__doc__)
    parser.add_argument("--devices", type=int, help="virtual devices of a CPU (default: as JAX finds them)")
    parser.add_argument("--batch", type=int, default=64, help="of each worker (default: 64)")
    parser.add_argument("--hidden", type=int, default=256, help="width of the two layers (default: 256)")
    parser.add_argument("--pairs", type=int, default=9, help="interleaved pairs of measurements (default: 9)")
    parser.add_argument("--widths", type=int, nargs="*", help="runs vmapped together (default: by the platform)")
    parser.add_argument("--out", type=Path, help="the JSON file (default: results/ beside this file)")
    args = parser.parse_args()
    if args.devices:
        jax.config.update("jax_num_cpu_devices", args.devices)
    device, count = jax.devices()[0], len(jax.devices())
    most = limits()
    print(
        f"{count} x {device.device_kind}: {most['flops'] / 1e9:.0f} GFLOP/s, {most['bytes'] / 1e9:.1f} GB/s", flush=True
    )
    rows = []
    for method in METHODS:
        rows.append(one(method, count, args.batch, args.hidden, args.pairs, most))
        per, share = rows[-1]["microseconds_per_step"], rows[-1]["share_of_limit"]
        print(
            f"{method:20s} dopt {per['dopt']:9.1f} us a step  by hand {per['by_hand']:9.1f} us  ratio "
            f"{rows[-1]['ratio_to_hand_written_pmap']:.3f}  {100 * share['flops']:.1f} % of the product's FLOP/s",
            flush=True,
        )
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= count]
    table = scaling(counts, args.batch, args.hidden, args.pairs)
    for row in table:
        print(
            f"{row['kind']:6s} {row['devices']:3d} devices, batch {row['batch_of_each']:4d} each: "
            f"{row['microseconds_per_step']:9.1f} us a step, efficiency {row['efficiency']:.2f}",
            flush=True,
        )
    wide = widths(args.widths or WIDTHS.get(device.platform, WIDTHS["gpu"]), most, max(3, args.pairs // 3))
    print(f"the knee lies at {knee(wide)} runs")
    found = {
        **machine(),
        "devices": count,
        "limits_per_second": most,
        "methods": rows,
        "scaling": table,
        "widths": wide,
        "knee": knee(wide),
    }
    write(found, args.out, "devices-")


if __name__ == "__main__":
    main()
