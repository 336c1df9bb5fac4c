"""Who does a sweep's slabs: this machine, or a cluster; and what may be asked of each. It imports nothing that takes long."""

from __future__ import annotations

from typing import Any, NamedTuple

from dopt import extras
from dopt.registry import did_you_mean
from dopt.text import quoted
from dopt.types import InputError

ENGINES = ("local", "ray")


class Asked(NamedTuple):
    """What a sweep wants of Ray."""

    address: str | None = None  # HOST:PORT of a cluster; None: a Ray of our own, on this machine
    cpus_per_slab: int | None = None  # cores of a slab, which is a thread on each
    gpus_per_slab: int | None = None  # or devices
    kind: str | None = None  # of devices, where there are several

    def check(self) -> Asked:
        """InputError where no cluster could do that, or Ray is not there."""
        for name, count in (("cpus_per_slab", self.cpus_per_slab), ("gpus_per_slab", self.gpus_per_slab)):
            if count is not None and (type(count) is not int or count < 1):
                raise InputError(f"{name}: must be at least 1, got {quoted(count)}")
        if None not in (self.cpus_per_slab, self.gpus_per_slab):
            raise InputError("gpus_per_slab: a slab runs on CPUs or on GPUs; leave cpus_per_slab out")
        if self.address is not None:
            host_and_port(self.address)
        extras.need("ray", "engine: ray")
        return self


def host_and_port(address: str) -> tuple[str, int]:
    """(host, port)."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 2**16) or "/" in host:
        raise InputError(
            f"address: must be HOST:PORT, got {quoted(address)}; `ray status` shows the address of a cluster"
        )
    return host.strip("[]"), int(port)


def check(engine: str, far: Asked, devices: Any, jobs: int | None, every: int | None) -> None:
    """InputError where there is no such engine, or it means nothing to it what is asked.

    Args:
      devices, jobs, every: None: not asked for.
    """
    if engine not in ENGINES:
        raise InputError(f"engine: unknown name {quoted(engine)}{did_you_mean(engine, ENGINES)}")
    if engine == "local":
        for name, value in far._asdict().items():
            if value is not None:
                raise InputError(f"{name}: is only for the engine ray; add --engine ray, or leave it out")
        return
    if every is not None:
        raise InputError(
            "checkpoint_every: is only for the engine local, which keeps checkpoints in the folder; leave it out"
        )
    for name, value in (("devices", devices), ("jobs", jobs)):
        if value is not None:
            raise InputError(f"{name}: is only for the engine local; with ray use --cpus-per-slab or --gpus-per-slab")
    far.check()
