"""While a slab runs, the next one is packed and the last one is written; a fault of the writer ends the sweep and loses nothing."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dopt
from dopt import engine, mixing
from dopt.devices import memory
from dopt.memory import SMALL
from dopt.sweeps import plan
from dopt.sweeps.pipeline import Pipeline, Todo
from dopt.sweeps.show import Show
from dopt.sweeps.store import Store
from dopt.sweeps.tracking import Tracker
from dopt.types import MachineError

SLABS, RUNS = 3, 6
SWEEP = {
    "name": "small",
    "parameters": {
        **{name: {"value": value} for name, value in {"algorithm": "gossip_sgd", "problem": "quadratic"}.items()},
        **{name: {"value": value} for name, value in {"workers": 2, "steps": 4, "learning_rate": 0.1}.items()},
        "seed": {"values": list(range(RUNS))},
    },
}


@pytest.fixture(autouse=True)
def slabs_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", RUNS // SLABS)


def noted(monkeypatch: pytest.MonkeyPatch, events: list[str], place: Any, name: str, seconds: float = 0.0) -> None:
    """Note when a function begins and ends."""
    real = getattr(place, name)

    def call(*args: Any, **options: Any) -> Any:
        events.append(f"{name} begins")
        time.sleep(seconds)
        found = real(*args, **options)
        events.append(f"{name} ends")
        return found

    monkeypatch.setattr(place, name, call)


def test_a_slab_is_written_while_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    noted(monkeypatch, events, engine, "advanced")
    noted(monkeypatch, events, Store, "write_slab", seconds=0.3)
    results = dopt.sweep(SWEEP, results=tmp_path / "results")
    assert len(results.runs) == RUNS
    written = [i for i, event in enumerate(events) if event == "write_slab ends"]
    ran = [i for i, event in enumerate(events) if event == "advanced ends"]
    assert len(written) == len(ran) == SLABS
    assert all(ran[k + 1] < written[k] for k in range(SLABS - 1))


def test_the_next_slab_is_packed_by_another_thread_before_the_last_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    real = engine.packed
    monkeypatch.setattr(engine, "packed", lambda *a: threads.append(threading.current_thread().name) or real(*a))
    dopt.sweep(SWEEP, results=tmp_path / "results")
    assert [name.startswith("pack") for name in threads] == [False, True, True]  # nobody packs ahead of the first


def test_an_error_of_the_writer_ends_the_sweep_and_the_next_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tried = tmp_path / "results", []
    real = Store.write_slab

    def full(self: Store, name: str, *rest: Any) -> None:
        tried.append(name)
        if len(tried) == 2:
            raise MachineError("results: cannot write (No space left on device)")
        real(self, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_slab", full)
        with pytest.raises(MachineError, match="No space left"):
            dopt.sweep(SWEEP, results=folder)
    assert dopt.load(folder).missing == RUNS - RUNS // SLABS
    assert dopt.sweep(SWEEP, results=folder).missing == 0


def test_a_claim_is_held_until_the_slab_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    real = Store.write_slab

    def asked(self: Store, name: str, *rest: Any) -> None:
        with Store(self.folder).locked(name, wait=False) as free:
            held.append(not free)
        real(self, name, *rest)

    monkeypatch.setattr(Store, "write_slab", asked)
    results = dopt.sweep(SWEEP, results=tmp_path / "results")
    assert held == [True] * SLABS
    for name in (f"0001-group0-slab{i:03d}" for i in range(SLABS)):
        with Store(results.folder).locked(name, wait=False) as free:
            assert free


def cannot_begin(work: Any) -> Future[Any]:
    raise RuntimeError("can't start new thread")


def left(work: Any) -> Future[Any]:
    """As of work that is given up before its thread takes it."""
    future: Future[Any] = Future()
    future.cancel()
    return future


@pytest.mark.parametrize("write", [cannot_begin, left])
def test_a_claim_is_given_back_where_the_writer_never_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    store = Store(tmp_path)
    store.create()
    for name in ("_compiled", "_make_room"):
        monkeypatch.setattr(Pipeline, name, lambda self, of: None)
    for name in ("packed", "advanced"):
        monkeypatch.setattr(engine, name, lambda *a, **options: None)
    work = Pipeline(store, Tracker("off", group="", folder=tmp_path), None, Show(), write, write)
    todo: Any = Todo(None, "slab", ())  # type: ignore[arg-type]
    with suppress(RuntimeError):
        work.do(todo, None)
    with Store(tmp_path).locked("slab", wait=False) as free:
        assert free


def test_a_slab_waits_for_the_one_before_where_the_device_has_no_room_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work: Any = Pipeline(Store(tmp_path), Tracker("off", group="", folder=tmp_path), None, Show(), left, left)
    waited: list[int] = []
    monkeypatch.setattr(work, "finish", lambda: waited.append(work.taken))
    monkeypatch.setattr(memory, "device_memory", lambda device: 100 * SMALL)
    for size in (60, 40, 61, 0, 100):
        work._make_room(SimpleNamespace(memory=size * SMALL, group=SimpleNamespace(devices=(None,))))
    assert waited == [61 * SMALL]


def test_a_spectral_gap_that_was_not_found_is_said_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixing, "spectral_gap", lambda w: math.nan)
    said: list[str] = []
    show = Show()
    show.note = said.append  # type: ignore[method-assign]
    results = dopt.sweep(SWEEP, results=tmp_path / "results", show=show)
    assert results.runs["spectral_gap"].isna().all()
    (line,) = set(said)
    assert line.startswith("spectral_gap: ")
    assert "not found" in line
    assert Store(results.folder).manifest("0001-group0-slab000")["notes"] == [line]
    assert dopt.run(results.run(results.runs["id"][0])).notes == (line,)
