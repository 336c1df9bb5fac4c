"""Where results lie: plans, and one immutable folder per slab that is there whole or not at all.

results/NAME/plans/0001.json, 0002.json ...             what runs together and what it is made of, each written once, with a checksum
results/NAME/matrices/                                  mixing matrices that a solver found for them
results/NAME/reading.json                               what the latest call asked for: runs in order, metric
results/NAME/sweep.yaml                                 the file of that call, word for word, for who reads the folder
results/NAME/slabs/SLAB/{runs,history}.parquet          tables
results/NAME/slabs/SLAB/manifest.json                   its runs, versions, device, threads, seconds, sha256 of each table; with a checksum
results/NAME/checkpoints/                               what loops of slabs carried, where that was asked for (`states`)
results/NAME/set-aside/                                 slabs that were found damaged, or foreign
results/NAME/compact/                                   tables of runs once more, of many slabs together (`compact`)
results/NAME/table.{csv,md}                             what the latest sweep printed
results/NAME/failed/SLAB.json                           why a slab was left that failed on a cluster again and again (`driver`)
results/NAME/locks/                                     who works on what (`claims`), and what W&B has of it
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from dopt.files import TEMPORARY, check_name, reason, sync, sync_all, write, writing
from dopt.paths import slug
from dopt.sweeps import columns, seal
from dopt.sweeps.claims import Claims
from dopt.types import InputError, MachineError
from dopt.version import SCHEMA

FORMAT = 5  # of a plan
READ = (3, 4, FORMAT)  # of an older one (plan.json, the folder's only one) the results are read, and no more are made
NUMBERED = re.compile(r"[0-9]{4,}\.json")
RUNS, HISTORY = TABLES = ("runs.parquet", "history.parquet")
MANIFEST = "manifest.json"


class SlabError(MachineError):
    """A slab that is there and cannot be used: damaged, foreign (of another plan or place), or unreadable (rights, the disk)."""

    def __init__(self, kind: Literal["damaged", "foreign", "unreadable"], what: str):
        super().__init__(f"{kind} slab: {what}")
        self.kind = kind


class Reading(NamedTuple):
    """What the latest call asked for: a folder may hold more, which is hidden then. None: as the plans say."""

    metric: Mapping[str, Any]  # name, goal, target, stays
    order: Sequence[str] | None = None  # ids of runs
    varied: Sequence[str] | None = None
    merged: int | None = None


class Store:
    """The folder of one sweep."""

    def __init__(self, folder: str | Path):
        check_name("results", folder)
        self.folder = Path(folder)
        self.claims = Claims(self.folder / "locks")

    def create(self) -> None:
        """Make the folder; MachineError where it cannot be written."""
        self.check_writable()
        with writing("results", self.folder, "--results"):
            for part in ("slabs", "locks"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)

    def check_writable(self) -> None:
        """MachineError where the folder could not be written; leaves nothing behind."""
        with writing("results", self.folder, "--results"):
            near = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        with writing("results", self.folder, "--results"):
            descriptor, path = tempfile.mkstemp(dir=near, prefix=TEMPORARY)
            os.close(descriptor)
            os.unlink(path)

    # -- plans --

    def plan_path(self, number: int) -> Path:
        """Where the plan of that number lies, from 1."""
        return self.folder / "plans" / f"{number:04d}.json"

    def plan_paths(self) -> list[Path]:
        """The plans that are there, in the order in which they were made.

        Raises:
          InputError: one of them is gone.
          MachineError: nobody can tell.
        """
        old = self.folder / "plan.json"
        try:
            there = [path for path in (self.folder / "plans").iterdir() if NUMBERED.fullmatch(path.name)]
        except (FileNotFoundError, NotADirectoryError):
            return [old] if old.is_file() else []
        except OSError as error:
            raise MachineError(f"results: cannot read {old.with_name('plans')} ({reason(error)})") from error
        found = [self.plan_path(number) for number in range(1, len(there) + 1)]
        for path in found:
            if path not in there:
                raise InputError(f"results: {path} is missing; restore it, or choose another folder with --results")
        return found

    def plan(self, path: Path) -> dict[str, Any]:
        """A plan.

        Raises:
          InputError: it was altered, or is of another format.
          MachineError: it cannot be read.
        """
        advice = f"move {self.folder} away, or choose another folder with --results"
        try:
            text = path.read_bytes()
        except OSError as error:
            raise MachineError(f"results: cannot read {path} ({reason(error)})") from error
        try:
            found = seal.parse(text)
            if found.get("format") in READ:
                seal.check(text)
        except ValueError as error:
            raise InputError(f"results: {path} is damaged ({error}); {advice}") from error
        if found.get("format") not in READ:
            known = " and ".join(map(str, READ))
            raise InputError(
                f"results: {path} has format {str(found.get('format'))[:40]!r}, this dopt reads format {known}; {advice}"
            )
        return found

    def check_goes_on(self, path: Path, plan: Mapping[str, Any]) -> None:
        """InputError where no more results of a plan can be made, though those that are there can be read."""
        for name, known in (("format", FORMAT), ("schema", SCHEMA)):
            if plan.get(name) != known:
                raise InputError(
                    f"results: {path} has {name} {str(plan.get(name))[:40]!r}, but this dopt continues only with {name} {known}; finished runs can still be read; choose another folder with --results"
                )

    def write_plan(self, number: int, plan: Mapping[str, Any]) -> None:
        path = self.plan_path(number)
        with writing("results", path, "--results"):
            path.parent.mkdir(exist_ok=True)
        write(path, seal.seal(plan))

    # -- how it is read --

    @property
    def reading_path(self) -> Path:
        return self.folder / "reading.json"

    def reading(self) -> Reading:
        """What the latest call asked for.

        Raises:
          InputError: it is damaged.
          MachineError: it cannot be read.
        """
        try:
            return _reading(seal.parse(self.reading_path.read_bytes()))
        except FileNotFoundError:
            return Reading({})
        except OSError as error:
            raise MachineError(f"results: cannot read {self.reading_path} ({reason(error)})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise self.damaged_reading(error) from error

    def damaged_reading(self, error: Exception) -> InputError:
        """What is said where it is damaged."""
        what = " ".join(str(error).split())
        return InputError(f"results: {self.reading_path} is damaged ({what}); delete it, and run the sweep again")

    def write_reading(self, reading: Reading) -> None:
        """Keep it, if it is not what is there already."""
        _keep(self.reading_path, json.dumps(reading._asdict()).encode())

    @property
    def text_path(self) -> Path:
        return self.folder / "sweep.yaml"

    def text(self) -> str:
        """The sweep file of the latest call; nothing where it was not kept, as by older dopts, or cannot be read."""
        try:
            return self.text_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def write_text(self, text: str) -> None:
        """Keep the sweep file, if there is one, and it is not what is there already."""
        if text:
            _keep(self.text_path, text.encode(errors="replace"))

    def matrix_path(self, digest: str) -> Path:
        """Where a matrix lies that a solver found."""
        return self.folder / "matrices" / f"{slug(digest)}.npz"

    def locked(self, name: str, wait: bool) -> AbstractContextManager[bool]:
        """Hold the claim `name` (True), or find it held by a living process (False; never where `wait`).

        Raises:
          MachineError: the folder cannot be written.
        """
        return self.claims.claim(name, wait)

    def failed_path(self, name: str) -> Path:
        """Where it is said why a slab failed."""
        return self.folder / "failed" / f"{slug(name)}.json"

    def state_path(self, name: str) -> Path:
        """Where it lies what a slab's loop carried."""
        return self.folder / "checkpoints" / f"{slug(name)}.npz"

    def marks_path(self, name: str) -> Path:
        """Where it stands which runs of a slab W&B has."""
        return self.folder / "locks" / f"{slug(name)}.logged"

    # -- slabs --

    def slab(self, name: str) -> Path:
        return self.folder / "slabs" / slug(name)

    def has_slabs(self) -> bool:
        """Whether any slab lies here, whoever's it is."""
        folder = self.folder / "slabs"
        return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())

    def has(self, name: str) -> bool:
        """Whether there is a slab of that name, in whatever state; SlabError where that cannot be told."""
        try:
            return self.slab(name).exists()
        except OSError as error:
            raise SlabError("unreadable", f"{self.slab(name)} cannot be reached ({reason(error)})") from error

    def finished(self, name: str, ids: Sequence[str], say: Callable[[str], None]) -> bool:
        """Whether the slab is there, whole, and of these runs; a damaged or foreign one is named and set aside.

        Raises:
          MachineError: it cannot be read, and may well be whole.
        """
        folder = self.slab(name)
        try:
            if not self.has(name):
                return False
            self.check_slab(name, ids)
            return True
        except SlabError as error:
            fault = error
        if fault.kind == "unreadable":
            raise MachineError(f"results: {fault}") from fault
        aside = self.folder / "set-aside"
        with writing("results", aside, "--results"):
            aside.mkdir(exist_ok=True)
            number = sum(1 for _ in aside.glob(f"{folder.name}.*"))
            folder.rename(aside / f"{folder.name}.{number}")
        say(f"results: {fault}; moved to {aside / f'{folder.name}.{number}'}; it is run again")
        return False

    def read_runs(
        self, name: str, ids: Sequence[str], kept: Mapping[str, pa.Table] = MappingProxyType({})
    ) -> tuple[pa.Table, dict[str, Any]]:
        """(the table of a slab's runs, what made the slab). The records must be there, but only `read_records` looks at them.

        Args:
          kept: what was decoded before, by the sha256 of its file.

        Raises:
          SlabError: it is damaged, foreign, or unreadable.
        """
        path = self.slab(name) / RUNS
        manifest = _described(path.with_name(MANIFEST), _bytes(path.with_name(MANIFEST)), name, ids)
        content = _checked(path, manifest["sha256"].get(RUNS))
        table = kept.get(manifest["sha256"][RUNS])
        if table is None:
            table = _table(content, path, None)
        _check_ids(table["id"], ids, path)
        if not path.with_name(HISTORY).is_file():
            raise SlabError("damaged", f"{path.with_name(HISTORY)} is missing")
        return table, manifest

    def read_records(
        self, name: str, ids: Sequence[str], sha256: str | None, fields: Sequence[str] | None = None
    ) -> pa.Table:
        """The records of a slab's runs, as `read_runs` gives the sum of their file; of their columns these, or all.

        The table's ids are a dictionary, and numbers in it.

        Raises:
          SlabError: it is damaged, foreign, or unreadable.
        """
        path = self.slab(name) / HISTORY
        table = _table(_checked(path, sha256), path, fields, words=("id",))
        _check_ids(table["id"].unique(), ids, path)
        return table

    def _verified(
        self, name: str, ids: Sequence[str], fields: Sequence[str] | None
    ) -> tuple[dict[str, bytes], list[pa.Table]]:
        """(files, tables) of a slab that is whole and of these runs, in this order; of the tables' columns these, or all.

        Raises:
          SlabError: it is damaged, foreign, or unreadable.
        """
        folder = self.slab(name)
        files = {MANIFEST: _bytes(folder / MANIFEST)}
        sums, found = _described(folder / MANIFEST, files[MANIFEST], name, ids)["sha256"], []
        for path in (folder / file for file in TABLES):
            files[path.name] = _checked(path, sums.get(path.name))
            table = _table(files[path.name], path, fields)
            _check_ids(table["id"] if path.name == RUNS else table["id"].unique(), ids, path)
            found.append(table)
        return files, found

    def write_slab(self, name: str, runs: pa.Table, history: pa.Table, manifest: dict[str, Any]) -> None:
        """Put a slab in place in one rename, synced before; one that is there already is kept, and this one thrown away.

        Raises:
          MachineError: it cannot be written; nothing is left of it.
        """
        with writing("results", self.slab(name), "--results"), self._appearing(self.slab(name)) as temporary:
            tables = zip(TABLES, (runs, history), strict=True)
            sums = {file: columns.write(table, temporary / file) for file, table in tables}
            (temporary / MANIFEST).write_bytes(seal.seal({**manifest, "sha256": sums}))

    def put_slab(self, name: str, files: Mapping[str, bytes]) -> None:
        """As `write_slab`, of files that another store checked."""
        with writing("results", self.slab(name), "--results"), self._appearing(self.slab(name)) as temporary:
            for file, content in files.items():
                (temporary / file).write_bytes(content)

    @staticmethod
    @contextmanager
    def _appearing(place: Path) -> Iterator[Path]:
        """A folder to fill, which becomes the slab when all of it is on the disk, unless there is one by then."""
        begin = f"{TEMPORARY}{place.name}-"
        temporary = place.parent / f"{begin}{secrets.token_hex(8)}"
        temporary.mkdir()
        try:
            yield temporary
            sync_all([*(temporary / file for file in (*TABLES, MANIFEST)), temporary])
            temporary.rename(place)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)  # on a full disk it would be in the next one's way
            # whoever was stopped for so long that its claim was taken over comes second
            if not (isinstance(error, OSError) and place.is_dir()):
                raise
        for old in os.listdir(place.parent):
            if old.startswith(begin):  # of a process that was killed, or comes second
                shutil.rmtree(place.parent / old, ignore_errors=True)
        sync(place.parent)

    def read_slab(self, name: str, ids: Sequence[str]) -> tuple[pa.Table, pa.Table]:
        """The slab's tables, of these runs, read from the very bytes that were checked.

        Raises:
          SlabError: it is damaged, foreign, or unreadable.
        """
        _, (runs, history) = self._verified(name, ids, None)
        return runs, history

    def slab_files(self, name: str, ids: Sequence[str]) -> dict[str, bytes]:
        """The slab's files by name, of these runs: the very bytes that were checked.

        Raises:
          SlabError: it is damaged, foreign, or unreadable.
        """
        return self._verified(name, ids, ["id"])[0]

    def check_slab(self, name: str, ids: Sequence[str]) -> None:
        """SlabError where a slab is not there whole, or not of these runs."""
        self._verified(name, ids, ["id"])

    def manifest(self, name: str) -> dict[str, Any]:
        """What made a slab; SlabError where it cannot be told."""
        path = self.slab(name) / MANIFEST
        return _manifest(_bytes(path), path)


def _manifest(text: bytes, path: Path) -> dict[str, Any]:
    try:
        return seal.unseal(text)
    except ValueError as error:
        raise SlabError("damaged", f"{path} is damaged ({error})") from None


def _keep(path: Path, content: bytes) -> None:
    """The file with this content; one that has it is left alone."""
    if not path.is_file() or path.read_bytes() != content:
        write(path, content)


def _reading(found: Mapping[str, Any]) -> Reading:
    """ValueError where nobody asks like that."""
    if not set(found) <= set(Reading._fields):
        raise ValueError("it has unknown keys")
    asked = Reading(**{"metric": dict(found["metric"]), **{name: x for name, x in found.items() if name != "metric"}})
    for words in filter(None, (asked.order, asked.varied)):
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("its names are not text")
    if not (asked.merged is None or type(asked.merged) is int):
        raise ValueError("its number of merged runs is invalid")
    return asked


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise SlabError("damaged", f"{path} is missing") from None
    except OSError as error:
        raise SlabError("unreadable", f"{path} cannot be read ({reason(error)})") from error


def _described(path: Path, text: bytes, name: str, ids: Sequence[str]) -> dict[str, Any]:
    """What made a slab, by its manifest's text; SlabError where it is not of these runs, or says no sums."""
    found = _manifest(text, path)
    for field, expected in (("slab", name), ("runs", list(ids))):
        if found.get(field) != expected:
            raise SlabError("foreign", f"{path} has other {field} than the plan")
    if not isinstance(found.get("sha256"), dict):
        raise SlabError("damaged", f"{path} has no checksums")
    return found


def _checked(path: Path, sha256: str | None) -> bytes:
    """A file's content, of that sum."""
    content = _bytes(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SlabError("damaged", f"{path} is truncated or altered")
    return content


def _table(content: bytes, path: Path, fields: Sequence[str] | None, words: Sequence[str] = ()) -> pa.Table:
    """A table that has ids."""
    try:
        found = columns.read(pa.BufferReader(content), fields, words)
        _ = found["id"]
    except Exception as error:  # whatever a reader raises at bytes that are no table
        raise SlabError("damaged", f"{path} is not a table of runs ({type(error).__name__})") from None
    return found


def _check_ids(there: pa.ChunkedArray, ids: Sequence[str], path: Path) -> None:
    if there.to_pylist() != list(ids):
        raise SlabError("foreign", f"{path} has other runs than the plan")
