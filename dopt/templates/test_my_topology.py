"""my_topology has all workers, is connected, and can be run on."""

import my_topology  # noqa: F401  registers it
import networkx as nx
import pytest

import dopt


@pytest.mark.parametrize("workers", [6, 9])
@pytest.mark.parametrize("bridges", [1, 3])
def test_it_is_connected_and_has_as_many_bridges_as_asked_for(workers: int, bridges: int) -> None:
    graph = dopt.topology.make("my_topology", workers, bridges=bridges)
    assert sorted(graph) == list(range(workers))
    assert nx.is_connected(graph)
    assert graph.number_of_edges() == workers + bridges


def test_gossip_takes_it() -> None:
    run = dopt.Run(
        algorithm="gossip_sgd", workers=6, learning_rate=0.1, steps=5, problem="quadratic", topology="my_topology"
    )
    assert dopt.run(run).spectral_gap > 0


def test_too_many_bridges_are_refused() -> None:
    with pytest.raises(dopt.InputError, match=r"topology\.bridges"):
        dopt.topology.make("my_topology", 6, bridges=4)
