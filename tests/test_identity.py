"""A run's id is a hash of all that can change its result, and of nothing else: fields, graph, matrix, data, files, code."""

from __future__ import annotations

import collections
import dataclasses
import functools
import gzip
import importlib
import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

import dopt
from dopt import Checkpoints, InputError, Problem, Run, code, data, mixing, topology
from dopt.config import identity, matrices
from dopt.config.identity import FRESH, PLUGINS, digests, fresh, hashed, identify, outside
from dopt.facts import clock
from dopt.problems import PROBLEMS
from dopt.registry import Entry

BASE: dict[str, Any] = {
    "algorithm": "gossip_sgd",
    "workers": 4,
    "learning_rate": 0.1,
    "steps": 4,
    "problem": "consensus",
}
SCALE = 1.0
settings: Any = None  # a module, of a test


def make(**changes: Any) -> Run:
    return Run.from_dict({**BASE, **changes})


def square(x: Any, batch: Any) -> Any:
    return SCALE * jnp.mean((x - batch) ** 2)


def problem(**changes: Any) -> Problem:
    given: dict[str, Any] = {"init": lambda key: jnp.zeros(1), "loss": square, "data": np.zeros((4, 2, 1))}
    return Problem(**{**given, **changes})


def of(handed_over: Problem) -> str:
    return identity(Run.from_dict({**BASE, "problem": None}).resolve(problem=handed_over), {"problem": handed_over})


# -- what is handed over ----------------------------------------------------------------------------------------------


def closing_over(value: Any) -> Callable:
    return lambda x, batch: jnp.mean((x - value) ** 2)


@dataclasses.dataclass(frozen=True)
class Shifted:
    by: float

    def __call__(self, x: Any, batch: Any) -> Any:
        return jnp.mean((x - self.by) ** 2)


def plus(by: float, x: Any, batch: Any) -> Any:
    return jnp.mean((x - by) ** 2)


def with_default(by: float) -> Callable:
    def loss(x: Any, batch: Any, shift: float = by) -> Any:
        return jnp.mean((x - shift) ** 2)

    return loss


LOSSES: dict[str, Callable[[float], Callable]] = {
    "a closure cell": closing_over,
    "an array in a cell": lambda by: closing_over(jnp.full(1, by)),
    "a dataclass": Shifted,
    "a method": lambda by: Shifted(by).__call__,
    "a partial": lambda by: functools.partial(plus, by),
    "a default": with_default,
    "a jitted function": lambda by: jax.jit(closing_over(by)),
    "a mapped function": lambda by: jax.vmap(jax.jit(jax.vmap(closing_over(by), in_axes=(None, 0))), in_axes=(None, 0)),
    "a wrapped function": lambda by: jax.checkpoint(closing_over(by)),
    "a function in a cell": lambda by: closing_over_function(closing_over(by)),
}


@dataclasses.dataclass
class Given:
    by: dataclasses.InitVar[float]

    def __post_init__(self, by: float) -> None:
        self.shift = by


class Flipped(np.ndarray):
    def __rsub__(self, x: Any) -> Any:
        return np.asarray(self) - x


def closing_over_what_also_holds(by: float) -> Callable:
    holder = type("Holder", (dict,), {})()
    holder.by = by
    return closing_over(holder)


LOSSES |= {
    "a dataclass's argument that is no field": lambda by: closing_over(Given(by)),
    "a default of a mapping": lambda by: closing_over(collections.defaultdict(functools.partial(float, by))),
    "a mapping's attribute": closing_over_what_also_holds,
    "an order of keys": lambda by: closing_over({"a": 1, "b": 2} if by == 1 else {"b": 2, "a": 1}),
    "a value of a class": lambda by: closing_over(type("Scaled", (), {"by": by, "__module__": __name__})),
    "a kind of array": lambda by: closing_over(np.ones(1).view(np.ndarray if by == 1 else Flipped)),
}


def closing_over_function(inner: Callable) -> Callable:
    return lambda x, batch: inner(x, batch)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_value_that_a_loss_holds_is_part_of_the_id(kind: str) -> None:
    one, again, other = (problem(loss=LOSSES[kind](by)) for by in (1.0, 1.0, 2.0))
    assert of(one) == of(again)
    assert of(one) != of(other)
    assert not fresh(digests(make(problem=None).resolve(problem=one), {"problem": one}))


def test_every_field_of_a_problem_is_part_of_the_id() -> None:
    changes: dict[str, Any] = {
        "init": lambda key: jnp.ones(1),
        "loss": lambda x, batch: jnp.mean(jnp.cos(x)),
        "data": np.ones((4, 2, 1)),
        "counts": np.full(4, 2),
        "test": np.zeros(3),
        "metrics": {"norm": lambda x, test: jnp.sum(x)},
        "optimum": lambda: 0.0,
        "start": np.ones((4, 1)),
        "weighted": True,
        "touched": lambda size: (1, 1),
        "note": "a note",
        "layout": dopt.Layout(1, lambda x: x, lambda x: x),
        "weighted_loss": lambda x, batch, weights: jnp.sum(weights * x),
    }
    assert set(changes) == {f.name for f in dataclasses.fields(Problem)}
    ids = [of(problem()), *(of(problem(**{name: value})) for name, value in changes.items())]
    assert len(set(ids)) == len(ids)


def test_two_functions_of_one_line_differ() -> None:
    one, other = lambda x: x + 1, lambda x: x + 1  # fmt: skip
    assert code.digest(one) != code.digest(other)
    assert code.digest(one) == code.digest(one)


def test_a_function_has_a_place_in_its_text_whatever_the_bytecode() -> None:
    text = "a = [lambda: 1, lambda: (), lambda x: lambda y: x, (lambda z: [z for _ in z])]\n\n@a\ndef f(x):\n    pass\n"
    found = {}

    def walk(code_object: Any) -> None:
        for inner in code_object.co_consts:
            if hasattr(inner, "co_code") and inner.co_name in ("<lambda>", "f"):
                found[inner.co_qualname, inner.co_consts[-1:], inner.co_varnames] = code.place(inner, text)
                walk(inner)

    walk(compile(text, "x", "exec"))
    assert sorted(found.values()) == [(1, 5), (1, 16), (1, 28), (1, 38), (1, 52), (4, 0)]


def test_a_global_that_a_function_names_is_part_of_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code.digest(square)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert code.digest(square) != before


def through_a_module(x: Any) -> Any:
    return settings.inner.scale * settings.loss(x)


def test_what_a_function_reads_through_a_module_is_part_of_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/__init__.py").write_text(
        "from . import inner\nfactor = 1.0\ndef loss(x): return factor * x\n"
    )
    (tmp_path / "settings/inner.py").write_text("import settings\nscale, other = 1.0, 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = importlib.import_module("settings")
    monkeypatch.setitem(globals(), "settings", loaded)
    first = code.digest(through_a_module)
    for holder, name in ((loaded, "factor"), (loaded.inner, "scale")):
        with monkeypatch.context() as patch:
            patch.setattr(holder, name, 2.0)
            assert code.digest(through_a_module) != first
    with monkeypatch.context() as patch:
        patch.setattr(loaded.inner, "other", 2.0)
        assert code.digest(through_a_module) == first


def even(n: int) -> bool:
    return n == 0 or odd(n - 1)


def odd(n: int) -> bool:
    return n != 0 and even(n - 1)


def test_what_holds_itself_has_a_digest() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for value in (even, circle, {"a": circle}):
        assert code.digest(value) == code.digest(value)


def test_arrays_are_told_apart_by_type_shape_and_bytes() -> None:
    values = [
        np.zeros(4),
        np.zeros(4, np.float32),
        np.zeros((2, 2)),
        np.array([0.0, 0, 0, -0.0]),
        [0.0] * 4,
        (0.0,) * 4,
    ]
    values += [
        np.arange(4),
        jax.random.key(0),
        jax.random.key(1),
        {"x": np.zeros(4)},
        np.float64(0),
        0.0,
        0,
        False,
        None,
    ]
    assert len({code.digest(value) for value in values}) == len(values)


def test_a_cell_of_a_notebook_is_hashed_by_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for number, text in enumerate(["def cell(x):\n    return x\n", "def cell(x):\n    return 2 * x\n"] * 2):
        name, module = f"<cell {number}>", {"__name__": "__main__"}
        monkeypatch.setitem(linecache.cache, name, (len(text), None, text.splitlines(True), name))
        exec(compile(text, name, "exec"), module)
        found.append(code.digest(module["cell"]))
    assert found[0] == found[2] != found[1] == found[3]


class Odd:
    def __call__(self, x: Any, batch: Any) -> Any:
        return jnp.mean(x**2)


def test_what_cannot_be_hashed_is_another_run_each_time() -> None:
    for loss in (Odd(), closing_over(np.random.default_rng(0)), eval("lambda x, batch: (x ** 2).sum()")):
        unknown = problem(loss=loss)
        assert of(unknown) != of(unknown)
        (line,) = fresh(digests(make(problem=None).resolve(problem=unknown), {"problem": unknown}))
        assert line.startswith("problem cannot be hashed: it has ")


def test_a_run_that_cannot_be_hashed_says_so_and_keeps_no_checkpoint(tmp_path: Path) -> None:
    unknown, run = problem(loss=Odd()), make(problem=None)
    with pytest.raises(InputError, match=r"^checkpoint: problem cannot be hashed: .*Odd object.*; leave it out$"):
        dopt.run(run, problem=unknown, checkpoint=Checkpoints(tmp_path / "kept", 2))
    assert not (tmp_path / "kept").exists()
    one, other = (dopt.run(run, problem=unknown) for _ in range(2))
    assert one.id != other.id
    assert any("problem cannot be hashed" in note for note in one.notes)


def test_another_loss_does_not_go_on_from_the_first_ones_checkpoint(tmp_path: Path) -> None:
    run, where = make(problem=None), Checkpoints(tmp_path / "kept", 2)
    dopt.run(run, problem=problem(), checkpoint=where)
    for other in (problem(loss=lambda x, batch: jnp.mean(jnp.cos(x))), problem(init=lambda key: jnp.ones(1))):
        with pytest.raises(InputError, match=r"^checkpoint: .* has run=\w{16}, this run has run=\w{16}"):
            dopt.run(run, problem=other, checkpoint=where)


# -- code in files ----------------------------------------------------------------------------------------------------

PLUGIN = """
import numpy
from helper import factor
from parts.inner import shift
from dopt.mixing.rules import WEIGHTS
import networkx as nx

@WEIGHTS.register(source="here")
def lazier(graph):
    w = numpy.full((len(graph), len(graph)), 1 / len(graph))
    return factor(w)
"""
FILES = {
    "plugin.py": PLUGIN,
    "helper.py": "def factor(w):\n    return w\n",
    "parts/__init__.py": "",
    "parts/inner.py": "from . import deep\nshift = deep.shift\n",
    "parts/deep.py": "shift = 1\n",
}


def id_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a run with the plug-in in that folder."""
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(folder))
        importlib.import_module("plugin")
        try:
            return make(weights="lazier").id
        finally:
            del mixing.WEIGHTS["lazier"]
            for name in ("plugin", "helper", "parts", "parts.inner", "parts.deep"):
                del sys.modules[name]


def test_the_text_of_a_plugin_and_of_what_it_imports_is_part_of_the_id_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = {"": "", "plugin.py": PLUGIN.replace("1 / len(graph)", "0.25"), "parts/deep.py": "shift = 2\n", "again": ""}
    ids = []
    for number, (name, text) in enumerate(edits.items()):
        for file, content in {**FILES, **({name: text} if name in FILES else {})}.items():
            path = tmp_path / str(number) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        ids.append(id_with(tmp_path / str(number), monkeypatch))
    first, edited, deep, again = ids
    assert first == again
    assert len({first, edited, deep}) == 3


def test_what_a_file_imports_is_found_without_running_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "never_run_a.py").write_text("def f():\n    import never_run_b\n    return never_run_b.x\n")
    (tmp_path / "never_run_b.py").write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = code.module_text(str(tmp_path / "never_run_a.py"), {})
    (tmp_path / "never_run_b.py").write_text("x = 1\nraise SystemExit\n")
    assert code.module_text(str(tmp_path / "never_run_a.py"), {}) != before
    assert "never_run_b" not in sys.modules


def test_a_file_that_changed_since_it_was_loaded_is_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edited_later.py").write_text("def loss(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = importlib.import_module("edited_later")
    assert code.digest(loaded.loss) == code.digest(loaded.loss)
    (tmp_path / "edited_later.py").write_text("def loss(x):\n    return 2 * x\n")
    with pytest.raises(code.UnknownError, match=r"edited_later\.py was changed since it was loaded"):
        code.digest(loaded.loss)


def test_dopts_own_plugins_have_no_digest_of_code() -> None:
    for name, known in PLUGINS:
        assert not [entry for entry in known if outside({name: entry})]


def test_code_is_hashed_once_for_many_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    mixing.WEIGHTS.register(name="of_a_test")(lambda graph: np.full((len(graph), len(graph)), 1 / len(graph)))
    try:
        runs = [make(seed=seed, weights="of_a_test").resolve() for seed in range(5)]
        asked: list[Any] = []
        digest = code.digest
        monkeypatch.setattr(code, "digest", lambda value: asked.append(value) or digest(value))
        identify(runs)
    finally:
        del mixing.WEIGHTS["of_a_test"]
    assert len(asked) == 2  # what names it, for the id, and the function itself, for what is made by it
    assert all("code of weights" in run.digests for run in runs)


# -- graphs, matrices, data -------------------------------------------------------------------------------------------


def test_another_function_under_the_name_is_another_graph_and_run() -> None:
    ids = []
    for maker in (nx.cycle_graph, nx.complete_graph):
        topology.TOPOLOGIES.register(name="of_a_test")(maker)
        run = make(topology="of_a_test").resolve()
        ids.append(run.id)
        np.testing.assert_array_equal(topology.adjacency(matrices.network(run)), topology.adjacency(maker(4)))
    del topology.TOPOLOGIES["of_a_test"]
    assert len(set(ids)) == 2


TODAY = {"reach": 2, "share": 0.1, "scale": 1.0}  # what plug-ins read


def reaching(workers: int) -> nx.Graph:
    return nx.circulant_graph(workers, range(1, TODAY["reach"]))


def shared(graph: Any) -> np.ndarray:
    return mixing.weights(graph) * (1 - TODAY["share"]) + TODAY["share"] * np.eye(len(graph))


def scaled() -> data.Dataset:
    return data.Dataset({"x": TODAY["scale"] * np.ones((8, 2)), "y": np.arange(8) % 2}, None, 2)


@pytest.mark.parametrize(
    ("field", "known", "maker", "changed", "made"),
    [
        ("topology", topology.TOPOLOGIES, reaching, {"reach": 3}, matrices.matrix),
        ("weights", mixing.WEIGHTS, shared, {"share": 0.2}, matrices.matrix),
        ("data", data.SETS, scaled, {"scale": 3.0}, lambda run: data.load(str(run.data)).train["x"]),
    ],
)
def test_what_a_plugin_made_before_what_it_reads_was_changed_is_not_used_again(
    field: str,
    known: Any,
    maker: Callable,
    changed: dict[str, Any],
    made: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(known, "of_a_test", Entry("of_a_test", maker, "", {"kind": "classes"}))
    fields = {"workers": 6, "problem": "softmax", field: "of_a_test"}
    before = (first := make(**fields).resolve()).id, made(first)
    monkeypatch.setattr(f"{__name__}.TODAY", TODAY | changed)
    after = (second := make(**fields).resolve()).id, made(second)
    assert before[0] != after[0]
    assert np.abs(before[1] - after[1]).max() > 0.01


def test_a_clock_follows_its_trace_as_it_is_now(tmp_path: Path) -> None:
    file, ends = tmp_path / "trace.csv", []
    for seconds in (1.0, 3.0):
        rows = [f"{i % 2},{max(0, i - 1)},{i},{seconds}" for i in range(20)]
        file.write_text("\n".join(["worker,read_version,write_version,seconds", *rows]))
        options = {"cluster": "trace", "cluster.file": str(file), "steps": 8}
        run = Run.from_dict({**BASE, "algorithm": "async_sgd", "workers": 2, **options}).resolve()
        ends.append(clock.served(run, 0.0)[0].time[-1])
    assert ends[1] == 3 * ends[0]


def drawn_graph(workers: int) -> nx.Graph:
    weight = np.random.default_rng().uniform(0.1, 0.3)  # an order of four workers would come again now and then
    return nx.from_numpy_array(weight * nx.to_numpy_array(nx.path_graph(workers)))


def drawn_weights(graph: Any) -> np.ndarray:
    share = np.random.default_rng().uniform(0.1, 0.4)
    return mixing.weights(graph) * (1 - share) + share * np.eye(len(graph))


def drawn_problem(shards: Any, workers: int) -> Problem:
    return problem(data=np.random.default_rng().standard_normal((workers, 2, 1)))


def drawn_partition(labels: np.ndarray, workers: int) -> list[np.ndarray]:
    return np.array_split(np.random.default_rng().permutation(len(labels)), workers)


@pytest.mark.parametrize(
    ("field", "known", "maker", "more"),
    [
        ("topology", topology.TOPOLOGIES, drawn_graph, {}),
        ("weights", mixing.WEIGHTS, drawn_weights, {}),
        ("problem", PROBLEMS, drawn_problem, {"data": None}),
        ("partition", data.PARTITIONS, drawn_partition, {"problem": "softmax"}),
    ],
)
def test_what_is_drawn_from_the_process_is_refused(
    field: str, known: Any, maker: Callable, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    traits = dict(next(iter(known.values())).traits, data=None)
    monkeypatch.setitem(known, "of_a_test", Entry("of_a_test", maker, "", traits))
    with pytest.raises(InputError, match=f"{field}: of_a_test gives something else each time"):
        dopt.run(make(**{"problem": "consensus", **more, field: "of_a_test"}))


def test_a_graph_file_with_other_edges_or_weights_is_another_run(tmp_path: Path) -> None:
    file, seen = tmp_path / "graph.graphml", []
    plain, weighted, delayed = (nx.cycle_graph(4) for _ in range(3))
    nx.set_edge_attributes(weighted, 0.25, "weight")
    nx.set_edge_attributes(delayed, 2, "delay")
    for graph in (plain, weighted, delayed, nx.complete_graph(4)):
        nx.write_graphml(graph, file)
        run = make(topology=str(file)).resolve()
        seen.append(run.id)
        assert topology.adjacency(matrices.network(run)).sum() == 2 * graph.number_of_edges()
    assert len(set(seen)) == 4


def test_a_graph_is_hashed_as_it_was_drawn() -> None:
    runs = [make(topology="random_regular", workers=16, **{"topology.seed": seed}).resolve() for seed in (0, 0, 1)]
    graphs = [run.digests["graph"] for run in runs]
    assert graphs[0] == graphs[1] != graphs[2]
    assert set(runs[0].digests) == {"graph", "matrix"}


def test_a_matrix_file_is_hashed_by_its_numbers(tmp_path: Path) -> None:
    w = np.full((4, 4), 0.25)
    np.save(tmp_path / "w.npy", w)
    first = make(topology="complete", weights=str(tmp_path / "w.npy")).resolve()
    assert first.digests["matrix"] == make(topology="complete").resolve().digests["matrix"]
    np.save(tmp_path / "w.npy", (w + np.eye(4)) / 2)
    assert make(topology="complete", weights=str(tmp_path / "w.npy")).id != first.id


def test_a_data_file_is_hashed_and_read_as_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPT_DATA_DIR", str(tmp_path))
    seen = []
    for content in (b"+1 1:1\n-1 2:1\n", b"+1 1:1\n-1 2:2\n"):
        (tmp_path / "heart_scale").write_bytes(content)
        run = make(algorithm="allreduce_sgd", workers=2, problem="logistic", data="heart_scale").resolve()
        seen.append((run.digests["data"], float(data.load("heart_scale").train["x"].sum())))
    assert [total for _, total in seen] == [2.0, 3.0]
    assert seen[0][0] != seen[1][0]


def test_a_packed_file_is_hashed_by_what_is_in_it(tmp_path: Path) -> None:
    digests_of = []
    for level, content in ((9, b"a" * 99), (0, b"a" * 99), (9, b"b" * 99)):
        (tmp_path / "x.gz").write_bytes(gzip.compress(content, level))
        digests_of.append(data._content((tmp_path / "x.gz",)))
    assert digests_of[0] == digests_of[1] != digests_of[2]


def test_links_are_hashed_by_their_bytes(tmp_path: Path) -> None:
    file, seen = tmp_path / "links.json", []
    for latency in (0.1, 0.2):
        file.write_text(f'{{"latency": {latency}, "bandwidth": null}}')
        seen.append(make(cluster="constant", **{"cluster.links": str(file)}).id)
    assert seen[0] != seen[1]


def test_a_graph_that_is_handed_over_counts_by_its_content() -> None:
    run = Run.from_dict(BASE)
    reordered = nx.Graph([(3, 0), (2, 3), (1, 2), (0, 1)])
    graphs = [
        nx.cycle_graph(4),
        reordered,
        nx.complete_graph(4),
        np.full((4, 4), 0.25),
        nx.cycle_graph(4).to_directed(),
    ]
    ids = [identity(run.resolve(graph=graph), {"graph": graph}) for graph in graphs]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


def test_an_id_follows_from_fields_and_digests_alone() -> None:
    run = make(topology="random_regular").resolve()
    assert run.id == hashed(run.to_dict(), run.digests)
    assert hashed({**run.to_dict(), "learning_rate": 0.2}, run.digests) != run.id
    assert hashed(run.to_dict(), {**run.digests, "graph": "0"}) != run.id


@pytest.mark.parametrize("weights", ["fastest", "laplacian"])  # eigenvalues have other last bits elsewhere, too
def test_a_kept_matrix_is_not_solved_for_again(weights: str) -> None:
    if weights == "fastest":
        pytest.importorskip("cvxpy")
    run = make(weights=weights).resolve()
    solved = matrices.matrix(run)
    assert matrices.is_solved(run)
    assert run.id
    other = np.full((4, 4), 0.25)
    with matrices.keeping({matrices.source(run): other}):
        assert matrices.matrix(run) is other
        assert make(weights=weights).id != run.id
    assert matrices.matrix(run) is solved
    assert make(weights=weights).id == run.id


def test_the_digests_of_a_problem_that_dopt_made_are_those_of_its_content() -> None:
    from dopt.facts import make_problem

    for name in ("softmax", "quadratic"):
        run = Run.from_dict({**BASE, "problem": name}).resolve()
        one, again = make_problem(run), make_problem(run)
        assert code.digest(one) == code.digest(again)
    assert not any(value.startswith(FRESH) for value in run.digests.values())
    assert set(PROBLEMS)
