"""Machines and links: compute times, bursts, crashes, traces, costs of messages. Each test's name is the proposition."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dopt import cluster
from dopt.cluster import (
    LAWS,
    PROFILES,
    REDUCTIONS,
    Cluster,
    Links,
    Trace,
    compute_times,
    links,
    mean_times,
    worker_times,
)
from dopt.types import InputError

LAST = np.nextafter(1, 0)
NAMES = [name for name in LAWS if name != "trace"]
# law, its options, the law in scipy.stats
KNOWN: list[tuple[str, dict[str, float], Any]] = [
    ("exponential", {}, stats.expon()),
    ("shifted_exponential", {}, stats.expon(loc=0.5, scale=0.5)),
    ("shifted_exponential", {"minimum": 0.0}, stats.expon()),
    ("shifted_exponential", {"minimum": 0.9}, stats.expon(loc=0.9, scale=0.1)),
    ("lognormal", {}, stats.lognorm(0.5, scale=np.exp(-0.125))),
    ("lognormal", {"sigma": 1.5}, stats.lognorm(1.5, scale=np.exp(-1.125))),
    ("gamma", {}, stats.gamma(2, scale=0.5)),
    ("gamma", {"shape": 0.3}, stats.gamma(0.3, scale=1 / 0.3)),
    ("gamma", {"shape": 400.0}, stats.gamma(400, scale=1 / 400)),
    ("pareto", {}, stats.pareto(2.5, scale=0.6)),
    ("pareto", {"shape": 1.2}, stats.pareto(1.2, scale=1 / 6)),
    ("half_normal", {}, stats.halfnorm(scale=np.sqrt(np.pi / 2))),
    ("uniform", {}, stats.uniform(0.5, 1)),
    ("uniform", {"width": 1.0}, stats.uniform(0, 2)),
]
KINDS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    ("exponential", {"profile": "linear"}),
    ("exponential", {"profile": "sqrt", "straggler": 1000.0}),
    ("half_normal", {"profile": "jittered_sqrt"}),
    ("pareto", {"shape": 1.2, "shift": 0.5}),
    ("gamma", {"burst_slowdown": 10.0}),
    ("constant", {"burst_slowdown": 0.5, "burst_start": 0.5, "burst_stop": 0.5, "profile": "linear"}),
]
kinds = st.sampled_from(KINDS)
seeds = st.integers(0, 2**31 - 1)
workers = st.integers(1, 9)
sizes = st.floats(0, 1e9)


def make(law: str, n: int, seed: int = 0, **options: Any) -> Cluster:
    return cluster.make(law, n, seed, **options)


def refused(call: Callable[[], Any]) -> str:
    """The one line in which it is refused."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- laws --


def midpoints() -> tuple[np.ndarray, np.ndarray]:
    """(u, weights) of a midpoint rule on [0, 1] whose cells shrink towards both ends, where laws may grow."""
    t = (np.arange(10**5) + 0.5) / 10**5
    u, weights = t**8 / 2, 4 * t**7 / 10**5  # of [0, 1/2], at u = t⁸/2
    return np.concatenate([u, 1 - u]), np.concatenate([weights, weights])


@pytest.mark.parametrize(("law", "options"), [("constant", {}), *((law, options) for law, options, _ in KNOWN)])
def test_every_law_has_mean_one_second(law: str, options: dict) -> None:
    u, weights = midpoints()
    mean = (LAWS[law].make(np.minimum(u, LAST), **options) * weights).sum()
    # u ends at 1 - 2^-53: what a Pareto law of shape a has beyond is 2^(-53 (1 - 1/a))
    beyond = 2 ** (-53 * (1 - 1 / options.get("shape", 2.5))) if law == "pareto" else 0
    assert mean == pytest.approx(1, abs=1e-8 + beyond)


@pytest.mark.parametrize(("law", "options", "known"), KNOWN)
def test_every_law_is_its_quantile_function(law: str, options: dict, known: Any) -> None:
    u = np.concatenate([np.arange(1, 1000) / 1000, [1e-6, 1 - 1e-6]])
    np.testing.assert_allclose(LAWS[law].make(u, **options), known.ppf(u), rtol=1e-9)


@pytest.mark.parametrize(("law", "options"), [("constant", {}), *((law, options) for law, options, _ in KNOWN)])
def test_every_law_is_finite_not_negative_and_ascending_on_all_of_0_to_1(law: str, options: dict) -> None:
    times = LAWS[law].make(np.array([0.0, 1e-300, 0.01, 0.5, 0.99, 1 - 1e-12, LAST]), **options)
    assert np.isfinite(times).all()
    assert (times >= 0).all()
    assert (np.diff(times) >= 0).all()


@pytest.mark.parametrize(
    ("law", "options"),
    [
        ("lognormal", {"sigma": 1e-9}),
        ("lognormal", {"sigma": 5.0}),
        ("gamma", {"shape": 0.01}),
        ("gamma", {"shape": 1e12}),
        ("pareto", {"shape": 1 + 1e-9}),
        ("pareto", {"shape": 1e12}),
    ],
)
def test_laws_are_finite_at_the_ends_of_their_options(law: str, options: dict) -> None:
    times = LAWS[law].make(np.array([0.0, 0.5, LAST]), **options)
    assert np.isfinite(times).all()
    assert (times >= 0).all()


def test_every_law_has_a_source_and_a_summary() -> None:
    assert all(entry.source and entry.summary for book in (LAWS, PROFILES, REDUCTIONS) for entry in book.values())


# -- speeds and draws --


def test_profiles_are_their_formulas() -> None:
    np.testing.assert_array_equal(PROFILES["equal"].make(4), [1, 1, 1, 1])
    np.testing.assert_array_equal(PROFILES["linear"].make(5), [1, 1.25, 1.5, 1.75, 2])
    np.testing.assert_array_equal(PROFILES["sqrt"].make(4), [2, 1 + np.sqrt(2), 1 + np.sqrt(3), 3])
    scale, shift = PROFILES["jittered_sqrt"].make(3)
    np.testing.assert_allclose(scale, np.sqrt(2 / np.pi) * np.sqrt([1, 2, 3]), rtol=1e-15)
    np.testing.assert_array_equal(shift, [1, 2, 1 + np.sqrt(2)])
    assert all(np.shape(part) == (1,) for name in PROFILES for part in np.atleast_2d(PROFILES[name].make(1)))


def test_jittered_half_normal_times_are_those_of_ringmasters_cluster() -> None:
    times = compute_times(make("half_normal", 4, profile="jittered_sqrt", shift=0.5, straggler=2.0), 20_000)
    for i, own in enumerate(times / np.array([[1], [1], [1], [2]]) - 1.5 - np.sqrt(np.arange(4))[:, None]):
        assert stats.kstest(own, stats.halfnorm(scale=np.sqrt(i + 1)).cdf).pvalue > 1e-3


def test_the_straggler_is_that_many_times_slower_on_top_of_any_profile_or_list() -> None:
    np.testing.assert_array_equal(make("constant", 3, straggler=7.0).scale, [1, 1, 7])
    np.testing.assert_array_equal(make("constant", 3, straggler=7.0, profile="linear").scale, [1, 1.5, 14])
    np.testing.assert_array_equal(make("constant", 3, straggler=0.5, scale=[1, 2, 4]).scale, [1, 2, 2])
    np.testing.assert_array_equal(make("constant", 1, straggler=7.0).scale, [7])
    plain, slow = (compute_times(make("gamma", 3, shift=0.5, straggler=k), 9) for k in (1.0, 8.0))
    np.testing.assert_array_equal(slow, np.array([[1], [1], [8]]) * plain)  # the shift, too


def test_time_is_shift_plus_scale_times_draw() -> None:
    draw = compute_times(make("exponential", 3, seed=5), 10)
    times = compute_times(make("exponential", 3, seed=5, scale=[1, 2, 0.5], shift=0.25), 10)
    np.testing.assert_array_equal(times, 0.25 + np.array([[1], [2], [0.5]]) * draw)
    times = compute_times(make("exponential", 3, seed=5, shift=[0, 1, 2]), 10)
    np.testing.assert_array_equal(times, np.array([[0], [1], [2]]) + draw)


def test_no_scale_is_the_profile() -> None:
    np.testing.assert_array_equal(make("constant", 3, scale=None, profile="linear").scale, [1, 1.5, 2])


@given(kinds, seeds, workers, st.integers(1, 40), st.integers(0, 40))
@settings(deadline=None)
def test_draws_are_prefix_stable(kind: tuple[str, dict], seed: int, n: int, count: int, more: int) -> None:
    machines = make(kind[0], n, seed, **kind[1])
    np.testing.assert_array_equal(compute_times(machines, count), compute_times(machines, count + more)[:, :count])


@given(kinds, seeds, workers, st.integers(1, 5))
@settings(deadline=None)
def test_a_workers_draws_depend_on_no_other_worker(kind: tuple[str, dict], seed: int, n: int, more: int) -> None:
    options = {name: value for name, value in kind[1].items() if name not in ("profile", "straggler")}
    few, many = make(kind[0], n, seed, **options), make(kind[0], n + more, seed, **options)
    np.testing.assert_array_equal(compute_times(few, 20), compute_times(many, 20)[:n])
    slower = make(kind[0], n + more, seed, scale=[1.0] * n + [9.0] * more, **options)
    np.testing.assert_array_equal(compute_times(few, 20), compute_times(slower, 20)[:n])


def test_workers_and_seeds_have_different_draws() -> None:
    times = np.stack([compute_times(make("exponential", 4, seed), 3) for seed in range(4)])
    assert len(np.unique(times)) == times.size


@given(seeds, st.integers(0, 2**20))
def test_all_laws_share_one_uniform_number(seed: int, worker: int) -> None:
    u = np.random.Generator(np.random.Philox(key=[seed, worker])).random(50)
    for name in NAMES:
        machines = make(name, 1, seed)._replace(scale=np.ones(worker + 1), shift=np.zeros(worker + 1))
        np.testing.assert_array_equal(worker_times(machines, worker, 50), LAWS[name].make(u))


@given(kinds, kinds, seeds)
def test_what_is_slow_under_one_law_is_slow_under_the_other(one: tuple, other: tuple, seed: int) -> None:
    a, b = (
        worker_times(make(law, 1, seed, **(options | {"burst_slowdown": 1.0})), 0, 50) for law, options in (one, other)
    )
    assert (np.diff(a[np.argsort(b, kind="stable")]) >= 0).all() or not np.ptp(b)


@pytest.mark.parametrize(("law", "options"), KINDS)
def test_mean_times_are_the_means_of_compute_times(law: str, options: dict) -> None:
    machines = make(law, 3, seed=2, **options)
    count = 400_000
    rel = 0.25 if options.get("shape") == 1.2 else 0.02  # a law without a variance
    np.testing.assert_allclose(compute_times(machines, count).mean(1), mean_times(machines), rtol=rel)


def test_mean_times_are_their_formula() -> None:
    machines = make("gamma", 3, shift=[0, 1, 2], profile="linear", straggler=3.0)
    np.testing.assert_allclose(mean_times(machines), [1, 2.5, 12])
    bursts = make("gamma", 3, shift=[0, 1, 2], profile="linear", straggler=3.0, burst_slowdown=11.0)
    np.testing.assert_allclose(mean_times(bursts), 3 * mean_times(machines))  # a fifth of them, 11 times as long


# -- bursts --


def chain(u: np.ndarray, start: float, stop: float) -> list[bool]:
    """The Markov chain, one computation at a time."""
    slow, states = False, []
    for v in u:
        slow = bool(v < 1 - stop) if slow else bool(v < start)
        states.append(slow)
    return states


@given(seeds, workers, st.floats(0, 1), st.floats(0, 1), st.integers(1, 200))
@settings(deadline=None)
def test_bursts_are_the_chain_of_their_own_uniform_numbers(
    seed: int, worker: int, start: float, part: float, count: int
) -> None:
    stop = part * (1 - start)
    machines = make("constant", worker + 1, seed, burst_slowdown=7.0, burst_start=start, burst_stop=stop)
    u = np.random.Generator(np.random.Philox(key=[seed, worker + (0x62757273 << 32)])).random(count)
    np.testing.assert_array_equal(worker_times(machines, worker, count) == 7, chain(u, start, stop))


def test_a_burst_multiplies_the_whole_time_and_moves_no_draw() -> None:
    plain = compute_times(make("exponential", 4, seed=3, shift=0.5), 200)
    bursts = compute_times(make("exponential", 4, seed=3, shift=0.5, burst_slowdown=4.0), 200)
    slow = bursts != plain
    assert 0 < slow.mean() < 0.5
    np.testing.assert_array_equal(bursts, np.where(slow, 4 * plain, plain))


def test_bursts_take_their_stationary_share_and_last_1_over_stop() -> None:
    start, stop = 0.05, 0.2
    machines = make("constant", 1, seed=1, burst_slowdown=2.0, burst_start=start, burst_stop=stop)
    slow = worker_times(machines, 0, 400_000) == 2
    begun = (slow[1:] & ~slow[:-1]).sum()
    assert slow.mean() == pytest.approx(start / (start + stop), abs=0.01)  # six standard deviations
    assert slow.sum() / begun == pytest.approx(1 / stop, rel=0.03)
    assert (~slow).sum() / begun == pytest.approx(1 / start, rel=0.03)


@pytest.mark.parametrize(
    ("start", "stop", "expected"), [(0.0, 0.0, 1), (0.0, 1.0, 1), (1.0, 0.0, 3), (0.9, 0.1, None), (0.1, 0.9, None)]
)
def test_bursts_at_the_ends_of_their_probabilities(start: float, stop: float, expected: float | None) -> None:
    machines = make("constant", 1, burst_slowdown=3.0, burst_start=start, burst_stop=stop)
    times = worker_times(machines, 0, 5000)
    if expected is not None:
        assert (times == expected).all()
        assert mean_times(machines) == [expected]
    else:  # start + stop = 1: no memory
        assert (times == 3).mean() == pytest.approx(start, abs=0.03)


def test_a_slowdown_of_one_is_no_burst() -> None:
    assert make("constant", 2).burst is None
    assert make("constant", 2, burst_slowdown=1, burst_start=0.5).burst is None


# -- crashes --


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        ({}, [np.inf, np.inf], [np.inf, np.inf]),
        ({"restart": 5.0, "crash_workers": 2}, [np.inf, np.inf], [np.inf, np.inf]),
        ({"crash": 10}, [10, np.inf], [np.inf, np.inf]),
        ({"crash": 10, "restart": 5.0}, [10, 15], [np.inf, np.inf]),
        ({"crash": 0, "crash_workers": 2}, [0, np.inf], [0, np.inf]),
        ({"crash": 1.5, "crash_workers": 2, "restart": 0}, [1.5, 1.5], [1.5, 1.5]),
    ],
)
def test_the_first_workers_are_down_from_the_crash_until_the_restart(options: dict, first: list, second: list) -> None:
    machines = make("exponential", 3, **options)
    np.testing.assert_array_equal(machines.down, [first, second, [np.inf, np.inf]])
    np.testing.assert_array_equal(compute_times(machines, 5), compute_times(make("exponential", 3), 5))


# -- traces --

HEADER = "worker,read_version,write_version,seconds\n"
ROWS = ["0,0,0,1", "1,0,1,1.5", "0,1,2,1.5", "0,3,3,4e0", "1,2,4,6"]


@pytest.fixture
def measured(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | bytes = HEADER + "\n".join(ROWS)) -> Path:
        path = tmp_path / "trace.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def random_trace(seed: int, n: int, rows: int) -> Trace:
    rng = np.random.default_rng(seed)
    worker = np.concatenate([np.arange(n), rng.integers(0, n, rows - n)])
    write = np.arange(rows)
    return Trace(
        worker, rng.integers(0, write + 1), write, np.cumsum(rng.exponential(size=rows) * rng.integers(0, 2, rows))
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_trace_comes_back_in_the_order_of_its_writes(seed: int, measured: Callable[..., Path]) -> None:
    trace = random_trace(seed, n=4, rows=50)
    lines = [",".join(str(x.item()) for x in row) for row in zip(*trace, strict=True)]
    np.random.default_rng(seed).shuffle(lines)
    again = cluster.read(measured(HEADER + "\n".join(lines)), 4)
    for name, a, b in zip(Trace._fields, again, trace, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert a.dtype == (np.float64 if name == "seconds" else np.int64)


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "\n".join(ROWS),
        (HEADER + "\n".join(ROWS)).replace("\n", "\r\n"),
        "\ufeff" + HEADER + "\n\n".join(ROWS) + "\n\n",
        "worker, read_version, write_version, seconds\n" + "\n".join(row.replace(",", ", ") for row in ROWS),
        "host,seconds,write_version,read_version,worker\n"
        + "\n".join("x," + ",".join(reversed(row.split(","))) for row in ROWS),
    ],
)
def test_columns_are_found_by_name_and_blanks_do_not_matter(text: str, measured: Callable[..., Path]) -> None:
    again = cluster.read(measured(text), 2)
    np.testing.assert_array_equal(again.worker, [0, 1, 0, 0, 1])
    np.testing.assert_array_equal(again.read_version, [0, 0, 1, 3, 2])
    np.testing.assert_array_equal(again.seconds, [1, 1.5, 1.5, 4, 6])


def test_a_trace_as_a_law_is_each_workers_empirical_law(measured: Callable[..., Path]) -> None:
    machines = make("trace", 2, seed=4, file=str(measured()))
    durations = [0.5, 1.0, 2.5], [1.5, 4.5]
    for i, own in enumerate(durations):
        u = np.random.Generator(np.random.Philox(key=[4, i])).random(30_000)
        times = worker_times(machines, i, 30_000)
        np.testing.assert_array_equal(times, [own[int(v * len(own))] for v in u])
        np.testing.assert_allclose([(times == x).mean() for x in own], 1 / len(own), atol=0.02)
    np.testing.assert_allclose(mean_times(machines), [4 / 3, 3])
    slower = make("trace", 2, seed=4, file=str(measured()), straggler=2.0, shift=1.0)
    np.testing.assert_array_equal(worker_times(slower, 1, 9), 2 + 2 * worker_times(machines, 1, 9))


def test_durations_of_zero_are_fine_but_not_all_of_a_workers(measured: Callable[..., Path]) -> None:
    path = measured(HEADER + "0,0,0,0\n1,0,1,0\n0,1,2,3\n")
    assert cluster.read(path, 2).seconds.tolist() == [0, 0, 3]
    np.testing.assert_array_equal(
        np.unique(worker_times(make("trace", 1, file=str(measured(HEADER + "0,0,0,0\n0,1,1,3\n"))), 0, 99)), [0, 3]
    )
    assert refused(lambda: make("trace", 2, file=str(measured(HEADER + "0,0,0,0\n1,0,1,0\n0,1,2,3\n")))) == (
        "cluster: mean seconds of a computation must be positive and finite, got 0.0 for worker 1"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", " has no column worker; its first line must be worker,read_version,write_version,seconds"),
        (HEADER, " has no row below its header; give one for each update"),
        ("worker,read_version,seconds\n0,0,1\n", " has no column write_version; its first line must be worker"),
        (HEADER + "0,0,0,1\n0,one,1,2\n", ", line 3: must be three whole numbers and seconds, got '0,one,1,2'"),
        (HEADER + "0,0,0,1\n\n0,0.5,1,2\n", ", line 4: must be three whole numbers and seconds, got '0,0.5,1,2'"),
        (HEADER + "0,0,0\n", ", line 2: must be three whole numbers and seconds, got '0,0,0'"),
        (HEADER + "0,0,0,soon\n", ", line 2: must be three whole numbers and seconds, got '0,0,0,soon'"),
        (HEADER + '0,0,0,"1\n2"\n', ", line 3: must be three whole numbers and seconds, got '0,0,0,1\\n2'"),
        (HEADER + "0,0,0,1\n2,0,1,2\n", ", line 3: worker must lie in 0..1 (workers=2), got 2"),
        (HEADER + "-1,0,0,1\n", ", line 2: worker must lie in 0..1 (workers=2), got -1"),
        (
            HEADER + "0,0,0,1\n1,2,1,2\n",
            ", line 3: must read a version before it writes, got read_version 2, write_version 1",
        ),
        (
            HEADER + "0,-1,0,1\n",
            ", line 2: must read a version before it writes, got read_version -1, write_version 0",
        ),
        (HEADER + "0,0,0,-1\n", ", line 2: seconds must be finite and not negative, got -1.0"),
        (HEADER + "0,0,0,nan\n", ", line 2: seconds must be finite and not negative, got nan"),
        (HEADER + "0,0,0,inf\n", ", line 2: seconds must be finite and not negative, got inf"),
        (HEADER + "0,0,0,1e308\n", ", line 2: seconds: must be at most 1e+30 in absolute value, got 1e+308"),
        (
            HEADER + "1,0,1,2\n0,0,0,3\n",
            ", line 2: seconds must not fall from one write_version to the next, got 2.0 after 3.0",
        ),
        (
            HEADER + "0,0,0,1\n1,0,2,2\n",
            ", line 3: write versions of 2 rows must be 0..1 once each, got 2",
        ),
        (HEADER + "0,0,0,1\n1,0,0,2\n", ", line 3: write versions must come once each, got 0 as in line 2"),
        (HEADER + "0,0,0,1\n", " has no row of worker 1; give some for each of workers=2"),
        (b"\xff\xfe\x00", " must be UTF-8 text, got byte 0"),
        (HEADER.replace("read_version", "worker") + "0,0,0,1\n", " has column worker twice; its first line must be"),
        (HEADER + "0,0,0,1_0\n", ", line 2: must be three whole numbers and seconds, got '0,0,0,1_0'"),
    ],
)
def test_a_file_that_is_no_trace_is_an_input_error_that_names_the_line(
    text: str | bytes, message: str, measured: Callable[..., Path]
) -> None:
    path = measured(text)
    assert refused(lambda: cluster.read(path, 2)).startswith(f"cluster.file: {str(path)!r}{message}")
    assert refused(lambda: make("trace", 2, file=str(path))).startswith("cluster.file: ")


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none.csv", "no file"), (tmp_path, "cannot read")):
        assert refused(lambda path=path: cluster.read(path, 1)).startswith(f"cluster.file: {said} {str(path)!r}")


# -- options --


def test_options_are_all_there_and_flat() -> None:
    assert cluster.options("gamma", {"straggler": 3}) == {
        "profile": "equal",
        "shape": 2.0,
        "shift": 0.0,
        "straggler": 3.0,
        "burst_slowdown": 1.0,
        "burst_start": 0.05,
        "burst_stop": 0.2,
        "crash": None,
        "crash_workers": 1,
        "restart": None,
        "latency": 0.0,
        "bandwidth": None,
        "server_bandwidth": None,
        "batch": None,
        "reduce": "ring",
        "parallel_links": False,
    }


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"scale": [1, 2], "shift": [0, 1], "latency": [0.5, 1], "bandwidth": [[None, 1], [2, None]]},
        {"profile": "sqrt", "crash": 3, "bandwidth": [1, None], "server_bandwidth": 5, "reduce": "tree"},
    ],
)
def test_options_survive_a_file_and_are_resolved_for_good(given: dict) -> None:
    full = cluster.options("exponential", given)
    assert cluster.options("exponential", full) == full
    assert cluster.options("exponential", json.loads(json.dumps(full))) == full
    assert not any(isinstance(value, list) for value in full.values())
    one, other = make("exponential", 2, **given), make("exponential", 2, **full)
    np.testing.assert_array_equal(compute_times(one, 9), compute_times(other, 9))
    hash(tuple(full.values()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"law": "exponental"}, "cluster: unknown name 'exponental'; did you mean 'exponential'?"),
        ({"n": 0}, "workers: must be at least 1, got 0"),
        ({"seed": -1}, "seed: must lie in [0, 2^64), got -1"),
        ({"profile": "lin"}, "cluster.profile: unknown name 'lin'; did you mean 'linear'?"),
        (
            {"profile": "straggler"},
            "cluster.profile: unknown name 'straggler'; known: equal, jittered_sqrt, linear, sqrt",
        ),
        ({"profile": [1, 2]}, "cluster.profile: must be str, got [1, 2] (list)"),
        ({"stragler": 3.0}, "cluster.stragler: exponential has no such option; did you mean 'straggler'?"),
        ({"sigma": 3.0}, "cluster.sigma: exponential has no such option; lognormal has it"),
        ({"shape": 3.0}, "cluster.shape: exponential has no such option; gamma and pareto have it"),
        ({"seconds": 3.0}, "cluster.seconds: exponential has no such option; known: bandwidth, batch, burst_slowdown"),
        ({"scale": [1, 2]}, "cluster.scale: must be one number for each of workers=3, got 2"),
        ({"scale": [1, 0, 2]}, "cluster.scale: must be positive and finite, got 0.0 for worker 1"),
        ({"scale": [1, 2, float("inf")]}, "cluster.scale: must be positive and finite, got inf for worker 2"),
        ({"scale": [1, 1e308, 1]}, "cluster.scale: must be at most 1e+30 in absolute value, got 1e+308"),
        (
            {"scale": [1, 1, 1e-320]},
            "cluster: mean seconds of a computation must be at least 1e-30, got 1e-320 for worker 2",
        ),
        ({"scale": [float("nan"), 2, 1]}, "cluster.scale: must be finite, got nan"),
        ({"scale": [None, 2, 1]}, "cluster.scale: must be positive and finite, got nan for worker 0"),
        ({"scale": [1, "fast", 2]}, "cluster.scale: must be float, got 'fast' (str)"),
        ({"scale": [1, [2], 3]}, "cluster.scale: must be one number for each of workers=3, got lists of unequal"),
        ({"scale": 2.0}, "cluster.scale: must be list, got 2.0 (float)"),
        ({"scale": [1, 1, 1], "profile": "equal"}, "cluster.profile: cluster.scale gives all speeds; leave it out"),
        ({"shift": -1.0}, "cluster.shift: must be finite and not negative, got -1.0"),
        ({"shift": [0, -1, 0]}, "cluster.shift: must be finite and not negative, got -1.0 for worker 1"),
        ({"shift": 1e308}, "cluster.shift: must be at most 1e+30 in absolute value, got 1e+308"),
        ({"shift": [0, 1]}, "cluster.shift: must be one number for each of workers=3, got 2"),
        ({"shift": [[0] * 3] * 3}, "cluster.shift: must be one number for each of workers=3, got 3 x 3"),
        ({"shift": float("nan")}, "cluster.shift: must be finite, got nan"),
        ({"shift": "late"}, "cluster.shift: must be float | list, got 'late' (str)"),
        ({"straggler": 0.0}, "cluster.straggler: must be positive and finite, got 0.0; 10 is usual"),
        ({"straggler": float("inf")}, "cluster.straggler: must be positive and finite, got inf; 10 is usual"),
        ({"straggler": 1e308}, "cluster.straggler: must be at most 1e+30 in absolute value, got 1e+308"),
        (
            {"law": "shifted_exponential", "minimum": 1.0},
            "cluster.minimum: must lie in [0, 1), a part of the mean of 1 s",
        ),
        ({"law": "lognormal", "sigma": 0.0}, "cluster.sigma: must lie in (0, 5], got 0.0; 0.5 is usual"),
        ({"law": "gamma", "shape": 0}, "cluster.shape: must be finite and at least 0.01, got 0.0; 2 is usual"),
        ({"law": "pareto", "shape": 1}, "cluster.shape: a Pareto law has a finite mean only above 1, got 1.0"),
        (
            {"law": "pareto", "shape": float("nan")},
            "cluster.shape: must be finite, got nan",
        ),
        ({"law": "uniform", "width": 1.5}, "cluster.width: must lie in [0, 1], got 1.5; 0.5 is usual"),
        ({"law": "trace"}, "cluster.file: trace needs it; give cluster.file"),
        ({"burst_slowdown": 0.0}, "cluster.burst_slowdown: must be positive and finite, got 0.0; 10 is usual"),
        ({"burst_slowdown": 1e308}, "cluster.burst_slowdown: must be at most 1e+30 in absolute value, got 1e+308"),
        ({"burst_start": -0.1}, "cluster.burst_start: must lie in [0, 1], got -0.1"),
        ({"burst_stop": float("nan")}, "cluster.burst_stop: must be finite, got nan"),
        (
            {"burst_start": 0.5, "burst_stop": 0.75},
            "cluster.burst_stop: must be at most 1 - cluster.burst_start=0.5, got 0.75; lower one of them",
        ),
        ({"crash": -1.0}, "cluster.crash: must be finite and not negative, got -1.0; leave it out for never"),
        (
            {"crash": 1, "restart": float("inf")},
            "cluster.restart: must be finite and not negative, got inf; leave it out",
        ),
        ({"crash": 1, "restart": 1e308}, "cluster.restart: must be at most 1e+30 in absolute value, got 1e+308"),
        ({"crash": 1, "crash_workers": 4}, "cluster.crash_workers: must lie in 1..workers=3, got 4"),
        ({"crash_workers": 0}, "cluster.crash_workers: must lie in 1..workers=3, got 0"),
        ({"crash_workers": 1.5}, "cluster.crash_workers: must be int, got 1.5 (float)"),
        ({"latency": -1.0}, "cluster.latency: must be finite and not negative, got -1.0"),
        ({"latency": [0, 1, float("inf")]}, "cluster.latency: must be finite and not negative, got inf for worker 2"),
        ({"latency": 1e308}, "cluster.latency: must be at most 1e+30 in absolute value, got 1e+308"),
        (
            {"latency": [1, 2]},
            "cluster.latency: must be one number, 3 (workers=3), or 3 lists of 3 ([reader][sender]), got 2",
        ),
        ({"latency": [[0, 1], [1, 0, 2], [1, 2, 0]]}, "cluster.latency: must be one number, 3 (workers=3), or 3 lists"),
        ({"bandwidth": 0}, "cluster.bandwidth: must be positive, got 0.0"),
        ({"bandwidth": 1e-320}, "cluster.bandwidth: must be at least 1e-30 bytes per second, got 1e-320"),
        ({"server_bandwidth": 1e-320}, "cluster.server_bandwidth: must be at least 1e-30 bytes per second, got 1e-320"),
        (
            {"bandwidth": [[0, 1, 1], [1, 0, -2], [1, 1, 0]]},
            "cluster.bandwidth: must be positive, got -2.0 for reader 1, sender 2",
        ),
        ({"server_bandwidth": -1}, "cluster.server_bandwidth: must be positive, got -1.0"),
        ({"reduce": "rings"}, "cluster.reduce: unknown name 'rings'; did you mean 'ring'?"),
        ({"parallel_links": 1}, "cluster.parallel_links: must be bool, got 1 (int)"),
    ],
)
def test_a_cluster_that_cannot_be_is_an_input_error_in_one_line(options: dict, message: str) -> None:
    rest = dict(options)
    law, n, seed = rest.pop("law", "exponential"), rest.pop("n", 3), rest.pop("seed", 0)
    assert refused(lambda: cluster.make(law, n, seed, **rest)).startswith(message)


def test_unknown_names_are_refused_before_the_number_of_workers_is_known() -> None:
    for options in ({"stragler": 2}, {"profile": "lin"}, {"reduce": "star"}, {"shape": 2.0}, {"latency": "much"}):
        assert refused(lambda options=options: cluster.options("exponential", options)).startswith("cluster.")


# -- links --


def link(net: Links, i: int, j: int) -> tuple[float, float]:
    """(ℓ, seconds per byte) of the link by which i reads j."""
    latency, bandwidth = net.latency, net.bandwidth
    ell = [latency, lambda: max(latency[i], latency[j]), lambda: latency[i, j]][latency.ndim]
    w = [bandwidth, lambda: min(bandwidth[i], bandwidth[j]), lambda: bandwidth[i, j]][bandwidth.ndim]
    return float(ell() if callable(ell) else ell), 1 / float(w() if callable(w) else w)


def message(net: Links, i: int, j: int, size: float) -> float:
    ell, pace = link(net, i, j)
    return ell + size * pace


def random_network(seed: int, n: int, depth: tuple[int, int], **options: Any) -> Links:
    rng = np.random.default_rng(seed)
    latency, bandwidth = (rng.uniform(1, 9, (n,) * k).tolist() for k in depth)
    return links.make(n, latency=latency, bandwidth=bandwidth, **options)


depths = st.tuples(st.integers(0, 2), st.integers(0, 2))
counts = st.integers(1, 17)


def test_of_two_workers_links_the_slower_counts() -> None:
    net = links.make(3, latency=[0.1, 0.3, 0.2], bandwidth=[4, 2, None])
    assert links.pair_time(net, 0, 2, 8) == pytest.approx(0.2 + 2)
    assert links.pair_time(net, 1, 2, 8) == pytest.approx(0.3 + 4)
    assert links.pair_time(net, 2, 1, 8) == pytest.approx(0.3 + 4)


def test_a_matrix_of_links_is_read_reader_first() -> None:
    net = links.make(2, latency=[[9, 1], [2, 9]], bandwidth=[[None, 4], [8, 0]])  # whatever the diagonal says
    assert links.pair_time(net, 0, 1, 8) == 1 + 2
    assert links.pair_time(net, 1, 0, 8) == 2 + 1
    np.testing.assert_array_equal(links.gossip_times(net, np.ones((2, 2), bool), 8), [3, 3])
    np.testing.assert_array_equal(links.gossip_times(net, np.array([[1, 1], [0, 0]], bool), 0), [1, 0])


@given(seeds, counts, depths, sizes)
@settings(deadline=None)
def test_gossip_takes_the_sum_of_its_messages_or_with_parallel_links_the_longest(
    seed: int, n: int, depth: tuple[int, int], size: float
) -> None:
    reads = np.random.default_rng(seed).random((n, n)) < 0.4
    for parallel, total in ((False, sum), (True, max)):
        net = random_network(seed, n, depth, parallel_links=parallel)
        each = [[message(net, i, j, size) for j in range(n) if reads[i, j] and i != j] for i in range(n)]
        np.testing.assert_allclose(links.gossip_times(net, reads, size), [total(own) if own else 0 for own in each])


@given(seeds, counts, depths, sizes)
@settings(deadline=None)
def test_a_round_of_all_reduce_takes_its_slowest_link(seed: int, n: int, depth: tuple[int, int], size: float) -> None:
    net = random_network(seed, n, depth)
    around = [message(net, (i + 1) % n, i, size / n) for i in range(n)]
    ring = sum(max(around) for _ in range(2 * (n - 1)))
    assert links.reduce_time(net, n, size) == pytest.approx(ring)
    rounds: dict[int, list[tuple[float, float]]] = {}
    for child in range(1, n):  # its parent lacks its lowest bit
        parent = child & (child - 1)
        pair = message(net, parent, child, size), message(net, child, parent, size)
        rounds.setdefault(child ^ parent, []).append(pair)
    tree = sum(max(up for up, _ in pairs) + max(down for _, down in pairs) for pairs in rounds.values())
    assert links.reduce_time(net._replace(reduce="tree"), n, size) == pytest.approx(tree)


@given(seeds, counts, st.tuples(st.integers(0, 1), st.integers(0, 1)), sizes, st.floats(1, 9) | st.none())
@settings(deadline=None)
def test_the_servers_port_carries_one_message_after_another(
    seed: int, n: int, depth: tuple[int, int], size: float, port: float | None
) -> None:
    net = random_network(seed, n, depth, reduce="server", server_bandwidth=port)
    own = [float(x) for x in np.broadcast_to(net.bandwidth, n)]
    latency, pace = links.server_links(net, n)
    np.testing.assert_array_equal(latency, np.broadcast_to(net.latency, n))
    np.testing.assert_allclose(pace, [1 / min(w, port or w) for w in own])
    expected = 0.0
    for _ in range(2):  # to the server and back
        expected += max(np.broadcast_to(net.latency, n)) + sum(size / min(w, port or w) for w in own)
    assert links.reduce_time(net, n, size) == pytest.approx(expected if n > 1 else 0)


@given(counts, st.floats(0, 9), st.floats(1, 9), sizes)
@settings(deadline=None)
def test_on_equal_links_costs_are_their_formulas(n: int, ell: float, w: float, size: float) -> None:
    log = int(np.ceil(np.log2(n)))
    formulas = {
        "ring": 2 * (n - 1) * ell + 2 * (n - 1) / n * size / w,
        "tree": 2 * log * (ell + size / w),
        "server": (2 * ell + 2 * n * size / w) if n > 1 else 0,
    }
    gathered = {
        "ring": (n - 1) * (ell + size / w),
        "tree": sum(2 * ell + (min(2**k, n - 2**k) + n) * size / w for k in range(log)),
        "server": (2 * ell + n * (n + 1) * size / w) if n > 1 else 0,
    }
    assert set(formulas) == set(gathered) == set(REDUCTIONS)
    for name, seconds in gathered.items():
        net = links.make(n, latency=ell, bandwidth=w, reduce=name)
        assert links.reduce_time(net, n, size, gathers=True) == pytest.approx(seconds)
    each = [1.0] * n
    for name, seconds in formulas.items():
        for latency, bandwidth in ((ell, w), ([ell] * n, [w] * n)):
            net = links.make(n, latency=latency, bandwidth=bandwidth, reduce=name)
            assert links.reduce_time(net, n, size) == pytest.approx(seconds)
    degree = n - 1
    reads = np.ones((n, n), bool)
    for parallel, seconds in ((False, degree * (ell + size / w)), (True, (ell + size / w) * (n > 1))):
        net = links.make(n, latency=ell, bandwidth=w, parallel_links=parallel)
        np.testing.assert_allclose(links.gossip_times(net, reads, size), np.array(each) * seconds)


@given(counts, st.integers(1, 12))
def test_messages_of_an_all_reduce_are_counted_along_their_way(n: int, m: int) -> None:
    """A sum of m and its way to all are (m - 1) + (n - 1) messages; gathered, each is sent once per worker it passes."""
    m = min(m, n)
    for name in ("ring", "tree"):
        own, server = links.reduce_messages(name, n, participants=m)
        assert (own * n, server) == (pytest.approx(m + n - 2 if n > 1 else 0), 0)
    assert links.reduce_messages("ring", n, gathers=True)[0] == n - 1
    up = sum(bin(child).count("1") for child in range(n))  # a message passes as many workers as its number has bits
    assert links.reduce_messages("tree", n, gathers=True)[0] * n == pytest.approx(up + n * (n - 1))
    if n > 1:
        assert links.reduce_messages("server", n, participants=m) == (m / n, n)
        assert links.reduce_messages("server", n, gathers=True) == (1, n * n)


def test_one_worker_alone_sends_nothing() -> None:
    for name in REDUCTIONS:
        assert links.reduce_messages(name, 1) == (0, 0)
        assert links.reduce_time(links.make(1, latency=1.0, bandwidth=1.0, reduce=name), 1, 8) == 0
    np.testing.assert_array_equal(links.gossip_times(links.make(1, latency=1.0), np.ones((1, 1), bool), 8), [0])


def test_without_latency_and_with_infinite_bandwidth_all_is_free() -> None:
    free = [{}, {"latency": [0, 0]}, {"latency": [[9, 0], [0, 9]], "bandwidth": [[1, None], [None, 1]]}]
    for options in free:
        net = links.make(2, **options)
        assert net.free
        assert links.reduce_time(net, 2, 1e9) == 0
    for options in ({"latency": [0, 1]}, {"bandwidth": [None, 5]}, {"server_bandwidth": 5}, {"bandwidth": 1e30}):
        assert not links.make(2, **options).free
    assert links.reduce_time(links.make(3, server_bandwidth=2, reduce="server"), 3, 8) == 2 * 3 * 4


def test_more_bytes_take_longer_and_none_take_the_latencies() -> None:
    net = random_network(0, 6, (1, 2))
    for name in ("ring", "tree"):
        times = [links.reduce_time(net._replace(reduce=name), 6, size) for size in (0, 1, 10, 1e6)]
        assert all(a < b for a, b in pairwise(times))
    assert links.reduce_time(net, 6, 0) == pytest.approx(10 * max(net.latency))


@pytest.mark.parametrize("name", ["latency", "bandwidth"])
def test_a_server_has_no_place_in_a_matrix_of_links(name: str) -> None:
    net = links.make(2, **{name: [[1, 2], [3, 4]]}, reduce="server")
    line = f"cluster.{name}: a server has no place in a matrix of links, got 2 x 2; give one number, or one for each worker"
    assert refused(lambda: links.server_links(net, 2)) == line
    assert refused(lambda: links.reduce_time(net, 2, 8)) == line


def test_a_cluster_carries_its_network() -> None:
    machines = make(
        "constant", 2, latency=0.5, bandwidth=[1, None], server_bandwidth=3, reduce="tree", parallel_links=True
    )
    assert not machines.links.free
    assert machines.links.reduce == "tree"
    assert machines.links.parallel
    assert machines.links.server_bandwidth == 3
    assert machines.links.bandwidth.tolist() == [1, np.inf]
    assert make("constant", 2).links.free
