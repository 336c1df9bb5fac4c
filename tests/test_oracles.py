"""The oracles of the asynchronous server, against each other and by hand. Each test's name is the proposition it checks."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import oracles
import pytest
from oracles import Setting

SEEDS = range(3)
DIM = 3
NUMBERS = 500  # computations per worker before the table of times and noise begins anew
ONE_GRADIENT: list[tuple[str, dict[str, Any]]] = [
    ("async_sgd", {}),
    ("staleness_aware_sgd", {"power": None}),
    ("staleness_aware_sgd", {"power": 0.5}),
    ("delay_adaptive_sgd", {"threshold": None}),
    ("drop_stale_sgd", {"max_staleness": None}),
    ("ringmaster_sgd", {"threshold": None, "stop": True}),
    ("ssp_sgd", {"slack": 0}),
    ("dc_asgd", {"strength": 0.5, "variant": "plain"}),
    ("dc_asgd", {"strength": 0.5, "variant": "adaptive"}),
    ("dc_asgd", {"strength": 0.5, "variant": "hessian"}),
    ("hogwild_sgd", {}),
]
BATCH: list[tuple[str, dict[str, Any]]] = [
    ("k_sync_sgd", {"k": None}),
    ("k_batch_sync_sgd", {"k": None}),
    ("k_async_sgd", {"k": None}),
    ("k_batch_async_sgd", {"k": None}),
    ("rennala_sgd", {"batch": None, "stop": False}),
    ("malenia_sgd", {"batch": None, "stop": True}),
]


def run(name: str, s: Setting, **options: Any) -> np.ndarray:
    return getattr(oracles, name)(s._replace(options=options))


def setting(n: int, seed: int = 0, times: str = "random", same: bool = False, **changes: Any) -> Setting:
    """Noisy quadratics, one per worker or the `same` for all without noise; random times, so no ties, or `equal` ones."""
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(n, DIM, DIM)), rng.normal(size=(n, DIM))
    noise, seconds = rng.normal(size=(n, NUMBERS, DIM)), rng.exponential(1 + np.arange(n)[:, None], size=(n, NUMBERS))
    H = A @ A.transpose(0, 2, 1) / DIM + np.eye(DIM)
    if same:
        H, b, noise = H[:1].repeat(n, 0), b[:1].repeat(n, 0), 0 * noise
    base = Setting(
        gradient=lambda i, x, m: H[i] @ x - b[i] + noise[i, m % NUMBERS],
        start=np.tile(rng.normal(size=DIM), (n, 1)),
        steps=40,
        rate=0.02,
        momentum=0.0,
        W=lambda k: np.eye(n),
        ages=np.zeros((40, n, n), int),
        seconds=lambda i, m: seconds[i, m % NUMBERS] if times == "random" else 1.0,
        hessian=lambda i, x, m: H[i],
        partner=lambda i, m: (i + 1 + m % max(n - 1, 1)) % n,
    )
    return base._replace(**changes)


def by_hand(times: Sequence[float | Sequence[float]], steps: int = 8, **changes: Any) -> Setting:
    """f(x) = x²/2 from x = 1 at rate 1/2; a worker's time is a number, or a list whose last entry then lasts."""
    lists = [list(one) if isinstance(one, Sequence) else [one] for one in times]
    return setting(
        len(times),
        gradient=lambda i, x, m: x,
        hessian=lambda i, x, m: np.eye(1),
        start=np.ones((len(times), 1)),
        rate=0.5,
        steps=steps,
        seconds=lambda i, m: lists[i][min(m, len(lists[i]) - 1)],
        **changes,
    )


def pushes(s: Setting, steps: int | None = None, **rule: Any) -> list[list[tuple[int, int, int, int]]]:
    """Of every update (worker, number, version read, staleness) of what it consumes."""
    return [[tuple(push) for push in one] for one in islice(oracles.updates(s, **rule), steps)]


def consumed(name: str, s: Setting, **options: Any) -> list[list[tuple[int, int, int, int]]]:
    """What a method's updates consume."""
    seen, plain = [], oracles.updates

    def spy(*args: Any, **rule: Any) -> Iterator[list[oracles.Push]]:
        for one in plain(*args, **rule):
            seen.append([tuple(push) for push in one])
            yield one

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oracles, "updates", spy)
        run(name, s, **options)
    return seen


def sgd(s: Setting, rate: float, mean: bool) -> np.ndarray:
    """[steps + 1, 1, d]: heavy ball on worker 0's gradients, or on the mean of all, batch k at step k."""
    x, v, models = s.start[0], np.zeros(s.start.shape[1]), [s.start[:1]]
    for k in range(s.steps):
        g = [s.gradient(i, x, k) for i in range(len(s.start))]
        v = s.momentum * v + (np.mean(g, axis=0) if mean else g[0])
        x = x - rate * v
        models.append(x[None])
    return np.stack(models)


def plain_event_loop(s: Setting) -> np.ndarray:
    """async_sgd with a heap: push, update, pull, compute again."""
    n, u, x = len(s.start), oracles.Local(s), s.start[0]
    pulled, begun, models = [x] * n, [0] * n, [x[None]]
    events = [(s.seconds(i, 0), i) for i in range(n)]
    heapq.heapify(events)
    for _ in range(s.steps):
        now, i = heapq.heappop(events)
        x = x + u.update(s.gradient(i, pulled[i], begun[i]))
        pulled[i], begun[i] = x, begun[i] + 1
        heapq.heappush(events, (now + s.seconds(i, begun[i]), i))
        models.append(x[None])
    return np.stack(models)


def assert_same(a: np.ndarray, b: np.ndarray) -> None:
    """To rounding; and something happened."""
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert np.ptp(a, axis=0).min() > 0


def scalars(models: np.ndarray) -> list[float]:
    return models[:, 0, 0].tolist()


# -- who delivers what and when, by hand: (worker, number, version read, staleness) --


def test_of_one_instant_each_pulls_after_its_own_push() -> None:
    assert pushes(by_hand([1, 1]), 4) == [[(0, 0, 0, 0)], [(1, 0, 0, 1)], [(0, 1, 1, 1)], [(1, 1, 2, 1)]]


def test_under_a_batch_rule_all_pushes_of_an_instant_precede_its_pulls() -> None:
    expected = [[(0, 0, 0, 0)], [(1, 0, 0, 1)], [(0, 1, 2, 0)], [(1, 1, 2, 1)]]
    assert consumed("k_batch_async_sgd", by_hand([1, 1], 4), k=1) == expected


@pytest.mark.parametrize("n", [1, 2, 5])
def test_equal_workers_take_turns_at_staleness_n_minus_1(n: int) -> None:
    late = pushes(by_hand([1] * n), 6 * n)[n:]
    assert [one[0][0] for one in late] == list(range(n)) * 5
    assert {one[0][3] for one in late} == {n - 1}


@pytest.mark.parametrize("seed", SEEDS)
def test_delivered_and_running_work_is_together_n_minus_1_stale_per_update(seed: int) -> None:
    T, n = 300, 7
    done = [one[0] for one in pushes(setting(n, seed), T)]
    read = [max([k + 1 for k, push in enumerate(done) if push[0] == i], default=0) for i in range(n)]
    assert sum(push[3] for push in done) + sum(T - v for v in read) == (n - 1) * T


def test_drop_stale_leaves_out_what_is_too_old() -> None:
    s = by_hand([1, [2.5, 0.25]], 5)
    expected = [[(0, 0, 0, 0)], [(0, 1, 1, 0)], [(1, 1, 2, 0)], [(0, 2, 2, 1)], [(1, 2, 3, 1)]]
    assert consumed("drop_stale_sgd", s, max_staleness=1) == expected


def test_ringmaster_restarts_at_once_what_has_become_too_old() -> None:
    s = by_hand([1, [2.5, 0.25]], 4)
    expected = [[(0, 0, 0, 0)], [(0, 1, 1, 0)], [(1, 1, 2, 0)], [(1, 2, 3, 0)]]
    assert consumed("ringmaster_sgd", s, threshold=2, stop=True) == expected


def test_ringmaster_stops_work_that_would_end_in_the_same_instant() -> None:
    s = by_hand([2, [0.5, 1.5], [2, 0.25]], 4)
    begin = [[(1, 0, 0, 0)], [(0, 0, 0, 1)], [(1, 1, 1, 1)]]
    assert consumed("ringmaster_sgd", s, threshold=2, stop=True) == [*begin, [(2, 1, 2, 1)]]
    assert consumed("ringmaster_sgd", s, threshold=2, stop=False) == [*begin, [(2, 1, 3, 0)]]


def test_ssp_holds_up_who_is_ahead_until_the_slowest_has_pushed() -> None:
    expected = [[(0, 0, 0, 0)], [(0, 1, 1, 0)], [(1, 0, 0, 2)], [(0, 2, 3, 0)], [(1, 1, 3, 1)], [(0, 3, 5, 0)]]
    assert consumed("ssp_sgd", by_hand([1, 2.5], 6), slack=1) == expected


def test_k_sync_throws_away_ties_and_work_in_progress() -> None:
    tied = consumed("k_sync_sgd", by_hand([1, 2, 2], 2), k=2)
    assert tied == [[(0, 0, 0, 0), (1, 0, 0, 0)], [(0, 1, 1, 0), (1, 1, 1, 0)]]
    late = consumed("k_sync_sgd", by_hand([1, 2, [3, 1]], 2), k=2)
    assert late == [[(0, 0, 0, 0), (1, 0, 0, 0)], [(0, 1, 1, 0), (2, 1, 1, 0)]]


def test_k_batch_sync_takes_many_from_one_and_restarts_all() -> None:
    expected = [[(0, 0, 0, 0), (0, 1, 0, 0), (1, 0, 0, 0)], [(0, 3, 1, 0), (0, 4, 1, 0), (1, 1, 1, 0)]]
    assert consumed("k_batch_sync_sgd", by_hand([1, 2.5], 2), k=3) == expected


def test_k_async_lets_a_pusher_wait_until_its_gradient_is_used() -> None:
    expected = [[(0, 0, 0, 0), (1, 0, 0, 0)], [(0, 1, 1, 0), (2, 0, 0, 1)], [(0, 2, 2, 0), (1, 1, 1, 1)]]
    assert consumed("k_async_sgd", by_hand([1, 2, 3], 3), k=2) == expected


def test_k_batch_async_lets_nobody_wait() -> None:
    expected = [[(0, 0, 0, 0), (0, 1, 0, 0), (1, 0, 0, 0)], [(0, 2, 0, 1), (0, 3, 1, 0), (0, 4, 1, 0)]]
    third = [(1, 1, 1, 1), (0, 5, 2, 0), (0, 6, 2, 0)]
    assert consumed("k_batch_async_sgd", by_hand([1, 2.5], 3), k=3) == [*expected, third]


def test_rennala_drops_old_gradients_and_stops_nobody_unless_told() -> None:
    s = by_hand([1, [2.5, 0.75]], 2)
    first = [(0, 0, 0, 0), (0, 1, 0, 0)]
    finished = consumed("rennala_sgd", s, batch=2, stop=False)
    assert finished == [first, [(0, 2, 1, 0), (1, 1, 1, 0)]]  # the work of 2.5 dropped; 3 and 3.25
    stopped = consumed("rennala_sgd", s, batch=2, stop=True)
    assert stopped == [first, [(1, 1, 1, 0), (0, 2, 1, 0)]]  # begun anew at 2; 2.75 and 3


def test_malenia_waits_for_everybody_and_for_the_harmonic_mean() -> None:
    (first,) = consumed("malenia_sgd", by_hand([1, 3.5], 1), batch=3)
    assert first == [(0, 0, 0, 0), (0, 1, 0, 0), (0, 2, 0, 0), (1, 0, 0, 0)]  # 1/((1/3 + 1)/2) = 3/2
    first, second = consumed("malenia_sgd", by_hand([1, 2.5], 2), batch=3)
    assert [push[:2] for push in first] == [(0, 0), (0, 1), (1, 0), (0, 2)]
    assert [push[:2] for push in second] == [(0, 3), (0, 4), (0, 5), (0, 6), (1, 2)]  # (1, 1) came at 5, too old


@pytest.mark.parametrize(("n", "each"), [(n, each) for n in range(1, 25) for each in range(1, 8)])
def test_malenia_of_equal_workers_is_full_at_exactly_s(n: int, each: int) -> None:
    (first,) = consumed("malenia_sgd", by_hand([1] * n, 1), batch=n * each)
    assert len(first) == n * each


def test_a_round_of_local_steps_takes_the_sum_of_their_seconds() -> None:
    s = by_hand([[1, 1, 4, 4], 1.5])._replace(options={"local_steps": 2})
    assert pushes(s, 4) == [[(0, 0, 0, 0)], [(1, 0, 0, 1)], [(1, 1, 2, 0)], [(1, 2, 3, 0)]]


def test_who_never_returns_holds_up_only_those_who_wait_for_it() -> None:
    s = by_hand([1, np.inf], 5)
    assert len(run("async_sgd", s)) == 6
    assert len(run("ssp_sgd", s, slack=2)) == 4
    assert len(run("k_sync_sgd", s, k=2)) == 1


# -- values, by hand --


def test_stale_updates_are_scaled() -> None:
    s = by_hand([1, 1.5], 3)  # gradients 1, 1, 1/2; staleness 0, 1, 1
    assert scalars(run("async_sgd", s)) == [1, 0.5, 0, -0.25]
    assert scalars(run("staleness_aware_sgd", s, power=None)) == [1, 0.5, 0, -0.25]
    assert scalars(run("staleness_aware_sgd", s, power=1)) == [1, 0.5, 0.25, 0.125]
    four = by_hand([1, 1, 1, 1], 4)
    assert scalars(run("staleness_aware_sgd", four, power=None)) == [1, 0.5, 0, -0.25, -0.25 - 0.5 / 3]
    assert scalars(run("delay_adaptive_sgd", four, threshold=2)) == [1, 0.5, 0, -0.5, -0.5 - 1 / 3]


def test_delay_compensation_is_its_formula() -> None:
    s = by_hand([1, 1.5], 2)  # the second gradient is 1 and its model has moved by -1/2
    assert scalars(run("dc_asgd", s, strength=0.5, variant="plain")) == [1, 0.5, 0.5 - 0.5 * (1 - 0.25)]
    assert scalars(run("dc_asgd", s, strength=1, variant="hessian")) == [1, 0.5, 0.25]
    second = 1 - 0.5 / np.sqrt(0.05 * 0.95 + 0.05 + 1e-7) * 0.5
    np.testing.assert_allclose(
        scalars(run("dc_asgd", s, strength=0.5, variant="adaptive")), [1, 0.5, 0.5 - 0.5 * second]
    )


def test_malenia_is_the_mean_of_the_workers_means() -> None:
    s = by_hand([1, 3.5], 1)._replace(gradient=lambda i, x, m: np.array([[3.0, 6, 9], [20, 0, 0]][i][m : m + 1]))
    assert scalars(run("malenia_sgd", s, batch=3)) == [1, 1 - 0.5 * (6 + 20) / 2]


def test_drop_stale_counts_updates_or_all_that_arrived() -> None:
    def accepted(count: str) -> list[tuple[int, int]]:
        return [push[:2] for (push,) in consumed("drop_stale_sgd", s, max_staleness=1, count=count)]

    # at 1, of three workers, the last is dropped; at 2, worker 0 is one update old, and two gradients
    s = by_hand([1, [1, 9], [1, 9]], 4)
    assert accepted("applied") == [(0, 0), (1, 0), (0, 1), (0, 2)]
    assert accepted("arrivals") == [(0, 0), (1, 0), (0, 2), (0, 3)]


def test_fedbuff_weighs_differences_and_divides_by_their_number() -> None:
    s = by_hand([1, 1.5], 2)  # rounds end at 2, 3, 4 (old), 6
    expected = [1, 0.25, 0.25 + (-0.75 / np.sqrt(2) - 0.1875) / 2]
    np.testing.assert_allclose(scalars(run("fedbuff", s, buffer=2, local_steps=2, power=0.5)), expected)
    halved = scalars(run("fedbuff", s._replace(steps=1), buffer=2, local_steps=2, server_learning_rate=0.5))
    assert halved == [1, 1 - 0.375]


def test_fedbuffs_local_momentum_begins_anew_each_round() -> None:
    s = by_hand([1], 2, momentum=0.5)  # 1 -> 1/2 -> 1/2 - 1/2 (1/2 + 1/2) = 0, the same factor in each round
    assert scalars(run("fedbuff", s, buffer=1, local_steps=2)) == [1, 0, 0]
    s = s._replace(rate=0.25)  # 1 -> 3/4 -> 3/4 - 1/4 (1/2 + 3/4) = 7/16
    assert scalars(run("fedbuff", s, buffer=1, local_steps=2)) == [1, 7 / 16, 49 / 256]


def test_round_r_of_h_local_steps_uses_batches_rh_and_on() -> None:
    s = by_hand([1], 2)._replace(gradient=lambda i, x, m: np.array([10.0**m]))
    expected = [1, 1 - 0.5 * 11, 1 - 0.5 * 1111]
    assert scalars(run("fedbuff", s, buffer=1, local_steps=2)) == expected
    assert scalars(run("async_diloco", s, local_steps=2, outer_learning_rate=1, outer_momentum=0)) == expected
    expected = [1, 1 - 0.25 * 11, 1 - 0.25 * 1111]  # x is at z after a pull by half of one worker
    assert scalars(run("async_easgd", s, elastic_rate=0.5, local_steps=2)) == expected


def test_async_diloco_is_nesterov_on_what_arrives() -> None:
    alone = run(
        "async_diloco", by_hand([1], 2), local_steps=1, outer="sgd", outer_learning_rate=0.5, outer_momentum=0.5
    )
    assert scalars(alone) == [1, 0.625, 0.328125]
    two = run("async_diloco", by_hand([1, 1.5], 2), outer_learning_rate=0.5, outer_momentum=0.5)
    assert scalars(two) == [1, 0.625, 0.625 - 0.5 * (0.5 + 0.5 * 0.75)]  # the second one's Δ is from x = 1


def test_async_easgd_pulls_worker_and_center_together() -> None:
    s = by_hand([1, 1.5], 3)
    first = run("async_easgd", s, elastic_rate=0.5, local_steps=1, order="gradient_first")
    assert scalars(first) == [1, 0.75, 0.625, 0.5]
    joint = run("async_easgd", s, elastic_rate=0.5, local_steps=1)  # worker 0 goes on from 3/4 with the gradient at 1/2
    assert scalars(joint) == [1, 0.75, 0.625, 0.5625]


def test_async_easgds_local_momentum_is_kept() -> None:
    s = by_hand([1], 2, momentum=0.5)  # x: 1 -> 1/2, pulled to 3/4 as z is; -> 3/4 - 1/2 (1/2 + 3/4) = 1/8
    found = run("async_easgd", s, elastic_rate=0.5, local_steps=1, order="gradient_first")
    assert scalars(found) == [1, 0.75, 0.4375]


def test_hogwild_writes_only_what_was_touched_and_not_lost() -> None:
    s = by_hand([1], 3, momentum=0.5)._replace(
        start=np.ones((1, 2)),
        gradient=lambda i, x, m: np.array([x[0], x[1] if m != 1 else 0.0]),
        lost=np.array([[False, False], [False, False], [True, False]]),
        coordinate_ages=np.array([[0, 0], [1, 0], [0, 2]]),
    )
    models = run("hogwild_sgd", s)[:, 0]
    assert models[:, 0].tolist() == [1, 0.5, 0.5 - 0.5 * (0.5 + 1), -0.25]
    assert models[:, 1].tolist() == [1, 0.5, 0.5, 0.5 - 0.5 * (0.25 + 1)]


def test_ad_psgd_averages_first_and_steps_with_the_gradient_of_where_it_began() -> None:
    s = by_hand([1, 1.5], 5, partner=lambda i, m: 1 - i)._replace(start=np.array([[1.0], [0.0]]))
    expected = [[1, 0], [0, 0.5], [0.25, 0.25], [0.25, 0.25], [0.125, 0.25], [0.1875, 0.0625]]
    assert run("ad_psgd", s)[:, :, 0].tolist() == expected


# -- special cases --


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("name", "options"), ONE_GRADIENT + BATCH)
def test_one_worker_is_sgd(name: str, options: dict[str, Any], momentum: float) -> None:
    s = setting(1, momentum=momentum)
    assert_same(run(name, s, **options), sgd(s, s.rate, mean=False))


def test_one_worker_of_ad_psgd_is_sgd() -> None:
    s = setting(1, momentum=0.9)
    assert_same(run("ad_psgd", s), sgd(s, s.rate, mean=False))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("times", ["random", "equal"])
def test_async_sgd_is_the_plain_event_loop(seed: int, times: str) -> None:
    s = setting(5, seed, times, momentum=0.9)
    np.testing.assert_array_equal(run("async_sgd", s), plain_event_loop(s))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ringmaster_sgd", {"threshold": np.inf}),
        ("drop_stale_sgd", {"max_staleness": np.inf}),
        ("delay_adaptive_sgd", {"threshold": np.inf}),
        ("staleness_aware_sgd", {"power": 0}),
        ("ssp_sgd", {"slack": np.inf}),
        ("dc_asgd", {"strength": 0.0, "variant": "adaptive"}),
        ("k_batch_async_sgd", {"k": 1}),
        ("k_async_sgd", {"k": 1}),
    ],
)
def test_without_its_correction_each_rule_is_async(name: str, options: dict[str, Any], seed: int) -> None:
    s = setting(5, seed, momentum=0.9)
    assert_same(run(name, s, **options), run("async_sgd", s))


@pytest.mark.parametrize("seed", SEEDS)
def test_fedbuff_of_one_and_diloco_without_outer_momentum_are_async(seed: int) -> None:
    s = setting(5, seed)
    assert_same(run("fedbuff", s, buffer=1, local_steps=1, power=0), run("async_sgd", s))
    assert_same(run("async_diloco", s, outer_learning_rate=1.0, outer_momentum=0.0), run("async_sgd", s))


@pytest.mark.parametrize("seed", SEEDS)
def test_fedbuff_of_single_equal_steps_is_k_batch_async(seed: int) -> None:
    s = setting(5, seed)
    assert_same(run("fedbuff", s, buffer=3, local_steps=1, power=0), run("k_batch_async_sgd", s, k=3))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("times", ["random", "equal"])
@pytest.mark.parametrize("R", [1, 3, 7])
def test_drop_stale_is_ringmaster_that_stops_nobody(seed: int, times: str, R: int) -> None:
    s = setting(5, seed, times)
    dropped = run("drop_stale_sgd", s, max_staleness=R - 1)
    np.testing.assert_array_equal(dropped, run("ringmaster_sgd", s, threshold=R, stop=False))
    if times == "random" and R < 7:
        assert (dropped != run("ringmaster_sgd", s, threshold=R, stop=True)).any()
        assert (dropped != run("async_sgd", s)).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_ringmaster_of_1_is_k_sync_of_1_and_rennala_of_1_that_stops(seed: int) -> None:
    s = setting(5, seed)
    first = run("ringmaster_sgd", s, threshold=1)
    assert_same(first, run("k_sync_sgd", s, k=1))
    assert_same(first, run("rennala_sgd", s, batch=1, stop=True))


@pytest.mark.parametrize("times", ["random", "equal"])
@pytest.mark.parametrize("name", ["k_sync_sgd", "k_async_sgd"])
def test_all_of_n_is_the_synchronous_mean(name: str, times: str) -> None:
    s = setting(5, times=times, momentum=0.9)
    assert_same(run(name, s, k=5), sgd(s, s.rate, mean=True))
    assert_same(run(name, s, k=5), oracles.allreduce_sgd(s)[:, :1])


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("delay_adaptive_sgd", "threshold", 5),
        ("drop_stale_sgd", "max_staleness", 5),
        ("ringmaster_sgd", "threshold", 5),
        ("k_sync_sgd", "k", 3),
        ("k_batch_sync_sgd", "k", 3),
        ("k_async_sgd", "k", 3),
        ("k_batch_async_sgd", "k", 3),
        ("rennala_sgd", "batch", 5),
        ("malenia_sgd", "batch", 5),
    ],
)
def test_none_is_n_or_half_of_it_rounded_up(name: str, option: str, value: int) -> None:
    s = setting(5, steps=200)
    default = run(name, s, **{option: None})
    np.testing.assert_array_equal(default, run(name, s, **{option: value}))
    assert (default != run(name, s, **{option: value + 1})).any()


@pytest.mark.parametrize("times", ["random", "equal"])
def test_ssp_without_slack_is_synchronous_sgd_of_n_times_the_rate(times: str) -> None:
    n = 5
    s = setting(n, times=times, steps=8 * n)
    rounds = run("ssp_sgd", s, slack=0)[::n]
    assert_same(rounds, sgd(s._replace(steps=8), n * s.rate, mean=True))


@pytest.mark.parametrize("name", ["rennala_sgd", "malenia_sgd"])
@pytest.mark.parametrize("stop", [True, False])
def test_n_gradients_of_equal_workers_are_a_minibatch(name: str, stop: bool) -> None:
    s = setting(5, times="equal", momentum=0.9)
    assert_same(run(name, s, batch=5, stop=stop), sgd(s, s.rate, mean=True))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("times", ["random", "equal"])
@pytest.mark.parametrize("K", [1, 3, 12])
def test_k_batch_sync_is_rennala_that_stops(seed: int, times: str, K: int) -> None:
    s = setting(5, seed, times)
    np.testing.assert_array_equal(run("k_batch_sync_sgd", s, k=K), run("rennala_sgd", s, batch=K, stop=True))


def test_malenia_of_one_worker_is_rennala() -> None:
    s = setting(1)
    assert_same(run("malenia_sgd", s, batch=4), run("rennala_sgd", s, batch=4))


@pytest.mark.parametrize("seed", SEEDS)
def test_dc_asgd_with_the_hessian_of_one_quadratic_is_undelayed(seed: int) -> None:
    s = setting(5, seed, same=True)
    assert_same(run("dc_asgd", s, strength=1.0, variant="hessian"), sgd(s, s.rate, mean=False))
    assert np.abs(run("async_sgd", s) - sgd(s, s.rate, mean=False)).max() > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_hogwild_of_the_clocks_own_ages_is_async(seed: int) -> None:
    s = setting(5, seed, momentum=0.9)
    tau = np.array([one[0][3] for one in pushes(s, s.steps)])
    aged = s._replace(coordinate_ages=np.repeat(tau[:, None], DIM, axis=1))
    assert_same(run("hogwild_sgd", aged), run("async_sgd", s))
    assert (run("hogwild_sgd", aged._replace(lost=np.ones((s.steps, DIM), bool))) == s.start[0]).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_ad_psgd_moves_the_mean_by_one_nth_of_the_update(seed: int) -> None:
    n, rng = 5, np.random.default_rng(seed)
    s = setting(n, seed, gradient=lambda i, x, m: np.full(DIM, i + 1.0), start=rng.normal(size=(n, DIM)))
    moved = np.diff(run("ad_psgd", s).mean(axis=1), axis=0)
    expected = [-s.rate * (one[0][0] + 1) / n for one in pushes(s, s.steps)]
    np.testing.assert_allclose(moved, np.repeat(np.array(expected)[:, None], DIM, axis=1), atol=1e-12)
    still = run("ad_psgd", s._replace(rate=0.0, steps=200))
    assert np.ptp(still[-1], axis=0).max() < 1e-6
