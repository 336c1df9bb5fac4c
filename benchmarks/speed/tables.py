"""The tables of this folder's README, made from the JSON beside it: `python -m benchmarks.speed.tables` writes them between its marks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.speed.measure import RESULTS

README = Path(__file__).with_name("README.md")
MARKS = "<!-- tables: python -m benchmarks.speed.tables -->\n", "<!-- end of tables -->\n"
Found = Mapping[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table, or nothing where it has no rows."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return ["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *lines, ""] if lines else []


def number(value: float | None, digits: int = 3) -> str:
    """So many digits that count, without powers of ten; a dash where nobody measured it."""
    if value is None:
        return "–"
    return f"{value:.{digits}g}" if abs(value) < 10 ** (digits - 1) else f"{value:.0f}"


def times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


# -- one machine, one program -----------------------------------------------------------------------------------------


def steps(found: Found) -> list[str]:
    """Rows of `compare` and `contest`: a run and step."""
    events = found.get("asynchronous") or {"rows": []}
    rows = [row for row in found.values() if isinstance(row, dict) and "microseconds_per_run_and_step" in row]
    head = (
        "µs per run and step",
        "dopt",
        "its device's part",
        "by hand",
        "NumPy",
        "to by hand",
        "device's part",
        "compiling",
    )
    return table(
        head,
        [
            [
                row["name"],
                *(number(per.get(who)) for who in ("dopt", "dopt_device", "by_hand", "numpy")),
                spread(row),
                times(row.get("device_ratio")),
                times(row.get("compile_ratio")),
            ]
            for row in [*rows, *(row for row in events["rows"] if row["runs_of_a_slab"] > 1)]
            for per in [row["microseconds_per_run_and_step"]]
        ],
    )


def spread(row: Found) -> str:
    low, high = row["ratio_quartiles"]
    return f"**{times(row['ratio_to_hand_written_jax'])}** ({times(low)} to {times(high)})"


def transformer(row: Found) -> list[str]:
    took = row["microseconds_per_step"]
    return [
        f"A small transformer of 8 simulated workers takes {number(1e-3 * took['dopt'])} ms a step, by hand "
        f"{number(1e-3 * took['by_hand'])}: {spread(row)} times as long; to compile it, {times(row.get('compile_ratio'))}.",
        "",
    ]


def asynchronous(found: Found) -> list[str]:
    rows = [
        [f"a server's events, {runs}", f"{found['events_per_second'][runs]:,.0f} a second", number(over) + " times"]
        for runs, over in found["event_loop_over_dopt"].items()
    ]
    clock = sorted(found["clock_microseconds_per_event"].values())
    kept = found["ringmaster"]
    return [
        *table(("events", "dopt", "a loop over events in Python and NumPy takes"), rows),
        f"The clock needs {number(clock[0], 2)} to {number(clock[-1], 2)} µs an event, by rule. `ringmaster_sgd` on "
        f"{kept['workers']} workers keeps {kept['kept']} old models.",
        "",
    ]


def large_graph(found: Found) -> list[str]:
    return [
        f"A mix on a ring of {found['workers']} workers with {found['dim']} numbers each takes "
        f"{number(1e3 * found['seconds']['neighbours'])} ms; one product with W takes {number(found['dense_over_neighbours'])} times as long.",
        "",
    ]


def host(found: Found) -> list[str]:
    each = found["microseconds_per_run"]
    return [
        *table(("µs of the host per run", *each), [["", *(number(s) for s in each.values())]]),
        f"That is {number(found['all_but_writing'])} µs a run and {number(found['milliseconds_per_slab_written'])} ms a slab: "
        f"{times(found['of_what_it_may_cost'])} of what it may cost. Before the first run, start-up takes {number(found['start_up_seconds'])} s.",
        "",
    ]


def planning(found: Found) -> list[str]:
    took, memory = number(found["seconds"]), number(found["memory_bytes"] / 2**20)
    return [f"Planning {found['runs']} runs (`--dry-run`, whole) takes {took} s and {memory} MiB.", ""]


def store(found: Found) -> list[str]:
    rows = [("`dopt.load`, the first time", found["first_load_seconds"], found["first_load_bytes"])]
    rows += [("`dopt.load`", found["load_seconds"], found["load_bytes"])]
    rows += [(f"`dopt {command}`", one["seconds"], one["bytes"]) for command, one in found["commands"].items()]
    head = f"a folder of {found['runs']} runs of {found['records']} records, in {found['slabs']} slabs"
    return table(
        (head, "seconds", "MiB"), [[what, number(seconds), number(most / 2**20)] for what, seconds, most in rows]
    )


def whole(found: Found) -> list[str]:
    took = found["seconds"]
    rows = [
        [n, number(took[f"dopt, {n}"]), number(took[f"by hand, {n}"]), f"**{times(middle)}**"]
        for n, middle in found["ratio_by_processes"].items()
    ]
    return [
        *table(("the whole main sweep, seconds: processes", "dopt", "by hand", "to by hand"), rows),
        f"Against one hand-written process, dopt with all of its own takes {times(found['jobs_to_one_by_hand'])} times as long.",
        "",
    ]


def slopes(found: Found) -> list[str]:
    rows = [
        [axis, f"{one['sizes'][0]} to {one['sizes'][-1]}", *(times(one["slopes"][who]) for who in one["slopes"])]
        for axis, one in found.items()
    ]
    return table(("log-log slope of time in", "sizes", "dopt", "its device's part", "by hand"), rows)


PARTS: Mapping[str, Callable[[Any], list[str]]] = {
    "transformer": transformer,
    "whole": whole,
    "host": host,
    "planning": planning,
    "store": store,
    "slopes": slopes,
    "asynchronous": asynchronous,
    "large_graph": large_graph,
}


def speed(found: Found, name: str) -> list[str]:
    lines = steps(found)
    for part, said in PARTS.items():
        if found.get(part):
            lines += said(found[part])
    return lines + [f"![Time over size](results/{name}.png)", ""] * ("slopes" in found)


# -- one worker per device --------------------------------------------------------------------------------------------


def devices(found: Found, name: str) -> list[str]:
    methods = [
        [
            f"`{row['method']}`",
            *(number(row["microseconds_per_step"][who]) for who in ("dopt", "by_hand")),
            f"**{times(row['ratio_to_hand_written_pmap'])}**",
            f"{100 * row['share_of_limit']['flops']:.0f} %",
        ]
        for row in found["methods"]
    ]
    scaling = [
        [
            row["kind"],
            row["devices"],
            row["batch_of_each"],
            number(row["microseconds_per_step"]),
            times(row["efficiency"]),
        ]
        for row in found["scaling"]
    ]
    widths = [
        [row["runs"], number(row["microseconds_per_run_and_step"]), f"{100 * row['share_of_bandwidth']:.0f} %"]
        for row in found["widths"]
    ]
    return [
        *table(
            ("µs a step, one worker per device", "dopt", "pmap by hand", "to by hand", "of a product's FLOP/s"), methods
        ),
        *table(("scaling", "devices", "batch of each", "µs a step", "efficiency"), scaling),
        *table(("runs together", "µs per run and step", "of a copy's bytes/s"), widths),
        f"The knee lies at {found['knee']} runs.",
        "",
    ]


def ahead(found: Found, name: str) -> list[str]:
    """Programs that were compiled for a device that was not there."""
    rows, good = found["rows"], [row for row in found["rows"] if "error" not in row]
    known = sum(row["dopt"]["known_trip_counts"] for row in good)
    beside = [
        [
            f"`{row['method']}`",
            *(f"{row['dopt'][kind]} / {row['by_hand'][kind]}" for kind in ("launches_per_step", "launches_per_record")),
        ]
        for row in good
        if "by_hand" in row
    ]
    return [
        f"{len(good)} of {len(rows)} programs compile, {known} of them with known trip counts.",
        "",
        *table(("launches, dopt / by hand", "a step", "a record"), beside),
    ]


def ray(found: Found, name: str) -> list[str]:
    """The driver of a Ray cluster."""
    took = " and ".join(f"{found[who]:.1f} s ({what})" for who, what in (("ours", "dopt"), ("bare", "a bare loop")))
    return [
        f"{found['slabs']} slabs that sleep for a second, on {found['slots']} slots, take {took}: **{found['ratio']:.2f}** times as long (medians).",
        "",
    ]


KINDS: Mapping[str, tuple[str, Callable[[Found, str], list[str]]]] = {
    "": ("against hand-written JAX", speed),
    "devices-": ("one worker per device", devices),
    "ahead-": ("compiled ahead of time", ahead),
    "ray-": ("the driver of a Ray cluster, against a bare loop of its tasks", ray),
}


# -- all of it --------------------------------------------------------------------------------------------------------


def newest(folder: Path) -> Iterator[tuple[str, str, Found]]:
    """(kind, name, what was found): of each kind and device, the file that was measured last."""
    last: dict[tuple[str, str], tuple[str, str, Found]] = {}
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text())
        kind = next((k for k in KINDS if k and path.name.startswith(k)), "")
        before = last.get((kind, found["device"]))
        if before is None or before[2]["date"] <= found["date"]:
            last[kind, found["device"]] = kind, path.stem, found
    order = list(KINDS)
    return iter(sorted(last.values(), key=lambda one: (one[2]["platform"], order.index(one[0]))))


def heading(kind: str, found: Found) -> str:
    many = f"{found['devices']} x " if "devices" in found else ""
    cores = f", {found['threads']} of" if "threads" in found else ","
    where = f"{many}{found['device']}" + (f"{cores} {found['cores']} cores" if "cores" in found else "")
    return f"### {where}: {KINDS[kind][0]} (JAX {found['versions']['jax']}, {found['date']})"


def sections(folder: Path = RESULTS) -> str:
    """All tables."""
    lines = [""]
    for kind, name, found in newest(folder):
        lines += [heading(kind, found), "", *KINDS[kind][1](found, name)]
    return "\n".join(lines) + "\n"


def rewritten(text: str, tables: str) -> str:
    """A README's text with these tables between its marks; ValueError where it lacks them."""
    begin, rest = text.partition(MARKS[0])[::2]
    end = rest.partition(MARKS[1])
    if not end[1]:
        raise ValueError("the README lacks the marks of its tables")
    return begin + MARKS[0] + tables + MARKS[1] + end[2]


def main() -> None:
    README.write_text(rewritten(README.read_text(), sections()))


if __name__ == "__main__":
    main()
