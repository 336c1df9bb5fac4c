"""The engine: records and their axes by formula, and no bit of a result that depends on how it was computed."""

from __future__ import annotations

import dataclasses
import heapq
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from small import BASE, DIM, NOISE, make, same, slab

import dopt
from dopt import InputError, Result, Run, engine, watch
from dopt.config import Runs
from dopt.devices import executors
from dopt.devices import memory as devices_memory
from dopt.engine import Compiled, Group, Outcome, group_of, key, run_slab
from dopt.engine.segments import LONGEST, Segment
from dopt.sweeps import plan
from dopt.sweeps.store import Store


def close(a: Outcome | Result, b: Outcome | Result, rtol: float = 1e-5) -> None:
    for name in a.history:
        np.testing.assert_allclose(a.history[name], b.history[name], rtol=rtol, atol=1e-7, err_msg=name)


# -- records, and their axes by formula ---------------------------------------------------------------------------------


def seconds_of(worker: int, seed: int, count: int) -> np.ndarray:
    """[count] exponential compute times of one worker, by the recipe that the cluster's documentation gives."""
    u = np.random.Generator(np.random.Philox(key=np.array([seed, worker], np.uint64))).random(count)
    return -np.log1p(-u)


def arrivals(run: Run, count: int) -> np.ndarray:
    """[count] seconds of the first arrivals at a server, by a queue of events."""
    times = [seconds_of(i, run.seed, count + 1) for i in range(run.workers)]
    queue = [(own[0], i, 0) for i, own in enumerate(times)]
    heapq.heapify(queue)
    found = []
    for _ in range(count):
        now, i, m = heapq.heappop(queue)
        found.append(now)
        heapq.heappush(queue, (now + times[i][m + 1], i, m + 1))
    return np.array(found)


def barrier(run: Run, count: int) -> np.ndarray:
    """[count] seconds of steps that wait for all, or on the ring for the neighbours on both sides."""
    n = run.workers
    times = np.stack([seconds_of(i, run.seed, count) for i in range(n)])
    if run.algorithm == "allreduce_sgd":
        return np.cumsum(times.max(0))
    now, done = np.zeros(n), []
    for k in range(count):
        ready = now + times[:, k]
        now = np.maximum(ready, np.maximum(np.roll(ready, 1), np.roll(ready, -1)))
        done.append(now.max())
    return np.array(done)


def axes(run: Run) -> dict[str, np.ndarray]:
    """The axes of a run's records, by formula; float32 models of DIM numbers on a ring."""
    n, size, events = run.workers, 4 * DIM, run.algorithm == "async_sgd"
    many = 2000
    clock = arrivals if events else barrier
    time = np.arange(1, many + 1, dtype=float) if run.cluster is None else clock(run, many)
    per_step = 1 if events else n
    total = {
        "steps": run.steps,
        "gradients": (run.gradients or 0) // per_step,
        "seconds": int(np.searchsorted(time, run.seconds or 0, side="right")),
    }[next(name for name in ("steps", "gradients", "seconds") if getattr(run, name) is not None)]
    every = run.record_every
    assert total is not None
    assert every is not None
    step = np.array([*range(0, total, every), total])
    found = {"step": step, "gradients": per_step * step, "time": np.append(0, time)[step]}
    if events:
        return found | {"bytes_sent": step / n * size, "server_bytes_sent": step * size}
    return found | {"bytes_sent": step * (2 * (n - 1) / n if run.algorithm == "allreduce_sgd" else 2) * size}


HORIZONS: list[dict[str, Any]] = [
    {"steps": 20, "record_every": 20},
    {"steps": 20, "record_every": 7},
    {"steps": 1, "record_every": 50},
    {"steps": 120},
    {"steps": None, "gradients": 83, "record_every": 4},
    {"steps": None, "seconds": 12.5, "record_every": 5},
]


@pytest.mark.parametrize("horizon", HORIZONS, ids=lambda h: " ".join(f"{k}={v}" for k, v in h.items() if v))
@pytest.mark.parametrize(
    "method",
    [
        {"algorithm": "allreduce_sgd"},
        {"algorithm": "gossip_sgd"},
        {"algorithm": "allreduce_sgd", "cluster": "exponential", "seed": 3},
        {"algorithm": "gossip_sgd", "cluster": "exponential", "workers": 5},
        {"algorithm": "async_sgd", "cluster": "exponential", "workers": 3},
    ],
    ids=lambda m: " ".join(str(v) for v in m.values()),
)
def test_records_lie_on_the_beat_and_at_the_end_with_axes_by_formula(
    method: dict[str, Any], horizon: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The axes come from the host, so nothing needs to be compiled: the arrays of a slab are stood in for."""
    run = make(**method, **horizon)
    group = group_of([run])
    expected = axes(run)
    found = group.facts.axes(0, run.seed)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)
    # the device's table has one place for each of them; what fills up the last stretch changes nothing
    made = group.calls(1)
    slots = [call.slot + r for call in made for r in range(call.segment.records)]
    assert [0, *slots] == list(range(len(expected["step"])))
    assert group.program.records == len(expected["step"])
    ends = [call.start + r * call.segment.steps for call in made for r in range(1, call.segment.records + 1)]
    np.testing.assert_array_equal(np.minimum([0, *ends], group.longest_run), expected["step"])


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 20, "record_every": 7},
        {"algorithm": "allreduce_sgd", "steps": None, "seconds": 12.5, "cluster": "exponential", "record_every": 5},
        {"algorithm": "async_sgd", "steps": None, "seconds": 12.5, "cluster": "exponential", "record_every": 5},
    ],
    ids=["vmapped", "ragged", "ragged events"],
)
def test_runs_of_a_slab_are_recorded_as_the_formulas_say(changes: dict[str, Any]) -> None:
    runs = [make(**changes, seed=seed) for seed in range(3)]
    together, lengths = slab(runs), set()
    for run, outcome in zip(runs, together, strict=True):
        expected = axes(run)
        for name, value in expected.items():
            np.testing.assert_allclose(outcome.history[name], value, rtol=1e-12, err_msg=name)
        for name, value in outcome.history.items():
            assert len(value) == len(expected["step"])
            assert np.isfinite(value).all(), name
        lengths.add(expected["step"][-1])
    assert (len(lengths) > 1) == ("cluster" in changes)
    shortest = int(np.argmin([outcome.history["step"][-1] for outcome in together]))
    close(together[shortest], slab([runs[shortest]])[0])  # its longer neighbours do not drive it on


@pytest.mark.parametrize("method", ["async_easgd", "rennala_sgd", "ad_psgd"])
def test_a_run_that_ends_before_its_neighbours_is_what_it_is_alone(method: str) -> None:
    """Old models are not kept from changing after the end; nobody must read them then."""
    fields: dict[str, Any] = {"algorithm": method, "steps": None, "seconds": 12.5, "cluster": "exponential"}
    runs = [make(**fields, seed=seed) for seed in range(4)]
    together = slab(runs)
    first = int(np.argmin([outcome.history["step"][-1] for outcome in together]))
    assert together[first].history["step"][-1] < max(outcome.history["step"][-1] for outcome in together)
    close(together[first], slab([runs[first]])[0])


TIMED: dict[str, dict[str, Any]] = {
    "a barrier": {"algorithm": "allreduce_sgd"},
    "neighbours' barrier": {"algorithm": "gossip_sgd"},
    "no barrier": {"algorithm": "delayed_gossip_sgd", "delay": "cluster"},
    "a server": {"algorithm": "async_sgd"},
    "a server that collects": {"algorithm": "rennala_sgd"},
    "a message's time": {"algorithm": "gossip_sgd", "cluster.latency": 1.0},
}


@pytest.mark.parametrize("method", TIMED.values(), ids=TIMED)
def test_methods_of_any_pace_are_recorded_equally_often_in_simulated_time(method: dict[str, Any]) -> None:
    """Δt = 2^⌊log₂ Δr⌋ / r for r steps a second, and no step is less than one."""
    seconds, apart = 400.0, 8.0
    run = make(**method, steps=None, seconds=seconds, cluster="exponential", record_seconds=apart)
    (found,) = slab([run])
    step, time = found.history["step"], found.history["time"]
    rate = step[-1] / seconds
    every = 2 ** int(np.log2(max(1.0, apart * rate)))
    np.testing.assert_array_equal(np.diff(step)[:-1], every)
    assert abs(np.diff(time)[:-1].mean() - every / rate) < 0.1 * apart
    assert every == 1 or 0.5 * apart < every / rate <= apart
    # and a run is recorded alike, whoever else is in its group
    others = [make(**method, steps=None, seconds=seconds, cluster="exponential", record_seconds=apart, seed=2), run]
    assert key(others[0]) == key(run)
    for name in ("step", "time"):
        np.testing.assert_array_equal(slab(others)[1].history[name], found.history[name])


def test_runs_share_a_group_where_they_share_the_beat_of_their_records() -> None:
    runs = [make(cluster="constant", record_seconds=8.0, **{"cluster.straggler": k}) for k in (1.0, 1.5, 2.0, 4.0)]
    assert [group_of([run]).facts.every for run in runs] == [8, 4, 4, 2]
    assert [key(run) == key(runs[1]) for run in runs] == [False, True, True, False]


KEPT: dict[str, tuple[dict[str, Any], int]] = {
    "a barrier keeps one": ({"algorithm": "allreduce_sgd"}, 1),
    "a delay of 5 keeps 6": ({"algorithm": "delayed_sgd", "delay": 5}, 6),
    "a law's largest": ({"algorithm": "hogwild_sgd", "delay": "uniform", "delay.max": 4}, 5),
    "round-robin among 4 keeps 4": ({"algorithm": "async_sgd"}, 4),
    "stops after R = 2 keep 2": ({"algorithm": "ringmaster_sgd", "algorithm.threshold": 2}, 2),
    "only the current version": ({"algorithm": "rennala_sgd"}, 1),
}


@pytest.mark.parametrize(("changes", "kept"), KEPT.values(), ids=KEPT)
def test_the_plan_knows_how_many_models_a_run_keeps(changes: dict[str, Any], kept: int) -> None:
    assert group_of([make(**changes)]).models == kept


def test_bytes_follow_the_graph_and_the_precision() -> None:
    for changes, per_step in [
        ({"topology": "complete"}, 3 * 4 * DIM),
        ({"topology": "star"}, 2 * 3 / 4 * 4 * DIM),  # six directed links for four workers
        ({"topology": "exponential"}, 2 * 4 * DIM),
        ({"topology": "ring", "precision": "float64"}, 2 * 8 * DIM),
        ({"algorithm": "allreduce_sgd", "precision": "float64"}, 2 * 3 / 4 * 8 * DIM),
        ({"algorithm": "allreduce_sgd", "workers": 1}, 0),
    ]:
        run = make(**changes)
        group = group_of([run])
        found = group.facts.axes(0, run.seed)
        np.testing.assert_allclose(found["bytes_sent"], per_step * found["step"], err_msg=str(changes))


def test_bytes_of_a_model_count_all_its_leaves() -> None:
    run = make(problem="softmax", **{"problem.dim": None})
    assert group_of([run]).facts.sizes.bytes == 4 * (10 * 64 + 10)


# -- no bit depends on the way ------------------------------------------------------------------------------------------


def test_chunks_and_pacing_change_no_bit() -> None:
    runs = [make(seed=seed, steps=10_000, record_every=5000, **NOISE) for seed in range(2)]
    compiled = engine.compile(group_of(runs), 2)
    assert [call.segment for call in compiled.calls] == [Segment(1, 2500)] * 4
    asked: list[tuple[int, int]] = []

    def one(done: int, total: int) -> int:
        asked.append((done, total))
        return 1

    whole = run_slab(compiled, runs)
    assert asked == []
    for look in (one, lambda done, total: 3, lambda done, total: 0, watch.pace()):
        for a, b in zip(whole, run_slab(compiled, runs, look), strict=True):
            same(a, b)
    assert asked == [(done, 4) for done in range(4)]


def test_an_accelerator_is_given_a_slabs_values_once_and_a_cpu_which_has_them_never() -> None:
    runs = [make(seed=seed, topology="ring") for seed in range(2)]
    compiled = engine.compile(group_of(runs), 2)
    inputs = engine.packed(compiled, Runs.of(runs)).inputs
    assert compiled.placed(inputs) is inputs
    group = dataclasses.replace(compiled.group, devices=(SimpleNamespace(platform="gpu"),))
    placed = compiled._replace(group=group).placed(inputs)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(placed))
    (call,) = compiled.calls
    ends = [compiled.after(compiled.start(inputs), given, call) for given in (inputs, placed)]
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("algorithm", ["gossip_sgd", "async_sgd"])
def test_a_stretch_between_records_may_be_longer_than_a_segment(algorithm: str) -> None:
    every = 2 * LONGEST + 100
    runs = {n: make(algorithm=algorithm, steps=2 * every + 7, record_every=n, **NOISE) for n in (every, 100)}
    far, near = (slab([run])[0] for run in runs.values())
    assert far.history["step"].tolist() == [0, every, 2 * every, 2 * every + 7]
    assert [call.segment.steps for call in group_of([runs[every]]).calls(1)] == [every // 3] * 6 + [7]
    shared = np.isin(near.history["step"], far.history["step"])
    at = np.isin(far.history["step"], near.history["step"])
    for name in ("loss", "consensus_distance", "gradients", "time", "bytes_sent"):
        np.testing.assert_allclose(near.history[name][shared], far.history[name][at], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(near.params, far.params, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("algorithm", ["delayed_sgd", "delayed_gossip_sgd"])
@pytest.mark.parametrize("delay", [2, "uniform"])
def test_the_buffer_has_the_groups_largest_delay_and_its_length_changes_no_bit(algorithm: str, delay: Any) -> None:
    short = make(algorithm=algorithm, delay=delay, **{"delay.max": 2, "delay.low": 1} if delay == "uniform" else {})
    longer = make(
        algorithm=algorithm,
        delay=delay,
        **{"delay.max": 9, **({"delay.high": 2, "delay.low": 1} if delay == "uniform" else {})},
    )
    tight, loose = group_of([short]), group_of([short, longer])
    assert (tight.facts.building.slots, loose.facts.building.slots) == (3, 10)
    assert key(short) == key(longer)
    (a,) = run_slab(engine.compile(tight, 2), [short])
    (b, c) = run_slab(engine.compile(loose, 2), [short, longer])
    same(a, b)
    same(a, c)  # delay.max says how long the buffer is, not how old a model may be


def test_a_slab_that_is_not_full_and_neighbours_of_another_kind_change_no_bit() -> None:
    runs = [
        make(seed=seed, learning_rate=rate, topology=t)
        for seed, rate, t in [(0, 0.1, "ring"), (1, 0.3, "complete"), (2, 0.2, "star")]
    ]
    compiled = engine.compile(group_of(runs), 3)
    together = run_slab(compiled, runs)
    for i, run in enumerate(runs):
        same(run_slab(compiled, [run])[0], together[i])


# -- divergence ---------------------------------------------------------------------------------------------------------


def overflow(rate: float) -> int:
    """First step at which the mean model's loss leaves float32: all-reduce on a quadratic without noise, in float64."""
    curvature = np.geomspace(0.1, 1.0, DIM)
    rng = np.random.default_rng(0)
    best = rng.standard_normal(DIM)
    best /= np.linalg.norm(best)
    apart, step = -best, 0
    while 0.5 * np.sum(curvature * apart**2) < np.finfo(np.float32).max:
        apart, step = apart * (1 - rate * curvature), step + 1
    return step


@pytest.mark.parametrize("every", [1, 7, 300])
def test_a_diverged_run_is_marked_at_its_step_and_its_neighbours_are_unharmed(every: int) -> None:
    quiet = {"algorithm": "allreduce_sgd", "steps": 300, "record_every": every}
    good, bad, worse = (
        make(learning_rate=rate, seed=seed, **quiet) for rate, seed in [(0.1, 0), (5.0, 1), (1000.0, 2)]
    )
    compiled = engine.compile(group_of([good, bad, worse]), 3)
    fine, wrong, very_wrong = run_slab(compiled, [good, bad, worse])
    calm = run_slab(
        compiled, [good, make(learning_rate=0.2, seed=1, **quiet), make(learning_rate=0.3, seed=2, **quiet)]
    )
    same(fine, calm[0])
    assert fine.diverged_step is None
    assert [wrong.diverged_step, very_wrong.diverged_step] == [overflow(5.0), overflow(1000.0)]
    for outcome in (wrong, very_wrong):
        np.testing.assert_array_equal(outcome.history["step"], fine.history["step"])  # not cut short
        lost = outcome.history["step"] >= outcome.diverged_step
        assert lost.any()
        assert not lost[0]
        for name in set(outcome.history) - {"step", "gradients", "time", "bytes_sent"}:
            np.testing.assert_array_equal(np.isnan(outcome.history[name]), lost, err_msg=name)
        for name in ("gradients", "time", "bytes_sent"):
            np.testing.assert_array_equal(outcome.history[name], fine.history[name])


@pytest.mark.parametrize(
    "changes",
    [{"algorithm": "gossip_sgd"}, {"algorithm": "async_sgd"}, {"algorithm": "delayed_gossip_sgd", "delay": 2}],
    ids=str,
)
def test_the_step_of_a_divergence_does_not_depend_on_the_records(changes: dict[str, Any]) -> None:
    steps = {
        every: slab([make(**changes, learning_rate=30.0, steps=1500, record_every=every)])[0].diverged_step
        for every in (1, 64, 1500)
    }
    assert len(set(steps.values())) == 1
    assert 0 < (steps[1] or 0) < 200


def test_a_start_that_is_not_finite_has_diverged_at_step_0() -> None:
    start = np.zeros((4, DIM))
    start[2, 1] = np.nan
    result = dopt.run(make(steps=5), start=start)
    assert result.diverged
    assert result.diverged_step == 0
    assert np.isnan(result.history["loss"]).all()


def test_the_table_says_who_diverged(tmp_path: Path) -> None:
    parameters = {
        **{k: {"value": v} for k, v in BASE.items()},
        "learning_rate": {"values": [0.1, 30.0]},
        "steps": {"value": 200},
    }
    results = dopt.sweep({"parameters": parameters}, results=tmp_path / "results")
    good, bad = results.runs.itertuples()
    assert (good.diverged, bad.diverged) == (False, True)
    assert results.runs["diverged_step"].isna().tolist() == [True, False]
    history = results.history[results.history["id"] == bad.id]
    assert len(history) == (results.history["id"] == good.id).sum()
    np.testing.assert_array_equal(history["loss"].isna(), history["step"] >= bad.diverged_step)
    assert np.isnan(results.runs["final.loss"]).tolist() == [False, True]


# -- devices and widths -------------------------------------------------------------------------------------------------


def test_runs_split_over_devices_give_the_same_tables(tmp_path: Path) -> None:
    parameters = {
        **{k: {"value": v} for k, v in BASE.items()},
        "learning_rate": {"values": [0.1, 0.3]},
        "seed": {"values": [0, 1, 2]},
    }
    one = dopt.sweep({"parameters": parameters}, results=tmp_path / "one")
    four = dopt.sweep({"parameters": parameters}, results=tmp_path / "four", devices=jax.devices()[:4])
    assert_frame_equal(one.runs, four.runs, rtol=1e-6, atol=1e-9)
    assert_frame_equal(one.history, four.history, rtol=1e-6, atol=1e-9)
    assert Store(tmp_path / "four").manifest("0001-group0-slab000")["devices"] == 4
    assert Store(tmp_path / "four").manifest("0001-group0-slab000")["width"] == 8  # six runs, evenly over four


def test_a_sweep_takes_all_devices_where_they_are_not_virtual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {**{k: {"value": v} for k, v in BASE.items()}, "seed": {"values": [0, 1, 2]}}
    one = dopt.sweep({"parameters": parameters}, results=tmp_path / "one")
    monkeypatch.setattr(executors, "VIRTUAL", ())
    all_of_them = dopt.sweep({"parameters": parameters}, results=tmp_path / "all")
    found = [Store(tmp_path / name).manifest("0001-group0-slab000") for name in ("one", "all")]
    assert [(m["devices"], m["width"]) for m in found] == [(1, 3), (8, 8)]
    assert_frame_equal(one.history, all_of_them.history, rtol=1e-6, atol=1e-9)


def test_workers_on_devices_of_their_own_leave_nothing_to_spread() -> None:
    assert [executors.spread(executor) for executor in ("pmap", "shard_map", "mesh")] == [None, None, None]


def test_one_run_needs_one_device_however_many_are_given() -> None:
    one, four = (dopt.run(make(), devices=jax.devices()[:n]) for n in (1, 4))
    np.testing.assert_array_equal(one.params, four.params)


@pytest.mark.parametrize(
    ("runs", "devices", "width"), [(1, 1, 1), (32, 1, 32), (33, 1, 17), (320, 1, 32), (5, 4, 8), (130, 4, 68)]
)
def test_slabs_are_even_and_a_multiple_of_the_devices(runs: int, devices: int, width: int) -> None:
    assert plan.width_of(runs, jax.devices()[:devices]) == width
    cut = plan.cut(1, 0, [make(seed=seed) for seed in range(runs)], width)
    assert sum(len(part) for _, part in cut) == runs
    assert len({name for name, _ in cut}) == len(cut)


class Sized:
    """Stands in for a compiled program of `per_run` bytes for each run."""

    def __init__(self, width: int, per_run: int):
        self.width, self.memory = width, width * per_run


def test_the_width_is_lowered_until_the_device_can_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def sized(group: Group, width: int, calls: Any) -> Any:
        tried.append(width)
        return Sized(width, 100)

    monkeypatch.setattr(engine, "compile", sized)
    group = group_of([make()])
    for limit, width in [(10_000, 32), (3200, 32), (3199, 16), (1600, 16), (1000, 10), (100, 1)]:
        monkeypatch.setattr(devices_memory, "device_memory", lambda device, limit=limit: limit)
        chosen, compiled = plan.choose_width(group, 32)
        assert chosen <= width
        assert compiled.memory <= limit
        assert 2 * chosen > min(width, limit // 100)  # and no lower than it must be
    monkeypatch.setattr(devices_memory, "device_memory", lambda device: 99)
    with pytest.raises(InputError, match=r"one run of gossip_sgd needs .* GiB, the device has .* GiB"):
        plan.choose_width(group, 32)
    assert tried[-1] == 1
    monkeypatch.setattr(devices_memory, "device_memory", lambda device: None)  # a device that does not say
    assert plan.choose_width(group, 32)[0] == 32


def test_a_small_device_gets_narrower_slabs_of_the_real_program(monkeypatch: pytest.MonkeyPatch) -> None:
    group = group_of([make(seed=seed) for seed in range(8)])
    full, compiled = plan.choose_width(group, 8)
    assert full == 8
    assert compiled.memory is not None
    monkeypatch.setattr(devices_memory, "device_memory", lambda device: compiled.memory - 1)
    width, narrower = plan.choose_width(group, 8)
    assert width <= 4
    assert isinstance(narrower, Compiled)
    assert narrower.memory < compiled.memory
