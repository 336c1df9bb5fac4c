"""The clock: compute times, and who delivers which version when. Each test's name is the proposition it checks."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dopt import cluster, schedule, theory
from dopt.cluster import LAWS, PROFILES, Cluster, compute_times
from dopt.schedule import Schedule, always_busy, barrier, in_flight_staleness, unsynchronised
from dopt.types import InputError

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("exponential", {}),
    ("exponential", {"profile": "linear"}),
    ("exponential", {"profile": "sqrt"}),
    ("exponential", {"profile": "straggler", "slowdown": 1000.0}),
    ("exponential", {"shift": 0.5}),
    ("constant", {}),
    ("constant", {"profile": "linear"}),
    ("constant", {"profile": "straggler", "slowdown": 1000.0}),
]
kinds = st.sampled_from(KINDS)
seeds = st.integers(0, 2**31 - 1)
workers = st.integers(1, 9)


def make(law: str, n: int, seed: int = 0, **options: Any) -> Cluster:
    return cluster.make(law, n, seed, **options)


def event_loop(machines: Cluster, steps: int) -> Schedule:
    """The always-busy server, one event at a time; the heap's ties go to the lower worker."""
    c = compute_times(machines, steps + 1)
    heap = [(own[0], i) for i, own in enumerate(c)]
    heapq.heapify(heap)
    batch, read = np.zeros(machines.workers, int), np.zeros(machines.workers, int)
    rows = []
    for version in range(steps):
        now, i = heapq.heappop(heap)
        rows.append((i, batch[i], read[i], version - read[i], True, now, version + 1))
        batch[i] += 1
        read[i] = version + 1
        heapq.heappush(heap, (now + c[i, batch[i]], i))
    return Schedule(*(np.array(column) for column in zip(*rows, strict=True)))


def assert_same(one: Schedule, other: Schedule) -> None:
    for name, a, b in zip(Schedule._fields, one, other, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


# -- compute times --


def test_every_law_has_mean_one_second() -> None:
    u = (np.arange(10**6) + 0.5) / 10**6
    for law in LAWS.values():
        assert law.make(u).mean() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("law", LAWS)
def test_every_law_is_finite_and_not_negative_on_all_of_0_to_1(law: str) -> None:
    times = LAWS[law].make(np.array([0.0, 0.5, np.nextafter(1, 0)]))
    assert np.isfinite(times).all()
    assert (times >= 0).all()


def test_profiles_are_their_formulas() -> None:
    np.testing.assert_array_equal(PROFILES["equal"].make(4), [1, 1, 1, 1])
    np.testing.assert_array_equal(PROFILES["linear"].make(5), [1, 1.25, 1.5, 1.75, 2])
    np.testing.assert_array_equal(PROFILES["sqrt"].make(4), [2, 1 + np.sqrt(2), 1 + np.sqrt(3), 3])
    np.testing.assert_array_equal(PROFILES["straggler"].make(3, slowdown=7.0), [1, 1, 7])
    assert all(PROFILES[name].make(1).shape == (1,) for name in PROFILES)


def test_time_is_shift_plus_scale_times_draw() -> None:
    draw = compute_times(make("exponential", 3, seed=5), 10)
    times = compute_times(make("exponential", 3, seed=5, scale=[1, 2, 0.5], shift=0.25), 10)
    np.testing.assert_array_equal(times, 0.25 + np.array([[1], [2], [0.5]]) * draw)


@given(kinds, seeds, workers, st.integers(1, 40), st.integers(0, 40))
@settings(deadline=None)
def test_draws_are_prefix_stable(kind: tuple[str, dict], seed: int, n: int, count: int, more: int) -> None:
    machines = make(kind[0], n, seed, **kind[1])
    np.testing.assert_array_equal(compute_times(machines, count), compute_times(machines, count + more)[:, :count])


@given(seeds, workers, st.integers(1, 5))
@settings(deadline=None)
def test_a_workers_draws_depend_on_no_other_worker(seed: int, n: int, more: int) -> None:
    few, many = make("exponential", n, seed), make("exponential", n + more, seed)
    np.testing.assert_array_equal(compute_times(few, 20), compute_times(many, 20)[:n])
    slower = make("exponential", n + more, seed, scale=[1.0] * n + [9.0] * more)
    np.testing.assert_array_equal(compute_times(few, 20), compute_times(slower, 20)[:n])


def test_workers_and_seeds_have_different_draws() -> None:
    times = np.stack([compute_times(make("exponential", 4, seed), 3) for seed in range(4)])
    assert len(np.unique(times)) == times.size


# -- the always-busy server --


@given(kinds, seeds, workers, st.integers(1, 300))
@settings(deadline=None)
def test_the_sorted_schedule_is_the_event_loops(kind: tuple[str, dict], seed: int, n: int, steps: int) -> None:
    machines = make(kind[0], n, seed, **kind[1])
    assert_same(always_busy(machines, steps=steps), event_loop(machines, steps))


@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 64.0]), min_size=1, max_size=8), st.integers(1, 200))
@settings(deadline=None)
def test_it_is_the_event_loops_where_many_pushes_fall_on_one_instant(scale: list[float], steps: int) -> None:
    machines = make("constant", len(scale), scale=scale)
    assert_same(always_busy(machines, steps=steps), event_loop(machines, steps))


@pytest.mark.parametrize(("law", "options"), KINDS)
@settings(deadline=None, max_examples=25)
@given(seed=seeds, n=workers, steps=st.integers(1, 2000))
def test_delivered_plus_in_flight_staleness_is_n_minus_1_times_steps(
    law: str, options: dict, seed: int, n: int, steps: int
) -> None:
    events = always_busy(make(law, n, seed, **options), steps=steps)
    assert events.staleness.sum() + in_flight_staleness(events, n).sum() == (n - 1) * steps


def test_a_worker_that_never_delivered_has_been_in_flight_since_version_0() -> None:
    events = always_busy(make("constant", 3, profile="straggler", slowdown=1000.0), steps=100)
    np.testing.assert_array_equal(in_flight_staleness(events, 3), [1, 0, 100])


@pytest.mark.parametrize("n", [2, 8])
def test_iid_exponential_workers_give_geometric_staleness(n: int) -> None:
    steps = 200_000
    tau = always_busy(make("exponential", n, seed=1), steps=steps).staleness
    law = theory.geometric_staleness(n, tau.max() + 1)
    seen = np.bincount(tau) / steps
    # total variation: sampling alone gives about 0.4 Σ sqrt(p/steps) < 0.005 for n = 8
    assert (np.abs(seen - law).sum() + 1 - law.sum()) / 2 < 0.01


def test_deterministic_times_c_give_mean_staleness_c_times_sum_1_over_c_minus_1() -> None:
    c = np.array([1.0, np.sqrt(2), 2.0, np.pi, 7.5])
    events = always_busy(make("constant", 5, scale=list(map(float, c))), steps=100_000)
    means = [events.staleness[events.worker == i].mean() for i in range(5)]
    np.testing.assert_allclose(means, theory.expected_staleness(c), rtol=2e-3)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_equal_constant_speeds_give_round_robin_of_staleness_n_minus_1(n: int) -> None:
    events = always_busy(make("constant", n), steps=10 * n)
    e = np.arange(10 * n)
    np.testing.assert_array_equal(events.worker, e % n)
    np.testing.assert_array_equal(events.batch, e // n)
    np.testing.assert_array_equal(events.time, e // n + 1)
    np.testing.assert_array_equal(events.staleness, np.minimum(e, n - 1))  # in the first round all read version 0


@pytest.mark.parametrize(("law", "options"), KINDS)
def test_mean_staleness_tends_to_n_minus_1_however_uneven_the_speeds(law: str, options: dict) -> None:
    n, steps = 8, 200_000
    events = always_busy(make(law, n, seed=3, **options), steps=steps)
    # what lacks is in flight: here at most one straggler's 7000 or so, and n times some dozens
    assert n - 1 - 0.2 < events.staleness.mean() <= n - 1


@given(kinds, seeds, workers, st.integers(1, 500))
@settings(deadline=None)
def test_the_columns_agree_with_each_other(kind: tuple[str, dict], seed: int, n: int, steps: int) -> None:
    events = always_busy(make(kind[0], n, seed, **kind[1]), steps=steps)
    assert events.steps == steps
    assert events.applied.all()
    assert (np.diff(events.time) >= 0).all()
    np.testing.assert_array_equal(events.gradients, np.arange(1, steps + 1))
    np.testing.assert_array_equal(events.read_version + events.staleness, np.arange(steps))
    for i in range(n):
        np.testing.assert_array_equal(events.batch[events.worker == i], np.arange((events.worker == i).sum()))
    kinds_of = {name: str(column.dtype) for name, column in events._asdict().items()}
    assert kinds_of == {
        "worker": "int32",
        "batch": "int32",
        "read_version": "int32",
        "staleness": "int32",
        "applied": "bool",
        "time": "float64",
        "gradients": "int64",
    }


@given(kinds, seeds, workers, st.integers(1, 300), st.integers(0, 300))
@settings(deadline=None)
def test_a_shorter_horizon_is_a_prefix_of_a_longer_one(
    kind: tuple[str, dict], seed: int, n: int, steps: int, more: int
) -> None:
    machines = make(kind[0], n, seed, **kind[1])
    longer = always_busy(machines, steps=steps + more)
    assert_same(always_busy(machines, steps=steps), Schedule(*(column[:steps] for column in longer)))


@given(kinds, seeds, workers, st.integers(1, 300))
@settings(deadline=None)
def test_horizons_by_steps_gradients_and_seconds_agree(kind: tuple[str, dict], seed: int, n: int, steps: int) -> None:
    machines = make(kind[0], n, seed, **kind[1])
    by_steps = always_busy(machines, steps=steps)
    assert_same(always_busy(machines, gradients=steps), by_steps)
    end = by_steps.time[-1]
    by_seconds = always_busy(machines, seconds=float(end))  # all pushes of the last instant, so perhaps more
    assert (by_seconds.time <= end).all()
    assert always_busy(machines, steps=by_seconds.steps + 1).time[-1] > end
    assert_same(Schedule(*(column[:steps] for column in by_seconds)), by_steps)


@pytest.mark.parametrize(("law", "options"), KINDS)
def test_a_million_events_are_all_pushes_of_all_workers_until_the_last(law: str, options: dict) -> None:
    n, steps = 16, 10**6
    machines = make(law, n, seed=6, **options)
    events = always_busy(machines, steps=steps)
    assert events.steps == len(events.time) == steps
    assert events.staleness.sum() + in_flight_staleness(events, n).sum() == (n - 1) * steps
    of_each = np.bincount(events.worker, minlength=n)
    for i in range(n):
        finish = np.cumsum(cluster.worker_times(machines, i, of_each[i] + 1))
        np.testing.assert_array_equal(events.time[events.worker == i], finish[:-1])
        assert finish[-1] >= events.time[-1]  # the first that is not in it, which ties put later


def test_one_very_fast_worker_costs_no_draws_of_the_slow_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    real = schedule.worker_times
    monkeypatch.setattr(schedule, "worker_times", lambda c, i, count: drawn.append(count) or real(c, i, count))
    always_busy(make("exponential", 64, scale=[1e-3] + [1.0] * 63), steps=100_000)
    assert sum(drawn) < 200_000


@pytest.fixture
def bursty(monkeypatch: pytest.MonkeyPatch) -> str:
    """A law of mean 1 whose draws are nearly all short, so that a guess from the mean draws far too few."""
    rare = 1e-4
    entry = dataclasses.replace(LAWS["constant"], make=lambda u: np.where(u < rare, (1 - 0.01) / rare, 0) + 0.02 * u)
    monkeypatch.setitem(LAWS, "bursty", entry)
    return "bursty"


@pytest.mark.parametrize("n", [1, 3])
def test_draws_are_extended_until_no_arrival_is_missing(bursty: str, n: int) -> None:
    machines = make(bursty, n, seed=7, profile="linear")
    events = event_loop(machines, 3000)
    assert events.time[-1] < 0.2 * 3000 / n  # the guess from the mean was too low by far
    by_seconds = always_busy(machines, seconds=float(events.time[-1]))
    assert_same(by_seconds, events)
    done = barrier(machines, workers=n, steps=1000)
    np.testing.assert_array_equal(barrier(machines, workers=n, seconds=float(done.time[-1])).time, done.time)


def test_an_arrival_that_the_guess_did_not_draw_is_not_skipped(bursty: str) -> None:
    for seed in range(10):
        # a worker on time, whose pushes would fill the count, and one that turns out far faster than its mean
        machines = make(bursty, 4, seed, scale=[1.0, 30.0, 30.0, 30.0])
        assert_same(always_busy(machines, steps=500), event_loop(machines, 500))


# -- barriers --


def test_a_barrier_without_a_cluster_takes_one_second_a_step() -> None:
    done = barrier(None, workers=3, steps=4)
    np.testing.assert_array_equal(done.time, [1, 2, 3, 4])
    np.testing.assert_array_equal(done.gradients, [3, 6, 9, 12])
    np.testing.assert_array_equal(barrier(None, workers=3, seconds=4.9).time, done.time)
    np.testing.assert_array_equal(barrier(None, workers=3, seconds=4.0).time, done.time)
    np.testing.assert_array_equal(barrier(None, workers=3, gradients=14).time, done.time)


def test_a_barrier_of_all_waits_for_the_slowest() -> None:
    machines = make("exponential", 5, seed=2, profile="linear")
    done = barrier(machines, workers=5, steps=20)
    np.testing.assert_array_equal(done.time, np.cumsum(compute_times(machines, 20).max(0)))


@pytest.mark.parametrize("n", [1, 4, 16])
def test_a_barrier_of_n_exponential_workers_takes_the_harmonic_number_h_n(n: int) -> None:
    steps = 20_000
    mean = barrier(make("exponential", n, seed=4), workers=n, steps=steps).time[-1] / steps
    assert mean == pytest.approx(theory.barrier_time(n), rel=0.02)  # one standard deviation is below 0.7 %


def always(senders: np.ndarray) -> Callable[[int], np.ndarray]:
    """The same neighbours at every step."""
    return lambda step: senders


@given(seeds, st.integers(1, 8), st.data())
@settings(deadline=None)
def test_a_barrier_of_neighbours_is_never_later_than_the_full_one(seed: int, n: int, data: st.DataObject) -> None:
    edges = data.draw(st.lists(st.booleans(), min_size=n * n, max_size=n * n))
    machines = make("exponential", n, seed, profile="linear")
    local = barrier(machines, always(np.array(edges).reshape(n, n)), workers=n, steps=50)
    full = barrier(machines, workers=n, steps=50)
    assert (local.time <= full.time).all()
    np.testing.assert_array_equal(local.gradients, full.gradients)


@given(kinds, seeds, workers)
@settings(deadline=None)
def test_a_barrier_of_neighbours_on_the_complete_graph_is_the_full_one(
    kind: tuple[str, dict], seed: int, n: int
) -> None:
    machines = make(kind[0], n, seed, **kind[1])
    complete = ~np.eye(n, dtype=bool)
    local, full = barrier(machines, always(complete), workers=n, steps=50), barrier(machines, workers=n, steps=50)
    np.testing.assert_array_equal(local.time, full.time)


def test_a_worker_waits_for_its_senders_and_for_itself_only() -> None:
    senders = np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]], bool)  # worker 0 hears worker 1; 1 and 2 hear nobody
    turned = 0
    for seed in range(20):
        machines = make("exponential", 3, seed)
        c = compute_times(machines, 2)
        first = np.array([max(c[0, 0], c[1, 0]), c[1, 0], c[2, 0]])
        own = first + c[:, 1]
        second = np.array([max(own[0], own[1]), own[1], own[2]])
        expected = [first.max(), second.max()]
        np.testing.assert_array_equal(barrier(machines, always(senders), workers=3, steps=2).time, expected)
        turned += not np.array_equal(barrier(machines, always(senders.T), workers=3, steps=2).time, expected)
    assert turned  # some of the seeds tell rows from columns


def test_neighbours_that_take_turns_are_waited_for_in_their_turn() -> None:
    machines, both = make("exponential", 3, 1), np.ones((3, 3), bool)
    c = compute_times(machines, 2)
    time = barrier(machines, lambda step: both if step else ~both, workers=3, steps=2).time
    np.testing.assert_array_equal(time, [c[:, 0].max(), (c[:, 0] + c[:, 1]).max()])


# -- no barrier at all --


RING = np.roll(np.eye(6, dtype=bool), 1, 1) | np.roll(np.eye(6, dtype=bool), -1, 1)


@given(kinds, seeds, st.integers(1, 7), st.integers(1, 9))
@settings(deadline=None, max_examples=40)
def test_waves_make_every_update_once_in_an_order_that_the_clock_allows(
    kind: tuple[str, dict], seed: int, steps: int, every: int
) -> None:
    machines = make(kind[0], 6, seed, **kind[1])
    waves = unsynchronised(machines, RING, every=every, steps=steps)
    finish = np.cumsum(compute_times(machines, 40 * steps), 1)
    ends = waves.time[np.unique(np.minimum(np.arange(every, steps + every, every), steps)) - 1]
    assert waves.gradients[-1] == (finish <= waves.time[-1]).sum()
    flat = waves.applied.reshape(-1, 6)
    instants = np.where(flat, finish[np.arange(6), waves.batch.reshape(-1, 6)], np.nan)
    for i in range(6):
        mine = instants[flat[:, i], i]
        np.testing.assert_array_equal(mine, finish[i, : len(mine)])
        for j in np.flatnonzero(RING[i]):  # i at an instant reads what j wrote before it, and nothing later
            for wave in np.flatnonzero(flat[:, i]):
                assert not (instants[:wave, j] >= instants[wave, i]).any()
                assert not (instants[wave:, j] < instants[wave, i]).any()
    for stretch, end in zip(waves.applied, ends, strict=True):
        assert stretch.any()
        assert end in finish
    assert (waves.time == np.sort(waves.time)).all()


def test_equal_constant_speeds_are_one_wave_a_step_and_no_age() -> None:
    waves = unsynchronised(make("constant", 6), RING, every=1, steps=5)
    assert waves.applied.shape == (5, 1, 6)
    assert waves.applied.all()
    np.testing.assert_array_equal(waves.time, np.arange(1, 6))
    np.testing.assert_array_equal(waves.messages, 12 * np.arange(1, 6))
    assert not waves.age_max.any()


def test_a_straggler_s_model_grows_old_at_its_neighbours_only() -> None:
    machines = make("constant", 6, profile="straggler", slowdown=4.0)
    waves = unsynchronised(machines, RING, every=20, steps=20)
    assert waves.age_max[0] == 3  # read when it is about to be replaced
    assert 0 < waves.age_mean[0] < 1


@given(kinds, seeds, workers, st.integers(1, 100), st.booleans())
@settings(deadline=None)
def test_horizons_of_a_barrier_agree(kind: tuple[str, dict], seed: int, n: int, steps: int, ring: bool) -> None:
    machines = make(kind[0], n, seed, **kind[1])
    senders = always(np.roll(np.eye(n, dtype=bool), 1, axis=1)) if ring else None
    by_steps = barrier(machines, senders, workers=n, steps=steps)
    for other in (
        barrier(machines, senders, workers=n, gradients=n * steps + n - 1),
        barrier(machines, senders, workers=n, seconds=float(by_steps.time[-1])),
    ):
        np.testing.assert_array_equal(other.time, by_steps.time)
        np.testing.assert_array_equal(other.gradients, n * np.arange(1, steps + 1))


# -- files --


@pytest.mark.parametrize("name", ["events.npz", "events"])
def test_a_saved_schedule_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    events = always_busy(make("exponential", 4), steps=100)
    schedule.save(events, tmp_path / name)
    again = schedule.load(tmp_path / name)
    assert_same(again, events)
    assert [column.dtype for column in again] == [column.dtype for column in events]


def test_a_file_that_is_no_schedule_is_an_input_error(tmp_path: Path) -> None:
    events, path = always_busy(make("exponential", 4), steps=100), tmp_path / "it"
    schedule.save(events, path)
    whole = path.read_bytes()
    np.savez(tmp_path / "short.npz", worker=events.worker)
    np.savez(tmp_path / "pickled.npz", **{**events._asdict(), "time": np.array([None] * 100)})
    np.savez(tmp_path / "uneven.npz", **{**events._asdict(), "time": events.time[:3]})
    np.save(tmp_path / "lone.npy", events.time)
    (tmp_path / "cut").write_bytes(whole[:-40])
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("worker,time\n")
    for name in ("missing", "short.npz", "pickled.npz", "uneven.npz", "lone.npy", "cut", "empty", "text"):
        with pytest.raises(InputError, match=r"^schedule: .*" + name) as caught:
            schedule.load(tmp_path / name)
        assert "\n" not in str(caught.value)


# -- what a user can mend --


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"law": "exponental"}, "cluster: unknown name 'exponental'; did you mean 'exponential'?"),
        ({"n": 0}, "workers: must be at least 1, got 0"),
        ({"seed": -1}, "seed: must lie in [0, 2^64), got -1"),
        ({"profile": "lin"}, "cluster.profile: unknown name 'lin'; did you mean 'linear'?"),
        ({"profile": [1, 2]}, "cluster.profile: must be str, got [1, 2] (list)"),
        ({"slowdown": 3.0}, "cluster.slowdown: equal has no such option; it has no options"),
        ({"profile": "straggler", "slowdown": 0.0}, "cluster.slowdown: must be positive and finite, got 0.0"),
        ({"profile": "straggler", "slowdown": float("inf")}, "cluster.slowdown: must be positive and finite, got inf"),
        ({"scale": [1, 2]}, "cluster.scale: must be one number for each of workers=3, got 2"),
        ({"scale": [1, 0, 2]}, "cluster.scale: must be positive and finite, got 0.0 for worker 1"),
        ({"scale": [1, 2, float("inf")]}, "cluster.scale: must be positive and finite, got inf for worker 2"),
        ({"scale": [float("nan"), 2, 1]}, "cluster.scale: must be positive and finite, got nan for worker 0"),
        ({"scale": [1, "fast", 2]}, "cluster.scale: must be float, got 'fast' (str)"),
        ({"scale": 2.0}, "cluster.scale: must be list, got 2.0 (float)"),
        ({"scale": [1, 1, 1], "profile": "equal"}, "cluster.profile: cluster.scale says it all; leave it out"),
        ({"shift": -1.0}, "cluster.shift: must be finite and not negative, got -1.0"),
    ],
)
def test_a_cluster_that_cannot_be_is_an_input_error_in_one_line(options: dict, message: str) -> None:
    rest = dict(options)
    with pytest.raises(InputError) as caught:
        cluster.make(rest.pop("law", "exponential"), rest.pop("n", 3), rest.pop("seed", 0), **rest)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_no_scale_is_the_profile() -> None:
    np.testing.assert_array_equal(make("constant", 3, scale=None, profile="linear").scale, [1, 1.5, 2])


@pytest.mark.parametrize(
    ("horizon", "message"),
    [
        ({}, "steps: give exactly one of steps, gradients, seconds; got none"),
        ({"steps": 3, "seconds": 2.0}, "steps: give exactly one of steps, gradients, seconds; got steps, seconds"),
        ({"steps": 0}, "steps: must be positive and finite, got 0"),
        ({"steps": -1}, "steps: must be positive and finite, got -1"),
        ({"gradients": 0}, "gradients: must be positive and finite, got 0"),
        ({"seconds": float("nan")}, "seconds: must be positive and finite, got nan"),
        ({"seconds": float("inf")}, "seconds: must be positive and finite, got inf"),
        ({"seconds": 1e300}, "steps, gradients or seconds: must ask for fewer than 2^31 events"),
        ({"seconds": 0.5}, "seconds: no "),
    ],
)
def test_a_horizon_that_gives_no_schedule_is_an_input_error_in_one_line(horizon: dict, message: str) -> None:
    machines = make("constant", 3)
    for clock in (
        lambda: always_busy(machines, **horizon),
        lambda: barrier(machines, workers=3, **horizon),
        lambda: barrier(None, workers=3, **horizon),
    ):
        with pytest.raises(InputError) as caught:
            clock()
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)
    if horizon == {"seconds": 0.5}:
        assert str(caught.value).endswith("within 0.5 s, the first is at 1 s; give more seconds")


def test_a_barrier_of_fewer_gradients_than_workers_is_an_input_error() -> None:
    with pytest.raises(
        InputError, match=r"^gradients: a step of 3 workers computes 3, got 2; give at least that many$"
    ):
        barrier(None, workers=3, gradients=2)


def test_a_barrier_of_other_workers_than_the_clusters_is_an_input_error() -> None:
    machines = make("constant", 3)
    with pytest.raises(InputError, match=r"^workers: must be the cluster's 3, got 4$"):
        barrier(machines, workers=4, steps=1)
    with pytest.raises(InputError, match=r"^neighbours: must be \[3, 3\], got \[2, 2\]$"):
        barrier(machines, always(np.ones((2, 2), bool)), workers=3, steps=1)
