"""The clock of a server: who delivers which version when. Each test's name is the proposition it checks."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dopt import algorithms, cluster, schedule, theory
from dopt.algorithms import ALGORITHMS
from dopt.algorithms.traits import coordination_of
from dopt.cluster import LAWS, Cluster, mean_times, worker_times
from dopt.cluster import links as of_links
from dopt.schedule import ABORTED, APPLIED, DROPPED, PENDING, Schedule, always_busy, arrivals, in_flight_staleness
from dopt.types import Coordination, InputError

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("exponential", {}),
    ("exponential", {"profile": "linear"}),
    ("exponential", {"straggler": 1000.0}),
    ("exponential", {"profile": "sqrt", "shift": 0.5}),
    ("pareto", {"shape": 1.2}),
    ("gamma", {"burst_slowdown": 10.0}),
    ("constant", {}),
    ("constant", {"profile": "linear"}),
    ("constant", {"straggler": 1000.0}),
]
TIES = {"burst_slowdown": 2.0, "burst_start": 0.3, "burst_stop": 0.3}  # many, and other ones each time
seeds = st.integers(0, 2**31 - 1)
workers = st.integers(1, 9)
# a method, and its options from n and a number k that may exceed n
RULES: dict[str, tuple[str, Callable[[int, int], dict[str, Any]]]] = {
    "async": ("async_sgd", lambda n, k: {}),
    "drop": ("drop_stale_sgd", lambda n, k: {"max_staleness": k - 1}),
    "ringmaster": ("ringmaster_sgd", lambda n, k: {"threshold": k}),
    "ringmaster_finishing": ("ringmaster_sgd", lambda n, k: {"threshold": k, "stop": False}),
    "ssp": ("ssp_sgd", lambda n, k: {"slack": k - 1}),
    "k_sync": ("k_sync_sgd", lambda n, k: {"k": min(k, n)}),
    "k_batch_sync": ("k_batch_sync_sgd", lambda n, k: {"k": k}),
    "k_async": ("k_async_sgd", lambda n, k: {"k": min(k, n)}),
    "k_batch_async": ("k_batch_async_sgd", lambda n, k: {"k": k}),
    "rennala": ("rennala_sgd", lambda n, k: {"batch": k}),
    "rennala_stopping": ("rennala_sgd", lambda n, k: {"batch": k, "stop": True}),
    "malenia": ("malenia_sgd", lambda n, k: {"batch": k}),
    "malenia_stopping": ("malenia_sgd", lambda n, k: {"batch": k, "stop": True}),
    "fedbuff": ("fedbuff", lambda n, k: {"buffer": k, "local_steps": 3}),
    "local": ("async_diloco", lambda n, k: {"local_steps": 3}),
    "pairs": ("ad_psgd", lambda n, k: {}),
}
BUSY = {"async", "drop", "ringmaster_finishing", "k_batch_async", "rennala", "fedbuff", "local"}  # none waits or stops
ONE_GRADIENT = {"async", "drop", "ringmaster", "ringmaster_finishing", "local", "pairs"}  # ... and pulls at once
loop = importlib.import_module("dopt.schedule.arrivals")
THE_LOOP = Coordination(limit=10**9)  # drops nothing, but is not the sort


def make(law: str, n: int, seed: int = 0, **options: Any) -> Cluster:
    return cluster.make(law, n, seed, **options)


@st.composite
def clusters(draw: st.DrawFn, most: int = 9, **options: st.SearchStrategy) -> Cluster:
    n, (law, own) = draw(st.integers(1, most)), draw(st.sampled_from([*KINDS, *[("constant", TIES)] * 6]))
    if own is TIES:
        own = {**TIES, "scale": draw(st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0]), min_size=n, max_size=n))}
    return make(law, n, draw(seeds), **own, **{name: draw(strategy) for name, strategy in options.items()})


def troubled() -> st.SearchStrategy[Cluster]:
    """Clusters with a network, and with crashes."""
    return clusters(
        6,
        latency=st.sampled_from([0.0, 0.25]),
        bandwidth=st.sampled_from([None, 4.0]),
        crash=st.sampled_from([None, 0.0, 1.0, 2.5]),
        restart=st.sampled_from([None, 0.0, 1.0, 1.75]),
    )


def rule(name: str, n: int, k: int) -> tuple[Coordination, dict[str, Any]]:
    """What a method's clock and what its oracle are given."""
    method, given = RULES[name]
    options = algorithms.options(method, given(n, k))
    return coordination_of(ALGORITHMS[method].traits.exchange(options, n)), options


def consumed(
    name: str, machines: Cluster, options: Mapping[str, Any], steps: int, dead: int = 0, after: float = 0.0
) -> list[list[tuple[int, ...]]]:
    """What the oracle's updates consume: (worker, number, version read, staleness). The first workers may die."""
    known: list[list[float]] = [[] for _ in range(machines.workers)]

    def seconds(i: int, m: int) -> float:
        while m >= len(known[i]):
            known[i] = worker_times(machines, i, 2 * m + 16).tolist()
            if i < dead:
                known[i] = np.where(np.cumsum(known[i]) > after, np.inf, known[i]).tolist()
        return known[i][m]

    n, seen, plain = machines.workers, [], oracles.updates

    def spy(*args: Any, **rule: Any) -> Iterator[list[oracles.Push]]:
        for pushes in plain(*args, **rule):
            seen.append([tuple(push) for push in pushes])
            yield pushes

    setting = oracles.Setting(
        gradient=lambda i, x, m: np.zeros(1),
        start=np.zeros((n, 1)),
        steps=steps,
        rate=0.0,
        momentum=0.0,
        W=lambda k: np.eye(n),
        ages=np.zeros((0, n, n), int),
        seconds=seconds,
        options=options,
        partner=lambda i, m: i,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oracles, "updates", spy)
        getattr(oracles, RULES[name][0])(setting)
    return seen


def applied(events: Schedule, local_steps: int = 1) -> list[list[tuple[int, ...]]]:
    """The same of a schedule."""
    found: list[list] = [[] for _ in range(events.steps)]
    s = events.rows(events.applied)
    columns = (s.write_version, s.worker, s.batch // local_steps, s.read_version, s.staleness)
    for step, *push in zip(*(column.tolist() for column in columns), strict=True):
        found[step].append(tuple(push))
    return found


def assert_same(one: Schedule, other: Schedule, close: float = 0.0) -> None:
    for name, column in one.columns.items():
        np.testing.assert_allclose(column, other.columns[name], rtol=close, atol=close, err_msg=name)
    assert one.end == pytest.approx(other.end, rel=close)
    assert (one.workers, one.stalled) == (other.workers, other.stalled)


def refused(call: Callable[[], Any]) -> str:
    """The one line in which it is refused."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- every rule, against its transcription --


@pytest.mark.parametrize("name", RULES)
@settings(deadline=None, max_examples=40)
@given(data=st.data(), k=st.integers(1, 20))
def test_every_update_consumes_what_the_oracles_does(name: str, data: st.DataObject, k: int) -> None:
    of_all = name.startswith("malenia")  # an update waits for all: 1000 times slower is 1000 gradients of each other
    machines, steps = data.draw(clusters(4 if of_all else 9)), 6 if of_all else 40
    assume(not of_all or mean_times(machines).max() < 100)
    how, options = rule(name, machines.workers, k)
    events = arrivals(machines, how, steps=steps)
    assert events.steps == steps
    assert applied(events, how.local_steps) == consumed(name, machines, options, steps)


@pytest.mark.parametrize("name", [name for name in RULES if not name.startswith("malenia")])
@settings(deadline=None, max_examples=25)
@given(machines=clusters(), k=st.integers(1, 12), dead=st.integers(1, 9), crash=st.sampled_from([0.0, 1.0, 2.5]))
def test_who_crashes_for_good_is_the_oracles_worker_that_never_ends(
    name: str, machines: Cluster, k: int, dead: int, crash: float
) -> None:
    crash = crash if name in BUSY else 0.0  # else when a computation begins depends on others
    dead, steps = min(dead, machines.workers), 30
    how, options = rule(name, machines.workers, k)
    down = np.full((machines.workers, 2), np.inf)
    down[:dead, 0] = crash
    # a round of several computations ends when its last one does
    expected = consumed(name, machines, options, steps, dead, crash)
    if not expected:
        assert refused(lambda: arrivals(machines._replace(down=down), how, steps=steps)).startswith("cluster.crash: ")
        return
    events = arrivals(machines._replace(down=down), how, steps=steps)
    assert applied(events, how.local_steps) == expected
    assert events.stalled == (len(expected) < steps)


@pytest.mark.parametrize("name", RULES)
@settings(deadline=None, max_examples=40)
@given(machines=troubled(), k=st.integers(1, 12), steps=st.integers(1, 40))
def test_the_columns_agree_with_each_other(name: str, machines: Cluster, k: int, steps: int) -> None:
    how, events = survived(name, machines, k, steps)
    s, n, size = events, machines.workers, 1.0
    assert {name: str(column.dtype) for name, column in s.columns.items()} == {
        **dict.fromkeys(("worker", "batch", "read_version", "write_version"), "int32"),
        "fate": "int8",
        **dict.fromkeys(("weight", "pulled", "begin", "done", "sends", "time", "bytes"), "float64"),
    }
    pending = s.fate == PENDING
    assert (np.diff(pending.astype(int)) >= 0).all()  # last
    there = s.rows(~pending)
    assert (np.diff(there.time) >= 0).all()
    assert (np.diff(there.write_version) >= 0).all()
    assert s.stalled or s.steps == steps
    assert (s.read_version <= s.write_version).all()
    for before, after in (("pulled", "begin"), ("begin", "done"), ("done", "sends"), ("sends", "time")):
        assert (getattr(s, before) <= getattr(s, after) + 1e-12).all()
    assert (s.time <= s.end).all()
    limit = np.inf if how.limit is None else how.limit
    assert (s.staleness[s.applied] <= limit).all()
    assert (s.staleness[s.fate == DROPPED] > limit).all()
    assert how.stop or machines.down.min() < np.inf or not (s.fate == ABORTED).any()
    assert how.limit is not None or not (s.fate == DROPPED).any()
    gradients = np.bincount(s.write_version[s.applied], minlength=s.steps)
    assert (gradients >= n if how.per_worker else gradients == (how.gradients or 1)).all()
    assert (s.weight[~s.applied] == 0).all()
    fetched = np.zeros(len(s.time))
    for i in range(n):
        own = np.flatnonzero(s.worker == i)
        own = own[np.argsort(s.batch[own])]
        np.testing.assert_array_equal(s.batch[own], how.local_steps * np.arange(len(own)))  # each has one row
        assert (s.pulled[own][1:] >= s.time[own][:-1]).all()
        had = np.concatenate([[0], s.read_version[own][:-1]])
        lost = np.concatenate([[False], s.fate[own][:-1] == ABORTED])
        fetched[own] = (s.read_version[own] != had) | lost
    np.testing.assert_array_equal(there.bytes, size * (fetched[~pending] + there.delivered))
    assert schedule.batches(s).pulls[-1] == fetched.sum()


def survived(name: str, machines: Cluster, k: int, steps: int) -> tuple[Coordination, Schedule]:
    """A schedule with messages of one byte, unless there is none."""
    if name.startswith("malenia"):
        assume(mean_times(machines).max() < 100)
    how, _ = rule(name, machines.workers, k)
    try:
        return how, arrivals(machines, how, steps=steps, size=1.0)
    except InputError as error:
        assert str(error).startswith("cluster.crash: nothing moves after ")  # noqa: PT017
        assume(False)
        raise


# -- the always-busy server: the sort --


@given(clusters(latency=st.sampled_from([0.0, 0.0, 0.25])), st.integers(1, 300), st.integers(1, 3), st.booleans())
@settings(deadline=None)
def test_the_sort_is_the_loop(machines: Cluster, horizon: int, local_steps: int, by_seconds: bool) -> None:
    close = 1e-12 if machines.links.latency else 0.0
    until = {"seconds": 2.0 * horizon / machines.workers} if by_seconds else {"steps": horizon}
    try:
        sort = arrivals(machines, Coordination(local_steps=local_steps), **until, size=3.0)
    except InputError:
        assume(False)
    for other in (THE_LOOP, Coordination(slack=10**9)):
        assert_same(sort, arrivals(machines, other._replace(local_steps=local_steps), **until, size=3.0), close)


@pytest.mark.parametrize(("law", "options"), KINDS)
@settings(deadline=None, max_examples=25)
@given(seed=seeds, n=workers, steps=st.integers(1, 2000))
def test_delivered_plus_in_flight_staleness_is_n_minus_1_times_steps(
    law: str, options: dict, seed: int, n: int, steps: int
) -> None:
    events = always_busy(make(law, n, seed, **options), steps=steps)
    assert events.staleness[events.delivered].sum() + in_flight_staleness(events).sum() == (n - 1) * steps


@pytest.mark.parametrize("name", sorted(ONE_GRADIENT))
@settings(deadline=None, max_examples=25)
@given(machines=clusters(), k=st.integers(1, 9), steps=st.integers(1, 200))
def test_so_it_is_where_some_are_dropped_or_aborted(name: str, machines: Cluster, k: int, steps: int) -> None:
    events = arrivals(machines, rule(name, machines.workers, k)[0], steps=steps)
    assert events.staleness.sum() == (machines.workers - 1) * steps


def test_a_worker_that_never_delivered_has_been_in_flight_since_version_0() -> None:
    events = always_busy(make("constant", 3, straggler=1000.0), steps=100)
    np.testing.assert_array_equal(in_flight_staleness(events), [1, 0, 100])


@pytest.mark.parametrize("n", [2, 8])
def test_iid_exponential_workers_give_geometric_staleness(n: int) -> None:
    steps = 200_000
    events = always_busy(make("exponential", n, seed=1), steps=steps)
    tau = events.staleness[events.applied]
    law = theory.geometric_staleness(n, tau.max() + 1)
    seen = np.bincount(tau) / steps
    # total variation: sampling alone gives about 0.4 Σ sqrt(p/steps) < 0.005 for n = 8
    assert (np.abs(seen - law).sum() + 1 - law.sum()) / 2 < 0.01


def test_deterministic_times_c_give_mean_staleness_c_times_sum_1_over_c_minus_1() -> None:
    c = np.array([1.0, np.sqrt(2), 2.0, np.pi, 7.5])
    events = always_busy(make("constant", 5, scale=list(map(float, c))), steps=100_000)
    means = [events.staleness[events.applied & (events.worker == i)].mean() for i in range(5)]
    np.testing.assert_allclose(means, theory.expected_staleness(c), rtol=2e-3)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_equal_constant_speeds_give_round_robin_of_staleness_n_minus_1(n: int) -> None:
    events = always_busy(make("constant", n), steps=10 * n)
    events, e = events.rows(events.applied), np.arange(10 * n)
    np.testing.assert_array_equal(events.worker, e % n)
    np.testing.assert_array_equal(events.batch, e // n)
    np.testing.assert_array_equal(events.time, e // n + 1)
    np.testing.assert_array_equal(events.staleness, np.minimum(e, n - 1))  # in the first round all read version 0


@pytest.mark.parametrize(("law", "options"), KINDS)
def test_all_pushes_of_all_workers_until_the_last_are_there(law: str, options: dict) -> None:
    n, steps = 16, 200_000
    machines = make(law, n, seed=6, **options)
    events = always_busy(machines, steps=steps)
    events = events.rows(events.applied)
    assert events.steps == len(events.time) == steps
    # what lacks to n - 1 is in flight: of a straggler all, of others not so much
    assert n - 1.2 < events.staleness.mean() <= n - 1 or options.get("straggler")
    of_each = np.bincount(events.worker, minlength=n)
    for i in range(n):
        finish = np.cumsum(worker_times(machines, i, of_each[i] + 1))
        np.testing.assert_array_equal(events.time[events.worker == i], finish[:-1])
        assert finish[-1] >= events.time[-1]  # the first that is not in it, which ties put later


def test_one_very_fast_worker_costs_no_draws_of_the_slow_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(loop, "worker_times", lambda c, i, count: drawn.append(count) or worker_times(c, i, count))
    always_busy(make("exponential", 64, scale=[1e-3] + [1.0] * 63), steps=100_000)
    assert 100_000 <= sum(drawn) < 200_000


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
    events = arrivals(machines, THE_LOOP, steps=3000)
    assert events.end < 0.2 * 3000 / n  # the guess from the mean was too low by far
    assert_same(always_busy(machines, seconds=events.end), events)


def test_an_arrival_that_the_guess_did_not_draw_is_not_skipped(bursty: str) -> None:
    for seed in range(10):
        # a worker on time, whose pushes would fill the count, and one that turns out far faster than its mean
        machines = make(bursty, 4, seed, scale=[1.0, 30.0, 30.0, 30.0])
        assert_same(always_busy(machines, steps=500), arrivals(machines, THE_LOOP, steps=500))


# -- how long updates take --


def seconds_per_update(name: str, machines: Cluster, steps: int, **options: Any) -> float:
    method = RULES[name][0]
    how = coordination_of(ALGORITHMS[method].traits.exchange(algorithms.options(method, options), machines.workers))
    return arrivals(machines, how, steps=steps).end / steps


LAWS_OF_ORDER: list[tuple[str, dict[str, float]]] = [
    ("exponential", {}),
    ("shifted_exponential", {}),
    ("shifted_exponential", {"minimum": 0.1}),
    ("pareto", {}),
    ("uniform", {}),
    ("uniform", {"width": 1.0}),
]


@pytest.mark.parametrize("k", [2, 4, 6])
@pytest.mark.parametrize(("law", "options"), LAWS_OF_ORDER)
def test_k_sync_takes_the_kth_order_statistic(law: str, options: dict, k: int) -> None:
    n = 6
    expected = theory.order_statistic_mean(lambda u: LAWS[law].make(u, **options), n, k)
    if law == "exponential":
        assert expected == pytest.approx(theory.exponential_order_statistic(n, k))
    found = seconds_per_update("k_sync", make(law, n, seed=1, **options), 8000, k=k)
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("backups", [1, 3])
def test_with_b_backup_workers_a_step_takes_h_of_n_plus_b_minus_h_of_b(backups: int) -> None:
    k, mu = 4, 2.0
    harmonic = [sum(1 / i for i in range(1, m + 1)) for m in (k + backups, backups)]
    machines = make("exponential", k + backups, seed=2, scale=[1 / mu] * (k + backups))
    assert seconds_per_update("k_sync", machines, 8000, k=k) == pytest.approx(
        (harmonic[0] - harmonic[1]) / mu, rel=0.02
    )


@pytest.mark.parametrize("k", [1, 3, 6])
def test_k_async_of_exponential_workers_takes_the_order_statistic(k: int) -> None:
    found = seconds_per_update("k_async", make("exponential", 6, seed=3), 10_000, k=k)
    assert found == pytest.approx(theory.exponential_order_statistic(6, k), rel=0.02)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_k_batch_sync_of_exponential_workers_takes_k_over_n(k: int) -> None:
    assert seconds_per_update("k_batch_sync", make("exponential", 6, seed=4), 8000, k=k) == pytest.approx(
        k / 6, rel=0.02
    )


@pytest.mark.parametrize("k", [4, 15])
@pytest.mark.parametrize("law", [name for name in LAWS if name != "trace"])
def test_k_batch_async_takes_k_mean_times_over_n_under_every_law(law: str, k: int) -> None:
    for machines in (make(law, 6, seed=5, shift=0.5), make(law, 6, seed=5, profile="linear")):
        expected = k / (1 / mean_times(machines)).sum()
        assert seconds_per_update("k_batch_async", machines, 30_000 // k, k=k) == pytest.approx(expected, rel=0.02)


def test_without_slack_each_worker_of_ssp_makes_1_over_h_n_updates_a_second_and_with_much_1() -> None:
    n, machines = 6, make("exponential", 6, seed=6)
    rates = [1 / n / seconds_per_update("ssp", machines, 30_000, slack=slack) for slack in (0, 1, 4, 16, 256)]
    assert rates[0] == pytest.approx(1 / theory.barrier_time(n), rel=0.02)
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("slack", [0, 3, 50])
def test_a_lasting_straggler_caps_ssp_at_its_own_speed(slack: int) -> None:
    found = seconds_per_update("ssp", make("constant", 4, straggler=10.0), 4000, slack=slack)
    assert found == pytest.approx(10 / 4, rel=0.06)  # what the others are ahead, at most 3 × 50 of 4000 updates
    assert seconds_per_update("async", make("constant", 4, straggler=10.0), 4000) == pytest.approx(1 / 3.1, rel=0.01)


# -- horizons --


@pytest.mark.parametrize("name", RULES)
@settings(deadline=None, max_examples=20)
@given(machines=troubled(), k=st.integers(1, 9), steps=st.integers(1, 30), more=st.integers(0, 20))
def test_a_shorter_horizon_is_a_prefix_and_horizons_agree(
    name: str, machines: Cluster, k: int, steps: int, more: int
) -> None:
    how, events = survived(name, machines, k, steps)
    made = events.steps
    last = int(np.flatnonzero(events.applied)[-1]) + 1
    computed = how.local_steps * int(events.delivered[:last].sum())
    assert_same(arrivals(machines, how, steps=steps, size=1.0), events)
    horizons = {"steps": made + more}, {"gradients": computed}, {"seconds": float(events.time[last - 1])}
    for horizon in horizons:
        other = arrivals(machines, how, **horizon, size=1.0)
        for column, same in zip(events.columns.values(), other.columns.values(), strict=True):
            np.testing.assert_array_equal(column[:last], same[:last])
        if "gradients" in horizon:
            assert other.steps == made
            assert how.local_steps * other.delivered.sum() == computed
        if "seconds" in horizon:  # all of the last instant, so perhaps more
            assert other.time.max() <= other.end == horizon["seconds"]
            further = arrivals(machines, how, steps=other.steps + 1, size=1.0)
            assert further.stalled or further.end > other.end


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
        ({"seconds": 1e300}, "steps, gradients or seconds: must ask for fewer than 2^31 events, got about 3e+300"),
        ({"steps": 2**31}, "steps, gradients or seconds: must ask for fewer than 2^31 events, got about 2.15e+09"),
        ({"gradients": 2**31}, "steps, gradients or seconds: must ask for fewer than 2^31 events, got about 2.15e+09"),
    ],
)
def test_a_horizon_that_gives_no_schedule_is_an_input_error_in_one_line(horizon: dict, message: str) -> None:
    for how in (Coordination(), Coordination(gradients=1), Coordination(slack=1)):
        assert refused(lambda how=how: arrivals(make("constant", 3), how, **horizon)).startswith(message)


@pytest.mark.parametrize(
    ("how", "horizon", "message"),
    [
        ({}, {"seconds": 0.5}, "seconds: no gradient arrives within 0.5 s, the first comes at 1 s; give more seconds"),
        ({"gradients": 4}, {"seconds": 1.5}, "seconds: no update is made within 1.5 s; give more seconds"),
        ({"gradients": 4}, {"gradients": 3}, "gradients: 3 make no update of 4; give more"),
        ({"gradients": 0}, {"steps": 1}, "gradients: an update needs at least one gradient, got 0"),
        (
            {"gradients": 4, "waits": True},
            {"steps": 1},
            "gradients: with waits, each worker brings one gradient, so it must not exceed workers",
        ),
        ({"limit": -1}, {"steps": 1}, "limit: must not be negative, got -1"),
        ({"slack": -1}, {"steps": 1}, "slack: must not be negative, got -1"),
        (
            {"limit": 1, "counts_dropped": True, "stop": True},
            {"steps": 1},
            "stop: needs a limit that counts updates only",
        ),
        # of three workers of one speed, each is two arrivals late from the second round on
        (
            {"limit": 1, "counts_dropped": True},
            {"steps": 3},
            "limit (algorithm.max_staleness): the last 10301 gradients were all older than 1 arrivals",
        ),
    ],
)
def test_a_rule_that_makes_no_update_is_an_input_error(how: dict, horizon: dict, message: str) -> None:
    assert refused(lambda: arrivals(make("constant", 3), Coordination(**how), **horizon)).startswith(message)


# -- the replay --


@pytest.mark.parametrize("name", RULES)
@settings(deadline=None, max_examples=40)
@given(machines=troubled(), k=st.integers(1, 12), steps=st.integers(1, 40))
def test_a_replay_finds_every_model_that_was_pulled_where_it_is_kept(
    name: str, machines: Cluster, k: int, steps: int
) -> None:
    how, events = survived(name, machines, k, steps)
    found, chosen = schedule.batches(events), np.flatnonzero(events.applied)
    table = [0] * found.kept
    for step in range(events.steps):
        rows = found.rows[step][found.weight[step] > 0]
        np.testing.assert_array_equal(rows, chosen[events.write_version[chosen] == step])
        np.testing.assert_array_equal(found.weight[step][: len(rows)], events.weight[rows])
        for row, slot in zip(found.rows[step], found.read[step], strict=True):
            assert table[slot] == events.read_version[row]
        table[found.write[step]] = step + 1
        assert found.time[step] == events.time[rows[-1]]
        assert found.computed[step] == events.delivered[: rows[-1] + 1].sum()
    assert found.kept <= min(machines.workers, events.staleness[events.applied].max() + 1)
    each = np.bincount(events.write_version[chosen], events.weight[chosen])
    if not how.power:
        np.testing.assert_allclose(each, 1)
    if how.gradients and not how.per_worker:
        tau = events.staleness[chosen]
        np.testing.assert_allclose(events.weight[chosen], (1 + tau) ** -how.power / how.gradients)
    if how.per_worker:
        own = np.zeros((events.steps, machines.workers))
        np.add.at(own, (events.write_version[chosen], events.worker[chosen]), events.weight[chosen])
        np.testing.assert_allclose(own, 1 / machines.workers)


def test_few_models_are_kept_where_stale_gradients_are_dropped() -> None:
    machines = make("constant", 40, straggler=100.0)
    kept = {
        name: schedule.batches(arrivals(machines, rule(name, 40, 5)[0], steps=5000)).kept
        for name in ("async", "ringmaster", "drop", "k_sync", "rennala", "k_batch_sync")
    }
    assert kept == {"async": 40, "ringmaster": 5, "drop": 5, "k_sync": 1, "rennala": 1, "k_batch_sync": 1}


# -- who does what when --


@pytest.mark.parametrize("name", RULES)
@settings(deadline=None, max_examples=25)
@given(machines=troubled(), k=st.integers(1, 9), steps=st.integers(1, 30))
def test_intervals_cover_each_workers_time_once(name: str, machines: Cluster, k: int, steps: int) -> None:
    _, events = survived(name, machines, k, steps)
    done = schedule.intervals(events)
    for i in range(machines.workers):
        begin, end = done.begin[done.worker == i], done.end[done.worker == i]
        assert (end > begin).all()
        np.testing.assert_allclose(begin, [0, *end[:-1]], atol=1e-12)
        assert end[-1] == events.end
    report = schedule.summary(events)
    assert sum(report["shares"].values()) == pytest.approx(1)
    assert sum(report["computations"].values()) == len(events.time)
    computing = np.isin(done.kind, ["computing", "wasted"])
    np.testing.assert_allclose((done.end - done.begin)[computing].sum(), (events.done - events.begin).sum())


def test_a_summary_says_how_stale_how_fast_and_how_much_is_wasted() -> None:
    machines = make("constant", 2, scale=[1, 2])
    report = schedule.summary(arrivals(machines, steps=3, size=5.0))
    np.testing.assert_array_equal(report.pop("staleness_histogram"), [2, 0, 1])
    assert report == {
        "steps": 3,
        "seconds": 2.0,
        "updates_per_second": 1.5,
        "computations": {"applied": 3, "dropped": 0, "aborted": 0, "pending": 2},
        "staleness_mean": pytest.approx(2 / 3),
        "staleness_quantiles": {0.5: 0.0, 0.9: pytest.approx(1.6), 0.99: pytest.approx(1.96), 1.0: 2.0},
        "shares": {"computing": 1.0, "sending": 0.0, "waiting": 0.0, "wasted": 0.0},
        "bytes": 5.0 * (3 + 3),  # two that pulled at the end, one before
        "stalled": False,
    }
    wasted = schedule.summary(arrivals(machines, rule("k_sync", 2, 1)[0], steps=4))
    assert wasted["computations"] == {"applied": 4, "dropped": 0, "aborted": 4, "pending": 2}
    assert wasted["shares"] == {"computing": 0.5, "sending": 0.0, "waiting": 0.0, "wasted": 0.5}
    waits = schedule.summary(arrivals(machines, rule("k_sync", 2, 2)[0], steps=4))
    assert waits["shares"] == {"computing": 0.75, "sending": 0.0, "waiting": 0.25, "wasted": 0.0}


# -- the network --


def test_a_model_and_a_gradient_take_the_latency_each() -> None:
    events = arrivals(make("constant", 2, latency=[0.5, 0.0]), steps=6, size=1.0)
    own = events.rows(events.worker == 0)
    np.testing.assert_array_equal(own.pulled, [0, 1.5, 3.5])
    np.testing.assert_array_equal(own.begin, [0, 2, 4])
    np.testing.assert_array_equal(own.done, [1, 3, 4])
    np.testing.assert_array_equal(own.time, [1.5, 3.5, 4])
    np.testing.assert_array_equal(own.bytes, [1, 2, 1])  # the first model is there from the start
    np.testing.assert_array_equal(events.rows(events.worker == 1).time, [1, 2, 3, 4, 4])


def test_messages_queue_at_the_servers_port() -> None:
    events = arrivals(make("constant", 2, bandwidth=[2.0, None], server_bandwidth=2.0), steps=4, size=1.0)
    np.testing.assert_array_equal(events.worker[:4], [0, 1, 0, 1])
    np.testing.assert_array_equal(events.done[:4], [1, 1, 3.5, 4])
    np.testing.assert_array_equal(events.time[:4], [1.5, 2, 4, 5])  # up, up, down, down, up; down of 0 before up of 1
    np.testing.assert_array_equal(events.pulled[2:], [1.5, 2, 4, 5])
    np.testing.assert_array_equal(events.begin[2:], [2.5, 3, 4.5, 5])


@pytest.mark.parametrize("name", ["async", "ssp", "drop"])
@settings(deadline=None, max_examples=30)
@given(machines=clusters(), k=st.integers(1, 9), latency=st.sampled_from([0.0, 0.3]), data=st.data())
def test_the_port_carries_one_message_after_another_first_come_first_served(
    name: str, machines: Cluster, k: int, latency: float, data: st.DataObject
) -> None:
    n, size = machines.workers, 3.0
    rates = data.draw(st.lists(st.floats(1.0, 50.0), min_size=n, max_size=n))
    machines = machines._replace(links=of_links.make(n, latency=latency, bandwidth=rates, server_bandwidth=30.0))
    s = arrivals(machines, rule(name, n, k)[0], steps=60, size=size)
    takes = size / np.minimum(rates, 30.0)[s.worker]
    up, down = s.delivered, s.bytes > size * s.delivered
    asked = np.concatenate([(s.sends + latency)[up], s.pulled[down]])
    carried = np.concatenate([s.time[up], (s.begin - latency)[down]])
    takes = np.concatenate([takes[up], takes[down]])
    known = carried + latency < s.end  # later ones are cut off
    order = np.flatnonzero(known)[np.argsort(carried[known], kind="stable")]
    asked, carried, takes = asked[order], carried[order], takes[order]
    assert (np.diff(asked) > -1e-9).all()
    expected = np.maximum(asked, np.concatenate([[0.0], carried[:-1]])[: len(asked)]) + takes
    np.testing.assert_allclose(carried, expected, rtol=1e-9)


def test_who_pulls_at_one_instant_is_served_in_worker_order() -> None:
    machines = make("constant", 3, scale=[3, 2, 1], bandwidth=2.0)
    events = arrivals(machines, rule("k_sync", 3, 3)[0], steps=1, size=1.0)
    np.testing.assert_array_equal(events.worker, [2, 1, 0, 0, 1, 2])
    np.testing.assert_array_equal(events.time[:3], [1.5, 2.5, 3.5])
    further = arrivals(machines, rule("k_sync", 3, 3)[0], seconds=5.0, size=1.0)
    np.testing.assert_array_equal(further.begin[-3:], [4, 4.5, 5])


def test_a_busy_port_caps_the_updates_at_one_per_two_messages() -> None:
    rates = {}
    for n in (1, 2, 4, 8, 32):
        events = arrivals(make("exponential", n, seed=7, bandwidth=8.0), steps=4000, size=1.0)
        assert (2 * events.steps - n) / 8 <= events.end  # at first all have x⁰
        rates[n] = events.steps / events.end
    assert rates[1] == pytest.approx(1 / 1.25, rel=0.03)
    assert rates[1] < rates[2] < rates[4] < rates[8]
    assert rates[32] == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("name", sorted(RULES))
@given(machines=clusters(5), k=st.integers(1, 5))
@settings(deadline=None, max_examples=10)
def test_a_network_that_takes_no_time_is_none(name: str, machines: Cluster, k: int) -> None:
    if name.startswith("malenia"):
        assume(mean_times(machines).max() < 100)
    how, n = rule(name, machines.workers, k)[0], machines.workers
    plain = arrivals(machines, how, steps=20, size=1.0)
    free = machines._replace(links=of_links.make(n, latency=0.0, bandwidth=[None] * n))
    assert_same(arrivals(free, how, steps=20, size=1.0), plain)
    light = machines._replace(links=of_links.make(n, bandwidth=5.0))
    assert_same(arrivals(light, how, steps=20), plain._replace(bytes=0 * plain.bytes))
    if how.gradients is None:  # a port, however fast, hands over gradients of one instant one by one
        fast = machines._replace(links=of_links.make(n, bandwidth=1e300))
        assert_same(arrivals(fast, how, steps=20, size=1.0), plain)


# -- crashes --


def test_a_crash_loses_the_work_and_a_restart_pulls_anew() -> None:
    events = arrivals(make("constant", 2, crash=2.5, restart=1.0), steps=8, size=1.0)
    own = events.rows(events.worker == 0)
    np.testing.assert_array_equal(own.batch, [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(own.fate, [APPLIED, APPLIED, ABORTED, APPLIED, PENDING])
    np.testing.assert_array_equal(own.pulled, [0, 1, 2, 3.5, 4.5])
    np.testing.assert_array_equal(own.time, [1, 2, 2.5, 4.5, 5])
    np.testing.assert_array_equal(own.read_version, [0, 1, 3, 5, 7])
    np.testing.assert_array_equal(own.write_version, [0, 2, 4, 6, 8])
    np.testing.assert_array_equal(own.bytes, [1, 2, 1, 2, 1])
    assert not events.stalled


def test_what_is_down_from_the_start_begins_when_it_is_up() -> None:
    events = arrivals(make("constant", 2, crash=0.0, restart=2.5), steps=6, size=1.0)
    own = events.rows(events.worker == 0)
    np.testing.assert_array_equal(own.pulled, [2.5, 3.5, 4.5])
    np.testing.assert_array_equal(own.read_version, [2, 4, 6])
    np.testing.assert_array_equal(own.bytes, [2, 2, 1])  # x⁰ is there from the start, but it needs a later one


def test_a_crash_between_two_computations_loses_nothing() -> None:
    events = arrivals(make("constant", 1, crash=2.0, restart=0.5), steps=4)
    np.testing.assert_array_equal(events.time[:4], [1, 2, 3.5, 4.5])
    assert not (events.fate == ABORTED).any()


@pytest.mark.parametrize(
    ("name", "k", "steps"),
    [("k_sync", 3, 2), ("k_async", 3, 2), ("ssp", 2, 10), ("malenia", 3, 2), ("malenia_stopping", 3, 2)],
)
def test_rules_that_need_a_worker_that_never_returns_stall(name: str, k: int, steps: int) -> None:
    machines, how = make("constant", 3, crash=2.5), rule(name, 3, k)[0]
    events = arrivals(machines, how, steps=1000)
    assert (events.stalled, events.steps) == (True, steps)  # ssp: twice all, then two of each of the other two
    events = arrivals(machines, how, seconds=50.0)
    assert (events.stalled, events.steps, events.end) == (True, steps, 50)
    assert not arrivals(machines, how, steps=steps).stalled
    early = make("constant", 3, crash=0.5, crash_workers=3 if name == "ssp" else 1)
    for horizon in ({"steps": 5}, {"seconds": 9.0}, {"gradients": 40}):
        message = refused(lambda horizon=horizon: arrivals(early, how, **horizon))
        assert message.startswith("cluster.crash: nothing moves after ")
        assert message.endswith("no update was made; crash later, or give cluster.restart")


def test_malenia_goes_on_as_long_as_what_the_dead_gave_allows() -> None:
    """n²/Σ 1/Bᵢ >= S with B₀ = 2 for good: 9/(1/2 + 2/B) reaches 14 at B = 14, and 18 never."""
    machines = make("constant", 3, crash=2.5, scale=[1.0, 3.0, 3.0])
    reached = arrivals(machines, rule("malenia", 3, 14)[0], steps=5)
    assert (reached.steps, reached.end, reached.stalled) == (1, 42, True)
    message = refused(lambda: arrivals(machines, rule("malenia", 3, 18)[0], steps=5))
    assert message == (
        "cluster.crash: nothing moves after 2.5 s and no update was made; crash later, or give cluster.restart"
    )


@pytest.mark.parametrize("name", sorted({*RULES} - {"ssp", "malenia", "malenia_stopping"}))
def test_the_others_go_on(name: str) -> None:
    events = arrivals(make("exponential", 3, crash=2.5), rule(name, 3, 2)[0], steps=200)
    assert (events.stalled, events.steps) == (False, 200)
    late = events.rows(events.pulled > 2.5)
    assert (late.worker != 0).all()


# -- traces, peers, files --


@pytest.fixture
def trace(tmp_path: Path) -> Callable[..., Cluster]:
    def measured(events: Schedule, **options: Any) -> Cluster:
        s, path = events.rows(events.applied), tmp_path / "trace.csv"
        columns = (s.worker, s.read_version, s.write_version, s.time)
        rows = [",".join(map(repr, row)) for row in zip(*(column.tolist() for column in columns), strict=True)]
        path.write_text("\n".join(["worker,read_version,write_version,seconds", *rows]))
        return make("trace", events.workers, file=str(path), **options)

    return measured


@pytest.mark.parametrize(
    "options", [{}, {"straggler": 30.0, "seed": 3}, {"latency": 0.5, "crash": 9.0, "restart": 3.0}]
)
def test_a_trace_is_replayed_as_it_was_measured(options: dict, trace: Callable[..., Cluster]) -> None:
    events = arrivals(make("exponential", 4, **options), steps=300)
    machines, events = trace(events, latency=1.0, straggler=5.0), events.rows(events.applied)
    again = arrivals(machines, steps=300)
    for name in ("worker", "read_version", "write_version", "time", "fate", "weight"):
        np.testing.assert_array_equal(again.columns[name], events.columns[name])
    if "crash" not in options:
        np.testing.assert_array_equal(again.batch, events.batch)
        np.testing.assert_array_equal(again.pulled, events.pulled)
    assert_same(arrivals(machines, gradients=100), again.rows(slice(100))._replace(end=again.time[99]))
    part = arrivals(machines, seconds=float(again.time[50]))
    assert_same(part, again.rows(slice(51))._replace(end=again.time[50]))


def test_a_trace_is_not_longer_than_it_is(trace: Callable[..., Cluster]) -> None:
    machines = trace(always_busy(make("constant", 2), steps=10))
    assert refused(lambda: arrivals(machines, steps=11)) == (
        "steps: the trace holds 10 updates, got 11; give at most 10"
    )
    assert refused(lambda: arrivals(machines, seconds=0.5)).startswith("seconds: no gradient arrives within 0.5 s")
    assert refused(lambda: arrivals(machines, Coordination(local_steps=2), steps=2)) == (
        "cluster.file: a trace has one gradient in each row; use local_steps = 1"
    )
    assert arrivals(machines, Coordination(gradients=2), steps=20).steps == 20  # only the durations of it are used


def test_who_read_before_its_own_last_write_does_one_thing_after_another(tmp_path: Path) -> None:
    (tmp_path / "it.csv").write_text("worker,read_version,write_version,seconds\n0,0,0,1\n0,0,1,2\n0,1,2,4\n")
    done = schedule.intervals(arrivals(make("trace", 1, file=str(tmp_path / "it.csv")), steps=3))
    np.testing.assert_array_equal(done.begin, [0, 1, 2])
    np.testing.assert_array_equal(done.end, [1, 2, 4])


def test_partners_are_drawn_evenly_among_neighbours_from_seed_worker_and_number_alone() -> None:
    near = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1]], bool)  # oneself is nobody's neighbour
    met = schedule.partners(5, near, 0, 30_000)
    np.testing.assert_allclose(np.bincount(met, minlength=4) / 30_000, [0, 1 / 3, 1 / 3, 1 / 3], atol=0.01)
    assert set(schedule.partners(5, near, 1, 50)) == {0, 2}
    assert (schedule.partners(5, near, 3, 50) == 0).all()
    np.testing.assert_array_equal(schedule.partners(5, near, 0, 100), met[:100])
    wider = np.pad(near, (0, 3))
    np.testing.assert_array_equal(schedule.partners(5, wider, 0, 100), met[:100])
    whole = np.ones((4, 4), bool)
    drawn = {tuple(schedule.partners(seed, whole, i, 40) - (i == 0)) for seed in range(3) for i in range(4)}
    assert len(drawn) == 12


def test_peers_send_after_each_computation_and_need_no_server() -> None:
    machines = make("constant", 2, scale=[1, 3], latency=[[0, 9], [9, 0]], bandwidth=1.0)  # what `sending` makes of it
    sending = lambda i, count: np.where(np.arange(count) % 2, 1.0, 0.5)  # noqa: E731
    events = arrivals(machines, Coordination(pairs=True), steps=4, size=2.0, sending=sending)
    np.testing.assert_array_equal(events.worker, [0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(events.done, [1, 2.5, 3, 4.5, 5, 5])
    np.testing.assert_array_equal(events.time, [1.5, 3.5, 3.5, 5, 5, 5])
    np.testing.assert_array_equal(events.bytes, [2, 2, 2, 2, 0, 0])
    slow = machines._replace(down=np.array([[1e9, np.inf], [np.inf, np.inf]]))  # the loop
    assert_same(arrivals(slow, Coordination(pairs=True), steps=4, size=2.0, sending=sending), events)


@pytest.mark.parametrize("name", ["events.npz", "events"])
def test_a_saved_schedule_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    machines = make("constant", 3, crash=2.5)
    for events in (always_busy(make("exponential", 4), steps=100), arrivals(machines, Coordination(slack=1), steps=99)):
        schedule.save(events, tmp_path / name)
        again = schedule.load(tmp_path / name)
        assert_same(again, events)
        assert again.stalled is events.stalled
        assert [column.dtype for column in again.columns.values()] == [c.dtype for c in events.columns.values()]


def test_a_file_that_is_no_schedule_is_an_input_error(tmp_path: Path) -> None:
    events, path = always_busy(make("exponential", 4), steps=100), tmp_path / "it"
    schedule.save(events, path)
    whole = path.read_bytes()
    np.savez(tmp_path / "short.npz", worker=events.worker)
    np.savez(tmp_path / "pickled.npz", **{**events._asdict(), "time": np.array([None] * 104)})
    np.savez(tmp_path / "uneven.npz", **{**events._asdict(), "time": events.time[:3]})
    np.save(tmp_path / "lone.npy", events.time)
    (tmp_path / "cut").write_bytes(whole[:-40])
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("worker,time\n")
    for name in ("missing", "short.npz", "pickled.npz", "uneven.npz", "lone.npy", "cut", "empty", "text"):
        message = refused(lambda name=name: schedule.load(tmp_path / name))
        assert message.startswith("schedule: ")
        assert name in message
