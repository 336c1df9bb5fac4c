"""Where results lie: a plan, and one immutable folder per slab that is there whole or not at all.

results/NAME/plan.json                                  what runs together, written once
results/NAME/slabs/SLAB/{runs,history}.parquet          tables
results/NAME/slabs/SLAB/manifest.json                   versions, device, seconds, sha256 of each table
results/NAME/set-aside/                                 slabs that were found damaged
results/NAME/locks/                                     who works on what; empty files, held by a living process
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pandas as pd

from dopt.files import TEMPORARY, sync, write, writing
from dopt.sweep import columns
from dopt.types import InputError

TABLES = ("runs.parquet", "history.parquet")


def slug(name: str) -> str:
    """The one way from a name to a path: letters, digits, '.', '_' and '-', nothing that leaves its folder."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip(".-")[:120] or "unnamed"


class Store:
    """The folder of one sweep."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def create(self) -> None:
        """Make the folder; MachineError where it cannot be written."""
        self.check_writable()
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

    # -- the plan --

    @property
    def plan_path(self) -> Path:
        return self.folder / "plan.json"

    def plan(self) -> dict[str, Any] | None:
        """The plan, or None where there is none yet."""
        try:
            return json.loads(self.plan_path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(
                f"results: {self.plan_path} is damaged ({error}); move {self.folder} away, or choose another folder with --results"
            ) from error

    def write_plan(self, plan: dict[str, Any]) -> None:
        write(self.plan_path, json.dumps(plan, indent=1))

    @contextmanager
    def locked(self, name: str, wait: bool) -> Iterator[bool]:
        """Hold the lock `name` (True), or find it held by a living process (False; never where `wait`)."""
        lock = filelock.FileLock(self.folder / "locks" / f"{slug(name)}.lock")
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    # -- slabs --

    def slab(self, name: str) -> Path:
        return self.folder / "slabs" / slug(name)

    def finished(self, name: str, say: Callable[[str], None]) -> bool:
        """Whether the slab is there and whole; a damaged one is named and set aside."""
        folder = self.slab(name)
        if not folder.exists():
            return False
        damage = self._damage(folder)
        if damage is None:
            return True
        aside = self.folder / "set-aside"
        aside.mkdir(exist_ok=True)
        number = sum(1 for _ in aside.glob(f"{folder.name}.*"))
        folder.rename(aside / f"{folder.name}.{number}")
        say(f"results: {damage}; set aside in {aside / f'{folder.name}.{number}'}, runs again")
        return False

    @staticmethod
    def _damage(folder: Path) -> str | None:
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
            sums = {name: manifest["sha256"][name] for name in TABLES}
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{folder / 'manifest.json'} is missing or damaged ({error})"
        for name, expected in sums.items():
            path = folder / name
            if not path.is_file():
                return f"{path} is missing"
            if _sha256(path) != expected:
                return f"{path} is truncated or altered"
        return None

    def write_slab(self, name: str, runs: pd.DataFrame, history: pd.DataFrame, manifest: dict[str, Any]) -> None:
        """Put a slab in place in one rename, synced before; one that is there already is kept."""
        folder = self.slab(name)
        for old in folder.parent.glob(f".tmp-{folder.name}-*"):
            shutil.rmtree(old, ignore_errors=True)  # of a process that was killed: we hold the slab's lock
        temporary = folder.parent / f".tmp-{folder.name}-{os.getpid()}"
        temporary.mkdir()
        for file, table in zip(TABLES, (runs, history), strict=True):
            columns.write(table, temporary / file)
            sync(temporary / file)
        sums = {file: _sha256(temporary / file) for file in TABLES}
        write(temporary / "manifest.json", json.dumps({**manifest, "sha256": sums}, indent=1))
        sync(temporary)
        temporary.rename(folder)
        sync(folder.parent)

    def read_slab(self, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        runs, history = (columns.read(self.slab(name) / file) for file in TABLES)
        return runs, history

    def manifest(self, name: str) -> dict[str, Any]:
        return json.loads((self.slab(name) / "manifest.json").read_text())


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
