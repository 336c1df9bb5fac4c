"""What is handed over in Python, and metrics from outside: optimizers, callbacks, problems and graphs of a sweep."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest

import dopt
from dopt import InputError, Problem, Run, metrics
from dopt.cli import main
from dopt.config.identity import PLUGINS

BASE = {"workers": 4, "problem": "quadratic", "problem.dim": 3, "learning_rate": 0.1, "steps": 12, "record_every": 4}


def described(**changes: Any) -> Run:
    return Run.from_dict({"algorithm": "gossip_sgd", **BASE, **changes})


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    """Two metrics, and one that is none, for as long as these tests run."""

    @dopt.register.metric(of="models")
    def farthest(models: Any, problem: Problem) -> jax.Array:
        """maxᵢ ‖xᵢ - x̄‖."""
        apart = sum(jnp.sum((x - x.mean(0)) ** 2, tuple(range(1, x.ndim))) for x in jax.tree.leaves(models))
        return jnp.sqrt(jnp.max(jnp.asarray(apart)))

    @dopt.register.metric
    def length(model: Any, problem: Problem) -> jax.Array:
        """‖x̄‖."""
        return optax.tree.norm(model)

    @dopt.register.metric
    def no_number(model: Any, problem: Problem) -> Any:
        """The model."""
        return model

    yield
    metrics.METRICS.clear()


def own(workers: int = 4, scale: float = 1.0) -> Problem:
    def loss(x: jax.Array, batch: Any) -> jax.Array:
        return jnp.mean(scale * (x - batch["middle"]) ** 2)

    middle = np.random.default_rng(0).normal(size=(workers, 2, 3))
    return Problem(lambda key: jnp.ones(3), loss, {"middle": middle}, metrics={"first": lambda x, test: x[0]})


# -- metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "executor"),
    [("gossip_sgd", "vmap"), ("gossip_sgd", "shard_map"), ("gossip_sgd", "mesh"), ("ad_psgd", "vmap")],
)
def test_metrics_from_outside_see_the_models_that_a_run_gives(algorithm: str, executor: str) -> None:
    asked = ("farthest", "length", "loss")
    found = dopt.run(described(algorithm=algorithm, executor=executor, metrics=asked))
    models = np.stack(jax.tree.leaves(found.params)[0])
    mean = models.mean(0)
    np.testing.assert_allclose(found.history["length"][-1], np.linalg.norm(mean), rtol=1e-5)
    far = np.linalg.norm(models - mean, axis=1).max()
    np.testing.assert_allclose(found.history["farthest"][-1], far, rtol=1e-4, atol=1e-6)
    assert set(asked) <= set(found.history)


def test_a_metric_that_is_not_named_is_not_recorded_and_changes_no_id() -> None:
    run = described().resolve()
    assert not {name for name in run.digests if "metrics" in name}
    named = described(metrics=("loss", "length")).resolve()
    assert {name for name in named.digests if "metrics" in name} == {"code of metrics length"}
    assert named.id != described(metrics=("loss",)).resolve().id


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("lenght",), r"^metrics: unknown name 'lenght'; did you mean 'length'\?"),
        (("no_number",), r"^metrics: no_number must give a number, got an array of shape \(3,\)"),
    ],
)
def test_a_metric_that_nobody_has_or_that_is_no_number_is_refused(asked: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        dopt.run(described(metrics=asked))


def test_the_list_has_the_metrics_of_all(capsys: pytest.CaptureFixture) -> None:
    assert main(["list", "metrics"]) == 0
    listed = {line.split()[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert {"loss", "accuracy", "farthest"} <= set(listed)
    assert (listed["loss"], listed["farthest"]) == ("dopt", "test_own")


def test_a_problems_own_metrics_are_asked_for_by_name() -> None:
    plain = dict.fromkeys(("problem", "problem.dim"))
    run = Run.from_dict({k: v for k, v in described().to_dict().items() if k not in plain} | {"metrics": ("first",)})
    found = dopt.run(run, problem=own())
    np.testing.assert_allclose(found.history["first"][-1], found.params.mean(0)[0], rtol=1e-5)
    with pytest.raises(InputError, match=r"^metrics: unknown name 'fist'; did you mean 'first'\?"):
        dopt.run(dataclasses.replace(run, metrics=("fist",)), problem=own())


@pytest.mark.parametrize("name", ["loss", "accuracy", "time"])
def test_a_metric_takes_no_name_of_dopts_columns(name: str) -> None:
    with pytest.raises(InputError, match=rf"^metric: the name '{name}' is taken already, by dopt"):
        dopt.register.metric(name=name)(lambda model, problem: 0.0)


# -- a run ------------------------------------------------------------------------------------------------------------


def test_an_optimizer_that_is_handed_over_makes_the_run_of_its_name_without_an_id() -> None:
    named = dopt.run(described(optimizer="adam"))
    handed = dopt.run(described(), optimizer=optax.adam(0.1))
    np.testing.assert_array_equal(named.history["loss"], handed.history["loss"])
    assert (named.id != "", handed.id, handed.run.optimizer) == (True, "", "own")
    assert repr(handed).startswith("Result without id: ")
    with pytest.raises(InputError, match=r"^save: a run with optimizer= has no id"):
        dopt.save(handed, "nowhere")


@pytest.mark.parametrize(
    ("changes", "optimizer", "said"),
    [
        ({}, "adam", r"^optimizer: must be an optax transformation, as optax.adam\(1e-3\), got 'adam'"),
        ({"optimizer": "adam"}, optax.sgd(0.1), "^optimizer: a run with optimizer= does not read it"),
        ({"learning_rate.schedule": "linear"}, optax.sgd(0.1), "^learning_rate.schedule: a run with optimizer="),
        ({"algorithm": "extra"}, optax.adam(0.1), "^optimizer: extra takes sgd only"),
    ],
)
def test_an_optimizer_that_a_run_cannot_take_is_refused(changes: dict[str, Any], optimizer: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        dopt.run(described(**changes), optimizer=optimizer)


def test_a_checkpoint_of_a_run_without_an_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^checkpoint: a run with optimizer= has no id"):
        dopt.run(described(), optimizer=optax.sgd(0.1), checkpoint=dopt.Checkpoints(tmp_path, 4))


def test_a_callback_is_told_each_record_once_in_order() -> None:
    told: list[Any] = []
    found = dopt.run(described(), callback=told.append)
    assert [record["step"] for record in told] == [0, 4, 8, 12]
    for name, column in found.history.items():
        np.testing.assert_array_equal([record[name] for record in told], column)


def test_what_a_callback_raises_ends_the_run() -> None:
    def enough(record: Any) -> None:
        if record["step"] >= 4:
            raise StopIteration(record["step"])

    with pytest.raises(StopIteration, match="4"):
        dopt.run(described(), callback=enough)


# -- a sweep ----------------------------------------------------------------------------------------------------------


def content(**changes: Any) -> dict[str, Any]:
    fields = {"algorithm": "gossip_sgd", "workers": 4, "learning_rate": 0.1, "steps": 4, "metrics": ["loss", "first"]}
    return {"name": "own", "parameters": {name: {"value": value} for name, value in {**fields, **changes}.items()}}


def test_a_sweep_takes_a_problem_and_a_graph_and_knows_their_content_again(tmp_path: Path) -> None:
    def swept(problem: Problem, graph: Any) -> Any:
        return dopt.sweep(content(), results=tmp_path / "own", problem=problem, graph=graph)

    found = swept(own(), nx.star_graph(3))
    assert "first" in found.history
    assert swept(own(), nx.star_graph(3)).runs["id"].tolist() == found.runs["id"].tolist()
    for problem, graph in ((own(scale=2.0), nx.star_graph(3)), (own(), nx.path_graph(4))):
        with pytest.raises(InputError, match="no longer what"):
            swept(problem, graph)
    assert not [known for _, known in PLUGINS if "handed_over" in known]


def test_a_sweep_takes_a_matrix_as_its_graph(tmp_path: Path) -> None:
    found = dopt.sweep(content(), results=tmp_path / "own", problem=own(), graph=np.full((4, 4), 0.25))
    assert found.runs["spectral_gap"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("changes", "handed", "said"),
    [
        ({}, {"problem": "softmax"}, "^problem: must be a dopt.Problem, got str"),
        ({"data": "digits"}, {"problem": own()}, "^data: a sweep with problem= does not read it"),
        ({"topology": "ring"}, {"graph": nx.path_graph(4)}, "^topology: a sweep with graph= does not read it"),
        ({"weights": "lazy"}, {"graph": np.eye(4)}, "^weights: a sweep with a matrix as graph= does not read it"),
        ({}, {"graph": "ring"}, "^graph: must be a networkx graph, or a mixing matrix"),
        ({}, {"problem": own(), "jobs": 2}, "^jobs: problem= and graph= exist only in this process"),
    ],
)
def test_what_a_sweep_cannot_take_is_refused(changes: Any, handed: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        dopt.sweep(content(**changes), results=tmp_path / "own", **handed)
