"""Where a worker's program runs: one function for each executor, chosen outside the program.

Arrays are laid out [runs, workers, ...] everywhere; `Axes` says which of the two an argument has, and where the parts of a
model stand that lies on several devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from dopt.memory import available
from dopt.registry import did_you_mean
from dopt.types import AXIS, MODEL, PARTS, Clock, InputError, MachineError, Tree

EXECUTORS = {
    "vmap": "all workers simulated on one device; with several devices, the runs are split over them",
    "pmap": "one worker per device, psum and pmean between them",
    "shard_map": "one worker per device of a mesh",
    "mesh": "the vmapped program on sharded arrays: several workers per device, or several devices per worker",
}
ALONE = ("vmap", "pmap")  # run in one process, whatever others there are
RUNS = "runs"
VIRTUAL = ("cpu",)  # platforms whose devices are parts of one machine that a single one uses up already


@dataclass(frozen=True)
class Axes:
    """Which leading axes an argument has. A leaf, to stand for a whole subtree of arguments."""

    runs: bool
    workers: bool
    parts: int | None = None  # where the parts of a model stand after these two, of what is laid over devices


PER_RUN_AND_WORKER, PER_RUN, PER_WORKER, COMMON = (
    Axes(True, True),
    Axes(True, False),
    Axes(False, True),
    Axes(False, False),
)


def state_axes(state: Tree, model: Tree = None) -> Tree:
    """The axes of what a worker keeps: all its leaves have both, but for the clocks, which are common.

    Args:
      state: shapes of one worker's models and of whatever its method keeps.
      model: shapes of one model of a problem with a layout. Whatever is kept of a parameter (a momentum, a ring of old
        models) has the parameter's path at the end of its own, and the parameter's shape at the end of its own.
    """
    flat = jax.tree_util.tree_flatten_with_path(model)[0]
    split = {path: x.shape for path, x in flat if jax.tree_util.DictKey(PARTS) in path}

    def axes(path: tuple[Any, ...], s: Any) -> Axes:
        if isinstance(s, Clock):
            return COMMON
        shape = next((split[path[i:]] for i in range(len(path)) if path[i:] in split), None)
        if shape is None or s.shape[s.ndim - len(shape) :] != shape:
            return PER_RUN_AND_WORKER
        return Axes(True, True, s.ndim - len(shape))

    return jax.tree_util.tree_map_with_path(axes, state, is_leaf=lambda s: isinstance(s, Clock))


def spread(executor: str) -> Sequence[Any] | None:
    """Devices over which a sweep splits its runs, where nobody says: all of this process, on a CPU one.

    None: of an executor that places workers, which takes as many as these need.
    """
    if executor != "vmap":
        return None
    devices = jax.local_devices()
    return devices[:1] if devices[0].platform in VIRTUAL else devices


def check(executor: str, workers: int, devices: Sequence[Any], events: bool, algorithm: str, parts: int = 1) -> None:
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


def _check_processes(executor: str, workers: int, devices: Sequence[Any]) -> None:
    """Refuse what does not fit several processes; all of them refuse alike."""
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
    devices: Sequence[Any],
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

    def along(axis: str, tree: Tree, position: int = 0) -> Tree:
        return jax.tree.map(lambda a: position if getattr(a, axis) else None, tree)

    def over_runs(f: Callable) -> Callable:
        several = jax.vmap(f, along("runs", in_axes), along("runs", out_axes))

        def call(*args: Any) -> Tree:
            if _size(in_axes, args, "runs") > 1:
                return several(*args)
            # without the axis, an index that differs between runs stays a slice and does not become a gather
            return _with_axis(out_axes, f(*_without_axis(in_axes, args, "runs")), "runs")

        return call

    donated = (0,) if donate else ()
    if executor == "pmap":

        def positions(tree: Tree) -> Tree:
            return jax.tree.map(lambda a: int(a.runs) if a.workers else None, tree)

        return jax.pmap(
            over_runs(program),
            AXIS,
            in_axes=positions(in_axes),
            out_axes=positions(out_axes),
            devices=devices[:workers],
            donate_argnums=donated,
        )
    if executor == "shard_map":
        mesh = _mesh(devices[:workers], (AXIS,))

        def specs(tree: Tree) -> Tree:
            return jax.tree.map(lambda a: (P(None, AXIS) if a.runs else P(AXIS)) if a.workers else P(), tree)

        def block(*args: Any) -> Tree:
            there = over_runs(program)(*_without_axis(in_axes, args, "workers"))
            return _with_axis(out_axes, there, "workers")

        # check_vma=False: with it, a gradient of replicated params would be summed already, silently
        mapped = jax.shard_map(block, mesh=mesh, in_specs=specs(in_axes), out_specs=specs(out_axes), check_vma=False)
        return jax.jit(mapped, donate_argnums=donated)

    simulated = (
        program
        if events
        else jax.vmap(program, along("workers", in_axes), along("workers", out_axes), axis_name=AXIS, axis_size=workers)
    )
    if len(devices) == 1:
        return jax.jit(over_runs(simulated), donate_argnums=donated)
    # neighbours in the list of devices have the parts of one model
    mesh = _mesh(devices, (AXIS, MODEL), parts) if executor == "mesh" else _mesh(devices, (RUNS,))

    def spec(a: Axes) -> P:
        if executor != "mesh":
            return P(RUNS) if a.runs else P()
        names = [None] * a.runs + [AXIS] * a.workers
        return P(*names, *([] if a.parts is None else [*[None] * a.parts, MODEL])) if a.workers else P()

    def shardings(tree: Tree) -> Tree:
        return jax.tree.map(lambda a: NamedSharding(mesh, spec(a)), tree)

    return jax.jit(
        over_runs(simulated), in_shardings=shardings(in_axes), out_shardings=shardings(out_axes), donate_argnums=donated
    )


def _position(axes: Axes, axis: str) -> int:
    """Where `axis` stands in [runs, workers, ...]."""
    return int(axis == "workers" and axes.runs)


def _without_axis(axes: Tree, args: Tree, axis: str) -> Tree:
    """`args` without the axis, where it has length one."""

    def one(a: Axes, sub: Tree) -> Tree:
        return jax.tree.map(lambda x: x.squeeze(_position(a, axis)), sub) if getattr(a, axis) else sub

    return jax.tree.map(one, axes, args)


def _with_axis(axes: Tree, result: Tree, axis: str) -> Tree:
    """`result` with the axis put back, of length one."""

    def one(a: Axes, sub: Tree) -> Tree:
        return jax.tree.map(lambda x: jnp.expand_dims(x, _position(a, axis)), sub) if getattr(a, axis) else sub

    return jax.tree.map(one, axes, result)


def _size(axes: Tree, args: Tree, axis: str) -> int:
    """Length of the axis."""
    sizes = jax.tree.map(
        lambda a, sub: [x.shape[_position(a, axis)] for x in jax.tree.leaves(sub)] if getattr(a, axis) else [],
        axes,
        args,
    )
    return next(iter(jax.tree.leaves(sizes)))


def _mesh(devices: Sequence[Any], names: tuple[str, ...], *shape: int) -> jax.sharding.Mesh:
    """Devices in a grid; `shape`: the lengths of all axes but the first."""
    grid = np.asarray(devices).reshape(-1, *shape)
    return jax.sharding.Mesh(grid, names, axis_types=(AxisType.Auto,) * len(names))


def memory(compiled: Any) -> int | None:
    """Bytes that one call needs on a device, by the compiler's own analysis; None where it gives none."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    return int(
        found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes - found.alias_size_in_bytes
    )


@contextmanager
def room() -> Iterator[None]:
    """Say in one line that a device has no memory left."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        said = str(error).strip().splitlines()[0]
        if "RESOURCE_EXHAUSTED" not in said:
            raise
        raise MachineError(
            f"memory: the device has no room left ({said}); use a smaller model, fewer workers or a shorter delay.max"
        ) from error


def check_fits(memory: int | None, device: Any, algorithm: str) -> None:
    """Refuse a run that a device cannot hold, by the compiler's analysis, before it runs."""
    limit = device_memory(device)
    if memory is not None and limit is not None and memory > limit:
        raise InputError(
            f"memory: one run of {algorithm} needs {memory / 2**30:.1f} GiB, the device has {limit / 2**30:.1f} GiB; use a smaller model, fewer workers or a shorter delay.max"
        )


def device_memory(device: Any) -> int | None:
    """Bytes a device can give to one slab: its own limit, or half of what the host still has, for a CPU."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(0.9 * stats["bytes_limit"])
    if device.platform != "cpu":
        return None
    return available() // 2
