"""A Slurm of one node on this machine, with daemons and a key of its own: without systemd, and without other rights than one has."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from ports import free_port
from required import require

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "squeue")
PLACES = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # a daemon need not be on the PATH of a user
LIMIT = 180.0  # seconds, on a busy machine

# cred_expire: a requeued job waits for so long. config_overrides: more tasks at once than this machine may have cores
CONFIGURATION = """
ClusterName=dopt
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerType=sched/builtin
ReturnToService=2
KillWait=5
NodeName=here NodeHostname=localhost NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=here Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm(cpus: int) -> Iterator[dict[str, str]]:
    """While it lasts there is a Slurm, of a node with so many cores; yields the environment of who uses it."""
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=PLACES) is None]
    if lacking:
        require("slurm", f"{', '.join(lacking)} not found (Debian: slurm-wlm, munge)")
    folder = Path(tempfile.mkdtemp(prefix="dopt-slurm-"))  # a short name: a socket's has at most 107 characters
    env = os.environ | {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": PLACES}
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        _configure(folder, cpus)
        munge = [f"--{name}={folder}/{name}" for name in ("key-file", "pid-file", "log-file", "seed-file")]
        daemons.append(_daemon(folder, ["munged", "--foreground", "--force", *munge, f"--socket={folder}/munge"], env))
        wait(lambda: (folder / "munge").exists(), "munged", folder)
        daemons.append(_daemon(folder, ["slurmctld", "-D", "-c"], env))
        daemons.append(_daemon(folder, ["slurmd", "-D", "-N", "here"], env))
        wait(lambda: _is_idle(env), "an idle node", folder)
        yield env
    finally:
        _end_all_of(folder)
        for daemon in daemons:
            daemon.wait(LIMIT)
        shutil.rmtree(folder)


def _configure(folder: Path, cpus: int) -> None:
    key = folder / "key-file"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(1024))
    for part in ("state", "spool"):
        (folder / part).mkdir()
    values = {"folder": folder, "user": getpass.getuser(), "cpus": cpus}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(controller=free_port(), node=free_port(), **values))


def _daemon(folder: Path, command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    with (folder / f"{command[0]}.log").open("wb") as log:
        return subprocess.Popen(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def _end_all_of(folder: Path) -> None:
    """Daemons, and the jobs that they started: whatever knows this Slurm by its environment. First they may end their own children."""
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for process in (ours := _all_of(folder)):
            with suppress(psutil.NoSuchProcess):
                end(process)
        psutil.wait_procs(ours, timeout=5)


def _all_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # of others, and of those that have ended, it is not said
            if process.environ().get("SLURM_CONF") == f"{folder}/slurm.conf":
                found.append(process)
    return found


def _is_idle(env: dict[str, str]) -> bool:
    """Whether the node waits for work; False also while nobody answers."""
    with suppress(subprocess.CalledProcessError):
        return said(env, "sinfo", "--noheader", "--format=%T").strip() == "idle"
    return False


def said(env: dict[str, str], *command: str) -> str:
    """What one of Slurm's commands prints; CalledProcessError where it fails."""
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=LIMIT).stdout


def wait(true: Callable[[], bool], what: str, logs: Path) -> None:
    """Until it is true; else what was printed into the folder of logs meanwhile is shown."""
    end = time.monotonic() + LIMIT
    while not true():
        if time.monotonic() > end:
            last = [
                f"-- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in sorted(logs.glob("*.log"))
            ]
            raise AssertionError("\n".join([f"{what}: not within {LIMIT:.0f} s", *last]))
        time.sleep(0.05)
