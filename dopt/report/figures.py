"""Figures: what a picture needs to be run, its drawing, and the claims that it must show.

A figure file is `FOLDER/NAME.py`: a docstring (first line: the paper, its arXiv number, the panel, and the question; a paragraph
that begins with "Differs:" says what is not as in the paper), then

    SWEEPS  part -> a sweep as data, or a sweep file's path from the folder above FOLDER
    FULL    (optional) part -> parameters that `--full` changes towards the paper's own size
    table(results) -> DataFrame   what is drawn; its column `ids` (or `id`) names the runs behind each row
    draw(results) -> Figure       pure: no training, no file names
    claims(results) -> list[Claim]

where `results` maps each part to its `dopt.Results`.
"""

from __future__ import annotations

import importlib.util
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dopt.config import Run
from dopt.files import write, writing
from dopt.paths import slug
from dopt.registry import did_you_mean
from dopt.report.style import save, style
from dopt.sweep import spec
from dopt.sweep.engine import Show, sweep
from dopt.sweep.results import Results
from dopt.sweep.store import Store
from dopt.types import InputError

COLUMNS = ("claim", "expected", "measured", "tolerance", "verdict")
SIZES = ("", "fast", "full")
WIDER = math.sqrt(10)  # what a tenth of the seeds does to a standard error
SLACK = 0.1  # and to a bound that has no tolerance of its own
HEAD = """# Gallery

Published figures of the field, rebuilt: the picture, the question, what the paper says against what was measured here, and what
differs. `dopt figures --gallery` writes this file. `dopt figures NAME` runs and draws one of them, and `dopt run --id ID` makes
a run behind a row of its data again.
"""
LARGER = 5  # times the seeds, in full size


@dataclass(frozen=True)
class Claim:
    """A statement, what it says, and what was measured.

    Attributes:
      sense: "=", "<=" or ">=": how the measured value must lie to the expected one; words must be equal.
      tolerance, absolute: what it may miss, as a share of the expected value, and in its unit.
      differs: why our run does not show it, where it does not; it is then an error if it does.
      never: the measured value may be infinite, which means "never reached"; without it nothing infinite holds.
      null: what would be measured if it were not so; a claim so wide that it would hold then, too, says nothing.
    """

    statement: str
    expected: Any
    measured: Any
    sense: str = "="
    tolerance: float = 0.0
    absolute: float = 0.0
    differs: str = ""
    never: bool = False
    null: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the measured value is as the claim says; what is not a number never is, nor what is infinite by accident."""
        if not _number(self.expected):
            return bool(self.measured == self.expected)
        if not _number(self.measured) or math.isnan(self.measured):
            return False
        if not (math.isfinite(self.measured) and math.isfinite(self.expected)):
            reached = self.measured != math.inf
            return self.never and not reached and (self.sense == ">=" or self.expected == math.inf)
        miss = float(self.measured) - float(self.expected)
        room = self.absolute + self.tolerance * abs(self.expected)
        return bool({"=": abs(miss), "<=": miss, ">=": -miss}[self.sense] <= room)

    @property
    def right(self) -> bool:
        """Whether it is as the figure's file says: holds, or is known not to."""
        return self.holds != bool(self.differs)

    @property
    def verdict(self) -> str:
        """In words."""
        if self.differs:
            return "holds after all" if self.holds else "not reproduced"
        return "holds" if self.holds else "fails"

    @property
    def may_miss(self) -> str:
        """The tolerance in words."""
        parts = [f"{100 * self.tolerance:.3g} %"] * bool(self.tolerance) + [f"{self.absolute:.3g}"] * bool(
            self.absolute
        )
        return "±" + " ±".join(parts) if parts else "-"

    @property
    def says(self) -> str:
        """What is expected, in words."""
        said = f"{'' if self.sense == '=' else self.sense + ' '}{short(self.expected)}"
        return f"{said} or never" if self.never and self.expected != math.inf else said

    @property
    def row(self) -> tuple[str, ...]:
        """What tables say of it, under `COLUMNS`."""
        return self.statement, self.says, short(self.measured), self.may_miss, self.verdict

    @property
    def can_fail(self) -> bool:
        """Whether it would if it were not so: at `null`; where none is given, at half and at twice an expected value."""
        if self.null is not None:
            wrong: tuple[float, ...] = (self.null,)
        elif _number(self.expected) and self.expected != 0 and self.sense == "=":
            wrong = self.expected / 2, 2 * self.expected
        else:
            wrong = ()
        return not any(replace(self, measured=value).holds for value in wrong)

    def widened(self) -> Claim | None:
        """As it can be asked of a tenth of the seeds; None: not at all, since so wide it could not fail any more."""
        if not _number(self.expected):
            return self
        bare = self.sense != "=" and not (self.tolerance or self.absolute)
        wide = replace(self, tolerance=SLACK if bare else WIDER * self.tolerance, absolute=WIDER * self.absolute)
        return wide if wide.can_fail else None


def _number(x: Any) -> bool:
    return isinstance(x, int | float | np.number) and not isinstance(x, bool | np.bool_)


def short(x: Any) -> str:
    """A value as tables of claims write it: four digits; what is infinite was never reached."""
    if not _number(x):
        return str(x)
    return "never" if x == math.inf else f"{float(x):.4g}"


def over(a: float, b: float) -> float:
    """a/b of costs that may be infinite (never reached): infinite where only a is; NaN, for which nothing holds, where b is."""
    return float(a) / float(b) if math.isfinite(b) else math.nan


def of_fewer(claims: Sequence[Claim]) -> list[Claim]:
    """Claims as they can be asked of a tenth of the seeds."""
    return [wide for claim in claims if (wide := claim.widened()) is not None]


# -- the files --


def shipped() -> Path:
    """The folder of figures that came with dopt: beside its package, in its repository. No other is run unless it is named."""
    return Path(__file__).resolve().parents[2] / "paper_figs"


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
    vars(module)["table"] = _once(module.table)  # drawing, claims and data ask for it
    return module


def _once(table: Callable[[Mapping[str, Results]], pd.DataFrame]) -> Callable[[Mapping[str, Results]], pd.DataFrame]:
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


def parts(name: str, module: ModuleType, folder: Path, root: Path, size: str = "") -> dict[str, Part]:
    """The sweeps of a figure at a size; one from a sweep file shares its results with `dopt sweep FILE`."""
    found = {}
    for part, source in module.SWEEPS.items():
        if isinstance(source, Mapping):
            content, place = {"name": f"{name}-{part}", **source}, root / slug(name) / slug(part)
            content["metric"] = {"stays": False, **(source.get("metric") or {})}  # as papers count: the first time
        else:
            path = folder.resolve().parent / source
            content, place = (
                {"name": path.stem, **spec.load_yaml(path.read_text(encoding="utf-8"))},
                root / slug(path.stem),
            )
        changes = getattr(module, "FULL", {}).get(part, {}) if size == "full" else {}
        found[part] = Part(_sized(content, size, changes), place.with_name(f"{place.name}-{size}") if size else place)
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


def find_run(identity: str, folder: Path) -> Run | None:
    """The run of that id among those that figures and sweep files ask for, at any size, the usual one first."""
    for content in _all_asked(folder):
        for run in spec.parse(content).runs:
            if _has_id(run, identity):
                return run
    return None


def _all_asked(folder: Path) -> Iterator[Any]:
    """Sweep files, then figures' sweeps at their usual size, the smallest, and the largest, which are ten times as many runs."""
    for path in sorted((folder.resolve().parent / "benchmarks").glob("*.yaml")):
        yield spec.content_of(path)
    modules = {name: find(name, folder) for name in available(folder)}
    for size in SIZES:
        for name, module in modules.items():
            yield from (part.content for part in parts(name, module, folder, Path(), size).values())


def _has_id(run: Run, identity: str) -> bool:
    """Whether that is its id; of a run whose data are not here nobody can tell."""
    try:
        return run.id == identity
    except InputError:
        return False


# -- running --


def _help(todo: Sequence[Part]) -> None:
    """Run sweeps, quietly: whatever goes wrong, whom it helps will find and tell it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(InputError, OSError, MemoryError):
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
    """
    spawn = multiprocessing.get_context("spawn")
    missing = [part for part in todo if not is_full(part)] if jobs > 1 else []
    begins = [len(missing) * j // jobs for j in range(2, jobs)]
    orders = [missing[::-1], *([*missing[i:], *missing[:i]] for i in begins)][: jobs - 1] if missing else []
    helpers = [spawn.Process(target=_help, args=(order,), daemon=True) for order in orders]
    with _deaf():
        for helper in helpers:
            helper.start()
    try:
        yield
    finally:
        for helper in helpers:
            helper.terminate()
            helper.join()


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started now never hear Ctrl-C, which a terminal sends to all: who started them ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_full(part: Part) -> bool:
    """Whether all its results are there."""
    store = Store(part.folder)
    plan = store.plan()
    return plan is not None and all(store.slab(s["name"]).exists() for group in plan["groups"] for s in group["slabs"])


def fill(todo: Mapping[str, Part], show: Callable[[], Show]) -> dict[str, Results]:
    """The results of a figure's parts; what is missing is run."""
    return {name: sweep(part.content, results=part.folder, show=show()) for name, part in todo.items()}


# -- drawing --


def draw(module: ModuleType, results: Mapping[str, Results], stem: Path) -> list[Path]:
    """Draw a figure: `stem` with the endings png, pdf, and csv for what is drawn. The same results give the same bytes."""
    with writing("results", stem.parent, "--results"):
        stem.parent.mkdir(parents=True, exist_ok=True)
    with style():
        paths = save(module.draw(results), stem)
    csv = stem.with_name(f"{stem.name}.csv")
    rows: pd.DataFrame = module.table(results)
    write(csv, rows.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    return [*paths, csv]


def file_name(name: str, size: str) -> str:
    """What a figure's files are called at a size."""
    return slug(f"{name}-{size}" if size else name)


def keep(paths: Sequence[Path], folder: Path) -> None:
    """Copy picture and data beside the figure's file."""
    for path in paths:
        if path.suffix in (".png", ".csv"):
            write(folder / path.name, path.read_bytes())


def gallery(folder: Path, sections: Sequence[str]) -> Path:
    """Write GALLERY.md: all figures, one after the other."""
    path = folder / "GALLERY.md"
    write(path, HEAD + "\n" + "\n".join(sections))
    return path


def section(name: str, module: ModuleType, claims: Sequence[Claim]) -> str:
    """A figure's part of the gallery, in Markdown."""
    head, _, text = (module.__doc__ or "").strip().partition("\n")
    text = text.strip().replace("Differs:", "**Differs:**")
    lines = [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in [COLUMNS, *(c.row for c in claims)]
    ]
    table = "\n".join([lines[0], "|---" * len(COLUMNS) + "|", *lines[1:]])
    whys = [f"**Not reproduced: {c.statement}.** {c.differs}" for c in claims if c.differs]
    picture = f"![{name}]({name}.png)\n\nData: [{name}.csv]({name}.csv)"
    return "\n\n".join(filter(None, [f"## {name}", f"*{head}*", picture, text, table, *whys])) + "\n"
