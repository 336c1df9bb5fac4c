"""What a program takes of a device, what the device can give, and one line where that is too little."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

import jax

from dopt.memory import address_room, available, size
from dopt.types import InputError, MachineError

ARENA = 2**26  # bytes of addresses that the C library sets aside for each thread, beside what a program takes


def program_memory(compiled: jax.stages.Compiled) -> int | None:
    """Bytes that one call needs on a device, by the compiler's own analysis; None where it gives none."""
    if compiled not in _KNOWN:
        _KNOWN[compiled] = _analysed(compiled)
    return _KNOWN[compiled]


# the compiler takes about a millisecond to say so, and is asked before each slab
_KNOWN: WeakKeyDictionary[jax.stages.Compiled, int | None] = WeakKeyDictionary()


def _analysed(compiled: jax.stages.Compiled) -> int | None:
    found = compiled.memory_analysis()
    if found is None:
        return None
    return int(
        found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes - found.alias_size_in_bytes
    )


@contextmanager
def room() -> Iterator[None]:
    """Say in one line that a device has no memory left. A library below XLA may say no more than that it failed."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        said = str(error).strip().splitlines()[0]
        if "RESOURCE_EXHAUSTED" not in said and address_room() > _arenas():
            raise
        raise MachineError(
            f"memory: the device has no room left ({said}); use a smaller model, fewer workers or a shorter delay.max"
        ) from error


def check_fits(memory: int | None, device: jax.Device, algorithm: str) -> None:
    """Refuse a run that a device cannot hold, by the compiler's analysis, before it runs."""
    limit = device_memory(device)
    if memory is not None and limit is not None and memory > limit:
        raise InputError(
            f"memory: one run of {algorithm} needs {memory / 2**30:.1f} GiB, the device has {limit / 2**30:.1f} GiB; use a smaller model, fewer workers or a shorter delay.max"
        )


def check_room(memory: int, device: jax.Device) -> None:
    """End where the process may not get what a program takes on a CPU (`ulimit -v`): libraries below XLA say it in lines of their own.

    Raises:
      MachineError: there is too little room.
    """
    room = address_room() if device.platform == "cpu" else math.inf
    if memory + _arenas() > room:
        raise MachineError(
            f"memory: the process may take {size(room)} more (its limit on address space, ulimit -v), and the run takes up to {size(memory + _arenas())}; raise the limit, or use a smaller model, fewer workers or a shorter delay.max"
        )


def _arenas() -> int:
    """Bytes for the main thread, those that watch, and XLA's on each core."""
    return ARENA * (4 + (os.cpu_count() or 1))


def device_memory(device: jax.Device) -> int | None:
    """Bytes a device can give to one slab: its own limit, or half of what the host still has, for a CPU."""
    if device.platform == "cpu":
        return available() // 2
    try:
        stats = device.memory_stats()
    except jax.errors.JaxRuntimeError:  # a device that is only described, to compile for
        return None
    return int(0.9 * stats["bytes_limit"]) if stats and "bytes_limit" in stats else None


class Held(NamedTuple):
    """Bytes."""

    used: int
    limit: int


def held() -> Held | None:
    """What this process holds of its accelerators, all together; None: they are none, or do not say it."""
    stats = [device.memory_stats() for device in jax.local_devices() if device.platform != "cpu"]
    told = [one for one in stats if one and {"bytes_in_use", "bytes_limit"} <= one.keys()]
    if not told:
        return None
    return Held(sum(one["bytes_in_use"] for one in told), sum(one["bytes_limit"] for one in told))


def room_of_slab(device: jax.Device) -> int | None:
    """Bytes that a slab may take where the next one begins while it is still read: half of an accelerator.

    On a CPU it is all that a device can give, since that is half of what is free.
    """
    whole = device_memory(device)
    return whole if whole is None or device.platform == "cpu" else whole // 2
