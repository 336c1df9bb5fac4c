"""Where a data file lies: the user's folder DOPT_DATA_DIR, else the cache, else its official page.

What lies in DOPT_DATA_DIR is the user's own and is used as it is. The cache (DOPT_CACHE_DIR, else the user's cache
folder of dopt) is ours: every file in it is checked against its sha256 whenever it is read. Where nobody published one,
the sha256 of the first download (or of a file that somebody put there) is recorded beside it as `<name>.sha256`, and
later reads and downloads must match it: that catches damage and silent changes, but cannot vouch for the first one.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from dopt import reading
from dopt.files import write
from dopt.types import InputError


def read_bytes(path: Path) -> bytes:
    return reading.read("data", path)


def place(name: str) -> Path:
    """Where the file `name` lies, or would lie once it is fetched."""
    return _own(name) or cache_folder() / name


def _own(name: str) -> Path | None:
    """The file in the user's folder, if it is there."""
    own = own_folder()
    return own / name if own and reading.exists(own / name) else None


def unpack(path: Path) -> bytes:
    """The content of a .gz file; InputError, naming the file, where it is cut off or damaged."""
    content = read_bytes(path)
    try:
        return reading.unpacked(content, ".gz")
    except ValueError as error:
        raise InputError(f"data: {path} is truncated or damaged ({error}); delete it to fetch it again") from error


def own_folder() -> Path | None:
    """The user's folder of data, where one is given."""
    given = os.environ.get("DOPT_DATA_DIR")
    return Path(os.path.expanduser(given)) if given else None  # a user that is not known stays as written


def cache_folder() -> Path:
    given = os.environ.get("DOPT_CACHE_DIR")
    if given:
        return Path(os.path.expanduser(given))
    from platformdirs import user_cache_path

    return user_cache_path("dopt")


def find(name: str, url: str, sha256: str | None = None, read: Callable[[Path], bytes] = read_bytes) -> Path:
    """Path of the file `name`, fetched from `url` if it is nowhere yet.

    Args:
      name: the file's name, the same in all three places.
      url: its full official address.
      sha256: of the bytes that `read` gives; None: published by nobody, see the module.
      read: the bytes that are checked; `unpack` for files whose packing differs from copy to copy.
    """
    mine = _own(name)
    if mine is not None:
        return mine
    path, own = cache_folder() / name, os.environ.get("DOPT_DATA_DIR")
    if reading.exists(path):
        verify(path, path, sha256, read)
        return path
    try:
        fetch(path, url, sha256, read)
    except (OSError, ImportError, InputError) as error:
        reason = " ".join(str(error).split())  # HTTP libraries like to write several lines
        where = f"DOPT_DATA_DIR={own}" if own else "DOPT_DATA_DIR (not set)"
        raise InputError(
            f"data: {name} not found in {where} and could not be fetched ({reason}); "
            f"download {url} and set DOPT_DATA_DIR to its folder"
        ) from error
    return path


def fetch(path: Path, url: str, sha256: str | None, read: Callable[[Path], bytes]) -> None:
    """Download `url` to `path`, which appears only when whole and checked: several processes may do so at once."""
    import pooch  # type: ignore[import-untyped, unused-ignore]

    pooch.get_logger().setLevel("WARNING")  # one line of ours says what fails
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        # pooch can check packed bytes only, so the check is ours
        arrived = Path(pooch.retrieve(url, known_hash=None, fname=path.name, path=folder))
        verify(arrived, path, sha256, read)
        os.replace(arrived, path)


def verify(content: Path, path: Path, sha256: str | None, read: Callable[[Path], bytes]) -> None:
    """InputError unless `content`, which is or becomes `path`, has the published sha256, or else the recorded one."""
    found = hashlib.sha256(read(content)).hexdigest()
    record = path.with_name(f"{path.name}.sha256")
    if sha256 is None and not reading.exists(record):
        write(record, f"{found}\n")
        return
    expected = sha256 or reading.text("data", record).strip()
    if found != expected:
        where = path if content == path else "the download"
        mend = f"delete {path} to fetch it again" if content == path else "try again later"
        if sha256 is None:
            mend += f", and {record} if the change is known and wanted"
        raise InputError(f"data: {where} has sha256 {found}, expected {expected}; {mend}")
