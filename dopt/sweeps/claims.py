"""Claims: who works on what, among processes of any hosts that share a folder.

A claim is a file that is made exclusively, so that one process alone makes it. Its one line says who holds it, and has a counter
that the holder moves every few seconds. Nothing else is asked of a file system: no locks, which many network file systems lack.

A claim whose holder died is taken over: at once where it was a process of this host, else when its counter has not moved for a
while by the observer's own clock. Clocks of two hosts are never compared. A holder that was only stopped, or cut off, does its work
to the end beside the one that took over, so what is claimed must be something that may be done twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dopt.files import alive, reason
from dopt.paths import slug
from dopt.sweeps import seal
from dopt.types import MachineError
from dopt.watch import check

BEAT = 5.0  # seconds between two moves of a counter
STALE = 60.0  # seconds without a move, after which a claim is taken over
WAIT = 0.05  # seconds between two looks at a claim that is waited for
SUFFIX = ".claim"


class Claim(NamedTuple):
    """A claim, as its file says it.

    Attributes:
      name: what is claimed, as it stands in the file's name.
      node: the name of the host.
      system: which of all systems of that name: its boot, and the space in which it numbers processes. A container has its own.
      pid: the process that holds it.
      started: what tells this process from another one that gets its number later; None where the system does not say.
      since: when it was made, by the clock of its host, in seconds since 1970; for people to read, and compared with nothing.
      beats: its counter.
    """

    name: str
    node: str
    system: str
    pid: int
    started: int | None
    since: float
    beats: int

    @property
    def is_dead(self) -> bool:
        """Whether its process ended; False also where nobody on this host can tell."""
        if (self.node, self.system) != _here():
            return False
        if not alive(self.pid):
            return True
        state, started = _state(self.pid)
        return state in ("Z", "X") or (started is not None and self.started not in (None, started))


def held(folder: Path) -> list[Claim]:
    """All claims in a folder that can be read; nothing is written.

    Raises:
      MachineError: the folder cannot be read.
    """
    try:
        found = [(path, _read(path)) for path in sorted(folder.glob(f"*{SUFFIX}"))]
    except OSError as error:
        raise MachineError(f"results: cannot read {str(folder)!r} ({reason(error)})") from error
    claims = [_parsed(path, line) for path, line in found if line is not None]
    return [claim for claim in claims if claim is not None]


class Claims:
    """The claims in a folder, as this process holds and watches them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._watched: dict[Path, tuple[bytes, float]] = {}  # of others: its line, and when we first read it
        self._mine: set[_Own] = set()
        self._lock = threading.Lock()  # one thread claims, another gives back, a third one moves the counters
        self._beating = False

    @contextmanager
    def claim(self, name: str, wait: bool) -> Iterator[bool]:
        """Hold the claim `name` (True), or find it held by another one (False; never where `wait`).

        Raises:
          MachineError: the folder cannot be written, or its file system makes no file exclusively.
        """
        mine = self._claimed(self.folder / f"{slug(name)}{SUFFIX}", wait)
        if mine is None:
            yield False
            return
        self._keep(mine)
        try:
            yield True
        finally:
            with self._lock:
                self._mine.discard(mine)
            mine.give_back()

    def _claimed(self, path: Path, wait: bool) -> _Own | None:
        try:
            while (mine := self._try(path)) is None and wait:
                check()
                time.sleep(WAIT)
        except OSError as error:
            raise MachineError(
                f"results: cannot lock {str(path)!r} ({reason(error)}); choose a folder on another file system with --results"
            ) from error
        return mine

    def _try(self, path: Path) -> _Own | None:
        """The claim, where nobody holds it, or nobody any more."""
        line = _read(path)
        if line is None:
            self._watched.pop(path, None)
            self.folder.mkdir(exist_ok=True)
            return _made(path)
        if not self._is_stale(path, line):
            return None
        # to take it over is claimed, too, so that of all who find it stale one alone does; whoever dies at it is followed likewise
        successor = self._try(path.with_name(f"{path.name}.{hashlib.sha256(line).hexdigest()[:16]}"))
        if successor is None:
            return None
        if _read(path) != line:  # another one was faster, or its holder goes on
            successor.give_back()
            return None
        successor.move(path)
        self._watched.pop(path, None)
        return successor

    def _is_stale(self, path: Path, line: bytes) -> bool:
        """Whether its holder is no more, as far as this process can tell by now."""
        claim, now = _parsed(path, line), time.monotonic()
        if claim is not None and claim.is_dead:
            return True
        before, since = self._watched.get(path, (None, now))
        if before != line:
            self._watched[path] = line, now
            return False
        return now - since >= (BEAT if claim is None else STALE)  # killed before it wrote what takes no time to write

    def _keep(self, claim: _Own) -> None:
        """Move its counter from now on, until it is given back."""
        with self._lock:
            self._mine.add(claim)
            if not self._beating:
                self._beating = True
                threading.Thread(target=self._beat, daemon=True, name="claims").start()

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            with self._lock:
                claims = list(self._mine)
                self._beating = bool(claims)
            if not claims:
                return
            for claim in claims:
                claim.beat()


class _Own:
    """A claim of this process."""

    def __init__(self, path: Path):
        self.path, self.beats = path, 0
        node, system = _here()
        pid = os.getpid()
        said = {"token": secrets.token_hex(8), "node": node, "system": system, "pid": pid, "started": _state(pid)[1]}
        self.begin = json.dumps({**said, "since": time.time()})[:-1].encode()

    @property
    def line(self) -> bytes:
        """Always of the same length, so that whoever reads it while it is written reads a line of ours."""
        return self.begin + f', "beats": {self.beats:12d}}}\n'.encode()

    def beat(self) -> None:
        """Move the counter, if the claim is still ours; where it cannot be moved, another process will take over."""
        self.beats += 1
        with (
            suppress(OSError),
            open(self.path, "r+b", buffering=0) as file,
        ):  # closed each time, or NFS would keep it back
            if file.read().startswith(self.begin):
                file.seek(0)
                file.write(self.line)

    def move(self, path: Path) -> None:
        """Take the place of another claim."""
        self.path = self.path.replace(path)

    def give_back(self) -> None:
        """Remove the claim, if it is still ours; one that cannot be removed stands still, and will be taken over."""
        with suppress(OSError):
            line = _read(self.path)
            if line is not None and line.startswith(self.begin):
                self.path.unlink()


def _made(path: Path) -> _Own | None:
    """A claim that was not there; None: another process was faster."""
    claim, is_ours = _Own(path), False
    try:
        with open(path, "xb") as file:
            is_ours = True
            file.write(claim.line)
    except FileExistsError:
        return None
    except OSError:
        if is_ours:  # the disk is full
            path.unlink(missing_ok=True)
        raise
    return claim


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _parsed(path: Path, line: bytes) -> Claim | None:
    """What the file says; None: it is no claim, or not yet a whole one."""
    try:
        match seal.parse(line):
            case {
                "node": str(node),
                "system": str(system),
                "pid": int(pid),
                "started": int() | None as started,
                "since": float(since),
                "beats": int(beats),
            }:
                return Claim(path.name.removesuffix(SUFFIX), node, system, pid, started, since, beats)
    except ValueError:
        pass
    return None


@cache
def _here() -> tuple[str, str]:
    """(name, system) of this host, as in `Claim`."""
    found = []
    with suppress(OSError):
        found.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        found.append(os.readlink("/proc/self/ns/pid"))
    return platform.node(), " ".join(found)


def _state(pid: int) -> tuple[str, int | None]:
    """(state, start in ticks since the boot) of a process of this host; ("", None) where the system does not say."""
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # it counts processes of another space than ours
            return "", None
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError):
        return "", None
