"""The CPU as a device: how many threads XLA has there, and a place for what was compiled for it."""

from __future__ import annotations

import hashlib
import platform
import warnings
from contextlib import suppress
from pathlib import Path

import jax

from dopt import cores
from dopt.data.files import cache_folder

XLA = "tf_XLAEigen"  # how XLA calls the threads among which it divides a computation
LARGEST = 2**30  # bytes of executables that are kept, those used last
CPU = Path("/proc/cpuinfo")


def threads() -> int | None:
    """Among how many threads this process divides a computation; None: it has an accelerator."""
    if jax.default_backend() != "cpu":
        return None
    found = 0
    for path in cores.TASKS.glob("[0-9]*/comm"):
        with suppress(OSError):  # a thread that has ended
            found += path.read_text().strip() == XLA
    return found or cores.expected(len(jax.local_devices()))


def keep_executables(threads: int) -> None:
    """Let this process keep what it compiles in the user's cache, and take from there what is there.

    JAX's own names of executables see neither threads nor the kind of CPU, both of which are in the code: so each has a folder.
    A cache that cannot be read or written only costs time.
    """
    folder = cache_folder() / "compiled" / f"{_kind()}-{threads}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", LARGEST)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _kind() -> str:
    """A digest of what a CPU is and can."""
    try:
        lines = CPU.read_text().partition("\n\n")[0].splitlines()
    except OSError:
        lines = []
    said = [
        line for line in lines if line.partition("\t")[0].strip() in ("model name", "flags", "Features", "CPU part")
    ]
    return hashlib.sha256("\n".join([platform.machine(), *said]).encode()).hexdigest()[:12]
