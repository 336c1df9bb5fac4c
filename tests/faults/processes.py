"""The command in processes of its own, which are killed, and what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
started: list[subprocess.Popen[str]] = []
LIMIT = 120.0  # seconds, on a busy machine
# the command; each phase leaves a mark, a file of its name, when it begins: arguments are a folder for marks, and the command's
COMMAND = """
import sys
from pathlib import Path
import dopt_command

MARKS = Path(sys.argv[1])
sys.argv[1:] = sys.argv[2:]

def marked(name, f):
    def call(*args, **kwargs):
        (MARKS / name).touch()
        return f(*args, **kwargs)
    return call
"""
PHASES = """
with dopt_command.ends_at_once(sys.argv[1:]):
    (MARKS / "imports").touch()
    import jax
    import dopt
    from dopt import topology
    from dopt.devices import executors
    from dopt.engine import Compiled
    from dopt.cli import main
    from dopt.sweeps import store

topology.make = marked("graph", topology.make)
executors.place = marked("compile", executors.place)
Compiled.start = marked("device", Compiled.start)
store.Store.write_slab = marked("write", store.Store.write_slab)
"""
END = "\nsys.exit(main())\n"


def environment(devices: int = 1, **env: str) -> dict[str, str]:
    """Of a process that finds this dopt, and compiles as users do."""
    flags = f"--xla_force_host_platform_device_count={devices}" if devices else ""
    own = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    return os.environ | own | {"JAX_ENABLE_COMPILATION_CACHE": "0"} | env


def start(
    marks: Path,
    arguments: Sequence[str],
    *,
    code: str = "",
    devices: int = 1,
    cwd: Path | None = None,
    under: Sequence[str] = (),
    **env: str,
) -> subprocess.Popen[str]:
    """The command in a process of its own; `code` runs before it, and `under` is the command that starts it."""
    marks.mkdir(exist_ok=True)
    command = [*under, sys.executable, "-c", COMMAND + PHASES + code + END, str(marks), *arguments]
    pipe = subprocess.PIPE
    started.append(
        subprocess.Popen(
            command,
            env=environment(devices, **env),
            cwd=cwd,
            text=True,
            errors="backslashreplace",
            stdout=pipe,
            stderr=pipe,
        )
    )
    return started[-1]


def wait_for(process: subprocess.Popen[str], there: Path) -> None:
    """Until the file is there."""
    end = time.monotonic() + LIMIT
    while not there.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{there.name} never came"
        time.sleep(0.002)


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err
