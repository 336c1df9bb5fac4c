"""The devices that a command uses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dopt.types import InputError

if TYPE_CHECKING:
    import jax


def make_virtual(count: int | None) -> None:
    """Let a CPU have as many devices; before anything asks JAX for devices, and before other processes are joined."""
    if count is None:
        return
    if count < 1:
        raise InputError(f"devices: must be at least 1, got {count}")
    import jax

    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", count)  # says nothing to accelerators


def of(count: int | None) -> list[jax.Device] | None:
    """The first `count` devices of each process; on a CPU, as many virtual ones. None: as JAX finds them."""
    make_virtual(count)
    return chosen(count)


def chosen(count: int | None) -> list[jax.Device] | None:
    """As `of`, where the virtual ones are made already."""
    if count is None:
        return None
    import jax

    found = jax.local_devices()
    if count > len(found):
        raise InputError(f"devices: there are {len(found)} ({found[0].platform}), got {count}")
    if jax.process_count() == 1:
        return found[:count]
    hosts = range(jax.process_count())
    return [device for host in hosts for device in [d for d in jax.devices() if d.process_index == host][:count]]
