"""What a sweep's runs need of the user's disk, as it travels to machines that do not have it: files, data sets, and plug-ins.

A path keeps its name, since that is part of a run's identity: a relative one is found below a folder that becomes the process's
own, and data sets in one that becomes DOPT_DATA_DIR. An absolute path does not travel, and must be there on each machine. That
what arrives is what was sent is seen like everything else: by its digests, before a slab runs.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import runpy
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from dopt import code, data, mixing, plugins, topology
from dopt.config import Resolved
from dopt.config.identity import FILES, modules_of
from dopt.config.run import options_of
from dopt.data.files import cache_folder, own_folder
from dopt.types import InputError

DAY = 86400.0  # seconds after which what nobody used any more is thrown away
SCRIPT = "__mp_main__"  # as Python's own helpers call a script that they read again: it is not the one that runs
_reads_script: ContextVar[bool] = ContextVar("reads_script", default=False)


class Luggage(NamedTuple):
    """Contents by their paths below three folders, and what is imported of the last one."""

    files: Mapping[str, bytes]  # as runs name them
    data: Mapping[str, bytes]  # below DOPT_DATA_DIR
    code: Mapping[str, bytes]
    modules: Sequence[str] = ()  # that register plug-ins, or their files
    script: str | None = None  # that does, too

    @property
    def digest(self) -> str:
        """Of all of it."""
        found = hashlib.sha256()
        for part in (self.files, self.data, self.code):
            for name, content in sorted(part.items()):
                found.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
            found.update(b"\n")
        return found.hexdigest()[:16]


def packed(templates: Sequence[Resolved]) -> Luggage:
    """What runs need.

    Raises:
      InputError: a plug-in stands in no file, so that no other process can read it.
    """
    files: dict[str, bytes] = {}
    sets: dict[str, bytes] = {}
    for path in dict.fromkeys(path for like in templates for path in _paths(like)):
        with suppress(OSError):  # of what is not there, whoever asks for it says why
            where = _place(path)
            if where is not None:
                (sets if where[0] else files)[where[1]] = path.read_bytes()
    modules, script = _plugins(templates)
    sources = dict(_sources([*modules, *([] if script is None else ["__main__"])]))
    named = [found.name for name in modules if (found := plugins.source(name)) is not None]
    return Luggage(files, sets, sources, named, script)


def _paths(like: Resolved) -> Iterator[Path]:
    """The files that a run names, and those of its data."""
    graph, rule = like.topology, like.weights
    if graph is not None and topology.is_file(graph) and not topology.is_generator(graph):
        yield Path(graph)
    if rule is not None and mixing.is_file(rule):
        yield Path(rule)
    yield from (Path(str(like.options[name])) for name in FILES if like.options.get(name))
    if like.data is not None:
        yield from data.paths(like.data, **options_of(like, "data"))


def _place(path: Path) -> tuple[bool, str] | None:
    """(whether it belongs to a data set, its path below its folder); None: it stays where it is."""
    for folder in filter(None, (own_folder(), cache_folder())):
        if path.is_relative_to(folder):
            return True, str(path.relative_to(folder))
    return None if path.is_absolute() or ".." in path.parts else (False, str(path))


def _plugins(templates: Sequence[Resolved]) -> tuple[list[str], str | None]:
    """The modules that register what runs name, and the script, where it does."""
    names = modules_of(templates)
    if "__main__" not in names:
        return names, None
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None:
        raise InputError(
            "ray: a plug-in was defined in this session and not in a file, so it cannot be sent to other machines; put it into a module"
        )
    return [name for name in names if name != "__main__"], Path(file).name


def _sources(names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """The user's modules of these names, and all that were imported from beside them: (path below their folder, text)."""
    roots = {_root(name) for name in names} - {None}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and file.endswith(".py") and name != SCRIPT and _root(name) in roots and name.split(".")[0] != code.OWN:
            yield str(Path(file).resolve().relative_to(str(_root(name)))), Path(file).read_bytes()


def _root(name: str) -> Path | None:
    """The folder in which a module is found by its name; None: it is installed, as it must be on each machine, or in no file."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if not file or not code.is_users(file):
        return None
    dots = 0 if name == "__main__" else name.count(".") + (Path(file).name == "__init__.py")
    return Path(file).resolve().parents[dots]


def unpack(luggage: Luggage) -> None:
    """Let this process find what travelled: its folder, DOPT_DATA_DIR and modules are others from now on.

    Raises:
      InputError: the script cannot be read without running its sweep again.
    """
    folder = _laid(luggage)
    os.chdir(folder / "files")
    if luggage.data:
        os.environ["DOPT_DATA_DIR"] = str(folder / "data")
    sys.path.insert(0, str(folder / "code"))
    importlib.invalidate_caches()
    os.environ.pop(plugins.VARIABLE, None)  # it names what may not be here; what is needed is
    plugins.load(luggage.modules, folder / "code", what="ray")
    if luggage.script is not None:
        token = _reads_script.set(True)
        try:
            runpy.run_path(str(folder / "code" / luggage.script), run_name=SCRIPT)
        finally:
            _reads_script.reset(token)


def check_script() -> None:
    """InputError where a script that is read again, for its plug-ins, begins its sweep again."""
    if _reads_script.get():
        raise InputError("ray: the script is read on each machine; call dopt.sweep under if __name__ == '__main__':")


def _laid(luggage: Luggage) -> Path:
    """Where it lies on this machine; it is laid there once for all processes."""
    shelf = cache_folder().absolute() / "travelled"
    folder = shelf / luggage.digest
    if not folder.is_dir():
        shelf.mkdir(parents=True, exist_ok=True)
        _clear(shelf)
        temporary = shelf / f".tmp-{secrets.token_hex(8)}"
        for part in ("files", "data", "code"):
            (temporary / part).mkdir(parents=True)
            for name, content in getattr(luggage, part).items():
                path = temporary / part / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        try:
            temporary.rename(folder)
        except OSError:  # another process was sooner
            shutil.rmtree(temporary, ignore_errors=True)
    with suppress(OSError):
        os.utime(folder)
    return folder


def _clear(shelf: Path) -> None:
    """Throw away what nobody has used for a day."""
    for old in shelf.iterdir():
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > DAY:
                shutil.rmtree(old, ignore_errors=True)
