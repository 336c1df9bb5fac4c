"""What `--dry-run` says: groups, slabs, memory, and why runs share a group."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dopt.cli.screen import console

if TYPE_CHECKING:
    import jax

    from dopt.sweeps.plan import Planned
    from dopt.sweeps.spec import Sweep

COLUMNS = ("group", "runs", "slabs", "width", "memory of a slab", "host memory, about", "models kept", "compiled in")
# what is said of a group that is the only one
SAID: tuple[str, ...] = (
    "algorithm",
    "mix",
    "delays",
    "clock",
    "problem",
    "data",
    "workers",
    "steps",
    "batch_size",
    "precision",
    "executor",
)


def show(asked: Sweep, devices: Sequence[jax.Device] | None, folder: str | Path | None = None) -> int:
    """Plan a sweep, and print the plan. `folder`: where its results would lie; what is planned there already is told."""
    from dopt.config import cost
    from dopt.memory import available, size
    from dopt.report.terminal import table
    from dopt.sweeps.work import prepare

    planned = prepare(asked, devices)
    out = console()
    out.print(f"{asked.words()}, {len(planned)} groups", highlight=False)
    rows = []
    for number, p in enumerate(planned):
        memory = "unknown" if p.memory is None else f"{p.memory / 2**20:.1f} MiB"
        host = size(sum(need.bytes for need in cost.needs_of(p.runs, p.width)))
        rows.append([number, len(p.runs), len(p.slabs), p.width, memory, host, p.models, f"{p.compile_seconds:.1f} s"])
    out.print(table("", COLUMNS, rows))
    out.print(f"this host has {size(available())} free", highlight=False)
    for number, p in enumerate(planned):
        reason = _reason(p, planned)
        out.print(f"group {number} has the runs that share {reason}", highlight=False, soft_wrap=True)
    for line in [*_widths(planned), *_held(asked, folder)]:
        out.print(line, highlight=False, soft_wrap=True)
    return 0


def _held(asked: Sweep, folder: str | Path | None) -> list[str]:
    """What of a sweep the plans of a folder hold."""
    from dopt.sweeps.agreement import Held
    from dopt.sweeps.store import Store

    if folder is None:
        return []
    held = Held.read(asked, Store(folder))
    if not held.number:
        return []
    more = f"; {held.hidden} more runs of these plans would be hidden" * bool(held.hidden)
    return [
        f"{held.own} of these {len(asked.runs)} runs are already planned in {folder}, and keep the widths of that plan{more}"
    ]


def _widths(planned: Sequence[Planned]) -> list[str]:
    """Where the widths of groups come from, on an accelerator."""
    from dopt.sweeps.plan import is_fixed

    found = []
    for number, p in enumerate(planned):
        if p.group is not None and not is_fixed(p.group.devices):
            known = p.knee is not None and p.knee.is_last
            why = (
                "as was measured to be best on this device"
                if known
                else "as memory allows: the best width was not measured"
            )
            found.append(f"group {number} is as wide {why}")
    return found


def _reason(p: Planned, planned: Sequence[Planned]) -> str:
    """What the runs of a group share that changes shapes or code; against other groups, what tells it from them."""
    from dopt.engine import TRACED

    mine, keys = json.loads(p.key), [json.loads(other.key) for other in planned]
    if len(planned) > 1:
        names = [name for name in mine if any(key.get(name) != mine[name] for key in keys)]
    else:
        names = [name for name in SAID if mine.get(name) is not None]
    vary = [name for name in TRACED if len(set(map(str, p.runs.values(name)))) > 1]
    shared = ", ".join(f"{name}={mine[name]}" for name in names)
    return f"{shared}; they differ only in values that the program takes as inputs: {', '.join(vary) or 'nothing'}"
