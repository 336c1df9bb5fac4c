"""Where a worker's program runs: one function for each executor, chosen outside the program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from dopt.devices import EXECUTORS
from dopt.devices.axes import Axes, of_one, size
from dopt.registry import did_you_mean
from dopt.types import AXIS, MODEL, InputError, Tree

RUNS = "runs"
VIRTUAL = ("cpu",)  # platforms whose devices are parts of one machine that a single one uses up already


def spread(executor: str) -> Sequence[jax.Device] | None:
    """Devices over which a sweep splits its runs, where nobody says: all of this process, on a CPU one.

    None: of an executor that places workers, which takes as many as these need.
    """
    if executor != "vmap":
        return None
    devices = jax.local_devices()
    return devices[:1] if devices[0].platform in VIRTUAL else devices


def check(
    executor: str, workers: int, devices: Sequence[jax.Device], events: bool, algorithm: str, parts: int = 1
) -> None:
    """Refuse what does not fit, before anything is compiled. `parts`: devices over which `mesh` lays each model."""
    if executor not in EXECUTORS:
        raise InputError(f"executor: unknown name {executor!r}{did_you_mean(executor, EXECUTORS)}")
    if events and executor != "vmap":
        raise InputError(
            f"executor: {algorithm} is driven by a server's arrivals and has no axis of workers to place on {executor}; use vmap"
        )
    if executor != "vmap" and jax.process_count() > 1:
        _check_processes(executor, workers, devices)
    if executor in ("pmap", "shard_map") and workers > len(devices):
        raise InputError(
            f"executor: {executor} needs a device per worker; there are {len(devices)} for workers={workers}; use mesh or vmap, or --devices"
        )
    if executor == "mesh" and len(devices) % parts:
        raise InputError(
            f"executor: mesh lays each model over problem.parts={parts} devices; {len(devices)} are no multiple of that; use --devices or vmap"
        )
    if executor == "mesh" and workers % (len(devices) // parts):
        apiece = f", {parts} to a model," if parts > 1 else ""
        raise InputError(
            f"executor: mesh splits workers evenly over devices; {len(devices)}{apiece} do not divide workers={workers}; use --devices or vmap"
        )


def _check_processes(executor: str, workers: int, devices: Sequence[jax.Device]) -> None:
    """Refuse what does not fit several processes; all of them refuse the same."""
    if executor == "pmap":
        raise InputError("executor: pmap is for one process; use shard_map, which is the same program, or mesh")
    processes, busy = jax.process_count(), len({device.process_index for device in devices})
    if busy < processes:
        raise InputError(
            f"processes: workers={workers} leave {processes - busy} of {processes} processes without a worker; start {busy}, or use more workers"
        )


def place(
    program: Callable,
    in_axes: tuple,
    out_axes: Tree,
    *,
    executor: str,
    workers: int,
    devices: Sequence[jax.Device],
    events: bool = False,
    parts: int = 1,
    donate: bool = False,
) -> Any:
    """`program`, written for one worker of one run, as a compiled function of arrays [runs, workers, ...].

    Args:
      program: takes one worker's slices, with collectives over "workers"; with `events`, there are no workers.
      in_axes: one prefix tree of `Axes` per argument.
      out_axes: a prefix tree of `Axes` for the result.
      parts: devices over which `mesh` lays each model.
      donate: let the first argument's memory be reused.
    """
    donated = (0,) if donate else ()
    if executor == "pmap":
        return _pmapped(_over_runs(program, in_axes, out_axes), in_axes, out_axes, devices[:workers], donated)
    if executor == "shard_map":
        return _shard_mapped(_over_runs(program, in_axes, out_axes), in_axes, out_axes, devices[:workers], donated)
    simulated = program
    if not events:
        axes = _along("workers", in_axes), _along("workers", out_axes)
        simulated = jax.vmap(program, *axes, axis_name=AXIS, axis_size=workers)
    several = _over_runs(simulated, in_axes, out_axes)
    if len(devices) == 1:
        here = SingleDeviceSharding(devices[0])
        return jax.jit(several, in_shardings=here, out_shardings=here, donate_argnums=donated)
    layout = _of_mesh(devices, parts) if executor == "mesh" else _of_runs(devices)
    return jax.jit(
        several,
        in_shardings=jax.tree.map(layout, in_axes),
        out_shardings=jax.tree.map(layout, out_axes),
        donate_argnums=donated,
    )


def _along(axis: str, tree: Tree) -> Tree:
    """Where `vmap` finds the axis: first, or nowhere."""
    return jax.tree.map(lambda a: 0 if getattr(a, axis) else None, tree)


def _over_runs(f: Callable, in_axes: tuple, out_axes: Tree) -> Callable:
    """`f`, of one run, for several."""
    several = jax.vmap(f, _along("runs", in_axes), _along("runs", out_axes))
    # without the axis, an index that differs between runs stays a slice and does not become a gather
    one = of_one(f, in_axes, out_axes, "runs")

    def call(*args: Tree) -> Tree:
        return several(*args) if size(in_axes, args, "runs") > 1 else one(*args)

    return call


def _pmapped(
    f: Callable, in_axes: tuple, out_axes: Tree, devices: Sequence[jax.Device], donated: tuple[int, ...]
) -> Callable:
    def positions(tree: Tree) -> Tree:
        return jax.tree.map(lambda a: int(a.runs) if a.workers else None, tree)

    return jax.pmap(
        f,
        AXIS,
        in_axes=positions(in_axes),
        out_axes=positions(out_axes),
        devices=devices,
        donate_argnums=donated,
    )


def _shard_mapped(
    f: Callable, in_axes: tuple, out_axes: Tree, devices: Sequence[jax.Device], donated: tuple[int, ...]
) -> Callable:
    mesh = _mesh(devices, (AXIS,))

    def spec(a: Axes) -> P:
        return (P(None, AXIS) if a.runs else P(AXIS)) if a.workers else P()

    block = of_one(f, in_axes, out_axes, "workers")
    # check_vma=False: with it, a gradient of replicated params would be summed already, silently
    into, out = jax.tree.map(spec, in_axes), jax.tree.map(spec, out_axes)
    mapped = jax.shard_map(block, mesh=mesh, in_specs=into, out_specs=out, check_vma=False)
    # where an argument lies is said, since a program that does not read it would not tell
    laid = jax.tree.map(lambda a: NamedSharding(mesh, spec(a)), in_axes)
    return jax.jit(mapped, in_shardings=laid, donate_argnums=donated)


def _of_runs(devices: Sequence[jax.Device]) -> Callable[[Axes], NamedSharding]:
    """Runs are split over the devices."""
    mesh = _mesh(devices, (RUNS,))
    return lambda a: NamedSharding(mesh, P(RUNS) if a.runs else P())


def _of_mesh(devices: Sequence[jax.Device], parts: int) -> Callable[[Axes], NamedSharding]:
    """Workers are split over the devices, and the parts of a model over neighbours in the list of devices."""
    mesh = _mesh(devices, (AXIS, MODEL), parts)

    def layout(a: Axes) -> NamedSharding:
        if not a.workers:
            return NamedSharding(mesh, P())
        tail = [] if a.parts is None else [*[None] * a.parts, MODEL]
        return NamedSharding(mesh, P(*[None] * a.runs, AXIS, *tail))

    return layout


def _mesh(devices: Sequence[jax.Device], names: tuple[str, ...], *shape: int) -> jax.sharding.Mesh:
    """Devices in a grid; `shape`: the lengths of all axes but the first."""
    grid = np.asarray(devices).reshape(-1, *shape)
    return jax.sharding.Mesh(grid, names, axis_types=(AxisType.Auto,) * len(names))
