"""Several processes, on one host or many, that make one run together: join them, lay out arrays over all, bring results back.

Each process runs the same program on the devices of its host (JAX's "multi-controller"); arrays are global, and a process
holds the part that lies on its own devices. Nothing here does anything in a program of one process.

Who listens: process 0, at the address that it was given and no other; and on CPUs each process, for Gloo's messages, at the
address that its host's own name stands for, at a port that the system picks. Neither asks who calls: use networks you trust.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # its store of keys is not to be had otherwise
from jax.experimental import multihost_utils

from dopt.devices.last_words import DEAD
from dopt.types import InputError, Tree
from dopt.version import VERSION

HEARTBEAT = 60  # seconds without a sign of life after which a process counts as dead
POLL = 0.02  # seconds between two looks for what another process says
REFUSED = "dopt/refused"  # the key under which a process leaves its last line
_turns = itertools.count()  # comparisons so far, in the same order in all processes
_end_with_1 = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: os._exit(1))


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
      InputError: numbers that cannot be, an address that is none, nothing that JAX could find, or other versions in
        another process. Where nobody answers, JAX ends the process, with the line of `dopt.devices.last_words` and exit code 1.
    """
    _check_address(coordinator, processes, process)
    if heartbeat < 1:
        raise InputError(f"heartbeat: must be at least 1 second, got {heartbeat}; {HEARTBEAT} is usual")
    found = coordinator == "auto"
    _speak_plainly()
    # where another process dies, JAX aborts this one from C++
    ctypes.CDLL(None).signal(signal.SIGABRT, _end_with_1)
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
            coordinator_bind_address=None if found else coordinator,  # JAX would listen at all addresses of the host
        )
    except (ValueError, RuntimeError) as error:
        advice = "; give HOST:PORT, --processes N and --process I" if found else ""
        raise InputError(f"coordinator: {str(error).splitlines()[0]} Got {coordinator}{advice}") from error
    with together():
        compare({"dopt": VERSION, "jax": jax.__version__, "jaxlib": jax.lib.__version__})


def _check_address(coordinator: str, processes: int | None, process: int | None) -> None:
    """Refuse what no process can be told to join."""
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


def compare(facts: Mapping[str, object]) -> None:
    """Go on where all processes have the same `facts` (plain data), and none has given up.

    Raises:
      InputError: the same one in all of them.
    """
    client, mine = distributed.global_state.client, distributed.global_state.process_id
    count = distributed.global_state.num_processes or 1
    if client is None or count == 1:
        return
    turn = next(_turns)
    client.key_value_set(f"dopt/{turn}/{mine}", json.dumps(facts, default=list))
    each = [json.loads(_await(client, f"dopt/{turn}/{process}")) for process in range(count)]
    for process, theirs in enumerate(each):
        for name in {**each[0], **theirs}:
            if each[0].get(name) != theirs.get(name):
                raise InputError(
                    f"processes: they differ in {name}: process 0 has {each[0].get(name)}, process {process} has {theirs.get(name)}; start all of them with the same"
                )


def _await(client: Any, key: str) -> str:
    """What a process has said, or will say; what it refused, where it did so instead. If it dies, JAX ends this one."""
    while True:
        for name in (key, REFUSED):
            with suppress(jax.errors.JaxRuntimeError):  # nothing there yet
                said = client.key_value_try_get(name)
                if name == REFUSED:
                    raise InputError(said)
                return said
        time.sleep(POLL)


def _refuse(line: str) -> None:
    """Tell the other processes why this one ends, so that they need not wait for it."""
    client = distributed.global_state.client
    if client is not None and several():
        with suppress(jax.errors.JaxRuntimeError):  # another one was first
            client.key_value_set(REFUSED, line)


def _speak_plainly() -> None:
    """Pass stderr through `dopt/devices/last_words.py`, and drop what C++ libraries print on stdout: who is connected to whom.

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
    """End the processes together: where one refuses, the others say so, too, at the next `compare`.

    Where a collective finds that another one is gone, this one ends with one line, before JAX does so.
    """
    try:
        yield
    except (InputError, OSError) as error:
        _refuse(" ".join(str(error).split()))
        raise
    except jax.errors.JaxRuntimeError as error:
        if not several() or "RESOURCE_EXHAUSTED" in str(error):
            raise
        # in one piece, as JAX's own threads write now, too
        os.write(2, f"{DEAD} ({str(error).splitlines()[0]})\n".encode(errors="backslashreplace"))
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
