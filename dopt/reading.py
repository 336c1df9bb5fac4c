"""The one door to a user's file: its bytes, its text or its array, or one line that says why not.

Only plain files are opened: a FIFO or a device could wait or go on for ever. A file is measured before it is read, and
what is packed grows to a bound only.
"""

from __future__ import annotations

import bz2
import io
import lzma
import math
import os
import stat
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dopt.files import LARGEST, reason
from dopt.types import InputError

PACKED: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),  # 31: with gzip's header and checksum
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lambda: lzma.LZMADecompressor(memlimit=2**28),
}
NUMBERS = "biufc"  # kinds of dtypes


def path_of(what: str, path: str | Path) -> str:
    """The path as a str, if it can be one: a name with a NUL or with half a character can be neither opened nor printed."""
    name = os.fspath(path)
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in name):
        raise InputError(f"{what}: a path must not contain NUL or surrogates, got {name!r}; rename the file")
    return name


def exists(path: str | Path) -> bool:
    """Whether something that is no folder is there; False where nobody may look."""
    return os.path.exists(path) and not os.path.isdir(path)


def read(what: str, path: str | Path, most: int = LARGEST, hint: str = "") -> bytes:
    """The content of a plain file.

    Args:
      what: names the argument in errors.
      most: bytes that the file may have.
      hint: ends the line that says that the file is missing or cannot be read, as in `; give the path of a text`.

    Raises:
      InputError: it is missing, no plain file, too large, or may not be read.
    """
    name = path_of(what, path)
    try:
        # a FIFO without a writer lets a plain open wait for ever
        with open(name, "rb", opener=lambda p, flags: os.open(p, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{what}: {name!r} is not a regular file{hint}")
            if status.st_size > most:
                raise InputError(f"{what}: {name!r} must have at most {most} bytes, got {status.st_size}")
            content = file.read(status.st_size + 1)
    except FileNotFoundError as error:
        raise InputError(f"{what}: no file {name!r}{hint}") from error
    except OSError as error:
        raise InputError(f"{what}: cannot read {name!r} ({reason(error)}){hint}") from error
    if len(content) > status.st_size:  # as those of /proc, whose size nobody knows
        raise InputError(f"{what}: {name!r} grows while it is read; give a file that does not change")
    return content


def text(what: str, path: str | Path, most: int = LARGEST, hint: str = "") -> str:
    """The text of a plain file in UTF-8; its mark of byte order, if there is one, is left out."""
    return decoded(what, read(what, path, most, hint), path)


def decoded(what: str, content: bytes, path: str | Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what}: {str(path)!r} must be UTF-8 text, got byte {error.start} that is not; convert it"
        ) from None


def unpacked(content: bytes, suffix: str, most: int = LARGEST) -> bytes:
    """What is packed by the way of a suffix in `PACKED`; ValueError where it is damaged, cut off or too large."""
    parts: list[bytes] = []
    size = 0
    while content:
        decoder = PACKED[suffix]()
        try:
            part = decoder.decompress(content, most + 1 - size)
        except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError) as error:
            raise ValueError(" ".join(str(error).split())) from error
        size += len(part)
        if size > most:
            raise ValueError(f"it holds more than {most} bytes")
        if not decoder.eof:
            raise ValueError("its end is missing")
        parts.append(part)
        content = decoder.unused_data.lstrip(b"\0")  # files may be filled up with zeros
    return b"".join(parts)


def array(content: bytes) -> np.ndarray:
    """The numbers of a .npy file; ValueError where it is damaged or holds anything else."""
    stream = io.BytesIO(content)
    shape, fortran, dtype = _header(stream)
    if dtype.kind not in NUMBERS:
        raise ValueError(f"it holds {dtype}, not numbers")
    size, left = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if size != left:
        raise ValueError(f"numbers of shape {shape} take {size} bytes, it has {left}")
    return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")


def _header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            version = np.lib.format.read_magic(stream)
            if version not in readers:
                raise ValueError(f"its version {version} is not one that NumPy writes for numbers")
            shape, fortran, dtype = readers[version](stream)
    except Exception as error:  # NumPy's parser of a damaged header raises whatever it meets
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    if min(shape, default=0) < 0:
        raise ValueError(f"no array has the shape {shape}")
    return shape, fortran, dtype
