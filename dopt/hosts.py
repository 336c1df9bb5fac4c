"""Several processes, on one host or many, that make one run together: join them, lay out arrays over all, bring results back.

Each process runs the same program on the devices of its host (JAX's "multi-controller"); arrays are global, and a process
holds the part that lies on its own devices. Nothing here does anything in a program of one process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from dopt.last_words import DEAD
from dopt.types import InputError, Tree

HEARTBEAT = 60  # seconds without a sign of life after which a process counts as dead


def initialize(
    coordinator: str, processes: int | None = None, process: int | None = None, heartbeat: int = HEARTBEAT
) -> None:
    """Join the other processes; before anything asks JAX for its devices.

    Args:
      coordinator: HOST:PORT of process 0; or "auto", where JAX finds all by itself (Slurm, Open MPI, Cloud TPU).
      processes: how many there are.
      process: which of them this is.
      heartbeat: seconds after which the death of one ends the others.

    Raises:
      InputError: numbers that cannot be, an address that is none, or nothing that JAX could find. Where nobody answers,
        JAX ends the process, with the line of `dopt.last_words`.
    """
    found = coordinator == "auto"
    host, _, port = coordinator.rpartition(":")
    if not found and not (host and port.isdigit() and 0 < int(port) < 2**16):
        raise InputError(f"coordinator: must be HOST:PORT of process 0, or auto, got {coordinator!r}")
    if not found and (processes is None or process is None):
        raise InputError("coordinator: needs --processes N and --process I, too; or --coordinator auto under Slurm")
    if processes is not None and processes < 1:
        raise InputError(f"processes: must be at least 1, got {processes}")
    if process is not None and not 0 <= process < (processes or np.inf):
        raise InputError(f"process: must lie in 0..{(processes or 1) - 1} (processes={processes}), got {process}")
    if heartbeat < 1:
        raise InputError(f"heartbeat: must be at least 1 second, got {heartbeat}; {HEARTBEAT} is usual")
    _speak_plainly()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # says nothing to accelerators
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM away from us
    try:
        jax.distributed.initialize(
            None if found else coordinator,
            processes,
            process,
            cluster_detection_method=None if found else "deactivate",
            initialization_timeout=max(heartbeat, HEARTBEAT),
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=heartbeat,
        )
    except (ValueError, RuntimeError) as error:
        advice = "; give HOST:PORT, --processes N and --process I" if found else ""
        raise InputError(f"coordinator: {str(error).splitlines()[0]} Got {coordinator}{advice}") from error


def _speak_plainly() -> None:
    """Pass stderr through `dopt/last_words.py`, and drop what C++ libraries print on stdout: who is connected to whom.

    Where a process of several dies, JAX ends the others from C++, past any `except`: what they say can only be
    put into one line by somebody else.
    """
    read, write = os.pipe()
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("last_words.py"))]
    os.posix_spawn(sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, read, 0)])
    sys.stdout.flush()
    sys.stderr.flush()
    sys.stdout = os.fdopen(os.dup(1), "w", 1, encoding=sys.stdout.encoding, closefd=False)  # Python's own stays
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(write, 2)
    for descriptor in (read, write, nowhere):
        os.close(descriptor)


@contextmanager
def together() -> Iterator[None]:
    """End this process with one line where a collective finds that another one is gone, before JAX does so."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not several() or "RESOURCE_EXHAUSTED" in str(error):
            raise
        print(f"{DEAD} ({str(error).splitlines()[0]})", file=sys.stderr, flush=True)
        os._exit(1)  # an orderly end would wait for the dead


def several() -> bool:
    return jax.process_count() > 1


def first() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def shapes(tree: Tree) -> Tree:
    """Arrays as what a program is lowered for; in one process they can stay as they are."""
    return jax.eval_shape(lambda *x: x, tree)[0] if several() else tree


def put(tree: Tree, shardings: Tree) -> Tree:
    """Arrays that every process has, laid out over the devices of all; each process copies its own part."""
    if not several():
        return jax.device_put(tree, shardings)

    def one(x: Any, sharding: Any) -> Any:
        x = np.asarray(x)
        if sharding is None:  # the program does not read it
            return x
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, tree, shardings)


def fetch(tree: Tree) -> Tree:
    """The whole arrays, as NumPy ones, in every process."""

    def one(x: Any) -> np.ndarray:
        there = not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated
        return np.asarray(x if there else multihost_utils.process_allgather(x, tiled=True))

    return jax.tree.map(one, tree)


def agree(number: int) -> int:
    """The first process's number, in all of them: what follows from a process's own watch must not part their ways."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(number))) if several() else number
