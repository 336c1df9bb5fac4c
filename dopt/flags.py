"""JAX's own flags, so far as they change numbers: fixed while dopt traces, or refused.

A run is the same run whatever the environment says. `JAX_DEFAULT_PRNG_IMPL`, `JAX_THREEFRY_PARTITIONABLE` and their like
would give other batches, starts and products under the same id.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import jax

from dopt.types import InputError

PRNG = "threefry2x32"  # of every key
FIXED: dict[str, Any] = {
    "default_prng_impl": PRNG,
    "threefry_partitionable": True,
    "default_matmul_precision": None,
    "numpy_dtype_promotion": "standard",
    "numpy_rank_promotion": "allow",
    "disable_jit": False,
    "debug_nans": False,  # who diverges is NaN
    "debug_infs": False,
}
WAYS = ("host_to_device", "device_to_device", "device_to_host")  # of transfers, which may be guarded
# these have no context; each with the value that dopt's numbers stand for
UNFIXED: dict[str, Any] = {"jax_random_seed_offset": 0, "jax_high_dynamic_range_gumbel": False}
# compilers that may assume that there is no NaN cannot tell who diverged; TF32 in place of float32 stalls a consensus
ENVIRONMENT = {
    "XLA_FLAGS": re.compile(r"--\w*(?:fast_math|fast_min_max)(?:=(?:true|1|t|yes|y))?(?=\s|$)", re.IGNORECASE),
    "NVIDIA_TF32_OVERRIDE": re.compile(r"^\s*1\s*$"),
}


@contextmanager
def fixed(x64: bool) -> Iterator[None]:
    """JAX as dopt has it: with numbers of 64 bits or without, and all else as always. Of this thread."""
    with ExitStack() as stack:
        stack.enter_context(jax.enable_x64(x64))
        for name, value in FIXED.items():
            if getattr(jax.config, f"jax_{name}") != value:  # to set what is so costs more than to look
                stack.enter_context(getattr(jax, name)(value))
        if any(getattr(jax.config, f"jax_transfer_guard_{way}") not in (None, "allow") for way in WAYS):
            stack.enter_context(jax.transfer_guard("allow"))
        yield


def check(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse what changes numbers and cannot be fixed from here."""
    for name, usual in UNFIXED.items():
        if (value := getattr(jax.config, name, usual)) != usual:
            raise InputError(f"{name.upper()}: changes random numbers, got {value}; unset it")
    for name, changes in ENVIRONMENT.items():
        if found := changes.search(environment.get(name, "")):
            raise InputError(f"{name}: changes the result of a run, got {found.group().strip()}; leave it out")


__all__ = ["FIXED", "PRNG", "check", "fixed"]
