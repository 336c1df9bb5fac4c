"""The store: what is finished stays, to the byte; what is not is as if it had never begun; and names stay in their folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from small import small_sweep

import dopt
from dopt import InputError, Results
from dopt.cli import main
from dopt.devices import executors
from dopt.paths import slug
from dopt.sweeps import plan, work
from dopt.sweeps.store import TABLES, Store

ROOT = Path(__file__).parents[1]
LIMIT = 120  # seconds until a process counts as hung

# `dopt` with slabs of two runs, which notes every slab that it puts in place
DRIVER = """
import os, sys
from dopt.cli import main
from dopt.sweeps import plan
from dopt.sweeps.store import Store

plan.PREFERRED["cpu"] = 2
write = Store.write_slab

def noted(self, name, *args):
    write(self, name, *args)
    with open(os.environ["WRITTEN"], "a") as log:
        log.write(name + "\\n")

Store.write_slab = noted
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def slabs_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", 2)


class Process:
    """`dopt sweep` in a process of its own."""

    def __init__(self, file: Path, results: Path, log: Path):
        env = {**os.environ, "WRITTEN": str(log)}
        command = [sys.executable, "-c", DRIVER, "sweep", str(file), "--results", str(results), "--wandb", "off"]
        self.results = results
        self.said: tuple[str, ...] = ()
        self.popen = subprocess.Popen(
            command, env=env, cwd=file.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def wait_for(self, slabs: int) -> None:
        """Until so many slabs are in place."""
        end = time.monotonic() + LIMIT
        while len(finished(self.results)) < slabs:
            assert self.popen.poll() is None, self.popen.communicate()
            assert time.monotonic() < end
            time.sleep(0.002)

    def end(self) -> tuple[int, str, str]:
        if not self.said:
            self.said = self.popen.communicate(timeout=LIMIT)
        return self.popen.returncode, *self.said


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., Process]]:
    """Starts processes, and leaves none behind."""
    started: list[Process] = []

    def one(*args: Path) -> Process:
        started.append(Process(*args))
        return started[-1]

    yield one
    for process in started:
        process.popen.kill()
        process.end()


def finished(results: Path) -> list[Path]:
    return sorted(path for path in (results / "slabs").glob("*") if not path.name.startswith("."))


def ids_of(folder: Path) -> dict[str, list[str]]:
    """Slab -> ids of its runs, as the plan has them."""
    plan_text = json.loads((folder / "plans" / "0001.json").read_text())
    return {slab["name"]: slab["id"] for group in plan_text["groups"] for slab in group["slabs"]}


def whole_slabs(folder: Path) -> set[str]:
    store, said = Store(folder), list[str]()
    found = {name for name, ids in ids_of(folder).items() if store.finished(name, ids, said.append)}
    assert not said
    return found


def fingerprint(folder: Path) -> dict[str, tuple[int, int, int]]:
    """File -> (inode, time of the last change, size): the same only if nobody touched it."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted([folder, *folder.rglob("*")])
    }


def same(a: Results, b: Results) -> None:
    """Bit for bit, NaN where NaN is."""
    assert a.missing == b.missing == 0
    for mine, theirs in ((a.runs, b.runs), (a.history, b.history)):
        assert_frame_equal(mine, theirs, check_exact=True)
        for name in mine.select_dtypes("float"):
            assert mine[name].to_numpy().tobytes() == theirs[name].to_numpy().tobytes(), name


@pytest.fixture(scope="module")
def long_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose seven slabs take some tenths of a second each."""
    file = tmp_path_factory.mktemp("long") / "small.yaml"
    file.write_text(yaml.safe_dump(small_sweep(steps=30_000)))
    return file


@pytest.fixture(scope="module")
def uninterrupted(long_sweep: Path, start: Callable[..., Process]) -> Results:
    folder = long_sweep.parent / "uninterrupted"
    code, out, err = start(long_sweep, folder, long_sweep.parent / "log").end()
    assert (code, err) == (0, "")
    assert "small: 14 runs" in out
    return dopt.load(folder)


# -- processes that die, and processes that meet ----------------------------------------------------------------------


def test_a_killed_sweep_goes_on_where_it_was_and_gives_the_same_bits(
    long_sweep: Path, uninterrupted: Results, tmp_path: Path, start: Callable[..., Process]
) -> None:
    folder, log = tmp_path / "results", tmp_path / "log"
    process = start(long_sweep, folder, log)
    process.wait_for(slabs=3)
    process.popen.kill()
    assert process.end()[0] == -signal.SIGKILL
    done = finished(folder)
    assert 3 <= len(done) < 7, "the kill came too late to test anything; make the slabs longer"
    assert all(path.name in whole_slabs(folder) for path in done)
    part = dopt.load(folder)
    assert part.missing == 14 - 2 * len(done) == 14 - len(part.runs)
    before = {path.name: fingerprint(path) for path in done}
    planned = fingerprint(folder)["plans/0001.json"]

    # what a write that was cut off would leave behind counts for nothing, and goes away
    missing = next(name for name in (f"0001-group0-slab{i:03d}" for i in range(7)) if name not in before)
    shutil.copytree(done[0], folder / "slabs" / f".tmp-{missing}-1")
    assert dopt.load(folder).missing == part.missing

    log.write_text("")
    code, out, err = start(long_sweep, folder, log).end()
    assert (code, err) == (0, "")
    assert "small: 14 runs" in out
    assert {path.name: fingerprint(path) for path in done} == before
    assert fingerprint(folder)["plans/0001.json"] == planned
    assert sorted(log.read_text().split()) == sorted({f"0001-group0-slab{i:03d}" for i in range(7)} - set(before))
    assert [path.name for path in sorted((folder / "slabs").iterdir())] == [
        f"0001-group0-slab{i:03d}" for i in range(7)
    ]
    same(dopt.load(folder), uninterrupted)


def test_two_sweeps_into_one_folder_share_the_work(
    long_sweep: Path, uninterrupted: Results, tmp_path: Path, start: Callable[..., Process]
) -> None:
    folder, log = tmp_path / "results", tmp_path / "log"
    both = [start(long_sweep, folder, log) for _ in range(2)]
    for code, out, err in [process.end() for process in both]:
        assert (code, err) == (0, "")
        assert "small: 14 runs" in out
    assert sorted(log.read_text().split()) == [f"0001-group0-slab{i:03d}" for i in range(7)]  # each once
    same(dopt.load(folder), uninterrupted)


# -- one process ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished_sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """A folder that no test changes, and its results."""
    folder = tmp_path_factory.mktemp("finished") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plan.PREFERRED, "cpu", 2)
        return folder, dopt.sweep(small_sweep(), results=folder)


@pytest.fixture
def copy(finished_sweep: tuple[Path, Results], tmp_path: Path, slabs_of_two: None) -> Path:
    """A finished folder to play with."""
    return Path(shutil.copytree(finished_sweep[0], tmp_path / "results"))


def test_finished_slabs_are_skipped_and_the_plan_is_written_once(
    copy: Path, finished_sweep: tuple[Path, Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, planned = fingerprint(copy / "slabs"), fingerprint(copy)["plans/0001.json"]
    monkeypatch.setattr(executors, "place", lambda *a, **k: pytest.fail("compiled again"))
    again = dopt.sweep(small_sweep(), results=copy)
    assert fingerprint(copy / "slabs") == before
    assert fingerprint(copy)["plans/0001.json"] == planned
    same(again, finished_sweep[1])


def test_a_resumed_sweep_reads_the_plan(
    copy: Path, finished_sweep: tuple[Path, Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(copy / "slabs" / "0001-group0-slab002")
    monkeypatch.setitem(plan.PREFERRED, "cpu", 5)  # what would be planned today
    same(dopt.sweep(small_sweep(), results=copy), finished_sweep[1])
    assert Store(copy).manifest("0001-group0-slab002")["width"] == 2


def test_a_resumed_sweep_may_have_other_devices(copy: Path, finished_sweep: tuple[Path, Results]) -> None:
    shutil.rmtree(copy / "slabs" / "0001-group0-slab004")
    again = dopt.sweep(small_sweep(), results=copy, devices=jax.devices()[:4])
    assert again.missing == 0
    assert_frame_equal(again.history, finished_sweep[1].history, rtol=1e-6)


def test_a_manifest_says_what_made_the_slab(finished_sweep: tuple[Path, Results]) -> None:
    store = Store(finished_sweep[0])
    manifest = store.manifest("0001-group0-slab000")
    assert manifest["versions"]["dopt"] == version("dopt")
    assert {"python", "jax", "jaxlib", "numpy"} <= set(manifest["versions"])
    assert manifest["runs"] == ids_of(finished_sweep[0])["0001-group0-slab000"]
    assert manifest["device"]
    assert set(manifest["sha256"]) == set(TABLES)
    assert manifest["seconds"]["run"] > 0


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("runs.parquet", cut_off),
        ("history.parquet", flip_a_bit),
        ("history.parquet", Path.unlink),
        ("manifest.json", empty),
        ("manifest.json", cut_off),
        ("manifest.json", flip_a_bit),
        ("manifest.json", Path.unlink),
    ],
)
def test_a_damaged_file_is_named_set_aside_and_made_again(
    file: str, damage: Callable[[Path], None], copy: Path, finished_sweep: tuple[Path, Results]
) -> None:
    hurt = copy / "slabs" / "0001-group0-slab001" / file
    damage(hurt)
    kept = hurt.read_bytes() if hurt.exists() else None
    before = {path.name: fingerprint(path) for path in finished(copy) if path != hurt.parent}
    assert dopt.load(copy).checked().missing == 2  # it is not served

    said: list[str] = []
    show = work.Show()
    show.say = said.append  # type: ignore[method-assign]
    again = dopt.sweep(small_sweep(), results=copy, show=show)
    (line,) = said
    aside = copy / "set-aside" / "0001-group0-slab001.0"
    assert str(hurt) in line
    assert str(aside) in line
    assert "\n" not in line
    assert ((aside / file).read_bytes() if (aside / file).exists() else None) == kept
    assert {path.name: fingerprint(path) for path in finished(copy) if path != hurt.parent} == before
    same(again, finished_sweep[1])

    flip_a_bit(hurt.with_name("history.parquet"))  # the same slab again: nothing that was set aside is lost
    assert not Store(copy).finished("0001-group0-slab001", ids_of(copy)["0001-group0-slab001"], said.append)
    assert sorted(path.name for path in aside.parent.iterdir()) == ["0001-group0-slab001.0", "0001-group0-slab001.1"]


def test_a_file_with_its_parameters_in_another_order_is_the_same_sweep(copy: Path, tmp_path: Path) -> None:
    file, content = tmp_path / "small.yaml", small_sweep()
    content["parameters"] = dict(reversed(content["parameters"].items()))
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    before = fingerprint(copy / "slabs")
    assert len(dopt.sweep(file, results=copy).runs) == 14
    assert fingerprint(copy / "slabs") == before


def test_another_sweep_in_the_same_folder_is_refused(
    finished_sweep: tuple[Path, Results],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, _ = finished_sweep
    before = fingerprint(folder)
    monkeypatch.setattr(executors, "place", lambda *a, **k: pytest.fail("compiled"))
    file = tmp_path / "other.yaml"
    file.write_text(yaml.safe_dump(small_sweep() | {"name": "other"}))
    assert main(["sweep", str(file), "--results", str(folder), "--wandb", "off"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"dopt: results: {folder} holds the sweep 'small', and this one is 'other'; choose another folder with --results"
    )
    changed = {path for path, mark in fingerprint(folder).items() if before.get(path) != mark}
    assert changed <= {".", "locks"}


def test_a_damaged_plan_is_one_line_and_nothing_is_run(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "place", lambda *a, **k: pytest.fail("compiled"))
    cut_off(copy / "plans" / "0001.json")
    with pytest.raises(InputError, match=r"0001.json is damaged .*--results"):
        dopt.sweep(small_sweep(), results=copy)
    with pytest.raises(InputError, match=r"0001.json is damaged"):
        dopt.load(copy)


def test_set_takes_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [
        work.default_folder("small", changes)
        for changes in (None, {"steps": 10}, {"steps": 11}, {"steps": 10, "seed": 1}, {"topology": "../.."})
    ]
    assert names[0] == Path("results/small")
    assert names[1] == Path("results/small_steps-10")
    assert len(set(names)) == len(names)
    assert all(path.parent == Path("results") and ".." not in path.parts for path in names)
    found = dopt.sweep(small_sweep(seed=0, learning_rate=0.1), set={"steps": 5})
    assert found.folder == Path("results/small_steps-5")
    assert found.history["step"].max() == 5
    assert [path.name for path in Path("results").iterdir()] == ["small_steps-5"]


@given(st.text())
def test_a_slug_stays_in_its_folder(name: str) -> None:
    made = slug(name)
    assert made
    assert "/" not in made
    assert "\\" not in made
    assert "\0" not in made
    assert made not in (".", "..")
    assert not made.startswith((".", "-"))
    assert len(made) <= 120
    assert made.isascii()
    assert slug(made) == made
    folder = Path("/results")
    assert (folder / made).resolve().parent == folder.resolve()


# -- reading it back --------------------------------------------------------------------------------------------------


def test_load_gives_the_tables_of_the_sweep(finished_sweep: tuple[Path, Results]) -> None:
    folder, results = finished_sweep
    loaded = dopt.load(folder)
    same(loaded, results)
    assert (loaded.name, loaded.varied, loaded.merged, loaded.folder) == ("small", ("learning_rate", "seed"), 0, folder)
    assert len(loaded.runs) == 14
    assert loaded.runs["id"].is_unique
    assert loaded.runs["id"].tolist() == json.loads((folder / "plans" / "0001.json").read_text())["order"]
    assert loaded.runs["seed"].tolist() == [*range(7), *range(7)]
    assert set(loaded.history["id"]) == set(loaded.runs["id"])
    assert {"step", "gradients", "time", "bytes_sent", "loss", "consensus_distance"} <= set(loaded.history)
    last = loaded.history.groupby("id", sort=False).last(skipna=False)
    np.testing.assert_array_equal(last["loss"], loaded.runs["final.loss"])


def test_a_full_grid_becomes_an_array_with_an_axis_for_each_parameter(finished_sweep: tuple[Path, Results]) -> None:
    _, results = finished_sweep
    array = results.to_xarray()
    assert dict(array.sizes) == {"learning_rate": 2, "seed": 7, "record": 21}
    assert array["loss"].dims == ("learning_rate", "seed", "record")
    for run in results.runs.itertuples():
        of_one = results.history[results.history["id"] == run.id]
        there = array.sel(learning_rate=run.learning_rate, seed=run.seed)
        for name in ("step", "loss", "time"):
            np.testing.assert_array_equal(there[name], of_one[name])


def test_an_unfinished_folder_gives_what_is_there(copy: Path, finished_sweep: tuple[Path, Results]) -> None:
    shutil.rmtree(copy / "slabs" / "0001-group0-slab000")
    part = dopt.load(copy)
    assert part.missing == 2
    assert_frame_equal(part.runs, finished_sweep[1].runs.iloc[2:].reset_index(drop=True), check_exact=True)
    for slab in finished(copy):
        shutil.rmtree(slab)
    none = dopt.load(copy)
    assert (len(none.runs), len(none.history), none.missing) == (0, 0, 14)
    assert "learning_rate" in none.runs


def test_a_folder_without_a_plan_is_no_sweep(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"no sweep in .*run `dopt sweep FILE` first"):
            dopt.load(folder)


def flat(run: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in run.items() if name not in ("id", "digests")}


def test_the_plan_holds_every_run_in_full(finished_sweep: tuple[Path, Results]) -> None:
    plan_text = json.loads((finished_sweep[0] / "plans" / "0001.json").read_text())
    columns = ("template", "learning_rate", "seed", "id")
    slabs = [slab for group in plan_text["groups"] for slab in group["slabs"]]
    rows = [row for slab in slabs for row in zip(*(slab[name] for name in columns), strict=True)]
    assert len(rows) == 14
    for template, learning_rate, seed, identity in rows:
        fields = {**plan_text["templates"][template], "learning_rate": learning_rate, "seed": seed}
        assert dopt.Run.from_dict(flat(fields)).id == identity
