"""Files of graphs: GraphML, GML, GEXF, adjacency lists and edge lists -> a networkx graph, of which nothing is lost.

Workers are named by labels, else by ids, that are the whole numbers 0..n-1; else the order of the file numbers them, and
`graph.graph[NOTE]` says so. What a reader would pass over is refused: a line that does not fit, an element that is read
twice, parallel edges that carry numbers.
"""

from __future__ import annotations

import ast
import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import networkx as nx

from dopt import reading
from dopt.types import InputError

LARGEST = 2**25  # bytes of a file
LONGEST = 10_000  # characters of the attributes of an edge
NOTE = "dopt: note"
CARRIED = ("weight", "delay")  # attributes of edges that dopt reads
NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?"
EDGE = re.compile(rf"(-?[0-9]{{1,18}})\s+(-?[0-9]{{1,18}})(?:\s+(\{{.*\}}|{NUMBER}))?")
NODES = re.compile(r"-?[0-9]{1,18}(?:\s+-?[0-9]{1,18})*")
DIRECTED = re.compile(r"#\s*directed\s*", re.IGNORECASE)

Graph = nx.Graph  # a DiGraph and a MultiGraph are one, too


def read(path: str | Path, hint: str = "") -> Graph:
    """The graph in a file, by its ending: .graphml, .gml, .gexf, .adjlist, else an edge list.

    Raises:
      InputError: the file is missing or is no such graph.
    """
    content = reading.read("topology", path, LARGEST, hint)
    kind, reader = READERS.get(Path(path).suffix, READERS[""])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", category=UserWarning)  # networkx's, where it passes over something
            graph = reader(content)
            if not graph:
                raise ValueError("it has no edge")
            return _named(merged(graph))
    except InputError as error:
        raise InputError(f"topology: {str(path)!r}: {error}") from error
    except Exception as error:  # parsers of damaged files raise whatever they meet
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"topology: {str(path)!r} is not {kind} ({reason:.200})") from error


def merged(graph: Graph) -> Graph:
    """The same graph with each edge once; InputError where parallel edges carry weights or delays.

    Whether two weights add up, or the later one counts, depends on who wrote the file.
    """
    if not graph.is_multigraph():
        return graph
    once: Graph = nx.DiGraph() if graph.is_directed() else nx.Graph()
    once.graph.update(graph.graph)
    once.add_nodes_from(graph.nodes(data=True))
    for u, v, data in graph.edges(data=True):
        if once.has_edge(u, v) and any(name in both for name in CARRIED for both in (data, once.edges[u, v])):
            raise InputError(f"edge ({u}, {v}) is there twice and has a weight or a delay; give it once")
        once.add_edge(u, v, **data)
    return once


# -- who is which worker ----------------------------------------------------------------------------------------------


def _named(graph: Graph) -> Graph:
    """Node i is worker i, where labels or ids say so."""
    labels = [data.get("label") for _, data in graph.nodes(data=True)]
    for names in (labels, list(graph)):
        numbers = [_whole(name) for name in names]
        if sorted(numbers) == list(range(len(graph))):
            return nx.relabel_nodes(graph, dict(zip(graph, numbers, strict=True)))
    first = next(iter(graph))
    graph.graph[NOTE] = (
        f"topology: nodes are not named 0..{len(graph) - 1}: workers are numbered in the order of the file, worker 0 is {str(first)!r}"
    )
    return graph


def _whole(name: object) -> int:
    """The whole number that a name is, -1 where it is none."""
    return int(str(name)) if re.fullmatch("[0-9]{1,9}", str(name)) else -1


# -- lists of lines ---------------------------------------------------------------------------------------------------


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(number, content) of the lines that say something; what follows a # is a comment."""
    for number, line in enumerate(text.splitlines(), 1):
        if number > 1 and DIRECTED.fullmatch(line.strip()):
            raise ValueError(f"line {number}: `# directed` must be the first line")
        said = line.partition("#")[0].strip()
        if said:
            yield number, said


def _empty(text: str) -> Graph:
    first = next(iter(text.splitlines()), "")
    return nx.MultiDiGraph() if DIRECTED.fullmatch(first.strip()) else nx.MultiGraph()


def _edges(content: bytes) -> Graph:
    text = content.decode("utf-8-sig")
    graph = _empty(text)
    for number, line in _lines(text):
        found = EDGE.fullmatch(line)
        if not found:
            raise ValueError(
                f"line {number}: needs two whole numbers, then nothing, a weight, or {{'name': value}}, got {line!r:.40}"
            )
        graph.add_edge(int(found[1]), int(found[2]), **_attributes(number, found[3]))
    return graph


def _attributes(number: int, said: str | None) -> dict[str, Any]:
    """What the rest of a line says of its edge: a number is its weight, as networkx has it."""
    if said is None or said[0] != "{":
        return {} if said is None else {"weight": float(said)}
    try:
        if len(said) > LONGEST:
            raise ValueError(f"more than {LONGEST} characters")
        node = ast.parse(said, mode="eval").body
        found = ast.literal_eval(node)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"line {number}: {said!r:.40} is no dictionary of attributes") from error
    if not isinstance(node, ast.Dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"line {number}: {said!r:.40} is no dictionary of names and values")
    if len(found) < len(node.keys):
        raise ValueError(f"line {number}: {said!r:.40} has a name twice")
    return found


def _neighbours(content: bytes) -> Graph:
    text = content.decode("utf-8-sig")
    graph = _empty(text)
    for number, line in _lines(text):
        if not NODES.fullmatch(line):
            raise ValueError(f"line {number}: needs whole numbers, a node and its neighbours, got {line!r:.40}")
        node, *others = map(int, line.split())
        graph.add_node(node)
        graph.add_edges_from((node, other) for other in others)
    return graph


# -- formats of others ------------------------------------------------------------------------------------------------


def _xml(reader: Callable[..., Graph], **options: Any) -> Callable[[bytes], Graph]:
    """Reads a graph from XML, and counts what was read: of two graphs, nodes or edges of one name networkx keeps one."""

    def read(content: bytes) -> Graph:
        root = ElementTree.fromstring(content)  # noqa: S314 - networkx parses it the same way, and expat bounds entities
        graph = reader(io.BytesIO(content), **options)
        found = Counter(str(element.tag).rpartition("}")[2] for element in root.iter())
        if graph.is_directed():
            found["edge"] += sum(element.get("type") == "mutual" for element in root.iter())
        for tag, count in (("node", len(graph)), ("edge", graph.number_of_edges()), ("graph", 1)):
            if found[tag] != count:
                raise ValueError(f"it has {found[tag]} elements <{tag}>, but only {count} could be read")
        if graph.graph.get("mode") == "dynamic":
            raise ValueError("its edges change over time; give a fixed graph")
        for _, _, data in graph.edges(data=True):
            for name, value in graph.graph.get("edge_default", {}).items():  # networkx does not fill them in
                data.setdefault(name, value)
        return graph

    return read


def _gml(content: bytes) -> Graph:
    return nx.parse_gml(content.decode("utf-8-sig").splitlines(), label="id")


READERS: dict[str, tuple[str, Callable[[bytes], Graph]]] = {
    ".graphml": ("GraphML", _xml(nx.read_graphml, force_multigraph=True)),
    ".gml": ("GML", _gml),
    ".gexf": ("GEXF", _xml(nx.read_gexf)),
    ".adjlist": ("an adjacency list of whole numbers", _neighbours),
    "": ("an edge list of whole numbers", _edges),
}
