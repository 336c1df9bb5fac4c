"""Shards share a sweep without a common folder, and what they made becomes one folder, each slab checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from small import small_sweep

import dopt
from dopt import InputError
from dopt.cli import main
from dopt.devices import executors
from dopt.sweeps import plan, spec
from dopt.sweeps.jobs import Team
from dopt.sweeps.merge import merge
from dopt.sweeps.shard import Shard
from dopt.sweeps.store import TABLES, Store
from dopt.types import MachineError

SHARDS, SLABS, RUNS = 3, 7, 14


@pytest.fixture(autouse=True)
def _slabs_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plan.PREFERRED, "cpu", 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep in a folder `whole`, and in shards `1`, `2` and `3`; no test changes them."""
    folder = tmp_path_factory.mktemp("made")
    content = small_sweep() | {"metric": {"name": "loss", "goal": "minimize"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plan.PREFERRED, "cpu", 2)
        dopt.sweep(content, results=folder / "whole")
        for i in range(1, SHARDS + 1):
            dopt.sweep(content, results=folder / str(i), shard=f"{i}/{SHARDS}")
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The same, to play with."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def tables(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def slabs(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "slabs").iterdir())


def shards(folder: Path) -> list[Path]:
    return [folder / str(i) for i in range(1, SHARDS + 1)]


def refused(capsys: pytest.CaptureFixture, arguments: list[str], code: int = 2) -> str:
    capsys.readouterr()
    assert main(arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dopt: ")
    return str(line)


# -- shards -----------------------------------------------------------------------------------------------------------


def test_each_shard_does_every_nth_slab_and_only_those(made: Path) -> None:
    names = slabs(made / "whole")
    assert len(names) == SLABS
    assert [slabs(folder) for folder in shards(made)] == [names[i::SHARDS] for i in range(SHARDS)]
    assert dopt.load(made / "2").missing == RUNS - 2 * len(names[1::SHARDS])


def test_a_shard_stays_what_it_is_when_it_starts_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = small_sweep()
    names = slabs(copy / "2")
    shutil.rmtree(copy / "2" / "slabs" / names[1])
    assert dopt.sweep(content, results=copy / "2", shard="2/3").missing == RUNS - 2 * len(names)
    assert slabs(copy / "2") == names
    monkeypatch.setattr(executors, "place", lambda *a, **k: pytest.fail("nothing is missing"))
    dopt.sweep(content, results=copy / "2", shard="2/3")
    assert slabs(copy / "2") == names


def test_slabs_are_counted_in_each_plan_and_whatever_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "2"
    dopt.sweep(small_sweep(seed=[0, 1, 2]), results=folder, shard="2/2")  # three slabs
    dopt.sweep(small_sweep(), results=folder, shard="2/2")  # and four more
    dopt.sweep(small_sweep(seed=[1, 2, 3, 4, 5, 6]), results=folder, shard="2/2")
    assert slabs(folder) == ["0001-group0-slab001", "0002-group0-slab001", "0002-group0-slab003"]


def test_helpers_do_their_shard_alone(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Team, "may_take", lambda self, slab: False)  # so that helpers do all of it
    shutil.copytree(made / "2" / "plans", tmp_path / "2" / "plans")
    dopt.sweep(small_sweep(), results=tmp_path / "2", shard="2/3", jobs=2)
    assert tables(tmp_path / "2") == tables(made / "2")


def test_a_sharded_sweep_ends_well_and_says_what_is_left_to_others(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(small_sweep()))
    arguments = ["sweep", str(file), "--wandb", "off", "--jobs", "1", "--results"]
    assert main([*arguments, str(tmp_path / "1"), "--shard", "1/3"]) == 0
    out, err = capsys.readouterr()
    assert "small: 6 runs" in out
    assert (
        err == "shard 1/3: 4 of 7 slabs (8 runs) are left to the other shards; `dopt merge` puts all into one folder\n"
    )
    assert main([*arguments, str(tmp_path / "1"), "--shard", "1/3"]) == 0
    assert "all runs of shard 1/3 of small are finished already; nothing to run" in capsys.readouterr().out
    assert main([*arguments, str(tmp_path / "9"), "--shard", "9/9"]) == 0  # of seven slabs none is its own
    assert "shard 9/9: 7 of 7 slabs (14 runs) are left to the other shards" in capsys.readouterr().err
    assert dopt.load(tmp_path / "9").missing == RUNS


@pytest.mark.parametrize(
    "text", ["", "1", "0/3", "4/3", "1/0", "0/0", "-1/3", "1/-3", "1/3/3", "a/b", "1.0/3", " 1/3", "１/３", "1/3\n"]
)
def test_what_is_no_shard_is_one_line(text: str, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    line = refused(capsys, ["sweep", "none.yaml", f"--shard={text}"])
    assert line.startswith("dopt: shard: must be i/N with i from 1 to N, got ")
    with pytest.raises(InputError, match="shard: must be i/N"):
        dopt.sweep(small_sweep(), results=tmp_path / "results", shard=text)
    assert not (tmp_path / "results").exists()


def test_a_shard_does_not_extend_a_grid(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="extend: a shard cannot tell which rate is best"):
        dopt.sweep(small_sweep(), results=tmp_path / "results", shard="1/2", extend="learning_rate")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("of", range(1, 6))
def test_each_slab_belongs_to_one_shard(of: int) -> None:
    shares = [Shard.read(f"{i}/{of}") for i in range(1, of + 1)]
    assert [str(share) for share in shares] == [f"{i}/{of}" for i in range(1, of + 1)]
    assert [sum(share.has(place) for share in shares) for place in range(20)] == [1] * 20


# -- merge ------------------------------------------------------------------------------------------------------------


def test_shards_become_the_sweep_that_was_made_at_once_to_the_bit(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    before = [everything(folder) for folder in shards(made)]
    assert main(["merge", str(tmp_path / "all"), *map(str, shards(made))]) == 0
    out, err = capsys.readouterr()
    lines = [f"  {count} slabs from {folder}" for count, folder in zip((3, 2, 2), shards(made), strict=True)]
    assert out.splitlines() == [f"small: 7 slabs in {tmp_path / 'all'}", *lines]
    assert err == ""
    assert tables(tmp_path / "all") == tables(made / "whole")
    assert [everything(folder) for folder in shards(made)] == before
    merged, whole = dopt.load(tmp_path / "all"), dopt.load(made / "whole")
    assert merged.runs.equals(whole.runs)
    assert merged.history.equals(whole.history)
    assert (merged.missing, merged.metric, merged.varied) == (0, whole.metric, whole.varied)
    assert not list((tmp_path / "all").rglob(".tmp-*"))


def test_what_is_missing_is_named_and_may_come_later(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "all"
    assert main(["merge", str(out), str(made / "1")]) == 0
    missing = sorted(slabs(made / "2") + slabs(made / "3"))
    assert capsys.readouterr().out.endswith(f"missing: 4 slabs (8 runs): {', '.join(missing[:3])} and 1 more\n")
    assert dopt.load(out).missing == 8
    before = everything(out)
    done = dopt.merge(out, made / "2", made / "3", made / "1", out)
    assert (done.there, done.twice, done.missing, done.faults, done.differing) == (3, 3, [], [], [])
    assert {name: mark for name, mark in everything(out).items() if name in before} == before
    assert tables(out) == tables(made / "whole")


def test_a_sweep_does_what_a_merged_folder_lacks(made: Path, tmp_path: Path) -> None:
    dopt.merge(tmp_path / "all", made / "1", made / "3")
    before = everything(tmp_path / "all" / "slabs")
    assert dopt.sweep(small_sweep(), results=tmp_path / "all").missing == 0
    assert {name: mark for name, mark in everything(tmp_path / "all" / "slabs").items() if name in before} == before
    assert tables(tmp_path / "all") == tables(made / "whole")


def test_the_first_of_two_slabs_that_differ_is_kept_and_both_are_named(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    name, other = slabs(copy / "1")[:2]
    store, ids = Store(copy / "whole"), dict(_index(copy / "whole"))[name]
    runs, history = store.read_slab(name, ids)
    shutil.rmtree(store.slab(name))
    store.write_slab(name, runs, history.slice(0, len(history) - 1), {"slab": name, "runs": ids})
    out = tmp_path / "all"
    line = refused(capsys, ["merge", str(out), str(copy / "1"), str(copy / "whole")], 1)
    assert line == (
        f"dopt: merge: {name}: history.parquet of {copy / 'whole'} differs from that of {copy / '1'}, which is kept"
    )
    assert (out / "slabs" / name / TABLES[1]).read_bytes() == (copy / "1" / "slabs" / name / TABLES[1]).read_bytes()
    assert dopt.load(out).missing == 0
    assert other in slabs(out)


def test_a_damaged_slab_is_named_and_left_out_and_a_whole_one_is_taken(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    name = slabs(copy / "2")[0]
    hurt = copy / "2" / "slabs" / name / "history.parquet"
    content = bytearray(hurt.read_bytes())
    content[len(content) // 2] ^= 1
    hurt.write_bytes(content)
    line = refused(capsys, ["merge", str(tmp_path / "all"), *map(str, shards(copy))], 1)
    assert line == f"dopt: merge: damaged slab: {hurt} is truncated or altered; left out"
    assert name not in slabs(tmp_path / "all")
    assert dopt.merge(tmp_path / "all", copy / "whole").missing == []
    assert tables(tmp_path / "all") == tables(copy / "whole")


def test_a_damaged_slab_of_the_target_is_set_aside_and_comes_anew(copy: Path, made: Path) -> None:
    name = slabs(copy / "1")[0]
    (copy / "1" / "slabs" / name / "runs.parquet").unlink()
    done = dopt.merge(copy / "1", copy / "whole")
    assert [f"moved to {copy / '1' / 'set-aside' / name}" in line for line in done.faults] == [True]
    assert tables(copy / "1" / "slabs") == tables(made / "whole" / "slabs")


def test_a_folder_that_has_grown_takes_and_gives(made: Path, tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    content = small_sweep(seed=[0, 1, 2])
    dopt.sweep(content, results=small)
    shutil.copytree(small, large)
    dopt.sweep(small_sweep(), results=large)
    shutil.rmtree(large / "slabs" / slabs(small)[0])
    kept = shutil.copytree(small, tmp_path / "kept")
    dopt.merge(small, large)
    assert dopt.load(small).missing == 0
    assert len(dopt.load(small).runs) == RUNS
    dopt.merge(large, kept)
    assert tables(large) == tables(small)


def test_what_w_and_b_has_online_is_not_logged_again(copy: Path, tmp_path: Path) -> None:
    name = slabs(copy / "1")[0]
    lines = [json.dumps({"id": str(i), "mode": mode}) for i, mode in enumerate(("online", "offline", "online"))]
    Store(copy / "1").marks_path(name).write_text("\n".join([*lines, '{"id": "cut o']))
    dopt.merge(tmp_path / "all", *shards(copy))
    assert Store(tmp_path / "all").marks_path(name).read_text().splitlines() == [lines[0], lines[2]]


# -- what is refused --------------------------------------------------------------------------------------------------


def _index(folder: Path) -> list[tuple[str, list[str]]]:
    store = Store(folder)
    return [slab for path in store.plan_paths() for slab in plan.index(store.plan(path), path)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "large"}, "holds the sweep 'large', and "),
        ({"steps": 21}, "14 of its 14 runs are different (they differ in steps)"),
        ({"seed": [0, 1, 2, 3, 4, 5, 9]}, "2 of its 14 runs are different (they differ in seed)"),
        ({}, "it has the same 14 runs in 5 slabs, not 7"),
    ],
)
def test_a_folder_of_another_sweep_is_refused_in_one_line(
    changes: dict[str, Any],
    said: str,
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not changes:
        monkeypatch.setitem(plan.PREFERRED, "cpu", 3)
    name = changes.pop("name", "small")
    dopt.sweep(small_sweep(**changes) | {"name": name}, results=tmp_path / "other", shard="2/3")
    before = everything(tmp_path)
    for out, folders in (("all", (made / "1", tmp_path / "other")), ("other", (made / "1",))):
        line = refused(capsys, ["merge", str(tmp_path / out), *map(str, folders)])
        assert line.startswith("dopt: merge: ")
        assert said in line or out == "other"
        assert str(tmp_path / "other") in line
        assert str(made / "1") in line
    assert everything(tmp_path) == before
    assert not (tmp_path / "all").exists()


def test_runs_of_another_file_are_named_by_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "graph.edgelist"
    for folder, graph in (("1", "0 1\n1 2\n2 3\n3 0\n"), ("2", "0 1\n1 2\n2 3\n3 0\n0 2\n")):
        file.write_text(graph)
        fixed = {"algorithm": "gossip_sgd", "workers": 4, "problem": "quadratic", "steps": 2, "learning_rate": 0.1}
        fixed |= {"topology": str(file), "seed": 0}
        dopt.sweep({"name": "s", "parameters": spec.grid(fixed, {})}, results=tmp_path / folder)
    with pytest.raises(InputError, match=r"1 of its 1 runs are different \(they differ in .*graph"):
        merge(tmp_path / "all", tmp_path / "1", tmp_path / "2")


def test_a_folder_without_a_sweep_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    line = refused(capsys, ["merge", str(tmp_path / "all"), str(made / "1"), str(tmp_path / "nowhere")])
    assert line == f"dopt: merge: no sweep in {str(tmp_path / 'nowhere')!r} (no plan)"
    assert not (tmp_path / "all").exists()
    shutil.copytree(made / "2" / "slabs", tmp_path / "all" / "slabs")
    line = refused(capsys, ["merge", str(tmp_path / "all"), str(made / "1")])
    assert line.endswith("has slabs but no plan, so it is unknown which sweep they belong to")
    with pytest.raises(InputError, match="merge: needs a folder to merge into OUT, got none"):
        dopt.merge(tmp_path / "all")
    assert "the following arguments are required: IN" in refused(capsys, ["merge", str(tmp_path / "all")])


def test_a_target_that_cannot_be_written_is_one_line_and_keeps_what_is_whole(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, real = [0], Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        count[0] += path.name == "history.parquet"
        if count[0] == 3:
            raise OSError(28, "No space left on device")
        return real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(MachineError, match=r"^results: cannot write to .*No space left on device"):
            merge(tmp_path / "all", *shards(made))
    assert slabs(tmp_path / "all") == slabs(made / "1")[:2]  # no halves
    merge(tmp_path / "all", *shards(made))
    assert tables(tmp_path / "all") == tables(made / "whole")
