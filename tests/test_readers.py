"""The door to a user's file: what is no plain file, too large, damaged or cannot have a name is one line."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dopt import cluster, data, memory, mixing, reading, schedule, topology
from dopt.data import cifar10, libsvm, mnist
from dopt.types import Coordination, InputError


def refused(call: Callable[[], Any]) -> str:
    """The one line in which it is refused."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


READERS: dict[str, Callable[[str], Any]] = {
    "data.file": lambda path: data.load("text", file=path),
    "schedule": schedule.load,
    "cluster.file": lambda path: cluster.read(path, 2),
    "cluster.links": cluster.read_links,
    "topology": topology.read,
    "weights": lambda path: mixing.read(path, 2),
}


@pytest.mark.parametrize("what", READERS)
def test_no_reader_opens_what_is_no_plain_file_or_has_no_name(what: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    for name, said in (
        ("fifo.csv", "is not a regular file"),
        ("zero.csv", "is not a regular file"),
        ("no.csv", "no file"),
        ("nul\0.csv", "a path must not contain NUL"),
        ("half\ud800.csv", "a path must not contain NUL or surrogates"),
        (f"{'long' * 99}.csv", "cannot read"),
        ("", "cannot read"),
    ):
        line = refused(lambda name=name: READERS[what](f"{tmp_path}/{name}"))
        assert line.startswith(f"{what}: ")
        assert said in line or (
            ("\0" in name or "\ud800" in name) and what == "data.file"
        )  # no option holds such a str


def test_a_file_is_measured_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)
    assert "must have at most" in refused(lambda: reading.read("data", tmp_path / "huge"))
    assert "grows while it is read" in refused(lambda: reading.read("data", "/proc/self/status"))
    assert reading.read("data", __file__) == Path(__file__).read_bytes()


@pytest.mark.parametrize(("suffix", "module"), [(".gz", gzip), (".bz2", bz2), (".xz", lzma)])
def test_what_is_packed_comes_back_or_is_refused(suffix: str, module: Any) -> None:
    content = np.random.default_rng(0).bytes(999)
    packed = module.compress(content)
    assert reading.unpacked(packed + module.compress(b"more") + bytes(9), suffix) == content + b"more"
    for damaged in (packed[:-1], packed[1:], packed[:99] + b"?" + packed[100:], packed + b"more"):
        with pytest.raises(ValueError, match=r"."):
            reading.unpacked(damaged, suffix)
    with pytest.raises(ValueError, match="it holds more than 998 bytes"):
        reading.unpacked(packed, suffix, 998)


def test_an_array_comes_back_as_it_was_or_is_refused(tmp_path: Path) -> None:
    for saved in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.eye(3, 2)), np.float32(2), np.zeros((0, 3), int)):
        np.save(tmp_path / "a.npy", saved)
        again = reading.array((tmp_path / "a.npy").read_bytes())
        np.testing.assert_array_equal(again, saved)
        assert again.dtype == saved.dtype
    np.save(tmp_path / "a.npy", np.zeros(3))
    content = (tmp_path / "a.npy").read_bytes()
    huge = content.replace(b"(3,), }", b"(3" + b"0" * 30 + b",), }")
    for damaged in (b"", content[:-1], content + b"0", huge, content.replace(b"'<f8'", b"'|O'"), content[:20]):
        with pytest.raises(ValueError, match=r"."):
            reading.array(damaged)


# -- schedules --


def saved(tmp_path: Path, **changed: Any) -> Path:
    events = schedule.arrivals(cluster.make("exponential", 3, 0), Coordination(), steps=9)
    np.savez(tmp_path / "s.npz", **{**events._asdict(), **changed})
    return tmp_path / "s.npz"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"worker": np.zeros(12)}, "worker must be int32, got float64"),
        ({"time": np.zeros(12, "f4")}, "time must be float64, got float32"),
        ({"time": np.full(12, np.nan)}, "pulled, begin, done, sends and time must be finite and in this order"),
        ({"worker": np.full(12, 3, "i4")}, "worker must lie in 0..2"),
        ({"fate": np.full(12, 4, "i1")}, "fate must lie in 0..3"),
        ({"write_version": np.full(12, 2**31 - 1, "i4")}, "write_version must lie in 0..12"),
        ({"read_version": np.full(12, -1, "i4")}, "no read_version is above its write_version or negative"),
        ({"weight": np.full(12, np.inf)}, "weight must be finite and not negative"),
        ({"workers": 10**9}, "workers must lie in 0..999999"),
        ({"workers": 3.0}, "workers must be int64, got float64"),
        ({"end": np.nan}, "end must be finite"),
    ],
)
def test_a_schedule_of_another_type_or_that_cannot_be_is_refused(changed: dict, said: str, tmp_path: Path) -> None:
    assert len(schedule.load(saved(tmp_path)).time) == 12
    line = refused(lambda: schedule.load(saved(tmp_path, **changed)))
    assert line.startswith("schedule: ")
    assert said in line


def test_a_schedule_is_unpacked_to_a_bound_only(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("worker.npy", "w") as file,
    ):
        for _ in range(2**29 // 2**24 + 1):
            file.write(bytes(2**24))
    assert "worker takes" in refused(lambda: schedule.load(tmp_path / "bomb.npz"))


# -- LIBSVM --


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 1:nan", "line 2 is not a label"),
        ("1 1:inf", "line 2 is not a label"),
        ("nan 1:1", "line 2 is not a label"),
        ("1 1:1_0", "line 2 is not a label"),
        ("1 qid:1 1:1", "line 2 is not a label"),
        ("1 -1:1", "line 2 is not a label"),
        ("1 1:1e999", "line 2: values must be finite, got inf"),
        ("1e999 1:1", "line 2: labels must be finite, got inf"),
        ("1 0:1", "line 2: indices must lie in 1..13, got 0"),
        ("1 99999999999:1", "line 2: indices must lie in 1..13, got 99999999999"),
        ("1 1:1 1:2", "line 2: indices must rise, got 1"),
        ("1 2:1 1:2", "line 2: indices must rise, got 1"),
    ],
)
@pytest.mark.parametrize("held_out", [False, True])
def test_a_sample_that_is_none_is_named(
    line: str, said: str, held_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = "# a comment\n-1 1:.5 13:+2e-1 # and another\r\n\n1\n"
    (tmp_path / "heart_scale").write_text(good if held_out else f"# a comment\n{line}\n")
    (tmp_path / "heart_scale.t").write_text(f"-1 3:1\n{line}\n" if held_out else good)
    monkeypatch.setenv("DOPT_DATA_DIR", str(tmp_path))
    data.load.cache_clear()
    message = refused(lambda: data.load("heart_scale"))
    name = tmp_path / ("heart_scale.t" if held_out else "heart_scale")
    assert message.startswith(f"data: {name} is no LIBSVM text with 13 features ({said}")


def test_few_bytes_of_many_samples_are_refused_where_they_have_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2 * 8 * 13 - 1)
    monkeypatch.setattr(memory, "SMALL", 0)
    (tmp_path / "heart_scale").write_text("1\n-1\n")
    assert "of 2 samples with 13 features" in refused(lambda: libsvm.parse(tmp_path / "heart_scale", 13))


def test_a_folder_of_data_that_is_a_pipe_is_no_reason_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOPT_DATA_DIR", str(tmp_path))
    for name in ("heart_scale", *mnist.SHA256, cifar10.ARCHIVE):
        os.mkfifo(tmp_path / name)
    for name in ("heart_scale", "mnist", "cifar10"):
        assert "is not a regular file" in refused(lambda name=name: data.load(name))
