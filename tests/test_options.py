"""Whatever an option of a registered plug-in is given, a run is resolved or refused in one line, quickly and in little memory."""

from __future__ import annotations

import dataclasses
import datetime
import inspect
import math
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from dopt import InputError, Run
from dopt.algorithms import ALGORITHMS
from dopt.algorithms.catalogue import IMPLIED
from dopt.cluster import LAWS, machines
from dopt.compression import COMPRESSORS
from dopt.config import OPTIMIZERS, SCHEDULES
from dopt.data import PARTITIONS, SETS
from dopt.delays import DELAYS
from dopt.mixing import WEIGHTS
from dopt.problems import PROBLEMS
from dopt.registry import NotNegative, Plugins, Seed, Share, coerce
from dopt.topology import TOPOLOGIES

BAD = [math.nan, math.inf, -1, 0, 10**9, 10**400, [], {}, datetime.date(2024, 1, 1), True, None, [[1]], "\ud800"]
BASE = {"algorithm": "allreduce_sgd", "workers": 4, "learning_rate": 0.1, "problem": "quadratic", "steps": 10}
GOSSIP = {"algorithm": "gossip_sgd"}
EVENTS = {"algorithm": "async_sgd", "problem": "softmax", "batch_size": 2}
LEARNS = {"ratings": "embedding", "text": "transformer"}  # what learns from a kind of data; softmax from classes
NEEDED: dict[str, Mapping[str, Any]] = {  # options without a default
    "constant": {"delay.value": 1},
    "uniform": {"delay.max": 4},
    "geometric": {"delay.max": 4},
    "dirichlet": {"partition.alpha": 1.0},
}
Case = tuple[Mapping[str, Any], str]  # the rest of a run, and the option


def of(prefix: str, registry: Plugins[Any], base: Mapping[str, Any], field: str | None = None) -> Iterator[Case]:
    """Each option of each plug-in that `field` names, and one that it has not."""
    for name, entry in registry.items():
        needed = NEEDED.get(name, {}) if prefix in ("delay", "partition") else {}
        for option in {*entry.known, "none_such"}.difference(IMPLIED):
            yield {**base, field or prefix: name, **needed}, f"{prefix}.{option}"


def optax_options() -> Iterator[Case]:
    for prefix, field, there in (
        ("optimizer", "optimizer", {name: entry.make for name, entry in OPTIMIZERS.items()}),
        ("learning_rate", "learning_rate.schedule", SCHEDULES),
    ):
        for name, make in there.items():
            for option in inspect.signature(make).parameters:
                yield {field: name}, f"{prefix}.{option}"


def data_options() -> Iterator[Case]:
    for base, option in of("data", SETS, {}):
        yield {**base, "problem": LEARNS.get(SETS[base["data"]].traits["kind"], "softmax")}, option


CASES: dict[str, list[Case]] = {
    "fields": [({}, field.name) for field in dataclasses.fields(Run) if field.name != "options"],
    "fields of gossip": [(GOSSIP, name) for name in ("topology", "weights", "mix", "delay", "link_loss", "cluster")],
    "algorithms": list(of("algorithm", ALGORITHMS, {})),
    "compressors": list(of("algorithm", COMPRESSORS, {"algorithm": "compressed_sgd"}, "algorithm.compressor")),
    "topologies": list(of("topology", TOPOLOGIES, GOSSIP)),
    "weights": list(of("weights", WEIGHTS, GOSSIP)),
    "delays": list(of("delay", DELAYS, {"algorithm": "delayed_sgd"})),
    "delays of links": [
        ({**base, "algorithm": "delayed_gossip_sgd"}, "delay.fixed") for base, _ in of("delay", DELAYS, {})
    ],
    "clusters": [case for case in of("cluster", LAWS, EVENTS) if case[0]["cluster"] != "trace"],
    "parts of clusters": [({**EVENTS, "cluster": "constant"}, f"cluster.{o}") for p in machines.PARTS for o in p.known],
    "problems": list(of("problem", PROBLEMS, {})),
    "data": list(data_options()),
    "partitions": list(of("partition", PARTITIONS, {"problem": "softmax"})),
    "link loss": [({**GOSSIP, "link_loss": 0.1}, f"link_loss.{option}") for option in ("policy", "symmetric", "x")],
    "names": [({}, name) for name in ("topology", "x", "x.y", "algorithm.", ".", "", "optimizer.\0", "schedule")],
}


def outcome(base: Mapping[str, Any], option: str, value: Any, unread: str) -> str:
    """Empty, or the line with which the run is refused."""
    try:
        Run.from_dict({**BASE, **base, option: value}).resolve(unread=unread)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("cases", CASES.values(), ids=CASES)
def test_any_value_of_any_option_is_taken_or_refused_in_one_line(cases: list[Case]) -> None:
    for base, option in cases:
        for value in BAD:
            begin = time.perf_counter()
            line = outcome(base, option, value, "refuse")
            assert time.perf_counter() - begin < 4, (option, value)  # 2 s on a machine that does nothing else
            assert "\n" not in line
            line.encode()  # it can be printed


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, [1], {}])
def test_any_value_of_optax_is_taken_or_refused_in_one_line(value: Any) -> None:
    for base, option in optax_options():
        line = outcome(base, option, value, "refuse")
        assert "\n" not in line
        assert line, (base, option)


REFUSED: list[tuple[Mapping[str, Any], str]] = [
    ({"optimizer.momentum": math.nan}, "optimizer.momentum: "),
    ({"learning_rate.schedule": [1]}, "learning_rate.schedule: "),
    ({"metrics": [[1]]}, "metrics: must be str, got [1] (list)"),
    ({"seed": 10**4999}, "seed: must be int below 2^31, got a whole number of about 4999 digits"),
    ({"seed": 2**31}, "seed: must be int below 2^31"),
    ({"workers": 10**9}, "workers: must be at most 1000000, got 1000000000"),
    ({"algorithm": "delayed_sgd", "delay": 10**9}, "delay"),
    ({"algorithm": "delayed_sgd", "delay": 2, "delay.max": 10**9}, "delay"),
    ({"algorithm": "compressed_sgd", "algorithm.compressor": [1]}, "algorithm.compressor: must be str, got [1]"),
    ({**GOSSIP, "algorithm.rounds": 10**9}, "algorithm.rounds: must be at most 1000"),
    ({"problem": "mlp", "problem.hidden": [1.5]}, "problem.hidden: must be int, got 1.5"),
    ({"problem": "mlp", "problem.hidden": [[3]]}, "problem.hidden: must be int, got [3]"),
    ({"problem.dim": "0x"}, "problem.dim: must be int, got '0x'"),
    ({"problem.seed": -1}, "problem.seed: must not be negative, got -1"),
    ({"steps": 10**8, "record_every": 1}, "record_every: at most 1000000 records"),
    ({"steps": None, "seconds": 1e9, "record_seconds": 1e-3}, "record_seconds: at most 1000000 records"),
    ({**EVENTS, "steps": 10**9}, "steps: a cluster's clock plans at most 100000000 computations"),
    ({"steps": 10**8, "cluster": "exponential"}, "steps: a cluster's clock plans at most"),
    ({"learning_rate": 1e300}, "learning_rate: 1e+300 does not fit into float32 (0, or 1.2e-38 to 3.4e+38)"),
    ({"learning_rate": 1e-40}, "learning_rate: 1e-40 does not fit into float32"),
    ({"learning_rate": 1e-310, "precision": "float64"}, "learning_rate: 1e-310 does not fit into float64"),
    ({"problem": "quadratic", "problem.noise": 1e39}, "problem.noise: must be at most 1e+30 in absolute value"),
    (
        {**GOSSIP, "topology": "random_geometric", "topology.radius": 1e300},
        "topology.radius: must be at most 1e+30 in absolute value",
    ),
    (
        {"algorithm": "slowmo", "algorithm.slow_rate": 1e39},
        "algorithm.slow_rate: must be at most 1e+30 in absolute value",
    ),
    ({"problem": ""}, "problem: unknown name ''"),
    ({"problem": "softmax", "data": ""}, "data: unknown name ''"),
    ({"problem": "softmax", "partition": ""}, "partition: unknown name ''"),
    ({**GOSSIP, "topology": ""}, "topology: unknown name ''"),
    ({**EVENTS, "cluster": ""}, "cluster: unknown name ''"),
    ({"problem": "a\0b"}, "problem: must be text"),
    ({"problem": "\udcff"}, "problem: must be text"),
    ({"problem": "x" * 10**5}, "problem: unknown name 'xxx"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED, ids=[f"{list(given)[-1]}-{said[:20]}" for given, said in REFUSED])
@pytest.mark.parametrize("unread", ["refuse", "drop"])
def test_a_value_that_no_run_can_have_is_refused_in_little_memory(
    given: Mapping[str, Any], said: str, unread: str
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            Run.from_dict({**BASE, **given}).resolve(unread=unread)
        assert tracemalloc.get_traced_memory()[1] < 500 * 2**20
    finally:
        tracemalloc.stop()
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_delay_may_be_as_long_as_a_law_reaches() -> None:
    assert Run.from_dict({**BASE, "algorithm": "delayed_sgd", "delay": 10**6}).resolve().options["delay.max"] == 10**6


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (Seed, [0, 1, 2.0, 2**31 - 1], [-1, 0.5, 2**31, True, None, "1"]),
        (NotNegative, [0, 0.5, 2.0**300], [-1e-9, math.inf, math.nan, 10**400]),
        (Share, [0, 1, 0.5], [-0.1, 1.1, math.nan, True]),
        (Share | None, [None, 1], [2, "x", [0.5]]),
        (tuple[int, ...], [(), [1, 2.0]], [[1.5], [[1]], "12", 1, None]),
        (list[int] | None, [[3, 3], None], [[3, "3"], [math.inf], {}]),
    ],
)
def test_a_type_says_what_an_option_may_be(hint: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        found = coerce("x", value, hint)
        assert found == (tuple(value) if isinstance(value, list) else value)
    for value in bad:
        with pytest.raises(InputError, match=r"^x: "):
            coerce("x", value, hint)
