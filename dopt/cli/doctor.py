"""`dopt doctor`: versions, devices, memory, data, W&B, results folder; and messages between devices, measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dopt.cli import devices
from dopt.cli.command import Command, Parser, Values, folder
from dopt.cli.screen import console, short
from dopt.extras import EXTRAS
from dopt.types import InputError, MachineError
from dopt.version import described, installed

if TYPE_CHECKING:
    import jax

PACKAGES = (
    "jax",
    "jaxlib",
    "optax",
    "flax",
    "networkx",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pyarrow",
    "wandb",
)


class Finding(NamedTuple):
    """What was looked at, what was found, and whether something is wrong with it."""

    what: str
    found: str
    is_fault: bool = False


def add_flags(parser: Parser) -> None:
    """What `dopt doctor` takes."""
    parser.add_argument(
        "--results", type=folder, default="results", metavar="DIR", help="results folder to check (default: results)"
    )
    parser.add_argument(
        "--devices", type=int, metavar="N", help="how many devices to check (default: all); on a CPU, N virtual ones"
    )
    parser.add_argument(
        "--collectives",
        action="store_true",
        help="measure the speed of messages between devices, and write it to --out",
    )
    parser.add_argument(
        "--out",
        default="cluster.json",
        metavar="FILE",
        help="file for --collectives, to be read by cluster.links (default: cluster.json)",
    )


def run(args: argparse.Namespace, _: Values) -> int:
    """Print what was found; 1 where something is wrong."""
    return _measure(args) if args.collectives else _examine(args)


def _examine(args: argparse.Namespace) -> int:
    from dopt.report.terminal import table

    findings = [*_versions(), *_devices(_used(args.devices)), *_data(), _login(), _results(args.results)]
    console().print(table("", ["what", "found"], [(f.what, f.found) for f in findings]))
    return int(any(f.is_fault for f in findings))


def _used(count: int | None) -> Sequence[jax.Device]:
    import jax

    return devices.of(count) or jax.devices()


def _versions() -> list[Finding]:
    own = [Finding("dopt", described()), Finding("python", platform.python_version())]
    needed = [Finding(name, installed(name) or "missing") for name in PACKAGES]
    optional = [
        Finding(name, installed(name) or f"not installed; pip install 'dopt[{extra}]'")
        for name, (_, extra) in EXTRAS.items()
    ]
    return own + needed + optional


def _devices(used: Sequence[jax.Device]) -> list[Finding]:
    from dopt.devices.memory import device_memory

    memory = device_memory(used[0])
    return [
        Finding("devices", f"{len(used)} x {used[0].device_kind} ({used[0].platform})"),
        Finding("memory for a slab", "unknown" if memory is None else f"{memory / 2**30:.1f} GiB"),
    ]


def _data() -> list[Finding]:
    from dopt.data.files import cache_folder

    return [_own_data(os.environ.get("DOPT_DATA_DIR")), Finding("cache", str(cache_folder()))]


def _own_data(folder: str | None) -> Finding:
    """The user's own folder of data."""
    if not folder:
        return Finding("data", "DOPT_DATA_DIR is not set; digits come with scikit-learn, other data are downloaded")
    if not Path(folder).is_dir():
        return Finding("data", f"{folder} is not a folder", is_fault=True)
    return Finding("data", f"{folder} ({len(list(Path(folder).iterdir()))} files)")


def _login() -> Finding:
    from dopt.sweeps.tracking import login_status

    return Finding("W&B", login_status())


def _results(folder: str) -> Finding:
    from dopt.sweeps.store import Store

    try:
        Store(folder).check_writable()
    except MachineError as error:
        return Finding("results", str(error), is_fault=True)
    return Finding("results", f"{folder} can be written")


def _measure(args: argparse.Namespace) -> int:
    """Measured messages as a table, and a file of them for `cluster.links`."""
    path = Path(args.out)
    if not path.resolve().parent.is_dir():  # said before minutes of measuring
        raise InputError(f"out: no folder {str(path.parent)!r}; choose another file")
    from dopt import files
    from dopt.devices import collectives
    from dopt.report.terminal import table

    used = _used(args.devices)
    measured = collectives.measure(used)
    rows: list[list[Any]] = [
        [name, *(f"{1e6 * s:.1f}" for s in m.seconds), f"{1e6 * m.latency:.2f}", f"{m.bandwidth / 1e9:.3g}"]
        for name, m in measured.items()
    ]
    sizes = [f"{size // 1024} KiB (µs)" for size in next(iter(measured.values())).sizes]
    out = console()
    title = f"{len(used)} x {used[0].device_kind}"
    out.print(table(title, ["collective", *sizes, "latency (µs)", "bandwidth (GB/s)"], rows))
    with files.writing("out", path, "--out"):
        files.write(path, json.dumps(collectives.to_dict(measured, used), indent=1) + "\n")
    out.print(f"wrote {short(path)}, for cluster.links", highlight=False, soft_wrap=True)
    return 0


EXAMPLES = ("dopt doctor", "dopt doctor --devices 4 --collectives")
COMMAND = Command(
    "check versions, devices, memory, data, W&B and the results folder",
    add_flags,
    run,
    examples=EXAMPLES,
    fails="something is wrong",
)
