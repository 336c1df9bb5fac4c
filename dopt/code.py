"""A digest of code and of values: the exact text that a function was written in, and all that it closes over.

Of a function: the text of its module and of the modules that it imports, line and column, defaults, closure cells, and the globals that it
names. What is installed counts by name and version, dopt itself by its schema, and Python's own library not at all. So the
digest is the same in every process, folder and version of Python, and another one as soon as anybody edits what it rests on.
"""

from __future__ import annotations

import ast
import dataclasses
import dis
import enum
import functools
import hashlib
import importlib.machinery
import importlib.metadata
import inspect
import linecache
import pathlib
import site
import sys
import sysconfig
import types
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import numpy as np

from dopt.files import digest as file_digest

if TYPE_CHECKING:
    import jax
    import networkx as nx

OWN = "dopt"
PLAIN = (bool, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented), range, slice)
GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")  # instructions that read a global
ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")  # or what something has
UNNAMED = (
    "<string>",
    "<stdin>",
)  # any text is called so; from Python 3.13 on, a text of that name is found, but it may be another one
DEEPEST = 4  # dots between a module that a function names and what it reads there


class UnknownError(Exception):
    """Something of which no digest can be made; the message says what."""


def digest(value: object) -> str:
    """64 hex digits of a value.

    Raises:
      UnknownError: it is, or holds, something of unknown kind, or a function without source.
    """
    walk = _Walk()
    try:
        walk.feed(value)
    except RecursionError:
        raise UnknownError("it is nested too deeply") from None
    return walk.hash.hexdigest()


def is_outside(value: object) -> bool:
    """Whether a plug-in's function was written outside dopt."""
    return not isinstance(value, types.FunctionType) or _top(value.__globals__.get("__name__")) != OWN


def version(function: Callable | None) -> str:
    """What a plug-in's function stands for today, for keys of caches: nothing of dopt's own, another word each time where nobody can tell."""
    if function is None or not is_outside(function):
        return ""
    met = _VERSIONS.get()
    return _version(function) if met is None else met.get(function) or met.setdefault(function, _version(function))


def _version(function: Callable) -> str:
    try:
        return digest(function)
    except UnknownError:
        return uuid.uuid4().hex


_VERSIONS: ContextVar[dict[Callable, str] | None] = ContextVar("versions", default=None)


@contextmanager
def once() -> Iterator[None]:
    """While it lasts, each function is looked at once: of many runs it is the same one."""
    outer = _VERSIONS.get()
    token = _VERSIONS.set({} if outer is None else outer)
    try:
        yield
    finally:
        _VERSIONS.reset(token)


class _Walk:
    """Feeds values to a hash, each with its kind and its length, so that no two different ones give the same bytes."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.met: dict[int, int] = {}  # functions and classes by id, in the order in which they came; and what is open
        self.kept: list[Any] = []  # so that no id is given anew

    def say(self, *words: str | bytes | int) -> None:
        for word in words:
            content = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogatepass")
            self.hash.update(b"%d:" % len(content))
            self.hash.update(content)

    def again(self, value: object) -> bool:
        """Whether the value was met before, which is said then: so circles end."""
        if id(value) in self.met:
            self.say("again", self.met[id(value)])
            return True
        self.met[id(value)] = len(self.kept)
        self.kept.append(value)
        return False

    def feed(self, value: object) -> None:
        if type(value) in PLAIN:
            self.say(type(value).__name__, repr(value))
        elif type(value) is int:
            self.say("int", hex(value))
        elif isinstance(value, np.ndarray | np.generic) or _is_of_jax(value):
            self.array(value)
        elif isinstance(value, list | tuple | set | frozenset | Mapping) or dataclasses.is_dataclass(value):
            self.parts(value)
        else:
            self.thing(value)

    def array(self, value: object) -> None:
        if _is_of_jax(value):
            value = self.of_jax(value)
        if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
            self.feed(type(value))
        if isinstance(value, np.ma.MaskedArray):
            self.say("masked")
            self.array(np.ma.getmaskarray(value))
        try:
            found = np.asarray(value)
        except RuntimeError as error:  # deleted, or not all of it is this process's
            raise UnknownError(f"an array that cannot be read ({' '.join(str(error).split())[:80]})") from None
        self.say("array", str(found.dtype), str(found.shape), str(getattr(value, "weak_type", False)))
        if found.dtype.hasobject:
            self.parts(found.ravel().tolist())
        else:
            self.say(np.ascontiguousarray(found).tobytes())

    def parts(self, value: Any) -> None:
        """A container, piece by piece; one that holds itself ends."""
        if isinstance(value, type):
            self.thing(value)
            return
        if id(value) in self.met:
            self.again(value)
            return
        self.again(value)
        self.kind(value)
        if isinstance(value, Mapping):
            self.mapping(value)
        elif isinstance(value, set | frozenset):
            self.each(sorted(digest(x) for x in value))
        elif isinstance(value, list | tuple):
            self.each(value)
        else:
            self.mapping(
                {f.name: getattr(value, f.name, "(not set)") for f in dataclasses.fields(value) if _counts(f, value)}
            )
        if not dataclasses.is_dataclass(value) or _is_made_from_more(value):
            self.mapping(getattr(value, "__dict__", {}))  # what it holds beside its items, or its fields
        self.feed(getattr(value, "default_factory", None))
        del self.met[id(value)]  # what is shared is no other than what is equal

    def kind(self, value: object) -> None:
        if type(value) in (list, tuple, dict, set, frozenset):
            self.say(type(value).__name__)
        else:
            self.feed(type(value))

    def each(self, values: Any) -> None:
        self.say(len(values))
        for value in values:
            self.feed(value)

    def mapping(self, values: Mapping[Any, Any]) -> None:
        """In the order in which they come, as whoever goes through them meets them."""
        self.say(len(values))
        for key in values:
            self.feed(key)
            self.feed(values[key])

    def thing(self, value: Any) -> None:
        """What is neither plain, nor an array, nor a container."""
        library = _installed_name(value)
        if library is not None:
            self.say("named", *library)
            return
        for kind, how in _kinds():
            if isinstance(value, kind):
                if not isinstance(value, types.FunctionType | type) or not self.again(value):
                    how(self, value)
                return
        if type(value) is object:  # a mark that holds nothing: which one it is counts, and not where it lies
            if not self.again(value):
                self.say("object")
            return
        if not callable(getattr(value, "__wrapped__", None)) or _origin_of(type(value)) is None:
            raise UnknownError(f"{_short(value)}, which is of an unknown kind")
        self.kind(value)  # as of jax.jit, or of a cache
        self.feed(value.__wrapped__)

    def function(self, value: types.FunctionType) -> None:
        code = value.__code__
        library = _origin(code.co_filename, value.__globals__)
        if library is None:
            self.say("function", source(value), *place(code, _text_of(code.co_filename, value.__globals__)))
            self.globals(value)
        else:
            self.say(
                "function", *library, code.co_qualname, *([code.co_firstlineno] if library[0] == "installed" else [])
            )
        self.feed(value.__defaults__)
        self.feed(value.__kwdefaults__)
        self.say(len(value.__closure__ or ()))
        for cell in value.__closure__ or ():
            try:
                self.feed(cell.cell_contents)
            except ValueError:
                self.say("empty")
        copied = getattr(
            vars(value).get("__wrapped__"), "__dict__", {}
        )  # `functools.wraps` copies what a function carries
        carried = {k: v for k, v in vars(value).items() if not k.startswith("__") and copied.get(k) is not v}
        self.mapping(carried)

    def globals(self, value: types.FunctionType) -> None:
        """What the function reads from its module, and from the modules that this names."""
        attributes = _names(value.__code__, ATTRIBUTES)
        for name in sorted(_names(value.__code__, GLOBALS)):
            if name in value.__globals__:
                self.say("global", name)
                self.feed(value.__globals__[name])
                for path, found in _through(value.__globals__[name], attributes):
                    self.say("attribute", path)
                    self.feed(found)

    def klass(self, value: type) -> None:
        library = _origin_of(value)
        if library is not None:
            self.say("class", *library, value.__qualname__)
            return
        module = sys.modules.get(value.__module__)
        file = getattr(module, "__file__", None)
        if file is None:
            raise UnknownError(f"class {value.__qualname__}, whose source is nowhere")
        self.say("class", value.__qualname__, module_text(file, vars(module)))
        self.each(value.__bases__)
        for name, member in sorted(vars(value).items()):
            if _is_value(member) and not name.startswith("__") and not issubclass(value, enum.Enum):
                self.say(name)
                self.feed(member)
                continue
            inner = inspect.unwrap(getattr(member, "__func__", getattr(member, "fget", member)))
            if isinstance(inner, types.FunctionType) and not inner.__code__.co_filename.startswith("<"):
                self.say(name)
                self.feed(inner)

    def module(self, value: types.ModuleType) -> None:
        file = getattr(value, "__file__", None)
        library = _origin(file or "", vars(value))
        if library is not None:
            self.say("module", *library, value.__name__)
        elif file is not None:
            self.say("module", module_text(file, vars(value)))
        else:
            raise UnknownError(f"module {value.__name__}, whose source is nowhere")

    def built_in(self, value: Any) -> None:
        owner = value.__self__
        if owner is not None and not isinstance(owner, types.ModuleType | type):
            raise UnknownError(f"{_short(value)}, which is bound to an object")
        self.say("built in", str(value.__module__), value.__qualname__)

    def partial(self, value: functools.partial) -> None:
        self.kind(value)
        self.feed(value.func)
        self.feed(value.args)
        self.feed(value.keywords)

    def method(self, value: types.MethodType) -> None:
        self.say("method")
        self.feed(value.__func__)
        self.feed(value.__self__)

    def custom(self, value: object) -> None:
        """A function with a derivative of its own."""
        self.kind(value)
        self.mapping({k: v for k, v in vars(value).items() if not k.startswith("__")})

    def member(self, value: enum.Enum) -> None:
        self.kind(value)
        self.say(value.name)

    def of_jax(self, value: jax.Array) -> jax.Array:
        """What can be read of an array of JAX's: of a key its numbers, after how they are used."""
        import jax

        if isinstance(value, jax.core.Tracer):
            raise UnknownError("a value that JAX is tracing")
        if not jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            return value
        self.say("key", str(jax.random.key_impl(value)))
        return jax.random.key_data(value)

    def graph(self, value: nx.Graph) -> None:
        self.kind(value)
        self.feed(dict(value.nodes(data=True)))
        self.feed(list(value.edges(data=True)))

    def text(self, value: object) -> None:
        self.say(type(value).__name__, str(value))


@cache
def _kinds() -> tuple[tuple[Any, Callable[[_Walk, Any], None]], ...]:
    """How each kind of thing is read, the first that fits."""
    import jax
    import networkx as nx

    return (
        (types.FunctionType, _Walk.function),
        (enum.Enum, _Walk.member),
        (type, _Walk.klass),
        (types.ModuleType, _Walk.module),
        ((types.BuiltinFunctionType, types.MethodWrapperType), _Walk.built_in),
        (types.MethodType, _Walk.method),
        (functools.partial, _Walk.partial),
        ((jax.custom_jvp, jax.custom_vjp), _Walk.custom),
        (nx.Graph, _Walk.graph),
        ((np.dtype, pathlib.PurePath, types.GenericAlias), _Walk.text),
    )


def _is_of_jax(value: object) -> TypeGuard[jax.Array]:
    """Whether it is an array of JAX's; where JAX is not imported there is none."""
    if "jax" not in sys.modules:
        return False
    import jax

    return isinstance(value, jax.Array)


def _short(value: object) -> str:
    return " ".join(repr(value).split())[:80]


def _names(code: types.CodeType, kinds: Sequence[str]) -> set[str]:
    """The names that such instructions of a code object, and of those within it, read."""
    return {i.argval for each in _within(code) for i in dis.get_instructions(each) if i.opname in kinds}


def _through(module: Any, attributes: Set[str], path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of what a user's module has under these names today, and the modules that it has there."""
    if not isinstance(module, types.ModuleType) or path.count(".") > DEEPEST:
        return
    if _origin(getattr(module, "__file__", None) or "", vars(module)) is not None:
        return
    for name in sorted(attributes & vars(module).keys()):
        yield f"{path}.{name}", vars(module)[name]
        yield from _through(vars(module)[name], attributes, f"{path}.{name}")


def _counts(field: dataclasses.Field[Any], value: object) -> bool:
    """A field that came `later` counts where it is set, so that what was made before it came keeps its digest."""
    return not field.metadata.get("later") or getattr(value, field.name, field.default) is not field.default


def _is_made_from_more(value: object) -> bool:
    """Whether a dataclass takes what becomes no field."""
    return any(isinstance(kind, dataclasses.InitVar) or "InitVar" in str(kind) for kind in _annotations(type(value)))


def _annotations(kind: type) -> list[Any]:
    return [each for base in kind.__mro__ for each in vars(base).get("__annotations__", {}).values()]


def _is_value(member: object) -> bool:
    """Whether what a class holds is a value that may change, and no part of how it works."""
    return type(member) in (*PLAIN, int, list, tuple, dict, set, frozenset, np.ndarray) or _is_of_jax(member)


Place = tuple[int, int]  # line and column


def place(code: types.CodeType, text: str | bytes) -> Place:
    """Where in its text a function begins, which tells two of one line apart; in the text, since bytecode is each version's own."""
    there = _functions(text).get((code.co_firstlineno, code.co_name), ())
    if len(there) == 1:
        return there[0].begin
    marks = [
        (at.lineno, at.col_offset)
        for at in (operation.positions for operation in dis.get_instructions(code))
        if at is not None
        and at.lineno is not None
        and at.col_offset is not None
        and (at.col_offset or at.end_col_offset)
    ]
    if not marks:  # it gives a constant, and does nothing
        return next((f.begin for f in there if f.gives in [repr(x) for x in code.co_consts]), (code.co_firstlineno, 0))
    around = [f.begin for f in there if all(f.body <= mark < f.end for mark in marks)]
    return max(around, default=(code.co_firstlineno, 0))


class _Function(NamedTuple):
    begin: Place
    body: Place
    end: Place
    gives: str  # the constant that a lambda is


@lru_cache(maxsize=64)
def _functions(text: str | bytes) -> Mapping[tuple[int, str], list[_Function]]:
    """(first line, name) -> the functions of a text that begin there."""
    found: dict[tuple[int, str], list[_Function]] = {}
    for node in ast.walk(_tree(text)):
        if isinstance(node, ast.Lambda):
            one = _Function(_begin(node), _begin(node.body), _end(node), _constant(node.body))
            found.setdefault((node.lineno, "<lambda>"), []).append(one)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found.setdefault((first, node.name), []).append(_Function(_begin(node), _begin(node), _end(node), ""))
    return found


def _constant(node: ast.expr) -> str:
    try:
        return repr(ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ""


def _begin(node: ast.expr | ast.stmt) -> Place:
    return node.lineno, node.col_offset


def _end(node: ast.expr | ast.stmt) -> Place:
    return node.end_lineno or node.lineno, node.end_col_offset or 0


def _tree(text: str | bytes) -> ast.Module:
    """A text, parsed; an empty one where it is none of Python's, as a notebook's own words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError):
            return ast.Module([], [])


# -- where code comes from --------------------------------------------------------------------------------------------


def _top(name: Any) -> str:
    return str(name or "").partition(".")[0]


@cache
def _folders() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(where packages are installed, where Python's library lies)."""
    paths = sysconfig.get_paths()
    sites = {paths["purelib"], paths["platlib"], *site.getsitepackages(), site.getusersitepackages()}
    library = {paths["stdlib"], paths["platstdlib"]}
    return tuple(str(Path(p).resolve()) for p in sites), tuple(str(Path(p).resolve()) for p in library)


@lru_cache(maxsize=4096)
def _kind_of(file: str) -> str:
    """Library (Python's), installed, or own."""
    sites, library = _folders()
    path = Path(file).resolve()
    if any(path.is_relative_to(folder) for folder in sites) or {"site-packages", "dist-packages"} & set(path.parts):
        return "installed"
    return "library" if file.startswith("<frozen") or any(path.is_relative_to(p) for p in library) else "own"


def is_users(file: str) -> bool:
    """Whether a module in that file is neither Python's nor installed, so that no other machine has it."""
    return _kind_of(file) == "own"


@cache
def version_of(top: str) -> tuple[str, ...]:
    """What an installed module counts for: its distributions with their versions."""
    found = importlib.metadata.packages_distributions().get(top, [])
    return tuple(sorted({f"{name}=={importlib.metadata.version(name)}" for name in found}))


def _origin(file: str, module: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What code counts for that is dopt's, Python's or installed; None: it is the user's, and its text counts."""
    top = _top(module.get("__name__"))
    if top == OWN:
        return (OWN,)
    if not file or file.startswith("<"):  # made by a program, or built in: as the module around it
        file = str(module.get("__file__") or "")
        if not file:
            return ("library",) if top in sys.stdlib_module_names and top != "__main__" else None
    kind = _kind_of(file)
    return None if kind == "own" else ("library",) if kind == "library" else ("installed", top, *version_of(top))


def _origin_of(value: type) -> tuple[str, ...] | None:
    if value.__module__ == "builtins":
        return ("library",)
    module = sys.modules.get(value.__module__)
    return _origin("", vars(module)) if module is not None else None


def _installed_name(value: object) -> tuple[str, ...] | None:
    """Module and name of something that a library has under that name, with the library's version; None: it is no such thing."""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    module = sys.modules.get(str(getattr(value, "__module__", None)))
    if isinstance(value, np.ufunc):
        module = np
    if module is None or not isinstance(name, str) or vars(module).get(name) is not value:
        return None
    library = _origin("", vars(module))
    return None if library is None else (*library, module.__name__, name)


# -- text -------------------------------------------------------------------------------------------------------------


def source(function: types.FunctionType) -> str:
    """Digest of the text that a function was written in, and of what that imports.

    Raises:
      UnknownError: there is no such text, or it is another one than what was loaded.
    """
    file, module = function.__code__.co_filename, function.__globals__
    found = module_text(file, module)
    by_hooks = type(module.get("__loader__")) is not importlib.machinery.SourceFileLoader  # they may write it anew
    if Path(file).is_file() and not by_hooks and function.__code__ not in _compiled(file, file_digest(file)):
        raise UnknownError(f"{function.__qualname__}, whose file {Path(file).name} was changed since it was loaded")
    return found


@lru_cache(maxsize=64)
def _compiled(file: str, content: str) -> frozenset[types.CodeType]:
    """All code in a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return frozenset(_within(compile(Path(file).read_bytes(), file, "exec", dont_inherit=True)))
        except (SyntaxError, ValueError, OSError):
            return frozenset()


def _within(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _within(inner)


def module_text(file: str, module: Mapping[str, Any]) -> str:
    """Digest of a module's text and of all that it imports, and these import."""
    package = str(module.get("__package__") or "")
    if Path(file).is_file():
        first = _read(file, package)
    else:
        text = _text_of(file, module)
        first = _Text(hashlib.sha256(text).hexdigest(), _imports(text, package))
    found: dict[str, str] = {}
    waiting = list(first.imports)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name], more = _imported(name)
            waiting += more
    said = "\n".join(f"{name} {what}" for name, what in sorted(found.items()) if what)
    return hashlib.sha256(f"{first.sha}\n{said}".encode()).hexdigest()


def _text_of(file: str, module: Mapping[str, Any]) -> bytes:
    """The text of a file, or of what never was in one, as a notebook's cell."""
    if Path(file).is_file():
        return Path(file).read_bytes()
    lines = [] if file in UNNAMED else linecache.getlines(file, dict(module))
    if not lines:
        raise UnknownError(f"code of {module.get('__name__')}, whose source is nowhere")
    return "".join(lines).encode("utf-8", "surrogatepass")


class _Text(NamedTuple):
    sha: str
    imports: tuple[str, ...]  # full names of what may be modules


def _read(file: str, package: str) -> _Text:
    try:
        return _parsed(file, package, file_digest(file))
    except OSError as error:
        raise UnknownError(f"{Path(file).name}, which cannot be read ({error.strerror})") from None


@lru_cache(maxsize=1024)
def _parsed(file: str, package: str, content: str) -> _Text:
    text = Path(file).read_bytes() if file.endswith((".py", ".pyw")) or not Path(file).suffix else b""
    return _Text(content, _imports(text, package))


def _imports(text: str | bytes, package: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for node in ast.walk(_tree(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*filter(None, above), *filter(None, [node.module])])
            names = [base, *(f"{base}.{alias.name}" if base else alias.name for alias in node.names)]
        else:
            continue
        for name in filter(None, names):
            parts = name.split(".")
            found.update(dict.fromkeys(".".join(parts[: i + 1]) for i in range(len(parts))))
    return tuple(found)


def _imported(name: str) -> tuple[str, tuple[str, ...]]:
    """(what a module's name counts for: "" for nothing, a version, or its text's digest; what it imports)."""
    top = _top(name)
    if top == OWN:
        return "", ()
    file, package = _find(name)
    if file is None:
        return "", ()
    kind = _kind_of(file)
    if kind == "library":
        return "", ()
    if kind == "installed":
        return (" ".join(version_of(top)), ()) if name == top else ("", ())
    text = _read(file, name if package else name.rpartition(".")[0])
    return text.sha, text.imports


def _find(name: str) -> tuple[str | None, bool]:
    """(the file of a module, whether it is a package), without running any of it; (None, _): it has none."""
    there = sys.modules.get(name)
    if there is not None:
        return getattr(there, "__file__", None), hasattr(there, "__path__")
    parent, _, _ = name.rpartition(".")
    path = None
    if parent:
        path = _search(parent)
        if path is None:
            return None, False
    spec = importlib.machinery.PathFinder.find_spec(name, path)
    found = spec.origin if spec is not None and spec.has_location else None
    return found, spec is not None and spec.submodule_search_locations is not None


def _search(package: str) -> list[str] | None:
    """Where the parts of a package lie."""
    there = sys.modules.get(package)
    if there is not None:
        return list(getattr(there, "__path__", [])) or None
    parent = package.rpartition(".")[0]
    within = _search(parent) if parent else None
    if parent and within is None:
        return None
    spec = importlib.machinery.PathFinder.find_spec(package, within)
    return list(spec.submodule_search_locations or []) or None if spec is not None else None
