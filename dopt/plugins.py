"""Where plug-ins come from: files and modules that a user names, and what installed packages offer.

A plug-in registers itself as it is imported (`dopt.register`). A sweep names what to import in its parameter `imports`, a
command by `--import`, and the environment by DOPT_IMPORT. What an installed package offers by an entry point of the group
`dopt.plugins` is imported when a name is asked for that nobody has registered, so nobody waits for what nobody uses.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from dopt.text import quoted
from dopt.types import InputError

GROUP = "dopt.plugins"  # of entry points
VARIABLE = "DOPT_IMPORT"  # names with commas
OWN = "dopt"
MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
FAILED: dict[str, str] = {}  # an entry point that could not be imported -> why
_FILES: dict[str, str] = {}  # module -> the file that was named
_noted: dict[str, Source] = {}  # module -> where it comes from, of all that registered something
INSTALLED = {"site-packages", "dist-packages"}  # folders where Python finds modules by itself


def words(said: object, what: str = "imports") -> list[str]:
    """The names in a text with commas, or in a list of such texts.

    Raises:
      InputError: it is something else.
    """
    texts = list(said) if isinstance(said, list | tuple) else [said]
    found: list[str] = []
    for text in texts:
        if not isinstance(text, str):
            raise InputError(
                f"{what}: must be files and modules, as [my_method.py, package.module], got {quoted(said)}"
            )
        found += [word.strip() for word in text.split(",") if word.strip()]
    return found


def located(named: Sequence[str], folder: Path) -> list[str]:
    """The same names, taken from any folder: files by absolute paths; modules are looked for in this folder, too."""
    if not all(map(_is_file, named)):
        _find_in(folder)
    return [str(folder.absolute() / name) if _is_file(name) else name for name in named]


def _is_file(name: str) -> bool:
    return name.endswith(".py") or os.sep in name


def load(named: Sequence[str], folder: str | Path = "", what: str = "imports") -> None:
    """Import files and modules; what was imported before is not imported again.

    Args:
      named: a file (it ends with .py) or a module's name, each.
      folder: where relative files are, and modules too, beside the places where Python looks; by default the current one.
      what: names the argument in errors.

    Raises:
      InputError: one is missing, or raises something when it is imported: the line says in which file and line.
    """
    for name in named:
        if _is_file(name):
            _load_file(what, Path(folder, name))
        else:
            _load_module(what, name, Path(folder))


def offered() -> None:
    """Import what DOPT_IMPORT names and what installed packages offer, once.

    A package's plug-in that cannot be imported is noted in `FAILED`: it shall not break what does not need it.

    Raises:
      InputError: what DOPT_IMPORT names cannot be imported.
    """
    if _offer.is_open:
        with _offer.lock:
            if _offer.is_open:
                _offer.is_open = False
                environment()
                _load_installed()


class _Offer:
    is_open = True
    lock = threading.RLock()  # a plug-in may ask for a name while it is imported


_offer = _Offer()


def environment() -> None:
    """Import what DOPT_IMPORT names."""
    load(words(os.environ.get(VARIABLE, ""), VARIABLE), what=VARIABLE)


class Source(NamedTuple):
    """Where a plug-in can be imported from, as `load` takes it."""

    folder: str
    name: str  # a file in that folder, or a module that is found there

    @property
    def word(self) -> str:
        """The name, wherever it is read."""
        return os.path.join(self.folder, self.name) if _is_file(self.name) else self.name


def note(make: Callable[..., object]) -> None:
    """Remember where something that is registered comes from, for processes that this one starts."""
    module = str(getattr(make, "__module__", None))
    found = source(module)
    if found is not None and module.partition(".")[0] != OWN:
        _noted[module] = found


def source(module: str) -> Source | None:
    """Where a module that registered something can be imported from; None: nowhere, as a session."""
    file = _FILES.get(module) or getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or not file:
        return None
    path, names = Path(file).absolute(), module.split(".")
    is_package = path.stem == "__init__"
    if names[-1] != (path.parent.name if is_package else path.stem):  # it was imported by its path
        return Source(str(path.parent), path.name)
    return Source(str(path.parents[len(names) - 1 + is_package]), module)


def for_helpers() -> tuple[dict[str, str], list[str]]:
    """How a process that this one starts finds what is registered here: (a variable, folders in which Python must look, too)."""
    found = [one for one in _noted.values() if not INSTALLED & set(Path(one.folder).parts)]
    folders = [one.folder for one in found]
    return {VARIABLE: ",".join(one.word for one in _noted.values())} if _noted else {}, list(dict.fromkeys(folders))


def origin(make: Callable[..., object]) -> str:
    """Where a plug-in's function comes from: dopt, a file, or a module."""
    name = getattr(make, "__module__", None) or "__main__"
    if name.partition(".")[0] == OWN:
        return OWN
    file = _FILES.get(name) or (getattr(sys.modules.get(name), "__file__", None) if name == "__main__" else None)
    return name if file is None else _short(file)


def is_same_place(one: Callable[..., object], other: Callable[..., object]) -> bool:
    """Whether two functions stand in one file, or in one session."""
    return _place(one) == _place(other)


def is_of(make: Callable[..., object], named: str) -> bool:
    """Whether a function stands in a file or a module (or in a part of a package), named as for `load`."""
    if _is_file(named):
        return _place(make) == os.path.realpath(named)
    return f"{getattr(make, '__module__', None)}.".startswith(f"{named}.")


def _place(make: Callable[..., object]) -> str:
    name = getattr(make, "__module__", None) or "__main__"
    file = getattr(sys.modules.get(name), "__file__", None)
    return name if file is None else os.path.realpath(file)


def _short(file: str) -> str:
    """A path as it is shown: from the current folder, where it lies below it."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file


# -- files and modules ------------------------------------------------------------------------------------------------


def _load_file(what: str, path: Path) -> None:
    from dopt import reading  # it imports NumPy, for which a command's help does not wait

    shown = quoted(str(path))
    if path.suffix != ".py":
        raise InputError(f"{what}: must be a file that ends with .py, or a module's name, got {shown}")
    hint = "" if path.is_absolute() else f" in {str(Path.cwd())!r}"
    content = reading.read(what, path, hint=f"{hint}; give its path")
    file = os.path.realpath(path)
    # by its content, so that the same one is imported once, wherever its copies lie
    name = f"{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{hashlib.sha256(content).hexdigest()[:12]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    for old in [key for key, known in _FILES.items() if known == file]:
        del _FILES[old]  # it was edited since
    _FILES[name] = file
    _find_in(Path(file).parent)
    try:
        _run(what, file, lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
    except InputError:
        del sys.modules[name], _FILES[name]
        raise


def _load_module(what: str, name: str, folder: Path) -> None:
    if not MODULE.fullmatch(name):
        raise InputError(f"{what}: must be a file that ends with .py, or a module's name, got {quoted(name)}")
    _find_in(folder)

    def imported() -> ModuleType:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            where = str(folder.absolute())
            raise _MissingError(
                f"{what}: no module {name!r} is installed or lies in {where!r}; the name of a file must end with .py"
            ) from None

    try:
        _run(what, None, imported)
    except _MissingError as error:
        raise InputError(str(error)) from None


class _MissingError(Exception):
    """There is no such module."""


def _find_in(folder: Path) -> None:
    """Let Python look for modules in a folder, too, after all others."""
    place = str(folder.absolute())
    if place not in sys.path:
        sys.path.append(place)
        importlib.invalidate_caches()


def _run(what: str, file: str | None, work: Callable[[], object]) -> object:
    """Import something of a user's; InputError with file and line where it raises anything."""
    try:
        return work()
    except (_MissingError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit, too: a plug-in does not end the command
        raise InputError(f"{what}: {_said(error, file)}") from error


def _said(error: BaseException, file: str | None) -> str:
    """What went wrong, where: the line of `file` (None: of the user's code) that was the last to run."""
    message = " ".join(str(error).split())
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{quoted(_short(error.filename))}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if (frame.filename == file if file else _is_theirs(frame.filename))]
    where = f"{quoted(_short(own[-1].filename))}, line {own[-1].lineno}: " if own else ""
    return f"{where}{message if isinstance(error, InputError) else f'{type(error).__name__}: {message}'}"


def line_of(error: BaseException) -> str | None:
    """Where and why a plug-in failed as it was used; None: no line of one was running."""
    files = {str(getattr(sys.modules.get(module), "__file__", None)) for module in _noted}
    last = next((f for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename in files), None)
    return None if last is None else _said(error, last.filename)


def _is_theirs(file: str) -> bool:
    """Whether a file is neither dopt's nor one of those by which Python imports."""
    return (
        not file.startswith("<")
        and "importlib" not in Path(file).parts
        and Path(__file__).parent not in Path(file).parents
    )


# -- what is installed ------------------------------------------------------------------------------------------------


def _load_installed() -> None:
    from importlib.metadata import entry_points  # which takes a moment to read what is installed

    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            _run(f"plug-in {point.name} ({point.value})", None, point.load)
        except InputError as error:
            FAILED[point.name] = f"{error}; it is left out"


def failures() -> str:
    """What could not be imported of what is installed, as the end of a line; empty: nothing."""
    return "".join(f"; {line}" for line in FAILED.values())


__all__ = [
    "FAILED",
    "Source",
    "environment",
    "failures",
    "for_helpers",
    "is_of",
    "line_of",
    "load",
    "located",
    "note",
    "offered",
    "origin",
    "source",
    "words",
]
