"""Files: one appears under its name when it is whole, or not at all (whatever dopt writes goes through `whole`); and digests."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path

from dopt.text import quoted
from dopt.types import InputError, MachineError

TEMPORARY = ".tmp-"
LARGEST = 2**29  # bytes of a file that is read
SETTLED = 2.0  # seconds after which the next change of a file shows in its time stamp for sure


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A path to write to, with the same ending; what is there in the end takes the place of `path`.

    Raises:
      InputError: no file can have that name.
      MachineError: the file cannot be written; nothing is left of it, and what was there before is still there.
    """
    check_name("path", path)
    path = Path(path)
    temporary = path.with_name(f"{_stem(path)}{os.getpid()}{path.suffix[:16]}")
    try:
        _clean(path)
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, MachineError):
            raise MachineError(f"cannot write {str(path)!r} ({reason(error)})") from error
        raise


@contextmanager
def writing(argument: str, place: str | Path, flag: str) -> Iterator[None]:
    """Say which argument names the place that cannot be written, and which flag chooses another.

    Raises:
      InputError: the place has a name that no file can have.
      MachineError: it cannot be written.
    """
    check_name(argument, place, f"; choose another place with {flag}")
    try:
        yield
    except OSError as error:
        why = error if isinstance(error, MachineError) else f"cannot write to {str(place)!r} ({reason(error)})"
        raise MachineError(f"{argument}: {why}; choose another place with {flag}") from error


def check_name(argument: str, place: str | Path, hint: str = "; choose another name") -> None:
    """InputError where no file can have that name."""
    if not isinstance(place, str | os.PathLike):
        raise InputError(f"{argument}: must be a path, got {quoted(place)} ({type(place).__name__})")
    if not _can_be_named(place):
        raise InputError(f"{argument}: a path must not contain NUL or surrogates, got {quoted(str(place))}{hint}")


def _can_be_named(place: str | Path) -> bool:
    try:
        return b"\0" not in os.fsencode(place)
    except UnicodeEncodeError:  # of a surrogate that stands for no byte
        return False


def is_writable(folder: str | Path) -> bool:
    """Whether files can be put into the folder, or where it would be made."""
    near = next((path for path in (Path(folder), *Path(folder).parents) if path.exists()), Path())
    return os.access(near, os.W_OK)


def write(path: str | Path, content: str | bytes) -> None:
    """The file with this content; text in UTF-8."""
    with whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def digest(path: str | Path) -> str:
    """sha256 of a file, computed once for each state that it was in; OSError where it cannot be read, or is no file."""
    state = os.stat(path)
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "it is not a file")
    if state.st_size > LARGEST:
        raise OSError(errno.EFBIG, f"it has {state.st_size} bytes, more than {LARGEST}")
    if time.time() - max(state.st_mtime, state.st_ctime) < SETTLED:
        return _sha256(path)
    return _digest(os.path.abspath(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


def content(path: str | Path) -> str:
    """As `digest`; nothing of a file that cannot be read, of which its reader says why."""
    try:
        return digest(path)
    except (OSError, ValueError):
        return ""


@lru_cache(maxsize=4096)
def _digest(path: str, *state: int) -> str:
    return _sha256(path)


def _sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(paths: Sequence[Path]) -> None:
    """Wait until all of them are on the disk. It is asked for all at once: one after the other, each waits for the disk anew."""
    list(_waiting().map(sync, paths))


@cache
def _waiting() -> ThreadPoolExecutor:
    """Threads that wait for the disk. They are kept, since to start them takes longer than to ask."""
    return ThreadPoolExecutor(4, "sync")


def reason(error: OSError) -> str:
    """What the machine said, in one line."""
    return " ".join((error.strerror or str(error)).split()) or type(error).__name__


def alive(process: int) -> bool:
    """Whether a process of this machine has that number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _stem(path: Path) -> str:
    """How unfinished files begin that are to become `path`; other machines may share the folder, but not its processes."""
    return f"{TEMPORARY}{hashlib.sha256(f'{platform.node()}/{path.name}'.encode(errors='surrogateescape')).hexdigest()[:12]}-"


def _clean(path: Path) -> None:
    """Remove what processes left behind that were killed while they wrote the same file."""
    stem = _stem(path)
    for old in path.parent.glob(f"{stem}*"):
        owner = old.name.removeprefix(stem).partition(".")[0]
        if owner.isdecimal() and not alive(int(owner)):
            old.unlink(missing_ok=True)
