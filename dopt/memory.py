"""How much memory this process can still get: what the host has free, and what its control group (a container's) leaves of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OF_PROCESS = Path("/proc/self/cgroup")


def available() -> int:
    """Bytes."""
    import psutil

    return max(0, min([int(psutil.virtual_memory().available), *group_rooms(ROOT, OF_PROCESS)]))


def group_rooms(root: Path, of_process: Path) -> list[int]:
    """What each of the process's control groups has left, of version 1 and 2; groups without a limit are left out."""
    return [room for folder in _groups(root, of_process) if (room := _room(folder)) is not None]


def _groups(root: Path, of_process: Path) -> Iterator[Path]:
    """The process's group and those around it: each may have a limit. Lines are `number:controllers:/path`.

    In a container the path may be the host's, which is not there; its own group lies at the root then.
    """
    for line in _text(of_process).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            base = root / "memory"
        elif number == "0" and not controllers:
            base = root
        else:
            continue
        inner = Path(path.lstrip("/"))
        yield from (base / part for part in (inner, *inner.parents))


def _room(folder: Path) -> int | None:
    """Its limit minus what is in use, without the file cache that can be given back; None: no limit."""
    for limit, use, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, used = _text(folder / limit).strip(), _text(folder / use).strip()
        if most.isdecimal() and used.isdecimal():
            counted = dict(line.split() for line in _text(folder / "memory.stat").splitlines() if line.count(" ") == 1)
            given_back = counted.get(cache, "0")
            return int(most) - int(used) + (int(given_back) if given_back.isdecimal() else 0)
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
