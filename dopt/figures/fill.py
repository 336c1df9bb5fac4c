"""The results of a figure: what is missing is run, by several processes where there are cores for them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import cycle, islice

from dopt import cores
from dopt.figures.files import Part
from dopt.sweeps.jobs import deaf
from dopt.sweeps.results import Results
from dopt.sweeps.show import Show
from dopt.sweeps.store import Store
from dopt.sweeps.work import sweep
from dopt.types import InputError


def _help(todo: Sequence[Part], core: int | None) -> None:
    """Run sweeps, quietly: whatever goes wrong, whom it helps will find and tell it.

    Args:
      core: where it runs, on one thread; None: as the system likes.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if core is not None:
        cores.pin([core])
    with cores.own() if core is not None else nullcontext(), suppress(InputError, OSError, MemoryError):
        for part in todo:
            sweep(part.content, results=part.folder)


def _end_with_parent() -> None:
    """Whom it helps may be killed, and then nobody ends the helper."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def helped(todo: Sequence[Part], jobs: int) -> Iterator[None]:
    """While it lasts, `jobs - 1` other processes run what is missing.

    They begin at the end, or in the middle, and each slab is done by whoever locks it first, so nobody is in another's way.
    The command and its helpers have one thread and one core each.
    """
    spawn = multiprocessing.get_context("spawn")
    missing = [part for part in todo if not is_full(part)] if jobs > 1 else []
    begins = [len(missing) * j // jobs for j in range(2, jobs)]
    orders = [missing[::-1], *([*missing[i:], *missing[:i]] for i in begins)][: jobs - 1] if missing else []
    where = _pinned(len(orders))
    helpers = [spawn.Process(target=_help, args=each, daemon=True) for each in zip(orders, where, strict=True)]
    with deaf():
        for helper in helpers:
            helper.start()
    try:
        yield
    finally:
        for helper in helpers:
            helper.terminate()
            helper.join()


def _pinned(helpers: int) -> list[int | None]:
    """Cores of helpers, of the command's own process, which takes one itself; none where there are no helpers to tell it from."""
    if not helpers or not cores.is_own():
        return [None] * helpers
    first, *others = cores.usable()
    cores.pin([first])
    return list(islice(cycle([*others, first]), helpers))


def is_full(part: Part) -> bool:
    """Whether all its results are there."""
    store = Store(part.folder)
    plan = store.plan()
    return plan is not None and all(store.slab(s["name"]).exists() for group in plan["groups"] for s in group["slabs"])


def filled(todo: Mapping[str, Part], show: Callable[[], Show]) -> dict[str, Results]:
    """The results of a figure's parts; what is missing is run."""
    return {name: sweep(part.content, results=part.folder, show=show()) for name, part in todo.items()}
