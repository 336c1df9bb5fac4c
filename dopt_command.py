"""The command `dopt` from its first moment on: SIGINT and SIGTERM end it at once, in every phase, with one line that says what is kept.

Nothing is lost by it: whatever dopt writes appears under its name when it is whole. Signals come while modules are imported,
too, which takes seconds: so this one imports nothing but Python's own.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

OBJECTS = 50_000  # made and not freed, after which Python looks for garbage; by default 700


def main() -> int:
    """The command, with the arguments of the process."""
    with ends_at_once(sys.argv[1:]), seldom_collected():
        for stream in (sys.stdout, sys.stderr):
            if isinstance(
                stream, io.TextIOWrapper
            ):  # so that no signal loses a line, and no name is one that cannot be printed
                stream.reconfigure(line_buffering=True, errors="backslashreplace")
        from dopt.cli import main as command

        return command()


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for garbage seldom, and at the end for none, since all of it goes.

    What is imported and traced is a million objects that stay; to look through them again and again takes a fifth of the time.
    """
    gc.set_threshold(OBJECTS)
    try:
        yield
    finally:
        gc.freeze()


@contextmanager
def ends_at_once(arguments: Sequence[str]) -> Iterator[None]:
    """While it lasts, a signal ends the process with code 130 or 143. Only the main thread can hear, so elsewhere nothing changes.

    The work must be done by another thread (`dopt.watch`), or a long call into C++ holds the signal back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    line = f"dopt: interrupted{kept(arguments)}\n".encode()

    def end(number: int, frame: Any) -> None:
        for last in getattr(sys.modules.get("dopt.watch"), "AT_ONCE", ()):
            last()
        # a progress display may have hidden the cursor, and stands in the middle of a line
        os.write(2, b"\x1b[?25h\n" + line if os.isatty(2) else line)
        os._exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def kept(arguments: Sequence[str]) -> str:
    """What an interrupted command keeps, in words."""
    command = next(iter(arguments), "")
    if command in ("sweep", "merge", "figures"):
        return "; finished work is kept, and the same command continues from there"
    if command != "run":
        return ""
    if any(word.startswith("--checkpoint-every") for word in arguments):
        return "; its last checkpoint is kept, and the same command continues from there"
    return "; a single run keeps nothing without --checkpoint-every"
