"""What a run is: a hash of its resolved fields, and of the content of all that they stand for.

Digests are values: of the graph as it was drawn, of the matrix as it was made, of the data's files (or its arrays, where dopt or a
dependency has it), of traces and tables of links, of the code of whatever was written outside dopt, and of what was handed over. The
id is a hash of fields and digests alone, so that it can be checked anywhere; only the digests need the things themselves.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from bisect import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import networkx as nx
import numpy as np
from scipy.sparse import csr_array, issparse

from dopt import cluster, code, compression, data, delays, files, metrics, mixing, plugins, topology
from dopt.algorithms import ALGORITHMS
from dopt.config import matrices
from dopt.config.run import OWN, Resolved, Run, options_of
from dopt.problems import PROBLEMS
from dopt.registry import Entry, Plugins, traits_by_name
from dopt.types import InputError, Problem
from dopt.version import SCHEMA

CODE = "code of "  # begins the name of a digest of what was written outside dopt
FRESH = "fresh "  # begins a digest of what has none, which is another one each time
PLUGINS: tuple[tuple[str, Plugins[Any]], ...] = (  # fields and options that name what may be written outside dopt
    ("algorithm", ALGORITHMS),
    ("algorithm.compressor", compression.COMPRESSORS),
    ("problem", PROBLEMS),
    ("data", data.SETS),
    ("partition", data.PARTITIONS),
    ("topology", topology.TOPOLOGIES),
    ("topology.base", topology.TOPOLOGIES),
    ("weights", mixing.WEIGHTS),
    ("weights.base", mixing.WEIGHTS),
    ("delay", delays.DELAYS),
    ("cluster", cluster.LAWS),
    ("cluster.profile", cluster.PROFILES),
    ("cluster.reduce", cluster.REDUCTIONS),
    ("metrics", metrics.METRICS),
)
DRAWS = "something else each time, so it can have no id; draw from an option, such as `seed`"
FILES = ("cluster.file", "cluster.links")

Memo = dict[Any, str]  # digests of code that were made in the same call


def identity(resolved: Resolved, own: Mapping[str, Any] | None = None) -> str:
    """16 hex digits of a run and of what was handed over (`own`: problem, graph, start -> what it is)."""
    return hashed(resolved.to_dict(), digests(resolved, own))


def hashed(fields: Mapping[str, object], digests: Mapping[str, str]) -> str:
    """16 hex digits of resolved fields and digests."""
    content = {"schema": SCHEMA, "fields": dict(fields), "digests": dict(digests)}
    return hashlib.sha256(_json(content).encode()).hexdigest()[:16]


def ids_of(like: Resolved, learning_rate: Iterable[float], seed: Iterable[int]) -> list[str]:
    """The ids of runs that are like this one in all but rate and seed: what is hashed is written once around the two."""
    before, between, after = around(like)
    begun = hashlib.sha256(f'{{"digests": {_json(dict(like.digests))}, "fields": {before}'.encode())
    end = f'{after}, "schema": {SCHEMA}}}'
    found = []
    for rate, number in zip(learning_rate, seed, strict=True):
        said = begun.copy()
        said.update(f"{rate!r}{between}{number!r}{end}".encode())  # as JSON writes finite numbers, too
        found.append(said.hexdigest()[:16])
    return found


def around(like: Resolved) -> tuple[str, str, str]:
    """The fields of a run as text, cut: what stands before its rate, between rate and seed, and after the seed.

    Runs of equal text differ in nothing but rate and seed, wherever things are the same.
    """
    fields = like.to_dict()
    rest = sorted(fields.keys() - {"learning_rate", "seed"})
    rate, seed = bisect(rest, "learning_rate"), bisect(rest, "seed")
    first, middle, last = (
        _json({name: fields[name] for name in names})[1:-1] for names in (rest[:rate], rest[rate:seed], rest[seed:])
    )
    before = f'{{{first}{", " if first else ""}"learning_rate": '
    return before, f'{", " if middle else ""}{middle}, "seed": ', f"{', ' if last else ''}{last}}}"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=list)


@code.once()
def identify(runs: Iterable[Resolved]) -> None:
    """Give each of many runs its digests; code that they share is hashed once."""
    memo: Memo = {}
    for run in runs:
        if "digests" not in vars(run):
            vars(run)["digests"] = digests(run, memo=memo)


def digests(resolved: Resolved, own: Mapping[str, Any] | None = None, memo: Memo | None = None) -> dict[str, str]:
    """Name -> digest of all that a run's fields stand for, and of what was handed over.

    Raises:
      InputError: a file cannot be read, or the graph, its matrix or the data cannot be made.
    """
    found = code_digests(resolved, {} if memo is None else memo) | content_digests(resolved)
    for name, value in (own or {}).items():
        found[name] = graph_digest(value) if name == "graph" else _value(value)
        if name == "graph":
            found["matrix"] = matrix_digest(matrices.own_matrix(value, resolved))
    return found


def find_code(runs: Iterable[Resolved]) -> None:
    """Import what DOPT_IMPORT names and installed packages offer, where runs that were resolved elsewhere rest on such code."""
    if any(name.startswith(CODE) for run in runs for name in run.digests):
        plugins.offered()


def code_digests(resolved: Resolved, memo: Memo) -> dict[str, str]:
    """Of what was written outside dopt."""
    return {f"{CODE}{name}": _code(entry, memo) for name, entry in outside(resolved.to_dict())}


def content_digests(resolved: Resolved) -> dict[str, str]:
    """Of graph, matrix, data and files."""
    found, fields = {}, resolved.to_dict()
    if resolved.topology not in (None, OWN):
        found["graph"] = _graph_of(resolved)
        found["matrix"] = _matrix_of(resolved)
    elif matrices.has_matrix(resolved):
        found["matrix"] = _matrix_of(resolved)
    if resolved.data is not None:
        found["data"] = data.digest(resolved.data, **options_of(resolved, "data"))
    for name in FILES:
        if fields.get(name):
            found[name] = _content(name, fields[name])
    return found


def fresh(digests: Mapping[str, str]) -> tuple[str, ...]:
    """One line for each thing that has no digest, and why."""
    return tuple(
        f"{name} cannot be hashed: it has {digest.removeprefix(FRESH).partition(' ')[2]}"
        for name, digest in digests.items()
        if digest.startswith(FRESH)
    )


def differences(before: Mapping[str, str], today: Mapping[str, str]) -> tuple[str, ...]:
    """Names of what is no longer what it was."""
    return tuple(name for name in dict.fromkeys([*before, *today]) if before.get(name) != today.get(name))


def check_same(run: Resolved) -> None:
    """Refuse a run whose things are no longer what they were when its id was made."""
    find_code([run])
    changed = differences(run.digests, digests(run))
    if changed:
        raise InputError(
            f"id: {', '.join(changed)} of run {run.id}: no longer what it was then, so it would be another run today"
        )


def fields_of(run: Resolved) -> str:
    """The fields of a run as text: two runs of equal text are one, wherever things are the same."""
    return _json(run.to_dict())


def _content(name: str, path: str) -> str:
    try:
        return files.digest(path)
    except (OSError, ValueError) as error:
        why = files.reason(error) if isinstance(error, OSError) else error
        raise InputError(f"{name}: no file {path!r} ({why})") from error


# -- code and values --------------------------------------------------------------------------------------------------


def outside(fields: Mapping[str, object]) -> list[tuple[str, Entry[Any]]]:
    """The plug-ins of a run that were written outside dopt."""
    named = ((name, known, fields.get(name)) for name, known in PLUGINS)
    entries = (
        (where, known[word]) for name, known, value in named for where, word in _words(name, value) if word in known
    )
    return [(name, entry) for name, entry in entries if any(map(code.is_outside, _functions(entry)))]


def _words(field: str, value: object) -> list[tuple[str, str]]:
    """(how it is called, name): the names that a field holds, one or several."""
    if isinstance(value, tuple | list):
        return [(f"{field} {word}", word) for word in value if isinstance(word, str)]
    return [(field, value)] if isinstance(value, str) else []


def modules_of(runs: Iterable[Resolved]) -> list[str]:
    """The modules outside dopt that registered what runs name."""
    entries = [entry for run in runs for _, entry in outside(run.to_dict())]
    functions = [f for entry in entries for f in _functions(entry) if code.is_outside(f) and not isinstance(f, partial)]
    return list(dict.fromkeys(f.__module__ for f in functions))


def check_drawn(run: Run, made: Problem, again: Callable[[], Problem]) -> None:
    """Refuse a problem of which something written outside dopt makes another one each time."""
    makers = [name for name, _ in outside(run.to_dict()) if name in ("problem", "data", "partition")]
    if makers and _content_of(made) != _content_of(again()):
        raise InputError(f"{makers[0]}: {getattr(run, makers[0])} gives {DRAWS}")


def _content_of(problem: Problem) -> str:
    try:
        return code.digest(problem)
    except code.UnknownError:  # of its code; its arrays can be told apart all the same
        return _hash(*map(_array, jax.tree.leaves((problem.data, problem.counts, problem.test, problem.start))))


def _functions(entry: Entry[Any]) -> Sequence[Any]:
    return [entry.make, *(trait for trait in traits_by_name(entry).values() if callable(trait))]


def _code(entry: Entry[Any], memo: Memo) -> str:
    key = id(entry)
    if key not in memo:
        memo[key] = _value((entry.make, dict(traits_by_name(entry))))
    return memo[key]


def _value(value: Any) -> str:
    try:
        return code.digest(value)
    except code.UnknownError as error:
        return f"{FRESH}{uuid.uuid4().hex} {error}"


# -- graphs and matrices ----------------------------------------------------------------------------------------------


def _graph_of(run: Resolved) -> str:
    return _drawn_digest(matrices.drawn(str(run.topology), run.workers, options_of(run, "topology")))


@lru_cache(maxsize=65536)
def _drawn_digest(of: matrices.Drawn) -> str:
    found = graph_digest(matrices.drawn_network(of))
    if _is_from_outside(of) and graph_digest(matrices.drawn_network.__wrapped__(of)) != found:
        raise InputError(f"topology: {of.name} gives {DRAWS}")
    return found


def _matrix_of(run: Resolved) -> str:
    of = matrices.source(run)
    return matrix_digest(matrices.matrix_of(of)) if of in matrices.KEPT.get() else _source_digest(of)


@lru_cache(maxsize=65536)
def _source_digest(of: matrices.Source) -> str:
    found = matrix_digest(matrices.matrix_of(of))
    if _is_from_outside(of) and matrix_digest(matrices.again(of)) != found:
        raise InputError(f"weights: {of.weights} gives {DRAWS}")
    return found


def _is_from_outside(of: matrices.Drawn | matrices.Source) -> bool:
    return any(version for _, version in of.makers)


def graph_digest(graph: Any) -> str:
    """Who sends to whom, with the weights and delays that edges carry; of a matrix that stands for a graph, the matrix."""
    if isinstance(graph, topology.Periodic):
        return _hash("periodic", *map(graph_digest, graph.graphs))
    if isinstance(graph, nx.Graph):
        return _hash("graph", len(graph), graph.is_directed(), *_edges(graph))
    return matrix_digest(graph)


def _edges(graph: nx.Graph[Any]) -> list[str]:
    """The edges by the numbers of their workers, in order."""
    place = topology.places(graph)
    carried = ("weight", "delay")
    found = []
    for u, v, said in graph.edges(data=True):
        ends = (place[u], place[v])
        ends = ends if graph.is_directed() else (min(ends), max(ends))
        found.append((*ends, *(_number(said.get(name)) for name in carried)))
    return [str(edge) for edge in sorted(found)]


def _number(value: Any) -> str:
    """A number as it is read: 1 and 1.0 are one."""
    try:
        return "" if value is None else float(value).hex()
    except (TypeError, ValueError, OverflowError):
        return repr(value)


def matrix_digest(w: Any) -> str:
    """Of W's bytes, of those of a pair (R, C), or of the description of random matchings."""
    if isinstance(w, tuple):
        return _hash("pair", *map(matrix_digest, w))
    if isinstance(w, topology.Matchings):
        return _hash("matchings", w.workers, w.weight, *map(_array, (w.partners, w.probability)))
    return _hash("matrix", _array(w))


def _array(values: Any) -> str:
    if values is None:
        return "none"
    if issparse(values):
        return _sparse(csr_array(values))
    array = np.ascontiguousarray(values)
    return _hash(str(array.dtype), str(array.shape), array.tobytes())


def _sparse(w: csr_array) -> str:
    """The digest of a dense array of the same numbers; of one that is too large to be dense anywhere, of its links."""
    if w.shape[0] > mixing.sparse.SAME:
        return _hash("sparse", str(w.dtype), str(w.shape), *(part.tobytes() for part in mixing.sparse.links(w)))
    said = hashlib.sha256()
    for part in (str(w.dtype).encode(), str(w.shape).encode()):
        said.update(b"%d:" % len(part) + part)
    said.update(b"%d:" % (w.dtype.itemsize * math.prod(w.shape)))
    for rows in mixing.sparse.blocks(w):
        said.update(rows.data)
    return said.hexdigest()


def _hash(*parts: Any) -> str:
    said = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode()
        said.update(b"%d:" % len(content))
        said.update(content)
    return said.hexdigest()
