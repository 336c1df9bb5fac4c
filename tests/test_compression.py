"""Messages are what their formulas say, lose no more than they promise, and are as long as the table has it."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dopt import compression
from dopt.compression import COMPRESSORS, make
from dopt.types import InputError, Tree

KEY = jax.random.key(7)
D = 37
OPERATORS: list[tuple[str, dict[str, Any]]] = [
    ("identity", {}),
    ("top_k", {"fraction": 0.2}),
    ("random_k", {"fraction": 0.2}),
    ("random_k", {"fraction": 0.2, "unbiased": True}),
    ("sign", {}),
    ("qsgd", {"levels": 4}),
    ("qsgd", {"levels": 1, "scaled": False}),
    ("natural", {}),
    ("low_rank", {"rank": 2}),
]
NAMES = [f"{name} {options}" for name, options in OPERATORS]
operators = pytest.mark.parametrize(("name", "options"), OPERATORS, ids=NAMES)
VECTOR = [(name, options) for name, options in OPERATORS if name != "low_rank"]
vectors = pytest.mark.parametrize(("name", "options"), VECTOR, ids=NAMES[: len(VECTOR)])


def vector(d: int = D, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(d)


def matrix(a: int, b: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((a, b))


@cache
def compiled(name: str, options: tuple, over: Any) -> Any:
    """(tree, keys) -> messages, mapped over the arguments that `over` names; one compilation per operator and shape."""
    operator = make(name, **dict(options))

    def message(tree: Tree, key: jax.Array) -> Tree:
        return operator.apply(tree, operator.init(tree), key)[0]

    return jax.jit(jax.vmap(message, over) if over else message)


def send(name: str, tree: Tree, key: jax.Array = KEY, **options: Any) -> Any:
    return compiled(name, tuple(options.items()), None)(tree, key)


def many(name: str, x: np.ndarray, draws: int = 1000, **options: Any) -> np.ndarray:
    """[draws, d] messages of one vector, one key each."""
    keys = jax.random.split(KEY, draws)
    return np.asarray(compiled(name, tuple(options.items()), (None, 0))(jnp.asarray(x), keys), np.float64)


def uniforms(d: int = D, key: jax.Array = KEY) -> np.ndarray:
    return np.asarray(jax.random.uniform(key, (d,), dtype=jnp.float32), np.float64)


# -- the message --


def transcription(
    name: str, x: np.ndarray, fraction: float = 0.1, unbiased: bool = False, **options: Any
) -> np.ndarray:
    """The table in NumPy, on a vector x; the draws are uniforms of the key."""
    d, u = len(x), uniforms(len(x))
    k = max(1, round(fraction * d))
    if name in ("top_k", "random_k"):
        order = np.argsort(-np.abs(x) if name == "top_k" else -u, kind="stable")[:k]
        message = np.zeros(d)
        message[order] = x[order] * (d / k if unbiased else 1)
        return message
    if name == "sign":
        return np.abs(x).sum() / d * np.sign(x)
    if name == "qsgd":
        s, norm = options["levels"], np.sqrt(x @ x)
        xi = np.floor(s * np.abs(x) / norm + 1 - u)  # up where u < the fractional part (or equal, which never happens)
        return norm * np.sign(x) * xi / s / (1 + min(d / s**2, d**0.5 / s) * options.get("scaled", True))
    if name == "natural":
        low = 2.0 ** np.floor(np.log2(np.abs(x)))
        return np.sign(x) * np.where(u < np.abs(x) / low - 1, 2 * low, low)
    return x


@vectors
def test_a_message_is_its_formula(name: str, options: dict) -> None:
    x = vector()
    with jax.enable_x64(True):
        message = send(name, jnp.asarray(x), **options)
        assert message.dtype == np.float64
        np.testing.assert_allclose(message, transcription(name, x, **options), rtol=0, atol=1e-12)


def test_low_rank_is_one_power_iteration_from_the_q_of_the_state() -> None:
    M = matrix(9, 12)
    with jax.enable_x64(True):
        operator = make("low_rank", rank=2)
        (Q,) = state = operator.init({"M": jnp.asarray(M.reshape(9, 3, 4))})
        message, (new,) = operator.apply({"M": jnp.asarray(M.reshape(9, 3, 4))}, state, KEY)
    P = np.linalg.qr(M @ np.asarray(Q))[0]
    np.testing.assert_allclose(message["M"], (P @ (P.T @ M)).reshape(9, 3, 4), atol=1e-12)
    np.testing.assert_allclose(np.abs(new), np.abs(M.T @ P), atol=1e-12)  # QR knows P up to signs


@vectors
def test_a_tree_is_its_flattened_vector(name: str, options: dict) -> None:
    x = vector().astype(np.float32)
    tree = {"a": x[:20].reshape(4, 5), "b": (x[20], x[21:])}
    message = send(name, tree, **options)
    assert jax.tree.map(np.shape, message) == jax.tree.map(np.shape, tree)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(message)])
    np.testing.assert_allclose(flat, send(name, x, **options), rtol=1e-6)  # the compiler may sum in another order
    np.testing.assert_array_equal(flat == 0, np.asarray(send(name, x, **options)) == 0)


@operators
def test_float32_and_float64_draw_the_same(name: str, options: dict) -> None:
    x = matrix(8, 9).astype(np.float32)
    single = send(name, jnp.asarray(x), **options)
    with jax.enable_x64(True):
        double = send(name, jnp.asarray(x, jnp.float64), **options)
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-6)


@operators
def test_workers_under_vmap_send_what_each_sends_alone(name: str, options: dict) -> None:
    n = 3
    trees = {"W": matrix(n, 48).reshape(n, 6, 8).astype(np.float32), "b": matrix(n, 5, seed=1).astype(np.float32)}
    keys = jax.random.split(KEY, n)
    messages = compiled(name, tuple(options.items()), (0, 0))(trees, keys)
    for i in range(n):
        alone = send(name, jax.tree.map(lambda x: x[i], trees), keys[i], **options)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[i], rtol=1e-4, atol=1e-6), alone, messages)


def test_raw_keys_are_as_good_as_typed_ones() -> None:
    x = vector().astype(np.float32)
    np.testing.assert_array_equal(send("qsgd", x, jax.random.key(3)), send("qsgd", x, jax.random.PRNGKey(3)))


def test_identity_is_exact() -> None:
    x = np.array([np.pi, -0.0, np.inf, 1e-40], np.float32)
    np.testing.assert_array_equal(np.asarray(send("identity", x)).view(np.uint32), x.view(np.uint32))


@pytest.mark.parametrize("name", ["top_k", "random_k"])
@pytest.mark.parametrize(("fraction", "k"), [(1e-9, 1), (0.29, 6), (1.0, 20)])
def test_k_coordinates_are_sent_even_on_ties(name: str, fraction: float, k: int) -> None:
    assert np.count_nonzero(send(name, np.ones(20, np.float32), fraction=fraction)) == k


def test_random_k_draws_every_coordinate_equally_often_and_from_a_shared_key() -> None:
    sent = many("random_k", np.ones(10, np.float32), fraction=0.3) != 0
    assert (sent.sum(1) == 3).all()
    assert np.abs(sent.mean(0) - 0.3).max() < 5 * math.sqrt(0.3 * 0.7 / len(sent))
    assert [name for name in COMPRESSORS if make(name).shared] == ["random_k"]


@operators
@pytest.mark.parametrize("shape", [(1,), (8, 9)])
def test_zero_is_sent_as_zero(name: str, options: dict, shape: tuple) -> None:
    np.testing.assert_array_equal(send(name, jnp.zeros(shape), **options), np.zeros(shape))


@vectors
def test_one_number_is_sent_whole(name: str, options: dict) -> None:
    scale = 1 / 2 if name == "qsgd" and options["levels"] == 1 and options.get("scaled", True) else 1
    scale = 1 / (1 + 1 / 16) if name == "qsgd" and options["levels"] == 4 else scale
    x = np.array([-4.0], np.float32)
    np.testing.assert_allclose(send(name, x, **options), scale * x, rtol=1e-6)


@operators
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(name: str, options: dict, bad: float) -> None:
    if name == "random_k":
        options = {"fraction": 1.0}
    x = matrix(8, 9).astype(np.float32)
    x[3, 4] = bad
    assert not np.isfinite(send(name, x, **options)).all()


@pytest.mark.parametrize("name", ["sign", "qsgd", "top_k", "natural"])
@pytest.mark.parametrize("scale", [2.0**-90, 2.0**90])
def test_a_message_scales_with_the_vector_though_its_squares_do_not_fit(name: str, scale: float) -> None:
    x = vector().astype(np.float32)
    np.testing.assert_allclose(send(name, x * np.float32(scale)), scale * np.asarray(send(name, x)), rtol=1e-6)


# -- what is lost --


def omega(d: int, levels: int) -> float:
    return min(d / levels**2, math.sqrt(d) / levels)


@pytest.mark.parametrize("shape", ["normal", "one large", "flat"])
@pytest.mark.parametrize(
    ("name", "options", "delta"),
    [
        ("top_k", {"fraction": 0.2}, lambda x: 7 / D),
        ("random_k", {"fraction": 0.2}, lambda x: 7 / D),
        ("sign", {}, lambda x: np.abs(x).sum() ** 2 / (D * (x @ x))),
        ("qsgd", {"levels": 1}, lambda x: 1 / (1 + omega(D, 1))),
        ("qsgd", {"levels": 4}, lambda x: 1 / (1 + omega(D, 4))),
        ("qsgd", {"levels": 15}, lambda x: 1 / (1 + omega(D, 15))),
        ("natural", {}, lambda x: 7 / 8),
    ],
)
def test_a_contraction_loses_at_most_1_minus_delta(name: str, options: dict, delta: Any, shape: str) -> None:
    x = {"normal": vector(), "one large": vector() + 100 * np.eye(D)[3], "flat": np.sign(vector())}[shape]
    with jax.enable_x64(True):
        lost = ((many(name, x, **options) - x) ** 2).sum(1) / (x @ x)
    bound = 1 - delta(x)
    if name == "sign":
        np.testing.assert_allclose(lost, bound, atol=1e-12)
    elif name == "random_k":
        assert abs(lost.mean() - bound) < 5 * lost.std() / math.sqrt(len(lost)) + 1e-12
    else:
        assert lost.mean() <= bound + 5 * lost.std() / math.sqrt(len(lost))
    if name == "top_k":
        assert lost.max() <= bound + 1e-12


def test_sign_loses_less_where_numbers_are_zero() -> None:
    x = vector() * (np.arange(D) % 3 > 0)
    with jax.enable_x64(True):
        lost = ((np.asarray(send("sign", jnp.asarray(x))) - x) ** 2).sum()
    nonzero, one, two = np.count_nonzero(x), np.abs(x).sum(), x @ x
    assert lost == pytest.approx(two - (2 - nonzero / D) * one**2 / D, rel=1e-12)
    assert lost < two - one**2 / D


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("random_k", {"fraction": 0.2, "unbiased": True}),
        ("qsgd", {"levels": 1, "scaled": False}),
        ("qsgd", {"levels": 4, "scaled": False}),
        ("natural", {}),
    ],
)
def test_an_unbiased_message_is_right_on_average(name: str, options: dict) -> None:
    x = vector().astype(np.float32)
    messages = many(name, x, 4000, **options)
    error = messages.std(0) / math.sqrt(len(messages))
    assert (np.abs(messages.mean(0) - x) <= 5 * error + 1e-6).all()
    variance = ((messages - x) ** 2).sum(1).mean() / (x @ x)
    bound = {"random_k": D / 7 - 1, "natural": 1 / 8}.get(name) or omega(D, options["levels"])
    assert variance <= bound * 1.1


def test_scaled_qsgd_is_the_unbiased_one_over_1_plus_omega() -> None:
    x = vector().astype(np.float32)
    np.testing.assert_allclose(
        np.asarray(send("qsgd", x, levels=3)) * (1 + omega(D, 3)), send("qsgd", x, levels=3, scaled=False), rtol=1e-6
    )


def test_qsgd_sends_whole_levels_up_to_s() -> None:
    x = vector().astype(np.float32)
    levels = many("qsgd", x, levels=5, scaled=False) * 5 / np.sqrt(x @ x)
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    assert np.abs(levels).max() <= 5 + 1e-4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_natural_sends_a_neighbouring_power_of_two_of_the_same_sign(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray([3.0, -5.0, 0.3, 1.0, -0.125, 0.0], dtype)
        sent = many("natural", x)
    for column, values in zip(sent.T, ({2, 4}, {-4, -8}, {0.25, 0.5}, {1}, {-0.125}, {0}), strict=True):
        assert set(column) == values


def test_natural_takes_subnormal_numbers_to_zero_or_the_smallest_normal_one_unbiased() -> None:
    tiny = np.finfo(np.float32).tiny
    x = np.array([tiny / 4, -tiny / 2, tiny * 3 / 4], np.float32)
    operator = make("natural")
    sent = jax.jit(jax.vmap(lambda k: operator.apply(jnp.asarray(x), (), k)[0]))(jax.random.split(KEY, 4000))
    up = np.asarray(sent) / tiny
    assert set(np.abs(up).ravel()) == {0, 1}
    assert np.abs(up.mean(0) - [0.25, -0.5, 0.75]).max() < 5 * 0.5 / math.sqrt(4000)


# -- low rank --


def test_low_rank_is_a_projection_and_exact_up_to_its_rank() -> None:
    with jax.enable_x64(True):
        for seed in range(3):
            M = matrix(9, 12, seed)
            message = np.asarray(send("low_rank", jnp.asarray(M), rank=3))
            assert np.linalg.matrix_rank(message) == 3
            assert np.sum((message - M) ** 2) == pytest.approx(np.sum(M**2) - np.sum(message**2), rel=1e-12)
            for r in (1, 2, 3):
                low = matrix(9, r, seed) @ matrix(r, 12, seed + 1)
                np.testing.assert_allclose(send("low_rank", jnp.asarray(low), rank=3), low, atol=1e-12)


def test_low_rank_sends_whole_what_its_factors_would_not_shorten() -> None:
    tree = {"M": matrix(4, 4), "b": vector(5), "c": np.float64(2), "thin": matrix(2, 30), "wide": matrix(5, 4)}
    tree = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)
    message = send("low_rank", tree, rank=2)  # 2 (4 + 4) = 4 x 4, 2 (2 + 30) > 2 x 30, 2 (5 + 4) < 5 x 4
    assert {name for name in tree if not np.array_equal(message[name], tree[name])} == {"wide"}
    assert [q is None for q in make("low_rank", rank=2).init(tree)] == [True, True, True, True, False]
    assert make("low_rank", rank=2).bits(tree) == 32 * (16 + 5 + 1 + 60 + 2 * (5 + 4))


def test_low_rank_converges_to_the_best_approximation_of_a_constant_matrix() -> None:
    M = matrix(10, 15) + 3 * matrix(10, 2, 1) @ matrix(2, 15, 2)
    with jax.enable_x64(True):
        operator = make("low_rank", rank=2)
        tree = [jnp.asarray(M)]
        _, messages = jax.lax.scan(lambda s, k: operator.apply(tree, s, k)[::-1], operator.init(tree), jnp.arange(60))
    lost = np.linalg.norm(np.asarray(messages[0]) - M, axis=(1, 2))
    best = math.sqrt((np.linalg.svd(M, compute_uv=False)[2:] ** 2).sum())
    assert (np.diff(lost) <= 1e-9).all()
    assert lost[0] > best * 1.01
    assert lost[-1] == pytest.approx(best, rel=1e-6)


def test_low_rank_finds_its_directions_again_after_a_zero_matrix() -> None:
    operator = make("low_rank", rank=2)
    M = jnp.zeros((6, 8)).at[3:].set(matrix(3, 8))  # where the first rows are zero, the Q of orth(0) sees nothing
    state = operator.init(M)
    _, after = operator.apply(jnp.zeros((6, 8)), state, KEY)
    np.testing.assert_array_equal(after[0], state[0])
    np.testing.assert_array_equal(operator.apply(M, after, KEY)[0], operator.apply(M, state, KEY)[0])
    low = jnp.zeros((6, 8)).at[5].set(1.0)
    _, after = operator.apply(low, state, KEY)
    np.testing.assert_array_less(0, jnp.linalg.norm(after[0], axis=0))


def test_low_rank_keeps_the_shapes_and_dtypes_of_its_state() -> None:
    operator, tree = make("low_rank"), {"W": jnp.ones((6, 8)), "b": jnp.ones(5)}
    start = operator.init(tree)
    assert jax.eval_shape(operator.apply, tree, start, KEY)[1] == jax.eval_shape(lambda: start)


def test_low_rank_starts_alike_on_all_workers_and_in_both_precisions() -> None:
    (Q,) = make("low_rank").init(jnp.ones((6, 8)))
    (again,) = make("low_rank").init(jnp.zeros((6, 8)))
    np.testing.assert_array_equal(Q, again)
    with jax.enable_x64(True):
        (double,) = make("low_rank").init(jnp.ones((6, 8), jnp.float64))
        assert double.dtype == np.float64
        np.testing.assert_array_equal(Q, double.astype(jnp.float32))


# -- bits --

SIZES = [
    # name, options, bits of [6, 8] and [2] (d = 50), w bits a number
    ("identity", {}, lambda w: 50 * w),
    ("top_k", {"fraction": 0.1}, lambda w: 5 * (w + 6)),
    ("random_k", {"fraction": 0.1}, lambda w: 5 * w),
    ("sign", {}, lambda w: 50 + w),
    ("qsgd", {}, lambda w: w + 50 * 5),
    ("qsgd", {"levels": 1}, lambda w: w + 50 * 2),
    ("qsgd", {"levels": 16}, lambda w: w + 50 * 6),
    ("natural", {}, lambda w: 50 * {32: 9, 64: 12}[w]),
    ("low_rank", {"rank": 2}, lambda w: w * (2 * (6 + 8) + 2)),
    ("low_rank", {"rank": 4}, lambda w: w * 50),
]


@pytest.mark.parametrize(("name", "options", "bits"), SIZES)
@pytest.mark.parametrize("width", [32, 64])
def test_a_message_is_as_long_as_the_table_says(name: str, options: dict, bits: Any, width: int) -> None:
    with jax.enable_x64(width == 64):
        tree = {"W": jnp.ones((6, 8), f"float{width}"), "b": jnp.ones(2, f"float{width}")}
        shapes = jax.eval_shape(lambda: tree)
        size = make(name, **options).bits
        assert size(tree) == size(shapes) == bits(width)
        assert type(size(shapes)) is int


@pytest.mark.parametrize(("d", "index"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10), (1025, 11)])
def test_a_place_among_d_takes_ceil_log2_d_bits(d: int, index: int) -> None:
    assert make("top_k", fraction=1e-9).bits(jnp.ones(d)) == 32 + index


# -- the registry --


def test_the_table_is_complete_and_says_what_each_promises() -> None:
    kinds = {name: entry.traits["kind"] for name, entry in COMPRESSORS.items()}
    contractions = ("top_k", "random_k", "sign", "qsgd", "low_rank")
    assert kinds == {"identity": "exact", "natural": "unbiased", **dict.fromkeys(contractions, "contraction")}
    assert all(entry.summary for entry in COMPRESSORS.values())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("top_k", {"fraction": 1.5}, "algorithm.fraction: must lie in (0, 1], got 1.5"),
        ("random_k", {"fraction": 0}, "algorithm.fraction: must lie in (0, 1], got 0.0"),
        ("top_k", {"fraction": math.nan}, "algorithm.fraction: must be finite, got nan"),
        ("qsgd", {"levels": 0}, "algorithm.levels: must be at least 1, got 0"),
        ("low_rank", {"rank": 0}, "algorithm.rank: must be at least 1, got 0"),
        ("low_rank", {"rank": 1.5}, "algorithm.rank: must be int, got 1.5 (float)"),
        ("sign", {"fraction": 0.5}, "algorithm.fraction: sign has no such option; it has no options"),
        ("top_k", {"fractoin": 0.5}, "algorithm.fractoin: top_k has no such option; did you mean 'fraction'?"),
        ("topk", {}, "compressor: unknown name 'topk'; did you mean 'top_k'?"),
    ],
)
def test_a_bad_option_is_named(name: str, options: dict, message: str) -> None:
    with pytest.raises(InputError) as error:
        compression.make(name, **options)
    assert str(error.value) == message
