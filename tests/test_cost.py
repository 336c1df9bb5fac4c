"""What would not fit into the host's memory is refused in one line, before anything of it is built."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import psutil
import pytest
from refusals import refused

from dopt import memory, mixing, topology
from dopt.config import Run, cost
from dopt.data import SETS
from dopt.devices import memory as devices_memory
from dopt.engine import group_of
from dopt.problems import PROBLEMS
from dopt.sweeps import spec
from dopt.sweeps.work import prepare
from dopt.topology import TOPOLOGIES
from dopt.types import InputError

GIB = 2**30
GOSSIP = {"algorithm": "gossip_sgd", "workers": 8, "learning_rate": 0.1, "steps": 10, "problem": "quadratic"}
SYNC = GOSSIP | {"algorithm": "allreduce_sgd"}
ARRIVALS = GOSSIP | {"algorithm": "async_sgd"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes a host of so many GiB."""

    def make(gib: float) -> None:
        for module in (memory, devices_memory):
            monkeypatch.setattr(module, "available", lambda: int(gib * GIB))

    return make


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (GOSSIP | {"workers": 20_000, "topology": "complete"}, ("workers: ", "complete", "20000")),
        (GOSSIP | {"workers": 100_000, "topology": "star"}, ("workers: ", "mixing matrix", "100000")),
        (GOSSIP | {"workers": 10**6, "topology": "torus"}, ("workers: ",)),
        (GOSSIP | {"workers": 65_536, "topology": "one_peer_exponential"}, ("workers: ",)),
        (GOSSIP | {"workers": 200_000, "topology": "random_matching"}, ("workers: ",)),
        (GOSSIP | {"workers": 100_000, "topology": "matcha"}, ("workers: ",)),
        (GOSSIP | {"workers": 100_000, "algorithm": "ad_psgd"}, ("workers: ", "mixing matrix")),
        (GOSSIP | {"problem.dim": 10**9}, ("problem: ", "quadratic")),
        (SYNC | {"problem": "turned_quadratic", "problem.dim": 50_000}, ("problem: ", "turned_quadratic")),
        (SYNC | {"problem": "least_squares", "problem.samples": 10**8, "problem.dim": 10**3}, ("problem: ",)),
        (SYNC | {"problem": "logistic", "data": "factors", "data.samples": 10**8}, ("data: ", "factors")),
        (SYNC | {"problem": "embedding", "data": "ratings", "data.users": 10**6, "data.items": 10**5}, ("data: ",)),
        (GOSSIP | {"algorithm": "delayed_gossip_sgd", "delay": 10**9}, ("delay: ", "1000000000")),
        (GOSSIP | {"algorithm": "delayed_sgd", "delay": "geometric", "delay.max": 10**9}, ("delay: ",)),
        (ARRIVALS | {"steps": 9 * 10**7, "record_every": 10**7}, ("steps: ",)),
    ],
)
def test_what_cannot_fit_is_refused_at_once(
    fields: dict[str, Any], said: tuple[str, ...], small: Callable[[float], None]
) -> None:
    small(8)
    before, start = psutil.Process().memory_info().rss, time.monotonic()
    with pytest.raises(InputError) as error:
        Run.from_dict(fields).resolve()
    assert time.monotonic() - start < 2
    assert psutil.Process().memory_info().rss - before < 500 * 2**20
    line = str(error.value)
    assert line.startswith(said[0])
    assert all(part in line for part in said)
    assert "GiB" in line
    assert "\n" not in line


def test_the_command_refuses_in_one_line(
    capsys: pytest.CaptureFixture, tmp_path: Path, small: Callable[[float], None]
) -> None:
    small(8)
    refused(capsys, ["show", "topology", "complete", "--workers", "20000", "--out", str(tmp_path)], "workers: ", "GiB")
    refused(capsys, ["show", "topology", "ring", "--workers", "100000", "--out", str(tmp_path)], "mixing matrix")
    plain = ["--algorithm", "gossip_sgd", "--learning_rate", "0.1", "--steps", "10", "--problem", "quadratic"]
    refused(capsys, ["run", *plain, "--workers", "100000", "--topology", "star", "--wandb", "off"], "workers: ", "GiB")


def test_whether_it_fits_depends_on_the_memory_alone(small: Callable[[float], None]) -> None:
    run = Run.from_dict(GOSSIP | {"workers": 2_000, "topology": "ring"})
    small(0.1)
    with pytest.raises(InputError, match=r"workers: the mixing matrix of 2000 workers"):
        run.resolve()
    assert sum(need.bytes for need in cost.network("ring", 2_000, {}, None, None)) < GIB


def test_a_matrix_is_refused_where_it_is_made_too(small: Callable[[float], None]) -> None:
    graph = nx.star_graph(2999)
    small(0.2)
    with pytest.raises(InputError, match="the mixing matrix of 3000 workers"):
        mixing.weights(graph)


@pytest.mark.parametrize(
    "name", [name for name in TOPOLOGIES if name not in ("social", "boyd", "matcha", "random_matching")]
)
def test_a_graph_takes_about_what_its_estimate_says(name: str) -> None:
    """Edges that are really there, at what networkx takes of each: the estimate is at most four times that."""
    workers = 256
    options = TOPOLOGIES[name].options({}, "topology")
    said = topology.need(name, workers, options).bytes
    network = topology.make(name, workers)
    assert not isinstance(network, topology.Matchings)
    graphs = network.graphs if isinstance(network, topology.Periodic) else (network,)
    assert len(graphs) <= max(1, 1.5 * topology.phases(name, workers))
    real = sum(graph.number_of_edges() for graph in graphs) * topology.EDGE / 2 + topology.NODE * workers * len(graphs)
    assert real / 1.5 < said < 6 * real


def test_every_problem_and_set_says_what_it_takes() -> None:
    for entry in (*PROBLEMS.values(), *SETS.values()):
        size = entry.traits.get("bytes")
        if size is not None:
            options = entry.options({}, "x")
            assert size(8.0, **options) > 0 if entry.name in PROBLEMS else size(**options) > 0
    assert all("bytes" in entry.traits for entry in PROBLEMS.values() if entry.traits["data"] is None)


def test_a_solver_that_cannot_fit_is_refused(small: Callable[[float], None]) -> None:
    small(4)
    with pytest.raises(InputError, match=r"topology\.budget: the convex solver for 256 workers"):
        topology.make("matcha", 256)
    with pytest.raises(InputError, match=r"weights: the convex solver for 128 workers"):
        mixing.weights(nx.cycle_graph(128), "fastest")


def test_old_models_that_do_not_fit_are_refused_before_they_are_made(small: Callable[[float], None]) -> None:
    fields = GOSSIP | {"algorithm": "delayed_gossip_sgd", "delay": 9, "problem.dim": 100_000}
    run = Run.from_dict(fields).resolve()  # 8 workers x 10 models x 0.4 MB = 32 MB
    group_of([run])
    small(0.02)
    with pytest.raises(InputError, match=r"keeps 10 models for each of 8 workers"):
        group_of([run])


def test_a_sweep_over_many_large_graphs_is_refused_before_the_first(small: Callable[[float], None]) -> None:
    fixed = GOSSIP | {"workers": 1000, "topology": "random_regular"}
    asked = spec.parse({"parameters": spec.grid(fixed, {"topology.seed": list(range(20))})})
    small(0.1)
    with pytest.raises(InputError, match=r"topology: 20 mixing matrices of up to 1000 workers"):
        prepare(asked, None)
