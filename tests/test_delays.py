"""Delay laws are probabilities, rings remember, and random numbers are a function of their coordinates alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from scipy import stats

from dopt import delays, draws, rings
from dopt.types import Clock, InputError

LAWS: list[tuple[int | str, dict[str, Any]]] = [
    (0, {}),
    (3, {}),
    (3, {"max": 8}),
    ("constant", {"value": 2}),
    ("constant", {"value": 2, "max": 5}),
    ("uniform", {"max": 6}),
    ("uniform", {"max": 6, "low": 2, "high": 4}),
    ("geometric", {"max": 12}),
    ("geometric", {"max": 4, "mean": 7.0}),
    ("geometric", {"max": 5, "mean": 0.0}),
]
NAMES = [f"{law} {options}" for law, options in LAWS]


def table(delay: int | str, options: dict[str, Any]) -> np.ndarray:
    return delays.table(*delays.resolve(delay, options))


# -- laws --


@pytest.mark.parametrize(("delay", "options"), LAWS, ids=NAMES)
def test_a_table_is_a_probability_over_0_to_max(delay: int | str, options: dict) -> None:
    p = table(delay, options)
    assert len(p) == options.get("max", options.get("value", delay)) + 1
    assert (p >= 0).all()
    assert p.sum() == pytest.approx(1, abs=1e-15)


def test_laws_are_their_formulas() -> None:
    np.testing.assert_array_equal(table(2, {}), [0, 0, 1])
    np.testing.assert_array_equal(table("constant", {"value": 1, "max": 3}), [0, 1, 0, 0])
    np.testing.assert_array_equal(table("uniform", {"max": 3}), [0.25] * 4)
    np.testing.assert_allclose(table("uniform", {"max": 5, "low": 1, "high": 3}), [0, 1 / 3, 1 / 3, 1 / 3, 0, 0])
    np.testing.assert_array_equal(table("geometric", {"max": 3, "mean": 0.0}), [1, 0, 0, 0])


@given(st.floats(0.01, 50), st.integers(0, 30))
def test_a_truncated_geometric_law_is_the_whole_one_given_that_it_is_at_most_max(mean: float, largest: int) -> None:
    p = table("geometric", {"max": largest, "mean": mean})
    whole = 1 / (1 + mean) * (mean / (1 + mean)) ** np.arange(largest + 1)
    np.testing.assert_allclose(p, whole / whole.sum(), rtol=1e-12)


def test_a_geometric_law_that_is_hardly_truncated_has_its_mean() -> None:
    assert table("geometric", {"max": 2000, "mean": 7.0}) @ np.arange(2001) == pytest.approx(7, abs=1e-9)


def test_a_constant_law_is_the_number_and_the_number_is_its_own_max() -> None:
    assert delays.resolve(3, {}) == (3, {"max": 3})
    assert delays.resolve(3, {"max": 5}) == (3, {"max": 5})
    assert delays.resolve("constant", {"value": 3}) == (3, {"max": 3})
    assert delays.resolve("uniform", {"max": 5}) == ("uniform", {"max": 5, "low": 0, "high": None})


@pytest.mark.parametrize(
    ("delay", "options", "message"),
    [
        (4, {"max": 3}, "delay: the law reaches 4 steps, the buffer holds delay.max=3; raise delay.max or lower"),
        ("constant", {"value": 4, "max": 3}, "delay: the law reaches 4 steps, the buffer holds delay.max=3"),
        ("uniform", {"max": 3, "high": 4}, "delay: the law reaches 4 steps, the buffer holds delay.max=3"),
        ("uniform", {"max": 3, "low": 2, "high": 1}, "delay.high: must be at least delay.low=2, got 1"),
        ("uniform", {"max": 3, "low": -1}, "delay.low: must not be negative, got -1"),
        ("uniform", {}, "delay.max: uniform needs it; give delay.max"),
        ("geometric", {"max": 3, "mean": -1.0}, "delay.mean: must be finite and not negative, got -1.0"),
        ("geometric", {"max": 3, "mean": float("inf")}, "delay.mean: must be finite and not negative, got inf"),
        ("geometric", {"max": 3, "mean": float("nan")}, "delay.mean: must be finite, got nan"),
        ("geometric", {"max": -1}, "delay.max: must not be negative, got -1"),
        (-1, {}, "delay.value: must not be negative, got -1"),
        (2, {"value": 3}, "delay.value: the delay is 2 already"),
        (True, {}, "delay: must be a whole number of steps or a law's name, got True"),
        ("unifrom", {"max": 3}, "delay: unknown name 'unifrom'; did you mean 'uniform'?"),
        ("uniform", {"max": 3, "mean": 2.0}, "delay.mean: uniform has no such option; known: high, low, max"),
        ("uniform", {"max": 2.5}, "delay.max: must be int, got 2.5"),
    ],
)
def test_a_delay_that_cannot_be_is_an_input_error_in_one_line(delay: Any, options: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        delays.resolve(delay, options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


# -- drawing --

DRAWN = 200_000


def uniform_numbers(seed: int = 0) -> np.ndarray:
    return np.asarray(jax.jit(lambda: draws.uniforms(seed, draws.EVERYONE, 7, draws.DELAYS, DRAWN))())


@pytest.mark.parametrize(("delay", "options"), LAWS, ids=NAMES)
def test_drawn_delays_have_the_frequencies_of_the_table(delay: int | str, options: dict) -> None:
    p = table(delay, options)
    ages = np.asarray(delays.at(jnp.asarray(delays.cumulative(p, len(p))), uniform_numbers()))
    assert ages.dtype == np.int32
    seen = np.bincount(ages, minlength=len(p))
    assert len(seen) == len(p)
    assert (seen[p == 0] == 0).all()
    possible = p > 0
    if possible.sum() > 1:
        assert stats.chisquare(seen[possible], DRAWN * p[possible]).pvalue > 1e-3
    else:
        assert seen[possible] == DRAWN


@pytest.mark.parametrize(("delay", "options"), LAWS, ids=NAMES)
def test_a_longer_buffer_changes_no_draw(delay: int | str, options: dict) -> None:
    p, u = table(delay, options), uniform_numbers()
    short, long = (delays.at(jnp.asarray(delays.cumulative(p, slots)), u) for slots in (len(p), len(p) + 20))
    np.testing.assert_array_equal(short, long)


def test_a_distribution_function_ends_in_exactly_one_whatever_the_sum_rounds_to() -> None:
    for largest in (2, 5, 9, 48):
        p = table("uniform", {"max": largest + 3, "high": largest})
        steps = delays.cumulative(p, largest + 6)
        np.testing.assert_allclose(steps[: largest + 1], np.arange(1, largest + 2) / (largest + 1), rtol=1e-14)
        np.testing.assert_array_equal(steps[largest:], 1)
    assert np.cumsum(table("uniform", {"max": 9}))[-1] < 1


def test_the_ends_of_the_unit_interval_draw_the_first_and_the_last_possible_delay() -> None:
    for delay, options in LAWS:
        p = table(delay, options)
        ends = np.array([0, 1 - 2**-24], np.float32)
        first, last = np.asarray(delays.at(jnp.asarray(delays.cumulative(p, len(p) + 3)), ends))
        assert first == np.flatnonzero(p)[0]
        assert last <= np.flatnonzero(p)[-1]


# -- rings --


@settings(deadline=None, max_examples=25)
@given(slots=st.integers(1, 5), steps=st.integers(1, 12))
def test_a_ring_reads_what_was_written_that_many_steps_ago_or_else_its_fill(slots: int, steps: int) -> None:
    like = {"x": jnp.full((2, 1), -1.0)}
    ring = rings.ring(like, slots)
    for k in range(steps):
        ring = rings.write(ring, Clock(jnp.int32(k)), {"x": jnp.array([[k], [2 * k]], jnp.float32)})
        for age in range(slots):
            expected = [[k - age], [2 * (k - age)]] if age <= k else [[-1], [-1]]
            np.testing.assert_array_equal(rings.read(ring, Clock(jnp.int32(k)), jnp.int32(age), like)["x"], expected)


# -- random numbers by their coordinates --


@pytest.mark.parametrize("count", [2, 7, 10, 256])
def test_samples_are_uniform(count: int) -> None:
    drawn = jax.jit(jax.vmap(lambda m: draws.samples(3, 1, m, 16, count)))(jnp.arange(4000))
    assert drawn.dtype == jnp.int32
    seen = np.bincount(np.asarray(drawn).ravel(), minlength=count)
    assert len(seen) == count
    assert stats.chisquare(seen).pvalue > 1e-3


def test_the_samples_of_a_batch_of_the_next_one_and_of_another_worker_are_independent() -> None:
    count = 5
    x = np.asarray(
        jax.jit(jax.vmap(lambda i: jax.vmap(lambda m: draws.samples(3, i, m, 4, count))(jnp.arange(8000))))(
            jnp.arange(2)
        )
    )
    pairs = {
        "lanes of one block": (x[0, :, 0], x[0, :, 2]),
        "lanes of two blocks": (x[0, :, 0], x[0, :, 1]),
        "batches": (x[0, :-1, 0], x[0, 1:, 0]),
        "workers": (x[0, :, 0], x[1, :, 0]),
    }
    for name, (a, b) in pairs.items():
        seen = np.bincount(a * count + b, minlength=count**2)
        assert stats.chisquare(seen).pvalue > 1e-3, name


def test_uniforms_are_uniform_multiples_of_2_to_the_minus_24_below_one() -> None:
    u = uniform_numbers(seed=5).astype(np.float64)
    np.testing.assert_array_equal(u * 2**24, np.round(u * 2**24))
    assert 0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3


def three_axes() -> np.ndarray:
    """[seeds, workers, numbers, batch] one by one."""
    one = jax.jit(lambda s, i, m: draws.samples(s, i, m, 5, 1000))
    return np.array([[[one(s, i, m) for m in range(4)] for i in range(3)] for s in (0, 9)])


def test_samples_depend_on_seed_worker_and_number_alone_under_any_vmap() -> None:
    apart = three_axes()
    assert len(np.unique(apart.reshape(-1, 5), axis=0)) == 2 * 3 * 4  # and on each of the three
    s, i, m = jnp.array([0, 9]), jnp.arange(3), jnp.arange(4)

    def draw(s: Any, i: Any, m: Any) -> jax.Array:
        return draws.samples(s, i, m, 5, 1000)

    numbers = jax.vmap(draw, (None, None, 0))
    together = jax.jit(jax.vmap(jax.vmap(numbers, (None, 0, None)), (0, None, None)))(s, i, m)
    np.testing.assert_array_equal(together, apart)
    other_way = jax.vmap(jax.vmap(jax.vmap(draw, (0, None, None)), (None, 0, None)), (None, None, 0))
    np.testing.assert_array_equal(jax.jit(other_way)(s, i, m).transpose(2, 1, 0, 3), apart)
    in_a_scan = jax.jit(lambda: lax.map(lambda k: draw(s[1], i[2], k), m))()
    np.testing.assert_array_equal(in_a_scan, apart[1, 2])


def test_the_draws_of_x64_are_those_of_float32() -> None:
    def all_kinds() -> list[np.ndarray]:
        return [
            np.asarray(x)
            for x in (
                draws.samples(9, 2, 3, 5, 1000),
                draws.uniforms(9, 2, 3, draws.DELAYS, 5),
                jax.random.key_data(draws.key(9, 2, 3)),
            )
        ]

    single = all_kinds()
    np.testing.assert_array_equal(single[0], three_axes()[1, 2, 3])
    with jax.enable_x64(True):
        for one, other in zip(single, all_kinds(), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_streams_and_everyone_are_numbers_of_their_own() -> None:
    def bits(worker: Any, stream: Any) -> tuple[int, ...]:
        return tuple(np.asarray(draws.words(0, worker, 0, stream, 4)).tolist())

    seen = [
        bits(worker, stream)
        for worker in (0, 1, draws.EVERYONE)
        for stream in (draws.BATCHES, draws.DELAYS, draws.NOISE)
    ]
    assert len({word for words in seen for word in words}) == 4 * 9


def test_sample_numbers_of_short_shards_stay_within_them() -> None:
    counts = jnp.array([1, 2, 3, 1000])
    drawn = jax.vmap(lambda i, count: draws.samples(0, i, 0, 500, count))(jnp.arange(4), counts)
    np.testing.assert_array_equal(drawn.min(1), [0, 0, 0, drawn[3].min()])
    np.testing.assert_array_equal(drawn.max(1)[:3], [0, 1, 2])
    assert 980 < drawn[3].max() < 1000
