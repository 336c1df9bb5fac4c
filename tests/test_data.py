"""Real data and its split over workers. The tests on a9a, mushrooms and MNIST need a DOPT_DATA_DIR that has them."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import math
import os
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dopt import data
from dopt.data import cifar10, libsvm, mnist
from dopt.data.files import find, unpack
from dopt.types import InputError

OWN = os.environ.get("DOPT_DATA_DIR")
TINY = b"+1 1:0.5 3:1\n-1 2:0.25\n-1 13:2\n"  # in the format of heart_scale: 13 features
TINY_SHA256 = hashlib.sha256(TINY).hexdigest()
CUTS: list[Callable[..., list[np.ndarray]]] = [
    data.iid,
    data.contiguous,
    data.by_label,
    functools.partial(data.dirichlet, alpha=1e4),
]


def packed(content: bytes) -> bytes:
    """A .gz file without the time of day, which would get into the names of tests."""
    return gzip.compress(content, mtime=0)


def needs(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if not OWN or not (Path(OWN) / name).is_file()]
    return pytest.mark.skipif(bool(missing), reason=f"DOPT_DATA_DIR={OWN or '(not set)'} has no {', '.join(missing)}")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No set read under another test's folders."""
    data.load.cache_clear()
    yield
    data.load.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no folder of the user's, and official pages that refuse to answer."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DOPT_CACHE_DIR", str(folder))
    monkeypatch.delenv("DOPT_DATA_DIR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for module in (cifar10, libsvm, mnist):
        monkeypatch.setattr(module, "URL", "http://127.0.0.1:9/")  # the discard port: nobody listens
    return folder


@pytest.fixture
def page(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder behind a local stand-in for the official pages."""
    folder = tmp_path / "page"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for module in (cifar10, libsvm, mnist):
            monkeypatch.setattr(module, "URL", f"http://127.0.0.1:{server.server_port}/")
        yield folder
        server.shutdown()
        thread.join()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def idx(array: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def tiny_mnist(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six images whose label is the value of all their pixels, as all four files."""
    labels = np.arange(6)
    images = np.broadcast_to(labels[:, None, None], (6, 28, 28))
    for name in mnist.SHA256:
        content = idx(images if "images" in name else labels)
        write(folder / name, packed(content))
        monkeypatch.setitem(mnist.SHA256, name, hashlib.sha256(content).hexdigest())


# Partitions


@pytest.mark.parametrize("cut", CUTS)
@settings(deadline=None)  # a hundred draws in vain take a while
@given(sample_count=st.integers(1, 120), n=st.integers(1, 120), seed=st.integers(0, 2**32 - 1))
def test_every_sample_belongs_to_exactly_one_worker(cut: Callable, sample_count: int, n: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 5, sample_count)
    if n > sample_count:
        with pytest.raises(InputError, match=f"^workers: .* {sample_count}; got {n}$"):
            cut(labels, n)
        return
    try:
        parts = cut(labels, n)
    except InputError:  # Dirichlet shares may leave a worker empty where samples are few
        assert isinstance(cut, functools.partial)
        assert sample_count < 20 * n
        return
    assert len(parts) == n
    assert min(map(len, parts)) >= 1
    assert sorted(np.concatenate(parts)) == list(range(sample_count))


@pytest.mark.parametrize("cut", [data.iid, data.contiguous, data.by_label])
@given(n=st.integers(1, 60))
def test_sizes_differ_by_at_most_one(cut: Callable, n: int) -> None:
    sizes = [len(part) for part in cut(np.arange(60) % 7, n)]
    assert max(sizes) - min(sizes) <= 1


@given(sample_count=st.integers(1, 200), n=st.integers(1, 20), seed=st.integers(0, 1000))
def test_pieces_by_label_are_sorted_and_stable(sample_count: int, n: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, sample_count)
    order = np.concatenate(data.by_label(labels, min(n, sample_count)))
    assert list(zip(labels[order], order, strict=True)) == sorted(zip(labels, range(sample_count), strict=True))


def test_contiguous_keeps_the_order() -> None:
    assert [list(part) for part in data.contiguous(np.zeros(5), 2)] == [[0, 1, 2], [3, 4]]


@pytest.mark.parametrize("cut", [data.iid, functools.partial(data.dirichlet, alpha=1.0)])
def test_a_seed_is_a_partition(cut: Callable) -> None:
    labels = np.arange(500) % 10
    first, again, other = cut(labels, 4, seed=1), cut(labels, 4, seed=1), cut(labels, 4, seed=2)
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


def test_small_alpha_concentrates_and_large_alpha_balances_classes() -> None:
    labels = np.arange(10_000) % 10

    def largest_share(alpha: float) -> float:
        parts = data.dirichlet(labels, 5, alpha=alpha)
        counts = np.array([np.bincount(labels[part], minlength=10) for part in parts])  # [workers, classes]
        return float((counts.max(0) / counts.sum(0)).mean())  # 1: each class has one owner; 1/5: it is spread evenly

    assert largest_share(0.01) > 0.9
    assert largest_share(1e4) < 0.22


def test_dirichlet_gives_up_with_advice() -> None:
    with pytest.raises(InputError, match=r"^partition\.alpha: 100 draws .* raise alpha or use fewer workers$"):
        data.dirichlet(np.zeros(50, int), 50, alpha=0.01)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
def test_alpha_must_be_positive_and_finite(alpha: float) -> None:
    with pytest.raises(InputError, match=r"^partition\.alpha: must be positive and finite"):
        data.dirichlet(np.arange(10), 2, alpha=alpha)


@pytest.mark.parametrize("cut", CUTS)
def test_there_is_at_least_one_worker(cut: Callable) -> None:
    with pytest.raises(InputError, match=r"^workers: .*; got 0$"):
        cut(np.arange(3), 0)


def test_partitions_are_registered_with_source_and_checked_options() -> None:
    assert set(data.PARTITIONS) == {"iid", "contiguous", "by_label", "dirichlet"}
    assert all(entry.source and entry.summary for entry in data.PARTITIONS.values())
    assert data.PARTITIONS["dirichlet"].options({"alpha": 1}, "partition") == {"alpha": 1.0, "seed": 0}
    with pytest.raises(InputError, match=r"^partition\.alpha: dirichlet needs it"):
        data.PARTITIONS["dirichlet"].options({}, "partition")


@given(sample_count=st.integers(1, 100), n=st.integers(1, 100), seed=st.integers(0, 1000))
def test_shard_restores_every_sample_by_counts(sample_count: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    train: dict[str, np.ndarray] = {
        "x": rng.normal(size=(sample_count, 3)),
        "y": rng.integers(0, 4, sample_count).astype(np.int32),
    }
    cuts = np.sort(rng.integers(0, sample_count + 1, n - 1))  # of any size, also empty
    parts = np.split(rng.permutation(sample_count), cuts)
    shards, counts = data.shard(train, parts)
    assert counts.dtype == np.int32
    assert counts.tolist() == [len(part) for part in parts]
    for name, leaf in train.items():
        assert shards[name].shape == (n, max(counts), *leaf.shape[1:])
        assert shards[name].dtype == leaf.dtype
        for row, part, count in zip(shards[name], parts, counts, strict=True):
            np.testing.assert_array_equal(row[:count], leaf[part])
            assert not row[count:].any()


# Sets


def assert_set(dataset: data.Dataset, train: int, features: int, test: int | None = None) -> None:
    for part, size in ((dataset.train, train), (dataset.test, test)):
        assert (part is None) == (size is None)
        if part is not None:
            x, y = part["x"], part["y"]
            assert x.shape == (size, features)
            assert x.dtype == np.float64
            assert y.shape == (size,)
            assert y.dtype == np.int32
            assert y.min() >= 0
            assert y.max() < dataset.classes
    assert set(dataset.train["y"]) == set(range(dataset.classes))


def logistic(x: np.ndarray, z: np.ndarray, w: np.ndarray, ridge: float) -> float:
    return float(np.logaddexp(0, -z * (x @ w)).mean() + ridge / 2 * w @ w)


def logistic_optimum(x: np.ndarray, z: np.ndarray, ridge: float) -> float:
    """f* of l2-regularized logistic regression by Newton's method, z in {-1, 1}."""
    w = np.zeros(x.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(z * (x @ w)))
        gradient = ridge * w - x.T @ (z * p) / len(z)
        hessian = (x.T * (p * (1 - p))) @ x / len(z) + ridge * np.eye(len(w))
        w = w - np.linalg.solve(hessian, gradient)
    return logistic(x, z, w, ridge)


def test_importing_data_is_cheap() -> None:
    heavy = "{'sklearn', 'pooch', 'platformdirs', 'requests'}"
    subprocess.run([sys.executable, "-c", f"import sys, dopt.data; assert not {heavy} & set(sys.modules)"], check=True)


def test_digits_holds_out_every_fifth_sample() -> None:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]

    digits = data.load("digits")
    assert_set(digits, train=1438, features=64, test=359)
    assert digits.test is not None
    x, y = load_digits(return_X_y=True)
    np.testing.assert_array_equal(digits.test["x"] * 16, x[4::5])
    np.testing.assert_array_equal(digits.test["y"], y[4::5])
    np.testing.assert_array_equal(digits.train["x"][:5] * 16, x[[0, 1, 2, 3, 5]])
    assert digits.train["x"].max() == 1


def test_a_set_is_read_once_and_cannot_be_changed() -> None:
    digits = data.load("digits")
    assert data.load("digits") is digits
    with pytest.raises(ValueError, match="read-only"):
        digits.train["x"][0] = 1


def test_an_unknown_set_or_option_is_answered_with_help() -> None:
    with pytest.raises(InputError, match=r"^data: unknown name 'mushroom'; did you mean 'mushrooms'\?$"):
        data.load("mushroom")
    with pytest.raises(InputError, match=r"^data\.scale: digits has no such option"):
        data.load("digits", scale=2)


def test_factors_are_dense_rows_of_norm_one_that_few_directions_explain() -> None:
    made = data.load("factors", samples=500, features=60, rank=6, noise=0.0, flipped=0.0)
    assert_set(made, train=450, features=60, test=50)
    x, y = made.train["x"], made.train["y"]
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=0, atol=1e-12)
    assert np.abs(x).min(1).max() > 0  # dense
    assert np.linalg.matrix_rank(x, tol=1e-8) == 6
    assert 0.3 < y.mean() < 0.7
    # without wrong labels a linear rule tells the classes apart: some w has y⟨w, x⟩ > 0 for all samples
    from scipy.optimize import linprog

    signed = (2 * y - 1)[:, None] * np.linalg.svd(x, full_matrices=False)[0][:, :6]
    assert linprog(np.zeros(6), -signed, -np.ones(len(y)), bounds=(None, None)).status == 0
    wrong = data.load("factors", samples=500, features=60, rank=6, noise=0.0, flipped=0.2).train["y"] != y
    assert 0.1 < wrong.mean() < 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 9}, "data.samples: must be at least 10, got 9"),
        ({"rank": 0}, "data.rank: must be at least 1, got 0"),
        ({"noise": -1.0}, "data.noise: must be finite and not negative, got -1.0"),
        ({"flipped": 0.5}, "data.flipped: must lie in [0, 0.5), got 0.5"),
        ({"seed": -1}, "data.seed: must not be negative, got -1"),
    ],
)
def test_factors_that_cannot_be_made_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        data.load("factors", **options)
    assert str(caught.value) == message


# Made sparse samples


@pytest.mark.parametrize(("density", "present"), [(0.02, 1), (0.1, 5), (1.0, 50)])
def test_sparse_samples_have_their_density_norm_1_and_no_negative_feature(density: float, present: int) -> None:
    found = data.load("sparse", samples=1000, features=50, density=density)
    x, y = found.train["x"], found.train["y"]
    assert len(x) == 800
    assert len(found.test["x"]) == 200
    np.testing.assert_array_equal((x != 0).sum(1), present)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-12)
    assert x.min() == 0 or density == 1
    assert (x >= 0).all()
    frequency = (x != 0).mean(0)  # binomial, of standard deviation below this
    assert np.abs(frequency - density).max() <= 5 * np.sqrt(density * (1 - density) / len(x)) + 1e-12
    assert 0.3 < y.mean() < 0.7


def test_two_sparse_samples_overlap_in_proportion_to_their_density() -> None:
    overlap = []
    for density in (0.1, 0.5):
        x = data.load("sparse", samples=1000, features=200, density=density).train["x"]
        overlap.append((np.sum(x.sum(0) ** 2) - len(x)) / (len(x) * (len(x) - 1)))  # mean of x·x', x ≠ x'
    assert overlap[1] / overlap[0] == pytest.approx(5, rel=0.05)
    assert overlap[1] == pytest.approx(2 / np.pi * 0.5, rel=0.05)  # (E|z|)² / E z² of those they share


def test_without_signal_the_classes_of_sparse_samples_are_drawn_by_a_coin() -> None:
    calm, loud = (data.load("sparse", samples=5000, features=20, density=0.5, signal=s).train for s in (0.0, 50.0))

    def explained(train: dict) -> float:
        sign = 2.0 * train["y"] - 1
        x = train["x"] - train["x"].mean(0)
        return 1 - np.var(sign - x @ np.linalg.lstsq(x, sign, rcond=None)[0]) / np.var(sign)

    assert explained(calm) < 0.02
    assert explained(loud) > 0.4


def test_under_a_signal_without_bound_each_sparse_sample_has_the_class_of_its_margin() -> None:
    """The limit is the sign, without a word about what overflows on the way."""
    loud, louder = (data.load("sparse", samples=500, features=20, density=0.5, signal=s).train for s in (1e6, 1e29))
    np.testing.assert_array_equal(loud["y"], louder["y"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, "data.density: must lie in (0, 1] and give a sample one of features=128 at least, got 0.0;"),
        ({"density": 0.003}, "data.density: must lie in (0, 1]"),
        ({"density": 1.1}, "data.density: must lie in (0, 1]"),
        ({"samples": 4}, "data.samples: must be at least 5, got 4"),
        ({"features": 1}, "data.features: must be at least 2, got 1"),
        ({"seed": -1}, "data.seed: must not be negative, got -1"),
        ({"signal": math.inf}, "data.signal: must be finite and not negative, got inf"),
    ],
)
def test_sparse_samples_that_cannot_be_made_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        data.load("sparse", **options)
    assert str(caught.value).startswith(message)


def test_sets_are_registered_with_source_and_summary() -> None:
    assert {"a9a", "cifar10", "digits", "factors", "mnist", "ratings", "shakespeare", "sparse", "text", "w8a"} <= set(
        data.SETS
    )
    assert all(entry.source and entry.summary for entry in data.SETS.values())
    assert {entry.traits["kind"] for entry in data.SETS.values()} == {"classes", "text", "ratings"}
    assert data.SETS["w8a"].source.endswith("/datasets/binary/w8a")


@pytest.mark.parametrize(
    ("name", "rows", "features", "positive", "optimum"),
    [
        pytest.param("a9a", 32561, 123, 7841, 0.333340752068716, marks=needs("a9a")),
        pytest.param("mushrooms", 8124, 112, None, 0.050301979486148, marks=needs("mushrooms")),
    ],
)
def test_logistic_regression_has_its_known_values(
    name: str, rows: int, features: int, positive: int | None, optimum: float
) -> None:
    dataset = data.load(name)
    has_test = dataset.test is not None
    assert_set(dataset._replace(test=None), rows, features)
    assert has_test == (Path(OWN or "") / f"{name}.t").is_file()
    x, y = dataset.train["x"], dataset.train["y"]
    assert positive is None or y.sum() == positive
    assert logistic(x, 2 * y - 1, np.zeros(features), 1e-3) == pytest.approx(math.log(2), abs=1e-15)
    assert logistic_optimum(x, 2 * y - 1, 1e-3) == pytest.approx(optimum, abs=1e-12)


@needs("a9a", "mushrooms", *mnist.SHA256)
def test_official_files_have_their_checksums() -> None:
    folder = Path(OWN or "")
    for name, expected in libsvm.SHA256.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    for name, expected in mnist.SHA256.items():
        assert hashlib.sha256(unpack(folder / name)).hexdigest() == expected


@needs(*mnist.SHA256)
def test_mnist_has_its_shapes() -> None:
    digits = data.load("mnist")
    assert_set(digits, train=60000, features=784, test=10000)
    assert digits.train["x"].min() == 0
    assert digits.train["x"].max() == 1
    assert digits.train["x"].mean() == pytest.approx(0.1307, abs=1e-4)  # known to every MNIST tutorial
    assert digits.train["y"][:5].tolist() == [5, 0, 4, 1, 9]


# Files


def test_a_missing_file_says_in_one_line_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPT_DATA_DIR", "/nowhere")
    with pytest.raises(InputError) as error:
        data.load("a9a")
    line = str(error.value)
    assert line.startswith("data: a9a not found in DOPT_DATA_DIR=/nowhere and could not be fetched (")
    assert line.endswith("); download http://127.0.0.1:9/a9a and set DOPT_DATA_DIR to its folder")
    assert "\n" not in line
    assert list(cache.iterdir()) == []
    monkeypatch.delenv("DOPT_DATA_DIR")
    with pytest.raises(InputError, match=r"^data: a9a not found in DOPT_DATA_DIR \(not set\) and could not be fetched"):
        data.load("a9a")


def test_a_cache_that_cannot_be_made_is_a_reason(cache: Path, page: Path) -> None:
    write(page / "heart_scale", TINY)
    write(cache, b"a file where the folder should be")
    with pytest.raises(InputError, match=r"heart_scale .* could not be fetched \(.*exists.*\); download"):
        data.load("heart_scale")


def test_a_libsvm_file_is_read_dense_with_labels_as_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPT_DATA_DIR", str(tmp_path))
    write(tmp_path / "heart_scale", TINY)
    heart = data.load("heart_scale")
    assert_set(heart, train=3, features=13)
    assert heart.train["y"].tolist() == [1, 0, 0]
    assert heart.train["x"][0].tolist() == [0.5, 0, 1] + 10 * [0]
    assert heart.train["x"][2, 12] == 2


def test_the_file_t_beside_a_set_is_its_test_set(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (cache, tmp_path / "own"):
        write(folder / "heart_scale", TINY)
        write(folder / "heart_scale.t", b"+1 2:1\n+1 3:1\n")
        data.load.cache_clear()
        heart = data.load("heart_scale")
        assert_set(heart, train=3, features=13, test=2)
        assert heart.test is not None
        assert heart.test["y"].tolist() == [1, 1]
        monkeypatch.setenv("DOPT_DATA_DIR", str(tmp_path / "own"))


@pytest.mark.parametrize(
    ("content", "test", "message"),
    [
        (b"<html>log in</html>\n", None, "heart_scale is no LIBSVM text with 13 features"),
        (b"+1 14:1\n-1 1:1\n", None, "heart_scale is no LIBSVM text with 13 features"),
        (b"+1 0:1\n-1 1:1\n", None, "heart_scale is no LIBSVM text with 13 features"),
        (b"1 1:1\n2 1:1\n3 1:1\n", None, "heart_scale must have two labels, has 3"),
        (TINY, b"2 1:1\n", r"heart_scale\.t has labels that .*heart_scale has not"),
    ],
)
def test_a_file_of_another_kind_is_named(
    content: bytes, test: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOPT_DATA_DIR", str(tmp_path))
    write(tmp_path / "heart_scale", content)
    if test is not None:
        write(tmp_path / "heart_scale.t", test)
    with pytest.raises(InputError, match=f"^data: .*{message}"):
        data.load("heart_scale")


def test_fetched_once_then_read_from_the_cache(cache: Path, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(page / "a9a", TINY)
    monkeypatch.setitem(libsvm.SHA256, "a9a", TINY_SHA256)
    assert_set(data.load("a9a"), train=3, features=123)
    (page / "a9a").unlink()
    data.load.cache_clear()
    assert_set(data.load("a9a"), train=3, features=123)
    assert [path.name for path in cache.iterdir()] == ["a9a"]  # no leftovers, and no record where a checksum is known


def test_own_files_come_before_the_cache_and_are_not_checked(
    cache: Path, tmp_path: Path, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOPT_DATA_DIR", str(tmp_path / "own"))
    write(cache / "a9a", b"-1 1:1\n")
    write(tmp_path / "own" / "a9a", TINY)
    assert_set(data.load("a9a"), train=3, features=123)


def test_a_wrong_checksum_in_the_cache_is_refused(cache: Path) -> None:
    path = write(cache / "a9a", TINY)
    with pytest.raises(InputError, match=f"^data: {path} has sha256 {TINY_SHA256}, expected f5d5ff.*; delete"):
        data.load("a9a")
    assert path.is_file()  # ours to refuse, the user's to delete


def test_a_wrong_checksum_of_a_download_is_refused_and_nothing_kept(cache: Path, page: Path) -> None:
    write(page / "a9a", TINY)
    with pytest.raises(InputError, match=rf"a9a .* could not be fetched \(.*sha256 {TINY_SHA256}, expected f5d5ff.*\)"):
        data.load("a9a")
    assert list(cache.iterdir()) == []


def test_the_first_download_is_recorded_and_later_ones_must_match(cache: Path, page: Path) -> None:
    write(page / "heart_scale", TINY)
    data.load("heart_scale")
    assert (cache / "heart_scale.sha256").read_text() == f"{TINY_SHA256}\n"
    write(cache / "heart_scale", TINY + TINY)
    data.load.cache_clear()
    with pytest.raises(InputError, match=f"heart_scale has sha256 .*, expected {TINY_SHA256}; delete"):
        data.load("heart_scale")
    (cache / "heart_scale").unlink()
    data.load("heart_scale")  # fetched again, the same as at first
    (cache / "heart_scale").unlink()
    write(page / "heart_scale", TINY + TINY)
    data.load.cache_clear()
    with pytest.raises(InputError, match=f"could not be fetched .*expected {TINY_SHA256}"):
        data.load("heart_scale")


def test_find_reads_the_default_cache_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.delenv("DOPT_CACHE_DIR", raising=False)
    monkeypatch.delenv("DOPT_DATA_DIR", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    path = write(tmp_path / "dopt" / "tiny", TINY)
    assert find("tiny", "http://127.0.0.1:9/tiny", TINY_SHA256) == path


def test_mnist_is_fetched_and_checked_by_its_unpacked_bytes(
    page: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_mnist(page, monkeypatch)
    digits = data.load("mnist")
    assert_set(digits._replace(classes=6), train=6, features=784, test=6)
    np.testing.assert_array_equal(digits.train["x"] * 255, np.repeat(np.arange(6.0)[:, None], 784, axis=1))
    assert digits.classes == 10
    name = "train-labels-idx1-ubyte.gz"
    write(cache / name, gzip.compress(unpack(cache / name), 0))  # packed otherwise: still good
    data.load.cache_clear()
    data.load("mnist")
    write(cache / name, packed(idx(np.arange(6)[::-1])))
    data.load.cache_clear()
    with pytest.raises(InputError, match=f"^data: .*{name} has sha256"):
        data.load("mnist")


IMAGES = np.zeros((6, 28, 28))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte.gz", packed(idx(IMAGES)[:-1]), "is truncated or too long"),
        ("train-images-idx3-ubyte.gz", packed(idx(IMAGES)[:9]), "is no idx file of bytes with 3 dimensions"),
        ("train-images-idx3-ubyte.gz", packed(idx(IMAGES))[:-9], "is truncated or damaged"),
        ("train-images-idx3-ubyte.gz", idx(IMAGES), "is truncated or damaged"),
        ("train-images-idx3-ubyte.gz", packed(idx(np.arange(6))), "is no idx file of bytes with 3 dimensions"),
        ("train-images-idx3-ubyte.gz", packed(idx(IMAGES[:5])), "must hold 6 images of 28 x 28"),
        ("t10k-labels-idx1-ubyte.gz", packed(b"\0\0\x0d\1" + bytes(10)), "is no idx file of bytes with 1"),
        ("t10k-labels-idx1-ubyte.gz", packed(idx(np.full(6, 10))), "must hold digits 0..9, holds 10"),
    ],
)
def test_a_damaged_idx_file_is_named(
    name: str, content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOPT_DATA_DIR", str(tmp_path))
    tiny_mnist(tmp_path, monkeypatch)
    write(tmp_path / name, content)
    with pytest.raises(InputError, match=f"^data: .*{name} {message}"):
        data.load("mnist")


# CIFAR-10


def tiny_cifar() -> dict[str, bytes]:
    """Two images a file: of class k, with red k, green k + 10 and blue k + 20 but for the first pixel of each plane."""

    def record(k: int) -> bytes:
        planes = [bytes([200 + plane]) + bytes([k + 10 * plane]) * 1023 for plane in range(3)]
        return bytes([k]) + b"".join(planes)

    names = [*cifar10.TRAIN, *cifar10.TEST]
    return {name: record(i) + record(9 - i) for i, name in enumerate(names)}


def archived(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{cifar10.FOLDER}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed(buffer.getvalue())


def assert_tiny_cifar() -> None:
    found = data.load("cifar10")
    assert_set(found._replace(test=None), train=10, features=3072)
    assert found.test is not None
    assert found.test["y"].tolist() == [5, 4]
    assert found.train["y"].tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    for x, y in zip(found.train["x"] * 255, found.train["y"], strict=True):
        planes = x.reshape(3, 32, 32)
        np.testing.assert_allclose(planes[:, 0, 0], [200, 201, 202])
        np.testing.assert_allclose(planes[:, 1:], y + 10 * np.arange(3)[:, None, None] * np.ones((3, 31, 32)))


def test_cifar10_is_read_from_its_folder_or_its_archive(
    cache: Path, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = archived(tiny_cifar())
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(content).hexdigest())
    write(page / cifar10.ARCHIVE, content)
    assert_tiny_cifar()  # fetched
    (page / cifar10.ARCHIVE).unlink()
    data.load.cache_clear()
    assert_tiny_cifar()  # from the cache
    for name, part in tiny_cifar().items():
        write(tmp_path / "own" / cifar10.FOLDER / name, part)
    write(tmp_path / "archive" / cifar10.ARCHIVE, content)
    for folder in ("own", "archive"):
        monkeypatch.setenv("DOPT_DATA_DIR", str(tmp_path / folder))
        data.load.cache_clear()
        assert_tiny_cifar()


def test_a_cifar10_archive_of_another_content_is_refused(cache: Path, page: Path) -> None:
    write(page / cifar10.ARCHIVE, archived(tiny_cifar()))
    with pytest.raises(InputError, match=rf"could not be fetched \(.*md5 .*, expected {cifar10.MD5}"):
        data.load("cifar10")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            archived({**tiny_cifar(), "test_batch.bin": b"\0" * 3072}),
            "test_batch.bin in .* must be records of 3073 bytes",
        ),
        (
            archived({**tiny_cifar(), "test_batch.bin": b""}),
            "test_batch.bin in .* must be records of 3073 bytes, got 0",
        ),
        (archived({**tiny_cifar(), "test_batch.bin": b"\x0a" * 3073}), ".* must hold classes 0..9, got 10"),
        (archived({"data_batch_1.bin": bytes(3073)}), ".* has no file cifar-10-batches-bin/data_batch_2.bin"),
        (archived(tiny_cifar())[:-40], ".* is truncated or damaged"),
        (b"<html>log in</html>", ".* is truncated or damaged"),
    ],
)
def test_a_damaged_cifar10_archive_is_named(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOPT_DATA_DIR", str(tmp_path))
    write(tmp_path / cifar10.ARCHIVE, content)
    with pytest.raises(InputError, match=f"^data: {message}") as caught:
        data.load("cifar10")
    assert "\n" not in str(caught.value)


def test_a_cifar10_folder_that_lacks_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPT_DATA_DIR", str(tmp_path))
    write(tmp_path / cifar10.FOLDER / "data_batch_1.bin", bytes(3073))
    with pytest.raises(InputError, match=r"^data: no file .*data_batch_2\.bin'; unpack .* again$"):
        data.load("cifar10")
