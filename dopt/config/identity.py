"""What a run is: the hash of everything that can change its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from dopt import topology
from dopt.config.run import OWN, Run
from dopt.types import InputError, Problem

SCHEMA = 1  # of the fields and their meaning: part of a run's identity


def identity(resolved: Run, own: Mapping[str, Any] | None = None) -> str:
    """Hash of a resolved run and of the content of what was handed over (`own`: name -> tree of arrays, or graph)."""
    content = {"schema": SCHEMA, **resolved.to_dict()}
    files = (
        ("topology", topology.is_file),
        ("weights", lambda w: bool(Path(w).suffix)),
        ("cluster.file", lambda w: True),
        ("data.file", lambda w: True),
        ("cluster.links", lambda w: True),
    )
    for name, is_file in files:
        if (
            content.get(name)
            and content[name] != OWN
            and is_file(content[name])
            and not content[name].startswith("networkx:")
        ):
            try:
                content[f"{name}.content"] = hashlib.sha256(Path(content[name]).read_bytes()).hexdigest()
            except OSError as error:
                raise InputError(f"{name}: no file {content[name]!r} ({error.strerror})") from error
    for name, value in (own or {}).items():
        content[f"{name}.content"] = _digest(value)
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()[:16]


def _digest(value: Any) -> str:
    import jax

    if isinstance(value, topology.Periodic):
        return _digest([_links(graph) for graph in value.graphs])
    if isinstance(value, topology.Matchings):
        value = (value.workers, value.partners, value.probability, value.weight)
    if isinstance(value, nx.Graph):
        value = _links(value)
    if isinstance(value, Problem):  # a function has no content to hash: its name stands for it
        loss = (
            f"{getattr(value.loss, '__module__', '')}.{getattr(value.loss, '__qualname__', type(value.loss).__name__)}"
        )
        value = (value.data, value.counts, value.test, value.start, [loss, value.weighted])
    leaves, tree = jax.tree.flatten(value)
    digest = hashlib.sha256(str(tree).encode())
    for leaf in leaves:
        array = np.asarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes() if array.dtype.kind in "biufc" else str(leaf).encode())
    return digest.hexdigest()


def _links(graph: nx.Graph) -> list[np.ndarray]:
    """Who sends to whom, with the weights and delays that edges carry."""
    a = topology.adjacency(graph)
    carried = [topology.attribute(graph, name) for name in ("weight", "delay") if nx.get_edge_attributes(graph, name)]
    return [a, *carried]
