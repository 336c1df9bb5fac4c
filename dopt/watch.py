"""Work in a thread of its own while the main thread waits for it: Python hears signals in the main thread alone, between two
of its own instructions, and JAX compiles and computes in C++ for minutes.

So Ctrl-C arrives at once, whatever the work is doing. Work that nobody waits for any more stops at its next `check`.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
AT_ONCE: list[Callable[[], object]] = []  # what a signal that ends the command does first: it runs no `finally`
Look = Callable[[int, int], int]  # (calls done, of how many) -> how many to do before looking again

CHUNK = 0.25  # seconds between two looks
WAIT = 0.1  # seconds of one wait; short ones, since not every system wakes a waiting thread for a signal
GRACE = 1.0  # seconds in which abandoned work may end in good order
INTERRUPTED = 130  # exit code
STACK = 2**26  # bytes: a compiler's recursion is deep, and some systems give threads little
# what JAX keeps for each thread by itself, and a caller may have set around us
SETTINGS = (
    *("enable_x64", "default_device", "default_matmul_precision", "default_prng_impl", "threefry_partitionable"),
    *("debug_nans", "debug_infs", "disable_jit", "log_compiles", "numpy_dtype_promotion", "numpy_rank_promotion"),
)


class AbandonedError(BaseException):
    """Nobody waits for this work any more. It is no Exception, so that nobody takes it for a failure of the work."""


class _Work(Generic[T]):
    """What a thread does, and what came of it."""

    def __init__(self, work: Callable[[], T]):
        self.work = work
        self.abandoned = threading.Event()
        self.done = threading.Event()
        self.result: list[T] = []
        self.error: BaseException | None = None
        self.settings = _settings()

    def __call__(self) -> None:
        try:
            _current.set(self)
            with _set(self.settings):
                self.result.append(self.work())
        except BaseException as error:  # the main thread raises it again
            self.error = error
        finally:
            self.done.set()


_current: contextvars.ContextVar[_Work | None] = contextvars.ContextVar("current", default=None)


def in_thread(work: Callable[[], T]) -> T:
    """`work()`, with the caller's context variables and JAX settings; where this is not the main thread, here and now.

    Raises:
      KeyboardInterrupt: as soon as it comes. The work is abandoned: it ends at its next `check`.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    task = _Work(work)
    with _interrupts() as came:
        _start(task)
        try:
            while not (task.done.wait(WAIT) or came):
                pass
        finally:
            if not task.done.is_set():
                _abandon(task)
    if came:
        raise KeyboardInterrupt
    if task.error is not None:
        raise task.error
    return task.result[0]


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """What comes of Ctrl-C while it lasts, where Python's own handler would hear it.

    That one raises wherever the main thread stands, and what is raised in a callback of the garbage collector, as JAX has one, is lost.
    """
    came: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield came
        return
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)


def _start(task: _Work[T]) -> None:
    before = threading.stack_size(STACK)
    try:
        threading.Thread(target=contextvars.copy_context().run, args=(task,), daemon=True, name="dopt").start()
    finally:
        threading.stack_size(before)


def _abandon(task: _Work[T]) -> None:
    """Let it end at its next `check`, or with the process."""
    task.abandoned.set()
    if not task.done.wait(GRACE):
        atexit.register(_leave, task.done)


def _leave(done: threading.Event) -> None:
    """End the process where a session ends before abandoned work does: Python would wait for it, or take it down in a crash."""
    if not done.wait(GRACE):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)


class Aside(Protocol):
    """Takes work, and gives what will come of it."""

    def __call__(self, work: Callable[[], T]) -> Future[T]: ...


@contextmanager
def aside(name: str) -> Iterator[Aside]:
    """A thread of its own that does one thing after the other, with the caller's context variables and JAX settings.

    At the end what has begun is waited for, and what has not is left.
    """
    settings, context = _settings(), contextvars.copy_context()

    def alike(work: Callable[[], T]) -> T:
        with _set(settings):
            return work()

    pool = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        yield lambda work: pool.submit(context.copy().run, alike, work)  # type: ignore[arg-type]
    finally:
        pool.shutdown(cancel_futures=True)


def check() -> None:
    """Stop work that was abandoned."""
    task = _current.get()
    if task is not None and task.abandoned.is_set():
        raise AbandonedError


def pace(tell: Callable[[float], None] = lambda share: None) -> Look:
    """A look between chunks that keeps them about `CHUNK` seconds long, and stops abandoned work."""
    last: list[tuple[float, int]] = []

    def look(done: int, total: int) -> int:
        check()
        now = time.perf_counter()
        tell(done / total)
        size = 1
        if last:
            then, before = last.pop()
            size = min(round(CHUNK * (done - before) / max(now - then, 1e-6)), 4 * (done - before))
        last[:] = [(now, done)]
        return max(1, size)

    return look


def _settings() -> dict[str, object]:
    """JAX's settings of this thread; none where it is not imported yet, since nobody can have set any."""
    if "jax" not in sys.modules:
        return {}
    import jax

    return {name: getattr(jax.config, f"jax_{name}") for name in SETTINGS}


@contextmanager
def _set(settings: dict[str, object]) -> Iterator[None]:
    """JAX's settings of another thread, where this one has others."""
    if not settings:
        yield
        return
    import jax

    with ExitStack() as stack:
        for name, value in settings.items():
            if getattr(jax.config, f"jax_{name}") != value:
                stack.enter_context(getattr(jax, name)(value))
        yield
