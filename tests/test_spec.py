"""A sweep file means the runs that W&B would make of it, the same ones every time; and a run has one identity."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import yaml

import dopt
from dopt import InputError, Problem, Run
from dopt.cli import main
from dopt.config import identity
from dopt.sweeps import spec
from dopt.sweeps.spec import Sweep, load_yaml, parse

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "benchmarks").glob("*.yaml"))
BASE = {"algorithm": "allreduce_sgd", "workers": 4, "learning_rate": 0.1, "problem": "quadratic", "steps": 20}


def sweep(method: str = "grid", cap: int | None = None, **parameters: Any) -> Sweep:
    """The sweep of BASE with other parameters; plain values stand for themselves."""
    given = {**BASE, **parameters}
    content: dict[str, Any] = {
        "method": method,
        "parameters": {name: p if isinstance(p, Mapping) else {"value": p} for name, p in given.items()},
    }
    return parse(content if cap is None else {**content, "run_cap": cap})


def drawn(cap: int = 400, **parameter: Any) -> np.ndarray:
    """[cap] learning rates of a random sweep; the seeds keep equal ones from being merged."""
    found = sweep("random", cap, learning_rate=parameter, seed={"min": 0, "max": 2**31 - 1})
    assert len(found.runs) == cap
    return np.array([run.learning_rate for run in found.runs])


# -- grids ----------------------------------------------------------------------------------------------------------


def test_a_grid_is_the_product_in_the_files_order() -> None:
    found = sweep(learning_rate={"values": [0.1, 1e-3]}, seed={"values": [3, 1]}, workers={"values": [4]})
    assert found.varied == ("learning_rate", "seed")
    assert [(run.learning_rate, run.seed) for run in found.runs] == list(itertools.product([0.1, 1e-3], [3, 1]))
    assert found.merged == 0


def test_what_a_method_does_not_read_is_merged() -> None:
    found = sweep(algorithm={"values": ["allreduce_sgd", "gossip_sgd"]}, topology={"values": ["ring", "complete"]})
    assert [(run.algorithm, run.topology) for run in found.runs] == [
        ("allreduce_sgd", None),
        ("gossip_sgd", "ring"),
        ("gossip_sgd", "complete"),
    ]
    assert found.merged == 1


def test_what_another_graph_or_rule_reads_is_left_out_and_merged() -> None:
    found = sweep(
        algorithm={"value": "gossip_sgd"},
        topology={"values": ["ring", "random_regular"]},
        **{"topology.degree": {"values": [2, 3]}, "weights.edge": {"value": 0.1}},
    )
    assert [(run.topology, run.options.get("topology.degree")) for run in found.runs] == [
        ("ring", None),
        ("random_regular", 2),
        ("random_regular", 3),
    ]
    assert found.merged == 1


def test_what_another_split_reads_is_left_out_and_merged() -> None:
    found = sweep(
        problem={"value": "softmax"},
        partition={"values": ["iid", "dirichlet"]},
        **{"partition.alpha": {"values": [0.1, 1.0]}},
    )
    assert [(run.partition, run.options.get("partition.alpha")) for run in found.runs] == [
        ("iid", None),
        ("dirichlet", 0.1),
        ("dirichlet", 1.0),
    ]
    assert found.merged == 1


def test_a_run_has_one_batch() -> None:
    run = Run.from_dict({**BASE, "problem": "softmax", "total_batch": 8, "batch_size": 3})
    with pytest.raises(InputError, match="batch_size: total_batch=8 over workers=4 says 2, got 3; leave one out"):
        run.resolve()


def test_a_total_batch_takes_the_place_of_each_workers_own() -> None:
    found = sweep(
        workers={"values": [2, 8]},
        problem={"value": "softmax"},
        batch_size={"value": 4},
        total_batch={"values": [None, 16]},
        algorithm={"value": "allreduce_sgd"},
    )
    assert [(run.workers, run.batch_size, run.total_batch) for run in found.runs] == [
        (2, 4, None),
        (2, 8, 16),
        (8, 4, None),
        (8, 2, 16),
    ]


def test_changes_fix_a_parameter_or_give_it_several_values() -> None:
    content = {"parameters": {name: {"value": value} for name, value in BASE.items()}}
    assert [run.steps for run in parse(content, changes={"steps": 7}).runs] == [7]
    found = parse(content, changes={"seed": [1, 2]})
    assert ([run.seed for run in found.runs], found.varied) == ([1, 2], ("seed",))


def test_the_metric_and_the_project_are_kept() -> None:
    content = {
        "name": "n",
        "project": "p",
        "metric": {"name": "loss", "goal": "minimize", "target": 1e-3},
        "parameters": {name: {"value": value} for name, value in BASE.items()},
    }
    found = parse(content)
    assert (found.name, found.project, found.metric["target"]) == ("n", "p", 1e-3)
    assert parse({"parameters": content["parameters"]}, default_name="file").name == "file"


# -- random sweeps, as W&B draws them ---------------------------------------------------------------------------------


def test_a_random_sweep_has_run_cap_runs_and_the_same_ones_every_time() -> None:
    first, second = (sweep("random", 10, learning_rate={"min": 0.0, "max": 1.0}) for _ in range(2))
    assert len(first.runs) == 10
    assert [run.id for run in first.runs] == [run.id for run in second.runs]
    assert [run.id for run in sweep("random", 4, learning_rate={"min": 0.0, "max": 1.0}).runs] == [
        run.id for run in first.runs[:4]
    ]
    assert first.varied == ("learning_rate",)


def test_the_same_file_means_the_same_runs_in_another_process(tmp_path: Path) -> None:
    file = tmp_path / "random.yaml"
    parameters = {**{k: {"value": v} for k, v in BASE.items()}, "learning_rate": {"min": 1e-3, "max": 1.0}}
    file.write_text(yaml.safe_dump({"method": "random", "run_cap": 3, "parameters": parameters}))
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from dopt.sweeps.spec import read; print(*(r.id for r in read(sys.argv[1]).runs))",
            file,
        ],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == [run.id for run in spec.read(file).runs]


def test_a_range_of_whole_numbers_is_drawn_whole_and_one_of_reals_real() -> None:
    whole = drawn(min=0, max=3)
    assert set(whole) == {0, 1, 2, 3}
    real = drawn(min=0.0, max=3.0)
    assert ((real >= 0) & (real <= 3)).all()
    assert len(set(real)) == len(real)
    assert abs(real.mean() - 1.5) < 4 * 3 / np.sqrt(12 * len(real))


@pytest.mark.parametrize(
    ("parameter", "law"),
    [
        ({"distribution": "uniform", "min": 1, "max": 3}, lambda x: (x - 1) / 2),
        (
            {"distribution": "log_uniform_values", "min": 1e-4, "max": 1.0},
            lambda x: (np.log(x) - np.log(1e-4)) / -np.log(1e-4),
        ),
        ({"distribution": "log_uniform", "min": -3, "max": 0}, lambda x: (np.log(x) + 3) / 3),
    ],
    ids=lambda p: p["distribution"] if isinstance(p, dict) else "",
)
def test_a_distribution_is_the_one_that_wandb_names(parameter: dict[str, Any], law: Any) -> None:
    """The distribution function of each draw is uniform on [0, 1]: Kolmogorov-Smirnov."""
    u = np.sort(law(drawn(**parameter)))
    assert u[0] >= 0
    assert u[-1] <= 1
    distance = np.abs(u - (np.arange(len(u)) + 0.5) / len(u)).max()
    assert distance < 2 / np.sqrt(len(u))


def test_normal_and_log_normal_have_their_mu_and_sigma() -> None:
    normal = drawn(distribution="normal", mu=10, sigma=2)
    logs = np.log(drawn(distribution="log_normal", mu=-1, sigma=0.5))
    for values, mu, sigma in ((normal, 10, 2), (logs, -1, 0.5)):
        assert abs(values.mean() - mu) < 4 * sigma / np.sqrt(len(values))
        assert abs(values.std() / sigma - 1) < 0.2


@pytest.mark.parametrize("name", ["q_uniform", "q_log_uniform_values"])
def test_a_quantised_distribution_gives_multiples_of_q(name: str) -> None:
    values = drawn(distribution=name, min=0.5, max=4.0, q=0.5)
    np.testing.assert_allclose(values / 0.5, np.round(values / 0.5))
    assert (values.min(), values.max()) == (0.5, 4.0)
    whole = sweep("random", 20, steps={"distribution": name, "min": 10, "max": 90, "q": 10}, learning_rate=0.1)
    assert {type(run.steps) for run in whole.runs} == {int}
    assert {run.steps % 10 for run in whole.runs} == {0}


def test_categories_come_as_often_as_their_probabilities_say() -> None:
    values = drawn(values=[0.1, 0.2, 0.3], probabilities=[0.7, 0.3, 0.0])
    assert set(values) == {0.1, 0.2}
    assert abs((values == 0.1).mean() - 0.7) < 4 * np.sqrt(0.21 / len(values))
    even = drawn(values=[0.1, 0.2])
    assert abs((even == 0.1).mean() - 0.5) < 4 * np.sqrt(0.25 / len(even))
    assert set(drawn(10, distribution="constant", value=0.3)) == {0.3}


# -- what a file must not say -----------------------------------------------------------------------------------------


def without(name: str) -> dict[str, Any]:
    return {"parameters": {k: {"value": v} for k, v in BASE.items() if k != name}}


def adding(**parameters: Any) -> dict[str, Any]:
    return {"parameters": {**without("")["parameters"], **parameters}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "sweep: must be a mapping"),
        ({}, "sweep.parameters"),
        ({"parameters": {}}, "sweep.parameters"),
        ({**adding(), "parameter": {}}, "did you mean 'parameters'"),
        ({**adding(), "early_terminate": {}}, "sweep: unknown key 'early_terminate'"),
        (adding(seed={"vales": [1]}), "sweep.parameters.seed: unknown key 'vales'; did you mean 'value"),
        (adding(seed=3), "sweep.parameters.seed: must be a mapping such as `value: 3`"),
        (adding(seed={"values": []}), "sweep.parameters.seed.values: must be a list of at least one"),
        (adding(seed={"values": 3}), "sweep.parameters.seed.values: must be a list"),
        (adding(seed={"min": 0, "max": 3}), "need method: random"),
        (adding(seeds={"value": 3}), "seeds: no such field; did you mean 'seed'"),
        (without("workers"), "workers: every run needs one"),
        ({**adding(), "method": "bayes"}, "must be grid or random, got 'bayes'"),
        ({**adding(), "method": "random"}, "sweep.run_cap: a random sweep needs the number of runs"),
        ({**adding(), "method": "random", "run_cap": 0}, "sweep.run_cap"),
        ({**adding(), "metric": {"nam": "loss"}}, "sweep.metric: unknown key 'nam'; did you mean 'name'"),
        ({**adding(), "metric": {"goal": "min"}}, "sweep.metric.goal: must be minimize or maximize, got 'min'"),
        ({**adding(), "metric": {"name": "loss", "target": "low"}}, "sweep.metric.target: must be a number"),
        (
            {**adding(metrics={"value": ["grad_norm"]}), "metric": {"target": 0.1}},
            "sweep.metric.name: no run of this sweep has loss",
        ),
    ],
)
def test_a_file_that_means_nothing_is_refused_in_one_line(content: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(content)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ({"distribution": "uniforn", "min": 0, "max": 1}, "did you mean 'uniform'"),
        ({"distribution": "uniform", "max": 1}, ".min: uniform needs a number, got None"),
        ({"distribution": "uniform", "min": "a", "max": 1}, ".min: uniform needs a number, got 'a'"),
        ({"min": 2.0, "max": 1.0}, "min <= max"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "0 < min <= max"),
        ({"distribution": "categorical"}, ".values: must be a list"),
        ({"values": [0.1, 0.2], "probabilities": [1.0]}, ".probabilities: must be one for each"),
        ({"values": [0.1, 0.2], "probabilities": [0.5, 0.6]}, "sum to 1"),
        ({"values": [0.1, 0.2], "probabilities": [1.5, -0.5]}, ".probabilities"),
        ({"values": [0.1, 0.2], "probabilities": 0.5}, ".probabilities"),
        ({"distribution": "constant"}, ".value: a constant needs its value"),
        ({"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0}, ".q"),
        ({"distribution": ["uniform"], "min": 0, "max": 1}, ".distribution"),
    ],
)
def test_a_distribution_that_means_nothing_is_refused_in_one_line(parameter: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        sweep("random", 5, learning_rate=parameter)
    assert str(caught.value).startswith("sweep.parameters.learning_rate")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["parameters: [", "a: b: c", "x: !!python/object:os.system {}", "\tx: 1"])
def test_a_file_that_is_not_yaml_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=r"bad\.yaml is not YAML") as caught:
        spec.read(file)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_looked_for_nearby(tmp_path: Path) -> None:
    (tmp_path / "connectivity.yaml").write_text("")
    with pytest.raises(InputError, match=r"did you mean 'connectivity\.yaml'"):
        spec.read(tmp_path / "conectivity.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E5", 1e5), ("-2e3", -2000.0), ("+1.5e+2", 150.0), (".5e1", 5.0), ("3", 3), ("0.1", 0.1)],
)
def test_numbers_are_numbers(text: str, value: float) -> None:
    found = load_yaml(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["ring", "e3", "1e", "1e-3s", "0x"])
def test_words_are_words(text: str) -> None:
    assert load_yaml(text) == text


# -- the files that we ship -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_file_is_called_as_its_file_and_a_wandb_agent_makes_its_very_runs(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent puts one grid point as --key=value in the place of ${args}."""
    content = load_yaml(file.read_text())
    assert content["command"] == ["${env}", "dopt", "run", "${args}"]
    asked: list[Run] = []

    def instead(run: Run, **rest: Any) -> Any:
        asked.append(run)
        raise InputError("enough seen")

    monkeypatch.setattr(dopt, "run", instead)
    found = spec.read(file)
    ours = {run.id for run in found.runs}
    assert ours
    assert found.name == file.stem
    assert found.merged == 0 or len(ours) > 1
    for pick in (0, -1):
        point = {
            name: p["value"]
            if "value" in p
            else p["values"][pick]
            if "values" in p
            else p["min" if pick == 0 else "max"]
            for name, p in content["parameters"].items()
        }
        assert main(["run", *(f"--{name}={value}" for name, value in point.items())]) == 2
        assert {**asked[-1].to_dict(), **point} == asked[-1].to_dict()
        if content.get("method", "grid") == "grid":
            assert asked[-1].id in ours


def test_a_wandb_agents_command_runs(capsys: pytest.CaptureFixture) -> None:
    content = load_yaml((ROOT / "benchmarks" / "connectivity_delay.yaml").read_text())
    point = {name: p["value"] if "value" in p else p["values"][0] for name, p in content["parameters"].items()}
    # suboptimality is left out, since f* takes longer than the run
    args = [f"--{k}={v}" for k, v in {**point, "steps": 20, "metrics": "['loss']"}.items()]
    assert main(["run", *args, "--wandb", "off"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "bytes_sent" in said.out


# -- a run and its identity ---------------------------------------------------------------------------------------------

RUNS: dict[str, dict[str, Any]] = {
    "allreduce": BASE,
    "gossip": {**BASE, "algorithm": "gossip_sgd", "topology": "torus", "workers": 9, "topology.shape": [3, 3]},
    "delayed": {**BASE, "algorithm": "delayed_gossip_sgd", "delay": "geometric", "delay.max": 8},
    "constant delay": {**BASE, "algorithm": "delayed_sgd", "delay": 3, "algorithm.read": "queue"},
    "server": {**BASE, "algorithm": "async_sgd", "cluster": "exponential", "cluster.straggler": 10.0},
    "data": {**BASE, "problem": "mlp", "partition": "dirichlet", "partition.alpha": 0.1, "batch_size": 4},
    "optax": {
        **BASE,
        "optimizer": "adam",
        "optimizer.b1": 0.8,
        "learning_rate.schedule": "cosine_decay",
        "learning_rate.decay_steps": 20,
    },
    "metrics": {**BASE, "metrics": ["loss", "grad_norm"], "precision": "float64"},
}


@pytest.mark.parametrize("flat", RUNS.values(), ids=RUNS)
def test_a_run_goes_through_its_flat_form(flat: dict[str, Any]) -> None:
    run = Run.from_dict(flat)
    assert Run.from_dict(run.to_dict()) == run
    resolved = run.resolve()
    assert Run.from_dict(resolved.to_dict()) == resolved
    assert resolved.resolve() == resolved
    assert resolved.id == run.id == Run.from_dict(resolved.to_dict()).id


@pytest.mark.parametrize("flat", RUNS.values(), ids=RUNS)
def test_an_explicit_default_is_the_implicit_one(flat: dict[str, Any]) -> None:
    run = Run.from_dict(flat)
    for name, value in run.resolve().to_dict().items():
        assert Run.from_dict({**flat, name: value}).id == run.id, name


def test_every_field_that_is_read_is_part_of_the_identity() -> None:
    flat = {**BASE, "algorithm": "gossip_sgd", "problem": "softmax"}
    others = {
        "algorithm": "delayed_gossip_sgd",
        "workers": 8,
        "learning_rate": 0.2,
        "optimizer": "adam",
        "problem": "logistic",
        "partition": "by_label",
        "topology": "complete",
        "weights": "lazy",
        "cluster": "constant",
        "steps": 21,
        "batch_size": 2,
        "seed": 1,
        "record_every": 5,
        "record_seconds": 4.0,
        "metrics": ("loss",),
        "eval_samples": 100,
        "precision": "float64",
        "executor": "mesh",
        "strict": False,
        "problem.l2": 0.5,
        "algorithm.adapt_then_combine": True,
    }
    ids = [Run.from_dict(flat).id, *(Run.from_dict({**flat, name: value}).id for name, value in others.items())]
    assert len(set(ids)) == len(ids)
    assert all(len(i) == 16 and int(i, 16) >= 0 for i in ids)


def test_an_identity_is_the_same_in_every_process() -> None:
    program = "import sys, json; from dopt import Run; print(*(Run.from_dict(r).id for r in json.loads(sys.argv[1])))"
    import json

    said = subprocess.run(
        [sys.executable, "-c", program, json.dumps(list(RUNS.values()))],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == [Run.from_dict(flat).id for flat in RUNS.values()]


def own_problem(b: float = 1.0, **changes: Any) -> Problem:
    data = {"b": np.full((4, 2, 3), b)}
    given = {"init": lambda key: jnp.zeros(3), "loss": distance, "data": data, **changes}
    return Problem(**given)


def distance(x: Any, batch: Any) -> Any:
    return jnp.mean(jnp.sum((x - batch["b"]) ** 2, -1))


def other_distance(x: Any, batch: Any) -> Any:
    return jnp.mean(jnp.sum(jnp.abs(x - batch["b"]), -1))


def test_the_content_of_ones_own_problem_is_part_of_the_identity() -> None:
    problems = [
        own_problem(),
        own_problem(b=2.0),
        own_problem(counts=np.array([1, 2, 2, 2])),
        own_problem(loss=other_distance),
        own_problem(weighted=True),
        own_problem(start=np.ones((4, 3))),
        own_problem(test=np.ones(3)),
    ]
    run = Run(algorithm="allreduce_sgd", workers=4, learning_rate=0.1, steps=5)
    ids = [identity(run.resolve(problem=problem), {"problem": problem}) for problem in problems]
    assert len(set(ids)) == len(ids)
    assert ids[0] == identity(run.resolve(problem=own_problem()), {"problem": own_problem()})
    starts = [identity(run.resolve(), {"start": np.full((4, 3), value)}) for value in (0.0, 1.0)]
    assert len({*starts, run.id}) == 3


def test_the_content_of_ones_own_graph_is_part_of_the_identity(tmp_path: Path) -> None:
    run = Run(algorithm="gossip_sgd", workers=4, learning_rate=0.1, problem="quadratic", steps=5)
    graphs = [nx.cycle_graph(4), nx.complete_graph(4), np.full((4, 4), 0.25), np.eye(4) / 2 + 1 / 8]
    ids = [identity(run.resolve(graph=graph), {"graph": graph}) for graph in graphs]
    assert len(set(ids)) == len(ids)
    assert ids[0] == identity(run.resolve(graph=nx.cycle_graph(4)), {"graph": nx.cycle_graph(4)})
    file = tmp_path / "graph.edges"
    from_file = dataclasses.replace(run, topology=str(file))
    seen = []
    for graph in (nx.cycle_graph(4), nx.complete_graph(4)):
        nx.write_edgelist(graph, file, data=False)
        seen.append(dataclasses.replace(from_file).id)
    assert seen[0] != seen[1]


def test_a_run_of_ones_own_bears_that_identity() -> None:
    problem = own_problem()
    result = dopt.run(
        Run(algorithm="gossip_sgd", workers=4, learning_rate=0.1, steps=5), problem=problem, graph=nx.complete_graph(4)
    )
    assert result.id == identity(result.run, {"problem": problem, "graph": nx.complete_graph(4)})
    np.testing.assert_allclose(result.params, 1 - 0.8**5 * np.ones((4, 3)), rtol=1e-6)
