"""The results of a figure: what is missing is run, by several processes where there are cores for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle, islice

import jax

from dopt import cores
from dopt.devices import host
from dopt.figures.files import Part
from dopt.sweeps import plan as planning
from dopt.sweeps.hired import Helper, Start
from dopt.sweeps.jobs import check
from dopt.sweeps.results import Results
from dopt.sweeps.show import Show
from dopt.sweeps.store import Store
from dopt.sweeps.work import sweep


@contextmanager
def helped(todo: Sequence[Part], jobs: int) -> Iterator[None]:
    """While it lasts, `jobs - 1` other processes run what is missing, quietly.

    They begin at the end, or in the middle, and each slab is done by whoever locks it first, so nobody is in another's way.
    """
    missing = [part for part in todo if not is_full(part)] if jobs > 1 else []
    begins = [len(missing) * j // jobs for j in range(2, jobs)]
    orders = [missing[::-1], *([*missing[i:], *missing[:i]] for i in begins)][: jobs - 1] if missing else []
    helpers = []
    try:
        for start, order in zip(_starts(len(orders)), orders, strict=True):
            helpers.append(Helper(start, is_heard=False))
            helpers[-1].tell("fill", *((part.content, str(part.folder.absolute())) for part in order))
        yield
    finally:
        for helper in helpers:
            helper.process.kill()
            helper.end()


def _starts(helpers: int) -> list[Start]:
    """How helpers start: with as many threads as this process, and where that is the command's own, each on its own core, as we do."""
    if not helpers:
        return []
    here, virtual = host.threads(), len(jax.local_devices())
    check(helpers + 1, here)
    every = cores.usable()
    if not cores.is_own():
        return [Start(every, here or 1, virtual)] * helpers
    first, *others = every
    cores.pin([first])
    return [Start([core], virtual, virtual) for core in islice(cycle([*others, first]), helpers)]


def is_full(part: Part) -> bool:
    """Whether all its results are there."""
    store = Store(part.folder)
    plans = {path: store.plan(path) for path in store.plan_paths()}
    return bool(plans) and all(
        store.has(name) for path, plan in plans.items() for name, _ in planning.index(plan, path)
    )


def filled(todo: Mapping[str, Part], show: Callable[[], Show]) -> dict[str, Results]:
    """The results of a figure's parts; what is missing is run."""
    return {
        name: sweep(part.content, results=part.folder, show=show(), extend=part.extend) for name, part in todo.items()
    }
