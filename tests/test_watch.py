"""Work in a thread of its own: it sees what its caller sees, and the caller hears signals while it lasts."""

from __future__ import annotations

import contextvars
import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from dopt import Coordination, cluster, schedule, watch
from dopt.watch import AbandonedError, check, in_thread, pace
from dopt_command import kept

WORD: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")


def later(seconds: float, act: Callable[[], None]) -> None:
    threading.Timer(seconds, act).start()


def interrupt_after(seconds: float) -> None:
    later(seconds, lambda: os.kill(os.getpid(), signal.SIGINT))


def test_work_is_done_by_another_thread_and_its_result_and_errors_come_back() -> None:
    assert in_thread(threading.get_ident) != threading.get_ident()

    def fail() -> None:
        raise KeyError("this")

    with pytest.raises(KeyError, match="this"):
        in_thread(fail)


def test_work_within_work_needs_no_other_thread() -> None:
    assert in_thread(lambda: in_thread(threading.get_ident) == threading.get_ident())


def test_work_sees_the_settings_and_context_of_its_caller() -> None:
    WORD.set("mine")
    device = jax.devices()[-1]
    with jax.enable_x64(True), jax.default_matmul_precision("highest"), jax.default_device(device):
        seen = in_thread(lambda: (jnp.ones(2), jax.config.jax_default_matmul_precision, WORD.get()))
    assert (seen[0].dtype, seen[0].devices(), *seen[1:]) == (jnp.float64, {device}, "highest", "mine")
    assert in_thread(lambda: jnp.ones(2).dtype) == jnp.float32  # and nothing of it stays


def test_all_settings_that_are_carried_over_exist_in_this_jax() -> None:
    for name in watch.SETTINGS:
        assert hasattr(jax.config, f"jax_{name}")
        assert callable(getattr(jax, name))


def test_an_interrupt_arrives_while_work_lasts_that_never_listens() -> None:
    interrupt_after(0.3)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        in_thread(lambda: time.sleep(4))
    assert time.monotonic() - begin < 2


def test_an_interrupt_is_not_lost_that_comes_while_the_garbage_collector_calls_back() -> None:
    came: list[float] = []
    waited = threading.Event()

    def callback(phase: str, info: dict[str, int]) -> None:
        if waited.is_set() and threading.current_thread() is threading.main_thread() and not came:
            came.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    def work() -> None:
        time.sleep(0.2)
        waited.set()
        time.sleep(4)

    before = gc.get_threshold()
    gc.callbacks.append(callback)
    gc.set_threshold(1)
    try:
        with pytest.raises(KeyboardInterrupt):
            in_thread(work)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(callback)
    assert time.monotonic() - came[0] < 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_somebody_else_hears_is_theirs() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        interrupt_after(0.1)
        assert in_thread(lambda: time.sleep(0.3)) is None
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]


def test_abandoned_work_ends_at_its_next_look_and_before_the_interrupt_is_seen() -> None:
    ended: list[Any] = []

    def work() -> None:
        look = pace()
        try:
            for done in range(10**6):
                time.sleep(0.01)
                look(done, 10**6)
        except AbandonedError as error:
            ended.append(error)
            raise

    interrupt_after(0.3)
    with pytest.raises(KeyboardInterrupt):
        in_thread(work)
    assert len(ended) == 1


def test_a_clock_that_nobody_waits_for_any_more_stops() -> None:
    machines, how = cluster.make("pareto", 16, seed=0), Coordination(slack=3)
    before = set(threading.enumerate())  # some of other tests, which sleep
    interrupt_after(0.5)
    with pytest.raises(KeyboardInterrupt):
        in_thread(lambda: schedule.arrivals(machines, how, steps=10**7))
    assert "dopt" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_work_that_is_waited_for_goes_on() -> None:
    check()
    in_thread(check)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep", "file.yaml"], "finished work is kept"),
        (["figures"], "finished work is kept"),
        (["run", "--steps", "5"], "keeps nothing"),
        (["run", "--checkpoint-every=5"], "checkpoint is kept"),
        (["list"], ""),
        ([], ""),
    ],
)
def test_the_line_says_what_is_kept(arguments: list[str], said: str) -> None:
    assert said in kept(arguments)
    assert bool(said) == bool(kept(arguments))
