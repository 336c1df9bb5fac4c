"""Cores and threads: what a process may use, and that one thread gives the same bits on any number of cores."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from dopt import cores
from dopt.cli import main
from dopt.devices import host
from tests.test_memory import group

ALLOWED = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
several = pytest.mark.skipif(len(ALLOWED) < 2, reason="one core, or a system that pins nothing")


def test_a_group_of_version_2_or_1_bounds_the_cores_and_none_does_not(tmp_path: Path) -> None:
    of_process = tmp_path / "self"
    of_process.write_text("0::/slice/job\n5:cpu,cpuacct:/old\n")
    assert cores.quota(tmp_path, of_process) > 1000
    group(tmp_path / "slice" / "job", cpu__max="max 100000\n")
    assert cores.quota(tmp_path, of_process) > 1000
    group(tmp_path / "cpu" / "old", **{"cpu__cfs_quota_us": "-1\n", "cpu__cfs_period_us": "100000\n"})
    assert cores.quota(tmp_path, of_process) > 1000
    group(tmp_path / "cpu", **{"cpu__cfs_quota_us": "350000\n", "cpu__cfs_period_us": "100000\n"})
    assert cores.quota(tmp_path, of_process) == 4
    group(tmp_path / "slice", cpu__max="150000 100000\n")
    assert cores.quota(tmp_path, of_process) == 2
    group(tmp_path, cpu__max="1000 100000\n")
    assert cores.quota(tmp_path, of_process) == 1


def test_cores_are_those_of_the_affinity_and_no_more_than_the_group_lets_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 3, 5, 700}, raising=False)
    monkeypatch.setattr(cores, "quota", lambda *_: 9)
    assert sorted(cores.usable()) == [1, 3, 5, 700]
    monkeypatch.setattr(cores, "quota", lambda *_: 2)
    assert len(cores.usable()) == 2


@several
def test_all_threads_are_pinned() -> None:
    try:
        cores.pin(ALLOWED[:1])
        assert {frozenset(os.sched_getaffinity(int(task.name))) for task in cores.TASKS.iterdir()} == {
            frozenset(ALLOWED[:1])
        }
    finally:
        cores.pin(ALLOWED)


def test_only_a_process_of_the_commands_own_runs_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cores.THREADS, "7")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert (cores.is_own(), cores.expected(1), cores.expected(9)) == (False, 7, 9)
    with cores.own():
        assert (cores.is_own(), cores.expected(1), cores.expected(9)) == (True, 1, 9)
    assert (cores.is_own(), cores.expected(1)) == (False, 7)
    monkeypatch.delenv(cores.THREADS)
    with cores.own():
        pass
    assert cores.THREADS not in os.environ
    seen = []
    monkeypatch.setattr(
        sys.modules[main.__module__], "_code", lambda words: seen.append((words[0], cores.is_own())) or 0
    )
    for words in (["sweep"], ["figures"], ["run"], ["work"]):
        monkeypatch.setattr(sys, "argv", ["dopt", *words])
        main()
        main(words)
    assert seen == [(w, own) for w in ("sweep", "figures") for own in (True, False)] + [
        (w, False) for w in ("run", "run", "work", "work")
    ]


def test_where_there_may_be_an_accelerator_threads_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cores.THREADS, "7")
    for platforms, may in (("cuda", True), ("cuda,cpu", True), ("cpu", False)):
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
        with cores.own():
            assert (cores.may_have_accelerator(), os.environ[cores.THREADS]) == (may, "7" if may else "1")
    monkeypatch.delenv("JAX_PLATFORMS")
    assert isinstance(cores.may_have_accelerator(), bool)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [group])
    assert cores.may_have_accelerator()


def test_threads_are_what_xla_has() -> None:
    assert host.threads() == cores.expected(len(jax.devices()))


SUM = """
import jax, numpy as np
from dopt.devices import host
x = np.random.default_rng(0).standard_normal(10**6).astype(np.float32)
# XLA of JAX 0.12 no longer cuts the sum, but still the product
each = jax.numpy.sum, jax.numpy.linalg.norm, lambda x: x.reshape(-1, 10).T @ x.reshape(-1, 10)
print(host.threads(), [np.asarray(jax.jit(f)(x)).tobytes().hex() for f in each])
"""


@several
def test_threads_change_bits_and_cores_do_not() -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", cores.THREADS)}
    env |= {"PYTHONPATH": str(Path(__file__).parents[1]), "JAX_PLATFORMS": "cpu"}

    def started(cores_: list[int], **own: str) -> subprocess.Popen[str]:
        code = f"import os; os.sched_setaffinity(0, {cores_}){SUM}"
        return subprocess.Popen([sys.executable, "-c", code], env=env | own, stdout=subprocess.PIPE, text=True)

    one, two = ALLOWED[:1], ALLOWED[:2]
    each = [started(one), started(two, NPROC="1"), started(one, NPROC="2"), started(two)]
    pinned, told, both, free = (process.communicate(timeout=100)[0] for process in each)
    assert pinned.startswith("1 ")
    assert pinned == told
    assert free.startswith("2 ")
    assert free == both
    assert free != pinned.replace("1 ", "2 ", 1)
