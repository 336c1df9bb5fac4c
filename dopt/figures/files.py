"""The files of figures: what each asks to be run, and at which size.

A figure file is `FOLDER/NAME.py`: a docstring (first line: the paper, its arXiv number, the panel, and the question; a paragraph
that begins with "Differs:" says what is not as in the paper), then

    SWEEPS  part -> a sweep as data, or a sweep file's path from the folder above FOLDER
    FULL    (optional) part -> parameters that `--full` changes towards the paper's own size
    EXTEND  (optional) parts whose grids of learning rates grow where the best one stands at their edge (not at size fast)
    table(results) -> DataFrame   what is drawn; its column `ids` (or `id`) names the runs behind each row
    draw(results) -> Figure       pure: no training, no file names
    claims(results) -> list[Claim]

where `results` maps each part to its `dopt.Results`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from dopt import extras, paths
from dopt.config import Resolved
from dopt.figures.claims import Claim, of_fewer
from dopt.paths import slug
from dopt.registry import did_you_mean
from dopt.sweeps import spec
from dopt.types import InputError

if TYPE_CHECKING:
    import pandas as pd

    from dopt.sweeps.results import Results

    Table = Callable[[Mapping[str, Results]], pd.DataFrame]

ASKED = ("SWEEPS", "table", "draw", "claims")  # of a figure file
SIZES = ("", "fast", "full")
LARGER = 5  # times the seeds, in full size


def shipped() -> Path:
    """The folder of figures that come with dopt. No other is run unless it is named."""
    return paths.shipped("paper_figs")


def available(folder: Path) -> dict[str, Path]:
    """Figure name -> file."""
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


def find(name: str, folder: Path) -> ModuleType:
    """The figure called `name`."""
    known = available(folder)
    if name not in known:
        near = did_you_mean(name, known) if known else "; name their folder"
        raise InputError(f"figures: no figure {name!r} in {folder}{near}")
    location = importlib.util.spec_from_file_location(f"dopt_figure_{slug(name)}", known[name])
    if location is None or location.loader is None:
        raise InputError(f"figures: {known[name]} cannot be loaded")
    module = importlib.util.module_from_spec(location)
    sys.modules[location.name] = module
    location.loader.exec_module(module)
    lacking = [asked for asked in ASKED if not hasattr(module, asked)]
    if lacking:
        raise InputError(
            f"figures: {str(known[name])!r} is not a figure file, since it lacks {', '.join(lacking)}; add them"
        )
    vars(module)["table"] = _once(module.table)  # drawing, claims and data ask for it
    return module


def _once(table: Table) -> Table:
    """The same table, made once for the same results."""
    kept: list[tuple[dict[str, Results], pd.DataFrame]] = []

    def found(results: Mapping[str, Results]) -> pd.DataFrame:
        if not kept or kept[0][0].keys() != results.keys() or any(kept[0][0][k] is not results[k] for k in results):
            kept[:] = [(dict(results), table(results))]
        return kept[0][1].copy()

    return found


def question(module: ModuleType) -> str:
    """The first line of its docstring."""
    return (module.__doc__ or "").strip().split("\n")[0]


class Part(NamedTuple):
    """A sweep of a figure, and where its results lie."""

    content: dict[str, Any]
    folder: Path
    extend: str | None = None  # as `dopt.sweep` takes it


def parts(name: str, module: ModuleType, folder: Path, root: Path, size: str = "") -> dict[str, Part]:
    """The sweeps of a figure at a size; one from a sweep file shares its results with `dopt sweep FILE`."""
    found = {}
    for part, source in module.SWEEPS.items():
        if isinstance(source, Mapping):
            content, place = {"name": f"{name}-{part}", **source}, root / slug(name) / slug(part)
            content["metric"] = {"stays": False, **(source.get("metric") or {})}  # as papers count: the first time
        else:
            path = folder.resolve().parent / source
            content, place = {"name": path.stem, **spec.content_of(path)}, root / slug(path.stem)
        changes = getattr(module, "FULL", {}).get(part, {}) if size == "full" else {}
        grows = (
            part in getattr(module, "EXTEND", ()) and size != "fast"
        )  # a tenth of the seeds cannot say which rate is best
        extend = "learning_rate" if grows else None
        where = place.with_name(f"{place.name}-{size}") if size else place
        found[part] = Part(_sized(content, size, changes), where, extend)
    return found


def _sized(content: dict[str, Any], size: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The sweep with a tenth of its seeds, or `LARGER` times as many."""
    parameters = dict(content["parameters"])
    seeds = parameters.get("seed", {}).get("values")
    if seeds and size == "fast":
        parameters["seed"] = {"values": seeds[: max(1, len(seeds) // 10)]}
    if seeds and size == "full" and len(seeds) > 1:  # one seed: nothing there is drawn by chance, or one is shown
        parameters["seed"] = {"values": list(range(LARGER * len(seeds)))}
    for key, value in changes.items():
        parameters[key] = spec.choice(value)
    return {**content, "parameters": parameters}


def claims_of(name: str, module: ModuleType, results: Mapping[str, Results], folder: Path, size: str) -> list[Claim]:
    """What a figure claims of its results at a size; where `fast` runs fewer seeds, what can be asked of so few."""
    claims: list[Claim] = module.claims(results)
    usual, asked = (parts(name, module, folder, Path(), each) for each in ("", size))
    fewer = size == "fast" and any(asked[part].content != usual[part].content for part in usual)
    return of_fewer(claims) if fewer else claims


def find_run(identity: str, folder: Path) -> Resolved | None:
    """The run of that id among those that figures and sweep files ask for, at any size, the usual one first.

    Raises:
      MissingError: it was found nowhere, and some of them need a package that is not installed.
    """
    unread: extras.MissingError | None = None
    for content in _all_asked(folder):
        try:
            found = spec.parse(content).runs.find(identity)
        except extras.MissingError as error:
            unread = error
            continue
        if found is not None:
            return found
    if unread is not None:
        raise extras.MissingError(f"id: no run {identity!r} among those that can be made here; {unread}")
    return None


def _all_asked(folder: Path) -> Iterator[Any]:
    """Sweep files, then figures' sweeps at their usual size, the smallest, and the largest, which are ten times as many runs."""
    for path in sorted((folder.resolve().parent / "benchmarks").glob("*.yaml")):
        yield spec.content_of(path)
    modules = {name: find(name, folder) for name in available(folder)}
    for size in SIZES:
        for name, module in modules.items():
            yield from (part.content for part in parts(name, module, folder, Path(), size).values())
