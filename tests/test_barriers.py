"""The clock behind barriers, of all or of neighbours, and of gossip without any. Each test's name is the proposition."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dopt import cluster, schedule, theory
from dopt.cluster import LAWS, Cluster, compute_times
from dopt.schedule import barrier, lockstep, unsynchronised
from dopt.types import Coordination, InputError

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("exponential", {}),
    ("exponential", {"profile": "sqrt", "shift": 0.5}),
    ("exponential", {"straggler": 1000.0}),
    ("pareto", {"shape": 1.2}),
    ("constant", {}),
    ("constant", {"profile": "linear"}),
]
kinds = st.sampled_from(KINDS)
seeds = st.integers(0, 2**31 - 1)
workers = st.integers(1, 9)
downs = st.fixed_dictionaries(
    {
        "crash": st.sampled_from([None, 0.0, 1.0, 2.5, 20.0]),
        "restart": st.sampled_from([None, 0.0, 1.0, 7.5]),
    }
)
RING = np.roll(np.eye(6, dtype=bool), 1, 1) | np.roll(np.eye(6, dtype=bool), -1, 1)


def make(law: str, n: int, seed: int = 0, **options: Any) -> Cluster:
    return cluster.make(law, n, seed, **options)


def always(senders: np.ndarray) -> Callable[[int], np.ndarray]:
    """The same neighbours, or costs, at every step."""
    return lambda step: senders


def refused(call: Callable[[], Any]) -> str:
    """The one line in which it is refused."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def one_by_one(machines: Cluster, senders: Callable[[int], np.ndarray], cost: Callable, steps: int) -> np.ndarray:
    """[steps, n] seconds at which each worker is through, one worker after the other."""
    n, times, now, found = machines.workers, compute_times(machines, steps), [0.0] * machines.workers, []
    for k in range(steps):
        done = []
        for i, (lost, back) in enumerate(machines.down):
            begin = back if lost <= now[i] < back else now[i]
            if begin < lost < begin + times[i, k]:
                begin = back  # and computes the same again
            done.append(begin + times[i, k])
        now = [max(done[j] for j in range(n) if j == i or senders(k)[i, j]) + cost(k)[i] for i in range(n)]
        found.append(now)
    return np.array(found)


# -- all wait for all --


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


@given(kinds, seeds, workers)
@settings(deadline=None)
def test_a_server_that_waits_for_all_is_a_barrier_of_all(kind: tuple[str, dict], seed: int, n: int) -> None:
    machines = make(kind[0], n, seed, **kind[1])
    events = schedule.arrivals(machines, Coordination(gradients=n, limit=0, stop=True, waits=True), steps=30)
    np.testing.assert_array_equal(schedule.batches(events).time, barrier(machines, workers=n, steps=30).time)


# -- each waits for its senders --


@given(kinds, seeds, st.integers(1, 6), downs, st.booleans(), st.data())
@settings(deadline=None)
def test_every_step_is_as_late_as_one_worker_after_the_other_says(
    kind: tuple[str, dict], seed: int, n: int, down: dict, local: bool, data: st.DataObject
) -> None:
    machines, steps = make(kind[0], n, seed, **kind[1], **down), 25
    bits = st.lists(st.booleans(), min_size=2 * n * n, max_size=2 * n * n)
    graphs = np.array(data.draw(bits)).reshape(2, n, n) if local else np.ones((2, n, n), bool)
    senders = lambda k: graphs[k % 2]  # noqa: E731
    cost = lambda k: (np.arange(n) + k % 3) / 8  # noqa: E731
    expected = one_by_one(machines, senders, cost, steps)
    found = lockstep(machines, senders if local else None, steps=steps, cost=cost)
    np.testing.assert_allclose(found.time.T, expected)
    ends = expected.max(1)
    if np.isinf(ends[0]):
        line = refused(lambda: barrier(machines, senders if local else None, workers=n, cost=cost, steps=steps))
        assert line == (
            "cluster.crash: the first step waits for a worker that never returns; crash later, or give cluster.restart"
        )
        return
    done = barrier(machines, senders if local else None, workers=n, cost=cost, steps=steps)
    np.testing.assert_allclose(done.time, ends[np.isfinite(ends)])
    np.testing.assert_array_equal(done.gradients, n * np.arange(1, len(done.time) + 1))
    assert done.stalled == np.isinf(ends[-1])


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
    full = barrier(machines, workers=n, steps=50)
    local = barrier(machines, always(~np.eye(n, dtype=bool)), workers=n, steps=50)
    np.testing.assert_array_equal(local.time, full.time)
    free = barrier(machines, workers=n, steps=50, cost=always(np.zeros(n)))
    np.testing.assert_array_equal(free.time, full.time)


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


def test_messages_travel_once_all_that_a_worker_waits_for_are_there() -> None:
    machines = make("constant", 3, scale=[1, 2, 4])
    done = barrier(machines, workers=3, cost=always(np.array([0.5, 0.25, 0.0])), steps=3)
    np.testing.assert_array_equal(done.time, [4.5, 8.5, 12.5])  # the slowest has its messages at once, and begins then
    alone = barrier(machines, always(np.zeros((3, 3), bool)), workers=3, cost=lambda k: np.full(3, k / 8), steps=3)
    np.testing.assert_array_equal(alone.time, [4, 8.125, 12.375])


# -- crashes --


def test_a_barrier_repeats_what_a_crash_has_lost() -> None:
    machines = make("constant", 3, crash=2.5, restart=1.0)
    done = barrier(machines, workers=3, steps=5)
    np.testing.assert_array_equal(done.time, [1, 2, 4.5, 5.5, 6.5])
    np.testing.assert_array_equal(done.gradients, [3, 6, 9, 12, 15])
    assert not done.stalled
    early = make("exponential", 2, seed=1, crash=0.01, restart=3.0)
    np.testing.assert_allclose(barrier(early, workers=2, steps=1).time, 3.01 + compute_times(early, 1)[0])


def test_a_barrier_stalls_where_a_worker_never_returns() -> None:
    machines = make("constant", 3, crash=2.5)
    for senders in (None, always(np.roll(np.eye(3, dtype=bool), 1, 1)), always(np.zeros((3, 3), bool))):
        done = barrier(machines, senders, workers=3, steps=9)
        np.testing.assert_array_equal(done.time, [1, 2])
        assert done.stalled
        assert not barrier(machines, senders, workers=3, steps=2).stalled
        assert barrier(machines, senders, workers=3, seconds=9.0).stalled
        assert not barrier(make("constant", 3, crash=20.0), senders, workers=3, seconds=9.0).stalled
    assert refused(lambda: barrier(make("constant", 3, crash=0.0), workers=3, seconds=9.0)).startswith(
        "cluster.crash: "
    )


# -- as a table --


@given(kinds, seeds, st.integers(1, 6), downs, st.booleans(), st.floats(0, 2))
@settings(deadline=None)
def test_lockstep_as_a_table_has_a_row_of_each_worker_in_each_step(
    kind: tuple[str, dict], seed: int, n: int, down: dict, local: bool, cost: float
) -> None:
    machines = make(kind[0], n, seed, **kind[1], **down)
    senders = always(np.roll(np.eye(n, dtype=bool), 1, 1)) if local else None
    found = lockstep(machines, senders, steps=20, cost=always(np.full(n, cost)))
    over = int(np.isfinite(found.time.max(0)).sum())
    assume(over)
    s = found.schedule()
    assert (s.steps, s.workers, s.stalled, len(s.time)) == (over, n, over < 20, n * over)
    assert s.end == found.time[:, :over].max()
    assert (np.diff(s.time) >= 0).all()
    assert s.applied.all()
    assert not s.staleness.any()
    np.testing.assert_allclose(np.bincount(s.write_version, s.weight), 1)
    for name in ("begin", "done", "sends", "time"):
        np.testing.assert_array_equal(getattr(s, name), getattr(found, name)[s.worker, s.write_version])
    np.testing.assert_array_equal(s.batch, s.write_version)
    spent = schedule.intervals(s)
    for i in range(n):
        begin, end = spent.begin[spent.worker == i], spent.end[spent.worker == i]
        np.testing.assert_allclose(begin, [0, *end[:-1]])
        assert end[-1] == s.end
    sending = (spent.end - spent.begin)[spent.kind == "sending"].sum()
    assert sending == pytest.approx(n * over * cost, rel=1e-9, abs=1e-9)


def test_the_fast_wait_for_the_slow() -> None:
    found = lockstep(make("constant", 2, scale=[1, 3]), steps=4, cost=always(np.full(2, 1.0))).schedule()
    shares = schedule.summary(found)["shares"]
    assert shares == {"computing": 0.5, "sending": 0.25, "waiting": 0.25, "wasted": 0.0}


# -- no barrier at all --


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
    instants = np.where(flat, finish[np.arange(6), waves.number.reshape(-1, 6)], np.nan)
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
    waves = unsynchronised(make("constant", 6, straggler=4.0), RING, every=20, steps=20)
    assert waves.age_max[0] == 3  # read when it is about to be replaced
    assert 0 < waves.age_mean[0] < 1


def test_models_that_travel_are_there_at_the_end_of_it() -> None:
    waves = unsynchronised(make("constant", 6), RING, every=2, steps=5, sending=lambda i, count: np.full(count, 0.5))
    np.testing.assert_array_equal(waves.time, 1.5 * np.arange(1, 6))
    assert not waves.age_max.any()
    # who sends longer is slower, as a straggler is
    slow = unsynchronised(make("constant", 6, straggler=4.0), RING, every=20, steps=20)
    sent = lambda i, count: np.full(count, 3.0 * (i == 5))  # noqa: E731
    waves = unsynchronised(make("constant", 6), RING, every=20, steps=20, sending=sent)
    for one, other in zip(waves, slow, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_barriers_the_others_go_on_until_nobody_is_left() -> None:
    waves = unsynchronised(make("constant", 6, crash=2.5), RING, every=3, steps=9)
    assert (len(waves.time), waves.stalled) == (9, False)
    assert waves.applied.sum((0, 1)).tolist() == [2, *[waves.applied[:, :, 1].sum()] * 5]
    assert waves.age_max[-1] > 3  # what the dead one wrote at last
    waves = unsynchronised(make("constant", 6, crash=2.5, crash_workers=6), RING, every=3, steps=9)
    assert (waves.time.tolist(), waves.stalled) == ([1, 2], True)
    waves = unsynchronised(make("constant", 6, crash=2.5, crash_workers=6, restart=1.0), RING, every=3, steps=3)
    assert (waves.time.tolist(), waves.stalled) == ([1, 2, 4.5], False)


@given(kinds, seeds, st.integers(1, 30))
@settings(deadline=None, max_examples=25)
def test_horizons_of_waves_agree(kind: tuple[str, dict], seed: int, steps: int) -> None:
    machines = make(kind[0], 6, seed, **kind[1])
    waves = unsynchronised(machines, RING, every=4, steps=steps)
    for other in (
        unsynchronised(machines, RING, every=4, gradients=6 * steps + 5),
        unsynchronised(machines, RING, every=4, seconds=float(waves.time[-1])),
    ):
        np.testing.assert_array_equal(other.time[:steps], waves.time)
        np.testing.assert_array_equal(other.gradients[:steps], waves.gradients)
        np.testing.assert_array_equal(other.messages[:steps], waves.messages)


# -- horizons --


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


def test_steps_are_made_until_none_is_missing_where_all_are_faster_than_the_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rare = 1e-4
    entry = dataclasses.replace(LAWS["constant"], make=lambda u: np.where(u < rare, (1 - 0.01) / rare, 0) + 0.02 * u)
    monkeypatch.setitem(LAWS, "bursty", entry)
    machines = make("bursty", 2, seed=7)
    done = barrier(machines, workers=2, steps=1000)
    assert done.time[-1] < 20
    np.testing.assert_array_equal(barrier(machines, workers=2, seconds=float(done.time[-1])).time, done.time)


@pytest.mark.parametrize(
    ("horizon", "message"),
    [
        ({}, "steps: give exactly one of steps, gradients, seconds; got none"),
        ({"steps": 3, "gradients": 9}, "steps: give exactly one of steps, gradients, seconds; got steps, gradients"),
        ({"steps": 0}, "steps: must be positive and finite, got 0"),
        ({"seconds": float("nan")}, "seconds: must be positive and finite, got nan"),
        ({"seconds": 1e300}, "steps, gradients or seconds: must ask for fewer than 2^31 events"),
        ({"seconds": 0.5}, "seconds: no "),
        ({"gradients": 2}, ""),
    ],
)
def test_a_horizon_without_a_step_is_an_input_error_in_one_line(horizon: dict, message: str) -> None:
    machines = make("constant", 3)
    lines = [
        refused(clock)
        for clock in (
            lambda: barrier(machines, workers=3, **horizon),
            lambda: barrier(None, workers=3, **horizon),
            lambda: unsynchronised(machines, RING[:3, :3], every=1, **horizon),
        )
    ]
    assert all(line.startswith(message) for line in lines)
    if "gradients" in horizon and len(horizon) == 1:
        assert lines[0] == lines[1] == "gradients: a step of 3 workers computes 3, got 2; give at least that many"
        assert lines[2].endswith("a step is 3 updates, on average one of each worker; the horizon holds 2")
    if horizon == {"seconds": 0.5}:
        assert lines[0] == "seconds: no step is done within 0.5 s, the first is at 1 s; give more seconds"


def test_a_barrier_of_other_workers_than_the_clusters_is_an_input_error() -> None:
    machines = make("constant", 3)
    assert refused(lambda: barrier(machines, workers=4, steps=1)) == "workers: must be the cluster's 3, got 4"
    line = refused(lambda: barrier(machines, always(np.ones((2, 2), bool)), workers=3, steps=1))
    assert line == "neighbours: must be [3, 3], got [2, 2]"
