"""Binary classification sets of the LIBSVM collection, by their file name there: a9a, w8a, mushrooms, phishing, ...

Only sets whose official file is plain text. Features become dense float64; the two labels, sorted, become the classes 0
and 1. If `<name>.t` lies beside the file it is the test set; it is neither fetched nor checked. a9a and mushrooms are
checked against their known sha256. The collection publishes none for the others: the sha256 of the first download is
recorded in `<name>.sha256` beside the cached file, and later reads are checked against that (see `files`).

Chang and Lin, LIBSVM: a library for support vector machines, ACM TIST 2(3), 2011.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dopt import memory, reading
from dopt.data.base import SETS, Dataset, samples
from dopt.data.files import find, place, read_bytes
from dopt.types import InputError

URL = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/"

FEATURES = (
    {f"a{i}a": 123 for i in range(1, 10)}
    | {f"w{i}a": 300 for i in range(1, 9)}
    | {"mushrooms": 112, "phishing": 68, "splice_scale": 60, "ionosphere_scale": 34}
    | {"german.numer_scale": 24, "australian_scale": 14, "heart_scale": 13}
)
SHA256 = {
    "a9a": "f5d5ffd8d865ff41328e7ee043e4b020816914ff6843ff15b98905ddbedce906",
    "mushrooms": "f39a4eb628dc61a7d43760815b061c9e497aa728ce1ad8bde57a09ef6043b538",
}


NUMBER = rb"[+-]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]{1,4})?"
SAMPLE = re.compile(NUMBER + rb"(?:[ \t]++[0-9]{1,15}:" + NUMBER + rb")*+")


def parse(path: Path, features: int) -> tuple[np.ndarray, np.ndarray]:
    """x: [N, features] float64 and the labels as written: [N] float64.

    A line is a label and pairs index:value, the indices rising from 1 on, as the collection counts; the last features
    may be zero in all samples. What follows a # is a comment.
    """
    said = f"data: {path} is no LIBSVM text with {features} features"
    numbered = _lines(read_bytes(path), said)
    lines, number = list(numbered.values()), list(numbered)
    _check_room(path, len(lines), features)
    pairs = np.array([line.count(b":") for line in lines], np.int64)
    flat = np.fromstring(b" ".join(lines).replace(b":", b" "), sep=" ")
    first = np.cumsum(1 + 2 * pairs) - 1 - 2 * pairs  # where each sample's label stands
    labels, sample = flat[first], np.repeat(np.arange(len(lines)), pairs)
    index, value = np.delete(flat, first).reshape(-1, 2).T
    rises = (np.diff(index, prepend=0) > 0) | (np.diff(sample, prepend=-1) > 0)
    for good, of, rule, got in (
        (np.isfinite(labels), np.arange(len(lines)), "labels must be finite", labels),
        (np.isfinite(value), sample, "values must be finite", value),
        ((index >= 1) & (index <= features), sample, f"indices must lie in 1..{features}", index),
        (rises, sample, "indices must rise", index),
    ):
        if not good.all():
            place = np.argmin(good)
            raise InputError(f"{said} (line {number[of[place]]}: {rule}, got {got[place]:.15g}); replace it")
    x = np.zeros((len(lines), features))
    x[sample, index.astype(np.int64) - 1] = value
    return x, labels


def _lines(content: bytes, said: str) -> dict[int, bytes]:
    """Number of a line -> the sample in it, for all lines that hold one."""
    stripped = (line.partition(b"#")[0].strip() for line in content.split(b"\n"))
    lines = {number: line for number, line in enumerate(stripped, 1) if line}
    for number, line in lines.items():
        if not SAMPLE.fullmatch(line):
            raise InputError(f"{said} (line {number} is not a label and pairs index:value of numbers); replace it")
    return lines


def _check_room(path: Path, count: int, features: int) -> None:
    """Few bytes may be many samples, each of which takes its features' room."""
    what = f"{path} of {count} samples with {features} features"
    memory.refuse_beyond([memory.Need("data", what, 8.0 * count * features, "use a smaller set")])


def read(path: Path, features: int) -> Dataset:
    """The set in the file `path`, with `<path>.t` as its test set if that exists."""
    x, labels = parse(path, features)
    known = np.unique(labels)
    if len(known) != 2:
        raise InputError(f"data: {path} must have two labels, has {len(known)}; use a set for binary classification")
    held_out = path.with_name(f"{path.name}.t")
    test = None
    if reading.exists(held_out):
        x_test, labels_test = parse(held_out, features)
        if not len(labels_test):
            raise InputError(f"data: {held_out} must have a sample, has none; fill or remove it")
        if not np.isin(labels_test, known).all():
            raise InputError(f"data: {held_out} has labels that {path} has not; replace it")
        test = samples(x_test, np.searchsorted(known, labels_test))
    return Dataset(samples(x, np.searchsorted(known, labels)), test, 2)


def files(name: str) -> Callable[[], tuple[Path, ...]]:
    """What finds the set's file, and that of its test set if there is one."""

    def found() -> tuple[Path, ...]:
        path = place(name)
        held_out = path.with_name(f"{path.name}.t")
        return (path, held_out) if held_out.is_file() else (path,)

    return found


def _reader(name: str, features: int) -> Callable[[], Dataset]:
    def load() -> Dataset:
        return read(find(name, URL + name, SHA256.get(name)), features)

    load.__doc__ = f"LIBSVM's {name}: binary, {features} features."
    return load


for _name, _features in FEATURES.items():
    SETS.register(name=_name, source=URL + _name, kind="classes", files=files(_name))(_reader(_name, _features))
