"""A model that lies on several devices is the same model: gradients, runs and bytes; and the clock shows its bubble."""

from __future__ import annotations

import re
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import DictKey, tree_leaves_with_path

import dopt
from dopt import engine, facts, rings, schedule, theory
from dopt.devices.axes import Axes, state_axes
from dopt.engine import group_of, run_slab
from dopt.facts import clock, timetable
from dopt.problems import PROBLEMS, Shards
from dopt.types import Clock, InputError, Problem

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
WIDTHS = {"tensors": (8, 3, 4), "layers": (6,) * 5}  # each of four parts has something
TRANSFORMER = {"width": 8, "heads": 4, "layers": 4}
RUN = {"algorithm": "allreduce_sgd", "workers": 2, "problem": "mlp", "learning_rate": 0.2, "steps": 6, "batch_size": 8}
RUN |= {"metrics": ("loss",)}
TENSORS = {"problem.hidden": (8,), "problem.layout": "tensors", "problem.parts": 2}
LAYERS = {"problem.hidden": (16,) * 5, "problem.layout": "layers", "problem.parts": 4, "problem.micro_batches": 4}
LAID = [
    (name, layout, parts, micro)
    for name in ("mlp", "transformer")
    for layout, parts, micro in (
        ("tensors", 2, 1),
        ("tensors", 4, 1),
        ("layers", 2, 1),
        ("layers", 2, 4),
        ("layers", 4, 8),
    )
]


@cache
def samples(name: str) -> Shards:
    rng = np.random.default_rng(0)
    if name == "mlp":
        train = {"x": rng.standard_normal((2, 8, 5)), "y": rng.integers(0, 3, (2, 8))}
        return Shards(train, np.full(2, 8), None, 3)
    train = {part: rng.integers(0, 7, (2, 8, 4)) for part in ("x", "y")}
    return Shards(train, np.full(2, 8), None, 7)


def made(name: str, layout: str, parts: int, micro_batches: int) -> tuple[Problem, Problem]:
    """The problem without a layout, and with it."""
    options: dict[str, Any] = {"hidden": WIDTHS[layout]} if name == "mlp" else TRANSFORMER
    build = partial(PROBLEMS[name].make, samples(name), 2, l2=0.1, **options)
    return build(), build(layout=layout, parts=parts, micro_batches=micro_batches)


def cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, dtype if x.dtype.kind == "f" else jnp.int32), tree)


def anything(problem: Problem) -> Any:
    """A model of the problem's shape."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(problem.init, jax.random.key(0))
    return jax.tree.map(lambda s: 0.5 * rng.standard_normal(s.shape), shapes)


def evaluated(problem: Problem, params: Any, batch: Any) -> Any:
    """(loss, gradient), compiled in a hurry."""
    compiled = jax.jit(jax.value_and_grad(problem.loss)).lower(params, batch)
    return compiled.compile(compiler_options={"xla_backend_optimization_level": 0})(params, batch)


@cache
def on_one_device(name: str, layout: str, dtype: Any) -> tuple[Any, Any]:
    """(model, its loss and gradient), under that precision."""
    one, _ = made(name, layout, 2, 1)
    x = cast(anything(one), dtype)
    return x, evaluated(one, x, cast(jax.tree.map(lambda a: a[0], one.data), dtype))


def distance(a: Any, b: Any) -> float:
    """Largest difference of two trees of one form."""
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)))


def ran(given: dict[str, Any], **more: Any) -> dopt.Result:
    return dopt.run(dopt.Run.from_dict({**RUN, **given, **more}))


def plain(given: dict[str, Any]) -> dict[str, Any]:
    """The same run without a layout."""
    return {k: v for k, v in given.items() if k.removeprefix("problem.") not in ("layout", "parts", "micro_batches")}


# -- the same model --


@pytest.mark.parametrize(
    ("name", "layout", "parts", "micro", "dtype"),
    [(*laid, np.float64) for laid in LAID] + [(*laid, np.float32) for laid in LAID if laid[2:] in ((2, 4), (4, 1))],
)
def test_the_gradient_is_that_of_the_model_on_one_device(
    name: str, layout: str, parts: int, micro: int, dtype: Any
) -> None:
    _, laid = made(name, layout, parts, micro)
    assert laid.layout is not None
    with jax.enable_x64(dtype == np.float64):
        x, (value, gradient) = on_one_device(name, layout, dtype)
        batch = cast(jax.tree.map(lambda a: a[0], laid.data), dtype)
        same, parted = evaluated(laid, laid.layout.split(x), batch)
        assert min(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) > 1e-3
        assert abs(float(value - same)) < TOLERANCE[dtype]
        assert distance(gradient, laid.layout.whole(parted)) < TOLERANCE[dtype]


@pytest.mark.parametrize(("name", "layout", "parts", "micro"), LAID)
def test_a_layout_moves_each_number_to_one_place_and_back(name: str, layout: str, parts: int, micro: int) -> None:
    one, laid = made(name, layout, parts, micro)
    assert laid.layout is not None
    x = anything(one)
    y = laid.layout.split(x)
    assert distance(x, laid.layout.whole(y)) == 0
    assert sum(a.size for a in jax.tree.leaves(x)) == sum(a.size for a in jax.tree.leaves(y))
    assert {a.shape[0] for a in jax.tree.leaves(y["parts"])} == {parts}


@pytest.mark.parametrize("layout", ["tensors", "layers"])
@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_a_layout_starts_from_the_same_numbers(name: str, layout: str) -> None:
    one, laid = made(name, layout, 2, 1)
    assert laid.layout is not None
    x, y = (jax.jit(problem.init)(jax.random.key(1)) for problem in (one, laid))
    assert distance(x, laid.layout.whole(y)) == 0


def test_a_batch_that_the_micro_batches_do_not_divide_is_evaluated_all_the_same() -> None:
    one, laid = made("mlp", "layers", 2, 4)
    assert laid.layout is not None
    x, batch = cast(anything(one), np.float32), cast(jax.tree.map(lambda a: a[0, :6], one.data), np.float32)
    value, _ = evaluated(laid, laid.layout.split(x), batch)
    assert float(value) == pytest.approx(float(one.loss(x, batch)), abs=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        {**LAYERS, "workers": 3, "metrics": ("loss", "accuracy")},  # whose shards are not of one length
        {**TENSORS, "algorithm": "delayed_gossip_sgd", "delay": 2},
        {**TENSORS, "algorithm": "async_sgd", "cluster": "constant"},
    ],
    ids=["layers", "gossip", "server"],
)
def test_a_run_with_a_layout_is_the_run_without(given: dict[str, Any]) -> None:
    one, laid = ran(plain(given)), ran(given)
    whole = jax.vmap(facts.make_problem(laid.run).layout.whole)
    assert distance(one.params, whole(laid.params)) < 1e-5
    assert set(one.history) == set(laid.history)
    for name in set(one.history) - {"time"}:
        np.testing.assert_allclose(one.history[name], laid.history[name], rtol=1e-5)
    assert one.history["loss"][-1] < one.history["loss"][0] - 0.01


# -- on devices --


def program(given: dict[str, Any], **more: Any) -> Any:
    return engine.compile(group_of([dopt.Run.from_dict({**RUN, **given, "executor": "mesh", **more}).resolve()]), 1)


@pytest.mark.parametrize(("given", "workers"), [(TENSORS, 4), (LAYERS, 2)], ids=["4 x 2", "2 x 4"])
def test_a_run_on_workers_times_parts_devices_is_the_run_on_one_and_each_has_its_part(
    given: dict[str, Any], workers: int
) -> None:
    given = {**given, "workers": workers, "optimizer.momentum": 0.9, "learning_rate": 0.1}
    compiled, one = program(given), ran(plain(given))
    run = compiled.group.first
    (eight,) = run_slab(compiled, [run])
    assert distance(jax.vmap(compiled.group.facts.problem.layout.whole)(eight.params), one.params) < 1e-5
    np.testing.assert_allclose(eight.history["loss"], one.history["loss"], rtol=1e-5)
    assert one.history["loss"][-1] < one.history["loss"][0] - 0.01

    inputs = engine.pack(compiled.group, compiled.group.facts.runs, 1)
    carry = compiled.start(inputs)
    kept = [x for path, x in tree_leaves_with_path((carry.params, carry.state)) if DictKey("parts") in path]
    assert len(kept) == 2 * len(jax.tree.leaves(carry.params["parts"]))  # the models, and their momentum
    for x in kept:
        assert len(x.sharding.device_set) == 8
        assert {shard.data.size for shard in x.addressable_shards} == {x.size / 8}


def test_tensors_are_summed_between_devices_and_activations_handed_from_stage_to_stage() -> None:
    """With one worker there is nobody else to talk to."""
    tensors, layers = (program(given, workers=1, metrics=()).go.as_text() for given in (TENSORS, LAYERS))
    assert re.search(r"= f32\[[0-9,]*\]\S* all-reduce(-start)?\(", tensors)
    assert "collective-permute" not in tensors
    pairs = re.findall(r"collective-permute(?:-start)?\(.*source_target_pairs=\{(.*?)\}\}", layers)
    assert "{0,1},{1,2},{2,3},{3,0" in pairs  # forward
    assert any("{1,0},{2,1},{3,2" in p for p in pairs)  # and backward
    assert not re.search("all-(gather|to-all)", tensors + layers)


def test_what_is_kept_of_a_part_has_its_parts_where_the_parameter_has_them() -> None:
    shape = partial(jax.ShapeDtypeStruct, dtype=np.float32)
    model = {"parts": {"a": shape((2, 3))}, "whole": {"b": shape((5,))}}
    ring = rings.ring(jax.tree.map(lambda s: np.zeros(s.shape), model), 4)
    state = (optax.adam(0.1).init(ring), {"norm": {"parts": {"a": shape((7,))}}}, ring, Clock(shape(())))
    found = {jax.tree_util.keystr(path): a for path, a in tree_leaves_with_path(state_axes(state, model))}
    assert found["[2]['parts']['a']"] == Axes(True, True, 1)
    assert found["[0][0].mu['parts']['a']"] == Axes(True, True, 1)
    assert found["[2]['whole']['b']"] == found["[1]['norm']['parts']['a']"] == Axes(True, True)
    assert found["[3]"] == Axes(False, False)
    assert state_axes(model, model)["parts"]["a"] == Axes(True, True, 0)


# -- the clock --

PIPELINES = [(1, 1), (1, 5), (2, 1), (2, 4), (4, 8), (8, 3)]


@pytest.mark.parametrize(("stages", "micro"), PIPELINES)
def test_the_bubble_of_the_table_is_the_closed_form(stages: int, micro: int) -> None:
    table = schedule.pipeline(stages, micro)
    assert table.idle == pytest.approx(theory.pipeline_bubble(stages, micro), abs=1e-12)
    assert 1 / table.seconds == pytest.approx(theory.pipeline_speedup(stages, micro))


@pytest.mark.parametrize(("stages", "micro"), PIPELINES)
def test_a_stage_does_one_thing_at_a_time_and_nothing_before_what_it_needs(stages: int, micro: int) -> None:
    table = schedule.pipeline(stages, micro)
    end = {(s, m, b): e for s, m, b, _, e in zip(*table, strict=True)}
    assert len(end) == len(table.stage) == 2 * stages * micro
    for s, m, backward, begin, _ in zip(*table, strict=True):
        needed = (s + 1, m, True) if backward else (s - 1, m, False)
        needed = (s, m, False) if backward and s == stages - 1 else needed
        assert begin >= end.get(needed, 0)
    for s in range(stages):
        own = np.sort(np.stack([table.begin[table.stage == s], table.end[table.stage == s]]))
        assert (own[0, 1:] >= own[1, :-1] - 1e-12).all()
        assert (own[1] - own[0]).sum() == pytest.approx(1 / stages)


@pytest.mark.parametrize("method", ["allreduce_sgd", "async_sgd"])
@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({}, 1),
        ({"layout": "tensors", "parts": 4}, 1 / 4),
        ({"layout": "layers", "parts": 4, "micro_batches": 8}, 11 / 32),
    ],
)
def test_a_worker_takes_the_time_of_its_devices(method: str, given: dict[str, Any], seconds: float) -> None:
    options = {f"problem.{name}": value for name, value in given.items()}
    more = {"workers": 1, "cluster": "constant", "cluster.scale": [3.0], "cluster.shift": 1.0}
    line = clock.timeline(dopt.Run.from_dict({**RUN, **options, **more}).resolve())
    time = line.time[-1] if method == "allreduce_sgd" else line.time.max()
    assert time == pytest.approx(RUN["steps"] * 4 * seconds)


@pytest.mark.parametrize("method", ["allreduce_sgd", "ringmaster_sgd"])
def test_a_picture_has_a_row_for_each_stage_whose_bubble_is_waiting(method: str) -> None:
    given = {"workers": 3, "seconds": 4, "message_bytes": 1, "cluster.latency": 0.1}
    given |= {"problem.layout": "layers", "problem.parts": 4, "problem.micro_batches": 2}
    line, stages = timetable.of(method, given)[0], timetable.stages_of(method, given)
    assert stages is not None
    whole = schedule.intervals(line)
    told = schedule.by_stage(whole, stages)
    spent = {kind: (whole.end - whole.begin)[whole.kind == kind].sum() for kind in set(whole.kind)}
    assert spent["sending"] > 0
    for row in range(12):
        begin, end, kind = (x[told.worker == row] for x in (told.begin, told.end, told.kind))
        order = np.argsort(begin)
        np.testing.assert_allclose(begin[order], [0, *end[order][:-1]], atol=1e-9)  # no gap, no overlap
        assert end.max() == pytest.approx(4)
    for kind in {"computing", "wasted"} & set(spent):
        of = told.kind == kind
        assert (told.end - told.begin)[of].sum() == pytest.approx(4 * spent[kind] * (1 - theory.pipeline_bubble(4, 2)))


# -- what is read, and what does not fit --


def test_a_sweep_drops_what_a_layout_does_not_read() -> None:
    none, tensors = {}, {"problem.layout": "tensors", "problem.parts": 2}
    for layout, read in (("none", none), ("tensors", tensors)):
        given = {"problem.layout": layout, "problem.parts": 2, "problem.micro_batches": 4}
        assert dopt.Run.from_dict({**RUN, **given}).id == dopt.Run.from_dict({**RUN, **read}).id
    assert dopt.Run.from_dict({**RUN, **none}).id != dopt.Run.from_dict({**RUN, **tensors}).id


BAD = [
    ({"layout": "tensor"}, "problem.layout: unknown name 'tensor'; did you mean 'tensors'?"),
    ({"parts": 2}, "problem.parts: a model without a layout is not split, got 2"),
    ({"layout": "tensors"}, "problem.parts: tensors split a model into at least 2, got 1"),
    (
        {"layout": "tensors", "parts": 2, "micro_batches": 4},
        "problem.micro_batches: only problem.layout=layers reads it",
    ),
    ({"layout": "layers", "parts": 2, "micro_batches": 0}, "problem.micro_batches: must be at least 1, got 0"),
    (
        {"layout": "tensors", "parts": 3, "hidden": (8,)},
        "problem.hidden: the first, third, ... width must be a multiple",
    ),
    ({"layout": "layers", "parts": 2, "hidden": (8,)}, "a multiple of problem.parts=2 widths, got 0; use 3 widths"),
    ({"layout": "layers", "parts": 2, "hidden": (8, 8, 4)}, "problem.hidden: stages have one shape"),
]
BAD_TRANSFORMERS = [
    (
        {"layout": "tensors", "parts": 3, "heads": 4},
        "problem.heads: must be a multiple of problem.parts=3, got 4; use 3",
    ),
    (
        {"layout": "layers", "parts": 2, "layers": 3},
        "problem.layers: must be a multiple of problem.parts=2, got 3; use 4",
    ),
]
BAD_RUNS = [
    ({**LAYERS, "batch_size": 6}, "batch_size: must be a multiple of problem.micro_batches=4, got 6"),
    ({**LAYERS, "batch_size": None}, "batch_size: must be a multiple of problem.micro_batches=4, got the full local"),
    ({**TENSORS, "problem.parts": 8, "problem.layout": "tensors", "executor": "mesh", "workers": 16}, None),
    (
        {**TENSORS, "executor": "mesh", "workers": 6},
        "executor: mesh splits workers evenly over devices; 8, 2 to a model, do",
    ),
    (
        {**TENSORS, "problem.hidden": (9,), "problem.parts": 3, "executor": "mesh", "workers": 4},
        "problem.parts=3 devices; 8 are",
    ),
]


@pytest.mark.parametrize(
    ("name", "options", "said"), [("mlp", *bad) for bad in BAD] + [("transformer", *bad) for bad in BAD_TRANSFORMERS]
)
def test_a_layout_that_does_not_fit_is_refused_in_one_line(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as refusal:
        PROBLEMS[name].make(samples(name), 2, **({} if name == "mlp" else TRANSFORMER) | options)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("given", "said"), BAD_RUNS)
def test_a_run_whose_layout_does_not_fit_is_refused_in_one_line(given: dict[str, Any], said: str | None) -> None:
    run = dopt.Run.from_dict({**RUN, **given}).resolve()
    if said is None:  # sixteen workers, each on all eight devices
        assert len(group_of([run]).devices) == 8
        return
    with pytest.raises(InputError, match=re.escape(said)) as refusal:
        group_of([run])
    assert "\n" not in str(refusal.value)
