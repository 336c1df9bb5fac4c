"""What the benchmarks of speed compare is the same, and their README says what was measured."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import dopt
from benchmarks.speed import slopes, store, tables
from benchmarks.speed.by_hand import Setting, jax_program, numpy_program, quadratic_program
from benchmarks.speed.measure import keep, kept, slope, turns
from benchmarks.speed.rows import QUADRATICS, planned, quadratic_runs, quadratic_setting
from dopt import engine
from dopt.config import Runs
from dopt.engine import group_of, run_slab
from dopt.sweeps.cells import tuned


def test_the_readme_is_what_its_json_makes() -> None:
    text = tables.README.read_text()
    assert tables.rewritten(text, tables.sections()) == text, "say python -m benchmarks.speed.tables"


def test_tables_go_between_the_marks_and_nowhere_else() -> None:
    begin, end = tables.MARKS
    assert tables.rewritten(f"a\n{begin}old\n{end}b\n", "new\n") == f"a\n{begin}new\n{end}b\n"
    with pytest.raises(ValueError, match="marks"):
        tables.rewritten(f"a\n{begin}old\n", "new\n")


HEAD = {
    "date": "2026-01-01",
    "platform": "cpu",
    "device": "cpu",
    "cores": 2,
    "threads": 1,
    "versions": {"jax": "0.11.2"},
}
WHO = ("dopt", "dopt_device", "by_hand")
ROW = {
    "name": "a slab",
    "microseconds_per_run_and_step": dict.fromkeys(WHO, 2.0),
    "ratio_to_hand_written_jax": 1.0,
    "ratio_quartiles": [0.9, 1.1],
    "device_ratio": 1.0,
}
PARTS = {
    "quadratic": ROW,
    "host": {
        "microseconds_per_run": {"parse": 1.0},
        "all_but_writing": 90.0,
        "milliseconds_per_slab_written": 5.0,
        "of_what_it_may_cost": 0.9,
        "start_up_seconds": 3.0,
    },
    "planning": {"runs": 100_000, "seconds": 14.0, "memory_bytes": 2**29},
    "store": {
        "runs": 100_000,
        "slabs": 3125,
        "records": 51,
        "first_load_seconds": 3.0,
        "first_load_bytes": 2**29,
        "load_seconds": 1.25,
        "load_bytes": 2**29,
        "commands": {
            "status": {"seconds": 0.5, "bytes": 2**28},
            "results --format csv": {"seconds": 5.0, "bytes": 2**29},
        },
    },
    "whole": {
        "seconds": {"dopt, 1": 20.0, "by hand, 1": 20.0},
        "ratio_by_processes": {"1": 1.0},
        "jobs_to_one_by_hand": 1.0,
    },
    "slopes": {"runs": {"sizes": [32, 64], "slopes": dict.fromkeys(WHO, 1.0)}},
}


def test_the_newest_file_of_a_device_is_shown_part_by_part_and_what_was_not_measured_is_a_dash(tmp_path) -> None:
    loops = {"launches_per_step": 11, "launches_per_record": 22, "known_trip_counts": True}
    head = {name: value for name, value in HEAD.items() if name not in ("cores", "threads")}
    keep(HEAD | PARTS, tmp_path / "cpu.json")
    keep(HEAD | {"date": "2025-01-01"}, tmp_path / "cpu-before.json")
    keep(
        head | {"device": "a GPU", "rows": [{"method": "x", "dopt": loops, "by_hand": loops}]},
        tmp_path / "ahead-x.json",
    )
    text = tables.sections(tmp_path)
    assert "### cpu, 1 of 2 cores: against hand-written JAX (JAX 0.11.2, 2026-01-01)" in text
    assert "### a GPU: compiled ahead of time" in text
    assert "2025" not in text
    for said in (
        "| a slab | 2 | 2 | 2 | – | **1.00** (0.90 to 1.10) | 1.00 | – |",
        "90 µs a run and 5 ms a slab",
        "14 s and 512 MiB",
        "| `dopt.load` | 1.25 | 512 |",
        "| `dopt results --format csv` | 5 | 512 |",
        "| 1 | 20 | 20 | **1.00** |",
        "| runs | 32 to 64 | 1.00 | 1.00 | 1.00 |",
        "(results/cpu.png)",
        "| `x` | 11 / 11 | 22 / 22 |",
    ):
        assert said in text


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.0176, "0.0176"), (34.44, "34.4"), (385128.3, "385128")])
def test_numbers_have_three_digits_that_count_and_no_powers_of_ten(value: float | None, text: str) -> None:
    assert tables.number(value) == text


def test_a_part_that_is_kept_is_read_as_it_was_written(tmp_path) -> None:
    out = tmp_path / "results" / "one.json"
    assert kept(out) == {}
    keep({"sweep": {"seconds": 1.5}}, out)
    assert kept(out) == {"sweep": {"seconds": 1.5}}
    assert [path.name for path in out.parent.iterdir()] == ["one.json"]


def test_a_store_that_nobody_computed_is_read_as_any_other(tmp_path) -> None:
    found = dopt.load(store.make(tmp_path / "store", seeds=2)).checked()
    assert (len(found.runs), found.missing, found.faults, found.notes) == (320, 0, (), ())
    assert len(found.history) == 320 * store.RECORDS
    assert np.isfinite(tuned(found)["to_target"]).all()


def test_turns_alternate_and_the_first_is_not_counted() -> None:
    order: list[str] = []
    times = turns({name: lambda turn, name=name: order.append(f"{name}{turn}") for name in "ab"}, 2)
    assert order == ["a0", "b0", "b0", "a0", "a1", "b1"]
    assert {name: len(t) for name, t in times.items()} == {"a": 2, "b": 2}


def test_the_slope_of_a_power_law_is_its_power() -> None:
    sizes = [1.0, 10.0, 100.0]
    assert slope(sizes, [3 * n**0.7 for n in sizes]) == pytest.approx(0.7)


def test_the_ten_thousand_quadratic_runs_are_one_group() -> None:
    runs = quadratic_runs(seed=[0])
    _, _, _, groups = planned(runs)
    assert groups == 1
    assert len(runs) * len(QUADRATICS["seed"]) == 10_240


def last_loss(runs: Runs, sparse: bool) -> tuple[float, float]:
    """(by dopt, by hand): the loss of the last model of the last of the runs."""
    group = group_of(runs)
    history = run_slab(engine.compile(group, len(runs)), runs).columns.history["loss"]
    given = slopes.hand_given(group, [runs], sparse)[0]
    theirs = jax.jit(jax.vmap(quadratic_program(quadratic_setting(group), 1, sparse)))(*given)
    assert theirs.shape[:2] == history.shape
    return float(history[-1, -1]), float(theirs[-1, -1, 0])


def test_quadratics_by_hand_are_the_same_runs() -> None:
    runs = quadratic_runs(20, 3, topology=["ring", "star"], delay=[0, 2], learning_rate=[0.05], seed=[0])
    ours, theirs = last_loss(runs, sparse=False)
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_gossip_on_a_sparse_ring_by_hand_is_the_same_run() -> None:
    ours, theirs = last_loss(slopes.on_a_ring(66), sparse=True)
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_hand_written_record_weighs_each_worker_alike_however_many_samples_it_has() -> None:
    rng, n, classes = np.random.default_rng(0), 2, 3
    x, y, counts = rng.standard_normal((n, 5, 4)), rng.integers(0, classes, (n, 5)), np.array([5, 2])
    s = Setting(x, y, counts, x[0], y[0], classes, batch=1, steps=1, every=1, slots=1)
    rate, w = np.zeros(1, np.float32), np.eye(n, dtype=np.float32)[None]
    theirs = jax.jit(jax_program("gossip_sgd", s))(0, rate[0], 0, w[0], np.zeros(1, np.int32))
    expected = numpy_program("gossip_sgd", s)(0, rate, np.zeros(1, np.int32), w, np.zeros((1, 1), np.int32))
    np.testing.assert_allclose(theirs[0], expected[0].reshape(-1), rtol=1e-5)
